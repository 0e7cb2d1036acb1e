"""Strict notebook parameters: a misspelt or ill-typed one stops the notebook, however it is run.

A notebook declares its parameters in its first code cell (tagged ``parameters``): annotated assignments of literals,
one a line, each with a help comment::

    seeds: list[int] = [0, 1, 2]  # one run of every arm for each

``msakit run`` checks the given values against that cell before a kernel starts. Papermill itself only warns about an
unknown name and goes on, so the notebook's second code cell calls :func:`begin`, which repeats the check inside the
kernel: it reads the cells executed so far, finds the declarations and the cell that papermill injected, and compares.
"""

import ast
import difflib
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from beartype import BeartypeConf
from beartype.door import is_bearable

if TYPE_CHECKING:
    from msakit.data.corpus import Corpus

# The line with which papermill opens the cell that it injects after the one tagged `parameters`.
INJECTED_HEADER = "# Parameters"


class ParameterError(ValueError):
    """A notebook parameter is unknown, has the wrong type, or is declared in a way that cannot be checked."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its name, annotation (as written), default value and help comment."""

    name: str
    annotation: str
    default: Any
    help: str


def declarations(source: str) -> dict[str, Parameter]:
    """Read a parameters cell.

    Raises:
        ParameterError: the cell holds anything but annotated assignments of literals.
    """
    lines = source.splitlines()
    declared: dict[str, Parameter] = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            raise ParameterError(
                f"line {node.lineno} of the parameters cell is not of the form `name: type = literal`: "
                f"{lines[node.lineno - 1].strip()!r}"
            )
        try:
            default = ast.literal_eval(node.value)
        except ValueError as error:
            raise ParameterError(f"the default of parameter {node.target.id!r} is not a literal") from error
        tail = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :]
        parameter = Parameter(node.target.id, ast.unparse(node.annotation), default, tail.strip().lstrip("# "))
        _check_type(parameter, default)
        declared[parameter.name] = parameter
    return declared


def resolve(declared: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every declared parameter: the given one, else its default.

    Raises:
        ParameterError: a given name is not declared (the nearest declared one is named), or a value has the wrong type.
    """
    for name, value in given.items():
        if name not in declared:
            nearest = difflib.get_close_matches(name, declared, n=1, cutoff=0.0)
            raise ParameterError(
                f"unknown parameter {name!r}: did you mean {nearest[0]!r}? This notebook has: {', '.join(declared)}."
                if nearest
                else f"unknown parameter {name!r}: this notebook has no parameters."
            )
        _check_type(declared[name], value)
    return {name: given.get(name, parameter.default) for name, parameter in declared.items()}


def _check_type(parameter: Parameter, value: Any) -> None:
    hint = eval(parameter.annotation, {"__builtins__": __builtins__, "Any": Any})  # our own cell's text, not a value
    if not _fits(value, hint):
        raise ParameterError(
            f"parameter {parameter.name!r} must be {parameter.annotation}, not {value!r} ({type(value).__name__}). "
            f"Its default is {parameter.default!r}."
        )
    if parameter.name == "seeds" and (not value or len(set(value)) < len(value) or min(value) < 0):
        raise ParameterError(f"seeds must be one or more different numbers from 0 up, not {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, every item of a list and a dict looked at (beartype draws one at random).

    A whole number is a fine float; True is no number to a reader, though it is an int to Python.
    """
    inner = get_args(hint)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if isinstance(value, bool) and hint is not bool and bool not in inner:
        return False
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))


