"""Tables and figures of Toledo & Marcacini 2022, from recorded runs alone.

In fold mode the k-th run of an arm is its k-th fold: means, spreads and intervals are then over folds, whose training
parts overlap, so that the intervals are somewhat too narrow.
"""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from msakit.evaluation import metrics, statistics
from msakit.papers import facts
from msakit.papers.toledo2022.protocol import SHARE, parse
from msakit.papers.toledo2022.recipe import PAPER
from msakit.papers.toledo2022.recipe import figures as toledo_figures
from msakit.reporting import figures as draw
from msakit.reporting.corpora import arm_figure, arm_table, by_corpus, kind_of_data
from msakit.reporting.tables import Table
from msakit.runs.record import Run, Runs

NOTES = (
    "Runs of an arm are folds where the corpus is run in folds, seeds otherwise. The training parts of folds overlap, "
    "so intervals over folds are somewhat too narrow.",
    "Protocol corrected: stratified folds, early stopping on a validation part of the training folds, nothing dropped, "
    "attention over the two modality tokens, 0.5 on probabilities.",
    "VisualBERT sees grid cells of the image encoder in place of detected regions.",
    "No number of the paper could be found in public, so there is no reference row.",
)
# The measure of the figures: chance is 0.5 whatever the class shares.
METRIC = "auroc"
SCORES = ("accuracy", "f1_macro", "auroc")
LOW_RESOURCE = ("joint", "frozen", "clip-probe")
COSTS = {
    "trainable_parameters": "trainable parameters",
    "total_parameters": "all parameters",
    "flops_per_sample": "operations a sample (training)",
    "seconds_per_epoch": "time an epoch",
    "epoch_peak_memory_mb": "peak memory of an epoch",
}


def titles() -> dict[str, str]:
    """Arm -> title, in the order of ``toledo2022.yaml``."""
    return {arm: str(values["title"]) for arm, values in facts(PAPER)["arms"].items()}


def tables(runs: Runs) -> dict[str, Table]:
    """By name, for each corpus: the arms, and where the runs have it -protocols, -classes, -cost and -shares."""
    made = {}
    for corpus, part in by_corpus(runs, PAPER):
        made[corpus] = arm_table(part, PAPER, corpus, "Toledo & Marcacini 2022: joint fine-tuning", NOTES)
        for name, frame, title, notes in (
            ("protocols", protocol_table(part), "the published protocol and what each of its switches is worth", GAPS),
            ("classes", class_table(part), "each class", CLASSES),
            ("cost", cost_table(part), "what each arm costs", COST),
            ("shares", share_table(part), "little training data", SHARES),
        ):
            if len(frame):
                full = f"Toledo & Marcacini 2022 on {corpus}: {title}"
                said = (*notes, f"{kind_of_data(part).capitalize()} ({corpus}).")
                made[f"{corpus}-{name}"] = Table(f"{corpus}-{name}", full, frame, said)
    return made


GAPS = (
    "as_published (leaks): shuffled folds, early stopping on the test fold, incomplete last batches dropped (from the "
    "test fold too), fusion over a sequence of length one, and with two classes 0.5 on the raw logit. A row of a "
    "single switch is the corrected protocol with that one difference; stop=test leaks.",
    "Mean over folds; gap: this row minus the same arm under the corrected protocol, with the 95 % interval and p of "
    "Welch's test over folds (they are other folds where folds are shuffled); Holm over the rows.",
)


def protocol_scores(runs: Runs) -> pd.DataFrame:
    """arm (base), protocol, seed, metric, value for every run in folds; the threshold that the protocol asks for."""
    rows = []
    known, on_logits = list(titles()), facts(PAPER)["metrics_on_logits"]
    for run in runs:
        if run.record.arm.partition(".")[0] not in known:
            continue
        arm = parse(run.record.arm, known)
        if arm.percent is not None:
            continue
        table = runs.predictions(run)
        probabilities, label = _classes(table[table["split"] == "test"])
        # With three classes or more the largest logit decides either way.
        by_logit = arm.protocol.threshold == "logits" and probabilities.shape[1] == 2
        for name in SCORES:
            asked = on_logits.get(name, name) if by_logit else name
            value = metrics.score([asked], probabilities, label)[asked].value
            rows.append((arm.base, arm.label, run.record.seed, name, value))
    return pd.DataFrame(rows, columns=["arm", "protocol", "seed", "metric", "value"])


