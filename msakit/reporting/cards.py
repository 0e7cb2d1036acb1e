"""A model card for each saved head, in the Hugging Face format: what it is, how it scores, what it is not for.

A head lies in ``heads/<paper>/<corpus>/<arm>/``; its card is the ``README.md`` beside the weights. Scores come from the
recorded runs, never from the head, so the card can be rebuilt and compared.
"""

from pathlib import Path
from typing import Any

from msakit import papers
from msakit.evaluation import metrics, statistics
from msakit.runs.record import Runs

FOLDER = "heads"


def cards(results: Path, runs: Runs) -> dict[str, str]:
    """Card of every saved head, by path relative to the results folder."""
    heads = sorted(path.parent for path in (Path(results) / FOLDER).glob("*/*/*/config.json"))
    return {
        f"{head.relative_to(results).as_posix()}/README.md": card(runs, *head.relative_to(results).parts[1:])
        for head in heads
    }


def card(runs: Runs, paper: str, corpus: str, arm: str) -> str:
    """One head's card: the metadata block and the page."""
    from huggingface_hub import ModelCardData

    facts = papers.facts(paper)
    chosen = runs.select(paper=paper, corpus=corpus, arm=arm)
    there = runs.select(paper=paper, corpus=corpus)
    generated = bool(there.frame["generated"].any())
    scores = _scores(chosen, facts["metrics"])
    data = ModelCardData(
        language="en",
        # A corpus's owners may restrict what is trained on it.
        license="mit" if generated else "other",
        library_name="msakit",
        tags=["multimodal", "sentiment-analysis", paper, corpus, "generated-data" if generated else "real-data"],
        model_name=f"{paper}-{corpus}-{arm}",
        eval_results=_results(scores, corpus),
        ignore_metadata_errors=False,
    )
    block = f"---\n{data.to_yaml(line_break=chr(10))}\n---\n"
    return block + "\n" + "\n".join(_page(facts, paper, corpus, arm, generated, chosen, scores)) + "\n"


def _scores(runs: Runs, names: list[str]) -> list[dict[str, Any]]:
    if not len(runs):
        return []
    found = runs.scores(names)
    rows = []
    for name, part in found.groupby("metric", sort=False):
        over = statistics.over_seeds(part["value"].to_numpy(float))
        own = part[part["seed"] == part["seed"].min()].iloc[0]
        rows.append({"metric": str(name), "own": float(own["value"]), "n": int(own["n"]), "over": over})
    return rows


def _results(scores: list[dict[str, Any]], corpus: str) -> list[Any] | None:
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
        for row in scores
        if row["own"] == row["own"]
    ] or None


def _page(
    facts: dict[str, Any], paper: str, corpus: str, arm: str, generated: bool, runs: Runs, scores: list[dict[str, Any]]
) -> list[str]:
    lines = [f"# {arm} on {corpus}", ""]
    what = "reconstructed from the abstract, for its equations are not public" if facts.get("status") else "re-run"
    lines += [f"A head of *{facts['title']}* ({facts['authors']}, {facts['venue']}), {what}, trained by msakit.", ""]
    if generated:
        lines += [
            f"**Generated data.** `{corpus}` is drawn from a documented generator: this head knows its drawn faces and "
            "made-up sentences, and says nothing about people.", "",
        ]  # fmt: skip
    lines += ["## Use", "", "```python", "from msakit.predictor import Predictor", "",
              'predictor = Predictor.from_pretrained("folder of this card")', "```", ""]  # fmt: skip
    lines += ["## Scores on the test split", ""]
    if scores:
        head = "| metric | this head | all seeds: mean ± s.d. | seeds | segments |"
        lines += [head, "|:--|--:|--:|--:|--:|"]
        for row in scores:
            over = row["over"]
            spread = f"{over.mean:.3f} ± {over.sd:.3f}" if over.n > 1 else "–"
            title = metrics.metric(row["metric"]).title
            lines.append(f"| {title} | {row['own']:.3f} | {spread} | {over.n} | {row['n']} |")
        record = next(iter(runs)).record
        chosen = record.selection or {}
        lines += ["", f"Protocol `{record.protocol}`; epoch chosen on the {chosen.get('split', 'validation')} split."]
    else:
        lines.append("No run of this arm is recorded beside the head.")
    lines += ["", "## Limits", "",
              "Trained to reproduce a paper's experiment, not for decisions about people. Sentiment read from a face "
              "or a voice is not what somebody feels."]  # fmt: skip
    return lines
