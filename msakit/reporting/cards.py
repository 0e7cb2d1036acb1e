"""A model card for each saved head, in the Hugging Face format: what it is, how it scores, what it is not for.

A head lies in ``heads/<paper>/<corpus>/<arm>/``; its card is the ``README.md`` beside the weights. Scores come from the
recorded runs, never from the head, so the card can be rebuilt and compared.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msakit.evaluation import metrics, statistics
from msakit.reporting.contract import Paper
from msakit.reporting.scores import label, scores
from msakit.runs.store import Runs

FOLDER = "heads"


def cards(results: Path, runs: Runs, papers: Mapping[str, Paper]) -> dict[str, str]:
    """Card of every saved head, by path relative to the results folder."""
    found = {}
    for config in sorted((Path(results) / FOLDER).glob("*/*/*/config.json")):
        head = config.parent.relative_to(results)
        paper, corpus, arm = head.parts[-3:]
        found[f"{head.as_posix()}/README.md"] = card(runs, papers[paper], corpus, arm)
    return found


def card(runs: Runs, paper: Paper, corpus: str, arm: str) -> str:
    """One head's card: the metadata block and the page."""
    from huggingface_hub import ModelCardData

    chosen = runs.select(paper=paper.name, corpus=corpus, arm=arm)
    generated = bool(runs.select(paper=paper.name, corpus=corpus).frame["generated"].any())
    rows = _scores(chosen, paper)
    data = ModelCardData(
        language="en",
        # A corpus's owners may restrict what is trained on it.
        license="mit" if generated else "other",
        library_name="msakit",
        tags=["multimodal", "sentiment-analysis", paper.name, corpus, "generated-data" if generated else "real-data"],
        model_name=f"{paper.name}-{corpus}-{arm}",
        eval_results=_results(rows, corpus),
        ignore_metadata_errors=False,
    )
    block = f"---\n{data.to_yaml(line_break=chr(10))}\n---\n"
    return block + "\n" + "\n".join(_page(paper, corpus, arm, generated, chosen, rows)) + "\n"


def _scores(runs: Runs, paper: Paper) -> list[dict[str, Any]]:
    if not len(runs):
        return []
    found = scores(runs, paper.metrics(str(runs.frame["task"].iloc[0])))
    rows = []
    for name, part in found.groupby("metric", sort=False):
        over = statistics.over_seeds(part["value"].to_numpy(float))
        # The head is the first run's.
        own = part.sort_values(["fold", "seed"], kind="stable").iloc[0]
        rows.append({"metric": str(name), "own": float(own["value"]), "n": int(own["n"]), "over": over})
    return rows


def _results(rows: list[dict[str, Any]], corpus: str) -> list[Any] | None:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="multimodal-sentiment-analysis",
            dataset_type=corpus,
            dataset_name=corpus,
            dataset_split="test",
            metric_type=row["metric"],
            metric_name=metrics.metric(row["metric"]).label,
            metric_value=round(row["own"], 4),
        )
        for row in rows
        if row["own"] == row["own"]
    ] or None


def _page(paper: Paper, corpus: str, arm: str, generated: bool, runs: Runs, rows: list[dict[str, Any]]) -> list[str]:
    facts = paper.facts
    what = "reconstructed from the abstract, for its equations are not public" if facts.get("status") else "re-run"
    lines = [f"# {arm} on {corpus}", ""]
    if len(runs):
        lines += [f"{label(runs.runs[0].record.definition)}.", ""]
    lines += [f"A head of *{facts['title']}* ({facts['authors']}, {facts['venue']}), {what}, trained by msakit.", ""]
    if generated:
        lines += [
            f"**Generated data.** `{corpus}` is drawn from a documented generator: this head knows its drawn faces and "
            "generated sentences, and says nothing about people.", "",
        ]  # fmt: skip
    lines += ["## Use", "", "```sh", 'msakit predict clip.mp4 --text "…" --head FOLDER_OF_THIS_CARD', "```", ""]
    lines += ["## Scores on the test split", ""]
    if rows:
        lines += ["| metric | this head | all runs: mean ± s.d. | runs | segments |", "|:--|--:|--:|--:|--:|"]
        for row in rows:
            over = row["over"]
            spread = f"{over.mean:.3f} ± {over.sd:.3f}" if over.n > 1 else "–"
            title = metrics.metric(row["metric"]).title
            lines.append(f"| {title} | {row['own']:.3f} | {spread} | {over.n} | {row['n']} |")
        record = runs.runs[0].record
        split = "validation" if record.selection is None else record.selection.split
        lines += ["", f"Protocol `{record.definition.protocol.name}`; epoch chosen on the {split} split."]
    else:
        lines.append("No run of this arm is recorded beside the head.")
    lines += ["", "## Limits", "",
              "Trained to reproduce a paper's experiment, not for decisions about people. Sentiment read from a face "
              "or a voice is not what somebody feels."]  # fmt: skip
    return lines
