"""The claims of a profile, as its ledger (claims.json) gives them: verdict first, then the evidence."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from msakit import metrics
from msakit.reporting.site import embed
from msakit.reporting.site.content import slug

FILE = "claims.json"
# verdict -> sign and class; the sign tells them apart where colours do not
VERDICTS = {
    "supported": ("✓", "supported"),
    "contradicted": ("✗", "contradicted"),
    "not distinguishable at this n": ("≈", "open"),
    "not testable here": ("–", "untested"),
}
WIDTH, HEIGHT = 220, 26  # of the drawn interval, in pixels


@dataclass(frozen=True)
class ClaimView:
    """One claim: what is said, by whom, what was found."""

    id: str
    paper: str
    sentence: str
    source: str
    verdict: str
    sign: str
    kind: str
    interval: Markup
    facts: tuple[tuple[str, str], ...]
    note: str


@dataclass(frozen=True)
class Ledger:
    """All claims of a profile, and the file to save."""

    claims: tuple[ClaimView, ...]
    counts: tuple[tuple[str, str, str, int], ...]  # verdict, sign, kind, how many
    download: embed.Download

    def of(self, paper: str) -> list[ClaimView]:
        return [claim for claim in self.claims if claim.paper == paper]


def read(results: Path, papers: Sequence[str]) -> Ledger | None:
    """The ledger of a results folder, or None where none was written.

    Raises ValueError for a file of another make; it names the first fault.
    """
    path = results / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = content["claims"] if isinstance(content, dict) else content
        scales = _scales(rows)
        claims = tuple(_claim(row, scales) for row in rows)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is no claims ledger ({fault}): run `msakit claims`") from error
    for claim in claims:
        if claim.paper not in papers:
            raise ValueError(f"{path}: claim {claim.id} is of an unknown paper {claim.paper!r}: {', '.join(papers)}")
    found = Counter(claim.verdict for claim in claims)
    counts = tuple((verdict, *VERDICTS[verdict], found[verdict]) for verdict in VERDICTS)
    return Ledger(claims, counts, embed.download(path))


def _claim(row: Mapping[str, Any], scales: Mapping[str, float]) -> ClaimView:
    if row["verdict"] not in VERDICTS:
        raise KeyError(f"verdict {row['verdict']!r} of {row['id']}")
    metric = str(row["metric"])
    label = metrics.metric(metric).label if metric in metrics.METRICS else metric
    told = [
        ("Effect", _effect(row, label)),
        ("p", _p(row["p"]) + (f", corrected {_p(row['p_corrected'])}" if row["p_corrected"] is not None else "")),
        ("Smallest effect that this n could show", _number(row["mde"])),
        ("n", _sizes(row)),
        ("Arms", _arms(row["arms"])),
        ("Test", "; ".join(filter(None, [str(row["test"] or ""), f"family {row['family']}" * bool(row["family"])]))),
    ]
    return ClaimView(
        slug("claim", str(row["id"])), str(row["paper"]), str(row["sentence"]), str(row["source"]),
        str(row["verdict"]), *VERDICTS[row["verdict"]], _interval(row, scales.get(metric, 0.0), label),
        tuple((name, value) for name, value in told if value and not value.startswith("–")), str(row["note"] or ""),
    )  # fmt: skip


def _scales(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By metric, the largest distance from zero that is drawn: claims of one metric share their scale."""
    scales: dict[str, float] = {}
    for row in rows:
        ends = [abs(row[name]) for name in ("effect", "low", "high", "mde") if row[name] is not None]
        scales[str(row["metric"])] = max([scales.get(str(row["metric"]), 0.0), *ends])
    return scales


def _interval(row: Mapping[str, Any], scale: float, label: str) -> Markup:
    """The effect with its interval about zero; the band is what this n could not have shown."""
    if row["effect"] is None or not scale:
        return Markup("")

    def x(value: float) -> float:
        return round(WIDTH / 2 + value / (1.06 * scale) * WIDTH / 2, 1)

    middle, marks = HEIGHT / 2, []
    if row["mde"] is not None:
        low, high = x(-abs(row["mde"])), x(abs(row["mde"]))
        marks.append(f'<rect class="band" x="{low}" y="3" width="{round(high - low, 1)}" height="{HEIGHT - 6}"/>')
    marks.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{HEIGHT}"/>')
    if row["low"] is not None and row["high"] is not None:
        low, high = x(row["low"]), x(row["high"])
        marks.append(f'<line class="range" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>')
    marks.append(f'<circle class="effect" cx="{x(row["effect"])}" cy="{middle}" r="4.5"/>')
    name = escape(f"Effect on {label}: {_effect(row, label)}, about a line at zero")
    return Markup(  # every part of it is a number of ours or escaped
        f'<svg class="interval" role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}">{"".join(marks)}</svg>'
    )


def _effect(row: Mapping[str, Any], label: str) -> str:
    if row["effect"] is None:
        return ""
    said = f"{_signed(row['effect'])} {label}"
    return said + (f" [{_signed(row['low'])}, {_signed(row['high'])}]" if row["low"] is not None else "")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _sizes(row: Mapping[str, Any]) -> str:
    parts = [(row["n_seeds"], "seeds"), (row["n_segments"], "segments")]
    return ", ".join(f"{_size(value)} {what}" for value, what in parts if value)


def _size(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _arms(arms: Any) -> str:
    return " against ".join(map(str, arms)) if isinstance(arms, (list, tuple)) else str(arms)
