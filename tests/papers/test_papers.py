"""Tables, figures and the check of published results, from the runs of the recipes themselves at toy size."""

import json
import shutil
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from tiny_papers import KIM, KIM_ARMS, SEEDS, TOLEDO_ARMS, ando2022, predictions

from msakit.papers.ando2022.recipe import tables as ando_report
from msakit.papers.kim2022.recipe import tables as kim_report
from msakit.papers.toledo2022.recipe import tables as toledo_report
from msakit.reporting import publish, rebuild
from msakit.reporting.tables import COLUMNS, to_csv, to_markdown, write
from msakit.runs.record import RecordError, file_sha256, read_all

REPORTS = {"ando2022": ando_report, "toledo2022": toledo_report, "kim2022": kim_report}
TABLES = {
    "ando2022": {"mini-mosi", *(f"mini-mosi-{name}" for name in ("layers", "choice", "decoders", "features"))},
    "toledo2022": {f"mini-{name}{kind}" for name in ("posts", "memes") for kind in ("", "-classes", "-cost")},
    "kim2022": {"mini-mosi", "mini-mosi-scoring", "mini-mosi-space"},
}
# Tables of other columns than arms by metrics.
OTHER = ("layers", "choice", "decoders", "features", "classes", "cost", "scoring", "space")


@pytest.fixture(scope="module")
def everything(ando, toledo, kim, tiny_root):
    """All runs of the three papers, and their tables by paper and name."""
    runs = read_all(tiny_root)
    made = {paper: report.tables(runs.select(paper=paper)) for paper, report in REPORTS.items()}
    return SimpleNamespace(root=tiny_root, runs=runs, tables=made)


def by_hand(table, metric):
    """A metric of a run's test predictions, without msakit.evaluation.metrics."""
    label = table["label"].to_numpy()
    if "prediction" in table:
        given = table["prediction"].to_numpy()
        said = label != 0
        return {
            "mae": lambda: np.abs(given - label).mean(),
            "corr": lambda: np.corrcoef(given, label)[0, 1],
            "acc2_non0": lambda: np.mean((given[said] > 0) == (label[said] > 0)),
            "acc2_has0": lambda: np.mean((given >= 0) == (label >= 0)),
            "acc7_round": lambda: np.mean(np.round(given.clip(-3, 3)) == np.round(label.clip(-3, 3))),
        }[metric]()
    probabilities = table[[name for name in table if name.startswith("p_")]].to_numpy()
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    guess = probabilities.argmax(axis=1)
    if metric == "accuracy":
        return accuracy_score(label, guess)
    if metric == "f1_macro":
        return f1_score(label, guess, average="macro", labels=range(probabilities.shape[1]), zero_division=0)
    if probabilities.shape[1] == 2:
        return roc_auc_score(label, probabilities[:, 1])
    return roc_auc_score(label, probabilities, multi_class="ovr", average="macro")


def row(table, arm, metric):
    (found,) = table.frame[(table.frame["arm"] == arm) & (table.frame["metric"] == metric)].to_dict("records")
    return found


@pytest.mark.parametrize("paper", list(REPORTS))
def test_tables_are_named_after_their_corpora(everything, paper):
    assert set(everything.tables[paper]) == TABLES[paper]
    assert all(name == table.name for name, table in everything.tables[paper].items())


def test_rows_of_ando(everything):
    table = everything.tables["ando2022"]["mini-mosi"]
    best = ando2022.best_layers(everything.runs.select(paper="ando2022"))
    recorded = {path.name for path in (everything.root / "ando2022/mini-mosi").iterdir()}
    references = ["constant", "oracle-text", "oracle-audio", "oracle-vision", "oracle"]
    assert set(table.frame["arm"]) == {name for name in recorded if not name.startswith("layer")}
    assert list(dict.fromkeys(table.frame["arm"]))[-5:] == references
    titles = table.frame.set_index("arm")["title"].groupby(level=0).first()
    assert titles["best-audio"].endswith(f": audio {best['audio']}")
    assert titles["convbert-text-audio"].endswith(": text + audio")
    assert titles["best-text-audio-vision.concat"].endswith(f"vision {best['vision']}, concatenated")
    counts = table.frame.groupby("arm")["n_seeds"].max()
    assert counts["best-text-audio-vision"] == len(SEEDS)
    assert counts["oracle"] == 1


def test_rows_of_toledo_and_kim(everything):
    for name in ("mini-posts", "mini-memes"):
        table = everything.tables["toledo2022"][name]
        assert list(dict.fromkeys(table.frame["arm"])) == [*TOLEDO_ARMS, "constant", "oracle"]
        assert list(dict.fromkeys(table.frame["metric"])) == ["accuracy", "f1_macro", "auroc"]
    found = set(everything.tables["kim2022"]["mini-mosi"].frame["arm"])
    assert {*KIM_ARMS, "constant", "oracle"} <= found
    assert "cms" not in found


