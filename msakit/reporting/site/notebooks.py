"""An executed notebook as a part of the page: Markdown with its formulas, code in colour, outputs as they were."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from markupsafe import Markup, escape
from nbconvert.filters import Highlight2HTML, ansi2html

from msakit.reporting.site import embed, markup

# The notebook's own second headings come right below the heading that the page gives it.
BELOW = 2
# nbconvert's figures are drawn at this many dots an inch.
DPI = 120.0


def render(path: Path, shown: Mapping[str, tuple[str, str]] | None = None) -> tuple[str, Markup]:
    """Title and HTML of an executed notebook.

    shown: sha256 of a picture -> (id, title) of the figure on the page that is the same picture; it is linked to
    rather than shown twice. Raises ValueError for a file that is no notebook.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not readable as a notebook ({error}): execute it again") from error
    parts: list[str] = []
    title = heading = _title(notebook, path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.*)$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
        parts += _cell(cell, heading, shown or {})
    return title, Markup("\n".join(parts))


def _title(notebook: Any, path: Path) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0].removeprefix("# "))
    return path.stem


def _cell(cell: Any, heading: str, shown: Mapping[str, tuple[str, str]]) -> Iterable[str]:
    if cell.cell_type == "markdown":
        soup = markup.markdown(cell.source, cell.get("attachments"))
        for title in soup.find_all("h1"):
            title.decompose()  # the page has it above
        yield f'<div class="text">{markup.fit(soup, BELOW)}</div>'
    elif cell.cell_type == "code" and cell.source.strip():
        # The colours are the style sheet's: class names alone.
        soup = BeautifulSoup(Highlight2HTML(pygments_lexer="ipython3")(cell.source), "html.parser")
        tags = cell.metadata.get("tags", [])
        label = {"parameters": "Parameters and their defaults", "injected-parameters": "Parameters of this run"}
        name = next((label[tag] for tag in tags if tag in label), "Code")
        (box,) = soup.find_all("pre")
        box.attrs = {"tabindex": "0", "aria-label": name, "role": "group"}
        yield f'<div class="code">{box}</div>'
        yield from _outputs(cell.outputs, heading, shown)


def _outputs(outputs: list[Any], heading: str, shown: Mapping[str, tuple[str, str]]) -> Iterable[str]:
    for written, group in groupby(outputs, lambda output: output.output_type == "stream"):
        # What was written bit by bit is one text.
        if written:
            text = "".join(output.text for output in group)
            yield from [_plain(text)] if text.strip() else []
            continue
        for output in group:
            failed = output.output_type == "error"
            yield from [_plain("\n".join(output.traceback))] if failed else _data(output, heading, shown)


def _plain(text: str) -> str:
    # A progress bar rewrites its line: the last state is what a terminal would show.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return f'<pre class="output" tabindex="0" role="group" aria-label="Output">{ansi2html(chr(10).join(lines))}</pre>'


def _data(output: Any, heading: str, shown: Mapping[str, tuple[str, str]]) -> Iterable[str]:
    data = output.get("data", {})
    pictures = [kind for kind in ("image/png", "image/jpeg") if kind in data]
    if "text/markdown" in data:
        yield f'<div class="output">{markup.fit(markup.markdown(data["text/markdown"]), BELOW)}</div>'
    elif "text/html" in data:
        yield f'<div class="output">{markup.fit(BeautifulSoup(data["text/html"], "html.parser"), BELOW)}</div>'
    elif pictures:
        content = base64.b64decode(data[pictures[0]])
        known = shown.get(hashlib.sha256(content).hexdigest())
        if known:
            yield f'<p class="output">Figure, shown above: <a href="#{known[0]}">{escape(known[1])}</a></p>'
        else:
            alt = output.metadata.get(pictures[0], {}).get("alt") or f"Figure of the notebook, under “{heading}”"
            picture = embed.picture(content, DPI)
            yield (
                f'<div class="output scroll" tabindex="0" role="group" aria-label="Figure"><img src="{picture.src}" '
                f'width="{picture.width}" height="{picture.height}" alt="{escape(alt)}" loading="lazy"></div>'
            )
    elif "text/latex" in data:
        latex = data["text/latex"].strip().strip("$")
        yield f'<div class="output">{markup.formula(latex, "block")}</div>'
    elif data.get("text/plain", "").startswith("<Figure size"):
        # Drawn without a display: the picture went to the results folder alone.
        yield '<p class="output">A figure, drawn into the results: it is among the figures above.</p>'
    elif "text/plain" in data:
        yield _plain(data["text/plain"])
