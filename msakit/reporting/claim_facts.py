"""Claims as data: the ``claims:`` of ``papers/<paper>.yaml``, read strictly, and the arms that they speak of.

A claim in the YAML::

    - id: intermediate-beats-output
      sentence: An intermediate layer of a pre-trained encoder serves sentiment better than its output layer.
      source: abstract [P]
      metric: mae
      family: layers
      comparisons:
        text: {a: {intermediate: layer*-text}, b: {last: layer*-text}}

An arm is a recorded arm's name, or a role among the arms that a pattern finds (:func:`resolve`). Lists of arms, all of
one length, are alternatives: the first place whose arms were all run is taken.
"""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from msakit import papers
from msakit.evaluation import metrics
from msakit.runs.record import Runs

KINDS = ("generated", "real")
TESTS = ("difference", "spread", "ratio")
ROLES = ("chosen", "intermediate", "first", "last")

Arm = str | Mapping[str, str]  # an arm's name, or one of ROLES with a pattern of names


@dataclass(frozen=True)
class Comparison:
    """Two arms, or two leads of arms."""

    name: str
    a: Arm
    b: Arm
    beyond: tuple[Arm, Arm] | None = None  # the second pair, whose lead the first one's is to exceed
    value: str | None = None  # of a ratio: what is measured a run, see msakit.reporting.claims.measured
    otherwise: "Comparison | None" = None  # in place of this one where its arms were not run


@dataclass(frozen=True)
class Claim:
    """One claim of a paper. Fields are those of the YAML, with these defaults."""

    id: str
    sentence: str  # in our words
    source: str  # where the paper or its authors say so, with its tag, or that it is our own question
    metric: str  # a name of msakit.evaluation.metrics, whose direction says what better is
    family: str  # claims that are corrected together
    comparisons: tuple[Comparison, ...]
    test: str = "difference"
    margin: float = 0.0  # of "not worse", in the metric's unit
    seeds: int = 5  # seeds or folds an arm at least
    kinds: tuple[str, ...] = KINDS
    corpora: tuple[str, ...] | None = None  # None: all of the paper's
    paper: str = ""


def claims_of(paper: str) -> tuple[Claim, ...]:
    """The claims of ``<paper>.yaml``, checked. Raises ValueError naming the file, the claim and the mend."""
    items = papers.facts(paper).get("claims") or []
    claims = tuple(parsed(item, paper, f"{paper}.yaml, claim {number}") for number, item in enumerate(items, start=1))
    twice = {claim.id for claim in claims if [other.id for other in claims].count(claim.id) > 1}
    if twice:
        raise ValueError(f"{paper}.yaml: two claims are called {', '.join(sorted(twice))}; give each an id of its own")
    return claims


def parsed(item: Mapping[str, Any], paper: str, where: str) -> Claim:
    """One claim from its YAML, checked."""
    values = dict(item)
    where = f"{where} ({values.get('id', 'without id')})"
    known = set(Claim.__dataclass_fields__) - {"paper"}
    needed = {"id", "sentence", "source", "metric", "family", "comparisons"}
    faults = [f"{name} is missing" for name in sorted(needed - set(values))]
    faults += [f"{name!r} is no field of a claim ({', '.join(sorted(known))})" for name in sorted(set(values) - known)]
    if faults:
        raise ValueError(f"{where}: {'; '.join(faults)}")
    comparisons = tuple(_comparison(name, pair, where) for name, pair in values.pop("comparisons").items())
    for name in ("kinds", "corpora"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    claim = Claim(comparisons=comparisons, paper=paper, **values)
    metrics.metric(claim.metric)
    if claim.test not in TESTS:
        raise ValueError(f"{where}: test {claim.test!r}; choose from {', '.join(TESTS)}")
    if not set(claim.kinds) <= set(KINDS):
        raise ValueError(f"{where}: kinds {', '.join(claim.kinds)}; choose from {', '.join(KINDS)}")
    if not comparisons or claim.margin < 0 or claim.seeds < 2:
        raise ValueError(f"{where}: wants a comparison, a margin of at least 0, and 2 seeds or more")
    for pair in comparisons:
        if (pair.value is None) == (claim.test == "ratio") or (pair.beyond and claim.test != "difference"):
            raise ValueError(f"{where}, {pair.name}: 'value' goes with a ratio, and only with it; 'beyond' with a "
                             "difference")  # fmt: skip
    return claim


def _comparison(name: str, pair: Mapping[str, Any], where: str) -> Comparison:
    unknown = sorted(set(pair) - {"a", "b", "beyond", "value"})
    if unknown or not {"a", "b"} <= set(pair):
        raise ValueError(f"{where}, comparison {name}: wants a and b, and may have beyond or value; it has "
                         f"{', '.join(pair)}")  # fmt: skip
    lists = {len(pair[side]) for side in ("a", "b") if isinstance(pair[side], list)}
    if lists:
        if len(lists) > 1 or 0 in lists or pair.get("beyond"):
            raise ValueError(f"{where}, comparison {name}: lists of arms want one length, and no beyond")
        taken = [{**pair} | {side: pair[side][place] for side in ("a", "b") if isinstance(pair[side], list)}
                 for place in range(lists.pop())]  # fmt: skip
        made: Comparison | None = None
        for item in reversed(taken):
            made = replace(_comparison(name, item, where), otherwise=made)
        return made or _comparison(name, taken[0], where)
    beyond = pair.get("beyond")
    arms = [pair["a"], pair["b"], *([beyond["a"], beyond["b"]] if beyond else [])]
    for arm in arms:
        if isinstance(arm, Mapping) and (len(arm) != 1 or next(iter(arm)) not in ROLES):
            raise ValueError(f"{where}, comparison {name}: {dict(arm)} names no arm; write its name, or one of "
                             f"{', '.join(ROLES)} with a pattern")  # fmt: skip
    return Comparison(name, arms[0], arms[1], (arms[2], arms[3]) if beyond else None, pair.get("value"))


def resolve(runs: Runs, arm: Arm, metric: str) -> str | None:
    """The recorded arm that is meant, or None.

    ``chosen`` is the arm of a pattern with the best mean over seeds on validation; ``first`` and ``last`` have the
    lowest and highest number in place of the pattern's star; ``intermediate`` is chosen among those in between.
    """
    there = sorted(runs.frame["arm"].unique())
    if isinstance(arm, str):
        return arm if arm in there else None
    ((role, pattern),) = arm.items()
    form = re.compile(re.escape(pattern).replace(r"\*", r"(\d+(?:\.\d+)?)"))
    numbered = sorted((float(found[1]), name) for name in there if (found := form.fullmatch(name)))
    names = [name for _, name in numbered]
    if role == "chosen" and not names:
        names = fnmatch.filter(there, pattern)
    if role == "intermediate":
        names = names[1:-1]
    if not names or (role in ("first", "last") and len(names) < 2):
        return None
    if role in ("first", "last"):
        return names[0 if role == "first" else -1]
    means = runs.select(arm=names).scores(metric, split="valid").groupby("arm")["value"].mean().loc[names].dropna()
    if means.empty:
        return None
    return str(means.idxmax() if metrics.metric(metric).direction == "up" else means.idxmin())
