"""Tables of Ando et al. 2022, from recorded runs alone; the figures are in :mod:`msakit.papers.ando2022.figures`."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from msakit.evaluation import statistics
from msakit.evaluation.contrasts import Contrast, contrast, scored, videos_of
from msakit.papers import facts
from msakit.papers.ando2022.inputs import CONCAT
from msakit.papers.ando2022.recipe import LAYER_ARM, MODALITIES, PAPER, best_layers
from msakit.papers.ando2022.recipe import figures as ando_figures
from msakit.reporting.corpora import ORACLE_NOTE, by_corpus, kind_of_data, reference_value, references
from msakit.reporting.tables import Row, Table, published_rows, read_published, summarise
from msakit.runs.record import Run, Runs

TITLE = "Ando et al. 2022 on {}: "
NOT_COMPARABLE = ": evidence about the method on this generator, not comparable with published numbers"
TESTED = "tested over seeds and test videos together"


def tables(runs: Runs) -> dict[str, Table]:
    """By name, for each corpus: the arms, and, where the runs have it, -layers, -choice, -decoders and -features."""
    made = {}
    for corpus, part in by_corpus(runs, PAPER):
        choice = choices(part)
        made[corpus] = arm_table(part, corpus)
        if last_layers(part):
            made[f"{corpus}-layers"] = layer_table(part, corpus, sentences(choice))
        for name, frame, title, notes in (
            ("choice", choice, "the layer that validation chose against the output layer", CHOICE_NOTES),
            ("decoders", decoders(part), "gate against concatenation", DECODER_NOTES),
            ("features", feature_states(part), "what the features lack", FEATURE_NOTES),
        ):
            if len(frame):
                said = (*notes, standing(part, corpus))
                made[f"{corpus}-{name}"] = Table(f"{corpus}-{name}", TITLE.format(corpus) + title, frame, said)
    return made


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save the figures of each corpus."""
    return [
        figure
        for corpus, part in by_corpus(runs, PAPER)
        for figure in ando_figures.draw_all(part, corpus, folder, rows(part))
    ]


# --- the arms -----------------------------------------------------------------------------------------------------


def rows(runs: Runs) -> list[tuple[str, str, str]]:
    """(arm, the arm whose runs it shares or itself, title) of every arm but the single layers, in the paper's order."""
    there = {str(arm) for arm in runs.frame["arm"]}
    made = []
    for family, known in facts(PAPER)["families"].items():
        for arm in (name for name in known["arms"] if name in there):
            chosen = list(runs.select(arm=arm))
            same = {str(run.record.config["same_as"]) for run in chosen if "same_as" in run.record.config}
            shared = same.pop() if len(same) == 1 and same <= there else arm
            made.append((arm, shared, f"{known['title']}: {_described(chosen[0], family)}"))
    return made


def _described(run: Run, family: str) -> str:
    """The modalities of an arm, as its record has them, with the layer that was chosen and what is conventional."""
    parts = []
    inputs = run.record.config["inputs"]
    for modality, source in ((name, inputs[name]) for name in MODALITIES if name in inputs):
        unusual = source["conventional"] and family not in ("conventional", "convbert")
        layer = f" {source['layer']}" if family == "best" and not source["conventional"] else ""
        parts.append(f"{modality}{layer}{' (conventional)' * unusual}")
    return " + ".join(parts) + (", concatenated" if run.record.arm.endswith(CONCAT) else "")


def arm_table(runs: Runs, corpus: str) -> Table:
    """Every arm but the single layers, then the references."""
    names = facts(PAPER)["metrics"]
    title = f"{TITLE.format(corpus)}layers of frozen encoders"
    named = rows(runs)
    ours = summarise(runs, corpus, title, {source: label for _, source, label in named}, names)
    by_source = {str(arm): part for arm, part in ours.frame.groupby("arm", sort=False)}
    parts = [by_source[source].assign(arm=arm, title=label) for arm, source, label in named]
    there = references(runs)
    beside = published(corpus)
    # A single reference has no spread to speak of: what is said of few seeds is for the trained arms alone.
    last = summarise(runs, corpus, title, {}, names, references=there, extra=beside)
    notes = [*ours.notes, *(row.note for row in beside)]
    if beside:
        notes.append(str(facts(PAPER)["published_note"]))
    if not runs.frame["generated"].any():
        notes.append(f"Real data ({corpus}).")
    if any(arm.startswith("best-") for arm, *_ in named):
        notes.append(
            "The best layer of each modality (its number stands behind it) was chosen on the validation split, by mean "
            "MAE over seeds of the single layers."
        )
    same = [f"{arm} = {source}" for arm, source, _ in named if arm != source]
    if same:
        notes.append(f"Arms of equal inputs are one training, recorded under both names: {', '.join(same)}.")
    notes.extend(lacking(runs))
    if "oracle" in there:
        notes.append(ORACLE_NOTE)
    frame = pd.concat([*parts, last.frame], ignore_index=True)
    return Table(corpus, title, frame, tuple(dict.fromkeys(notes)), tuple(names))


