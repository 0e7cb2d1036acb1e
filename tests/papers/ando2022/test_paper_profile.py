"""The `paper` profile of Ando et al. with stand-ins: the published layouts, the published architectures, one epoch.

The profile's own parameters are run, with nothing replaced but paths, sizes, seeds and epochs: corpora of a few
segments lie in the layouts of CMU-MOSI and CMU-MOSEI and are brought in by the importers; checkpoints are small and
untrained, but BERT, WavLM (layer norm in its feature extractor) and CLIP (both towers). What is then missing for the
paper's numbers are the data, the weights and the hours.
"""

import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from msakit.data.corpus import load_corpus
from msakit.data.importers import import_corpus
from msakit.encoders.pretrain.common import word_pieces
from msakit.notebook import resolve, template_declarations, with_preset
from msakit.papers import choose_arms
from msakit.papers.ando2022 import recipe
from msakit.papers.ando2022.inputs import Inputs, extract_all
from msakit.papers.ando2022.tables import tables
from msakit.profiles import load_profile
from msakit.reporting.tables import to_markdown
from msakit.strict import parse

ROOT = Path(__file__).parents[3]
DECLARED = template_declarations(ROOT / "notebooks/experiments/ando2022.ipynb")
PARAMETERS = with_preset(DECLARED, resolve(DECLARED, {}), load_profile("paper").parameters("ando2022"), "paper")
CASES = {
    Path(folder).name: {kind: PARAMETERS[kind] | other.get(kind, {}) for kind in ("encoders", "settings")}
    for folder in PARAMETERS["corpora"]
    for other in [PARAMETERS["by_corpus"].get(Path(folder).name, {})]
}
BLOCKS = 2  # of each stand-in, instead of 24
KEPT = {"train": 2, "valid": 1, "test": 1}  # videos a split of the generated corpus that lends its media
DIMS = {"text": 6, "audio": 5, "vision": 4}  # of the SDK's features, instead of 300, 74, 35
SEQUENCES = {"text": "X_glove_wordvectors", "audio": "X_COVAREP", "vision": "X_FACET"}
STEP = 10.0  # seconds between the starts of a video's segments


def csd(path: Path, root: str, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """A computational sequence of the SDK: features and intervals of each video."""
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in data.items():
            group = file.create_group(f"{root}/data/{video}")
            group.create_dataset("features", data=features)
            group.create_dataset("intervals", data=np.asarray(intervals, np.float32))


def sdk_folder(folder: Path, root: str, segments: pd.DataFrame) -> None:
    """Labels, timestamped words and three features; each segment starts STEP seconds after the one before it."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    videos = {str(video): part for video, part in segments.groupby("video_id")}
    spans = {video: np.array([[k * STEP, k * STEP + 4] for k in range(len(part))]) for video, part in videos.items()}
    labels = {video: (part[["label"]].to_numpy(np.float32), spans[video]) for video, part in videos.items()}
    csd(folder / "labels.csd", root, labels)
    words = {}
    for video, part in videos.items():
        said = [
            (word, k * STEP + 0.2 * n) for k, text in enumerate(part["text"]) for n, word in enumerate(text.split())
        ]
        times = np.array([[start, start + 0.2] for _, start in said])
        words[video] = (np.array([[word.encode()] for word, _ in said]), times)
    csd(folder / "X_TimestampedWords.csd", "words", words)
    for name, stem in SEQUENCES.items():
        frames = {}
        for video, part in videos.items():
            times = np.concatenate([k * STEP + np.arange(8) / 2 for k in range(len(part))])
            values = random.normal(size=(len(times), DIMS[name])).astype(np.float32)
            frames[video] = (values, np.stack([times, times + 0.5], axis=1))
        csd(folder / f"{stem}.csd", stem, frames)


def raw_folder(folder: Path, name: str, segments: pd.DataFrame) -> None:
    """Transcripts and segmented media of CMU-MOSI or CMU-MOSEI; media are links to those of the generated corpus."""
    for video, part in segments.groupby("video_id"):
        mosi = name == "cmu-mosi"
        numbers = range(1, len(part) + 1) if mosi else range(len(part))
        lines = [
            f"{n}_DELIM_{text}" if mosi else f"{video}___{n}___{k * STEP}___{k * STEP + 4}___{text}"
            for k, (n, text) in enumerate(zip(numbers, part["text"], strict=True))
        ]
        place = folder / ("Transcript/Segmented" if mosi else "Transcript/Segmented/Combined")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{video}.{'annotprocessed' if mosi else 'txt'}").write_text("\n".join(lines) + "\n")
        for kind, home in (("audio", "Audio/WAV_16000/Segmented"), ("video", "Video/Segmented")):
            (folder / home).mkdir(parents=True, exist_ok=True)
            for n, path in zip(numbers, part[kind], strict=True):
                os.symlink(path, folder / home / f"{video}_{n}{Path(path).suffix}")


@pytest.fixture(scope="module")
def segments(tiny_corpora) -> pd.DataFrame:
    """A few videos of the generated corpus, whole."""
    table = tiny_corpora["mini-mosi"].table()
    chosen = [video for split, n in KEPT.items() for video in table[table["split"] == split]["video_id"].unique()[:n]]
    return table[table["video_id"].isin(chosen)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, segments: pd.DataFrame) -> Path:
    """The folder that stands for the project's: data/<corpus> as the profile's comment says they are imported."""
    folder = tmp_path_factory.mktemp("paper")
    folds = {str(split): sorted(part["video_id"].unique()) for split, part in segments.groupby("split")}
    for name, root in (("cmu-mosi", "Opinion Segment Labels"), ("cmu-mosei", "All Labels")):
        raw, sdk = folder / name / "Raw", folder / name / "SDK"
        raw_folder(raw, name, segments)
        sdk_folder(sdk, root, segments)
        importer = name.removeprefix("cmu-") + "-raw"
        import_corpus(importer, raw, folder / f"data/{name}", labels=sdk / "labels.csd", splits=folds)
        import_corpus("csd", sdk, folder / f"data/{name}-sdk", splits=folds, max_frames=150)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, segments: pd.DataFrame) -> dict[str, str]:
    """Published name -> folder of an untrained checkpoint of that architecture."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    tokenizer = word_pieces(list(segments["text"]), 300, 64)
    small = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": BLOCKS}
    bert = BertConfig(**small, vocab_size=len(tokenizer), max_position_embeddings=64)
    wavlm = WavLMConfig(**small, conv_dim=(4,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
                        feat_extract_norm="layer", do_stable_layer_norm=True)  # fmt: skip
    text = {**small, "vocab_size": 40, "max_position_embeddings": 16}
    clip = CLIPConfig(text_config=text, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8)
    square = {"height": 16, "width": 16}
    made = {
        "bert-large-uncased": (BertModel(bert), tokenizer),
        "microsoft/wavlm-large": (WavLMModel(wavlm), Wav2Vec2FeatureExtractor(do_normalize=True)),
        "openai/clip-vit-large-patch14": (
            CLIPModel(clip),
            CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square),
        ),
    }
    for name, parts in made.items():
        for part in parts:
            part.save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}


