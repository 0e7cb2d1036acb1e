"""MAG-BERT's pickles (mosi.pkl, mosei.pkl): lists of ((words, visual, acoustic), label, segment), aligned by word.

Row i of a segment's visual and acoustic array belongs to its word i; the format has no times. So there is no
words.csv, which is a table of times. Instead the folder has the layout by word that `msakit.data.importers` describes:
columns `words` (a JSON list) and `n_words` of segments.csv, arrays [segment, word, dim].
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import Draft, Manifest, identified, number, padded, tidy
from msakit.data.importers.mmsa import load_splits
from msakit.data.importers.mult import segment_names
from msakit.data.importers.safe_pickle import repaired

SPLITS = {"train": "train", "dev": "valid", "test": "test"}


def read(source: Path, *, name: str | None = None, max_bytes: int | None = None) -> Draft:
    """`name`: mag-mosi or mag-mosei (else guessed from the number of segments), or your own."""
    content = load_splits(source, max_bytes, tuple(SPLITS))
    counts = {ours: len(content[theirs]) for theirs, ours in SPLITS.items()}
    name, known = identified(name, counts, ("mag-mosi", "mag-mosei"), source.stem)
    manifest = Manifest(known)
    rows: list[dict[str, Any]] = []
    vectors: dict[str, list[np.ndarray]] = {"audio": [], "vision": []}
    for theirs, split in SPLITS.items():
        for index, example in enumerate(content[theirs]):
            where = f"{source} [{theirs!r}][{index}]"
            words, vision, audio, label, segment = _parts(example, where)
            names = segment_names(segment, mosi="mosi" in name)
            if not words or len(words) != len(vision) or len(words) != len(audio):
                reason = f"{len(words)} words but {len(vision)} rows of vision and {len(audio)} of audio"
                manifest.drop(names["segment_id"], split, reason)
                continue
            vectors["audio"].append(audio)
            vectors["vision"].append(vision)
            rows.append({
                **names, "split": split, "label": number(label), "text": " ".join(words),
                "words": json.dumps(words, ensure_ascii=False), "n_words": str(len(words)),
                "source_id": repaired(segment if isinstance(segment, bytes) else str(segment)),
            })  # fmt: skip
    if not rows:
        raise CorpusError(f"{source} holds no usable segment: fetch it again")
    manifest.note("no word times: column `words` of segments.csv, and row i of each array is word i")
    return Draft(
        name,
        pd.DataFrame(rows).fillna(""),
        Task(),
        "Imported from a MAG-BERT pickle: features.npz holds one vector a word, segments.csv the list of words.",
        manifest,
        {modality: padded(parts, f"{source}: {modality}") for modality, parts in vectors.items()},
    )


def _parts(example: Any, where: str) -> tuple[list[str], np.ndarray, np.ndarray, Any, Any]:
    """(words, vision, audio, label, segment) of one example."""
    try:
        (words, vision, audio), label, segment = example
        words = [tidy(repaired(w if isinstance(w, bytes) else str(w))) for w in words]
        vision, audio = np.asarray(vision, np.float64), np.asarray(audio, np.float64)
        number(label)
    except (TypeError, ValueError) as error:
        raise CorpusError(f"{where} is not ((words, visual, acoustic), label, segment): another format?") from error
    if vision.ndim != 2 or audio.ndim != 2:
        raise CorpusError(f"{where}: visual {vision.shape} and acoustic {audio.shape} must be [word, dim]")
    return words, vision, audio, label, segment
