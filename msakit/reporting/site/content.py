"""What the page shows of a results folder: its tables, figures, runs and gaps, each ready for the template."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from bs4 import BeautifulSoup
from markupsafe import Markup

from msakit.files import sha256_of
from msakit.reporting.contract import Paper
from msakit.reporting.describe import of_picture
from msakit.reporting.figures import read_data
from msakit.reporting.site import embed, markup
from msakit.runs.store import Runs

# Notes under a table, as msakit.reporting.tables writes them, on something missing.
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


def papers(results: Path, known: Mapping[str, Paper], corpora: Iterable[str]) -> list[PaperView]:
    """Every known paper, in the given order, those without results too: the page says so."""
    views = []
    for name, paper in known.items():
        facts = paper.facts
        tables = [table_view(path, name) for path in _sorted(results / "tables" / name, "*.md")]
        data = read_data(results / "figures" / name)
        figures = [
            figure_view(path, name, data.get(path.stem), corpora)
            for path in _sorted(results / "figures" / name, "*.png")
        ]
        gaps = [*(facts.get("left_out") or {}).items()]
        gaps += [(f"In the table “{table.title}”", gap) for table in tables for gap in table.gaps]
        views.append(PaperView(name, short_name(facts, name), facts["title"], facts["venue"], facts.get("code", ""),
                               facts.get("status", ""), tuple(tables), tuple(figures), tuple(gaps)))  # fmt: skip
    return views


def _sorted(folder: Path, pattern: str) -> list[Path]:
    """By name without ending: `mini-mosi` before `mini-mosi-layers`."""
    return sorted(folder.glob(pattern), key=lambda path: path.stem)


def short_name(facts: Mapping[str, Any], paper: str) -> str:
    """“First et al. 2022”, as papers are spoken of; the year is that of the paper's name."""
    authors = str(facts["authors"]).split(", ")
    who = f"{authors[0]} et al." if len(authors) > 2 else " & ".join(authors)
    year = re.search(r"\d{4}", paper)
    return f"{who} {year[0]}" if year else who


@cache
def left_out() -> dict[str, dict[str, str]]:
    """What no profile can show, and why."""
    content: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("left_out.yaml").read_text("utf-8"))
    return content


def table_view(path: Path, paper: str) -> TableView:
    """A published table: the Markdown shown, the csv to save.

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
    file = path.with_suffix(".csv")
    return TableView(
        slug(paper, path.stem, "table"),
        title,
        html,
        tuple(Markup(markup.fit(note).decode_contents()) for note in notes),
        (embed.download(file, f"{paper}-{file.name}"),) if file.exists() else (),
        tuple(text for text in texts if text.startswith(GAPS)),
    )


def figure_view(path: Path, paper: str, data: pd.DataFrame | None = None, corpora: Iterable[str] = ()) -> FigureView:
    """A published figure, its description from the picture, and the plotted data to save."""
    title, description = of_picture(path)
    files: tuple[embed.Download, ...] = ()
    if data is not None:
        text = data.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        files = (embed.packed(text.encode(), f"{paper}-{path.stem}.csv"),)
    picture = embed.picture(path.read_bytes())
    alt = f"{title}. {description}".strip()
    id = slug(paper, path.stem, "figure")
    return FigureView(id, heading(path.stem, corpora), alt, picture, files, sha256_of(path))


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
    """One row an arm: its runs, how its epoch was chosen, what it cost and which sources ran it."""
    rows = []
    for run in runs:
        record, selection = run.record, run.record.selection
        runtime, environment = run.runtime, run.runtime.environment if run.runtime else {}
        commit = str(environment.get("commit") or "")[:8]
        rows.append({
            "arm": record.arm, "paper": record.paper, "corpus": record.corpus.name,
            "protocol": record.definition.protocol.name,
            "epoch chosen on": "" if selection is None else f"{selection.split}, {selection.metric}",
            "epochs": len(record.history),
            "seconds a run": runtime.seconds if runtime else None,
            "peak MB": runtime.peak_memory_mb if runtime else None,
            "device": str(environment.get("device") or ""),
            "commit (+ changed)": commit + ("+" if environment.get("dirty") else ""),
        })  # fmt: skip
    frame = pd.DataFrame(rows).astype({"seconds a run": float, "peak MB": float})

    def joined(part: pd.Series) -> str:
        return ", ".join(sorted(part.unique()))

    grouped = frame.groupby(["arm", "paper", "corpus", "protocol"], sort=False)
    shown = grouped.agg({
        "epoch chosen on": "first", "epochs": "mean", "seconds a run": "mean", "peak MB": "max", "device": joined,
        "commit (+ changed)": joined,
    })  # fmt: skip
    shown.insert(0, "runs", grouped.size())
    return shown.reset_index()


def frame_table(frame: pd.DataFrame, label: str) -> Markup:
    """A frame as a sortable table: text as it is, numbers with at most one decimal."""
    shown = frame.copy()
    for name in shown.select_dtypes("number"):
        whole = shown[name].dropna().mod(1).eq(0).all()
        shown[name] = ["–" if pd.isna(value) else f"{value:.{0 if whole else 1}f}" for value in shown[name]]
    soup = BeautifulSoup(shown.to_html(index=False, border=0, na_rep="–"), "html.parser")
    return markup.html(markup.table(soup, label))
