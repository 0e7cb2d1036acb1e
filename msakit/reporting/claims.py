"""The claims ledger: what the recorded runs say to each claim of :mod:`msakit.reporting.claim_facts`.

A claim is tested on every corpus by every one of its comparisons, each a row of the ledger. The rule:

* **difference** (a better than b, in the metric's direction): the test over seeds and videos of
  :mod:`msakit.evaluation.comparisons` (paired by fold where runs are folds). With a ``margin`` the claim is that a is
  not worse than b by that much, and the test is against -margin in place of zero. With ``beyond`` it is that a's lead
  over b is larger than the lead of a second pair, tested as a difference of differences.
* **spread** (a steadier than b): Brown & Forsythe's test on the metric over seeds.
* **ratio** (a smaller than b in something measured a run: cost, or roughness of the validation loss): Welch's test over
  seeds on logarithms; counted operations and parameters decide by themselves.

p is two-sided, Holm-corrected over all tests of a family of claims on one kind of data. A row is **supported** or
**contradicted** if the corrected p is at most 0.05, by the side on which the effect lies; otherwise **not
distinguishable at this n**, with the effect that such a test would have found four times in five (minimum detectable
effect, at 0.05 over the number of tests). It is **not testable here** if an arm or measurement is missing, if there
are fewer seeds (or folds) than the claim asks for, or if the profile is a light one. A claim of several rows is
contradicted if one of them is, supported if all that can be tested are, and not distinguishable otherwise.

Generated and real data are never mixed: not in a test, not in a family, not in a verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np

from msakit.evaluation import metrics, statistics
from msakit.evaluation.comparisons import PAIRED_FOLDS, compare
from msakit.reporting.claim_facts import KINDS, Claim, Side, claims_of, resolve
from msakit.reporting.contract import Paper
from msakit.reporting.scores import by_corpus, scored
from msakit.runs.store import Run, Runs

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
OPEN = "not distinguishable at this n"
UNTESTED = "not testable here"
SCHEMA = 2  # of claims.json

RESTS_ON = {"generated": "mini-full", "real": "cmu-mosi"}
LIGHT = {"mini": "mini-full"}  # a profile with too few seeds, and the one that claims rest on
NOT_RUN = "not run here"
COUNTS = ("flops_per_sample", "flops_per_prediction", "trainable_parameters", "total_parameters")


@dataclass(frozen=True)
class Row:
    """One comparison of a claim on one corpus, tested or not. effect: a less b, or a over b of spreads and ratios."""

    paper: str
    claim: str
    comparison: str
    kind: str
    corpus: str
    family: str
    test: str
    measure: str
    direction: str  # of the measure: which way is better, "up" or "down"
    a: str
    b: str
    unit: str = ""  # what n_runs counts: a unit of msakit.evaluation.comparisons, "seeds" or "counts"
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    null: float = 0.0
    n_runs: tuple[int, ...] = ()
    n_segments: int | None = None
    n_videos: int | None = None
    se_seeds: float | None = None
    se_videos: float | None = None
    df: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    tests_in_family: int = 0
    detectable: float | None = None
    verdict: str = UNTESTED
    reason: str = ""
    favours: bool | None = field(default=None, repr=False)  # whether the effect lies on the claim's side


@dataclass(frozen=True)
class Ledger:
    """All claims of a profile's papers: the claims, their rows, and each claim's verdict by kind of data."""

    profile: str
    claims: tuple[Claim, ...]
    rows: tuple[Row, ...]

    def verdicts(self) -> list[tuple[Claim, str, str, list[Row]]]:
        """(claim, kind of data, verdict, rows) in order."""
        found = []
        for claim in self.claims:
            for kind in KINDS:
                rows = [r for r in self.rows if (r.paper, r.claim, r.kind) == (claim.paper, claim.id, kind)]
                if rows:
                    found.append((claim, kind, together([row.verdict for row in rows]), rows))
        return found


def together(verdicts: Sequence[str]) -> str:
    """The verdict of a claim from those of its rows."""
    tested = {verdict for verdict in verdicts if verdict != UNTESTED}
    if not tested:
        return UNTESTED
    if CONTRADICTED in tested:
        return CONTRADICTED
    return SUPPORTED if tested == {SUPPORTED} else OPEN


def ledger(runs: Runs, papers: Mapping[str, Paper], profile: str) -> Ledger:
    """Test every claim of the papers that have runs."""
    claims: list[Claim] = []
    rows: list[Row] = []
    for paper in papers.values():
        part = runs.select(paper=paper.name)
        stated = claims_of(paper) if len(part) else ()
        claims += stated
        for _, on_corpus in by_corpus(part):
            tester = _Tester(on_corpus, profile)
            rows += [tester.row(claim, name) for claim in stated for name in claim.comparisons]
    return Ledger(profile, tuple(claims), tuple(_corrected(rows)))


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Holm within each family of a paper on one kind of data; then the verdicts."""
    families: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row.p is not None:
            families.setdefault((row.paper, row.kind, row.family), []).append(row.p)
    adjusted = {family: iter(statistics.holm(np.array(p, dtype=float))) for family, p in families.items()}
    found = []
    for row in rows:
        if row.p is not None:
            family = (row.paper, row.kind, row.family)
            row = replace(row, p_corrected=float(next(adjusted[family])), tests_in_family=len(families[family]))
        found.append(replace(row, verdict=_verdict(row), detectable=_detectable(row)))
    return found


