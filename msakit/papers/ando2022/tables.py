"""Tables of Ando et al. 2022, from recorded runs alone; the figures are in :mod:`msakit.papers.ando2022.figures`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from msakit import papers
from msakit.evaluation import metrics, statistics
from msakit.papers.ando2022.arms import MODALITIES
from msakit.papers.ando2022.layers import best_layers, last_layers, layer_runs, single_layer_of, takes_best
from msakit.reporting.contract import Paper
from msakit.reporting.scores import (
    TEST_NOTE,
    by_corpus,
    compare,
    definitions,
    labels,
    main_metric,
    reference_value,
    scored,
    scores,
    tested,
    with_holm,
)
from msakit.reporting.tables import Table, arm_table, data_note
from msakit.runs.arm import Arm
from msakit.runs.store import Runs

PAPER = "ando2022"


def tables(runs: Runs) -> dict[str, Table]:
    """By name, for each corpus: the arms, and, where the runs have it, -layers, -choice, -decoders and -features."""
    found: dict[str, Table] = {}
    paper = papers.load(PAPER)
    for corpus, part in by_corpus(runs):
        start, metric = f"Ando et al. 2022 on {corpus}: ", main_metric(part, paper)
        called = {arm: labels(part)[arm] + words for arm, words in resolved(part).items()}
        notes = [CHOSEN_NOTE] if any(map(takes_best, definitions(part, paper).values())) else []
        found[corpus] = arm_table(
            part,
            paper,
            f"{start}layers of frozen encoders",
            elsewhere=single_layers(part, paper),
            titles=called,
            notes=[*notes, *lacking(part)],
        )
        choice = choices(part, paper)
        layer_notes = [*LAYER_NOTES, *oracles(part, metric), *sentences(choice, metric).values()]
        for name, frame, title, said in (
            ("layers", layer_table(part, metric), "every single layer", layer_notes),
            ("choice", choice, "the layer that validation chose against the output layer", CHOICE_NOTES),
            ("decoders", decoders(part, paper, called), "gate against concatenation", DECODER_NOTES),
            ("features", feature_states(part), "what the features lack", FEATURE_NOTES),
        ):
            if len(frame):
                table = f"{corpus}-{name}"
                found[table] = Table(table, start + title, frame, (*said, data_note(part)))
    return found


CHOSEN_NOTE = (
    "Best layers (their numbers stand behind the title) were chosen on the validation split, by the mean validation "
    "loss over seeds of the single layers; in folds within each fold, by its own validation segments."
)


def single_layers(runs: Runs, paper: Paper) -> set[str]:
    """The arms of the table of layers."""
    known = {name for name, arm in paper.arms.items() if single_layer_of(arm) is not None}
    return known | set(layer_runs(runs)["arm"])


def resolved(runs: Runs) -> dict[str, str]:
    """By arm, what to add to its title: layers that were chosen, and modalities that are conventional instead."""
    found = {}
    for arm in runs.select(reference=False).arms:
        records, layers, conventional = [run.record for run in runs.select(arm=arm)], [], []
        for modality, given in records[0].definition.inputs.items():
            features = [record.features[modality] for record in records]
            if features[0].encoder != given.encoder:
                conventional.append(f"{modality} conventional")
            elif given.layer == "best":
                layers.append("/".join(map(str, sorted({int(str(feature.layer)) for feature in features}))))
        start = [f"{'layer' if len(layers) == 1 else 'layers'} {', '.join(layers)}"] if layers else []
        if start or conventional:
            found[arm] = f" ({', '.join([*start, *conventional])})"
    return found


LAYER_NOTES = ("Mean and sample s.d. (ddof 1) over runs of the unimodal arms.", "Layer 0: embeddings.")


def layer_scores(runs: Runs, metric: str, split: str) -> pd.DataFrame:
    """The score of every single-layer run: encoder, layer, seed, fold, value."""
    columns = ["encoder", "layer", "seed", "fold", "value"]
    known = layer_runs(runs)[["arm", "encoder", "layer"]].drop_duplicates("arm")
    if known.empty:
        return pd.DataFrame(columns=columns)
    found = scores(runs.select(arm=list(known["arm"])), metric, split).sort_values(["fold", "seed"])
    return known.merge(found, on="arm")[columns]


def layer_table(runs: Runs, metric: str) -> pd.DataFrame:
    """Every single layer: the score on validation and on test, and where validation chose it."""
    means = []
    label = metrics.metric(metric).label
    for split in ("valid", "test"):
        found = layer_scores(runs, metric, split)
        if found.empty:
            return found
        columns = {"mean": f"{split} {label}", "std": f"{split} s.d.", "count": "runs"}
        means.append(found.groupby(["encoder", "layer"], sort=False)["value"].agg(["mean", "std", "count"]))
        means[-1] = means[-1].rename(columns=columns)
    frame = means[0].join(means[1].drop(columns="runs")).reset_index()
    best, last = best_layers(runs), last_layers(runs)
    roles = []
    for encoder, layer in zip(frame["encoder"], frame["layer"], strict=True):
        times = sum(chosen.get(encoder) == layer for chosen in best.values())
        where = "" if len(best) == 1 else f" in {times} of {len(best)} folds"
        words = ["output layer"] if last[encoder] == layer else []
        roles.append(" and ".join([*words, *([f"chosen on validation{where}"] if times else [])]))
    return frame.assign(role=roles)


def oracles(runs: Runs, metric: str) -> list[str]:
    """One note on how well one modality alone can do, where the generator tells."""
    modalities = layer_runs(runs)["modality"].unique()
    found = {name: reference_value(runs, f"oracle-{name}", metric) for name in modalities}
    words = [f"{name} {value:.3f}" for name, value in found.items() if value is not None]
    label = metrics.metric(metric).label
    start = f"Oracle (the generator's posterior mean given that modality alone), test {label}"
    return [f"{start}: {', '.join(words)}."] if words else []


CHOICE_NOTES = (
    "Test split, mean over runs; difference: the chosen layer less the output layer. The test takes the choice of the "
    "layer as given. " + TEST_NOTE,
)


def choices(runs: Runs, paper: Paper) -> pd.DataFrame:
    """By encoder: the layer that validation chose and the output layer, their test score, and its difference, tested.

    In folds the choice differs between folds: what is compared is the arm that takes the best layer.
    """
    metric, best, last = main_metric(runs, paper), best_layers(runs), last_layers(runs)
    arms = definitions(runs, paper)
    single = {single_layer_of(arm): name for name, arm in reversed(arms.items())}
    rows = []
    for encoder, output in last.items():
        layers = sorted({chosen[encoder] for chosen in best.values()})
        first: str | None = single[encoder, layers[0]]
        if set(best) != {-1}:
            template = arms[str(first)]
            (modality,) = template.inputs
            wanted = template.inputs[modality].model_copy(update={"layer": "best"})
            first = equal_arm(arms, template.model_copy(update={"inputs": {modality: wanted}}))
        if first is not None:
            row = {"encoder": encoder, "chosen layer": "/".join(map(str, layers)), "output layer": str(output)}
            rows.append(row | compared(runs, metric, ("chosen", "output"), first, single[encoder, output]))
    return with_holm(pd.DataFrame(rows))


def equal_arm(arms: Mapping[str, Arm], wanted: Arm) -> str | None:
    """The first arm of that definition, whatever it is called."""
    named = {"title", "group", "like"}
    values = wanted.model_dump(exclude=named)
    return next((name for name, arm in arms.items() if arm.model_dump(exclude=named) == values), None)


def compared(runs: Runs, metric: str, names: tuple[str, str], first: str, second: str) -> dict[str, float]:
    """The test scores of two arms under these names, and the first less the second, tested."""
    found = [float(scored(runs, arm, metric).values.mean()) for arm in (first, second)]
    means = {f"{name} {metrics.metric(metric).label}": mean for name, mean in zip(names, found, strict=True)}
    if first == second:  # no two samples
        return means | {"difference": 0.0, "low": np.nan, "high": np.nan, "p": np.nan}
    return means | tested(compare(runs, first, second, metric))


def sentences(choice: pd.DataFrame, metric: str) -> dict[str, str]:
    """By encoder, what the choice of a layer on validation gives on test, in one sentence."""
    found = {}
    label, sign = metrics.metric(metric).label, 1 if metrics.metric(metric).direction == "up" else -1
    for row in choice.to_dict("records"):
        encoder, chosen, output = str(row["encoder"]), row["chosen layer"], row["output layer"]
        start = f"{encoder.capitalize()}: validation chooses layer {chosen}"
        if chosen == output:
            found[encoder] = f"{start}, the output layer itself: no intermediate layer is better on validation."
            continue
        means = f"test {label} {row[f'chosen {label}']:.3f} against {row[f'output {label}']:.3f} of the output layer"
        p = float(row["p"])
        if not np.isfinite(p):
            found[encoder] = f"{start}: {means} {output}; with one run nothing can be tested."
            continue
        better = "better" if sign * row["difference"] > 0 else "worse"
        verdict = f"{better} than the output layer" if p <= statistics.ALPHA else "no difference is shown"
        interval = f"difference {row['difference']:+.3f}, 95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
        found[encoder] = f"{start}: {means} {output}; {interval}; {verdict} (p = {p:.2g})."
    return found


DECODER_NOTES = ("Test split, mean over runs; difference: gate less concatenation. " + TEST_NOTE,)


def decoders(runs: Runs, paper: Paper, titles: Mapping[str, str]) -> pd.DataFrame:
    """Every arm that was run with both decoders: the score of each, and its difference, tested.

    titles: arm -> what it is called, in place of its label.
    """
    arms, metric = definitions(runs, paper), main_metric(runs, paper)
    called, rows = {**labels(runs), **titles}, []
    trained = {run.record.arm: run.record.same_as or run.record.arm for run in runs}
    seen: set[tuple[str, str]] = set()
    for name, arm in arms.items():
        concat = equal_arm(arms, arm.model_copy(update={"args": {**arm.args, "decoder": "concat"}}))
        # Arms of equal inputs are compared once.
        if concat is None or concat == name or (pair := (trained[name], trained[concat])) in seen:
            continue
        seen.add(pair)
        rows.append({"arm": called[name], **compared(runs, metric, ("gate", "concat"), name, concat)})
    return with_holm(pd.DataFrame(rows))


FEATURE_NOTES = (
    "All splits together. failed: segments that could not be encoded, one frame of zeros in training and test alike. "
    "truncated: texts that lost their end to the encoder's limit. blank: frames, and whole segments, in which nothing "
    "was found (no face), zeros.",
)
COUNTS = ("segments", "failed", "truncated", "frames", "blank_frames", "blank_segments")


def feature_states(runs: Runs) -> pd.DataFrame:
    """One row a feature store that some run used, in counts."""
    found: dict[tuple[str, str], dict[str, object]] = {}
    for record in (run.record for run in runs):
        for modality, state in record.measurements.get("features", {}).items():
            feature = record.features[modality]
            # The folder's name: modality, name of the encoder, key.
            name = feature.features.removeprefix(f"{modality}-").rpartition("-")[0]
            kind = "conventional" if feature.conventional else "encoder"
            counts = {what: state[what] for what in COUNTS if what in state}
            found[modality, feature.features] = {"modality": modality, "features": name, "kind": kind, **counts}
    order = [*MODALITIES, *sorted({modality for modality, _ in found} - set(MODALITIES))]
    return pd.DataFrame([found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1]))])


def lacking(runs: Runs) -> list[str]:
    """One note on failed segments and blank frames, with their counts."""
    words = []
    for row in feature_states(runs).to_dict("records"):
        what = []
        if row["failed"]:
            what.append(f"{row['failed']} of {row['segments']} segments failed")
        if row.get("truncated"):
            what.append(f"{row['truncated']} of {row['segments']} texts lost their end")
        if row["blank_frames"]:
            what.append(f"{row['blank_frames']} of {row['frames']} frames blank")
        if what:
            words.append(f"{row['modality']} ({row['features']}) {' and '.join(what)}")
    return [f"Features that lack something, kept as zeros: {'; '.join(words)}."] if words else []
