"""The audit finds what was planted: shared videos, copied texts, broken features, a label among the inputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from msakit import cli
from msakit.audit import Audit, audit
from msakit.data.corpus import load_corpus

WORDS = "film actor scene plot music light story voice camera ending joke dialogue pace cast".split()  # noqa: SIM905
SPLITS = ["train"] * 120 + ["valid"] * 40 + ["test"] * 60


def make(folder: Path, name: str = "planted", classes: bool = False, **arrays: Any) -> tuple[Path, pd.DataFrame]:
    """Texts that know a little of the label, five segments a video, and arrays made from (labels, generator)."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    count = len(SPLITS)
    labels = np.round(np.clip(rng.normal(0, 1.5, count), -3, 3), 1)
    texts = []
    for number, label in enumerate(labels):
        words = [*rng.choice(WORDS, 8), "good" if label + rng.normal(0, 1.5) > 0 else "bad", f"number{number}"]
        texts.append(" ".join(rng.permutation(words)))
    table = pd.DataFrame(
        {
            "segment_id": [f"s{number}" for number in range(count)],
            "video_id": [f"{split}-{number // 5}" for number, split in enumerate(SPLITS)],
            "clip_id": [str(number % 5) for number in range(count)],
            "split": SPLITS,
            "label": np.where(labels > 0, "up", "down") if classes else labels,
            "text": texts,
        }
    )
    task = {"kind": "classification", "classes": ["down", "up"]} if classes else {"kind": "regression"}
    (folder / "corpus.json").write_text(json.dumps({"name": name, "generated": False, "task": task}))
    made = {key: values(labels, rng).astype(np.float32) for key, values in arrays.items()}
    if made:
        np.savez(folder / "features.npz", segment_id=np.array(table["segment_id"], dtype=np.str_), **made)
    table.to_csv(folder / "segments.csv", index=False)
    return folder, table


def looked_over(folder: Path) -> Audit:
    return audit(load_corpus(folder))


def noise(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(len(labels), 4, 6)) + 0.1