def _verdict(row: Row) -> str:
    if row.reason or row.favours is None:
        return UNTESTED
    if row.p_corrected is not None and row.p_corrected > statistics.ALPHA:
        return OPEN
    return SUPPORTED if row.favours else CONTRADICTED


def _detectable(row: Row) -> float | None:
    """The smallest effect that the test finds with power 0.8, at 0.05 over the number of tests in the family."""
    if row.p is None:
        return None
    alpha = statistics.ALPHA / row.tests_in_family
    if row.test == "spread":
        return statistics.detectable_spread((row.n_runs[0], row.n_runs[1]), alpha)
    parts = [part for part in (row.se_seeds, row.se_videos) if part is not None and np.isfinite(part)]
    found = statistics.detectable(float(np.sqrt(np.square(parts).sum())), row.df or float("nan"), alpha)
    return float(np.exp(found)) if row.test == "ratio" else found


class _Tester:
    """The tests on one corpus."""

    def __init__(self, runs: Runs, profile: str) -> None:
        self.runs, self.profile = runs, profile
        first = runs.runs[0].record
        self.corpus, self.task = first.corpus.name, first.corpus.task.kind
        self.kind = "generated" if first.corpus.generated else "real"
        self.scored = cache(partial(scored, runs))  # each arm is scored once a metric

    def row(self, claim: Claim, name: str) -> Row:
        pair, metric = claim.comparisons[name], claim.metric_on(self.task)
        alternatives = pair.alternatives()
        # Of a spread or a ratio, less is claimed.
        up = claim.test == "difference" and metric is not None and metrics.metric(metric).direction == "up"
        row = Row(claim.paper, claim.id, name, self.kind, self.corpus, claim.family, claim.test,
                  pair.value or metric or "", "up" if up else "down", "", "")  # fmt: skip
        resolved = [[metric and resolve(self.runs, side, metric) for side in sides] for sides in alternatives]
        index = next((index for index, arms in enumerate(resolved) if None not in arms), 0)
        shown = [_shown(side, arm) for side, arm in zip(alternatives[index], resolved[index], strict=True)]
        a, b = shown if len(shown) == 2 else (f"{shown[0]} over {shown[1]}", f"{shown[2]} over {shown[3]}")
        row = replace(row, a=a, b=b)
        if metric is None:
            return replace(row, reason=f"the claim has no metric for {self.task}")
        found = [arm for arm in resolved[index] if arm is not None]
        if len(found) < len(shown):
            missing = [what for what, arm in zip(shown, resolved[index], strict=True) if arm is None]
            return replace(row, reason=f"{NOT_RUN}: {', '.join(missing)}")
        if len(set(found)) < len(found):
            return replace(row, reason="both sides are the same arm")
        row = {"difference": self._difference, "spread": self._spread, "ratio": self._ratio}[claim.test](
            row, claim, metric, found
        )
        fewest = min(row.n_runs, default=0)
        if self.profile in LIGHT:
            few = f"{fewest} {'folds' if row.unit == PAIRED_FOLDS else 'seeds'} are too few here"
            return replace(row, reason=row.reason or f"{few}; this claim rests on the profile {LIGHT[self.profile]}")
        if not row.reason and fewest < claim.seeds and row.unit != "counts":
            row = replace(row, reason=f"{fewest} seeds or folds; this claim asks for {claim.seeds}")
        return row

    def _difference(self, row: Row, claim: Claim, metric: str, arms: list[str]) -> Row:
        sides = [self.scored(arm, metric) for arm in arms]
        if len({side.arm for side in sides}) < len(sides):
            return replace(row, reason="both sides are one training")
        sign = 1.0 if row.direction == "up" else -1.0
        terms = list(zip((1.0, -1.0, -1.0, 1.0), sides, strict=False))
        try:
            got = compare(terms, null=-sign * claim.margin)
        except ValueError as error:
            return replace(row, reason=str(error))
        row = replace(row, unit=got.unit, effect=got.difference, low=got.low, high=got.high, null=got.null,
                      n_runs=got.n_runs, n_segments=got.n_segments, n_videos=got.n_videos, se_seeds=got.se_seeds,
                      se_videos=got.se_videos)  # fmt: skip
        if not np.isfinite(got.p):
            return replace(row, reason="the test is undefined: a single seed or video, or a run that collapsed")
        return replace(row, p=got.p, df=got.df, favours=bool(sign * (got.difference - got.null) > 0))

    def _spread(self, row: Row, claim: Claim, metric: str, arms: list[str]) -> Row:
        first, second = (self.scored(arm, metric) for arm in arms)
        if first.folds is not None or second.folds is not None:
            return replace(row, reason="spread over folds is not spread over seeds")
        got = statistics.compare_spread(first.values, second.values)
        row = replace(row, unit="seeds", effect=got.ratio, null=1.0, n_runs=got.n, n_segments=first.n_segments,
                      n_videos=first.n_videos)  # fmt: skip
        if not np.isfinite([got.p, got.ratio]).all():
            return replace(row, reason="the test is undefined: fewer than three seeds, or a run that collapsed")
        return replace(row, p=got.p, favours=got.ratio < 1)

    def _ratio(self, row: Row, claim: Claim, metric: str, arms: list[str]) -> Row:
        name = row.measure
        everywhere = [np.array([measured(run, name) for run in self.runs.select(arm=arm)]) for arm in arms]
        values = [side[np.isfinite(side) & (side > 0)] for side in everywhere]
        row = replace(row, unit="seeds", null=1.0, n_runs=tuple(len(side) for side in values))
        if not all(len(side) for side in values):
            return replace(row, reason=f"{name} was not measured")
        first, second = (np.log(side) for side in values)
        effect = float(np.exp(first.mean() - second.mean()))
        if name in COUNTS:
            # Nothing to test. Equal counts favour neither side, which a claim of less does not survive.
            return replace(row, unit="counts", effect=effect, favours=bool(effect < 1))
        if any(len(side) < len(whole) for side, whole in zip(values, everywhere, strict=True)):
            return replace(row, effect=effect, reason=f"{name} was not measured in every run")
        got = statistics.welch(first, second)
        row = replace(row, effect=effect, low=float(np.exp(got.low)), high=float(np.exp(got.high)))
        if not np.isfinite(got.p):
            return replace(row, reason="the test is undefined: a single seed, or nothing varies")
        se = float(np.sqrt(sum(np.var(side, ddof=1) / len(side) for side in (first, second))))
        return replace(row, p=got.p, se_seeds=se, df=got.df, favours=effect < 1)


