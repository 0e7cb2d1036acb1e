"""A table for a paper: the same cells as in Markdown, as a LaTeX table with booktabs rules.

The file is put in with ``\\input``; the preamble needs ``\\usepackage{booktabs}`` and nothing else: arrows and signs
are written as commands.
"""

from collections.abc import Mapping
from pathlib import Path

from msakit.files import write_atomically
from msakit.reporting.contract import Paper
from msakit.reporting.rebuild import tables_of
from msakit.reporting.tables import Table, cells
from msakit.runs.store import read_runs

SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\ensuremath{<}", ">": r"\ensuremath{>}",
    "↑": r"\ensuremath{\uparrow}", "↓": r"\ensuremath{\downarrow}", "±": r"\ensuremath{\pm}",
    "≥": r"\ensuremath{\geq}", "≤": r"\ensuremath{\leq}", "≠": r"\ensuremath{\neq}", "×": r"\ensuremath{\times}",
    "−": r"\ensuremath{-}", "–": "--", "…": r"\ldots{}", "λ": r"\ensuremath{\lambda}", "τ": r"\ensuremath{\tau}",
    "ε": r"\ensuremath{\varepsilon}", "→": r"\ensuremath{\rightarrow}", "²": r"\ensuremath{^2}",
    "Δ": r"\ensuremath{\Delta}", "’": "'", "“": "``", "”": "''", "α": r"\ensuremath{\alpha}",
    "β": r"\ensuremath{\beta}",
}  # fmt: skip


def write_all(results: Path, out: Path, papers: Mapping[str, Paper]) -> list[Path]:
    """Write every table of a results folder as ``<out>/<paper>/<name>.tex``; returns the paths.

    Raises ValueError for runs of an unknown paper.
    """
    paths = []
    for paper, tables in tables_of(read_runs(Path(results) / "runs"), papers).items():
        for table in tables.values():
            paths.append(Path(out) / paper / f"{table.name}.tex")
            write_atomically(paths[-1], to_latex(table).encode())
    return paths


def to_latex(table: Table) -> str:
    """A floating table: caption, rules, cells, notes below."""
    head, rows, align, notes = cells(table)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escaped(table.title)}}}", rf"\label{{tab:{table.name}}}",
             rf"\begin{{tabular}}{{{align}}}", r"\toprule"]  # fmt: skip
    lines += [" & ".join(map(escaped, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(escaped, row)) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if notes:
        lines += [r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize"]
        lines += [escaped(note) + r"\par" for note in notes]
        lines += [r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escaped(text: str) -> str:
    """The text as LaTeX shows it; ``**bold**`` becomes ``\\textbf``, other Markdown stays as it is."""
    bold = len(text) > 4 and text.startswith("**") and text.endswith("**")
    shown = "".join(SIGNS.get(sign, sign) for sign in (text[2:-2] if bold else text))
    return rf"\textbf{{{shown}}}" if bold else shown
