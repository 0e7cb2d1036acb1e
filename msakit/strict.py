"""What comes from outside (arms, settings, profiles, records) is checked by models that take nothing they do not know.

An unknown name is refused with the nearest known one, a value of another type with what is wanted. A whole number is a
fine float; True is no number, and a text is none either.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from msakit.suggestions import did_you_mean


class Strict(BaseModel):
    """A model without unknown fields, whose instances do not change and whose values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


Model = TypeVar("Model", bound=BaseModel)


def parse(kind: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """An instance of `kind` from plain values.

    Raises:
        ValueError: all faults, one after the other; `where` names the file or parameter that they are in.
    """
    try:
        return kind.model_validate(plain(values))
    except ValidationError as error:
        faults = "; ".join(_fault(kind, fault) for fault in error.errors())
        raise ValueError(f"{where}: {faults}") from error


def plain(value: Any) -> Any:
    """The same with tuples as lists: YAML and JSON know no tuples, and neither do strict models."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _fault(kind: type[BaseModel], fault: Any) -> str:
    path = [str(part) for part in fault["loc"]]
    name = ".".join(path)
    if fault["type"] == "extra_forbidden":
        known = _fields(kind, path[:-1])
        return f"no field {name!r}: there are {', '.join(known)}.{did_you_mean(path[-1], known)}"
    if fault["type"] == "missing":
        return f"field {name!r} is missing"
    if fault["type"] == "value_error":
        reason = str(fault["ctx"]["error"])
        return f"{name}: {reason}" if name else reason
    given, what = fault["input"], fault["msg"].removeprefix("Input ")
    if not name:
        return f"{what}, not {given!r}"
    number = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(given, str) and _is_number(given) else ""
    return f"field {name!r} {what}, not {given!r}{number}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fields(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the model that a fault's path leads to; those of `kind` where the way is lost."""
    for part in path:
        field = kind.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            kind = inner
        elif field is not None:
            # A union or a dictionary: the one model inside of it.
            models = [each for each in getattr(inner, "__args__", ()) if isinstance(each, type)]
            models = [each for each in models if issubclass(each, BaseModel)]
            kind = models[0] if models else kind
    return list(kind.model_fields)