def settings_of(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """A paper's settings (a dataclass) from a notebook's parameter, strictly.

    Raises:
        ParameterError: a name is unknown (the nearest is named) or a value has the wrong type.
        ValueError: what the dataclass itself refuses.
    """
    known = {item.name: item for item in fields(kind)}
    for name, value in given.items():
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ParameterError(f"unknown setting {name!r}: did you mean {nearest!r}? There are: {', '.join(known)}.")
        if not _fits(value, known[name].type):
            hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(value, str) else ""
            wanted = getattr(known[name].type, "__name__", str(known[name].type))
            raise ParameterError(f"setting {name!r} must be {wanted}, not {value!r}{hint}")
    return kind(**given)


def labelled(corpus: "Corpus") -> "Corpus":
    """The corpus, once it is known to have something to train, to choose and to test on.

    Raises:
        ParameterError: a split is missing.
    """
    missing = [split for split in ("train", "valid", "test") if split not in corpus.splits]
    if missing:
        raise ParameterError(
            f"{corpus.folder} has no rows of split {' or '.join(missing)}: an experiment trains on train, chooses on "
            "valid and is scored on test; mark some rows so"
        )
    return corpus


def template_declarations(template: Path) -> dict[str, Parameter]:
    """The declarations of a notebook file: those of its one cell tagged ``parameters``."""
    import nbformat

    if not template.is_file():
        siblings = sorted(path.name for path in template.parent.glob("*.ipynb")) if template.parent.is_dir() else []
        hint = f" Notebooks in {template.parent}: {', '.join(siblings)}." if siblings else ""
        raise ParameterError(f"there is no notebook {template}.{hint}")
    cells = nbformat.read(template, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{template} has {len(tagged)} cells tagged `parameters`; it needs exactly one")
    return declarations(tagged[0].source)


def executed_parameters(cells: Sequence[str]) -> dict[str, Any]:
    """Parameters from the sources of the cells executed so far in a kernel, in order of execution.

    The declarations are the last cell made of annotated literals only; cells injected by papermill after it override.

    Raises:
        ParameterError: no such cell was run, or an override is unknown or ill-typed.
    """
    return resolve(*_executed(cells))


def _executed(cells: Sequence[str]) -> tuple[dict[str, Parameter], dict[str, Any]]:
    """The declarations of the cells executed so far, and the values that override them."""
    declared: dict[str, Parameter] | None = None
    given: dict[str, Any] = {}
    for source in cells:
        if source.lstrip().startswith(INJECTED_HEADER):
            given.update(_assignments(source))
        elif _looks_declarative(source):
            declared, given = declarations(source), {}
    if declared is None:
        raise ParameterError("run the parameters cell (the first code cell) before this one")
    return declared, given


def variants(changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The running notebook's parameters with some of them changed, once for each of `changes`; checked like its own.

    Raises:
        ParameterError: as :func:`executed_parameters`; or this is not a notebook.
    """
    declared, given = _executed(_shell().user_ns["In"])
    return [resolve(declared, given | dict(change)) for change in changes]


def _shell() -> Any:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise ParameterError("this belongs in a notebook: there is no IPython kernel here")
    return shell


def _looks_declarative(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with %magic or !command: certainly not the parameters cell
        return False
    return bool(body) and all(isinstance(node, ast.AnnAssign) for node in body)


def _assignments(source: str) -> dict[str, Any]:
    """`name = literal` lines of a cell that papermill wrote (it renders nan and inf as calls of float)."""
    values: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError as error:
                raise ParameterError(f"parameter {node.targets[0].id!r} is not a literal") from error
    return values


def project_root(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds this project (``pyproject.toml`` beside ``notebooks``), else ``start``."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return start


def begin() -> dict[str, Any]:
    """Check the parameters of the running notebook and set it up; call it right after the parameters cell.

    Changes to the project root, so that relative paths mean the same in JupyterLab, papermill and Snakemake; sends
    log lines of level INFO to stderr; keeps torch to the number of threads that the environment allows.

    Returns:
        The resolved parameters, name to value.

    Raises:
        ParameterError: as :func:`executed_parameters`; or this is not a notebook.
    """
    parameters = executed_parameters(_shell().user_ns["In"][:-1])
    os.chdir(project_root())
    # transformers reports each load of a checkpoint at length; what matters of it, msakit.encoders.pretrained says.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Bars are plain text here, so that a log shows them too; tqdm would rather have widgets.
    warnings.filterwarnings("ignore", message="IProgress not found")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True)
    # Third-party chatter that would bury the progress lines.
    for noisy in ("httpx", "datasets", "matplotlib", "snakemake", "libav", "numba", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return parameters


def run(template: Path, output: Path, given: Mapping[str, Any], progress: bool | None = None) -> None:
    """Check the parameters, then execute the notebook with papermill in the project root.

    Args:
        template: the notebook; it is never written to.
        output: the executed copy; after a failure it holds the partial notebook with the traceback.
        given: parameter values by name.
        progress: draw a bar (default: if stderr is a terminal); the notebook's own log lines are shown in any case.

    Raises:
        ParameterError: before anything starts.
        papermill.exceptions.PapermillExecutionError: a cell failed.
    """
    values = resolve(template_declarations(template), given)
    import papermill

    # papermill reports each cell at INFO; what the notebook itself logs reaches us through stream outputs.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("papermill").setLevel(logging.WARNING if progress else logging.INFO)
    logging.getLogger("papermill.translators").setLevel(logging.ERROR)
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(template),
        str(output),
        parameters={name: value for name, value in values.items() if name in given},
        kernel_name="python3",
        cwd=str(project_root()),
        progress_bar=sys.stderr.isatty() if progress is None else progress,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        request_save_on_cell_execute=True,
    )


def refresh(walkthrough: Path) -> None:
    """Execute a walkthrough with its own parameters and store it with its outputs, as a whole or not at all.

    Times, machine-dependent metadata and progress bars are not stored: they would change the file at every execution.

    Raises:
        ParameterError: there is no such notebook, or its parameters cell is not in order.
        nbclient.exceptions.CellExecutionError: a cell failed; the stored notebook stays as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    from msakit.runs.record import write_atomically

    template_declarations(walkthrough)
    notebook = nbformat.read(walkthrough, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(project_root())}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata.language_info = {"name": "python"}
    write_atomically(walkthrough, (nbformat.writes(notebook) + "\n").encode())
