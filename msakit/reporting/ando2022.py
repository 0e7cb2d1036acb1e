"""Tables and figures of Ando et al. 2022, from recorded runs alone."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from msakit.papers import facts
from msakit.papers.ando2022 import MODALITIES, PAPER, best_layers
from msakit.records import Runs
from msakit.reporting import figures as draw
from msakit.reporting.corpora import ORACLE_NOTE, by_corpus, kind_of_data, reference_value, references
from msakit.reporting.tables import Row, Table, published_rows, read_published, summarise

NOT_COMPARABLE = ": evidence about the method on this generator, not comparable with published numbers"
# The arms of one layer of one modality, as msakit.papers.ando2022 names them.
LAYER_ARM = r"^layer(?P<layer>\d+)-(?P<modality>\w+)$"
PUBLISHED = {
    "conv": "Published: conventional",
    "conv-bert": "Published: conventional, BERT text",
    "layer23": "Published: CLIP, WavLM, BERT, output layer",
    "layerbest": "Published: CLIP, WavLM, BERT, best layers",
    "layerall": "Published: CLIP, WavLM, BERT, weighted",
}


def tables(runs: Runs) -> dict[str, Table]:
    """By name, for each corpus: ``<corpus>`` (families of arms) and ``<corpus>-layers`` (every single layer)."""
    made = {}
    for corpus, part in by_corpus(runs, PAPER):
        made[corpus] = arm_table(part, corpus)
        made[f"{corpus}-layers"] = layer_table(part, corpus)
    return made


def rows(runs: Runs) -> list[tuple[str, str, str]]:
    """(row, recorded arm, title) of the table: ``output-audio`` is the recorded ``layer4-audio``, and so on."""
    arms, last, best = set(runs.frame["arm"]), last_layers(runs), best_layers(runs)
    made = []
    for family, title in facts(PAPER)["families"].items():
        for modality in MODALITIES:
            source = {
                "output": f"layer{last.get(modality)}-{modality}",
                "best": f"layer{best.get(modality)}-{modality}",
            }.get(family, f"{family}-{modality}")
            named = title.replace("best single layer", f"best single layer, {best.get(modality)}")
            if source in arms:
                made.append((f"{family}-{modality}", source, f"{named}: {modality}"))
        for arm in sorted(arms):
            parts = arm.split("-")
            if parts[0] == family and len(parts) > 2:
                # A modality that no encoder was given for comes from conventional features.
                named = [
                    name + " (conventional)" * (family != "conventional" and name not in last) for name in parts[1:]
                ]
                made.append((arm, arm, f"{title}: {' + '.join(named)}"))
    return made


def last_layers(runs: Runs) -> dict[str, int]:
    """By modality, the index of the encoder's output layer: the highest that was run."""
    single = runs.frame["arm"].str.extract(LAYER_ARM).dropna()
    return {str(name): int(part["layer"].astype(int).max()) for name, part in single.groupby("modality")}


def arm_table(runs: Runs, corpus: str) -> Table:
    """Families of arms by modality, then the references."""
    names = facts(PAPER)["metrics"]
    title = f"Ando et al. 2022 on {corpus}: layers of frozen encoders"
    parts: list[pd.DataFrame] = []
    notes: list[str] = []
    for row, source, label in rows(runs):
        part = summarise(runs, corpus, title, {source: label}, names)
        parts.append(part.frame.assign(arm=row))
        notes += part.notes
    there = references(runs)
    beside = published(corpus)
    parts.append(summarise(runs, corpus, title, {}, names, references=there, extra=beside).frame)
    notes += [row.note for row in beside]
    if not runs.frame["generated"].any():
        notes.append(f"Real data ({corpus}).")
    notes.append("The best layer of each modality was chosen on the validation split, by mean MAE over seeds.")
    if "oracle" in there:
        notes.append(ORACLE_NOTE)
    # A single reference or arm has no spread to speak of: the note on few seeds is for the trained arms alone.
    return Table(corpus, title, pd.concat(parts, ignore_index=True), tuple(dict.fromkeys(notes)), tuple(names))


def published(corpus: str) -> list[Row]:
    """The authors' five rows, for the corpora that they used; their encoders are larger than ours may be."""
    name = corpus.replace("_", "-")
    known = read_published()
    if not len(known[(known["paper"] == PAPER) & (known["corpus"] == name)]):
        return []
    return published_rows(known, PAPER, name, PUBLISHED)


