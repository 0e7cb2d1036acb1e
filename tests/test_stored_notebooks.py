"""How notebooks are stored: experiments and reports stripped, walkthroughs with outputs, one parameters cell each."""

from pathlib import Path

import nbformat
import pytest

from msakit.notebook import resolve, template_declarations, with_preset
from msakit.profiles import FOLDER, load_profile

ROOT = Path(__file__).parents[1] / "notebooks"
EXPERIMENTS = sorted(ROOT.glob("experiments/*.ipynb"))
STRIPPED = [*EXPERIMENTS, *sorted(ROOT.glob("reports/*.ipynb"))]
WALKTHROUGHS = sorted(ROOT.glob("walkthroughs/*.ipynb"))
EVERY = [*STRIPPED, *WALKTHROUGHS]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_all_are_found():
    assert {path.stem for path in STRIPPED} >= {"ando2022", "toledo2022", "kim2022", "summary"}
    assert len(WALKTHROUGHS) >= 1


@pytest.mark.parametrize("path", STRIPPED, ids=lambda path: path.stem)
def test_experiments_and_reports_hold_no_outputs(path: Path):
    left = [cell.id for cell in code(path) if cell.outputs or cell.execution_count]
    assert not left, f"{path} holds outputs; run `make strip`"


@pytest.mark.parametrize("path", WALKTHROUGHS, ids=lambda path: path.stem)
def test_walkthroughs_hold_their_outputs_and_no_error(path: Path):
    cells = code(path)
    assert all(cell.execution_count for cell in cells), f"{path} was not executed; run `make walkthroughs`"
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "display_data" in kinds
    assert "error" not in kinds


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_every_notebook_is_strict_and_readable(path: Path):
    declared = template_declarations(path)  # raises unless exactly one parameters cell, annotated literals only
    assert declared
    lines = [line for line in code(path)[0].source.splitlines() if line.partition(":")[0] in declared]
    assert all("  # " in line for line in lines), "each parameter wants a help comment"
    cells = read(path).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    first, second = code(path)[:2]
    assert "parameters" in first.metadata.tags
    begin = f'begin(paper="{path.stem}")' if path.parent.name == "experiments" else "begin()"
    assert begin in second.source, "the second code cell checks the parameters"
    long = [cell.id for cell in code(path) if len(cell.source.splitlines()) > 20]
    assert not long, f"code cells over 20 lines: {long}"
    assert not any("class " in line[:6] for cell in code(path) for line in cell.source.splitlines())
    assert 10 <= len(cells) <= 45


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_take_the_same_parameters(path: Path):
    declared = template_declarations(path)
    for name in ("corpora", "encoders", "arms", "seeds", "folds", "settings"):
        assert declared[name].default in (None, {}), f"{name} is the preset's"
    assert {name: declared[name].default for name in ("preset", "own_arms", "variants")} == {
        "preset": "mini", "own_arms": {}, "variants": {},
    }  # fmt: skip
    assert {"cache", "features", "results"} <= set(declared)


@pytest.mark.parametrize("profile", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_the_notebooks_take_what_a_profile_has_for_them(profile: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MSAKIT_CMU_MOSI", "../my data")
    for paper, preset in load_profile(profile).notebooks.items():
        declared = template_declarations(ROOT / "experiments" / f"{paper}.ipynb")
        filled = with_preset(declared, resolve(declared, {}), preset, profile)
        assert {name: filled[name] for name in preset} == preset
        assert None not in [filled[name] for name in ("corpora", "encoders", "seeds", "settings")]


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_no_notebook_holds_a_path_of_a_machine(path: Path):
    assert str(ROOT.parent) not in path.read_text()
