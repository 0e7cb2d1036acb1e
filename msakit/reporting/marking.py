"""Which value of a column may be printed bold: the best arm's, and only if it beats every other by a corrected test.

Rule: among the trained arms of one protocol in a table's column, the arm with the best mean is bold if its difference
from each other arm has a p of at most 0.05 in the test of :mod:`msakit.evaluation.comparisons`, Holm-corrected for the
number of those differences. Rows of one training are one arm. Where nothing is bold, no arm stands out from all others.
"""

import numpy as np
import pandas as pd

from msakit.evaluation import metrics, statistics
from msakit.evaluation.comparisons import Scored, compare

EVIDENCE = "scored"  # the column of a table's frame that holds each row's Scored; in no file
RULE = (
    "Bold: the best trained arm of a column, where it beats every other of its protocol (test over seeds and videos, "
    "or folds; Holm-corrected p ≤ 0.05). Where nothing is bold, no arm stands out from all others."
)


def best_rows(frame: pd.DataFrame) -> pd.Series:
    """True at the rows (arm and metric) that may be bold. frame: metric, protocol, and EVIDENCE (None: no arm)."""
    bold = pd.Series(False, index=frame.index)
    trained = frame[frame[EVIDENCE].map(lambda item: isinstance(item, Scored) and item.trained)]
    for (name, _), part in trained.groupby(["metric", "protocol"], sort=False):
        arms: dict[str, Scored] = {item.arm: item for item in part[EVIDENCE]}
        sign = 1 if metrics.metric(str(name)).direction == "up" else -1
        means = {arm: sign * float(item.values.mean()) for arm, item in arms.items()}
        if len(arms) < 2 or not np.isfinite(list(means.values())).all():
            continue
        first = max(means, key=lambda arm: means[arm])
        if stands_out(arms.pop(first), list(arms.values())):
            best = [item.arm == first for item in part[EVIDENCE]]
            bold[part.index[best]] = True
    return bold


def stands_out(best: Scored, others: list[Scored]) -> bool:
    """Whether that arm differs from each of the others by the corrected test."""
    try:
        p = [compare([(1, best), (-1, other)]).p for other in others]
    except ValueError:  # tested on different segments: no comparison, no bold
        return False
    return bool((statistics.holm(np.array(p)) <= statistics.ALPHA).all())
