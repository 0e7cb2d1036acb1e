"""What the papers' tables and figures share: one set of them a corpus, and the reference rows below the arms."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from msakit.papers import facts
from msakit.reporting import figures as draw
from msakit.reporting.tables import Table, summarise
from msakit.runs.record import Runs

REFERENCES = {
    "constant": "Constant (from the training labels)",
    "oracle-text": "Oracle, text alone",
    "oracle-audio": "Oracle, audio alone",
    "oracle-vision": "Oracle, vision alone",
    "oracle": "Oracle",
}
ORACLE_NOTE = (
    "Oracle: the generator's own posterior (its mean, or its class probabilities) given what it drew for each segment: "
    "how far there is to go."
)


def by_corpus(runs: Runs, paper: str) -> Iterator[tuple[str, Runs]]:
    """The runs of a paper, corpus by corpus, in alphabetical order."""
    for corpus in sorted(runs.select(paper=paper).frame["corpus"].unique()):
        yield corpus, runs.select(paper=paper, corpus=corpus)


def references(runs: Runs) -> dict[str, str]:
    """The reference rows that were recorded, arm to title."""
    return {arm: title for arm, title in REFERENCES.items() if arm in set(runs.frame["arm"])}


def reference_value(runs: Runs, arm: str, metric: str) -> float | None:
    """Test score of a reference arm, or None where it was not recorded."""
    found = runs.select(arm=arm).scores(metric)["value"]
    return float(found.iloc[0]) if len(found) else None


def trained(runs: Runs) -> Runs:
    """The runs without the references."""
    return runs.select(arm=[arm for arm in runs.frame["arm"].unique() if arm not in REFERENCES])


def arm_means(runs: Runs, metric: str) -> pd.Series:
    """Mean test score over seeds of every trained arm."""
    return trained(runs).scores(metric).groupby("arm")["value"].mean()


def kind_of_data(runs: Runs) -> str:
    """What figures say in their titles."""
    return "generated data" if runs.frame["generated"].any() else "real data"


def arm_table(runs: Runs, paper: str, corpus: str, title: str, notes: Sequence[str] = ()) -> Table:
    """The arms of ``<paper>.yaml``, in its order, with the references below."""
    known = facts(paper)
    arms = {arm: values["title"] for arm, values in known["arms"].items()}
    there = references(runs)
    said = [*notes, *([ORACLE_NOTE] if "oracle" in there else [])]
    return summarise(runs, corpus, f"{title} on {corpus}", arms, known["metrics"], references=there, notes=said)


def arm_figure(
    runs: Runs, paper: str, corpus: str, metric: str, titles: Mapping[str, str] | None = None
) -> tuple[Figure, pd.DataFrame]:
    """The arms of ``<paper>.yaml`` as points with intervals over seeds, and the plotted data (arm, seed, value).

    titles: arm -> label of the arms to show, where they are not all those of the YAML file.
    """
    titles = titles or {arm: str(values["title"]) for arm, values in facts(paper)["arms"].items()}
    titles = {arm: title for arm, title in titles.items() if arm in set(runs.frame["arm"])}
    scores = runs.select(arm=list(titles)).scores(metric)[["arm", "seed", "value"]]
    with draw.style():
        figure, axes = plt.subplots(figsize=(0.75 * draw.PAGE, 0.75 + 0.24 * len(titles)))
        oracle, constant = (reference_value(runs, arm, metric) for arm in ("oracle", "constant"))
        draw.arm_points(axes, scores, metric, titles, oracle=oracle, constant=constant)
        axes.set_title(f"{corpus} ({kind_of_data(runs)}), test", pad=14)
    return figure, scores
