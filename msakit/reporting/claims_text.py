"""The claims ledger as files: ``claims.json`` for programs, ``claims.md`` for readers, and lines for the terminal."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tabulate import tabulate

from msakit.evaluation import metrics
from msakit.evaluation.comparisons import PAIRED_FOLDS, UNPAIRED_FOLDS
from msakit.files import write_atomically
from msakit.reporting import manifest
from msakit.reporting.claim_facts import KINDS, Claim
from msakit.reporting.claims import LIGHT, NOT_RUN, RESTS_ON, UNTESTED, Ledger, Row, as_data, ledger
from msakit.reporting.contract import Paper
from msakit.runs.store import read_runs

HEAD = ("corpus", "comparison", "measure", "effect [95 % interval]", "n", "p", "p corrected", "detectable", "verdict")
READING = (
    "An effect is the first arm less the second in the metric's unit, or, for spreads and costs, the first over the "
    "second (×).",
    "Differences: t-test that counts both seeds and test videos (fold by fold where runs are folds). Spreads: Brown & "
    "Forsythe's test over seeds. Costs: Welch's test over seeds on logarithms; counts that never vary decide by "
    "themselves (no p).",
    "p: two-sided; corrected: Holm over all tests of the family on that kind of data. Supported or contradicted where "
    "the corrected p is at most 0.05, by the side of the effect.",
    "Detectable: the smallest true effect that the test finds four times in five at this n, at 0.05 over the number of "
    "tests in the family.",
    "A claim of several comparisons is contradicted if one is, supported if all that can be tested are, and not "
    "distinguishable otherwise.",
)


def texts(found: Ledger, papers: Mapping[str, Paper]) -> dict[str, str]:
    """``claims.json`` and ``claims.md``; nothing where no paper of the runs states a claim."""
    if not found.rows:
        return {}
    data = json.dumps(as_data(found), indent=1, ensure_ascii=False, allow_nan=False)
    return {"claims.json": f"{data}\n", "claims.md": to_markdown(found, papers)}


def to_markdown(found: Ledger, papers: Mapping[str, Paper]) -> str:
    """The ledger as a page: what it rests on, how to read it, then claim by claim."""
    lines = [f"# Claims, profile {found.profile}", "", _standing(found.profile), ""]
    lines += [*(f"- {line}" for line in READING), ""]
    for paper in dict.fromkeys(claim.paper for claim in found.claims):
        facts = papers[paper].facts
        lines += [f"## {facts['title']}", "", f"{facts['authors']}, {facts['venue']}.", ""]
        if facts.get("status"):
            lines += [f"The method is {facts['status']}: these are claims about the reconstruction.", ""]
        for kind in KINDS:
            own = [item for item in found.verdicts() if (item[0].paper, item[1]) == (paper, kind)]
            if own:
                lines += [f"### {kind.capitalize()} data", ""]
            for claim, _, verdict, rows in own:
                lines += _claim(claim, verdict, rows)
    return "\n".join(lines).rstrip() + "\n"


def _standing(profile: str) -> str:
    rests = f"Claims on generated data rest on `{RESTS_ON['generated']}`, claims on real data on `{RESTS_ON['real']}`; "
    rests += "the two are never mixed."
    if profile in LIGHT:
        return f"{rests} `{profile}` has too few seeds for any of them: what follows shows effects, not verdicts."
    return rests


def _claim(claim: Claim, verdict: str, rows: list[Row]) -> list[str]:
    tested = sum(row.verdict != UNTESTED for row in rows)
    part = f" ({tested} of {len(rows)} comparisons tested)" if 0 < tested < len(rows) else ""
    lines = [f"**{claim.sentence}** → **{verdict}**{part}", "", f"Source: {claim.source}.", ""]
    shown, absent = run_here(rows)
    if shown:
        lines += [tabulate([cells(row) for row in shown], headers=HEAD, tablefmt="pipe", disable_numparse=True), ""]
    if absent:
        lines += [f"Not run here: {absent}.", ""]
    return lines


def run_here(rows: list[Row]) -> tuple[list[Row], str]:
    """The rows whose arms were run, and the names of the others, by corpus."""
    absent: dict[str, list[str]] = {}
    for row in rows:
        if row.reason.startswith(NOT_RUN):
            absent.setdefault(row.corpus, []).append(row.comparison)
    named = [f"{'; '.join(names)} ({corpus})" for corpus, names in absent.items()]
    return [row for row in rows if not row.reason.startswith(NOT_RUN)], ", ".join(named)


def cells(row: Row) -> list[str]:
    """One row of a claim's table, formatted."""
    verdict = row.verdict + (f": {row.reason}" if row.reason else "")
    compared = f"{row.a} vs {row.b}" if row.comparison in ("", row.a) else f"{row.comparison}: {row.a} vs {row.b}"
    name = metrics.metric(row.measure).title if row.measure in metrics.METRICS else row.measure.replace("_", " ")
    measure = {"difference": name, "spread": f"s.d. of {name.split(' ')[0]}", "ratio": name}[row.test]
    return [row.corpus, compared, measure, effect(row), _n(row), _p(row.p), _p(row.p_corrected),
            _number(row, row.detectable), verdict]  # fmt: skip


