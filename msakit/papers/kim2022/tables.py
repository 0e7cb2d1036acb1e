"""Tables and figures of Kim & Kim 2022 (reconstructed), from recorded runs alone."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from msakit.data.synthetic.lexicon import AMBIGUOUS
from msakit.evaluation import metrics, statistics
from msakit.papers import facts
from msakit.papers.kim2022.recipe import PAPER
from msakit.papers.kim2022.recipe import figures as kim_figures
from msakit.reporting import figures as draw
from msakit.reporting.corpora import ORACLE_NOTE, arm_figure, by_corpus, kind_of_data, references
from msakit.reporting.tables import Row, Table, published_rows, read_published, summarise
from msakit.runs.record import Run, Runs

NOTES = (
    "RECONSTRUCTED: the equations of CMSBERT-CLR are not public; these arms follow its abstract on top of MAG-BERT.",
    "Epoch by validation loss of the regression alone; MAE and Corr over all segments.",
)
CONVERGENCE = {"cms-clr-smooth": "without averaging", "cms-clr-smooth-ema": "with averaging"}
# An arm of a sweep: the arm it varies, the setting, the value.
SWEEP = re.compile(r"(?P<arm>[a-z-]+)\.(?P<setting>lambda|tau|epsilon)-(?P<value>[0-9.]+)")
SETTINGS = {
    "lambda": "λ, weight of the contrastive loss",
    "tau": "τ, its temperature",
    "epsilon": "ε, smoothing of its targets",
}
# MAG-BERT's scorer leaves out segments whose label is zero, from MAE and Corr too, and its script prints the best epoch
# on test (papers' facts: its repository).
AS_PUBLISHED = {"mae": "mae_non0", "corr": "corr_non0", "acc2_non0_ge": "acc2_non0_ge", "f1w_non0_ge": "f1w_non0_ge"}
LEAKS = "prediction_best_test_epoch"
# Where a swept setting is zero: the arms without that part.
WITHOUT = {"lambda": "cms", "epsilon": "cms-clr"}
KINDS = ("plain", "ambiguous", "sarcastic")
MAIN = ("text-only", "mag", "cms")
SENTENCES = 3  # in the figure of the shifts


def titles() -> dict[str, str]:
    """Arm -> title of every arm of ``kim2022.yaml`` that is no point of a sweep."""
    return {arm: str(values["title"]) for arm, values in facts(PAPER)["arms"].items() if not SWEEP.fullmatch(arm)}


def tables(runs: Runs) -> dict[str, Table]:
    """By name, for each corpus: the arms, and where the runs have it -scoring (both ways), -kinds, -sweep, -space."""
    made = {}
    for corpus, part in by_corpus(runs, PAPER):
        made[corpus] = arm_table(part, corpus)
        for name, frame, title, notes in (
            ("scoring", scoring(part), "as published against corrected", SCORING_NOTES),
            ("kinds", kind_tests(part), "kinds of segments apart, with paired tests", KIND_NOTES),
            ("sweep", sweep_table(part), "weight, temperature and smoothing of the contrastive loss", SWEEP_NOTES),
            ("space", space_table(part), "alignment and uniformity of the modalities", SPACE_NOTES),
        ):
            if len(frame):
                full = f"Kim & Kim 2022 (reconstructed) on {corpus}: {title}"
                said = (*notes, f"{kind_of_data(part).capitalize()} ({corpus}).", NOTES[0])
                made[f"{corpus}-{name}"] = Table(f"{corpus}-{name}", full, frame, said)
    return made


def arm_table(runs: Runs, corpus: str) -> Table:
    """The arms in the order of ``kim2022.yaml``, references, and the one published row where the corpus is its own."""
    known = read_published()
    name = corpus.replace("_", "-")
    there = len(known[(known["paper"] == PAPER) & (known["corpus"] == name)])
    beside: list[Row] = published_rows(known, PAPER, name, {"cmsbert-clr": "Published: CMSBERT-CLR"}) if there else []
    names = references(runs)
    said = [*NOTES, *([ORACLE_NOTE] if "oracle" in names else [])]
    title = f"Kim & Kim 2022 (reconstructed): context-driven modality shifting on {corpus}"
    return summarise(runs, corpus, title, titles(), facts(PAPER)["metrics"], references=names, extra=beside, notes=said)


SCORING_NOTES = (
    "corrected: the epoch with the lowest validation loss; all segments count in MAE and Corr.",
    "as published (leaks): the epoch with the highest test accuracy, which MAG-BERT's script prints, and its scorer, "
    "which leaves segments labelled zero out of MAE and Corr too.",
    "gap: as published minus corrected, mean over seeds; ± sample s.d. over seeds (ddof 1) of the paired gaps.",
)


def scoring(runs: Runs) -> pd.DataFrame:
    """Every arm scored both ways: title, seeds, then corrected, as published and the gap of each metric."""
    rows = []
    for arm, title in titles().items():
        values: dict[str, list[tuple[float, float]]] = {name: [] for name in AS_PUBLISHED}
        for run in runs.select(arm=arm):
            table = _test(runs, run)
            if LEAKS not in table:
                continue
            label = table["label"].to_numpy(float)
            for name, published in AS_PUBLISHED.items():
                ours = metrics.score([name], table["prediction"].to_numpy(float), label)[name]
                theirs = metrics.score([published], table[LEAKS].to_numpy(float), label)[published]
                values[name].append((ours.value, theirs.value))
        if not values["mae"]:
            continue
        row: dict[str, object] = {"arm": title, "seeds": len(values["mae"])}
        for name, pairs in values.items():
            both = np.array(pairs)
            gap = statistics.over_seeds(both[:, 1] - both[:, 0])
            shown = metrics.metric(name).title
            row[f"{shown} corrected"], row[f"{shown} as published (leaks)"] = both.mean(0)
            row[f"{shown} gap"], row[f"{shown} gap s.d."] = gap.mean, gap.sd
        rows.append(row)
    return pd.DataFrame(rows)


def _test(runs: Runs, run: Run) -> pd.DataFrame:
    table = runs.predictions(run)
    return table[table["split"] == "test"]


KIND_NOTES = (
    "MAE on the test segments of each kind, mean over seeds. p: paired permutation test of the two arms on the same "
    "segments (contributions averaged over seeds, sign flips), Holm over all rows that have one; low and high: 95 % "
    "bootstrap interval of the difference over segments. Videos are not resampled: the ledger's tests are stricter.",
    "plain: word and voice agree; ambiguous: a word that only voice and face settle; sarcastic: the words say the "
    "opposite. The kinds are the generator's own.",
)


def kind_tests(runs: Runs) -> pd.DataFrame:
    """Each arm of MAIN on each kind of segment, and its paired difference from the arm before it."""
    there = [arm for arm in MAIN if len(runs.select(arm=arm))]
    if len(there) < 2:
        return pd.DataFrame()
    predictions, table = {}, pd.DataFrame()
    for arm in there:
        parts = [_test(runs, run) for run in runs.select(arm=arm)]
        table = parts[0]
        if "kind" not in table:
            return pd.DataFrame()
        predictions[arm] = np.stack([part["prediction"].to_numpy(float) for part in parts])
    rows = []
    for kind in KINDS:
        chosen = (table["kind"] == kind).to_numpy()
        label = table["label"].to_numpy(float)[chosen]
        for before, arm in zip([None, *there], there, strict=False):
            own = predictions[arm][:, chosen]
            row = {
                "kind": kind,
                "segments": int(chosen.sum()),
                "arm": titles()[arm],
                "seeds": len(own),
                "MAE ↓": float(np.abs(own - label).mean()),
            }
            if before is not None:
                other = predictions[before][:, chosen]
                got = statistics.paired_difference("mae", own, other, label)
                test = statistics.paired_permutation("mae", own, other, label)
                row |= {"against": titles()[before], "difference": got.difference, "low": got.low, "high": got.high}
                row["p"] = test.p
            rows.append(row)
    frame = pd.DataFrame(rows)
    tested = frame["p"].notna()
    frame.loc[tested, "p (Holm)"] = statistics.holm(frame.loc[tested, "p"].to_numpy(float)).adjusted
    return frame.astype({"against": object}).fillna({"against": ""})


SWEEP_NOTES = (
    "Test MAE, mean and sample s.d. (ddof 1) over seeds, 95 % t-interval of the mean. Each row varies one setting of "
    "the arm and keeps the others; `own` marks the arm's own value; at zero stands the arm without that part.",
    "The settings were not chosen by this table: the arm's own values were fixed before.",
)


def sweep_scores(runs: Runs) -> pd.DataFrame:
    """setting, value, own, seed, score: test MAE at every point of the sweeps, the varied arm itself among them."""
    scores = runs.scores("mae")
    found = [match for arm in scores["arm"].unique() if (match := SWEEP.fullmatch(arm))]
    rows = []
    for setting in SETTINGS:
        points = [match for match in found if match["setting"] == setting]
        for match in points:
            part = scores[scores["arm"] == match.string]
            rows += [(setting, float(match["value"]), False, s, v) for s, v in part[["seed", "value"]].to_numpy()]
        if points and setting in WITHOUT:
            part = scores[scores["arm"] == WITHOUT[setting]]
            rows += [(setting, 0.0, False, s, v) for s, v in part[["seed", "value"]].to_numpy()]
        for base in {match["arm"] for match in points}:
            part = scores[scores["arm"] == base]
            own = own_value(runs, base, setting)
            rows += [(setting, own, True, s, v) for s, v in part[["seed", "value"]].to_numpy()]
    return pd.DataFrame(rows, columns=["setting", "value", "own", "seed", "score"])


def own_value(runs: Runs, arm: str, setting: str) -> float:
    """What an arm itself has for a swept setting, from its recorded configuration."""
    run = next(iter(runs.select(arm=arm)))
    return float(run.record.config[{"lambda": "contrastive", "tau": "temperature", "epsilon": "smoothing"}[setting]])


def sweep_table(runs: Runs) -> pd.DataFrame:
    """One row a point of the sweeps."""
    scores = sweep_scores(runs)
    if scores.empty:
        return scores
    rows = draw.over_seeds(
        scores.rename(columns={"value": "at", "score": "value"}).sort_values("at", kind="stable"),
        ["setting", "at", "own"],
    )
    rows["own"] = np.where(rows["own"], "own", "")
    rows["place"] = rows["setting"].map({name: place for place, name in enumerate(SETTINGS)})
    rows = rows.sort_values(["place", "at"]).drop(columns="place")
    rows["setting"] = rows["setting"].map(SETTINGS)
    return rows.rename(columns={"at": "value", "n": "seeds", "mean": "MAE ↓", "sd": "s.d."})


SPACE_NOTES = (
    "Alignment: mean squared distance of the two modalities' vectors of the same segment. Uniformity: log of the mean "
    "of exp(-2 squared distance) over pairs of segments. Both on the unit sphere, lower is better (Wang & Isola, ICML "
    "2020); test split, mean and sample s.d. (ddof 1) over seeds.",
    "An alignment of 2 is that of independent directions: a pair that stays there was not aligned, whatever the loss.",
)


def space(runs: Runs) -> pd.DataFrame:
    """arm, quantity, of, stage, seed, value of every run that measured its joint space."""
    rows = []
    for run in runs:
        for quantity in ("alignment", "uniformity"):
            for stage, values in run.record.measurements.get(quantity, {}).items():
                for of, value in values.items():
                    rows.append((run.record.arm, quantity, of, stage, run.record.seed, value))
    frame = pd.DataFrame(rows, columns=["arm", "quantity", "of", "stage", "seed", "value"])
    return frame.sort_values("quantity", kind="stable")


def space_table(runs: Runs) -> pd.DataFrame:
    """One row an arm and quantity: before, after."""
    frame = space(runs)
    if frame.empty:
        return frame
    named = titles()
    rows = []
    for (arm, quantity, of), part in frame.groupby(["arm", "quantity", "of"], sort=False):
        if arm in named:
            row: dict[str, object] = {"arm": named[str(arm)], "quantity": quantity, "of": of}
            for stage in ("before", "after"):
                got = statistics.over_seeds(part.loc[part["stage"] == stage, "value"].to_numpy(float))
                row |= {"seeds": got.n, stage: got.mean, f"{stage} s.d.": got.sd}
            rows.append(row)
    return pd.DataFrame(rows)


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save all figures that the runs of each corpus allow."""
    made: list[Figure] = []

    def keep(figure: Figure, data: pd.DataFrame, name: str) -> None:
        draw.save(figure, data, folder, name)
        made.append(figure)

    for corpus, part in by_corpus(runs, PAPER):
        data_kind = kind_of_data(part)
        keep(*arm_figure(part, PAPER, corpus, "mae", titles()), f"{corpus}-arms")
        curves = validation_curves(part)
        if len(curves):
            with draw.style():
                figure, axes = plt.subplots(figsize=(draw.COLUMN, 2.4))
                draw.learning_curves(axes, curves, "Validation MSE ↓ (label units²)")
                axes.set_title(f"Full method on {corpus} ({data_kind})")
            keep(figure, curves, f"{corpus}-convergence")
        shown = {arm: title for arm, title in titles().items() if arm in SHIFTED}
        shifts = chosen_shifts(part, list(shown))
        if len(shifts):
            figure = kim_figures.shift_strips(shifts, shown)
            draw.heading(figure, f"How far each word is shifted, {corpus} ({data_kind}), seed 0")
            keep(figure, shifts, f"{corpus}-shifts")
        points = embedding_points(part)
        if len(points):
            figure = kim_figures.joint_space(points, titles())
            draw.heading(figure, f"Test split in the joint space, {corpus} ({data_kind}), seed 0")
            keep(figure, points, f"{corpus}-space")
        both = space(part)
        both = both[both["arm"].isin(SPACE)]
        if len(both):
            figure = kim_figures.alignment_and_uniformity(both, titles())
            draw.heading(figure, f"Test split of {corpus} ({data_kind})")
            keep(figure, both, f"{corpus}-alignment")
        swept = sweep_scores(part)
        if len(swept):
            figure = kim_figures.sweeps(swept, SETTINGS, "Test MAE ↓ (label units)")
            draw.heading(figure, f"{corpus} ({data_kind})")
            keep(figure, swept, f"{corpus}-sweep")
        kinds = kind_scores(part)
        if len(kinds):
            # Without what stands in brackets: the three fit on one line.
            named = {arm: title.partition(" (")[0] for arm, title in titles().items() if arm in MAIN}
            figure = kim_figures.kinds_of_segments(kinds, named, "mae", KINDS)
            draw.heading(figure, f"{corpus} ({data_kind}), test")
            keep(figure, kinds, f"{corpus}-kinds")
    return made


