"""Notebook parameters are strict, by our command and by bare papermill alike."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from msakit.notebook import (
    ParameterError,
    declarations,
    executed_parameters,
    labelled,
    resolve,
    run,
    settings_of,
    variants,
)

CELL = """corpus: str = "mini-mosi"  # name or folder
seeds: list[int] = [0, 1]  # one run each
rate: float = 1e-3  # learning rate
limit: int | None = None  # at most so many segments
encoders: dict[str, str] = {"text": "a/b#c"}  # path by modality
"""


def test_declarations_keep_defaults_types_and_help():
    declared = declarations(CELL)
    assert list(declared) == ["corpus", "seeds", "rate", "limit", "encoders"]
    assert declared["encoders"].default == {"text": "a/b#c"}
    assert declared["encoders"].help == "path by modality"
    assert declared["limit"].annotation == "int | None"


@pytest.mark.parametrize("line", ["a = 1", "a: int", "a: int = 1 + b", "import os", "a: int = 'x'"])
def test_a_cell_that_cannot_be_checked_is_refused(line):
    with pytest.raises(ParameterError):
        declarations(line)


def test_resolve_fills_in_defaults_and_takes_a_whole_number_for_a_float():
    values = resolve(declarations(CELL), {"rate": 1, "limit": 7})
    assert values == {"corpus": "mini-mosi", "seeds": [0, 1], "rate": 1, "limit": 7, "encoders": {"text": "a/b#c"}}


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ParameterError, match="unknown parameter 'sede': did you mean 'seeds'"):
        resolve(declarations(CELL), {"sede": [1]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seeds", "0,1"),
        ("seeds", [0, "1"]),
        ("seeds", [0, 1, 2, 3, 4, 5, 6, "x"]),
        ("seeds", [True]),
        ("rate", "fast"),
        ("limit", True),
        ("corpus", None),
        ("encoders", {"text": 3}),
    ],
)
def test_an_ill_typed_value_is_refused_with_its_type(name, value):
    with pytest.raises(ParameterError, match=f"parameter '{name}' must be .* not"):
        resolve(declarations(CELL), {name: value})


@pytest.mark.parametrize("value", [[], [0, 0], [-1]])
def test_seeds_are_different_numbers_from_0_up(value):
    with pytest.raises(ParameterError, match="one or more different numbers"):
        resolve(declarations(CELL), {"seeds": value})


@dataclass(frozen=True)
class Recipe:
    epochs: int = 3
    rate: float = 0.1
    augment: bool = True
    limit: float | None = None


def test_settings_are_as_strict_as_parameters():
    assert settings_of(Recipe, {"epochs": 5, "rate": 1, "limit": None}) == Recipe(5, 1, True, None)
    with pytest.raises(ParameterError, match="unknown setting 'epoch': did you mean 'epochs'"):
        settings_of(Recipe, {"epoch": 2})
    with pytest.raises(ParameterError, match=r"'rate' must be float, not '1e-3' \(YAML reads 1e-3 as text"):
        settings_of(Recipe, {"rate": "1e-3"})
    for wrong in ({"epochs": True}, {"epochs": 1.5}, {"augment": 1}):
        with pytest.raises(ParameterError, match="must be"):
            settings_of(Recipe, wrong)


def test_a_corpus_without_a_split_is_refused():
    whole = SimpleNamespace(folder="here", splits={"train": 1, "valid": 1, "test": 1})
    assert labelled(whole) is whole
    part = SimpleNamespace(folder="here", splits={"train": 1, "test": 1})
    with pytest.raises(ParameterError, match="here has no rows of split valid"):
        labelled(part)


def test_the_cell_that_papermill_injects_overrides_and_is_checked():
    assert executed_parameters([CELL, "# Parameters\nseeds = [5]\n"])["seeds"] == [5]
    with pytest.raises(ParameterError, match="did you mean 'corpus'"):
        executed_parameters([CELL, "# Parameters\ncorpsu = 'x'\n"])
    with pytest.raises(ParameterError, match="must be list"):
        executed_parameters([CELL, "# Parameters\nseeds = 5\n"])


def test_an_edited_parameters_cell_run_again_counts_anew():
    cells = [CELL, "# Parameters\nseeds = [5]\n", "x = 1", CELL.replace("[0, 1]", "[7]")]
    assert executed_parameters(cells)["seeds"] == [7]


def test_begin_before_the_parameters_cell_says_what_to_do():
    with pytest.raises(ParameterError, match="run the parameters cell"):
        executed_parameters(["x = 1", "%matplotlib inline"])


@pytest.fixture
def template(tmp_path: Path) -> Path:
    cells = [
        nbformat.v4.new_code_cell(CELL, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("from msakit.notebook import begin\nparameters = begin()"),
        nbformat.v4.new_code_cell("print('ran with', parameters['seeds'])"),
    ]
    path = tmp_path / "template.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_our_command_stops_before_a_kernel_starts(template: Path, tmp_path: Path):
    with pytest.raises(ParameterError, match="did you mean 'seeds'"):
        run(template, tmp_path / "out.ipynb", {"seed": [1]})
    assert not (tmp_path / "out.ipynb").exists()


def test_our_command_runs_the_notebook(template: Path, tmp_path: Path):
    run(template, tmp_path / "out.ipynb", {"seeds": [3]}, progress=False)
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert "ran with [3]" in cells[-1].outputs[0].text


def test_bare_papermill_stops_too_and_names_the_nearest(template: Path, tmp_path: Path):
    command = [sys.executable, "-m", "papermill", str(template), str(tmp_path / "out.ipynb"), "--no-progress-bar"]
    done = subprocess.run([*command, "-p", "sede", "3"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "did you mean 'seeds'" in done.stderr
    done = subprocess.run([*command, "-p", "seeds", "3"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "must be list[int], not 3" in done.stderr


def test_a_missing_notebook_is_answered_with_those_that_are_there(template: Path, tmp_path: Path):
    with pytest.raises(ParameterError, match=r"template\.ipynb"):
        run(tmp_path / "tmplate.ipynb", tmp_path / "out.ipynb", {})


def test_variants_are_the_parameters_with_some_changed(monkeypatch):
    cells = [CELL, "# Parameters\nseeds = [5]\n", "variants([])"]
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(user_ns={"In": cells}))
    first, second = variants([{"corpus": "other"}, {"seeds": [7], "limit": 3}])
    assert (first["corpus"], first["seeds"]) == ("other", [5])
    assert (second["corpus"], second["seeds"], second["limit"]) == ("mini-mosi", [7], 3)
    with pytest.raises(ParameterError, match="unknown parameter 'sede'"):
        variants([{"sede": [1]}])