@pytest.mark.parametrize(
    ("paper", "corpus", "arm", "recorded"),
    [
        ("ando2022", "mini-mosi", "output-text", "layer2-text"),
        ("ando2022", "mini-mosi", "weighted-text-audio-vision", None),
        ("ando2022", "mini-mosi", "oracle-audio", None),
        ("toledo2022", "mini-posts", "joint", None),
        ("toledo2022", "mini-memes", "frozen", None),
        ("toledo2022", "mini-memes", "oracle", None),
        ("kim2022", "mini-mosi", "cms-clr-smooth-ema", None),
    ],
)
def test_numbers_are_those_of_the_predictions(everything, paper, corpus, arm, recorded):
    table = everything.tables[paper][corpus]
    files = sorted((everything.root / paper / corpus / (recorded or arm)).glob("seed-*.json"))
    metrics = list(dict.fromkeys(table.frame["metric"]))
    assert len(metrics) >= 3
    for metric in metrics:
        scores = [
            by_hand(predictions(everything.root, paper, corpus, recorded or arm, seed), metric)
            for seed in range(len(files))
        ]
        found = row(table, arm, metric)
        assert found["n_seeds"] == len(files)
        assert found["mean"] == pytest.approx(np.mean(scores), rel=1e-5, nan_ok=True), metric
        if len(files) > 1:
            assert found["sd"] == pytest.approx(np.std(scores, ddof=1), rel=1e-4, abs=1e-9, nan_ok=True), metric
        else:
            assert pd.isna(found["sd"])


def test_layer_table_has_both_splits_and_both_roles(everything):
    frame = everything.tables["ando2022"]["mini-mosi-layers"].frame
    assert list(zip(frame["modality"], frame["layer"], strict=True)) == [
        ("text", 0), ("text", 1), ("text", 2), ("audio", 0), ("audio", 1), ("vision", 0), ("vision", 1),
    ]  # fmt: skip
    for place in frame.to_dict("records"):
        for split in ("valid", "test"):
            arm = f"layer{place['layer']}-{place['modality']}"
            tables = [predictions(everything.root, "ando2022", "mini-mosi", arm, seed, split) for seed in SEEDS]
            maes = [by_hand(table, "mae") for table in tables]
            assert place[f"{split} MAE"] == pytest.approx(np.mean(maes), rel=1e-5)
            assert place[f"{split} s.d."] == pytest.approx(np.std(maes, ddof=1), rel=1e-3, abs=1e-8)
    for _, part in frame.groupby("modality"):
        chosen = part["role"].str.contains("chosen on validation")
        assert list(part["layer"][chosen]) == [part.loc[part["valid MAE"].idxmin(), "layer"]]
        assert list(part["layer"][part["role"].str.contains("output layer")]) == [part["layer"].max()]


def test_what_the_notes_say(everything):
    text = {
        paper: {name: to_markdown(table) for name, table in made.items()} for paper, made in everything.tables.items()
    }
    for made in text.values():
        for name, markdown in made.items():
            corpus = "-".join(name.split("-")[:2])
            assert f"Generated data ({corpus})" in markdown
    arms = [markdown for made in text.values() for name, markdown in made.items() if not name.endswith(OTHER)]
    assert all("Oracle: the generator's own posterior" in markdown for markdown in arms)
    assert all("fewer than three seeds" in markdown for markdown in arms)
    assert "RECONSTRUCTED: the equations of CMSBERT-CLR are not public" in text["kim2022"]["mini-mosi"]
    assert "Not run in this profile: Text only (fine-tuned BERT), MAG, as" in text["kim2022"]["mini-mosi"]
    assert "No number of the paper could be found" in text["toledo2022"]["mini-posts"]
    assert "chosen on the validation split" in text["ando2022"]["mini-mosi"]
    for paper in ("ando2022", "toledo2022"):
        assert not any("RECONSTRUCTED" in markdown for markdown in text[paper].values())


def test_tables_are_the_same_bytes_from_a_second_reading(everything):
    again = read_all(everything.root)
    for paper, report in REPORTS.items():
        for name, table in report.tables(again.select(paper=paper)).items():
            assert to_csv(table) == to_csv(everything.tables[paper][name])
            assert to_markdown(table) == to_markdown(everything.tables[paper][name])


KIM_FIGURES = ("arms", "convergence", "shifts", "space", "kinds")


