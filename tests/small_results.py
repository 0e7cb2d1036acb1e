"""A small results folder as the workflow publishes it: recorded runs, tables, figures, claims, executed notebooks."""

import base64
import json
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from msakit.reporting import figures, tables
from msakit.reporting.claims import Row
from msakit.reporting.manifest import write_manifest
from msakit.runs import record as records

ARMS = {"text-only": "Text only", "joint": "Both, joint", "frozen": "Both, frozen"}
FORMULA = r"$$z = \sum_m \alpha_m z_m, \qquad \alpha_m = \sigma(w_m^\top [z_v; z_a] + b_m)$$"


def results(folder: Path) -> Path:
    """Three arms of three seeds of Kim & Kim on a made-up corpus, a table, a wide table and two figures."""
    rng = np.random.default_rng(0)
    label = np.linspace(-3, 3, 40)
    for place, arm in enumerate(ARMS):
        for seed in range(3):
            record(folder / "runs", arm, seed, label + rng.normal(0, 0.3 * (place + 1), len(label)), label)
    runs = records.read_all(folder / "runs")
    made = tables.summarise(runs, "mini-mosi", "Kim & Kim 2022 (reconstructed) on mini-mosi",
                            {**ARMS, "cms": "CMS"}, ["mae", "corr"])  # fmt: skip
    wide = pd.DataFrame({"arm": list(ARMS), **{f"column {k}": rng.normal(size=3) for k in range(14)}})
    for table in (made, tables.Table("mini-mosi-wide", "A wide table on mini-mosi", wide, ("Loss is $x^2$.",))):
        tables.write(table, folder / "tables" / "kim2022")
    with figures.style():
        drawn, axes = plt.subplots(figsize=(figures.PAGE, 2))
        scores = runs.scores("mae")[["arm", "seed", "value"]]
        figures.arm_points(axes, scores, "mae", ARMS)
        axes.set_title("mini-mosi (generated data), test")
    figures.save(drawn, scores, folder / "figures" / "kim2022", "mini-mosi-arms")
    plt.close(drawn)
    write_manifest(folder, "mini")
    return folder


def record(root: Path, arm: str, seed: int, prediction: np.ndarray, label: np.ndarray) -> None:
    corpus = {"name": "mini-mosi", "fingerprint": "f00d", "generated": True, "counts": {"test": len(label)}}
    selection = {"split": "valid", "metric": "mae", "value": 1.0, "epoch": 2}
    environment = records.environment()
    made = records.RunRecord("kim2022", arm, seed, corpus, "corrected", {}, "key", selection, [{"epoch": 1.0}],
                             environment, 1.5, 100.0)  # fmt: skip
    frame = pd.DataFrame({"segment_id": [f"v{k // 4}_{k}" for k in range(len(label))], "split": "test",
                          "label": label, "prediction": prediction})  # fmt: skip
    records.write(root, made, frame)


def claims(folder: Path) -> None:
    """A ledger with one claim of each verdict, in the form that `msakit claims` writes."""
    from msakit.reporting.claims import VERDICTS, Ledger, as_data

    shape = as_data(Ledger("mini", (), ()))
    shape["claims"] = [claim(verdict) for verdict in VERDICTS]
    (folder / "claims.json").write_text(json.dumps(shape))


def claim(verdict: str) -> dict[str, object]:
    row = Row("kim2022", "x", "context", "generated", "mini-mosi", "parts", "difference", "mae", "joint", "frozen",
              "seeds and videos", -0.2, -0.3, -0.1, 0.0, (3, 3), 40, 10, 0.01, 0.02, 9.0, 0.001, 0.004, 4, 0.15,
              verdict, "too few seeds" if verdict == "not testable here" else "")  # fmt: skip
    from msakit.reporting.claims import _plain

    return {
        "paper": "kim2022", "id": f"claim {verdict}", "sentence": f"A sentence that is {verdict}.", "source": "here",
        "kind": "generated", "metric": "mae", "direction": "down", "test": "difference", "family": "parts",
        "margin": 0.0, "minimal_n": 3, "verdict": verdict, "comparisons": [_plain(row)],
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
