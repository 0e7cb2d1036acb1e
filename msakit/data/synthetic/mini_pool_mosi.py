"""mini-pool-mosi: unlabelled speech, faces and transcripts for pre-training the mini encoders, of other speakers.

Drawn from `mosi_model` like mini-mosi, but under its own seed keys, so that no speaker, sound or frame is shared. Short
texts are: some sentences recur in mini-mosi by chance, and the description says how many. The label cells are empty,
and nothing else tells the sentiment: no kind, no posterior. `texts.txt` holds further transcripts as documents: two
sentences a document, one a line, of one sentiment, each with a kind of its own, a blank line after each document.
Sizes: "pool" counts rendered segments, "texts" counts sentences.
"""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from msakit.data.synthetic import generated
from msakit.data.synthetic.mini_mosi import SIZES as MOSI_SIZES
from msakit.data.synthetic.mini_mosi import TASK, render
from msakit.data.synthetic.mosi_model import GRID, KIND_SHARE, PRIOR, sample_segments, sample_words

NAME = "mini-pool-mosi"
SIZES = {"pool": 320, "texts": 6000}
_TEXT_CODE = 7
DESCRIPTION = (
    "Unlabelled generated monologues for pre-training: the model of mini-mosi, other speakers. Not recordings."
)


def generate(folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> None:
    """Write the pool into `folder`; one seed and sizes always give the same bytes of csv, txt and wav."""
    chosen = generated.checked_sizes(sizes, SIZES)
    rows: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    segments = sample_segments("pool", chosen.get("pool", 1), seed, corpus="pm", corpus_code=4)
    for segment in tqdm(segments, desc=NAME, unit="segment"):
        row, timings = render(segment, folder)
        del row["kind"]
        rows.append(row | {"label": None})
        words += timings
    generated.write_table(folder / "segments.csv", rows)
    generated.write_table(folder / "words.csv", words, {"start": ".4f", "end": ".4f"})
    documents = [_document(seed, number) for number in range(chosen.get("texts", 2) // 2)]
    generated.write_documents(folder / "texts.txt", documents)
    test = [" ".join(segment.words) for segment in sample_segments("test", MOSI_SIZES["test"], seed)]
    pool = [*(each["text"] for each in rows), *(line for document in documents for line in document)]
    generated.write_description(
        folder, NAME, TASK, DESCRIPTION + generated.recurring("mini-mosi", test, pool), seed, __doc__ or ""
    )


def _document(seed: int, number: int) -> list[str]:
    rng = generated.generator(seed, _TEXT_CODE, number)
    level = int(rng.choice(len(GRID), p=PRIOR))
    kinds = rng.choice(list(KIND_SHARE), p=list(KIND_SHARE.values()), size=2)
    return [" ".join(sample_words(rng, level, str(kind))[0]) for kind in kinds]
