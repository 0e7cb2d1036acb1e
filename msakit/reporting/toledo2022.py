"""Tables and figures of Toledo & Marcacini 2022, from recorded runs alone."""

from pathlib import Path

from matplotlib.figure import Figure

from msakit.papers.toledo2022 import PAPER
from msakit.records import Runs
from msakit.reporting import figures as draw
from msakit.reporting.corpora import arm_figure, arm_table, by_corpus
from msakit.reporting.tables import Table

NOTES = (
    "Protocol: one fixed split, early stopping on validation, nothing dropped, attention over the two modality tokens.",
    "No number of the paper could be found in public, so there is no reference row.",
)
# The measure of the figure: chance is 0.5 whatever the class shares.
METRIC = "auroc"


def tables(runs: Runs) -> dict[str, Table]:
    """One table a corpus."""
    title = "Toledo & Marcacini 2022: joint fine-tuning"
    return {corpus: arm_table(part, PAPER, corpus, title, NOTES) for corpus, part in by_corpus(runs, PAPER)}


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save one figure a corpus: the arms as points."""
    made = []
    for corpus, part in by_corpus(runs, PAPER):
        figure, data = arm_figure(part, PAPER, corpus, METRIC)
        draw.save(figure, data, folder, f"{corpus}-arms")
        made.append(figure)
    return made
