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

from msakit.data.catalogue import CATALOGUE
from msakit.data.corpus import CorpusError
from msakit.files import sha256_of

logger = logging.getLogger(__name__)


class ImporterError(CorpusError):
    """A source that cannot be imported as it is; the message names the file and the mend."""


@dataclass
class Manifest:
    """What happened in one import, filled while it goes on.

    `known` names a corpus of the catalogue; `dropped` lists segment_id, split and reason; `replaced` counts NaN and
    infinite feature values by array (they became 0).
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
        if self.known is None:
            return
        sizes = {"segments": (kept, CATALOGUE[self.known].segments)}
        if self.videos_named:
            sizes["videos"] = videos, CATALOGUE[self.known].videos
        for what, (counts, expected) in sizes.items():
            for split, count in expected.items():
                if counts.get(split, 0) != count:
                    self.warn(f"{self.known} {split}: {counts.get(split, 0)} {what} kept, {count} expected")

    def as_json(
        self, importer: str, source: Path, kept: Mapping[str, int], ids: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """The manifest; `kept` counts and `ids` names the segments that stayed, by split."""
        reasons = Counter(entry["reason"] for entry in self.dropped)
        return {
            "importer": importer,
            "source": _identity(source),
            "expected": {"corpus": self.known, "segments": CATALOGUE[self.known].segments if self.known else None},
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
        sizes = CATALOGUE[name].segments
        if all(abs(counts.get(split, 0) - n) <= max(5, 0.02 * n) for split, n in sizes.items()):
            return name
    return None


def _identity(source: Path) -> dict[str, Any]:
    """A file by its sha256, a folder by its name."""
    if source.is_dir():
        return {"folder": source.name}
    return {"file": source.name, "bytes": source.stat().st_size, "sha256": sha256_of(source)}
