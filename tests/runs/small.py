"""Records and predictions by hand."""

import numpy as np
import pandas as pd

from msakit.runs.arm import Arm
from msakit.runs.record import CorpusInfo, Feature, Record, Runtime, Selection, TableInfo, TaskInfo

REGRESSION = TaskInfo(kind="regression", low=-3.0, high=3.0)
CLASSES = TaskInfo(kind="classification", classes=["no", "NA"])


def record(arm="best-text", seed=0, fold=None, task=REGRESSION, corpus="mini-mosi", **changes):
    values = {
        "paper": "ando2022",
        "version": 1,
        "corpus": CorpusInfo(name=corpus, fingerprint="f00d", generated=True, task=task, counts={"test": 4}),
        "arm": arm,
        "definition": Arm(title="Best", model="gated", args={"width": 8, "decoder": "concat"}),
        "seed": seed,
        "fold": fold,
        "features": {name: Feature(encoder=name, layer=2) for name in ("text", "audio")},
        "settings": {"learning_rate": 1e-3, "batch_size": 8},
        "key": f"key-{arm}-{seed}",
        "selection": Selection(split="valid", metric="mae", value=0.5, epoch=2),
        "history": [{"epoch": 1.0, "train_loss": 1.0, "valid_loss": 0.75}, {"epoch": 2.0, "valid_loss": 0.5}],
        "measurements": {"segments": {"train": 9, "valid": 3, "test": 4}},
        "predictions": TableInfo(sha256="", columns=[]),
    }
    return Record(**(values | changes))


def predictions(shift=0.0, **columns):
    label = np.array([-1.0, 0.0, 1.0, 2.0])
    ids = {"segment_id": ["007", "NA", "a b", "ü"], "video_id": ["1.50", "1.50", "null", "x, y"]}
    return pd.DataFrame({**ids, "split": "test", "label": label, "prediction": label / 3 + shift, **columns})


def of_classes():
    p = np.array([0.9, 0.2, 1 / 3])
    ids = {"segment_id": list("abc"), "video_id": list("vvw")}
    return pd.DataFrame({**ids, "split": "test", "label": [0, 1, 0], "p_no": p, "p_NA": 1 - p})


def runtime(**changes):
    values = {"seconds": 1.5, "epoch_seconds": [0.5, 0.25], "peak_memory_mb": 100.0, "environment": {"torch": "2"}}
    return Runtime(**(values | changes))
