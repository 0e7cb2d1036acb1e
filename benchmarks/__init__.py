"""Benchmarks: each module here has ``run() -> list[Result]``; ``make bench`` runs them all (or those named).

A result is a ratio against a stated reference, measured in the same run on the same machine, with the direction that is
better and a target. It is written into ``results/benchmarks.json``, by name.
"""

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any


def machine() -> str:
    """Machine class: architecture and cores, no names."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


@dataclass(frozen=True)
class Result:
    """One benchmark's figure."""

    name: str  # its key in the file
    ratio: float  # measured over reference
    target: float  # what the ratio should be
    direction: str  # "down": at most the target; "up": at least
    reference: str  # what the ratio is taken against
    detail: dict[str, Any]  # the measured parts, with units in their names
    machine: str = field(default_factory=machine)

    def __post_init__(self) -> None:
        if self.direction not in ("up", "down"):
            raise ValueError(f"direction is {self.direction!r}: choose up or down")

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio <= self.target if self.direction == "down" else self.ratio >= self.target

    def as_dict(self) -> dict[str, Any]:
        """The fields in the JSON file."""
        return asdict(self)
