"""What a rule of the workflow rests on: imports are followed, registries are not, and content counts, not dates."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from msakit.models import MODELS


@pytest.fixture(scope="module")
def module() -> Any:
    path = Path(__file__).parents[1] / "workflow/sources.py"
    spec = importlib.util.spec_from_file_location("workflow_sources", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def relative(module: Any, *parts: str) -> set[str]:
    return {file.relative_to(module.PACKAGE).as_posix() for file in module.sources(*parts)}


def test_a_folder_counts_whole_and_imports_are_followed(module: Any):
    found = relative(module, "papers/kim2022")
    assert {"papers/kim2022/recipe.py", "papers/kim2022/paper.yaml", "papers/kim2022/published.csv"} <= found
    assert {"training/loop.py", "features.py", "runs/experiment.py"} <= found
    assert not any(file.startswith("papers/ando2022") for file in found)


def test_a_registry_is_not_followed_and_its_entry_is_a_part(module: Any):
    assert relative(module, "models/__init__.py") & {"models/gated.py", "models/cms.py"} == set()
    found = relative(module, MODELS["shifted_bert"])
    assert {"models/shifted_bert.py", "models/cms.py", "models/mag.py"} <= found
    assert "models/gated.py" not in found


def test_a_part_that_is_not_there_is_an_error(module: Any):
    with pytest.raises(FileNotFoundError, match="no part of the package"):
        module.sources("papers/nobody1999")


def test_a_digest_follows_names_and_content(module: Any, tmp_path: Path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n")

    def now(*names: str) -> str:
        module._content.cache_clear()
        return module.digest(tmp_path / name for name in names)

    first = now("a.py", "b.py")
    os.utime(tmp_path / "a.py", (0, 0))
    assert now("a.py", "b.py") == first
    assert now("a.py") != now("b.py") != first
    (tmp_path / "a.py").write_text("x = 2\n")
    os.utime(tmp_path / "a.py", (0, 0))
    assert now("a.py", "b.py") != first
