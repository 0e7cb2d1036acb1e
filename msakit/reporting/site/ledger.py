"""The claims of a profile, as its ledger (claims.json) gives them: the verdict first, then each comparison."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from msakit.reporting.claims import CONTRADICTED, OPEN, SCHEMA, SUPPORTED, UNTESTED, Row
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


def read(results: Path, profile: str) -> dict[str, Any] | None:
    """The ledger of a results folder for the template, or None where none was written.

    claims; counts (of each verdict); rests_on ("" where this profile is the one that its claims rest on); reading (how
    to read them); downloads. Raises ValueError for a file of another make; it names the first fault.
    """
    path = results / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise KeyError(f"its schema is {content['schema']}, not {SCHEMA}")
        known = [(claim, [row(claim, data) for data in claim["comparisons"]]) for claim in content["claims"]]
        scales: dict[str, float] = {}  # comparisons of one measure share their scale
        for each in (each for _, rows in known for each in rows):
            scales[_scale(each)] = max([scales.get(_scale(each), 0.0), *map(abs, _leans(each).values())])
        claims = [_claim(claim, rows, scales) for claim, rows in known]
        rests_on = {content["rests_on"][claim["kind"]] for claim in content["claims"]} - {profile}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not a claims ledger of this version ({fault}): run `msakit claims`") from error
    found = Counter(claim["mark"]["verdict"] for claim in claims)
    files = [file for file in (path, path.with_suffix(".md")) if file.exists()]
    return {
        "claims": claims,
        "counts": [(mark(verdict), found[verdict]) for verdict in VERDICTS],
        "rests_on": " and ".join(sorted(rests_on)),
        "reading": READING,
        "downloads": [embed.download(file.read_bytes(), file.name) for file in files],
    }


def row(claim: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
    """A comparison as the ledger's own row, so that its numbers are worded as `msakit claims` words them."""
    shared = {name: claim[name] for name in ("paper", "kind", "family", "test")}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return Row(claim=claim["id"], **shared, **values)


def mark(verdict: str) -> dict[str, str]:
    """A verdict, its sign, and its class in the style sheet."""
    sign, kind = VERDICTS[verdict]
    return {"verdict": verdict, "sign": sign, "kind": kind}


def _claim(claim: Mapping[str, Any], rows: Sequence[Row], scales: Mapping[str, float]) -> dict[str, Any]:
    shown, absent = run_here(list(rows))
    reasons = {row.reason for row in shown}
    return {
        # The same claim may stand for generated and for real data.
        "id": slug("claim", claim["paper"], claim["id"], claim["kind"]),
        **{name: claim[name] for name in ("paper", "sentence", "source")},
        "mark": mark(claim["verdict"]),
        "comparisons": [_comparison(row, scales[_scale(row)]) for row in shown],
        # What stands in the way of all comparisons alike is shown once.
        "reason": reasons.pop() if len(shown) > 1 and len(reasons) == 1 else "",
        "absent": absent,
    }


def _comparison(row: Row, scale: float) -> dict[str, Any]:
    corpus, compared, measure, effect, n, p, corrected, least, _ = cells(row)
    pairs = [(measure, effect), ("n", n), ("p", p), ("corrected", corrected), ("detectable", least)]
    return {
        "compared": compared,
        "corpus": corpus,
        "interval": _interval(row, scale, f"{measure}: {effect}"),
        "numbers": [(name, value) for name, value in pairs if value not in ("", "–")],
        "mark": mark(row.verdict),
        "reason": row.reason,
    }


def _scale(row: Row) -> str:
    return f"{row.test} {row.measure}"


def _leans(row: Row) -> dict[str, float]:
    """How far effect, low and high lie on the claim's side (to the right where the first arm is better), and `least`,
    half the width of what this n could not have shown; what is undefined is left out."""
    given = {name: value for name in ("effect", "low", "high") if (value := getattr(row, name)) is not None}
    if row.test == "difference":
        sign = 1.0 if row.direction == "up" else -1.0
        leans = {name: (value - row.null) * sign for name, value in given.items()}
    else:  # of a spread or a cost, less is claimed
        leans = {name: -math.log(value) for name, value in given.items() if value > 0}
    if row.detectable is not None:
        leans["least"] = abs(row.detectable if row.test == "difference" else math.log(row.detectable))
    return leans


def _interval(row: Row, scale: float, words: str) -> Markup:
    """The effect with its interval; the band about the middle is what this n could not have shown."""
    leans = _leans(row)
    if "effect" not in leans or not scale:
        return Markup("")
    x = {name: round(WIDTH / 2 * (1 + 0.94 * value / scale), 1) for name, value in leans.items()}
    middle, parts = WIDTH / 2, []
    if "least" in x:
        left = round(WIDTH / 2 * (1 - 0.94 * leans["least"] / scale), 1)
        width = round(x["least"] - left, 1)
        parts.append(f'<rect class="band" x="{left}" y="3" width="{width}" height="{HEIGHT - 6}"/>')
    parts.append(f'<line class="zero" x1="{middle}" x2="{middle}" y1="0" y2="{HEIGHT}"/>')
    if {"low", "high"} <= set(x):
        parts.append(f'<line class="range" x1="{x["low"]}" x2="{x["high"]}" y1="{HEIGHT / 2}" y2="{HEIGHT / 2}"/>')
    parts.append(f'<circle class="effect" cx="{x["effect"]}" cy="{HEIGHT / 2}" r="4"/>')
    effect = leans["effect"]
    side = "the claim’s side" if effect > 0 else "the other side" if effect < 0 else "neither side"
    return Markup(  # every part of it is a number of ours, or escaped
        f'<svg class="interval" role="img" aria-label="{escape(words)}, on {side}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'
    )
