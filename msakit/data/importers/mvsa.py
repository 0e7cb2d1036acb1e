"""MVSA-Single and MVSA-Multiple: data/<id>.jpg, data/<id>.txt and labelResultAll.txt, by a named label rule.

Each annotator labels text and image apart ("text,image"). How one label is made of them differs between papers and is
seldom stated; so the rule is an option without a default:

- agree-only: text and image label are equal, else the post is left out.
- neutral-yields (Single): equal, or one of them neutral and then the other; positive against negative is left out.
- majority-then-neutral-yields (Multiple): first the majority of three for text and for image, three different ones
  leave the post out; then as above.
- …-balanced (Toledo & Marcacini, as far as their README says: the most common label among the annotators, then 1,211
  posts a class, drawn with seed 42; fewer if the smallest class has fewer). It leaves open what is counted, so each
  reading has a name: `votes-majority-balanced` counts all labels of text and image together, ties left out;
  `text-majority-balanced` those of the text; `majority-then-neutral-yields-balanced` (Multiple) balances the one above.

agree-only on Multiple compares the two majorities. The majority labels of text and of image are kept as text_label and
image_label ("" where there is none). Corrupt images and empty texts are left out, each with its reason; posts with the
same image, byte for byte, are reported and never stand in two splits: the first's id is their video_id. The splits that
are drawn are the column split of segments.csv; given as `splits`, that file serves another import.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import Draft, Manifest, tidy
from msakit.data.importers.tables import (
    Splits,
    find_one,
    inside,
    random_splits,
    read_lines,
    read_splits,
    read_text,
    same_files,
)

CLASSES = ("negative", "neutral", "positive")
RULES = {
    1: ("agree-only", "neutral-yields", "text-majority-balanced", "votes-majority-balanced"),
    3: (
        "agree-only",
        "majority-then-neutral-yields",
        "text-majority-balanced",
        "votes-majority-balanced",
        "majority-then-neutral-yields-balanced",
    ),
}
BALANCED = "-balanced"
BALANCE_SEED = 42
MODALITY_LABELS = ("text_label", "image_label")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif")


def combined(pairs: Sequence[tuple[str, str]], rule: str) -> tuple[str, str]:
    """(label, "") of one post, or ("", the reason why it has none); pairs: (text, image) label of each annotator."""
    text = _majority([pair[0] for pair in pairs])
    if rule == "text-majority-balanced":
        return (text, "") if text else ("", "the annotators disagree on the text")
    if rule == "votes-majority-balanced":
        votes = Counter(label for pair in pairs for label in pair).most_common()
        tie = len(votes) > 1 and votes[0][1] == votes[1][1]
        return ("", "no label is the most common one") if tie else (votes[0][0], "")
    image = _majority([pair[1] for pair in pairs])
    if not text or not image:
        return "", f"the annotators disagree on the {'image' if text else 'text'}"
    if text == image:
        return text, ""
    if rule == "agree-only":
        return "", "text and image label differ"
    if "neutral" in (text, image):
        return (image if text == "neutral" else text), ""
    return "", "text and image label are opposite"


def _majority(labels: Sequence[str]) -> str:
    label, count = Counter(labels).most_common(1)[0]
    return label if 2 * count > len(labels) else ""


def _read(
    annotators: int,
    name: str,
    source: Path,
    *,
    rule: str,
    splits: Splits | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    per_class: int = 1211,
) -> Draft:
    """`source` holds labelResultAll.txt and, beside it, data/.

    Args:
        rule: see the module's text.
        splits: ids a split, or a file of them, such as an earlier import's segments.csv; else drawn in the shares
            `fractions` with `seed`.
        per_class: posts a class, for the rules that balance.
    """
    if rule not in RULES[annotators]:
        raise CorpusError(f"rule is {rule!r}: for {name} choose one of {', '.join(RULES[annotators])}")
    manifest = Manifest()
    path = find_one(source, ("labelResultAll.txt",), "labelResultAll.txt")
    data = path.parent / "data"
    if not data.is_dir():
        raise CorpusError(f"no folder {data} beside {path.name}: unpack the images and texts there")
    table = _labels(path, annotators, rule, manifest)
    table = _usable(table, data, manifest)
    if rule.endswith(BALANCED) and len(table):
        table = _balanced(table, per_class, manifest)
    if splits is not None:
        split_of = read_splits(splits)
        table["split"] = [split_of.get(segment, "") for segment in table["segment_id"]]
    else:
        table["split"] = random_splits(table, fractions, seed, manifest)
    return Draft(
        f"{name}-{rule}",
        table,
        Task(kind="classification", classes=list(CLASSES)),
        f"Imported from {name}; label rule {rule}.",
        manifest,
    )


read_single = partial(_read, 1, "mvsa-single")
read_multiple = partial(_read, 3, "mvsa-multiple")


def _labels(path: Path, annotators: int, rule: str, manifest: Manifest) -> pd.DataFrame:
    rows = []
    for where, content in itertools.islice(read_lines(path, manifest), 1, None):  # without the header
        cells = [cell.strip() for cell in content.split("\t")]
        pairs = [tuple(part.strip().lower() for part in cell.split(",")) for cell in cells[1:] if cell]
        if len(pairs) != annotators or any(len(p) != 2 or not set(p) <= set(CLASSES) for p in pairs):
            expected = "<id>" + "\t<text label>,<image label>" * annotators
            raise CorpusError(f"{where} is {content!r}: it should read {expected!r} (tabs between)")
        label, reason = combined([(p[0], p[1]) for p in pairs], rule)
        if reason:
            manifest.drop(cells[0], "", reason)
        else:
            text, image = (_majority([pair[side] for pair in pairs]) for side in (0, 1))
            rows.append({"segment_id": cells[0], "label": label, "text_label": text, "image_label": image})
        manifest.found += 1
    return pd.DataFrame(rows, columns=["segment_id", "label", *MODALITY_LABELS])


def _usable(table: pd.DataFrame, data: Path, manifest: Manifest) -> pd.DataFrame:
    """Posts whose text and image can be read; posts with the same image share a video_id."""
    rows: list[dict[str, str]] = []
    for segment, label, *labels in tqdm(list(table.itertuples(index=False)), desc="reading posts", unit="post"):
        image = next((p for suffix in SUFFIXES if (p := inside(data, f"{segment}{suffix}")).is_file()), None)
        text_file = inside(data, f"{segment}.txt")
        text = tidy(read_text(text_file, manifest)) if text_file.is_file() else ""
        reason = "no image file" if image is None else _corrupt(image)
        if reason is None and not text:
            reason = "the text is empty" if text_file.is_file() else "no text file"
        if reason is not None or image is None:
            manifest.drop(segment, "", str(reason))
            continue
        rows.append({"segment_id": segment, "clip_id": segment, "label": label, "text": text, "image": str(image),
                     **dict(zip(MODALITY_LABELS, labels, strict=True))})  # fmt: skip
    table = pd.DataFrame(rows, columns=["segment_id", "clip_id", "label", "text", "image", *MODALITY_LABELS])
    table.insert(1, "video_id", same_files(list(table["segment_id"]), list(table["image"])))
    groups = [list(part) for _, part in table.groupby("video_id", sort=False)["segment_id"] if len(part) > 1]
    manifest.counts["posts_with_the_same_image"] = groups
    if groups:
        count = int((table["video_id"] != table["segment_id"]).sum())
        manifest.warn(f"{count} posts repeat the image of another, byte for byte")
    return table


def _corrupt(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (64, 64))  # a jpeg is decoded small: quicker, and broken data still shows
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "the image is corrupt"
    return None


def _balanced(table: pd.DataFrame, per_class: int, manifest: Manifest) -> pd.DataFrame:
    counts = table["label"].value_counts()
    size = min(per_class, int(counts.min()))
    if size < per_class:
        manifest.warn(f"{size} posts a class kept, {per_class} expected: the smallest class is {counts.idxmin()!r}")
    random = np.random.RandomState(BALANCE_SEED)
    chosen = table.groupby("label", sort=True).sample(n=size, random_state=random).index
    return manifest.without(table, ~table.index.isin(chosen), "not drawn when balancing the classes")
