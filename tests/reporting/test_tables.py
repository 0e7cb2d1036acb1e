"""Tables from recorded runs: the numbers, the notes that always stand below them, and the same bytes each time."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from small_runs import paper, regression, write

from msakit.reporting import latex, tables
from msakit.reporting.contract import PUBLISHED_COLUMNS
from msakit.runs.store import read_runs

LABEL = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
PAPER = paper(
    metrics={"regression": ["mae", "acc2_non0"], "classification": ["accuracy"]},
    arms={name: {"title": f"Arm {name.upper()}", "model": "gated"} for name in "abc"},
)


def arm(root, name="a", seed=0, error=0.5, **changes):
    given = {"title": f"Arm {name.upper()}", "group": ""} | changes
    write(root, name, seed, regression(LABEL, given.pop("prediction", LABEL + error)), **given)


def as_published(name="as_published_stop", **changes):
    return {"name": name, "stop": "test"} | changes


@pytest.fixture
def runs(tmp_path):
    for seed, error in enumerate((0.25, 0.5, 0.75)):
        arm(tmp_path, "a", seed, error)
        arm(tmp_path, "b", seed, 2 * error, protocol=as_published())
    arm(tmp_path, "oracle", 0, 0.125, title="Oracle", model="reference", reference=True)
    return read_runs(tmp_path)


def table_of(runs, of=PAPER, **options):
    return tables.arm_table(runs, of, "Main table", **options)


MARKDOWN = """## Main table

|        |   seeds |         MAE ↓ |   Acc-2 (t≠0, >0) ↑ | protocol          | from      |
|:-------|--------:|--------------:|--------------------:|:------------------|:----------|
| Arm A  |       3 | 0.500 ± 0.250 |       1.000 ± 0.000 | corrected         | runs      |
| Arm B  |       3 | 1.000 ± 0.500 |       0.917 ± 0.144 | as_published_stop | runs      |
| Oracle |       1 |         0.125 |               1.000 |                   | reference |

