"""Tables and figures of Kim & Kim 2022 (reconstructed), from recorded runs alone."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from msakit.papers.kim2022 import PAPER
from msakit.records import Runs
from msakit.reporting import figures as draw
from msakit.reporting.corpora import arm_figure, arm_table, by_corpus, kind_of_data
from msakit.reporting.tables import Table

NOTES = (
    "RECONSTRUCTED: the equations of CMSBERT-CLR are not public; these arms follow its abstract on top of MAG-BERT.",
    "Epoch by validation loss of the regression alone; MAE and Corr over all segments (MAG-BERT's scorer drops labels "
    "of zero and reports the best test epoch).",
)
CONVERGENCE = {"cms-clr-smooth": "without averaging", "cms-clr-smooth-ema": "with averaging"}


def tables(runs: Runs) -> dict[str, Table]:
    """One table a corpus."""
    title = "Kim & Kim 2022 (reconstructed): context-driven modality shifting"
    return {corpus: arm_table(part, PAPER, corpus, title, NOTES) for corpus, part in by_corpus(runs, PAPER)}


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save, for each corpus, the arms as points and the convergence with and without weight averaging."""
    made = []
    for corpus, part in by_corpus(runs, PAPER):
        figure, data = arm_figure(part, PAPER, corpus, "mae")
        draw.save(figure, data, folder, f"{corpus}-arms")
        made.append(figure)
        curves = validation_curves(part)
        if len(curves):
            with draw.style():
                figure, axes = plt.subplots(figsize=(draw.COLUMN, 2.4))
                draw.learning_curves(axes, curves, "Validation MSE ↓ (label units²)")
                axes.set_title(f"Full method on {corpus} ({kind_of_data(part)})")
            draw.save(figure, curves, folder, f"{corpus}-convergence")
            made.append(figure)
    return made


def validation_curves(runs: Runs) -> pd.DataFrame:
    """Validation loss by epoch of the full method without and with weight averaging: epoch, seed, series, value."""
    rows = [
        (int(row["epoch"]), run.record.seed, CONVERGENCE[run.record.arm], row["valid_loss"])
        for run in runs.select(arm=list(CONVERGENCE))
        for row in run.record.history
    ]
    return pd.DataFrame(rows, columns=["epoch", "seed", "series", "value"])
