"""Tables from recorded runs: the numbers, what is always said with them, and the same bytes each time."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from msakit.evaluation.metrics import Score
from msakit.reporting import tables
from msakit.runs import record as records

LABEL = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def write_run(root, arm="a", seed=0, error=0.5, generated=True, prediction=None, **changes):
    prediction = LABEL + error if prediction is None else prediction
    return store(root, arm, seed, prediction, LABEL, list("abcde"), generated=generated, **changes)


def store(root, arm, seed, prediction, label, ids, generated=True, **changes):
    frame = pd.DataFrame({"segment_id": ids, "split": "test", "label": label, "prediction": prediction})
    fingerprint = changes.pop("fingerprint", "f00d")
    record = records.RunRecord(
        paper="ando2022", arm=arm, seed=seed, key="k", config={}, history=[], environment=records.environment(),
        corpus={"name": changes.pop("corpus", "mini-mosi"), "fingerprint": fingerprint, "generated": generated,
                "counts": {"test": len(ids)}},
        selection={"split": changes.pop("selected_on", "valid"), "metric": "mae", "value": 1.0, "epoch": 0},
        seconds=1.0, protocol=changes.pop("protocol", "corrected"),
    )  # fmt: skip
    return records.write(root, record, frame)


@pytest.fixture
def runs(tmp_path):
    for seed, error in enumerate((0.25, 0.5, 0.75)):
        write_run(tmp_path, "a", seed, error)
        write_run(tmp_path, "b", seed, 2 * error, protocol="as_published", selected_on="test")
    write_run(tmp_path, "oracle", 0, 0.125)
    return records.read_all(tmp_path)


def summary(runs, **changes):
    given = {
        "name": "main",
        "title": "Main table",
        "arms": {"a": "Arm A", "b": "Arm B", "c": "Arm C"},
        "metric_names": ["mae", "acc2_non0"],
        "references": {"oracle": "Oracle"},
    }
    return tables.summarise(runs, **(given | changes))


MARKDOWN = """## Main table

|        |   seeds |         MAE ↓ |   Acc-2 (t≠0, >0) ↑ | protocol     | from      |
|:-------|--------:|--------------:|--------------------:|:-------------|:----------|
| Arm A  |       3 | 0.500 ± 0.250 |       1.000 ± 0.000 | corrected    | runs      |
| Arm B  |       3 | 1.000 ± 0.500 |       0.917 ± 0.144 | as_published | runs      |
| Oracle |       1 |         0.125 |               1.000 |              | reference |