- Mean ± sample standard deviation over seeds (ddof 1); the arrow points to better values.
- Segments scored: 5 (Acc-2 (t≠0, >0): 4).
"""


def test_markdown_and_csv(runs):
    table = table_of(runs)
    assert table.name == "mini-mosi"
    assert tables.to_markdown(table).startswith(MARKDOWN)
    lines = tables.to_csv(table).splitlines()
    assert lines[0] == (
        "arm,title,metric,direction,n,unit,mean,sd,low,high,n_segments,source,protocol,best,published,tag,gap"
    )
    assert lines[1] == "a,Arm A,mae,down,3,seeds,0.5,0.25,-0.121034,1.12103,5,runs,corrected,,,,"
    assert lines[-2] == "oracle,Oracle,mae,down,1,seeds,0.125,,,,5,reference,corrected,,,,"
    assert len(lines) == 1 + 3 * 2


def test_notes_that_always_stand_below(runs):
    text = tables.to_markdown(table_of(runs, notes=["Mine."]))
    assert "- Generated data (mini-mosi): evidence about the methods on this generator" in text
    assert "- Protocol as_published_stop (leaks): the epoch is chosen on the test split: Arm B." in text
    assert "- Mine." in text
    assert "- Not run in this profile: Arm C." in text
    assert "- Oracle: the generator's own posterior" in text
    assert "fewer than three seeds" not in text  # the oracle needs one only
    few = tables.to_markdown(table_of(runs.select(seed=[0, 1])))
    assert "An arm with fewer than three seeds or folds" in few
    assert "Generated" not in tables.to_markdown(dataclasses.replace(table_of(runs), notes=()))


def test_a_protocol_is_described_by_what_sets_it_apart(tmp_path):
    published = as_published("as_published", folds="shuffled", drop_last=True, threshold="logits")
    arm(tmp_path, "a", protocol=published)
    arm(tmp_path, "b", protocol={"share": 5})
    arm(tmp_path, "c", protocol={"folds": "none"})
    text = tables.to_markdown(table_of(read_runs(tmp_path)))
    assert (
        "- Protocol as_published (leaks): shuffled folds; the epoch is chosen on the test split; incomplete last "
        "batches are dropped, of the test split too; 0.5 is the threshold of logits: Arm A."
    ) in text
    assert "- Protocol corrected: 5 % of the training split: Arm B." in text
    assert "- Protocol corrected: the corpus's own split, not folds: Arm C." in text


def test_settings_that_differ_between_arms_are_named(tmp_path):
    for name, epochs in (("a", 8), ("b", 12), ("c", 12), ("d", 12)):
        arm(tmp_path, name, settings={"epochs": epochs, "batch_size": 32, "rate": 1e-3 if name < "c" else 5e-4})
    arm(tmp_path, "oracle", title="Oracle", reference=True, settings={"epochs": 1})
    text = tables.to_markdown(table_of(read_runs(tmp_path)))
    differing = "epochs 8 (Arm A), 12 (all others); rate 0.001 (Arm A, Arm B), 0.0005 (Arm C, Arm D)"
    assert f"- Settings that differ between arms: {differing}." in text
    assert "batch_size" not in text


def test_an_arm_that_no_list_knows_stands_behind_the_others_under_its_own_title(tmp_path):
    for name in ("mine", "a", "b"):
        arm(tmp_path, name, title=f"Title of {name}", group="Some group" if name == "mine" else "")
    table = table_of(read_runs(tmp_path))
    assert list(dict.fromkeys(table.frame["title"])) == ["Title of a", "Title of b", "Some group: Title of mine"]
    grouped = {f"{group}{k}": {"title": f"t{k}", "group": group, "model": "m"} for group in "gh" for k in (1, 2)}
    absent = tables.to_markdown(
        table_of(read_runs(tmp_path), paper(arms={**grouped, "z": {"title": "Z", "model": "m"}}))
    )
    assert "- Not run in this profile: g (t1, t2); h (t1, t2); Z." in absent
    shown = table_of(read_runs(tmp_path), elsewhere=["b"], titles={"a": "A here"})
    assert list(dict.fromkeys(shown.frame["title"])) == ["A here", "Some group: Title of mine"]
    assert "Not run in this profile: Arm C." in tables.to_markdown(shown)


def test_folds_are_counted_as_folds_and_their_segments_together(tmp_path):
    """The head once said seeds, and the segments were those of the largest fold."""
    for fold, size in enumerate((5, 4, 4)):
        ids = [f"f{fold}-{index}" for index in range(size)]
        for name in ("a", "b"):
            predictions = regression(LABEL[:size], LABEL[:size] + 0.1 * fold, ids=ids)
            write(tmp_path, name, 0, predictions, fold=(fold, 3), title=name)
    text = tables.to_markdown(table_of(read_runs(tmp_path)))
    assert "|    |   folds |         MAE ↓ |" in text
    assert "| a  |       3 | 0.100 ± 0.100 |" in text
    assert "- Segments scored: 13, over all folds (Acc-2 (t≠0, >0): 10)." in text
    assert "standard deviation over folds (ddof 1)" in text


def test_latex_has_booktabs_rules_and_no_raw_signs(runs):
    text = latex.to_latex(dataclasses.replace(table_of(runs), title="50 % of a_b & c"))
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


def test_latex_of_a_whole_results_folder(runs, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "kim2022").rename(tmp_path / "results" / "runs-of-kim")
    (tmp_path / "results/runs").mkdir()
    (tmp_path / "results/runs-of-kim").rename(tmp_path / "results/runs/kim2022")
    paths = latex.write_all(tmp_path / "results", tmp_path / "tex", {"kim2022": paper()})
    assert paths == [tmp_path / "tex/kim2022/mini-mosi.tex"]
    assert paths[0].read_text().startswith("\\begin{table}")


def test_bold_needs_a_difference_from_every_other_arm(tmp_path):
    label, videos = np.linspace(-2, 2, 40), [f"v{index}" for index in range(40)]
    generator = np.random.default_rng(0)
    for name, error in (("good", 0.1), ("poor", 1.0), ("poorer", 1.01)):
        for seed in range(4):
            predictions = regression(label, label + error * generator.normal(size=40), video_id=videos)
            for again in (name, f"same-{name}") if name == "good" else (name,):
                same = name if again != name else None
                write(tmp_path, again, seed, predictions, title=again, same_as=same)
    write(tmp_path, "oracle", 0, regression(label, label), title="Oracle", reference=True)
    runs = read_runs(tmp_path)

    def lines(*arms):
        table = table_of(runs.select(arm=[*arms, "oracle"]), paper(metrics={"regression": ["mae"]}))
        shown = [line for line in tables.to_markdown(table).splitlines() if "**" in line]
        stored = [line for line in tables.to_csv(table).splitlines() if ",corrected,yes," in line]
        assert len(shown) == len(stored) == latex.to_latex(table).count(r"\textbf{")
        return [line.split()[1] for line in shown]

    assert lines("good", "poor", "poorer") == ["good"]
    # Two that are level: nothing is bold, although one mean is the lowest.
    assert lines("poor", "poorer") == []
    assert lines("good") == []
    # One training under two names is one arm.
    assert lines("good", "same-good", "poor") == ["good", "same-good"]
    text = tables.to_markdown(table_of(runs))
    assert "Arms of equal inputs are one training, recorded under both names: same-good = good." in text


def published(*rows):
    """Values on cmu-mosi, (row, metric, value) each."""
    values = [("cmu-mosi", *row, "the authors' file", "C", "five seeds") for row in rows]
    return pd.DataFrame(values, columns=PUBLISHED_COLUMNS)


def test_equal_runs_take_the_published_row_of_their_own_arm(tmp_path):
    """Arms of one training stand beside their own published rows: the second once copied that of the first."""
    facts = {
        "metrics": {"regression": ["mae", "corr"]},
        "published": {"conv-bert": "Published: BERT", "layer23": "Published: output layer"},
        "published_note": "Mind the labels.",
        "published_beside": {"first": "conv-bert", "second": "layer23"},
    }
    values = published(("conv-bert", "mae", 0.8892), ("conv-bert", "corr", 0.6906), ("layer23", "mae", 0.844),
                       ("layer23", "corr", 0.7163))  # fmt: skip
    for corpus, generated in (("cmu_mosi", False), ("mini-mosi", True)):
        for name, same in (("first", None), ("second", "first"), ("third", None)):
            arm(tmp_path / corpus, name, corpus=corpus, generated=generated, title=name, same_as=same)
    real = table_of(read_runs(tmp_path / "cmu_mosi"), paper(values=values, **facts))
    found = real.frame.dropna(subset="published").set_index(["arm", "metric"])
    assert found["published"].to_dict() == {
        ("first", "mae"): 0.8892, ("first", "corr"): 0.6906, ("second", "mae"): 0.844, ("second", "corr"): 0.7163,
    }  # fmt: skip
    assert found["gap"]["second", "mae"] == pytest.approx(0.5 - 0.844)
    text = tables.to_markdown(real)
    assert "| second: gap to published [C]" in text
    assert "-0.344 |" in text
    assert "| Published: output layer [C]" in text
    assert "- Published: output layer [C: the authors' code or repository]: the authors' file; five seeds." in text
    assert "- Mind the labels." in text
    assert "- Real data (cmu_mosi)." in text
    drawn = table_of(read_runs(tmp_path / "mini-mosi"), paper(values=values, **facts))
    assert drawn.frame["published"].isna().all()
    assert "published [" not in tables.to_markdown(drawn).lower()


def test_a_published_row_that_is_not_there_is_named(tmp_path):
    arm(tmp_path, corpus="cmu_mosi", generated=False)
    known = paper(values=published(("conv", "mae", 0.5)), published={"layer9": "x"})
    with pytest.raises(ValueError, match="no published row 'layer9' on cmu-mosi; there are: conv"):
        table_of(read_runs(tmp_path), known)


def test_bytes_are_stable(runs, tmp_path):
    tables.write(table_of(runs), tmp_path / "x")
    tables.write(table_of(read_runs(runs.where)), tmp_path / "y")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["mini-mosi.csv", "mini-mosi.md"]
    for path in (tmp_path / "x").iterdir():
        assert path.read_bytes() == (tmp_path / "y" / path.name).read_bytes()
        assert b"\r" not in path.read_bytes()


def test_undefined_values_are_shown_as_such(tmp_path):
    arm(tmp_path, "a", 0)
    arm(tmp_path, "a", 1, prediction=np.ones(5))
    table = table_of(read_runs(tmp_path), paper(metrics={"regression": ["corr"]}))
    text = tables.to_markdown(table)
    assert "| Arm A |       2 |        – | corrected  | runs   |" in text
    assert "Corr of Arm A: 1 of 2 runs" in text
    assert ",,,," in tables.to_csv(table).splitlines()[1]


def test_mixed_corpora_are_refused(tmp_path):
    arm(tmp_path, "a", 0)
    arm(tmp_path, "a", 1, fingerprint="beef")
    with pytest.raises(ValueError, match="mix runs of fingerprint beef, f00d; run the older ones again"):
        table_of(read_runs(tmp_path))
    with pytest.raises(ValueError, match="metrics has no entry regression; it has classification"):
        table_of(read_runs(tmp_path).select(seed=0), paper(metrics={"classification": ["accuracy"]}))


def test_other_frames_are_shown_as_they_are():
    frame = pd.DataFrame({"layer": [0, 1], "mae": [0.5, np.nan], "note": ["x", None]})
    text = tables.to_markdown(tables.Table("layers", "Layers", frame))
    assert "| layer   |   MAE ↓ |   note |" in text
    assert "| 1       |       – |        |" in text
    assert tables.to_markdown(tables.Table("none", "None", frame.head(0))) == "## None\n\n(empty)\n"
