"""The install files agree with each other, and the package installs and imports as promised."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from msakit.papers import PAPERS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]
PINS = dict(
    re.fullmatch(r"([^=\s]+)==([^=\s]+)", line).groups()  # type: ignore[union-attr]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
)
PINNED = {canonicalize_name(name): version for name, version in PINS.items()}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_inside_its_range(requirement: Requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINNED, f"{requirement.name} is not pinned in constraints.txt"
    assert requirement.specifier.contains(PINNED[name]), f"{name}=={PINNED[name]} is outside {requirement.specifier}"


def test_there_are_requirements_to_check():
    assert len(REQUIREMENTS) >= 25


def test_environment_installs_what_make_env_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(str(item) for item in environment["dependencies"] if str(item).startswith("python="))
    assert python.removeprefix("python=") in PROJECT["requires-python"]
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    makefile = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt" in pip
    for line in pip[1:]:
        assert line in makefile.replace("'", ""), f"make env does not install {line!r}"
    assert "never solved" in " ".join((ROOT / "environment.yml").read_text().splitlines()[:3])


@pytest.mark.parametrize(
    "module", ["msakit", "msakit.cli", "msakit.data", "msakit.encoders", "msakit.notebook", "msakit.models"]
)
def test_importing_loads_nothing_heavy(module: str):
    heavy = {"torch", "transformers", "datasets", "librosa", "cv2", "matplotlib", "sklearn", "papermill"}
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_pip_install_brings_the_package_with_its_settings(tmp_path: Path):
    target = tmp_path / "site"
    source = tmp_path / "source"
    # From a copy: a build writes beside the sources.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    for file in (ROOT / "msakit").rglob("*"):
        if file.suffix in {".py", ".yaml", ".csv", ".css", ".js", ".j2"}:
            (source / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (source / file.relative_to(ROOT)).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    installed = {str(file.relative_to(target)) for file in target.rglob("msakit/**/*") if file.is_file()}
    there = {
        str(file.relative_to(ROOT)) for file in (ROOT / "msakit").rglob("*.*") if file.suffix not in {".py", ".pyc"}
    }
    assert {f"msakit/papers/{paper}/paper.yaml" for paper in PAPERS} <= there
    assert {"msakit/papers/ando2022/published.csv", "msakit/reporting/references.yaml"} <= there
    assert {f"msakit/reporting/site/page.{kind}" for kind in ("css", "js", "html.j2")} <= there
    assert {file for file in there if not Path(file).name.startswith(".")} <= installed
    code = "import msakit, msakit.cli; print(msakit.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
    )
    assert done.stdout.startswith(str(target))


def test_the_version_is_one():
    import msakit

    assert msakit.__version__ == PROJECT["version"]