- Mean ± sample standard deviation over seeds (ddof 1); the arrow points to better values.
- Segments scored: 5 (Acc-2 (t≠0, >0): 4).
"""


def test_markdown_and_csv(runs):
    table = summary(runs)
    assert tables.to_markdown(table).startswith(MARKDOWN)
    lines = tables.to_csv(table).splitlines()
    assert lines[0] == (
        "arm,title,metric,direction,n_seeds,mean,sd,low,high,n_segments,source,protocol,best,published,tag,gap"
    )
    assert lines[1] == "a,Arm A,mae,down,3,0.5,0.25,-0.121034,1.12103,5,runs,corrected,,,,"
    assert lines[-2] == "oracle,Oracle,mae,down,1,0.125,,,,5,reference,corrected,,,,"
    assert len(lines) == 1 + 3 * 2


def test_what_is_always_said(runs):
    text = tables.to_markdown(summary(runs, notes=["Mine."]))
    assert "- Generated data (mini-mosi): evidence about the methods on this generator" in text
    assert "as published (leaks): the epoch is chosen on the test split: Arm B." in text
    assert "- Mine." in text
    assert "- Not run in this profile: Arm C." in text
    assert "fewer than three seeds" not in text  # the oracle needs one only
    few = tables.to_markdown(summary(runs.select(seed=[0, 1])))
    assert "An arm with fewer than three seeds" in few
    assert "Generated" not in tables.to_markdown(dataclasses.replace(summary(runs), notes=()))


def test_latex_has_booktabs_rules_and_no_raw_signs(runs):
    text = tables.to_latex(summary(runs, title="50 % of a_b & c"))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert r"\midrule" in body
    rows = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 4
    assert {row.count(" & ") for row in rows} == {5}  # six columns each
    assert r"Arm A & 3 & 0.500 \ensuremath{\pm} 0.250 & 1.000 \ensuremath{\pm} 0.000 & corrected & runs \\" in text
    assert r"MAE \ensuremath{\downarrow}" in text
    assert r"\caption{50 \% of a\_b \& c}" in text
    assert text.isascii()
    assert text.count("{") == text.count("}")


def test_bold_needs_a_difference_from_every_other_arm(tmp_path):
    ids, label = [f"v{index}_0" for index in range(40)], np.linspace(-2, 2, 40)
    generator = np.random.default_rng(0)
    for arm, error in (("good", 0.1), ("poor", 1.0), ("poorer", 1.01)):
        for seed in range(4):
            store(tmp_path, arm, seed, label + error * generator.normal(size=40), label, ids)
    store(tmp_path, "oracle", 0, label, label, ids)
    runs = records.read_all(tmp_path)
    arms = {"good": "Good", "poor": "Poor", "poorer": "Poorer"}

    def lines(**changes):
        table = summary(runs, **({"arms": arms, "metric_names": ["mae"]} | changes))
        shown = [line for line in tables.to_markdown(table).splitlines() if "**" in line]
        stored = [line for line in tables.to_csv(table).splitlines() if ",corrected,yes," in line]
        assert len(shown) == len(stored) == tables.to_latex(table).count(r"\textbf{")
        return shown

    assert [line.split()[1] for line in lines()] == ["Good"]
    # Two that are level: nothing is bold, although one mean is the lowest.
    assert lines(arms={"poor": "Poor", "poorer": "Poorer"}) == []
    assert lines(arms={"good": "Good"}) == []
    # The same runs under two names are one arm.
    table = summary(runs, arms=arms, metric_names=["mae"])
    again = table.frame[table.frame["arm"] == "good"].assign(arm="chosen", title="Chosen")
    both = dataclasses.replace(table, frame=pd.concat([table.frame, again], ignore_index=True))
    assert tables.to_markdown(both).count("**") == 4


def test_the_published_value_stands_beside_real_data_only(tmp_path, monkeypatch):
    monkeypatch.setattr(tables.papers, "facts", lambda paper: {"published_beside": {"best": "layerbest", "a": "conv"}})
    for corpus, generated in (("cmu_mosi", False), ("mini-mosi", True)):
        for arm in ("a", "best-text-audio", "best-text", "best-text-audio.concat"):
            write_run(tmp_path / corpus, arm, corpus=corpus, generated=generated)
    arms = {arm: arm for arm in ("a", "best-text-audio", "best-text", "best-text-audio.concat")}
    real = summary(records.read_all(tmp_path / "cmu_mosi"), arms=arms, metric_names=["mae", "acc2_non0"])
    found = real.frame.dropna(subset="published").set_index("arm")
    assert found["published"].to_dict() == {"a": 0.9343, "best-text-audio": 0.8334}
    assert found["gap"].to_dict() == {"a": pytest.approx(0.5 - 0.9343), "best-text-audio": pytest.approx(0.5 - 0.8334)}
    text = tables.to_markdown(real)
    assert "| a: gap to published [C]" in text
    assert "-0.434 |" in text
    made_up = summary(records.read_all(tmp_path / "mini-mosi"), arms=arms, metric_names=["mae"])
    assert made_up.frame["published"].isna().all()
    assert "gap" not in tables.to_markdown(made_up).lower()


def test_bytes_are_stable(runs, tmp_path):
    first = tables.write(summary(runs), tmp_path / "x")
    second = tables.write(summary(records.read_all(runs.root)), tmp_path / "y")
    assert [path.name for path in first] == ["main.csv", "main.md", "main.tex"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert b"\r" not in a.read_bytes()


def test_undefined_values_are_shown_as_such(tmp_path):
    write_run(tmp_path, "a", 0)
    write_run(tmp_path, "a", 1, prediction=np.ones(5))
    table = summary(records.read_all(tmp_path), metric_names=["corr"])
    text = tables.to_markdown(table)
    assert "| Arm A |       2 |        – | corrected  | runs   |" in text
    assert "Corr of Arm A: 1 of 2 seeds" in text
    assert ",,,," in tables.to_csv(table).splitlines()[1]


def test_mixed_corpora_are_refused(tmp_path):
    write_run(tmp_path, "a", 0)
    write_run(tmp_path, "a", 1, fingerprint="beef")
    with pytest.raises(ValueError, match="mix runs of fingerprint beef, f00d; run the older ones again"):
        summary(records.read_all(tmp_path))


def test_rows_from_elsewhere(runs):
    oracle = tables.reference_row("best", "Posterior mean", LABEL, LABEL, ["mae"], note="The best there is.")
    assert oracle.scores == {"mae": Score(0.0, 5)}
    published = tables.published_rows(tables.read_published(), "ando2022", "cmu-mosi", {"layerall": "Their weighted"})
    table = summary(runs, metric_names=["mae"], extra=[oracle, *published])
    text = tables.to_markdown(table)
    assert "| Posterior mean     |         |         0.000 |              | reference |" in text
    assert "| Their weighted [C] |         |        0.8119 |              | published |" in text
    assert "- The best there is." in text
    assert "Their weighted [C: the authors' code or repository], on cmu-mosi: ando-hub/MSA_Pretrain" in text
    assert "the reverse of its raw files" in text
    row = table.frame[table.frame["arm"] == "layerall"].iloc[0]
    assert row["source"].endswith("[C]")
    assert pd.isna(row["n_seeds"])
    with pytest.raises(ValueError, match="no published row 'layer9' of ando2022 on cmu-mosi; there are: conv, "):
        tables.published_rows(tables.read_published(), "ando2022", "cmu-mosi", {"layer9": "x"})


def test_published_values():
    frame = tables.read_published()
    assert len(frame) == 28
    counts = frame.groupby(["paper", "corpus"]).size().to_dict()
    assert counts == {("ando2022", "cmu-mosei"): 10, ("ando2022", "cmu-mosi"): 10, ("kim2022", "cmu-mosei"): 4,
                      ("kim2022", "cmu-mosi"): 4}  # fmt: skip
    assert set(frame["tag"]) == {"C", "S"}
    assert (frame["note"] != "").all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("tag", "X", "line 3: tag 'X'"), ("value", "high", "line 3: value 'high' is no number"),
     ("source", "", "line 3: a published value needs its source"), ("metric", "acc", "no metric is called 'acc'")],
)  # fmt: skip
def test_published_faults(tmp_path, column, value, message):
    frame = tables.read_published().head(2).astype({"value": str})
    frame.loc[1, column] = value
    path = tmp_path / "published.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        tables.read_published(path)
    with pytest.raises(ValueError, match="no such table of published values"):
        tables.read_published(tmp_path / "none.csv")


def test_other_frames_are_shown_as_they_are():
    frame = pd.DataFrame({"layer": [0, 1], "mae": [0.5, np.nan], "note": ["x", None]})
    text = tables.to_markdown(tables.Table("layers", "Layers", frame))
    assert "| layer   |   MAE ↓ |   note |" in text
    assert "| 1       |       – |        |" in text
    assert tables.to_markdown(tables.Table("none", "None", frame.head(0))) == "## None\n\n(empty)\n"


def test_records_are_json(runs):
    for run in runs:
        assert json.loads(run.path.read_text())["schema"] == records.SCHEMA
