"""Recorded runs written by hand, so that a test knows every number in them."""

import numpy as np
import pandas as pd

from msakit.runs import record as records


def write_run(root, paper, corpus, arm, seed, predictions, *, protocol="corrected", artifacts=None, **changes):
    """Store one run; changes: fields of the record, such as config, history or measurements."""
    values = {
        "paper": paper,
        "arm": arm,
        "seed": seed,
        "corpus": {"name": corpus, "fingerprint": "f", "generated": True, "counts": {"test": len(predictions)}},
        "protocol": protocol,
        "config": {},
        "key": f"{arm}-{seed}",
        "selection": None,
        "history": [],
        "environment": records.environment(),
        "seconds": 1.0,
    }
    records.write(root, records.RunRecord(**(values | changes)), predictions, artifacts)


def regression(label, prediction, **columns):
    """A table of test predictions."""
    names = [f"s{index}" for index in range(len(label))]
    table = {"segment_id": names, "split": "test", "label": np.asarray(label, float), "prediction": prediction}
    return pd.DataFrame(table | columns)


def classes(label, probabilities, names, **columns):
    """A table of test probabilities, one column a class."""
    table = {"segment_id": [f"s{index}" for index in range(len(label))], "split": "test", "label": label}
    given = {f"p_{name}": np.asarray(probabilities, float)[:, index] for index, name in enumerate(names)}
    return pd.DataFrame(table | given | columns)
