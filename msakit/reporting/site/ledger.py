"""The claims of a profile, as its ledger (claims.json) gives them: the verdict first, then each comparison."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from msakit.reporting.claims import CONTRADICTED, OPEN, SUPPORTED, UNTESTED, Row
from msakit.reporting.claims_text import READING, cells, run_here
from msakit.reporting.site import embed
from msakit.reporting.site.content import slug

FILE = "claims.json"
# verdict -> sign and class; the sign tells them apart where colours do not
VERDICTS = {
    SUPPORTED: ("✓", "supported"),
    CONTRADICTED: ("✗", "contradicted"),
    OPEN: ("≈", "open"),
    UNTESTED: ("–", "untested"),
}
WIDTH, HEIGHT = 190, 24  # of a drawn interval, in pixels of the screen


@dataclass(frozen=True)
class Mark:
    """A verdict, its sign and its class in the style sheet."""

    verdict: str
    sign: str
    kind: str


@dataclass(frozen=True)
class ComparisonView:
    """One row of evidence: what is compared, the drawn interval, and the numbers in words."""

    compared: str
    corpus: str
    interval: Markup
    numbers: tuple[tuple[str, str], ...]
    mark: Mark
    reason: str


@dataclass(frozen=True)
class ClaimView:
    """One claim: its sentence, its source, what was found."""

    id: str
    paper: str
    sentence: str
    source: str
    mark: Mark
    comparisons: tuple[ComparisonView, ...]
    reason: str  # why it cannot be tested, where that is the same for all comparisons
    absent: str  # comparisons whose arms were not run


@dataclass(frozen=True)
class LedgerView:
    """All claims of a profile, how to read them, and the files to save."""

    claims: tuple[ClaimView, ...]
    counts: tuple[tuple[Mark, int], ...]
    rests_on: str  # "" where this profile is the one that its claims rest on
    reading: tuple[str, ...]
    downloads: tuple[embed.Download, ...]

    def of(self, paper: str) -> list[ClaimView]:
        return [claim for claim in self.claims if claim.paper == paper]


def read(results: Path, profile: str) -> LedgerView | None:
    """The ledger of a results folder, or None where none was written.

    Raises ValueError for a file of another make; it names the first fault.
    """
    path = results / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = [(claim, [row(claim, data) for data in claim["comparisons"]]) for claim in content["claims"]]
        scales = _scales(known)
        claims = tuple(_claim(claim, rows, scales) for claim, rows in known)
        rests_on = {content["rests_on"][claim["kind"]] for claim in content["claims"]} - {profile}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not a claims ledger of this version ({fault}): run `msakit claims`") from error
    found = Counter(claim.mark.verdict for claim in claims)
    counts = tuple((mark(verdict), found[verdict]) for verdict in VERDICTS)
    files = tuple(embed.download(file) for file in (path, path.with_suffix(".md")) if file.exists())
    return LedgerView(claims, counts, " and ".join(sorted(rests_on)), tuple(READING), files)


def row(claim: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
    """A comparison as the ledger's own row, so that its numbers are worded as `msakit claims` words them."""
    shared = {
        "paper": claim["paper"],
        "claim": claim["id"],
        **{name: claim[name] for name in ("kind", "family", "test")},
    }
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    missing = {field.name for field in fields(Row)} - {*shared, *values, "favours"}
    if missing:
        raise KeyError(f"a comparison of {claim['id']} lacks {', '.join(sorted(missing))}")
    return Row(**shared, **values)


def mark(verdict: str) -> Mark:
    return Mark(verdict, *VERDICTS[verdict])


def _claim(claim: Mapping[str, Any], rows: Sequence[Row], scales: Mapping[str, float]) -> ClaimView:
    shown, absent = run_here(list(rows))
    views = tuple(_comparison(row, scales[_scale(row)]) for row in shown)
    reasons = {row.reason for row in shown}
    # What stands in the way of all comparisons alike is shown once.
    shared = reasons.pop() if len(shown) > 1 and len(reasons) == 1 else ""
    # The same claim may stand for generated and for real data.
    id = slug("claim", claim["paper"], claim["id"], claim["kind"])
    verdict = mark(claim["verdict"])
    return ClaimView(id, claim["paper"], claim["sentence"], claim["source"], verdict, views, shared, absent)


def _comparison(row: Row, scale: float) -> ComparisonView:
    corpus, compared, measure, effect, n, p, corrected, least, _ = cells(row)
    pairs = [(measure, effect), ("n", n), ("p", p), ("corrected", corrected), ("detectable", least)]
    numbers = tuple((name, value) for name, value in pairs if value not in ("", "–"))
    drawn = _interval(row, scale, f"{measure}: {effect}")
    return ComparisonView(compared, corpus, drawn, numbers, mark(row.verdict), row.reason)


# --- drawn intervals ----------------------------------------------------------------------------------------------


def _lean(row: Row, value: float | None) -> float | None:
    """How far a value lies on the claim's side: to the right where the first arm is better."""
    if value is None or not math.isfinite(value):
        return None
    if row.test == "difference":
        return (value - row.null) * (1.0 if row.direction == "up" else -1.0)
    return -math.log(value) if value > 0 else None  # of a spread or a cost, less is claimed


def _least(row: Row) -> float | None:
    """Half the width of what this n could not have shown."""
    if row.detectable is None:
        return None
    return abs(row.detectable) if row.test == "difference" else abs(math.log(row.detectable))


def _scale(row: Row) -> str:
    return f"{row.test} {row.measure}"


def _scales(known: Sequence[tuple[Mapping[str, Any], Sequence[Row]]]) -> dict[str, float]:
    """By measure, the largest distance from the middle: comparisons of one measure share their scale."""
    scales: dict[str, float] = {}
    for _, rows in known:
        for row in rows:
            ends = [_lean(row, value) for value in (row.effect, row.low, row.high)]
            far = max((abs(end) for end in [*ends, _least(row)] if end is not None), default=0.0)
            scales[_scale(row)] = max(scales.get(_scale(row), 0.0), far)
    return scales


def _interval(row: Row, scale: float, words: str) -> Markup:
    """The effect with its interval; the band about the middle is what this n could not have shown."""
    effect, low, high = (_lean(row, value) for value in (row.effect, row.low, row.high))
    if effect is None or not scale:
        return Markup("")

    def x(value: float) -> float:
        return round(WIDTH / 2 * (1 + 0.94 * value / scale), 1)

    parts, least = [], _least(row)
    if least is not None:
        width = round(x(least) - x(-least), 1)
        parts.append(f'<rect class="band" x="{x(-least)}" y="3" width="{width}" height="{HEIGHT - 6}"/>')
    parts.append(f'<line class="zero" x1="{x(0.0)}" x2="{x(0.0)}" y1="0" y2="{HEIGHT}"/>')
    if low is not None and high is not None:
        parts.append(f'<line class="range" x1="{x(low)}" x2="{x(high)}" y1="{HEIGHT / 2}" y2="{HEIGHT / 2}"/>')
    parts.append(f'<circle class="effect" cx="{x(effect)}" cy="{HEIGHT / 2}" r="4"/>')
    side = "the claim’s side" if effect > 0 else "the other side" if effect < 0 else "neither side"
    return Markup(  # every part of it is a number of ours, or escaped
        f'<svg class="interval" role="img" aria-label="{escape(words)}, on {side}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'
    )
