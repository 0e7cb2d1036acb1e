"""Show a paper's published tables and figures in a notebook, from a results folder and nothing else."""

from pathlib import Path

from IPython.display import Image, Markdown, display


def show(results: Path, paper: str) -> None:
    """Display every table (Markdown) and figure (png) of a paper, or say that this profile has none of it.

    Raises:
        FileNotFoundError: the folder holds no paper's tables at all; it names what to run.
    """
    if not any((results / "tables").glob("*/*.md")):
        raise FileNotFoundError(f"{results} holds no tables: run `make reproduce` first")
    texts = sorted((results / "tables" / paper).glob("*.md"))
    if not texts:
        display(Markdown("*Not part of this profile.*"))
    for text in texts:
        display(Markdown(text.read_text()))
    for picture in sorted((results / "figures" / paper).glob("*.png")):
        display(Image(data=picture.read_bytes(), width=640))
