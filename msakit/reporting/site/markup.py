"""Markdown and other people's HTML become parts of the page: formulas as MathML, tables to sort, nothing that loads.

MathML is what browsers render by themselves, offline, and what screen readers speak.
"""

import logging
import re
from typing import Any

from bs4 import BeautifulSoup, Tag
from latex2mathml.converter import convert
from markupsafe import escape
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

log = logging.getLogger(__name__)

# What may neither run nor load nor restyle the page.
FOREIGN = ("script", "style", "link", "iframe", "object", "embed", "form", "base", "meta")
LEVELS = 6
WIDE = 9  # columns; more do not fit on a printed page without breaking their cells
SHORT = 26  # letters; longer text breaks over lines
NUMBER = re.compile(r"[+−-]?\d")


def formula(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML; what the converter cannot read stays as its source, with a warning."""
    try:
        mathml = convert(latex, display=display)
    except Exception as error:  # the converter's dozen exceptions have no ancestor of their own
        return _unread(latex, f"{type(error).__name__} {error}")
    # A command that it does not know comes back as it went in.
    if unknown := re.search(r"<m[a-z]+>(\\[^<]*)</m", mathml):
        return _unread(latex, f"unknown command {unknown[1]}")
    soup = BeautifulSoup(mathml, "html.parser")
    (math,) = soup.find_all("math")
    math["alttext"] = latex.strip()
    return f'<div class="scroll formula" tabindex="0">{math}</div>' if display == "block" else str(math)


def _unread(latex: str, why: str) -> str:
    log.warning("formula not rendered (%s): %s", why, latex.strip())
    return f'<code class="latex">{escape(latex.strip())}</code>'


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with formulas rendered here rather than left to a script from the network."""

    def block_math(self, body: str) -> str:
        return formula(body, "block")

    def inline_math(self, body: str) -> str:
        return formula(body)

    def latex_environment(self, name: str, body: str) -> str:
        return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def markdown(text: str, attachments: dict[str, dict[str, str]] | None = None) -> BeautifulSoup:
    """Markdown, formulas and tables included, as HTML that is still to be fitted into the page (see `fit`)."""
    renderer = _Renderer(escape=False, exclude_anchor_links=True, attachments=attachments)
    return BeautifulSoup(MarkdownWithMath(renderer=renderer).render(text), "html.parser")


def fit(soup: Tag, below: int = 1) -> Tag:
    """Make foreign HTML a part of the page, in place.

    Scripts, styles, ids and event handlers go; headings sink `below` levels; tables get a box of their own to scroll
    in; links lead out of the page or nowhere: one to a file of the repository is left as its text.
    """
    for tag in soup.find_all(FOREIGN):
        tag.decompose()
    for tag in soup.find_all(True):
        for name in [name for name in tag.attrs if name in ("id", "border") or name.startswith("on")]:
            del tag[name]
        if re.fullmatch("h[1-6]", tag.name):
            tag.name = f"h{min(int(tag.name[1]) + below, LEVELS)}"
    for link in soup.find_all("a"):
        if re.match("https?://", str(link.get("href", ""))):
            link["rel"] = "noopener noreferrer"
        else:
            link.name = "span"
            link.attrs = {"class": "path"}
    for table in soup.find_all("table"):
        for head in table.find_all("th"):
            if not head.get_text(strip=True):
                head.name = "td"  # heads nothing
        _align(table)
        in_box(table)
    for image in soup.find_all("img"):
        if not str(image.get("src", "")).startswith("data:"):
            image.replace_with(f"[{image.get('alt') or 'picture'}: not part of this page]")
        else:
            image["alt"] = image.get("alt") or "Picture without a description"
    return soup


def in_box(table: Tag, label: str = "Table") -> None:
    """Wide content scrolls in a box of its own, never the page; the box can be reached by keyboard."""
    box = Tag(name="div", attrs={"class": "scroll", "tabindex": "0", "role": "group", "aria-label": label})
    table.wrap(box)


def table(soup: BeautifulSoup, label: str, first: str = "Arm") -> Tag:
    """The first table of a document, made sortable: captioned, its rows headed by their first cell.

    first: heading of the first column where it has none. Rows that no run of ours made are marked as references.
    """
    found: Any = soup.find("table")
    found["class"] = ["sortable", *(["wide"] * (len(found.find("tr").find_all("th")) > WIDE))]
    caption = soup.new_tag("caption", attrs={"class": "unseen"})
    caption.string = label
    found.insert(0, caption)
    for index, head in enumerate(found.find_all("th")):
        head["scope"] = "col"
        if index == 0 and not head.get_text(strip=True):
            head.string = first
    for row in found.find_all("tr"):
        cells = row.find_all("td")
        if cells:
            cells[0].name = "th"
            cells[0]["scope"] = "row"
            if cells[-1].get_text(strip=True).startswith(("reference", "published")):
                row["class"] = "reference"
    _align(found)
    in_box(found, label)
    return found.parent


def _align(table: Tag) -> None:
    """Columns of numbers to the right, text to the left, whatever the Markdown said; short text stays on one line."""
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    for column, head in enumerate(rows[0]):
        cells = [row[column] for row in rows[1:] if column < len(row)]
        filled = [text for cell in cells if (text := cell.get_text(strip=True)) not in ("", "–")]
        numeric = bool(filled) and all(NUMBER.match(text) for text in filled)
        short = max(map(len, filled), default=0) <= SHORT
        for cell in (head, *cells):
            cell.attrs.pop("style", None)
            cell["class"] = "number" if numeric else "short" if short else "long"
