"""Strict notebook parameters: a misspelt or ill-typed one stops the notebook, however it is run.

A notebook declares its parameters in its first code cell (tagged ``parameters``): annotated assignments of literals,
one a line, each with a help comment::

    seeds: list[int] = [0, 1, 2]  # one run of every arm for each

``msakit run`` checks the given values against that cell before a kernel starts. Papermill itself only warns about an
unknown name and goes on, so the notebook's second code cell calls :func:`begin`, which repeats the check inside the
kernel: it reads the cells executed so far, finds the declarations and the cell that papermill injected, and compares.
"""

import ast
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError

from msakit import process
from msakit.files import write_atomically
from msakit.profiles import load_profile
from msakit.strict import Strict
from msakit.suggestions import did_you_mean

if TYPE_CHECKING:
    from msakit.data.corpus import Corpus

_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "Any": Any}
DISTINCT = ("seeds", "test_folds")  # parameters that list different numbers from 0 up
# The line with which papermill opens the cell that it injects after the one tagged `parameters`.
INJECTED_HEADER = "# Parameters"


class ParameterError(ValueError):
    """A notebook parameter is unknown, has the wrong type, or is declared in a way that cannot be checked."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its name, annotation (as written, and the type that it means) and default."""

    name: str
    annotation: str
    type: Any
    default: Any


def declarations(source: str) -> dict[str, Parameter]:
    """Read a parameters cell.

    Raises:
        ParameterError: the cell holds anything but annotated assignments of literals.
    """
    declared: dict[str, Parameter] = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            raise ParameterError(
                f"line {node.lineno} of the parameters cell is not of the form `name: type = literal`: "
                f"{ast.unparse(node)!r}"
            )
        try:
            default = ast.literal_eval(node.value)
        except ValueError as error:
            raise ParameterError(f"the default of parameter {node.target.id!r} is not a literal") from error
        parameter = Parameter(node.target.id, ast.unparse(node.annotation), _type(node.annotation), default)
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
            raise ParameterError(_unknown(name, declared))
        _check_type(declared[name], value)
    return {name: given.get(name, parameter.default) for name, parameter in declared.items()}


def _unknown(name: str, declared: Mapping[str, Parameter]) -> str:
    return f"unknown parameter {name!r}: this notebook has {', '.join(declared)}.{did_you_mean(name, declared)}"


def _check_type(parameter: Parameter, value: Any, source: str = "") -> None:
    try:
        TypeAdapter(parameter.type, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        raise ParameterError(
            f"parameter {parameter.name!r}{source} must be {parameter.annotation}, not {value!r} "
            f"({type(value).__name__}). Its default is {parameter.default!r}."
        ) from error
    numbers = value if parameter.name in DISTINCT else None
    if numbers is not None and (not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0):
        raise ParameterError(f"{parameter.name} must be one or more different numbers from 0 up, not {value!r}")


def _type(annotation: ast.expr) -> Any:
    """The type that an annotation means; its text is never evaluated."""
    match annotation:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_type(left), _type(right)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_type(item)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, item])):
            return dict[_type(key), _type(item)]  # type: ignore[misc]
    raise ParameterError(
        f"the type {ast.unparse(annotation)!r} cannot be checked: combine {', '.join(_TYPES)} and None, as in "
        "list[int], dict[str, list[str]], float | None"
    )


def differences(settings: Strict) -> str:
    """A line that says in which settings a run differs from the published one; the defaults of a class of settings are
    the authors'."""
    published = {name: field.default for name, field in type(settings).model_fields.items() if not field.is_required()}
    values = settings.model_dump()
    differing = [f"{name} {values[name]!r} ({value!r})" for name, value in published.items() if values[name] != value]
    if not differing:
        return "The settings are the published ones."
    return f"Settings that differ from the published ones (in brackets): {', '.join(differing)}."