def _shown(side: Side, found: str | None) -> str:
    """An arm as the ledger names it: its role beside its name."""
    if isinstance(side, str):
        return side
    how = {"chosen": "chosen on validation", "intermediate": "intermediate, chosen on validation"}
    role = how.get(side.name, side.name)
    return f"{role} of {side.selection}" if found is None else f"{found} ({role})"


def measured(run: Run, name: str) -> float:
    """A number of one run; nan where it has none.

    "roughness" is the mean distance of an epoch's validation loss from the mean of its two neighbours', "epoch_seconds"
    the median time of an epoch; any other name is one of the record's measurements.
    """
    if name == "roughness":
        loss = np.array([row.get("valid_loss") for row in run.record.history], dtype=float)
        return float(np.abs(loss[1:-1] - (loss[:-2] + loss[2:]) / 2).mean()) if len(loss) > 2 else float("nan")
    if name == "epoch_seconds":
        return float(np.median(run.runtime.epoch_seconds or np.nan)) if run.runtime else float("nan")
    value = run.record.measurements.get(name)
    return float(value) if isinstance(value, (int, float)) else float("nan")


def as_data(found: Ledger) -> dict[str, Any]:
    """The ledger as plain data: numbers with six significant digits, what is undefined as null."""
    return {
        "schema": SCHEMA,
        "profile": found.profile,
        "metric_version": metrics.VERSION,
        "alpha": statistics.ALPHA,
        "power": statistics.POWER,
        "rests_on": RESTS_ON,
        "claims": [
            {
                "paper": claim.paper, "id": claim.id, "sentence": claim.sentence, "source": claim.source,
                "kind": kind, "metric": claim.metric, "test": claim.test, "family": claim.family,
                "margin": claim.margin, "minimal_n": claim.seeds, "verdict": verdict,
                "comparisons": [_plain(row) for row in rows],
            }
            for claim, kind, verdict, rows in found.verdicts()
        ],
    }  # fmt: skip


def _plain(row: Row) -> dict[str, Any]:
    left_out = {"paper", "claim", "kind", "family", "test", "favours"}
    return {name: _short(value) for name, value in asdict(row).items() if name not in left_out}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value