def leaking(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values = noise(labels, rng)
    # The sign stands out, so that a probe on two classes sees it as well.
    values[:, :, 2] = (labels + np.sign(labels))[:, None] + rng.normal(0, 0.05, (len(labels), 4))
    return values


def test_a_sound_corpus_has_no_warning(tmp_path):
    folder, _ = make(tmp_path / "c", audio=noise)
    found = looked_over(folder)
    assert found.warnings == []
    assert found.overlap["videos in two splits"] == 0
    assert [row["segments"] for row in found.labels] == [120, 40, 60]
    text, audio = found.probes
    assert (text["modality"], audio["modality"]) == ("text", "audio")
    # The word good or bad says something, noise does not.
    assert text["corr"] > 0.2
    assert abs(audio["corr"]) < 0.3
    assert text["known"] == audio["known"] == "no published unimodal range known"


@pytest.mark.parametrize("classes", [False, True])
def test_a_planted_leak_is_a_loud_warning_with_the_figure(tmp_path, classes):
    folder, _ = make(tmp_path / "c", classes=classes, audio=noise, vision=leaking)
    found = looked_over(folder)
    (warning,) = found.warnings
    probe = {row["modality"]: row for row in found.probes}["vision"]
    score = probe["accuracy" if classes else "corr"]
    assert score > 0.95
    assert f"LABEL LEAK? a linear probe on vision has {'accuracy' if classes else 'corr'} {score:.3f}" in warning
    assert "!!! WARNING: LABEL LEAK?" in found.text()


def test_a_probe_better_than_the_best_known_model_is_a_leak(tmp_path):
    def good(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return labels[:, None] + rng.normal(0, 0.7, (len(labels), 1))

    folder, _ = make(tmp_path / "c", name="cmu_mosi", audio=good)
    found = looked_over(folder)
    probe = {row["modality"]: row for row in found.probes}["audio"]
    assert 0.807 < probe["corr"] < 0.95
    assert any(f"corr {probe['corr']:.3f} on test, better than 0.807 (multimodal:" in w for w in found.warnings)
    assert "no published unimodal range known; mae 0.686 to ?" in probe["known"]
    folder, _ = make(tmp_path / "d", name="unheard-of", audio=good)
    assert looked_over(folder).warnings == []


def test_labels_that_do_not_belong_to_their_texts_are_noticed(tmp_path):
    folder, table = make(tmp_path / "c", name="cmu-mosi")
    table["label"] = [3.0 if split != "test" else -3.0 for split in table["split"]]
    table.loc[::7, "label"] = 0.0
    table.to_csv(folder / "segments.csv", index=False)
    assert any("worse than 1.456 (floor" in warning for warning in looked_over(folder).warnings)


def test_overlap_of_splits_by_video_and_by_text(tmp_path):
    folder, table = make(tmp_path / "c")
    table.loc[200, "video_id"] = table.loc[3, "video_id"]
    table.loc[210, "text"] = table.loc[7, "text"].upper() + "!"
    table.loc[130, "text"] = table.loc[8, "text"] + " s"
    table.loc[[5, 211], "text"] = "so good"
    table.to_csv(folder / "segments.csv", index=False)
    found = looked_over(folder)
    assert found.overlap["texts of test nearly in train"] == 1
    assert found.overlap["texts of valid nearly in train"] == 1
    assert found.overlap["texts of test nearly in valid"] == 0
    copies = [warning for warning in found.warnings if "1 of 60 texts of test are nearly those of train" in warning]
    assert [warning.endswith("first: s210 and s7)") for warning in copies] == [True]
    videos = "1 of 44 videos have segments in more than one split (first: train-0)"
    assert any(videos in warning for warning in found.warnings)
    assert any("1 texts of fewer than 4 words" in note for note in found.notes)
    with pytest.raises(ValueError, match="near is 0"):
        audit(load_corpus(folder), near=0.0)


def test_broken_features_are_counted(tmp_path):
    def broken(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        values = noise(labels, rng)
        values[:, :, 4] = 7
        values[3] = 0
        values[5, 2:] = 0
        values[8, 1, 1], values[9, 0, 0] = np.nan, -np.inf
        return values

    folder, _ = make(tmp_path / "c", audio=broken)
    found = looked_over(folder)
    (row,) = found.features
    assert row["shape"] == "220 × 4 × 6"
    assert (row["NaN"], row["infinite"], row["constant columns"], row["all-zero segments"]) == (1, 1, 1, 1)
    assert (row["shortest"], row["longest"]) == (0, 4)
    assert [warning.split(":")[1].split(" of ")[0].strip() for warning in found.warnings] == [
        "2 values are not finite; readers", "1", "1",
    ]  # fmt: skip
    assert np.isfinite(found.probes[1]["mae"])


def test_labels_of_the_wrong_range_and_absent_splits(tmp_path):
    folder, table = make(tmp_path / "c")
    table["label"] = table["label"] / 3
    table = table[table["split"] != "valid"]
    table.to_csv(folder / "segments.csv", index=False)
    found = looked_over(folder)
    assert any("labels lie in [-1, 1], less than half of [-3, 3]" in warning for warning in found.warnings)
    assert "no row is marked valid" in found.warnings
    assert found.probes == []
    assert any("it needs rows of train, valid and test" in note for note in found.notes)


def test_a_generated_corpus_is_held_against_its_oracle(tiny_corpora):
    corpus = tiny_corpora["mini-mosi"]
    found = audit(corpus)
    assert "oracle: the generator's posterior mean" in found.probes[0]["known"]
    assert any("audio files were not probed" in note for note in found.notes)
    media = audit(corpus, media=True)
    assert [row["modality"] for row in media.probes] == ["text", "audio files", "video files"]
    assert all("oracle" in row["known"] for row in media.probes)
    assert not any("not probed" in note for note in media.notes)


def test_the_command_line_is_strict_on_request(tmp_path):
    folder, _ = make(tmp_path / "c", vision=leaking)
    run = CliRunner()
    shown = run.invoke(cli.app, ["data", "audit", str(folder)])
    assert shown.exit_code == 0
    assert "## Linear probes, scored on test" in shown.stdout
    assert "LABEL LEAK?" in shown.stdout
    assert run.invoke(cli.app, ["data", "audit", str(folder), "--strict"]).exit_code == 1
    folder, _ = make(tmp_path / "d", vision=noise)
    assert run.invoke(cli.app, ["data", "audit", str(folder), "--strict"]).exit_code == 0
