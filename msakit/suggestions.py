"""Errors that suggest: the name that was probably meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """A sentence to add to an error, its space before it: did you mean the nearest of the names; "" where none is."""
    near = difflib.get_close_matches(given, list(names), n=1, cutoff=0.4)
    return f" Did you mean {near[0]!r}?" if near else ""
