"""MELD: one csv a split (train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv), clips dia<D>_utt<U>.mp4.

Dialogues are numbered anew in each split, so a segment is <split>_dia<D>_utt<U> and its video is the dialogue. Each
split's clips lie in a folder of their own whose name holds train, dev or test ("output_repeated_splits_test"); it, or
one above it, may be what is given as `clips`.
Some apostrophes are control characters (a Windows-1252 byte taken for a code point): they are mended and counted.
"""

import re
from pathlib import Path
from typing import Literal

import pandas as pd

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import Draft, Manifest
from msakit.data.importers.tables import find_one, read_table

CLASSES = {
    "sentiment": ("negative", "neutral", "positive"),
    "emotion": ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"),
}
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")


def read(
    source: Path, *, target: Literal["sentiment", "emotion"] = "sentiment", clips: str | Path | None = None
) -> Draft:
    """`target`: which of the two labels; `clips`: the folder of video clips, if it is not inside `source`."""
    if target not in CLASSES:
        raise CorpusError(f"target is {target!r}: choose 'sentiment' or 'emotion'")
    manifest = Manifest("meld")
    videos = _clips(Path(clips) if clips else source)
    tables = []
    for theirs, split in SPLITS.items():
        path = find_one(source, (f"{theirs}_sent_emo.csv", f"{theirs}*.csv"), f"table of {theirs}")
        table = read_table(path, _COLUMNS, manifest)
        clip = "dia" + table["Dialogue_ID"] + "_utt" + table["Utterance_ID"]
        tables.append(
            pd.DataFrame(
                {
                    "segment_id": f"{theirs}_" + clip,
                    "video_id": f"{theirs}_dia" + table["Dialogue_ID"],
                    "clip_id": table["Utterance_ID"],
                    "split": split,
                    "label": table[target.title()].str.strip().str.lower(),
                    "text": [_mended(text, manifest) for text in table["Utterance"]],
                    "video": [str(videos.get((theirs, name), "")) for name in clip],
                    "speaker": table["Speaker"],
                    **{c: table[c.title()].str.lower() for c in ("emotion", "sentiment")},
                }
            )
        )
    rows = pd.concat(tables, ignore_index=True)
    return Draft(
        f"meld-{target}",
        rows,
        Task(kind="classification", classes=list(CLASSES[target])),
        f"Imported from MELD, {target} of single utterances.",
        manifest,
    )


def _mended(text: str, manifest: Manifest) -> str:
    mended = re.sub(r"[\x80-\x9f]", lambda found: found.group().encode("latin-1").decode("cp1252", "ignore"), text)
    if mended != text:
        manifest.counts["texts_with_mended_characters"] = manifest.counts.get("texts_with_mended_characters", 0) + 1
    return mended


def _clips(folder: Path) -> dict[tuple[str, str], Path]:
    """(split as MELD names it, dia<D>_utt<U>) -> clip."""
    if not folder.is_dir():
        raise CorpusError(f"no folder at {folder}: check the path")
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("dia*_utt*.mp4")):
        # From the clip's own folder upwards, that one included which was given.
        folders = [folder.resolve().name, *path.relative_to(folder).parts[:-1]][::-1]
        split = next((name for part in folders for name in SPLITS if name in part.lower()), None)
        if split:
            found.setdefault((split, path.stem), path)
    return found
