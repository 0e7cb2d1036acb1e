"""The papers, each a folder that holds all that is special to it.

``paper.yaml`` (citation, facts, arms, claims), ``published.csv`` (values that others printed, with their sources),
``recipe.py`` (trains arms and records runs), and ``tables.py`` and ``figures.py``, made from recorded runs alone. Where
many arms follow a rule, ``arms.py`` has `definitions(facts)`, which gives their definitions from a shorter table.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from msakit.reporting.contract import Paper, read_published
from msakit.runs.arm import Arm, read_arms, select, with_variants
from msakit.suggestions import did_you_mean

log = logging.getLogger(__name__)

PAPERS = ("ando2022", "toledo2022", "kim2022")


@cache
def facts(paper: str) -> dict[str, Any]:
    """What ``<paper>/paper.yaml`` says, with the arms that ``<paper>/arms.py`` defines; treat it as read-only.

    Raises:
        ValueError: no such paper; the choices are named.
    """
    import yaml

    if paper not in PAPERS:
        raise ValueError(f"no paper {paper!r}: choose one of {', '.join(PAPERS)}.{did_you_mean(paper, PAPERS)}")
    content: dict[str, Any] = yaml.safe_load((_folder(paper) / "paper.yaml").read_text(encoding="utf-8"))
    if (_folder(paper) / "arms.py").is_file():
        content["arms"] = import_module(f"{__name__}.{paper}.arms").definitions(content)
    return content


def arms_of(paper: str) -> dict[str, Arm]:
    """The arms that ``paper.yaml`` defines, by name, in its order."""
    return read_arms(facts(paper)["arms"], where=f"{paper}/paper.yaml")


def choose_arms(
    paper: str,
    patterns: Iterable[str] | None = None,
    own_arms: Mapping[str, Mapping[str, Any]] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    lacks: Callable[[Arm], str | None] = lambda arm: None,
) -> dict[str, Arm]:
    """The arms that the parameters of a notebook ask for, by name.

    Args:
        patterns: names, or patterns with ``*``; None for all of the paper.
        own_arms: definitions of further arms (:mod:`msakit.runs.arm`), always among them.
        variants: what each arm is trained with once more (:func:`msakit.runs.arm.with_variants`).
        lacks: what an arm needs and is not at hand, in words; None where it can be trained. Such arms are left out,
            unless they are asked for by name.

    Raises:
        ValueError: a pattern that fits no arm, a faulty definition, an arm asked for by name that lacks something.
    """
    known = arms_of(paper)
    own = read_arms(own_arms or {}, known, "own_arms")
    patterns = None if patterns is None else list(patterns)
    arms = with_variants(select(known | own, patterns) | own, variants or {})
    named = {*own, *(patterns or ())}
    left_out = {name: reason for name, arm in arms.items() if (reason := lacks(arm)) is not None}
    for name, reason in left_out.items():
        if named & {name, arms[name].like}:
            raise ValueError(f"arm {name!r} cannot be trained here: {reason}")
    for reason in dict.fromkeys(left_out.values()):
        first, *more = [name for name, other in left_out.items() if other == reason]
        log.info("left out: %s (%s)", f"{first} and {len(more)} more" if more else first, reason)
    return {name: arm for name, arm in arms.items() if name not in left_out}


def load(paper: str) -> Paper:
    """A paper as reports want it; its recipe is not imported.

    Raises:
        ValueError: no such paper; the choices are named.
    """
    content = facts(paper)
    published = read_published(_folder(paper) / "published.csv")

    def part(name: str) -> Any:
        """`tables` or `figures`, imported when it is called: a table needs no plotting library."""
        return lambda *given: getattr(import_module(f"{__name__}.{paper}.{name}"), name)(*given)

    return Paper(paper, content, published, part("tables"), part("figures"))


def load_all() -> dict[str, Paper]:
    """Every paper, by name."""
    return {paper: load(paper) for paper in PAPERS}


def _folder(paper: str) -> Path:
    return Path(__file__).parent / paper
