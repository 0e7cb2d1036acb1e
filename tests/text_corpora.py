"""Corpora of a few segments without media, whose ids say nothing of their videos."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from msakit.data.corpus import Corpus, load_corpus

CLASSES = ["no", "NA", "yes"]  # a name that a careless reader takes for an empty cell
SIZES = {"train": 40, "valid": 10, "test": 16}


def text_corpus(folder: Path, classes: bool = False, oracle: bool = False, name: str = "talks") -> Corpus:
    """Two segments a video; ids are numbers with zeros in front, in no order, and one of them reads NA."""
    random, rows = np.random.default_rng(0), []
    for split, size in SIZES.items():
        for number in range(size):
            rows.append({"video_id": f"{split} {number // 2}", "clip_id": str(number % 2), "split": split})
    table = pd.DataFrame(rows)
    ids = [f"{number:04d}" for number in random.permutation(len(table))]
    table.insert(0, "segment_id", ["NA", *ids[1:]])
    signal = random.normal(size=len(table))
    if classes:
        table["label"] = [CLASSES[place] for place in np.digitize(signal, [-0.5, 0.5])]
        task = {"kind": "classification", "classes": CLASSES}
    else:
        table["label"] = np.clip(signal, -3, 3).round(1)
        task = {"kind": "regression", "low": -3.0, "high": 3.0}
    table = table.assign(text="so good", kind=["007" if number % 3 else "1.50" for number in range(len(table))])
    folder.mkdir(parents=True)
    table.to_csv(folder / "segments.csv", index=False)
    (folder / "corpus.json").write_text(json.dumps({"name": name, "generated": oracle, "task": task}))
    if oracle and classes:
        shares = np.eye(len(CLASSES))[[CLASSES.index(label) for label in table["label"]]] * 0.7 + 0.1
        values = {f"p_{each}": shares[:, k] for k, each in enumerate(CLASSES)}
        table[["segment_id"]].assign(**values).to_csv(folder / "oracle.csv", index=False)
    elif oracle:
        values = {"prediction": table["label"] * 0.9, "prediction_text": table["label"] * 0.5}
        table[["segment_id"]].assign(**values).to_csv(folder / "oracle.csv", index=False)
    return load_corpus(folder)