def require_splits(corpus: "Corpus", folds: int = 0) -> "Corpus":
    """The corpus, once it is known to have something to train, to choose and to test on; in folds, any split will do.

    Raises:
        ParameterError: a split is missing.
    """
    missing = [split for split in ("train", "valid", "test") if split not in corpus.splits]
    if missing and not (folds and len(missing) < 3):
        raise ParameterError(
            f"{corpus.folder} has no rows of split {' or '.join(missing)}: an experiment trains on train, chooses on "
            "valid and is scored on test; mark some rows so, or ask for folds"
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


def executed_parameters(cells: Sequence[str]) -> tuple[dict[str, Parameter], dict[str, Any]]:
    """The declarations, and the values that override them, from the sources of the cells executed so far in a kernel.

    The declarations are the last cell made of annotated literals only; cells injected by papermill after it override.

    Raises:
        ParameterError: no such cell was run.
        ValueError: an override is no literal.
    """
    declared: dict[str, Parameter] | None = None
    given: dict[str, Any] = {}
    for source in cells:
        if source.lstrip().startswith(INJECTED_HEADER):
            assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
            given.update({ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assigned})
        elif _is_declarative(source):
            declared, given = declarations(source), {}
    if declared is None:
        raise ParameterError("run the parameters cell (the first code cell) before this one")
    return declared, given


def _is_declarative(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with %magic or !command: certainly not the parameters cell
        return False
    return bool(body) and all(isinstance(node, ast.AnnAssign) for node in body)


def project_root() -> Path:
    """The nearest folder upwards that holds this project (``pyproject.toml`` beside ``notebooks``), else this one."""
    start = Path.cwd()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return start


def begin(paper: str | None = None) -> dict[str, Any]:
    """Check the parameters of the running notebook and set it up; call it right after the parameters cell.

    Changes to the project root, so that relative paths mean the same in JupyterLab, papermill and Snakemake; sends
    log lines of level INFO to stderr.

    Args:
        paper: whose experiment this notebook is. Then its parameter `preset` names a profile: a parameter that is None
            takes the value that the profile has for this notebook, and a dictionary is laid over the profile's, key by
            key; anything else stands. The notebook's variables are set to the outcome, and the process to the
            profile's switches (:func:`msakit.process.configure`).

    Returns:
        The resolved parameters, name to value.

    Raises:
        ParameterError: as :func:`resolve`; the profile has a parameter that this notebook does not; or this is none.
        ValueError: there is no such profile, or it has nothing for this notebook.
    """
    from IPython import get_ipython

    variables = get_ipython().user_ns
    declared, given = executed_parameters(variables["In"][:-1])
    parameters = resolve(declared, given)
    os.chdir(project_root())
    # transformers reports each load of a checkpoint at length; what matters of it, msakit.encoders.pretrained logs.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Bars are plain text here, so that a log shows them too; tqdm would rather have widgets.
    warnings.filterwarnings("ignore", message="IProgress not found")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True)
    # Third-party chatter that would bury the progress lines.
    for noisy in ("httpx", "datasets", "matplotlib", "snakemake", "libav", "numba", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if paper is not None:
        profile = load_profile(parameters["preset"])
        parameters = with_preset(declared, parameters, profile.parameters(paper), profile.profile)
        process.configure(matmul=profile.matmul)
        variables.update(parameters)
    return parameters


def with_preset(
    declared: Mapping[str, Parameter], parameters: Mapping[str, Any], preset: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Parameters, those that are None taken from a preset, dictionaries laid over its own, key by key.

    Raises:
        ParameterError: the preset has a parameter that is not declared, or a value of the wrong type.
    """
    for key, value in preset.items():
        if key not in declared:
            raise ParameterError(f"preset {name!r}: {_unknown(key, declared)}")
        if not (declared[key].default is None or isinstance(declared[key].default, dict)):
            raise ParameterError(f"parameter {key!r} of preset {name!r} would be ignored: declare it with default None")
        _check_type(declared[key], value, f" of preset {name!r}")
    filled = dict(parameters)
    for key, value in parameters.items():
        if value is None:
            filled[key] = preset.get(key)
        elif isinstance(value, dict):
            filled[key] = (preset.get(key) or {}) | value
    return filled


def run(template: Path, output: Path, given: Mapping[str, Any]) -> None:
    """Check the parameters, then execute the notebook with papermill in the project root.

    Args:
        template: the notebook; it is never written to.
        output: the executed copy; after a failure it holds the partial notebook with the traceback.
        given: parameter values by name.

    Raises:
        ParameterError: before anything starts.
        ValueError: likewise, for a preset that there is not.
        papermill.exceptions.PapermillExecutionError: a cell failed.
    """
    values = resolve(template_declarations(template), given)
    if "preset" in values:
        load_profile(values["preset"])
    import papermill

    # papermill reports each cell at INFO; what the notebook itself logs reaches us through stream outputs.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("papermill.translators").setLevel(logging.ERROR)
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(template),
        str(output),
        parameters={name: value for name, value in values.items() if name in given},
        kernel_name="python3",
        cwd=str(project_root()),
        progress_bar=sys.stderr.isatty(),
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