# Arms whose shifts, spaces are drawn.
SHIFTED = ("mag", "cms", "cms-clr-smooth-ema")
SPACE = ("cms-clr", "cms-clr-smooth", "cms-clr-smooth-momentum")
PROJECTED = ("cms-clr", "cms-clr-all", "cms-clr-smooth-ema")


def chosen_shifts(runs: Runs, arms: Sequence[str]) -> pd.DataFrame:
    """Shifts of the words of a few test sentences: the first ambiguous ones of seed 0, the ambiguous words marked."""
    parts = []
    for run in runs.select(arm=list(arms), seed=0):
        if "shifts" in run.record.artifacts:
            parts.append(runs.artifact(run, "shifts").assign(arm=run.record.arm))
    if not parts:
        return pd.DataFrame()
    shifts = pd.concat(parts, ignore_index=True)
    about = _test(runs, next(iter(runs.select(arm=list(arms), seed=0)))).set_index("segment_id")
    there = list(dict.fromkeys(shifts["segment_id"]))
    kinds = about["kind"].reindex(there) if "kind" in about else pd.Series("", index=there)
    segments = [*kinds.index[kinds == "ambiguous"], *kinds.index[kinds != "ambiguous"]][:SENTENCES]
    heading = {
        name: f"{name}: label {about.loc[name, 'label']:+.1f}" + (f", {kinds[name]}" if kinds[name] else "")
        for name in segments
    }
    shifts = shifts[shifts["segment_id"].isin(segments)].copy()
    # The generator's own list; on other corpora no word is marked.
    shifts["marked"] = shifts["word"].isin(AMBIGUOUS) & shifts["segment_id"].map(kinds).eq("ambiguous")
    return shifts.assign(heading=shifts["segment_id"].map(heading))