def layer_scores(runs: Runs, split: str) -> pd.DataFrame:
    """MAE of every single-layer run: modality, layer, seed, value."""
    scores = runs.scores("mae", split=split)
    found = scores["arm"].str.extract(LAYER_ARM)
    scores = scores.assign(modality=found["modality"], layer=found["layer"].astype(float)).dropna(subset="layer")
    order = {name: place for place, name in enumerate(MODALITIES)}
    scores = scores.assign(layer=scores["layer"].astype(int), place=scores["modality"].map(order))
    return scores.sort_values(["place", "layer", "seed"])[["modality", "layer", "seed", "value"]]


def layer_table(runs: Runs, corpus: str) -> Table:
    """Every single layer: MAE on validation (which chooses) and on test (which does not)."""
    means = []
    for split in ("valid", "test"):
        grouped = layer_scores(runs, split).groupby(["modality", "layer"], sort=False)["value"]
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
    notes.append(f"{kind_of_data(runs).capitalize()} ({corpus}){NOT_COMPARABLE * bool(runs.frame['generated'].any())}.")
    best_possible = {name: reference_value(runs, f"oracle-{name}", "mae") for name in MODALITIES}
    told = [f"{name} {value:.3f}" for name, value in best_possible.items() if value is not None]
    if told:
        notes.append(f"Oracle (the generator's posterior mean given that modality alone), test MAE: {', '.join(told)}.")
    return Table(f"{corpus}-layers", f"Ando et al. 2022 on {corpus}: every single layer", frame, tuple(notes))


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save, for each corpus, the curve over layers and the arms as points."""
    made = []
    for corpus, part in by_corpus(runs, PAPER):
        with draw.style():
            curve, best = layer_scores(part, "test"), best_layers(part)
            figure = layer_figure(curve, best)
            figure.suptitle(f"Single layers on {corpus} ({kind_of_data(part)}), test", fontsize=8.5)
            draw.save(figure, curve, folder, f"{corpus}-layers")
            made.append(figure)
            named = rows(part)
            figure, axes = plt.subplots(figsize=(draw.PAGE, 0.6 + 0.21 * len(named)))
            scores = part.scores("mae").set_index("arm")[["seed", "value"]]
            points = pd.concat([scores.loc[[source]].assign(arm=row) for row, source, _ in named], ignore_index=True)
            titles = {row: title for row, _, title in named}
            draw.arm_points(axes, points, "mae", titles, oracle=reference_value(part, "oracle", "mae"),
                            constant=reference_value(part, "constant", "mae"))  # fmt: skip
            axes.set_title(f"Arms on {corpus} ({kind_of_data(part)}), test", pad=14)
            draw.save(figure, points[["arm", "seed", "value"]], folder, f"{corpus}-arms")
            made.append(figure)
    return made


def layer_figure(curve: pd.DataFrame, best: Mapping[str, int]) -> Figure:
    """One panel a modality, each with its own scale: their levels differ by more than their layers do.

    curve: modality, layer, seed, value (MAE).
    """
    shown = [name for name in MODALITIES if name in set(curve["modality"])]
    width, columns = (draw.COLUMN, 1) if len(shown) == 1 else (draw.PAGE, 3)
    figure, axes = plt.subplots(1, len(shown), figsize=(width, 2.5 + 0.4 * (columns == 1)), squeeze=False)
    for place, (axis, modality) in enumerate(zip(axes[0], shown, strict=True)):
        draw.layer_curve(axis, curve[curve["modality"] == modality], "mae", best, first=place)
        axis.get_legend().remove()
        axis.set_title(modality)
        axis.set_ylabel("Test MAE ↓ (label units)" if place == 0 else "")
    marks = [
        plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", mec=draw.GREY),
        plt.Line2D([], [], ls="", marker="*", ms=9, mfc="white", mec=draw.GREY),
        plt.Rectangle((0, 0), 1, 1, color=draw.GREY, alpha=0.15, lw=0),
    ]
    labels = ["output layer", "best on validation", "95 % interval over seeds"]
    figure.legend(marks, labels, loc="outside lower center", ncols=columns)
    return figure
