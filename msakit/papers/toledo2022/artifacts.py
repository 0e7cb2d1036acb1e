"""What figures want besides predictions: the fused vectors before and after training, and a few segments to show."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from msakit.papers import facts
from msakit.runs.experiment import Case, Experiment
from msakit.training.loop import predict

DRAWN = 200  # test segments in `embeddings`
EXAMPLES = 8  # of which half are segments whose text and image differ, as far as there are any


def keeps(case: Case) -> bool:
    """Whether a case keeps artifacts: the first run of the arm whose embeddings are drawn."""
    return case.name == facts("toledo2022")["drawn"]["embeddings"] and case.random_seed == 0


def embeddings(
    experiment: Experiment, case: Case, model: nn.Module, serve: Callable[..., Any], stage: str
) -> pd.DataFrame:
    """What the classifier reads of the first test segments: segment_id, stage ("before", "after"), label, e0, e1, …"""
    rows = case.rows["test"][:DRAWN]
    fused = predict(model, serve(rows, DRAWN), ("fused",))["fused"]
    label = experiment.label[rows]
    if experiment.n_classes is not None:
        label = np.array(experiment.corpus.task.classes)[label]
    table = pd.DataFrame(
        {"segment_id": experiment.table["segment_id"].to_numpy()[rows], "stage": stage, "label": label}
    )
    return pd.concat([table, pd.DataFrame(fused, columns=[f"e{index}" for index in range(fused.shape[1])])], axis=1)


def examples(experiment: Experiment, case: Case) -> pd.DataFrame:
    """A few test segments with their text and their image as it is (base64), for corpora that may be shown."""
    table = experiment.table.iloc[case.rows["test"]]
    text, image = (next((c for c in (f"{m}_label", f"{m}_polarity") if c in table), None) for m in ("text", "image"))
    agree = table[text] == table[image] if text and image else pd.Series(True, index=table.index)
    chosen = pd.concat([table[~agree].head(EXAMPLES // 2), table[agree].head(EXAMPLES - EXAMPLES // 2)])
    pictures = [base64.b64encode(Path(path).read_bytes()).decode() for path in chosen["image"]]
    return chosen[["segment_id", "text"]].assign(image=pictures)