def embedding_points(runs: Runs) -> pd.DataFrame:
    """t-SNE of the projected vectors of seed 0, each arm on its own: arm, modality, label, x, y."""
    parts = []
    for run in runs.select(arm=list(PROJECTED), seed=0):
        if "embeddings" in run.record.artifacts:
            table = runs.artifact(run, "embeddings")
            vectors = table.filter(regex=r"^e\d+$").to_numpy(np.float32)
            x, y = kim_figures.coordinates(vectors).T
            parts.append(table[["segment_id", "modality", "label"]].assign(arm=run.record.arm, x=x, y=y))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def kind_scores(runs: Runs) -> pd.DataFrame:
    """Test MAE by kind of segment: group, arm, seed, value."""
    rows = []
    for run in runs.select(arm=list(MAIN)):
        table = _test(runs, run)
        if "kind" in table:
            error = (table["prediction"] - table["label"]).abs().groupby(table["kind"]).mean()
            rows += [(kind, run.record.arm, run.record.seed, error[kind]) for kind in KINDS if kind in error]
    return pd.DataFrame(rows, columns=["group", "arm", "seed", "value"])


def validation_curves(runs: Runs) -> pd.DataFrame:
    """Validation loss by epoch of the full method without and with weight averaging: epoch, seed, series, value."""
    rows = [
        (int(row["epoch"]), run.record.seed, CONVERGENCE[run.record.arm], row["valid_loss"])
        for run in runs.select(arm=list(CONVERGENCE))
        for row in run.record.history
    ]
    return pd.DataFrame(rows, columns=["epoch", "seed", "series", "value"])
