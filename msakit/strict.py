"""What comes from outside (arms, settings, profiles, records) is checked by models that take nothing they do not know.

An unknown name is refused with the nearest known one, a value of another type with what is wanted. A whole number is a
fine float; True is no number, and a text is none either.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from msakit.suggestions import did_you_mean


class Strict(BaseModel):
    """A model without unknown fields, whose instances do not change and whose values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


Model = TypeVar("Model", bound=BaseModel)
BRANCH = re.compile(r"int|float|str|bool|(list|dict|literal)\[.*")  # pydantic's name of one type among several


def parse(kind: type[Model], values: Any, where: str) -> Model:
    """An instance of `kind` from plain values.

    Raises:
        ValueError: all faults, one after the other; `where` names the file or parameter that they are in.
    """
    try:
        return kind.model_validate(plain(values))
    except ValidationError as error:
        alternatives: dict[tuple[str, ...], list[Any]] = {}
        for fault in error.errors():
            path = tuple(part for part in map(str, fault["loc"]) if not BRANCH.fullmatch(part))
            alternatives.setdefault(path, []).append(fault)
        faults = "; ".join(_fault(kind, path, each) for path, each in alternatives.items())
        raise ValueError(f"{where}: {faults}") from error


def from_yaml(text: str, where: str) -> Any:
    """What a YAML text holds. Raises ValueError, with the file or option that it is from, where it cannot be read."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not readable as YAML: {' '.join(str(error).split())}") from error


def plain(value: Any) -> Any:
    """The same with tuples as lists: YAML and JSON know no tuples, and neither do strict models."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _fault(kind: type[BaseModel], path: tuple[str, ...], faults: list[Any]) -> str:
    """What is wrong with one field; several faults are those of the types that it may have."""
    name, fault = ".".join(path), faults[0]
    if fault["type"] == "extra_forbidden":
        known = _fields(kind, path[:-1])
        return f"no field {name!r}: there are {', '.join(known)}.{did_you_mean(path[-1], known)}"
    if fault["type"] == "missing":
        return f"field {name!r} is missing"
    if fault["type"] == "value_error":
        reason = str(fault["ctx"]["error"])
        return f"{name}: {reason}" if name else reason
    given, what = fault["input"], " or ".join(each["msg"].removeprefix("Input should ") for each in faults)
    number = isinstance(given, str) and re.fullmatch(r"[+-]?[0-9]+e[+-]?[0-9]+", given)
    mend = " (YAML reads 1e-3 as text: write 1.0e-3)" if number else ""
    return f"{f'field {name!r}' if name else 'it'} should {what}, not {given!r}{mend}"


def _fields(kind: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """Names of the fields of the model that a path leads to."""
    for part in path:
        if part in kind.model_fields:  # else a key of a dictionary
            kind = next(_models(kind.model_fields[part].annotation), kind)
    return list(kind.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside of a type: of a union, of a dictionary's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
