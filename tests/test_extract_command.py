"""msakit extract: all layers into a store, an account of it, and a non-zero exit when too much fails."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from msakit import cli
from msakit.features import FeatureStore


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["msakit", "--quiet", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def corpus(tmp_path: Path, tiny_corpora: Any) -> Path:
    """Ten segments of the generated corpus, two of whose sounds are torn."""
    source = tiny_corpora["mini-mosi"]
    folder = tmp_path / "corpus"
    folder.mkdir()
    table = source.table().head(10)
    torn = folder / "torn.wav"
    torn.write_bytes(b"RIFF")
    table["audio"] = [str(torn) if row in (3, 7) else path for row, path in enumerate(table["audio"])]
    table.drop(columns=["video", "kind"]).to_csv(folder / "segments.csv", index=False)
    return folder


def test_the_threshold_of_failures_turns_into_the_exit_code(corpus, tiny_encoders, tmp_path, monkeypatch, capsys):
    spec = f"audio:{tiny_encoders['wavlm']}"
    options = ["-o", "every=5", "--root", tmp_path / "features"]
    assert call(monkeypatch, "extract", corpus, spec, *options, "--max-failed", "0.1") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert "2 of 10 segments failed" in line
    ids = list(pd.read_csv(corpus / "segments.csv")["segment_id"])
    assert ids[3] in line
    assert ids[7] in line
    assert "torn.wav" in line
    assert not list((tmp_path / "features").rglob("layers.npy"))

    assert call(monkeypatch, "extract", corpus, spec, *options, "--max-failed", "0.3") == 0
    folder, *account = capsys.readouterr().out.splitlines()
    counts = dict(line.split(": ") for line in account)
    assert (counts["segments"], counts["failed"], counts["modality"], counts["layers"]) == ("10", "2", "audio", "2")
    store = FeatureStore.open(folder)
    status = store.segments.set_index("segment_id")["status"]
    assert list(status[status == "failed"].index) == [ids[3], ids[7]]
    assert store.config["encoder"]["every"] == 5
    assert store.config["spec"] == {"kind": "audio", "path": tiny_encoders["wavlm"], "every": 5}


def test_a_misspelt_encoder_is_one_line(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert call(monkeypatch, "extract", corpus, f"text:{tmp_path}/brt", "--root", tmp_path / "features") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot open the encoder '{tmp_path}/brt'" in line
