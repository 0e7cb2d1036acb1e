"""Model cards, references and crate metadata: what the runs give, and nothing that they do not."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from small_runs import paper, regression, write

from msakit import papers
from msakit.reporting import cards, crate, rebuild, references
from msakit.runs.store import read_runs

ROOT = Path(__file__).parents[2]
LABEL = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
CLAIM = {"id": "c", "sentence": "A.", "source": "[P]", "metric": "mae", "family": "f",
         "comparisons": {"x": {"a": "best-text", "b": "b"}}}  # fmt: skip
OWN = {"key": "kim2022", "type": "inproceedings", "author": "Kim", "title": "Shift", "booktitle": "IJCNN", "year": 2022}
PAPERS = {"kim2022": paper(title="Shifting words", claims=[CLAIM], references=[OWN]), "other": paper("other")}


def store(root, prediction, seed=0, **changes):
    given = {"title": "Best layer: text", "selection": {"split": "valid", "metric": "mae", "value": 1.0, "epoch": 2}}
    write(root / "runs", "best-text", seed, regression(LABEL, prediction), **(given | changes))


@pytest.fixture
def results(tmp_path):
    for seed, error in enumerate((0.25, 0.5)):
        store(tmp_path, LABEL + error, seed)
    head = tmp_path / "heads" / "kim2022" / "mini-mosi" / "best-text"
    head.mkdir(parents=True)
    (head / "config.json").write_text("{}")
    return tmp_path


def test_a_head_has_a_card_in_the_hubs_format(results):
    ((name, text),) = cards.cards(results, read_runs(results / "runs"), PAPERS).items()
    assert name == "heads/kim2022/mini-mosi/best-text/README.md"
    card = ModelCard(text)
    assert card.data.license == "mit"
    assert card.data.library_name == "msakit"
    assert "generated-data" in card.data.tags
    found = {result.metric_type: result for result in card.data.eval_results}
    assert found["mae"].metric_value == 0.25  # of the head, which is the first seed's
    assert (found["mae"].dataset_name, found["mae"].dataset_split) == ("mini-mosi", "test")
    assert "| MAE ↓ | 0.250 | 0.375 ± 0.177 | 2 | 5 |" in text
    assert "**Generated data.**" in text
    assert "Best layer: text." in text
    assert "epoch chosen on the valid split" in text
    assert "msakit predict" in text
    assert "Shifting words" in text


def test_cards_of_real_data_and_of_heads_without_runs(results):
    store(results, LABEL + 1, generated=False, corpus="cmu_mosi")
    runs = read_runs(results / "runs")
    real = ModelCard(cards.card(runs, PAPERS["kim2022"], "cmu_mosi", "best-text"))
    assert real.data.license == "other"
    assert "Generated data" not in real.text
    bare = cards.card(runs, PAPERS["kim2022"], "mini-mosi", "weighted-text")
    assert "No run of this arm is recorded" in bare
    assert ModelCard(bare).data.eval_results is None


def test_undefined_scores_stay_out_of_the_metadata(results):
    store(results, np.ones(5))
    runs = read_runs(results / "runs")
    card = ModelCard(cards.card(runs, PAPERS["kim2022"], "mini-mosi", "best-text"))
    assert "corr" not in {result.metric_type for result in card.data.eval_results}


def keys(root, **changes):
    store(root, LABEL, **changes)
    return set(re.findall(r"^@\w+\{(\w+),$", references.bibliography(read_runs(root / "runs"), PAPERS), re.MULTILINE))


def test_references_are_those_of_the_runs(tmp_path):
    found = keys(tmp_path / "x", corpus="cmu_mosi", inputs={"text": "minilm_l6"})
    assert {"kim2022", "zadeh2016mosi", "wang2020minilm", "paszke2019pytorch"} <= found
    assert not found & {"devlin2019bert", "chen2022wavlm", "zadeh2018mosei"}
    found = keys(tmp_path / "y", paper="other", settings={"text_encoder": "build/encoders/distilbert"})
    assert "sanh2019distilbert" in found
    assert not found & {"devlin2019bert", "kim2022"}
    assert "wolf2020transformers" in found


def test_every_reference_is_whole_bibtex():
    own = [entry for name in papers.PAPERS for entry in papers.facts(name)["references"]]
    entries = [*references.known(), *own]
    assert len({entry["key"] for entry in entries}) == len(entries) > 20
    assert all({*entry["when"]} < {"corpus", "setting", "always"} for entry in references.known())
    for entry in entries:
        assert {"key", "type", "author", "title", "year"} <= set(entry)
        text = references.bibtex(entry)
        assert text.isascii()
        assert text.count("{") == text.count("}")
        assert re.search(r"^  title = \{\{.+\}\},$", text, re.MULTILINE)
        assert {"inproceedings": "booktitle", "article": "journal"}[entry["type"]] in entry
    for name in papers.PAPERS:
        (entry,) = [entry for entry in own if entry["key"] == name]
        assert entry["title"] == papers.facts(name)["title"]


def test_the_crate_describes_what_is_there(results):
    texts = rebuild.rebuilt(results, PAPERS, "mini")
    tables = {"tables/kim2022/mini-mosi.csv", "tables/kim2022/mini-mosi.md"}
    assert set(texts) == {*tables, "claims.json", "claims.md", "references.bib", "ro-crate-metadata.json",
                          "heads/kim2022/mini-mosi/best-text/README.md"}  # fmt: skip
    content = json.loads(texts[crate.FILE])
    items = {item["@id"]: item for item in content["@graph"]}
    assert items[crate.FILE]["about"] == {"@id": "./"}
    assert items[crate.FILE]["conformsTo"]["@id"].startswith("https://w3id.org/ro/crate/1.1")
    root = items["./"]
    assert {"name", "description", "datePublished", "license"} <= set(root)
    listed = {part["@id"] for part in root["hasPart"]}
    assert listed == {*tables, "runs/", "heads/", "claims.json", "claims.md", "references.bib", "manifest.json"}
    # Every reference within the crate is described in it.
    named = re.findall(r'\{\s*"@id": "([^"]+)"\s*\}', texts[crate.FILE])
    assert {name for name in named if not name.startswith("https://w3id")} <= set(items)
    assert texts == rebuild.rebuilt(results, PAPERS, "mini")


def test_citation_agrees_with_the_release():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert (citation["version"], str(citation["date-released"])) == (crate.VERSION, crate.RELEASED)
    assert f"## {crate.VERSION} ({crate.RELEASED})" in (ROOT / "CHANGELOG.md").read_text()
    titles = {papers.facts(paper)["title"] for paper in papers.PAPERS}
    assert {item["title"] for item in citation["references"]} == titles
