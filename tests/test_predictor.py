"""A saved head scores a new clip exactly as it scored the stored features, and says what it cannot do."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from msakit import cli
from msakit.encoders import load_encoder
from msakit.features import FeatureStore, extract
from msakit.models import Frames, build_model
from msakit.models.gated import GatedFusion
from msakit.models.layers.packed import Packed
from msakit.models.shifted_bert import ShiftedBert
from msakit.predictor import Prediction, Predictor, PredictorError
from msakit.training.batching import FeatureBatches
from msakit.training.frame_source import FrameSource
from msakit.training.loop import fit, predict, set_seed
from msakit.training.losses import l1
from msakit.training.scaling import Scaling

LAYERS: dict[str, int | None] = {"text": None, "audio": 1, "vision": -1}
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}


@pytest.fixture(scope="module")
def stores(tiny_corpora: Any, tiny_encoders: Any, tiny_features: Path) -> tuple[dict[str, FeatureStore], ...]:
    encoders = (
        {
            "text": {"kind": "text", "path": str(tiny_encoders["bert"])},
            "audio": {"kind": "audio", "path": str(tiny_encoders["wavlm"]), "every": 5},
            "vision": {"kind": "vision", "path": str(tiny_encoders["clip"]), "face_size": 32},
        },
        {"audio": {"kind": "acoustic-set"}, "vision": {"kind": "visual-set"}},
    )
    corpus = tiny_corpora["mini-mosi"]
    return tuple(
        {name: extract(corpus, load_encoder(spec), tiny_features) for name, spec in each.items()} for each in encoders
    )


def taken(store: FeatureStore, ids: list[str], layer: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Frames of these segments one after another, and their lengths."""
    source = FrameSource.of(store, ids, layer)
    spans = zip(source.starts, source.starts + source.lengths, strict=True)
    return np.concatenate([source.frames[..., low:high, :] for low, high in spans], axis=-2), source.lengths


