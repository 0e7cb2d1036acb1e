"""A model card for each saved head, in the Hugging Face format: what it is, how it scores, what it is not for.

A head lies in ``heads/<paper>/<corpus>/<arm>/``; its card is the ``README.md`` beside the weights. Scores come from the
recorded runs, never from the head, so the card can be rebuilt and compared.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Template

from msakit.evaluation import metrics, statistics
from msakit.reporting.contract import Paper
from msakit.reporting.scores import label, scores
from msakit.runs.store import Runs

FOLDER = "heads"
TEMPLATE = Path(__file__).with_name("card.md.j2")


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
    from huggingface_hub import EvalResult, ModelCardData

    chosen = runs.select(paper=paper.name, corpus=corpus, arm=arm)
    generated = bool(runs.select(paper=paper.name, corpus=corpus).frame["generated"].any())
    rows = _scores(chosen, paper) if len(chosen) else []
    results = [
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
        if row["own"] == row["own"]  # not nan
    ]
    data = ModelCardData(
        language="en",
        # A corpus's owners may restrict what is trained on it.
        license="mit" if generated else "other",
        library_name="msakit",
        tags=["multimodal", "sentiment-analysis", paper.name, corpus, "generated-data" if generated else "real-data"],
        model_name=f"{paper.name}-{corpus}-{arm}",
        eval_results=results or None,
        ignore_metadata_errors=False,
    )
    record = chosen.runs[0].record if len(chosen) else None
    template = Template(TEMPLATE.read_text("utf-8"), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return template.render(
        metadata=data.to_yaml(line_break="\n"), arm=arm, corpus=corpus, facts=paper.facts, generated=generated,
        record=record, label=label(record.definition) if record else "", scores=rows,
    )  # fmt: skip


def _scores(runs: Runs, paper: Paper) -> list[dict[str, Any]]:
    found = scores(runs, paper.metrics(str(runs.frame["task"].iloc[0])))
    rows = []
    for name, part in found.groupby("metric", sort=False):
        # The head is the first run's.
        own = part.sort_values(["fold", "seed"], kind="stable").iloc[0]
        over, title = statistics.over_seeds(part["value"].to_numpy(float)), metrics.metric(str(name)).title
        rows.append({"metric": name, "title": title, "own": float(own["value"]), "n": int(own["n"]), "over": over})
    return rows
