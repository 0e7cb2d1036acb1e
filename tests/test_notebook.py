"""Notebook parameters are strict, by our command and by bare papermill alike."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from msakit import notebook, process
from msakit.notebook import (
    ParameterError,
    declarations,
    differences,
    executed_parameters,
    require_splits,
    resolve,
    run,
    with_preset,
)
from msakit.strict import Strict

CELL = """corpus: str = "mini-mosi"  # name or folder
seeds: list[int] = [0, 1]  # one run each
rate: float = 1e-3  # learning rate
limit: int | None = None  # at most so many segments
encoders: dict[str, str] = {"text": "a/b#c"}  # path by modality
"""


def test_declarations_keep_defaults_and_types():
    declared = declarations(CELL)
    assert list(declared) == ["corpus", "seeds", "rate", "limit", "encoders"]
    assert declared["encoders"].default == {"text": "a/b#c"}
    assert declared["limit"].annotation == "int | None"


@pytest.mark.parametrize("line", ["a = 1", "a: int", "a: int = 1 + b", "import os", "a: int = 'x'"])
def test_a_cell_that_cannot_be_checked_is_refused(line):
    with pytest.raises(ParameterError):
        declarations(line)


def test_resolve_fills_in_defaults_and_takes_a_whole_number_for_a_float():
    values = resolve(declarations(CELL), {"rate": 1, "limit": 7})
    assert values == {"corpus": "mini-mosi", "seeds": [0, 1], "rate": 1, "limit": 7, "encoders": {"text": "a/b#c"}}


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ParameterError, match=r"unknown parameter 'sede': .* Did you mean 'seeds'"):
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


@pytest.mark.parametrize(
    "annotation",
    ["__import__('os').getcwd()", "tuple[int]", "list[lambda: 1]", "dict[str]", "int | 3", "numpy.ndarray"],
)
def test_an_annotation_is_read_and_never_evaluated(annotation):
    with pytest.raises(ParameterError, match="cannot be checked: combine str, int"):
        declarations(f"a: {annotation} = 1")


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("dict[str, list[str]]", {"a": ["b"]}, {"a": [1]}),
        ("str | dict | None", {"kind": "text"}, 3),
        ("list[Any]", [1, "a"], "a"),
        ("float | None", 2, "1e-3"),
        ("bool", True, 1),
    ],
)
def test_types_are_checked_to_their_last_item(annotation, good, bad):
    (declared,) = declarations(f"a: {annotation} = {good!r}").values()
    assert resolve({"a": declared}, {"a": good}) == {"a": good}
    with pytest.raises(ParameterError, match="must be"):
        resolve({"a": declared}, {"a": bad})


PRESET_CELL = """preset: str = "mini"  # profile
corpora: list[str] | None = None  # null: the preset's
encoders: dict | None = None  # by name
arms: list[str] | None = None  # null: the preset's
seeds: list[int] | None = None  # null: the preset's
settings: dict = {}  # over the preset's, key by key
cache: str = "build/corpora"  # folder
"""
PRESET = {
    "corpora": ["mini-mosi"], "encoders": {"text": "a", "audio": "b"}, "arms": None, "seeds": [0, 1],
    "settings": {"epochs": 8, "learning_rate": 0.001},
}  # fmt: skip


def test_a_preset_fills_what_is_none_and_lies_under_dictionaries():
    declared = declarations(PRESET_CELL)
    filled = with_preset(declared, resolve(declared, {}), PRESET, "p")
    assert filled == PRESET | {"preset": "mini", "cache": "build/corpora"}
    given = {"seeds": [7], "settings": {"epochs": 2}, "encoders": {"text": "mine"}, "arms": ["mag"]}
    filled = with_preset(declared, resolve(declared, given), PRESET, "p")
    assert filled["seeds"] == [7]
    assert filled["arms"] == ["mag"]
    assert filled["settings"] == {"epochs": 2, "learning_rate": 0.001}
    assert filled["encoders"] == {"text": "mine", "audio": "b"}
    assert PRESET["settings"]["epochs"] == 8


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"sedes": [0]}, r"preset 'p': unknown parameter 'sedes': .* Did you mean 'seeds'"),
        ({"seeds": "0"}, r"'seeds' of preset 'p' must be list\[int\] | None, not '0'"),
        ({"seeds": [0, 0]}, "seeds must be one or more different numbers"),
        ({"cache": "elsewhere"}, "'cache' of preset 'p' would be ignored: declare it with default None"),
    ],
)
def test_a_preset_is_as_strict_as_a_parameter(preset, message):
    declared = declarations(PRESET_CELL)
    with pytest.raises(ParameterError, match=message):
        with_preset(declared, resolve(declared, {}), preset, "p")


def test_begin_sets_the_variables_of_the_notebook_and_the_switches_of_the_process(tmp_path, monkeypatch):
    profile = tmp_path / "mine.yaml"
    profile.write_text("profile: mine\nmatmul: onednn\nnotebooks:\n  kim2022: {seeds: [3], settings: {epochs: 4}}\n")
    cells = [PRESET_CELL, f"# Parameters\npreset = {str(profile)!r}\nsettings = {{'beta': 2}}\n", "begin('kim2022')"]
    variables = {"In": cells, "seeds": None}
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(user_ns=variables))
    monkeypatch.setattr(notebook.os, "chdir", lambda folder: None)
    monkeypatch.setattr(notebook.logging, "basicConfig", lambda **options: None)
    configured = []
    monkeypatch.setattr(process, "configure", lambda **options: configured.append(options))
    parameters = notebook.begin(paper="kim2022")
    assert (parameters["seeds"], parameters["settings"]) == ([3], {"epochs": 4, "beta": 2})
    assert (variables["seeds"], variables["settings"]) == ([3], {"epochs": 4, "beta": 2})
    assert configured == [{"matmul": "onednn"}]
    with pytest.raises(ValueError, match=r"profile 'mine' has no notebook 'kim2023': .* Did you mean 'kim2022'"):
        notebook.begin(paper="kim2023")
    cells[1] = "# Parameters\npreset = 'mimi'\n"
    with pytest.raises(ValueError, match=r"no profile 'mimi': choose from .*mini.* Did you mean 'mini'"):
        notebook.begin(paper="kim2022")


class Training(Strict):
    epochs: int = 40
    learning_rate: float = 1e-5


def test_what_differs_from_the_published_settings_is_said_in_a_line():
    assert differences(Training()) == "The settings are the published ones."
    line = differences(Training(learning_rate=1e-3))
    assert line == "Settings that differ from the published ones (in brackets): learning_rate 0.001 (1e-05)."


def test_a_corpus_without_a_split_is_refused_but_in_folds():
    whole = SimpleNamespace(folder="here", splits={"train": 1, "valid": 1, "test": 1})
    assert require_splits(whole) is whole
    part = SimpleNamespace(folder="here", splits={"train": 1, "test": 1})
    with pytest.raises(ParameterError, match="here has no rows of split valid"):
        require_splits(part)
    assert require_splits(part, folds=5) is part
    with pytest.raises(ParameterError, match="no rows of split train or valid or test"):
        require_splits(SimpleNamespace(folder="here", splits={"pool": 1}), folds=5)


def resolved(cells):
    return resolve(*executed_parameters(cells))


def test_the_cell_that_papermill_injects_overrides_and_is_checked():
    assert resolved([CELL, "# Parameters\nseeds = [5]\n"])["seeds"] == [5]
    with pytest.raises(ParameterError, match="Did you mean 'corpus'"):
        resolved([CELL, "# Parameters\ncorpsu = 'x'\n"])
    with pytest.raises(ParameterError, match="must be list"):
        resolved([CELL, "# Parameters\nseeds = 5\n"])


def test_an_edited_parameters_cell_run_again_counts_anew():
    cells = [CELL, "# Parameters\nseeds = [5]\n", "x = 1", CELL.replace("[0, 1]", "[7]")]
    assert resolved(cells)["seeds"] == [7]


def test_begin_before_the_parameters_cell_says_what_to_do():
    with pytest.raises(ParameterError, match="run the parameters cell"):
        resolved(["x = 1", "%matplotlib inline"])


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
    with pytest.raises(ParameterError, match="Did you mean 'seeds'"):
        run(template, tmp_path / "out.ipynb", {"seed": [1]})
    assert not (tmp_path / "out.ipynb").exists()


def test_our_command_runs_the_notebook(template: Path, tmp_path: Path):
    run(template, tmp_path / "out.ipynb", {"seeds": [3]})
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert "ran with [3]" in cells[-1].outputs[0].text


def test_a_preset_reaches_the_variables_of_a_running_notebook(template: Path, tmp_path: Path):
    profile = tmp_path / "mine.yaml"
    profile.write_text("profile: mine\nnotebooks:\n  kim2022: {seeds: [3], settings: {epochs: 4}}\n")
    notebook = nbformat.read(template, as_version=4)
    notebook.cells[0].source = PRESET_CELL
    notebook.cells[1].source = "from msakit.notebook import begin\nparameters = begin(paper='kim2022')"
    notebook.cells[2].source = "print('ran with', seeds, settings)"
    nbformat.write(notebook, template)
    run(template, tmp_path / "out.ipynb", {"preset": str(profile), "settings": {"beta": 2.0}})
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert "ran with [3] {'epochs': 4, 'beta': 2.0}" in cells[-1].outputs[0].text
    with pytest.raises(ValueError, match="no profile 'mimi'"):
        run(template, tmp_path / "never.ipynb", {"preset": "mimi"})
    assert not (tmp_path / "never.ipynb").exists()


def test_bare_papermill_stops_too_and_names_the_nearest(template: Path, tmp_path: Path):
    command = [sys.executable, "-m", "papermill", str(template), str(tmp_path / "out.ipynb"), "--no-progress-bar"]
    done = subprocess.run([*command, "-p", "sede", "3"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "Did you mean 'seeds'" in done.stderr
    done = subprocess.run([*command, "-p", "seeds", "3"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "must be list[int], not 3" in done.stderr


def test_a_missing_notebook_is_answered_with_those_that_are_there(template: Path, tmp_path: Path):
    with pytest.raises(ParameterError, match=r"template\.ipynb"):
        run(tmp_path / "tmplate.ipynb", tmp_path / "out.ipynb", {})
