"""What the page shows of a results folder: its tables, figures, runs and gaps, each ready for the template."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
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


def slug(*parts: str) -> str:
    """An id for an element: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def papers(results: Path, known: Mapping[str, Paper], corpora: Iterable[str]) -> list[dict[str, Any]]:
    """Every known paper for the template, in the given order, those without results too: the page says so."""
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
        gaps += [(f"In the table “{table['title']}”", gap) for table in tables for gap in table["gaps"]]
        views.append({
            "id": name, "name": short_name(facts, name), "title": facts["title"], "venue": facts["venue"],
            "code": facts.get("code", ""), "status": facts.get("status", ""), "tables": tables, "figures": figures,
            "gaps": gaps, "is_empty": not tables and not figures,
        })  # fmt: skip
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


def left_out() -> dict[str, dict[str, str]]:
    """What no profile can show, and why."""
    content: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("left_out.yaml").read_text("utf-8"))
    return content


def table_view(path: Path, paper: str) -> dict[str, Any]:
    """A published table: the Markdown shown with its notes, the csv to save.

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
        html = Markup(str(markup.table(soup, title)))
    file = path.with_suffix(".csv")
    return {
        "id": slug(paper, path.stem, "table"),
        "title": title,
        "html": html,
        "gaps": [text for note in notes if (text := note.get_text()).startswith(GAPS)],
        "notes": [Markup(markup.fit(note).decode_contents()) for note in notes],
        "downloads": [embed.download(file.read_bytes(), f"{paper}-{file.name}")] if file.exists() else [],
    }


def figure_view(path: Path, paper: str, data: pd.DataFrame | None, corpora: Iterable[str]) -> dict[str, Any]:
    """A published figure, its description from the picture, and the plotted data to save."""
    title, description = of_picture(path)
    text = None if data is None else data.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return {
        "id": slug(paper, path.stem, "figure"),
        "title": heading(path.stem, corpora),
        "alt": f"{title}. {description}".strip(),
        "picture": embed.picture(path.read_bytes()),
        "downloads": [embed.download(text.encode(), f"{paper}-{path.stem}.csv")] if text is not None else [],
        "sha256": sha256_of(path),
    }


def heading(stem: str, corpora: Iterable[str]) -> str:
    """What a file name says: `mini-mosi-layers` is “Layers on mini-mosi”; the figure's own title is in the picture."""
    for corpus in corpora:
        if stem.startswith(f"{corpus}-"):
            kind = stem.removeprefix(f"{corpus}-").replace("-", " ")
            return f"{kind[0].upper()}{kind[1:]} on {corpus}"
    words = stem.replace("-", " ")
    return f"{words[0].upper()}{words[1:]}"


def costs(runs: Runs) -> pd.DataFrame:
    """One row an arm: its runs, how its epoch was chosen, what it cost and which sources ran it."""
    environments = [run.runtime.environment if run.runtime else {} for run in runs]
    selections = [run.record.selection for run in runs]
    commits = [str(each.get("commit") or "")[:8] + ("+" if each.get("dirty") else "") for each in environments]
    frame = runs.frame.rename(columns={"seconds": "seconds a run"})
    frame["epoch chosen on"] = [f"{each.split}, {each.metric}" if each else "" for each in selections]
    frame["peak MB"] = np.array([run.runtime.peak_memory_mb if run.runtime else None for run in runs], dtype=float)
    frame["device"] = [str(each.get("device") or "") for each in environments]
    frame["commit (+ changed)"] = commits

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
    return Markup(str(markup.table(soup, label)))
