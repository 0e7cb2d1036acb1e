"""Which source files of the package a module rests on: what a cached result must be redone for when they change.

The imports are read from the text, without importing anything: ``import msakit.x``, ``from msakit.x import y`` at any
depth, and the ``"msakit.x:name"`` strings of the registries, whose modules load when used.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
_REGISTRY_ENTRY = re.compile(r"msakit(\.\w+)+:\w+")
# What shapes a table or a page, but never a trained model's predictions.
PRESENTATION = (
    "reporting",
    "predictor.py",
    "records.py",
    "metrics.py",
    "statistics.py",
    "cli.py",
    "notebook.py",
    "sources.py",
)


def sources(*parts: str, without: tuple[str, ...] = ()) -> list[str]:
    """The files that the given parts of the package rest on, themselves included, as sorted paths.

    Args:
        parts: files or folders relative to the package, such as ``"papers/ando2022.py"`` or ``"data"``.
        without: files or folders relative to the package to leave out, with all that only they need.

    Raises:
        FileNotFoundError: a part is not there.
    """
    waiting = [file for part in parts for file in _files(part)]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in found or any(file.is_relative_to(PACKAGE / left_out) for left_out in without):
            continue
        found.add(file)
        waiting.extend(_imported(file))
        settings = file.with_suffix(".yaml")
        if settings.is_file():
            found.add(settings)
    return sorted(str(file) for file in found)


def fingerprint(*parts: str) -> str:
    """A short digest of the code that decides what the given parts compute.

    :data:`PRESENTATION` is left out, and so are comments, docstrings and layout, which compute nothing, and the
    papers' YAML files: what a run takes from them is part of its recorded configuration.
    """
    digest = hashlib.sha256()
    for file in map(Path, sources(*parts, without=PRESENTATION)):
        if file.suffix == ".py":
            digest.update(f"{file.relative_to(PACKAGE)}\0{meaning(file.read_text())}\0".encode())
    return digest.hexdigest()[:16]


def meaning(source: str) -> str:
    """The syntax tree of a module as text, without its comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def _files(part: str) -> list[Path]:
    path = PACKAGE / part
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no part of the package")
    return [path]


@cache
def _imported(file: Path) -> tuple[Path, ...]:
    """Files of the package that one file names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _REGISTRY_ENTRY.fullmatch(node.value):
            names.add(node.value.partition(":")[0])
    files = []
    for name in names:
        if name.partition(".")[0] != PACKAGE.name:
            continue
        path = PACKAGE.joinpath(*name.split(".")[1:])
        for candidate in (path.with_suffix(".py") if path != PACKAGE else path, path / "__init__.py"):
            if candidate.is_file():
                files.append(candidate)
    return tuple(files)
