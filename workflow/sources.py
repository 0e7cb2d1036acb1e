"""Which source files of the package a rule rests on, and a digest of their content.

Imports are read from the text, without importing anything, at any depth: ``import msakit.x``, ``from msakit.x import
y``. What a registry names by a string (``"msakit.x:y"``) is loaded only where it is asked for, so a rule names those
modules itself.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msakit

PACKAGE = Path(msakit.__file__).parent


def sources(*parts: str) -> list[Path]:
    """The files that the given parts of the package rest on, themselves included, sorted.

    Args:
        parts: files or folders relative to the package, such as ``"notebook.py"`` or ``"papers/kim2022"``, a folder
            with all that lies in it; or entries of a registry, such as ``"msakit.models.gated:GatedFusion"``.

    Raises:
        FileNotFoundError: a part is not there.
    """
    waiting = [file for part in parts for file in _files(part)]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".py":
            waiting.extend(_imported(file))
            if file.with_suffix(".yaml").is_file():
                found.add(file.with_suffix(".yaml"))
    return sorted(found)


def digest(files: Iterable[Path | str]) -> str:
    """A short digest of the names and contents of files, whatever their dates."""
    whole = hashlib.sha256()
    for file in map(Path, files):
        name = file.relative_to(PACKAGE) if file.is_relative_to(PACKAGE) else file
        whole.update(f"{name}\0{_content(file)}\0".encode())
    return whole.hexdigest()[:16]


def _files(part: str) -> list[Path]:
    if part.startswith(f"{PACKAGE.name}."):
        part = part.partition(":")[0].partition(".")[2].replace(".", "/") + ".py"
    path = PACKAGE / part
    if path.is_dir():
        return sorted(file for file in path.rglob("*.*") if file.is_file() and file.suffix != ".pyc")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no part of the package")
    return [path]


@cache
def _content(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _imported(file: Path) -> tuple[Path, ...]:
    """Files of the package that one file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    files = []
    for name in names:
        if name.partition(".")[0] == PACKAGE.name:
            path = PACKAGE.joinpath(*name.split(".")[1:])
            candidates = (path.with_suffix(".py") if path != PACKAGE else path, path / "__init__.py")
            files += [candidate for candidate in candidates if candidate.is_file()]
    return tuple(files)
