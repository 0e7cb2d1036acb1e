"""What figures want besides predictions: the fusion's vectors before and after training, and a few segments to show."""

import base64
from pathlib import Path

import pandas as pd

from msakit.papers.toledo2022.inputs import vectors
from msakit.papers.toledo2022.learners import Learner
from msakit.papers.toledo2022.study import Study, View

DRAWN = 200  # test segments in `embeddings`
EXAMPLES = 8  # of which half are segments whose text and image say different things, as far as there are any


def embeddings(study: Study, learner: Learner, view: View, stage: str) -> pd.DataFrame:
    """What the classifier sees of the first test segments, before or after training."""
    rows = view.rows["test"][:DRAWN]
    device = study.inputs.device
    fused = vectors(lambda batch: {"fused": learner.model(batch)["fused"]}, learner.model,
                    learner.batches(rows, batch_size=DRAWN), device)["fused"]  # fmt: skip
    classes = study.corpus.task.classes
    return pd.DataFrame(
        [
            {
                "segment_id": segment,
                "stage": stage,
                "label": classes[label],
                **{f"e{i}": x for i, x in enumerate(vector)},
            }
            for segment, label, vector in zip(
                study.table["segment_id"].iloc[rows], study.label[rows], fused.tolist(), strict=True
            )
        ]
    )


def examples(view: View) -> pd.DataFrame:
    """A few test segments with their text and their image as it is (base64), for corpora that may be shown."""
    rows = view.corpus.splits["test"].to_pandas()
    text, image = (next((c for c in (f"{m}_label", f"{m}_polarity") if c in rows), None) for m in ("text", "image"))
    agree = rows[text] == rows[image] if text and image else pd.Series(True, index=rows.index)
    chosen = pd.concat([rows[~agree].head(EXAMPLES // 2), rows[agree].head(EXAMPLES - EXAMPLES // 2)])
    pictures = [base64.b64encode(Path(path).read_bytes()).decode() for path in chosen["image"]]
    return chosen[["segment_id", "text"]].assign(image=pictures)
