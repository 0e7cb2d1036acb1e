"""What an import expected, kept, left out and replaced: the manifest.json that makes corpora comparable.

Published results on one corpus differ by a few segments, because each preparation lost others in silence. So
every importer counts, names each id that it leaves out with the reason, and holds the result against the known sizes.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msakit.data.corpus import CorpusError
from msakit.files import sha256_of

logger = logging.getLogger(__name__)

# Segments by split. CMU-MOSI and CMU-MOSEI as MMSA's files have them (the SDK's standard folds), MAG-BERT's own
# preparation of the two, and MELD's tables.
KNOWN: dict[str, dict[str, int]] = {
    "cmu-mosi": {"train": 1284, "valid": 229, "test": 686},
    "cmu-mosei": {"train": 16326, "valid": 1871, "test": 4659},
    "mag-mosi": {"train": 1281, "valid": 229, "test": 685},
    "mag-mosei": {"train": 16265, "valid": 1869, "test": 4643},
    "meld": {"train": 9989, "valid": 1109, "test": 2610},
}
# Videos of the SDK's standard folds.
KNOWN_VIDEOS: dict[str, dict[str, int]] = {
    "cmu-mosi": {"train": 52, "valid": 10, "test": 31},
    "cmu-mosei": {"train": 2249, "valid": 300, "test": 678},
}


class ImporterError(CorpusError):
    """A source that cannot be imported as it is; the message names the file and the mend."""


@dataclass
class Manifest:
    """What happened in one import, filled while it goes on.

    `known` names an entry of KNOWN; `dropped` lists segment_id, split and reason; `replaced` counts NaN and infinite
    feature values by array (they became 0).
    """

    known: str | None = None
    found: int = 0
    dropped: list[dict[str, str]] = field(default_factory=list)
    replaced: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    videos_named: bool = True  # False where the source does not say which video a segment is from

    def drop(self, segment_id: str, split: str, reason: str) -> None:
        self.dropped.append({"segment_id": segment_id, "split": split, "reason": reason})

    def note(self, text: str) -> None:
        """Something a reader of results should know, and that is as it should be."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        self.warnings.append(text)
        logger.warning("%s", text)

    def check(self, kept: Mapping[str, int], videos: Mapping[str, int]) -> None:
        """Warn, with both numbers, where a split is not of the known size."""
        for split, expected in KNOWN.get(self.known or "", {}).items():
            if kept.get(split, 0) != expected:
                self.warn(f"{self.known} {split}: {kept.get(split, 0)} segments kept, {expected} expected")
        for split, expected in KNOWN_VIDEOS.get(self.known or "", {}).items():
            if self.videos_named and videos.get(split, 0) != expected:
                self.warn(f"{self.known} {split}: {videos.get(split, 0)} videos kept, {expected} expected")

    def as_json(
        self, importer: str, source: Path, kept: Mapping[str, int], ids: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """The manifest; `kept` counts and `ids` names the segments that stayed, by split."""
        reasons = Counter(entry["reason"] for entry in self.dropped)
        return {
            "importer": importer,
            "source": _identity(source),
            "expected": {"corpus": self.known, "segments": KNOWN.get(self.known or "")},
            "found": self.found,
            "kept": {**kept, "total": sum(kept.values())},
            "dropped": {"total": len(self.dropped), "reasons": dict(reasons.most_common()), "segments": self.dropped},
            "replaced_by_zero": self.replaced,
            "counts": self.counts,
            "notes": self.notes,
            "warnings": self.warnings,
            "kept_segments": dict(ids),
        }


def guess_known(counts: Mapping[str, int], names: tuple[str, ...]) -> str | None:
    """Which of the named known corpora has these sizes: the nearest, if every split is within 2 % or 5 segments."""
    for name in names:
        if all(abs(counts.get(split, 0) - n) <= max(5, 0.02 * n) for split, n in KNOWN[name].items()):
            return name
    return None


def _identity(source: Path) -> dict[str, Any]:
    """A file by its sha256, a folder by its name."""
    if source.is_dir():
        return {"folder": source.name}
    return {"file": source.name, "bytes": source.stat().st_size, "sha256": sha256_of(source)}
