"""Show a paper's published tables and figures in a notebook, from a results folder and nothing else."""

from pathlib import Path

from IPython.display import Image, Markdown, display


def show(results: Path, paper: str) -> None:
    """Display every table (Markdown) and figure (png) of a paper.

    Raises:
        FileNotFoundError: the folder holds none; it names what to run.
    """
    texts = sorted((results / "tables" / paper).glob("*.md"))
    pictures = sorted((results / "figures" / paper).glob("*.png"))
    if not texts:
        raise FileNotFoundError(f"{results} holds no tables of {paper}: run `make reproduce` first")
    for text in texts:
        display(Markdown(text.read_text()))
    for picture in pictures:
        display(Image(data=picture.read_bytes(), width=640))