def effect(row: Row) -> str:
    """Effect and interval, such as "-0.021 [-0.043, 0.001]" or "×0.85 [0.60, 1.20]"."""
    if row.effect is None or not np.isfinite(row.effect):
        return "–"
    shown = _number(row, row.effect, signed=True)
    if row.low is None or row.high is None or not np.isfinite([row.low, row.high]).all() or row.low == row.high:
        return shown
    return f"{shown} [{_number(row, row.low, plain=True)}, {_number(row, row.high, plain=True)}]"


def _number(row: Row, value: float | None, signed: bool = False, plain: bool = False) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    if row.test == "difference":
        return f"{value:+.3f}" if signed else f"{value:.3f}"
    return f"{value:.3g}" if plain else f"×{value:.3g}"


def _n(row: Row) -> str:
    if not row.n_runs or row.unit == "counts":
        return "–"
    if row.unit == PAIRED_FOLDS:
        return f"{row.n_runs[0]} folds, {row.n_segments} segments"
    runs = "+".join(map(str, row.n_runs))
    if row.unit == UNPAIRED_FOLDS:
        return f"{runs} folds, unpaired, {row.n_segments} segments"
    seeds = f"{runs} seeds"
    if row.n_segments is None or row.test != "difference":
        return seeds
    videos = f", {row.n_videos} videos" if row.n_videos != row.n_segments else ""
    return f"{seeds}, {row.n_segments} segments{videos}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def lines(found: Ledger) -> list[str]:
    """The ledger for a terminal: a line a claim, and one below for each comparison."""
    shown = [f"profile {found.profile}: {_standing(found.profile).replace('`', '')}"]
    for claim, kind, verdict, rows in found.verdicts():
        shown += ["", f"{claim.paper}, {kind} data: {claim.sentence}", f"  {verdict.upper()}"]
        run, absent = run_here(rows)
        if absent:
            shown.append(f"  - not run here: {absent}")
        for row in run:
            corpus, compared, measure, size, n, p, corrected, least, outcome = cells(row)
            numbers = ""
            if size != "–":
                numbers = f"{measure} {size}; {n}; p {p}, corrected {corrected}; detectable {least}; "
            shown.append(f"  - {corpus}, {compared}: {numbers}{outcome}")
    return shown


def read_profile(results: Path) -> str:
    """The profile of a results folder: from its manifest, else the folder's name."""
    there = (Path(results) / manifest.FILE).is_file()
    return str(manifest.read_manifest(results)["profile"]) if there else Path(results).resolve().name


def update(results: Path, papers: Mapping[str, Paper]) -> list[str]:
    """Test the claims on a results folder's runs, and write claims.json and claims.md there if they changed.

    Returns lines for a terminal. Raises ValueError where no paper of the runs states a claim.
    """
    results = Path(results)
    found = ledger(read_runs(results / "runs"), papers, read_profile(results))
    if not found.rows:
        raise ValueError(f"{results}: no paper of its runs states a claim in its paper.yaml")
    stale = {
        results / name: text.encode()
        for name, text in texts(found, papers).items()
        if not (results / name).is_file() or (results / name).read_bytes() != text.encode()
    }
    for path, content in stale.items():
        write_atomically(path, content)
    if stale and (results / manifest.FILE).is_file():
        manifest.write_manifest(results, found.profile)
    return lines(found)