def _classes(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return table.filter(regex="^p_").to_numpy(float), table["label"].to_numpy(int)


def protocol_table(runs: Runs) -> pd.DataFrame:
    """One row an arm and protocol: its scores, and the gap of its accuracy from the corrected protocol's."""
    scores = protocol_scores(runs)
    if set(scores["protocol"]) <= {"corrected"}:
        return pd.DataFrame()
    named, rows = titles(), []
    for arm in named:
        part = scores[scores["arm"] == arm]
        there = list(dict.fromkeys(part["protocol"]))
        if there == ["corrected"] or "corrected" not in there:
            continue
        sound = _values(part, "corrected", "accuracy")
        for protocol in ["corrected", *sorted(set(there) - {"corrected"})]:
            row: dict[str, object] = {"arm": named[arm], "protocol": _said(protocol)}
            for name in SCORES:
                got = statistics.over_seeds(_values(part, protocol, name))
                row |= {"folds": got.n, metrics.metric(name).title: got.mean}
            if protocol != "corrected":
                test = statistics.welch(_values(part, protocol, "accuracy"), sound)
                row |= {"gap of accuracy": test.difference, "low": test.low, "high": test.high, "p": test.p}
            rows.append(row)
    frame = pd.DataFrame(rows)
    tested = frame["p"].notna()
    if tested.any():
        frame.loc[tested, "p (Holm)"] = statistics.holm(frame.loc[tested, "p"].to_numpy(float)).adjusted
    return frame


def _values(scores: pd.DataFrame, protocol: str, metric: str) -> np.ndarray:
    chosen = (scores["protocol"] == protocol) & (scores["metric"] == metric)
    return scores.loc[chosen, "value"].to_numpy(float)


def _said(protocol: str) -> str:
    """A protocol's name as the tables print it."""
    switch = protocol.removeprefix("as_published").lstrip("_").replace("_", "-")
    leaks = " (leaks)" * (protocol in ("as_published", "as_published_stop"))
    told = {"corrected": protocol, "": "as published, all of it"}.get(switch) or facts(PAPER)["switches"][switch]
    return f"{told}{leaks}"


CLASSES = (
    "Precision, recall and F1 of each class, mean over the runs; interval: 95 % t-interval of the mean F1 over runs.",
)


def class_table(runs: Runs) -> pd.DataFrame:
    """One row an arm and class, under the corrected protocol."""
    from sklearn.metrics import precision_recall_fscore_support

    rows = []
    for arm, title in titles().items():
        scores, names = [], []
        for run in runs.select(arm=arm):
            table = runs.predictions(run)
            table = table[table["split"] == "test"]
            probabilities, label = _classes(table)
            names = [name.removeprefix("p_") for name in table.filter(regex="^p_").columns]
            guess = probabilities.argmax(axis=1)
            scores.append(precision_recall_fscore_support(label, guess, labels=range(len(names)), zero_division=0)[:3])
        for index, name in enumerate(names):
            each = np.array(scores)[:, :, index]
            f1 = statistics.over_seeds(each[:, 2])
            rows.append((title, name, len(each), *each.mean(0), f1.sd, f1.low, f1.high))
    columns = ["arm", "class", "runs", "precision ↑", "recall ↑", "F1 ↑", "s.d. of F1", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


COST = (
    "Ratios to the arm Text only, each measured in one run on one machine; operations: forward and backward of one "
    "training sample, counted by torch's FLOP counter. Late fusion costs what its two parts cost.",
    "epochs: until early stopping, mean over runs; score: AUROC, mean over runs.",
)


def costs(runs: Runs) -> pd.DataFrame:
    """arm, title, the measured costs, epochs (mean over runs), score (mean, low, high) of every measured arm."""
    scores = runs.scores(METRIC)
    rows = []
    for arm, title in titles().items():
        own = list(runs.select(arm=arm))
        # Measured with seed 0: some of the seeds, as in a scattered job, may have none.
        measured = [run.record.measurements for run in own if "flops_per_sample" in run.record.measurements]
        if not measured:
            continue
        score = statistics.over_seeds(scores.loc[scores["arm"] == arm, "value"].to_numpy(float))
        epochs = [run.record.measurements.get("epochs", np.nan) for run in own]
        row: dict[str, object] = {"arm": arm, "title": title, "epochs": float(np.mean(epochs))}
        row |= {name: measured[0].get(name, np.nan) for name in COSTS}
        rows.append(row | {"mean": score.mean, "low": score.low, "high": score.high})
    return pd.DataFrame(rows)


def cost_table(runs: Runs) -> pd.DataFrame:
    """Parameters as they are, the other costs as ratios to text only."""
    frame = costs(runs)
    if frame.empty or "text-only" not in set(frame["arm"]):
        return pd.DataFrame()
    base = frame[frame["arm"] == "text-only"].iloc[0]
    shown = pd.DataFrame({"arm": frame["title"]})
    for name, label in COSTS.items():
        values = frame[name].astype(float)
        if name.endswith("parameters"):
            shown[f"{label} (M)"] = values / 1e6
        else:
            shown[f"{label} (× text only)"] = values / float(base[name])
    shown["epochs"] = frame["epochs"]
    shown[metrics.metric(METRIC).title] = frame["mean"]
    return shown


SHARES = (
    "Nested, stratified subsets of the training split; the validation and test splits are whole. Mean and sample s.d. "
    "(ddof 1) over seeds, 95 % t-interval of the mean, cut at 0 and 1.",
)


def share_scores(runs: Runs) -> pd.DataFrame:
    """arm (base), share (per cent), seed, value (accuracy on test)."""
    scores = runs.scores("accuracy")
    scores = scores[scores["arm"].str.contains(SHARE, regex=False)]
    parts = scores["arm"].str.extract(r"^(?P<arm>.+)\.share-(?P<share>\d+)$")
    return scores.assign(arm=parts["arm"], share=parts["share"].astype(float))[["arm", "share", "seed", "value"]]


def share_table(runs: Runs) -> pd.DataFrame:
    """One row an arm and share."""
    scores = share_scores(runs)
    if scores.empty:
        return scores
    rows = toledo_figures.share_means(scores)
    rows["place"] = rows["arm"].map(list(titles()).index)
    rows = rows.sort_values(["place", "share"]).drop(columns="place").assign(arm=rows["arm"].map(titles()))
    names = {"share": "share of training data (%)", "n": "seeds", "mean": "Accuracy ↑", "sd": "s.d."}
    return rows.astype({"share": int}).rename(columns=names)


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save, for each corpus, all figures that its runs allow."""
    made: list[Figure] = []

    def keep(figure: Figure, data: pd.DataFrame, name: str) -> None:
        draw.save(figure, data, folder, name)
        made.append(figure)

    named = titles()
    for corpus, part in by_corpus(runs, PAPER):
        where = f"{corpus} ({kind_of_data(part)})"
        keep(*arm_figure(part, PAPER, corpus, METRIC, named), f"{corpus}-arms")
        measured = costs(part)
        if len(measured) and "text-only" in set(measured["arm"]):
            base = float(measured.loc[measured["arm"] == "text-only", "flops_per_sample"].iloc[0])
            points = measured.assign(cost=measured["flops_per_sample"].astype(float) / base)
            points = points[["title", "cost", "mean", "low", "high"]]
            figure = toledo_figures.cost_frontier(points, METRIC, "Training operations a sample (ratio to text only)")
            keep(figure, points, f"{corpus}-cost")
        shares = share_scores(part)
        if len(shares):
            figure = toledo_figures.share_curves(shares, named, "accuracy")
            draw.heading(figure, f"Little training data, {where}")
            keep(figure, shares, f"{corpus}-shares")
        gaps = gap_rows(part)
        if len(gaps):
            figure = toledo_figures.protocol_gaps(gaps, "accuracy")
            draw.heading(figure, f"Joint fine-tuning under the published protocol, {where}")
            keep(figure, gaps, f"{corpus}-protocols")
        points, classes = embedding_points(part)
        if len(points):
            figure = toledo_figures.embedding_stages(points, classes)
            draw.heading(figure, f"Fused vectors of test segments, {where}")
            keep(figure, points, f"{corpus}-embeddings")
        groups = agreement_scores(part)
        if len(groups):
            figure = toledo_figures.agreement(groups, named, list(dict.fromkeys(groups["group"])))
            keep(figure, groups, f"{corpus}-agreement")
        trust = confidences(part)
        if len(trust):
            keep(toledo_figures.calibration(trust, named), trust, f"{corpus}-calibration")
        drawn, data = example_figure(part)
        if drawn is not None:
            keep(drawn, data, f"{corpus}-examples")
    return made


def gap_rows(runs: Runs) -> pd.DataFrame:
    """title, mean, low, high: what each switch of the published protocol, and all together, do to joint fine-tuning."""
    frame = protocol_table(runs)
    if frame.empty:
        return frame
    own = frame[(frame["arm"] == titles()["joint"]) & frame["gap of accuracy"].notna()]
    return own.rename(columns={"protocol": "title", "gap of accuracy": "mean"})[["title", "mean", "low", "high"]]


def embedding_points(runs: Runs) -> tuple[pd.DataFrame, list[str]]:
    """Principal components of the fused vectors of joint fine-tuning, each stage on its own, and the classes."""
    for run in runs.select(arm="joint"):
        if "embeddings" in run.record.artifacts:
            table, parts = runs.artifact(run, "embeddings"), []
            for _, part in table.groupby("stage", sort=False):
                vectors = part.filter(regex=r"^e\d+$").to_numpy(float)
                # The two leading directions of the centred vectors.
                left, sizes, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
                x, y = (left[:, :2] * sizes[:2]).T
                parts.append(part[["segment_id", "stage", "label"]].assign(x=x, y=y))
            return pd.concat(parts, ignore_index=True), _class_names(runs, run)
    return pd.DataFrame(), []


def _class_names(runs: Runs, run: Run) -> list[str]:
    return [name.removeprefix("p_") for name in runs.predictions(run).filter(regex="^p_").columns]


AGREE = "text and image agree"


def agreement_scores(runs: Runs) -> pd.DataFrame:
    """Accuracy by who is right where text and image differ: group, arm, seed, value; corpora with both labels only."""
    rows = []
    for arm in titles():
        for run in runs.select(arm=arm):
            table = runs.predictions(run)
            table = table[table["split"] == "test"]
            if "text_label" not in table:
                continue
            classes = np.array(_class_names(runs, run))
            truth = classes[table["label"].to_numpy(int)]
            guess = classes[_classes(table)[0].argmax(axis=1)]
            text, image = table["text_label"].to_numpy(str), table["image_label"].to_numpy(str)
            groups = {
                AGREE: text == image,
                "differ, the text is right": (text != image) & (text == truth),
                "differ, the image is right": (text != image) & (image == truth),
            }
            for group, chosen in groups.items():
                if chosen.any():
                    rows.append((group, arm, run.record.seed, float((guess == truth)[chosen].mean())))
    return pd.DataFrame(rows, columns=["group", "arm", "seed", "value"])


def confidences(runs: Runs) -> pd.DataFrame:
    """Every test prediction of the arms that are compared: arm, confidence, correct."""
    parts = []
    for run in runs.select(arm=["text-only", "image-only", "frozen", "joint", "clip-fine-tuned"]):
        table = runs.predictions(run)
        probabilities, label = _classes(table[table["split"] == "test"])
        right = probabilities.argmax(axis=1) == label
        parts.append(pd.DataFrame({"arm": run.record.arm, "confidence": probabilities.max(axis=1), "correct": right}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def example_rows(runs: Runs, count: int = 3) -> tuple[list[str], pd.DataFrame, dict[str, pd.DataFrame]]:
    """Segments, their texts and images (base64), and each arm's probabilities of them in the same run number.

    The segments are those whose probabilities differ most between the arms, of the few that are stored.
    """
    run = next((run for run in runs.select(arm="joint") if "examples" in run.record.artifacts), None)
    if run is None:
        return [], pd.DataFrame(), {}
    stored = runs.artifact(run, "examples").set_index("segment_id")
    given: dict[str, pd.DataFrame] = {}
    for other in runs.select(arm=list(titles()), seed=run.record.seed):
        table = runs.predictions(other)
        table = table[(table["split"] == "test") & table["segment_id"].isin(stored.index)].set_index("segment_id")
        given[other.record.arm] = table.filter(regex="^p_")
    common = [name for name in stored.index if all(name in table.index for table in given.values())]
    spread = np.stack([table.loc[common].to_numpy(float) for table in given.values()]).std(axis=0).sum(axis=1)
    chosen = [common[index] for index in np.argsort(-spread, kind="stable")[:count]]
    label = runs.predictions(run).drop_duplicates("segment_id").set_index("segment_id")["label"].astype(int)
    classes = _class_names(runs, run)
    shown = stored.loc[chosen].assign(label=[classes[label[name]] for name in chosen])
    return chosen, shown, {arm: table.loc[chosen] for arm, table in given.items()}


def example_figure(runs: Runs) -> tuple[Figure | None, pd.DataFrame]:
    """Segments with their text, image and each arm's probabilities, and the probabilities as a frame."""
    chosen, shown, given = example_rows(runs)
    if not chosen:
        return None, pd.DataFrame()
    order = [arm for arm in titles() if arm in given]
    frames = []
    for segment in chosen:
        values = [given[arm].loc[segment].to_numpy(float) for arm in order]
        columns = [name.removeprefix("p_") for name in given[order[0]].columns]
        frames.append(pd.DataFrame(values, index=[titles()[arm] for arm in order], columns=columns))
    pictures = [np.asarray(Image.open(BytesIO(base64.b64decode(image))).convert("RGB")) for image in shown["image"]]
    headings = [f"{segment}\nlabel: {label}" for segment, label in zip(chosen, shown["label"], strict=True)]
    data = pd.concat(
        [
            frame.rename_axis("arm").reset_index().assign(segment_id=name)
            for name, frame in zip(chosen, frames, strict=True)
        ]
    )
    return toledo_figures.examples(pictures, list(shown["text"]), headings, frames), data