def published(corpus: str) -> list[Row]:
    """The authors' five rows, for the corpora that they used; their encoders are larger than ours may be."""
    name = corpus.replace("_", "-")
    known = read_published()
    if not len(known[(known["paper"] == PAPER) & (known["corpus"] == name)]):
        return []
    return published_rows(known, PAPER, name, facts(PAPER)["published"])


def standing(runs: Runs, corpus: str) -> str:
    """What kind of data a table rests on."""
    return f"{kind_of_data(runs).capitalize()} ({corpus}){NOT_COMPARABLE * bool(runs.frame['generated'].any())}."


# --- single layers ------------------------------------------------------------------------------------------------


def last_layers(runs: Runs) -> dict[str, int]:
    """By modality, the index of the encoder's output layer: the highest that was run."""
    single = runs.frame["arm"].str.extract(LAYER_ARM).dropna()
    return {str(name): int(part["layer"].astype(int).max()) for name, part in single.groupby("modality")}


def layer_table(runs: Runs, corpus: str, said: Mapping[str, str]) -> Table:
    """Every single layer: MAE on validation (which chooses) and on test (which does not).

    said: by modality, what the choice comes to (`sentences`).
    """
    means = []
    for split in ("valid", "test"):
        grouped = ando_figures.layer_scores(runs, split).groupby(["modality", "layer"], sort=False)["value"]
        columns = {"mean": f"{split} MAE", "std": f"{split} s.d.", "count": "seeds"}
        means.append(grouped.agg(["mean", "std", "count"]).rename(columns=columns))
    frame = means[0].join(means[1].drop(columns="seeds")).reset_index()
    best, last = best_layers(runs), last_layers(runs)
    chosen = [best[m] == layer for m, layer in zip(frame["modality"], frame["layer"], strict=True)]
    output = [last[m] == layer for m, layer in zip(frame["modality"], frame["layer"], strict=True)]
    frame["role"] = [
        " and ".join([*(["output layer"] * b), *(["chosen on validation"] * a)])
        for a, b in zip(chosen, output, strict=True)
    ]
    notes = ["Mean and sample s.d. (ddof 1) over seeds of the unimodal arms; lower is better.", "Layer 0: embeddings."]
    notes += [standing(runs, corpus), *said.values()]
    best_possible = {name: reference_value(runs, f"oracle-{name}", "mae") for name in MODALITIES}
    told = [f"{name} {value:.3f}" for name, value in best_possible.items() if value is not None]
    if told:
        notes.append(f"Oracle (the generator's posterior mean given that modality alone), test MAE: {', '.join(told)}.")
    return Table(f"{corpus}-layers", f"{TITLE.format(corpus)}every single layer", frame, tuple(notes))


CHOICE_NOTES = (
    "MAE on test, mean over seeds; difference: the chosen layer less the output layer, so that a negative one speaks "
    "for the layer that validation chose.",
    "p, low, high: test and 95 % interval over seeds and test videos together (msakit.evaluation.contrasts). Welch p: over seeds "
    "alone; segments p: paired permutation over test videos alone. Each takes the choice of the layer as given.",
)


def choices(runs: Runs) -> pd.DataFrame:
    """By modality: the layer that validation chose and the output layer, their test MAE, and its difference, tested."""
    best, last = best_layers(runs) if last_layers(runs) else {}, last_layers(runs)
    made = []
    for name in (name for name in MODALITIES if name in last):
        arms = [f"layer{layer}-{name}" for layer in (best[name], last[name])]
        row: dict[str, object] = {"modality": name, "chosen layer": best[name], "output layer": last[name]}
        row |= compare(runs, *arms, "chosen", "output")
        made.append(row)
    return pd.DataFrame(made)


def compare(runs: Runs, first: str, second: str, *names: str) -> dict[str, float]:
    """Test MAE of two arms by the given names, first less second, and its tests; nan where arms are one or vary not."""
    arms = [scored(runs, arm, "mae") for arm in (first, second)]
    found: Contrast = contrast([(1, arms[0]), (-1, arms[1])], where=runs.root)
    test = _paired(runs, first, second)
    return {
        **{f"{name} MAE": float(arm.values.mean()) for name, arm in zip(names, arms, strict=True)},
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "Welch p": statistics.welch(arms[0].values, arms[1].values).p,
        "segments p": test,
    }


