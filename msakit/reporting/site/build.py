"""Make the page of a results folder: gather, render, write. The same inputs give the same bytes."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from msakit.files import sha256_of, write_atomically
from msakit.reporting.contract import Paper
from msakit.reporting.manifest import provenance, read_manifest
from msakit.reporting.site import content, ledger, notebooks
from msakit.runs.store import read_runs

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
PAGE = Path("report") / "index.html"
INPUTS = re.compile(r'<meta name="msakit-inputs" content="([0-9a-f]{64})">')


def build(results: Path, papers: Mapping[str, Paper], executed: Path | None = None) -> Path:
    """Write <results>/report/index.html, one file with everything in it. Returns its path.

    executed: folder of executed notebooks (\\*.ipynb); without one, the page says that it has none.
    Raises ValueError or FileNotFoundError where the results, or a notebook, cannot be read.
    """
    results = Path(results)
    paths = _notebooks(executed, papers)
    text = page(results, papers, paths)
    path = results / PAGE
    write_atomically(path, text.encode())
    log.info("%s: %.1f MB, %d notebooks", path, len(text.encode()) / 1e6, len(paths))
    return path


def _notebooks(folder: Path | None, papers: Mapping[str, Paper]) -> list[Path]:
    if folder is None:
        return []
    found = {path.stem: path for path in sorted(Path(folder).glob("*.ipynb"))}
    if not found:
        raise FileNotFoundError(f"{folder} holds no executed notebook: run the profile first, or name another folder")
    # The summary shows everything once more: it comes last, the papers in their own order before it.
    order = [*papers, *(name for name in found if name not in papers and name != "summary"), "summary"]
    return [found[name] for name in order if name in found]


def page(results: Path, papers: Mapping[str, Paper], executed: Sequence[Path]) -> str:
    """The page's HTML."""
    manifest, runs = read_manifest(results), read_runs(results / "runs")
    views = content.papers(results, papers, manifest["corpora"])
    figures = {each["sha256"]: (each["id"], each["title"]) for view in views for each in view["figures"]}
    shown = []
    for path in executed:
        title, html = notebooks.render(path, figures)
        shown.append({"id": content.slug("notebook", path.stem), "name": path.name, "title": title, "html": html})
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        manifest=manifest,
        generated=any(corpus["generated"] for corpus in manifest["corpora"].values()),
        provenance=provenance(runs),
        papers=views,
        ledger=ledger.read(results, manifest["profile"]),
        notebooks=shown,
        runs=content.frame_table(content.costs(runs), "What every arm cost"),
        left_out=content.left_out(),
        inputs=inputs(results),
        style=Markup((HERE / "page.css").read_text("utf-8")),
        script=Markup((HERE / "page.js").read_text("utf-8")),
    )


def inputs(results: Path) -> str:
    """One sha256 of what the page shows of a results folder: its manifest (which lists every file) and its claims."""
    files = [path for name in ("manifest.json", ledger.FILE) if (path := Path(results) / name).exists()]
    return hashlib.sha256("".join(sha256_of(path) for path in files).encode()).hexdigest()


def check(results: Path) -> str:
    """Whether the page beside the results shows them. Returns a line that says so.

    Raises ValueError for a page that is missing or older than the results.
    """
    path = Path(results) / PAGE
    if not path.exists():
        raise ValueError(f"{path} is not there: run `msakit report {results}`")
    found: Any = INPUTS.search(path.read_text(encoding="utf-8"))
    if not found or found[1] != inputs(results):
        raise ValueError(f"{path} shows other results: run `msakit report {results}` again")
    return f"{path.name} shows these results"