def stand_in(specs: dict, place: Path, checkpoints: dict[str, str]) -> dict:
    """The same encoders, by the paths that stand for the published ones."""
    paths = {name: checkpoints.get(spec["path"], str(place / spec["path"])) for name, spec in specs.items()}
    return {name: spec | {"path": paths[name]} for name, spec in specs.items()}


def test_the_profile_says_what_the_paper_used():
    assert list(CASES) == ["cmu-mosi", "cmu-mosei"]
    sizes = {name: parse(recipe.Settings, case["settings"], name) for name, case in CASES.items()}
    assert (sizes["cmu-mosi"].width, sizes["cmu-mosi"].embedding) == (128, 64)
    assert (sizes["cmu-mosei"].width, sizes["cmu-mosei"].embedding) == (256, 128)
    assert sizes["cmu-mosi"] == recipe.Settings(), "the defaults are the published settings"
    for name, settings in sizes.items():
        assert (settings.heads, settings.dropout, settings.batch_size, settings.spec_augment) == (4, 0.2, 16, True)
        assert (settings.epochs, settings.warmup_epochs, settings.cosine_epochs) == (50, 10, 50)
        assert settings.learning_rate == 1e-4
        encoders = CASES[name]["encoders"]
        assert encoders["audio"]["every"] == 10
        assert (encoders["vision"]["fps"], encoders["vision"]["face_size"]) == (3, 256)
    assert PARAMETERS["seeds"] == [0, 1, 2, 3, 4]
    assert PARAMETERS["layers"] == list(range(1, 25))
    assert PARAMETERS["arms"] is None


@pytest.mark.parametrize("name", list(CASES))
def test_every_arm_of_the_profile_runs(name, place, checkpoints, segments, tmp_path):
    corpus = load_corpus(place / "data" / name)
    assert corpus.name == name, "by_corpus goes by this name"
    assert {split: len(rows) for split, rows in corpus.splits.items()} == dict(segments["split"].value_counts())
    stores = extract_all(corpus, stand_in(CASES[name]["encoders"], place, checkpoints), tmp_path / "features")
    for modality, dim in DIMS.items():
        assert stores[modality].n_layers == BLOCKS + 1
        assert stores[f"conventional-{modality}"].dim == dim
    for store in stores.values():
        assert (store.segments["status"] == "ok").all(), store.folder
    small = {"width": 8, "embedding": 4, "epochs": 1, "warmup_epochs": 1, "cosine_epochs": 1, "batch_size": 4}
    settings = parse(recipe.Settings, CASES[name]["settings"] | small, name)
    layers = [layer for layer in PARAMETERS["layers"] if layer <= BLOCKS]
    arms = choose_arms("ando2022", PARAMETERS["arms"], lacks=Inputs(stores, layers).lacks)
    runs = recipe.run(corpus, arms, stores, settings, PARAMETERS["seeds"][:1], tmp_path / "runs", layers=layers)
    assert set(runs.frame["arm"]) == {*arms, "constant"}
    assert len(arms) == 3 * BLOCKS + 4 * 11 + 6
    weights = runs.select(arm="weighted-text-audio-vision").runs[0].record.measurements["layer_weights"]
    assert {modality: len(values) for modality, values in weights.items()} == dict.fromkeys(DIMS, BLOCKS)
    text = to_markdown(tables(runs)[corpus.name])
    for row in ("conventional", "conventional, BERT text", "output layer", "mid-best layers", "weighted"):
        assert f"{row} [C]" in text
    assert "the reverse of its own raw score files" in text
    assert "Generated data" not in text
    assert len(list((tmp_path / "heads/ando2022" / corpus.name).iterdir())) == 7
