"""Model cards, references and crate metadata: what the runs give, and nothing that they do not."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard
from test_tables import LABEL, store

from msakit.papers import PAPERS, facts
from msakit.reporting import cards, crate, exports, references
from msakit.runs import record as records

ROOT = Path(__file__).parents[2]
IDS = list("abcde")


@pytest.fixture
def results(tmp_path):
    for seed, error in enumerate((0.25, 0.5)):
        store(tmp_path / "runs", "best-text", seed, LABEL + error, LABEL, IDS)
    head = tmp_path / "heads" / "ando2022" / "mini-mosi" / "best-text"
    head.mkdir(parents=True)
    (head / "config.json").write_text("{}")
    return tmp_path


def test_a_head_has_a_card_in_the_hubs_format(results):
    (name,) = cards.cards(results, records.read_all(results / "runs"))
    assert name == "heads/ando2022/mini-mosi/best-text/README.md"
    text = cards.cards(results, records.read_all(results / "runs"))[name]
    card = ModelCard(text)
    assert card.data.license == "mit"
    assert card.data.library_name == "msakit"
    assert "generated-data" in card.data.tags
    found = {result.metric_type: result for result in card.data.eval_results}
    assert found["mae"].metric_value == 0.25  # of the head, which is the first seed's
    assert (found["mae"].dataset_name, found["mae"].dataset_split) == ("mini-mosi", "test")
    assert "| MAE ↓ | 0.250 | 0.375 ± 0.177 | 2 | 5 |" in text
    assert "**Generated data.**" in text
    assert "from msakit.predictor import Predictor" in text
    assert facts("ando2022")["title"] in text


def test_cards_of_real_data_and_of_heads_without_runs(results):
    store(results / "runs", "best-text", 0, LABEL + 1, LABEL, IDS, generated=False, corpus="cmu_mosi")
    runs = records.read_all(results / "runs")
    real = ModelCard(cards.card(runs, "ando2022", "cmu_mosi", "best-text"))
    assert real.data.license == "other"
    assert "Generated data" not in real.text
    bare = cards.card(runs, "ando2022", "mini-mosi", "weighted-text")
    assert "No run of this arm is recorded" in bare
    assert ModelCard(bare).data.eval_results is None


def test_undefined_scores_stay_out_of_the_metadata(results):
    store(results / "runs", "best-text", 0, np.ones(5), LABEL, IDS)
    runs = records.read_all(results / "runs")
    card = ModelCard(cards.card(runs, "ando2022", "mini-mosi", "best-text"))
    assert "corr" not in {result.metric_type for result in card.data.eval_results}


def with_config(root, paper, corpus, config):
    frame = pd.DataFrame({"segment_id": IDS, "split": "test", "label": LABEL, "prediction": LABEL})
    record = records.RunRecord(
        paper=paper, arm="a", seed=0, key="k", config=config, history=[], environment=records.environment(),
        corpus={"name": corpus, "fingerprint": "f", "generated": False, "counts": {}}, protocol="corrected",
        selection=None, seconds=1.0,
    )  # fmt: skip
    records.write(root, record, frame)
    return records.read_all(root)


def test_references_are_those_of_the_runs(tmp_path):
    runs = with_config(tmp_path, "ando2022", "cmu_mosi", {"inputs": {"text": {"features": "text-minilm-l6-af3"}}})
    text = references.bibliography(runs)
    keys = set(re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE))
    assert {"ando2022", "zadeh2016mosi", "wang2020minilm", "paszke2019pytorch"} <= keys
    assert not keys & {"kim2022", "devlin2019bert", "chen2022wavlm", "zadeh2018mosei"}
    runs = with_config(tmp_path, "kim2022", "mini-mosi", {"text_encoder": "build/encoders/distilbert"})
    keys = set(re.findall(r"^@\w+\{(\w+),$", references.bibliography(runs), re.MULTILINE))
    assert {"kim2022", "rahman2020mag", "sanh2019distilbert"} <= keys
    assert "devlin2019bert" not in keys


def test_every_reference_is_whole_bibtex():
    entries = references.known()
    assert {next(iter(entry["when"].values())) for entry in entries if "paper" in entry["when"]} == set(PAPERS)
    assert len({entry["key"] for entry in entries}) == len(entries) > 20
    for entry in entries:
        text = references.bibtex(entry)
        assert text.isascii()
        assert text.count("{") == text.count("}")
        assert re.search(r"^  title = \{\{.+\}\},$", text, re.MULTILINE)
        assert {"inproceedings": "booktitle", "article": "journal"}[entry["type"]] in entry
    for paper in PAPERS:
        (entry,) = [entry for entry in entries if entry["key"] == paper]
        assert entry["title"] == facts(paper)["title"]


def test_the_crate_describes_what_is_there(results):
    runs = records.read_all(results / "runs")
    made = exports.texts(results, runs, "mini", ["tables/ando2022/main.csv"])
    assert set(made) == {"claims.json", "claims.md", "references.bib", "ro-crate-metadata.json",
                         "heads/ando2022/mini-mosi/best-text/README.md"}  # fmt: skip
    content = json.loads(made[crate.FILE])
    items = {item["@id"]: item for item in content["@graph"]}
    assert items[crate.FILE]["about"] == {"@id": "./"}
    assert items[crate.FILE]["conformsTo"]["@id"].startswith("https://w3id.org/ro/crate/1.1")
    root = items["./"]
    assert {"name", "description", "datePublished", "license"} <= set(root)
    listed = {part["@id"] for part in root["hasPart"]}
    assert listed == {"runs/", "heads/", "tables/ando2022/main.csv", "claims.json", "claims.md", "references.bib",
                      "manifest.json"}  # fmt: skip
    # Every reference within the crate is described in it.
    named = re.findall(r'\{\s*"@id": "([^"]+)"\s*\}', made[crate.FILE])
    assert {name for name in named if not name.startswith("https://w3id")} <= set(items)
    assert made == exports.texts(results, runs, "mini", ["tables/ando2022/main.csv"])


def test_what_no_run_gives_any_more_is_removed(tmp_path):
    (tmp_path / "claims.md").write_text("old")
    exports.write(tmp_path, {"references.bib": "new"})
    assert [path.name for path in tmp_path.iterdir()] == ["references.bib"]


def test_citation_agrees_with_the_release():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert (citation["version"], str(citation["date-released"])) == (crate.VERSION, crate.RELEASED)
    assert f"## {crate.VERSION} ({crate.RELEASED})" in (ROOT / "CHANGELOG.md").read_text()
    assert {item["title"] for item in citation["references"]} == {facts(paper)["title"] for paper in PAPERS}
