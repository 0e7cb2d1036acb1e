"""The rooms of the package stand in a row, and each imports only from rooms to its left, by no string either."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "msakit"
ROOMS = (
    ("files", "strict", "suggestions", "process"),
    ("data",),
    ("encoders",),
    ("features",),
    ("models",),
    ("training",),
    ("runs",),
    ("predictor",),
    ("evaluation",),
    ("reporting",),
    ("papers",),
    ("audit", "explore", "profiles", "notebook", "cli"),
)
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
MODULE = re.compile(r"(msakit(?:\.\w+)+)(?::\w+)?")  # what a registry's string looks like
MODULES = {
    ".".join(("msakit", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Tables are made again from records without the libraries that trained.
HEAVY = {"torch", "transformers", "datasets", "accelerate"}
LIGHT = [
    name
    for name in MODULES
    if name.startswith(("msakit.evaluation", "msakit.reporting", "msakit.runs.arm", "msakit.runs.record"))
    or name in ("msakit.runs.store", "msakit.papers")
    or re.fullmatch(r"msakit\.papers\.\w+\.(tables|figures|arms)", name)
]


def room(module: str) -> str:
    return module.split(".")[1]


@cache
def imported(module: str) -> frozenset[str]:
    """Modules that one names, at any depth of its code; with a module, the packages that it lies in."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} line {node.lineno}: imports are written out from msakit on"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (name := MODULE.fullmatch(node.value)):
            found.add(name[1])
    parents = {name.rpartition(".")[0] for name in found if name.startswith("msakit.")}
    return frozenset(found | parents)


def test_every_module_is_in_a_room():
    assert {room(name) for name in MODULES if name != "msakit"} <= set(RANK)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "msakit"])
def test_a_module_imports_only_from_its_room_and_those_to_the_left(module: str):
    for name in imported(module):
        if name.startswith("msakit."):
            assert RANK[room(name)] <= RANK[room(module)], f"{module} imports {name}"
            if room(module) == room(name) == "papers" and name.count(".") > 1:
                paper = module.split(".")[2:3]
                assert paper in ([], name.split(".")[2:3]), f"{module} imports of another paper: {name}"


@pytest.mark.parametrize("module", LIGHT)
def test_reports_rest_on_nothing_that_trains(module: str):
    waiting, reached = [module], set()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            assert name.partition(".")[0] not in HEAVY, f"{module} reaches {name}"
            waiting += imported(name) if name in MODULES else []


def test_reports_load_nothing_that_trains():
    code = f"import sys, {', '.join(LIGHT)}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
