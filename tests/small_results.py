"""A small results folder as it is published: recorded runs, tables, figures, claims, executed notebooks."""

import base64
import json
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from small_runs import paper, regression, write

from msakit.reporting import figures, scores, tables
from msakit.reporting.claims import Ledger, Row, _plain, as_data
from msakit.reporting.manifest import write_manifest
from msakit.reporting.site.ledger import VERDICTS
from msakit.runs.store import pack, read_runs

ARMS = {"text-only": "Text only", "joint": "Both, joint", "frozen": "Both, frozen"}
FORMULA = r"$$z = \sum_m \alpha_m z_m, \qquad \alpha_m = \sigma(w_m^\top [z_v; z_a] + b_m)$$"
FACTS = {
    "kim2022": {
        "authors": "Kim, Kim", "status": "reconstructed", "venue": "IJCNN 2022",
        "arms": {name: {"title": title, "model": "m"} for name, title in {**ARMS, "cms": "CMS"}.items()},
        "left_out": {"The authors' own equations": "They are not public."},
    },
    "ando2022": {"authors": "Ando, Masumura, Sato", "code": "https://github.com/owner/code"},
    "toledo2022": {"authors": "Toledo, Marcacini"},
}  # fmt: skip
PAPERS = {name: paper(name, **FACTS[name]) for name in ("ando2022", "toledo2022", "kim2022")}


def results(folder: Path) -> Path:
    """Three arms of three seeds of Kim & Kim on a small corpus, a table, a wide table and two figures."""
    rng = np.random.default_rng(0)
    label = np.linspace(-3, 3, 40)
    videos = [f"v{k // 4}" for k in range(len(label))]
    for index, (arm, title) in enumerate(ARMS.items()):
        for seed in range(3):
            prediction = label + rng.normal(0, 0.3 * (index + 1), len(label))
            write(folder.with_name("built"), arm, seed, regression(label, prediction, video_id=videos), title=title,
                  selection={"split": "valid", "metric": "mae", "value": 1.0, "epoch": 2}, history=[{"epoch": 1.0}],
                  runtime={"seconds": 1.5, "peak_memory_mb": 100.0})  # fmt: skip
    pack(read_runs(folder.with_name("built")), folder / "runs")
    runs = read_runs(folder / "runs")
    table = tables.arm_table(runs, PAPERS["kim2022"], "Kim & Kim 2022 (reconstructed) on mini-mosi")
    wide = pd.DataFrame({"arm": list(ARMS), **{f"column {k}": rng.normal(size=3) for k in range(14)}})
    for each in (table, tables.Table("mini-mosi-wide", "A wide table on mini-mosi", wide, ("Loss is $x^2$.",))):
        tables.write(each, folder / "tables" / "kim2022")
    with figures.style():
        drawn, axes = plt.subplots(figsize=(figures.PAGE, 2))
        points = scores.scores(runs, "mae")[["arm", "seed", "value"]]
        figures.arm_points(axes, points, "mae", ARMS)
        axes.set_title("mini-mosi (generated data), test")
    figures.save(drawn, points, folder / "figures" / "kim2022", "mini-mosi-arms")
    plt.close(drawn)
    write_manifest(folder, "mini")
    return folder


def claims(folder: Path) -> None:
    """A ledger with one claim of each verdict, in the form that `msakit claims` writes."""
    shape = as_data(Ledger("mini", (), ()))
    shape["claims"] = [claim(verdict) for verdict in VERDICTS]
    (folder / "claims.json").write_text(json.dumps(shape))


def claim(verdict: str) -> dict[str, object]:
    row = Row("kim2022", "x", "context", "generated", "mini-mosi", "parts", "difference", "mae", "down", "joint",
              "frozen", "seeds and videos", -0.2, -0.3, -0.1, 0.0, (3, 3), 40, 10, 0.01, 0.02, 9.0, 0.001, 0.004, 4,
              0.15, verdict, "too few seeds" if verdict == "not testable here" else "")  # fmt: skip
    return {
        "paper": "kim2022", "id": f"claim {verdict}", "sentence": f"A sentence that is {verdict}.", "source": "here",
        "kind": "generated", "metric": "mae", "test": "difference", "family": "parts", "margin": 0.0, "minimal_n": 3,
        "verdict": verdict, "comparisons": [_plain(row)],
    }  # fmt: skip


def executed(folder: Path, results: Path) -> Path:
    """An executed notebook with formulas, code, tables, pictures and things that a page must not let in."""
    folder.mkdir(parents=True)
    published = base64.b64encode((results / "figures/kim2022/mini-mosi-arms.png").read_bytes()).decode()
    figure, _ = plt.subplots(figsize=(2, 1))
    figure.savefig(folder / "other.png")
    plt.close(figure)
    other = base64.b64encode((folder / "other.png").read_bytes()).decode()
    (folder / "other.png").unlink()
    html = pd.DataFrame({"a": [1.5], "b": ["x"]})._repr_html_()
    hostile = '<script>fetch("https://example.org/x")</script><img src="https://example.org/y.png" onerror="alert(1)">'
    outputs = [
        new_output("stream", name="stderr", text="10%\r100%\n"),
        new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m <b>\n"),
        new_output("execute_result", {"text/html": html, "text/plain": "a"}, execution_count=1),
        new_output("display_data", {"text/html": hostile}),
        new_output("display_data", {"image/png": published}),
        new_output("display_data", {"image/png": other}),
        new_output("display_data", {"text/plain": "<Figure size 840x300 with 3 Axes>"}),
        new_output("display_data", {"text/markdown": "## Shown\n\n| a | b |\n|---|--:|\n| x | 1 |"}),
        new_output("error", ename="E", evalue="e", traceback=["\x1b[31mE\x1b[0m: e"]),
    ]
    text = f"# When a word\n\n## The shift\n\nWith $e_i$ and [a file](../x.py) and [a page](https://example.org):\n\n{FORMULA}"
    cells = [
        new_markdown_cell(text),
        new_code_cell("seeds: list[int] = [0]  # one run each", metadata={"tags": ["parameters"]}),
        new_code_cell("print('a < b')", outputs=outputs, execution_count=1),
    ]
    nbformat.write(new_notebook(cells=cells), folder / "kim2022.ipynb")
    return folder