@pytest.fixture(scope="module")
def saved(tiny_corpora: Any, stores: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Folder of a trimodal head trained for two epochs, and its predictions from stored features by segment."""
    corpus, (encoded, _) = tiny_corpora["mini-mosi"], stores
    generator = set_seed(0)
    head = GatedFusion(
        {name: store.dim for name, store in encoded.items()}, 8, 4, 2, n_layers={"text": encoded["text"].n_layers}
    )
    batches = {}
    for split in ("train", "valid", "test"):
        ids = list(corpus.splits[split]["segment_id"])
        features = {name: taken(store, ids, LAYERS[name]) for name, store in encoded.items()}
        labels = np.asarray(corpus.splits[split]["label"])
        batches[split] = FeatureBatches(features, labels, 8, generator=generator if split == "train" else None)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    fit(head, batches["train"], batches["valid"], loss=l1, optimizer=optimizer, epochs=2)
    expected = predict(head, batches["test"])["prediction"]
    folder = tmp_path_factory.mktemp("head") / "best"
    about = {"corpus": corpus.name, "generated": True}
    Predictor.from_stores(head, encoded, LAYERS, about=about).save_pretrained(folder)
    return folder, dict(zip(corpus.splits["test"]["segment_id"], np.asarray(expected), strict=True))


def rows(corpus: Any) -> list[dict[str, Any]]:
    table = corpus.table()
    return table[table["split"] == "test"].to_dict("records")


def test_a_saved_head_scores_a_clip_as_it_scored_the_stored_features(saved, tiny_corpora):
    folder, expected = saved
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "predictor.json"]
    predictor = Predictor.from_pretrained(folder)
    assert predictor.about == {"corpus": "mini-mosi", "generated": True}
    clips = rows(tiny_corpora["mini-mosi"])[:4]
    scores = []
    for row in clips:
        predicted = predictor.predict(video=row["video"], audio=row["audio"], text=row["text"])
        assert predicted.score == pytest.approx(float(expected[row["segment_id"]]), abs=2e-3)
        assert set(predicted.gates) == {"text", "audio", "vision"}
        assert all(0 < gate < 1 for gate in predicted.gates.values())
        assert predicted.absent == {}
        scores.append(predicted.score)
    assert len(set(scores)) == 4


def test_what_is_not_given_is_absent_as_in_the_model(saved, stores, tiny_corpora):
    folder, _ = saved
    predictor = Predictor.from_pretrained(folder)
    encoded, _ = stores
    row, other = rows(tiny_corpora["mini-mosi"])[:2]
    batch = {}
    for name, store in encoded.items():
        frames, lengths = taken(store, [row["segment_id"], other["segment_id"]], LAYERS[name])
        if name == "text":
            frames, lengths = frames[:, lengths[0] :], lengths * np.array([0, 1])
        batch[name] = Packed(torch.from_numpy(frames.astype(np.float32)), torch.from_numpy(lengths))
    with torch.inference_mode():
        output = predictor.head(batch)
    predicted = predictor.predict(video=row["video"], audio=row["audio"])
    assert predicted.score == pytest.approx(float(output["prediction"][0]), abs=2e-3)
    assert predicted.absent == {"text": "no text was given"}
    assert set(predicted.gates) == {"audio", "vision"}
    gates = dict(zip(predictor.head.modalities, output["gates"][0].tolist(), strict=True))
    assert predicted.gates == pytest.approx({name: gates[name] for name in ("audio", "vision")}, abs=2e-3)
    # The generated clips are silent: the sound is missed, not an error.
    silent = predictor.predict(video=row["video"], text=row["text"])
    assert set(silent.absent) == {"audio"}
    assert "has no sound" in silent.absent["audio"]
    assert silent.score != predicted.score


def test_standardised_features_are_standardised_again(stores, tiny_corpora, tmp_path):
    _, conventional = stores
    corpus = tiny_corpora["mini-mosi"]
    store = conventional["audio"]
    known, _ = taken(store, list(corpus.splits["train"]["segment_id"]), 0)
    scaling = Scaling.of_frames([known.astype(np.float32)])
    torch.manual_seed(1)
    head = GatedFusion({"audio": store.dim}, 8, 4, 2, decoder="concat").eval()
    Predictor.from_stores(head, {"audio": store}, {"audio": 0}, scaling={"audio": scaling}).save_pretrained(
        tmp_path / "h"
    )
    row = rows(corpus)[0]
    frames, lengths = taken(store, [row["segment_id"]], 0)
    scaled = scaling(frames.astype(np.float32))
    with torch.inference_mode():
        expected = head({"audio": Packed(torch.from_numpy(scaled), torch.from_numpy(lengths))})["prediction"]
    predicted = Predictor.from_pretrained(tmp_path / "h").predict(audio=row["audio"])
    assert predicted.score == pytest.approx(float(expected[0]), abs=1e-4)
    assert predicted == Prediction(predicted.score, {}, {})


def test_a_head_of_classes_gives_probabilities_by_name(stores, tiny_corpora, tmp_path):
    encoded, _ = stores
    row = rows(tiny_corpora["mini-mosi"])[0]
    store, layers = encoded["text"], {"text": [1, -1]}
    torch.manual_seed(1)
    head = build_model("gated", {"text": Frames(store.dim, 2)}, 3, {"width": 8, "embedding": 4, "heads": 2}).eval()
    names = ["low", "middle", "high"]
    Predictor.from_stores(head, {"text": store}, layers, classes=names).save_pretrained(tmp_path / "h")
    frames, lengths = taken(store, [row["segment_id"]], None)
    batch = {"text": Packed(torch.from_numpy(frames[[1, -1]].astype(np.float32)), torch.from_numpy(lengths))}
    with torch.inference_mode():
        expected = head(batch)["prediction"].softmax(1)[0].tolist()
    found = Predictor.from_pretrained(tmp_path / "h").predict(text=row["text"])
    assert found.score is None
    assert found.probabilities == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-4)
    with pytest.raises(PredictorError, match="the head has 3 classes, and names are given of 2"):
        Predictor.from_stores(head, {"text": store}, layers, classes=["a", "b"]).predict(text=row["text"])


class Own(GatedFusion):
    """A class of a reader's own."""


def test_a_class_of_ones_own_is_loaded_where_it_is_given(stores, tiny_corpora, tmp_path):
    encoded, _ = stores
    head = Own({"text": encoded["text"].dim}, 8, 4, 2)
    saved = Predictor.from_stores(head, {"text": encoded["text"]}, {"text": -1})
    saved.save_pretrained(tmp_path / "h")
    with pytest.raises(PredictorError, match=rf"holds a {__name__}:Own, none of this package: give its class as"):
        Predictor.from_pretrained(tmp_path / "h")
    loaded = Predictor.from_pretrained(tmp_path / "h", model=f"{__name__}:Own")
    assert type(loaded.head).__name__ == "Own"
    assert loaded.predict(text="a film").score == saved.predict(text="a film").score


def test_what_the_head_cannot_do_is_said(saved, stores, tiny_corpora, tmp_path):
    folder, _ = saved
    encoded, _ = stores
    row = rows(tiny_corpora["mini-mosi"])[0]
    predictor = Predictor.from_pretrained(folder)
    with pytest.raises(PredictorError, match="nothing is given: this head reads video, audio, text"):
        predictor.predict()
    with pytest.raises(PredictorError, match=r"vision: the media file .*none\.mp4"):
        predictor.predict(video=tmp_path / "none.mp4", text="so")
    with pytest.raises(PredictorError, match="text: the text is empty"):
        predictor.predict(video=row["video"], text=" ")
    sound = Predictor.from_stores(GatedFusion({"audio": encoded["audio"].dim}, 8, 4, 2), encoded_only(encoded), LAYERS)
    with pytest.raises(PredictorError, match="this head has no use for text: it reads audio; leave the rest out"):
        sound.predict(audio=row["audio"], text="so")
    with pytest.raises(PredictorError, match=r"nothing is left to score \(audio: the file .* has no sound"):
        sound.predict(video=row["video"])
    with pytest.raises(PredictorError, match="uses text, but encoders are given for none"):
        Predictor(GatedFusion({"text": 3}, 8, 4, 2), {"text": Frames(3)}, {}, {})
    spec = {"kind": "precomputed", "path": "x", "array": "text"}
    stored = Predictor(GatedFusion({"text": 3}, 8, 4, 2), {"text": Frames(3)}, {"text": spec}, {"text": -1})
    with pytest.raises(PredictorError, match="came with its corpus"):
        stored.predict(text="so")
    fine_tuned = ShiftedBert({"model_type": "bert", **SMALL}, 3)
    with pytest.raises(PredictorError, match="ShiftedBert takes text as Pretrained; a predictor serves Frames alone"):
        Predictor(fine_tuned, {}, {}, {})


def encoded_only(encoded: dict[str, FeatureStore]) -> dict[str, FeatureStore]:
    return {"audio": encoded["audio"]}


def test_other_weights_and_broken_folders_are_refused(saved, tiny_encoders, tmp_path):
    folder, _ = saved
    moved = tmp_path / "encoders" / "bert"
    shutil.copytree(tiny_encoders["bert"], moved)
    same = Predictor.from_pretrained(folder, encoders={"text": f"text:{moved}"})
    assert same.predict(text="a film").score == Predictor.from_pretrained(folder).predict(text="a film").score
    other = Predictor.from_pretrained(folder, encoders={"text": f"text:{tiny_encoders['distilbert']}"})
    with pytest.raises(PredictorError, match=r"is not the one of the training: name, weights.* differ; give the right"):
        other.predict(text="a film")
    with pytest.raises(PredictorError, match=r"holds no readable predictor\.json"):
        Predictor.from_pretrained(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    content = json.loads((broken / "predictor.json").read_text())
    (broken / "predictor.json").write_text(json.dumps(content | {"version": 0}))
    with pytest.raises(PredictorError, match="is not of version 2"):
        Predictor.from_pretrained(broken)
    (broken / "predictor.json").write_text(json.dumps(content))
    weights = load_file(broken / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "gates" not in name}, broken / "model.safetensors")
    with pytest.raises(PredictorError, match=r"the head cannot be loaded \(.*decoder.gates.weight"):
        Predictor.from_pretrained(broken)
    (broken / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(PredictorError, match="the head cannot be loaded"):
        Predictor.from_pretrained(broken)


def test_the_head_alone_opens_without_the_predictor(saved):
    folder, _ = saved
    assert GatedFusion.from_pretrained(str(folder)).modalities == ("vision", "audio", "text")


def test_the_command_line_gives_score_and_gates(saved, tiny_corpora, tmp_path, monkeypatch):
    folder, expected = saved
    row = rows(tiny_corpora["mini-mosi"])[0]
    arguments = ["--quiet", "predict", row["video"], "--audio", row["audio"], "--text", row["text"]]
    shown = CliRunner().invoke(cli.app, [*arguments, "--head", str(folder)])
    assert shown.exit_code == 0
    predicted = json.loads(shown.stdout)
    assert predicted["score"] == pytest.approx(float(expected[row["segment_id"]]), abs=2e-3)
    assert set(predicted["gates"]) == {"text", "audio", "vision"}
    # Without --head, the heads under results/ are looked through, the one with most modalities first.
    place = tmp_path / "results" / "mini" / "heads" / "ando2022" / "mini-mosi"
    shutil.copytree(folder, place / "best-text-audio-vision")
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(cli.app, ["predict", row["video"]])
    assert shown.exit_code == 0
    predicted = json.loads(shown.stdout)
    assert "vision" in predicted["gates"]
    assert predicted["absent"]["text"] == "no text was given"
    assert "generated data" in shown.stderr
    monkeypatch.chdir(tmp_path / "results")
    shown = CliRunner().invoke(cli.app, ["predict", row["video"]])
    assert shown.exit_code != 0
    assert "no trained head" in str(shown.exception)