def _paired(runs: Runs, first: str, second: str) -> float:
    """p of a paired permutation of the arms' names over test videos, contributions averaged over seeds."""
    if first == second:
        return float("nan")
    stacked, label, videos = [], np.empty(0), np.empty(0)
    for arm in (first, second):
        parts = [table[table["split"] == "test"] for table in map(runs.predictions, runs.select(arm=arm))]
        stacked.append(np.stack([part["prediction"].to_numpy(float) for part in parts]))
        label = parts[0]["label"].to_numpy(float)
        videos = videos_of(parts[0])
    return statistics.paired_permutation("mae", stacked[0], stacked[1], label, videos).p


def sentences(choice: pd.DataFrame) -> dict[str, str]:
    """By modality, what the choice of a layer on validation comes to on test, in one sentence."""
    said = {}
    for row in choice.to_dict("records"):
        name, chosen, output = str(row["modality"]), row["chosen layer"], row["output layer"]
        start = f"{name.capitalize()}: validation chooses layer {chosen}"
        if chosen == output:
            said[name] = f"{start}, the output layer itself: no intermediate layer is better on validation."
            continue
        p = float(row["p"])
        against = f"test MAE {row['chosen MAE']:.3f} against {row['output MAE']:.3f} of the output layer {output}"
        interval = f"difference {row['difference']:+.3f}, 95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
        verdict = "with one seed nothing can be tested"
        if np.isfinite(p):
            better = "better" if row["difference"] < 0 else "worse"
            verdict = f"{better} than the output layer" if p <= statistics.ALPHA else "no difference can be told"
            verdict += f" (p = {p:.2g}, {TESTED}; p = {row['Welch p']:.2g} by Welch's test over seeds alone)"
        said[name] = f"{start}: {against}; {interval if np.isfinite(p) else ''}{'; ' * bool(np.isfinite(p))}{verdict}."
    return said


# --- decoders and features ----------------------------------------------------------------------------------------

DECODER_NOTES = (
    "MAE on test, mean over seeds; difference: gate less concatenation, so that a negative one speaks for the gate.",
    "p, low, high: test and 95 % interval over seeds and test videos together (msakit.evaluation.contrasts); Holm p: corrected "
    "for the rows of this table. Welch p: over seeds alone; segments p: paired permutation over test videos alone.",
)


def decoders(runs: Runs) -> pd.DataFrame:
    """Every arm that was run with both decoders: MAE of each, and tests of the difference."""
    named = {arm: (source, title) for arm, source, title in rows(runs)}
    made = [
        {"arm": title, **compare(runs, arm, arm + CONCAT, "gate", "concat")}
        for arm, (source, title) in named.items()
        if arm + CONCAT in named and (arm == source or source + CONCAT not in named)
    ]
    frame = pd.DataFrame(made)
    if len(frame):
        frame.insert(list(frame).index("p") + 1, "Holm p", statistics.holm(frame["p"].to_numpy(float)).adjusted)
    return frame


FEATURE_NOTES = (
    "All splits together. failed: segments that could not be encoded, one frame of zeros in training and test alike. "
    "blank: frames, and whole segments, in which nothing was found (no face), zeros.",
)


COUNTS = ("segments", "failed", "frames", "blank_frames", "blank_segments")


def feature_states(runs: Runs) -> pd.DataFrame:
    """One row a feature store that some run used, in counts."""
    found: dict[tuple[str, str], dict[str, object]] = {}
    for modality, source, state in _states(runs):
        # The folder's name: modality, name of the set or encoder, key.
        name = str(source["features"]).removeprefix(f"{modality}-").rpartition("-")[0]
        kind = "conventional" if source["conventional"] else "encoder"
        counts = {what: state[what] for what in COUNTS if what in state}
        found[modality, str(source["features"])] = {"modality": modality, "features": name, "kind": kind, **counts}
    order = {name: place for place, name in enumerate(MODALITIES)}
    return pd.DataFrame([found[key] for key in sorted(found, key=lambda key: (order[key[0]], key[1]))])


def _states(runs: Runs) -> Iterator[tuple[str, dict[str, object], dict[str, int]]]:
    for run in runs:
        for modality, state in run.record.measurements.get("features", {}).items():
            yield modality, run.record.config["inputs"][modality], state


def lacking(runs: Runs) -> list[str]:
    """One note on failed segments and blank frames, with their counts."""
    told = []
    for row in feature_states(runs).to_dict("records"):
        what = []
        if row["failed"]:
            what.append(f"{row['failed']} of {row['segments']} segments failed")
        if row["blank_frames"]:
            what.append(f"{row['blank_frames']} of {row['frames']} frames blank")
        if what:
            told.append(f"{row['modality']} ({row['features']}) {' and '.join(what)}")
    return [f"Features that lack something, kept as zeros: {'; '.join(told)}."] if told else []
