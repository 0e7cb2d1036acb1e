"""Errors that suggest: the name that was probably meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """ " Did you mean 'x'?", with a space before it, for the nearest of the names; nothing where none is near."""
    near = difflib.get_close_matches(given, list(names), n=1, cutoff=0.4)
    return f" Did you mean {near[0]!r}?" if near else ""
