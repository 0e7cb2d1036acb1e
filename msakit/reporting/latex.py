"""A table for a paper: the same cells as in Markdown, as a LaTeX table with booktabs rules.

The file is put in with ``\\input``; the preamble needs ``\\usepackage{booktabs}`` and nothing else: arrows and signs
are written as commands.
"""

from collections.abc import Sequence

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


def escaped(text: str) -> str:
    """The text as LaTeX shows it; ``**bold**`` becomes ``\\textbf``, other Markdown stays as it is."""
    bold = len(text) > 4 and text.startswith("**") and text.endswith("**")
    shown = "".join(SIGNS.get(sign, sign) for sign in (text[2:-2] if bold else text))
    return rf"\textbf{{{shown}}}" if bold else shown


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], align: str, notes: Sequence[str],
          label: str) -> str:  # fmt: skip
    """A floating table: caption, rules, cells, notes below. align: "l" or "r", one a column."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escaped(title)}}}", rf"\label{{tab:{label}}}",
             rf"\begin{{tabular}}{{{align}}}", r"\toprule"]  # fmt: skip
    lines += [" & ".join(map(escaped, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(escaped, row)) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if notes:
        lines += [r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize"]
        lines += [escaped(note) + r"\par" for note in notes]
        lines += [r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"
