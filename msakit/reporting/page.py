"""Show a profile's claims, tables and figures in a notebook, from a results folder and nothing else."""

from pathlib import Path

import pandas as pd
from IPython.display import Image, Markdown, display

from msakit.reporting import manifest
from msakit.reporting.describe import of_picture
from msakit.runs.store import read_runs


def show_claims(results: Path) -> None:
    """Display the claims ledger (claims.md), or say that there is none."""
    path = results / "claims.md"
    # Its title is the notebook's heading already.
    text = path.read_text(encoding="utf-8").partition("\n")[2] if path.exists() else ""
    display(Markdown(text or "*No claims ledger here: `msakit claims` writes it.*"))


def show_provenance(results: Path) -> None:
    """Display what the results are and where their runs ran."""
    found = manifest.manifest(results, "")
    ran = manifest.provenance(read_runs(results / "runs"))
    versions = ran.pop("versions")
    shown = {name: found[name] for name in ("runs", "papers", "seeds", "folds")} | ran | versions
    display(pd.Series(shown, name="value").to_frame())


def show(results: Path, paper: str) -> None:
    """Display every table (Markdown) and figure (png, with its description) of a paper, or say that there is none.

    Raises:
        FileNotFoundError: the folder holds no paper's tables at all; it names what to run.
    """
    if not any((results / "tables").glob("*/*.md")):
        raise FileNotFoundError(f"{results} holds no tables: run `make reproduce` first")
    texts = sorted((results / "tables" / paper).glob("*.md"), key=lambda path: path.stem)
    if not texts:
        display(Markdown("*Not part of this profile.*"))
    for text in texts:
        display(Markdown(text.read_text(encoding="utf-8")))
    for picture in sorted((results / "figures" / paper).glob("*.png"), key=lambda path: path.stem):
        title, description = of_picture(picture)
        display(Image(data=picture.read_bytes(), width=640, alt=f"{title}. {description}"))