def test_figures_write_pictures_and_the_numbers_in_them(everything, tmp_path):
    expected = {
        "ando2022": {
            f"mini-mosi-{name}"
            for name in ("layers", "weights", "arms", "scatter", "confusion", "gates", "embeddings", "attention")
        },
        "toledo2022": {
            *(
                f"mini-{name}-{kind}"
                for name in ("posts", "memes")
                for kind in ("arms", "cost", "embeddings", "calibration", "examples")
            ),
            "mini-posts-agreement",
        },
        "kim2022": {f"mini-mosi-{name}" for name in KIM_FIGURES},
    }
    for paper, report in REPORTS.items():
        figures = report.figures(everything.runs.select(paper=paper), tmp_path / paper)
        assert {path.name for path in (tmp_path / paper).iterdir()} == {
            f"{name}.{end}" for name in expected[paper] for end in ("png", "csv")
        }
        assert len(figures) == len(expected[paper])
        for name in expected[paper]:
            assert (tmp_path / paper / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    plt.close("all")
    points = pd.read_csv(tmp_path / "kim2022/mini-mosi-arms.csv").set_index(["arm", "seed"])["value"]
    assert set(points.index) == {(arm, seed) for arm in KIM_ARMS for seed in SEEDS}
    for (arm, seed), value in points.items():
        table = predictions(everything.root, "kim2022", "mini-mosi", arm, seed)
        assert value == pytest.approx(by_hand(table, "mae"), rel=1e-4)
    curves = pd.read_csv(tmp_path / "kim2022/mini-mosi-convergence.csv")
    assert set(curves["series"]) == {"with averaging"}
    assert sorted(zip(curves["seed"], curves["epoch"], strict=True)) == [(seed, k) for seed in SEEDS for k in (1, 2)]


# -- published results


@pytest.fixture(scope="module")
def published(everything, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(everything.root, folder / "built" / "runs")
    rebuild.write_tables(folder / "built")
    kim_report.figures(everything.runs.select(paper="kim2022"), folder / "built" / "figures" / "kim2022")
    plt.close("all")
    publish.publish(folder / "built", folder / "results" / "tiny", "tiny")
    return folder / "results" / "tiny"


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "tiny")


def test_published_results_pass_the_check(published):
    assert rebuild.check(published).endswith("files rebuilt from their runs, all as committed")
    content = json.loads((published / "manifest.json").read_text())
    assert content["papers"] == ["ando2022", "kim2022", "toledo2022"]
    assert all(corpus["generated"] for corpus in content["corpora"].values())
    assert content["runs"] == len(list((published / "runs").rglob("*.json")))


def test_every_published_table_is_a_long_one_or_the_layers(published):
    for path in (published / "tables").rglob("*.csv"):
        if not path.stem.endswith(OTHER):
            assert list(pd.read_csv(path)) == COLUMNS


def test_an_edited_table_is_named(copy):
    path = copy / "tables/kim2022/mini-mosi.md"
    lines = path.read_text().splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("| MAG"))
    lines[place] = lines[place].replace("2 |", "3 |", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(rebuild.CheckError) as caught:
        rebuild.check(copy)
    message = str(caught.value)
    assert "2 differences; publish the results again" in message
    assert "tables/kim2022/mini-mosi.md: differs" in message
    assert "  -| MAG" in message
    assert "ando2022" not in message


def test_an_edited_prediction_is_named(copy):
    path = copy / "runs/toledo2022/mini-posts/joint/seed-1.csv"
    table = pd.read_csv(path)
    table.loc[table["split"] == "test", "p_positive"] = 1.0
    table.to_csv(path, index=False)
    with pytest.raises(RecordError, match=r"mini-posts/joint/seed-1\.csv: sha256 .*\(torn or edited\); delete it and"):
        rebuild.check(copy)


def test_a_prediction_edited_with_its_checksum_shows_in_the_table(copy):
    path = copy / "runs/kim2022/mini-mosi/mag/seed-0.csv"
    table = pd.read_csv(path)
    table.loc[table["split"] == "test", "prediction"] = table["label"]
    table.to_csv(path, index=False)
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(record | {"predictions_sha256": file_sha256(path)}))
    with pytest.raises(rebuild.CheckError) as caught:
        rebuild.check(copy)
    for fault in ("tables/kim2022/mini-mosi.csv: differs", "tables/kim2022/mini-mosi.md: differs",
                  "mag/seed-0.csv: sha256 is not the manifest's", "mag/seed-0.json: sha256 is not"):  # fmt: skip
        assert fault in str(caught.value)


def test_an_edited_manifest_is_noticed(copy):
    path = copy / "manifest.json"
    content = json.loads(path.read_text())
    name = next(name for name in content["files"] if name.endswith(".png"))
    content["files"][name] = "0" * 64
    content["files"]["tables/kim2022/never.md"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(rebuild.CheckError) as caught:
        rebuild.check(copy)
    assert f"{name}: sha256 is not the manifest's" in str(caught.value)
    assert "tables/kim2022/never.md: in the manifest, but not there" in str(caught.value)


def test_a_dropped_arm_leaves_results_that_pass_the_check(kim, tmp_path):
    shutil.copytree(kim.root / "kim2022", tmp_path / "built/runs/kim2022")
    runs = kim.call(KIM, ["mag"], SEEDS, tmp_path / "built/runs")
    for table in kim_report.tables(runs).values():
        write(table, tmp_path / "built/tables/kim2022")
    publish.publish(tmp_path / "built", tmp_path / "results/tiny", "tiny")
    rebuild.check(tmp_path / "results/tiny")
