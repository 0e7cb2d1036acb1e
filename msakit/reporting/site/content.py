"""What the page shows of a results folder: its tables, figures, runs and gaps, each ready for the template."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from bs4 import BeautifulSoup
from markupsafe import Markup

from msakit.papers import PAPERS, facts
from msakit.reporting.describe import of_picture
from msakit.reporting.site import embed, markup
from msakit.runs.record import Runs, file_sha256

# Notes under a table, as msakit.reporting.tables writes them, that tell of something missing.
GAPS = ("Not run in this profile: ", "Undefined (–)")


@dataclass(frozen=True)
class TableView:
    """A table with its notes, and the files to save."""

    id: str
    title: str
    html: Markup
    notes: tuple[Markup, ...]
    downloads: tuple[embed.Download, ...]
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class FigureView:
    """A picture with its description, and its plotted data to save."""

    id: str
    title: str
    alt: str
    picture: embed.Picture
    downloads: tuple[embed.Download, ...]
    sha256: str


@dataclass(frozen=True)
class PaperView:
    """All that a profile has of one paper."""

    id: str
    name: str  # authors and year
    title: str
    venue: str
    code: str
    status: str
    tables: tuple[TableView, ...] = ()
    figures: tuple[FigureView, ...] = ()
    gaps: tuple[tuple[str, str], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.tables and not self.figures


def slug(*parts: str) -> str:
    """An id for an element: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def papers(results: Path, corpora: Iterable[str], names: Sequence[str] = tuple(PAPERS)) -> list[PaperView]:
    """Every known paper, in the package's order, those without results too: the page says so."""
    made = []
    for name in names:
        known = facts(name)
        tables = [table_view(path, name) for path in _sorted(results / "tables" / name, "*.md")]
        figures = [figure_view(path, name, corpora) for path in _sorted(results / "figures" / name, "*.png")]
        gaps = [*left_out().get(name, {}).items()]
        gaps += [(f"In the table “{table.title}”", gap) for table in tables for gap in table.gaps]
        made.append(PaperView(name, short_name(known), known["title"], known["venue"], known.get("code", ""),
                              known.get("status", ""), tuple(tables), tuple(figures), tuple(gaps)))  # fmt: skip
    return made


def _sorted(folder: Path, pattern: str) -> list[Path]:
    """By name without ending: `mini-mosi` before `mini-mosi-layers`."""
    return sorted(folder.glob(pattern), key=lambda path: path.stem)


def short_name(known: dict[str, Any]) -> str:
    """“Ando et al. 2022”, as papers are spoken of."""
    authors = str(known["authors"]).split(", ")
    who = f"{authors[0]} et al." if len(authors) > 2 else " & ".join(authors)
    year = re.search(r"\d{4}", str(known["paper"]))
    return f"{who} {year[0]}" if year else who


@cache
def left_out() -> dict[str, dict[str, str]]:
    """What no profile can show, and why."""
    content: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("left_out.yaml").read_text("utf-8"))
    return content


def table_view(path: Path, paper: str) -> TableView:
    """A published table: the Markdown shown, the csv (and LaTeX, where there is one) to save.

    Raises ValueError for a Markdown file without a table.
    """
    soup = markup.markdown(path.read_text(encoding="utf-8"))
    heading, notes = soup.find(["h1", "h2", "h3"]), soup.find_all("li")
    title = heading.get_text() if heading else path.stem
    if soup.find("table") is None:
        if "(empty)" not in soup.get_text():
            raise ValueError(f"{path} holds no table: publish the results again")
        html = Markup("<p>No rows.</p>")
    else:
        html = markup.html(markup.table(soup, title))
    texts = [note.get_text() for note in notes]
    files = [path.with_suffix(end) for end in (".csv", ".tex")]
    return TableView(
        slug(paper, path.stem, "table"),
        title,
        html,
        tuple(Markup(markup.fit(note).decode_contents()) for note in notes),
        tuple(embed.download(file, f"{paper}-{file.name}") for file in files if file.exists()),
        tuple(text for text in texts if text.startswith(GAPS)),
    )


def figure_view(path: Path, paper: str, corpora: Iterable[str] = ()) -> FigureView:
    """A published figure, its description from the picture or its data, and the plotted data to save."""
    title, told = of_picture(path)
    data = path.with_suffix(".csv")
    files = (embed.download(data, f"{paper}-{data.name}"),) if data.exists() else ()
    made = embed.picture(path.read_bytes())
    alt = f"{title}. {told}".strip()
    return FigureView(
        slug(paper, path.stem, "figure"), heading(path.stem, corpora), alt, made, files, file_sha256(path)
    )


def heading(stem: str, corpora: Iterable[str]) -> str:
    """What a file name says: `mini-mosi-layers` is “Layers on mini-mosi”; the figure's own title is in the picture."""
    for corpus in corpora:
        if stem.startswith(f"{corpus}-"):
            kind = stem.removeprefix(f"{corpus}-").replace("-", " ")
            return f"{kind[0].upper()}{kind[1:]} on {corpus}"
    words = stem.replace("-", " ")
    return f"{words[0].upper()}{words[1:]}"


def read_manifest(results: Path) -> dict[str, Any]:
    """Raises ValueError where the folder holds no published results."""
    path = results / "manifest.json"
    if not path.is_file():
        raise ValueError(f"{results} has no manifest.json: publish results there first, for instance `make reproduce`")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def costs(runs: Runs) -> pd.DataFrame:
    """One row an arm: its seeds, how its epoch was chosen, what it cost and which sources ran it."""
    frame = runs.frame
    frame = frame.assign(
        chosen=[
            f"{split}, {metric}" if isinstance(split, str) else ""
            for split, metric in zip(frame["selection_split"], frame["selection_metric"], strict=True)
        ],
        commit=[f"{str(commit)[:8]}{'+' * bool(dirty)}" if isinstance(commit, str) else "" for commit, dirty in
                zip(frame["commit"], frame["dirty"], strict=True)],
    )  # fmt: skip
    told = frame.groupby(["paper", "corpus", "arm", "protocol"], sort=False, as_index=False).agg(
        runs=("seed", "count"),
        chosen=("chosen", "first"),
        epochs=("epochs", "mean"),
        seconds=("seconds", "mean"),
        memory=("peak_memory_mb", "max"),
        device=("device", lambda part: ", ".join(sorted(part.unique()))),
        commit=("commit", lambda part: ", ".join(sorted(part.unique()))),
    )
    order = ["arm", "paper", "corpus", "protocol", "runs", "chosen", "epochs", "seconds", "memory", "device", "commit"]
    names = {
        "chosen": "epoch chosen on",
        "seconds": "seconds a run",
        "memory": "peak MB",
        "commit": "commit (+ changed)",
    }
    return told[order].rename(columns=names)


def frame_table(frame: pd.DataFrame, label: str) -> Markup:
    """A frame as a sortable table: text as it is, numbers with at most one decimal."""
    shown = frame.copy()
    for name in shown.select_dtypes("number"):
        whole = shown[name].dropna().mod(1).eq(0).all()
        shown[name] = ["–" if pd.isna(value) else f"{value:.{0 if whole else 1}f}" for value in shown[name]]
    soup = BeautifulSoup(shown.to_html(index=False, border=0, na_rep="–"), "html.parser")
    return markup.html(markup.table(soup, label))
