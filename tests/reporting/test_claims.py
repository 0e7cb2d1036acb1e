"""The claims ledger: claims as data, each verdict from runs whose truth is known, the same bytes each time."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from msakit import papers
from msakit.cli import app
from msakit.reporting import claim_facts, claims, claims_text, manifest
from msakit.runs import record as records

VIDEOS, SIZE = 30, 8
IDS = [f"v{video}_{part}" for video in range(VIDEOS) for part in range(SIZE)]


def write_arm(root, arm, error, seeds=10, corpus="mini-mosi", generated=True, jitter=0.02, valid=None, **changes):
    """An arm of kim2022 whose absolute errors average `error` (and `valid` on validation), with `jitter` over seeds."""
    generator = np.random.default_rng(abs(hash_of(arm)))
    label = np.random.default_rng(1).uniform(-3, 3, len(IDS))
    sign = np.where(np.random.default_rng(2).random(len(IDS)) < 0.5, -1, 1)
    for seed in range(seeds):
        level = error + jitter * generator.normal()
        wrong = sign * level * generator.uniform(0.5, 1.5, len(IDS))
        rows = [pd.DataFrame({"segment_id": IDS, "split": "test", "label": label, "prediction": label + wrong})]
        at = valid if valid is not None else error
        rows.append(rows[0].assign(split="valid", prediction=label + at))
        history = changes.get("history", lambda seed: [])(seed)
        record = records.RunRecord(
            paper=changes.get("paper", "kim2022"), arm=arm, seed=seed, key="k", config={}, history=history,
            seconds=1.0 + seed, protocol="corrected", selection=None,
            environment=dict.fromkeys(("python", "torch", "transformers", "platform", "machine", "device", "commit",
                                       "dirty")),
            corpus={"name": corpus, "fingerprint": "f", "generated": generated, "counts": {}},
            measurements=changes.get("measurements", {}),
        )  # fmt: skip
        records.write(root, record, pd.concat(rows))


def hash_of(text):
    return sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**31


def state(monkeypatch, *items):
    facts = {"title": "Title", "authors": "A, B", "venue": "V"}
    made = {"claims": [claim(**item) for item in items]} | facts
    monkeypatch.setattr(papers, "facts", lambda paper: made if paper == "kim2022" else facts)


def claim(**changes):
    return {
        "id": "one", "sentence": "A is better.", "source": "abstract [P]", "metric": "mae", "family": "f",
        "comparisons": {"plain": {"a": "a", "b": "b"}},
    } | changes  # fmt: skip


def made(root, profile="mini-full"):
    return claims.ledger(records.read_all(root), profile)


def verdict(root, profile="mini-full"):
    (row,) = made(root, profile).rows
    return row.verdict


@pytest.mark.parametrize(("a", "b", "wanted"), [(0.5, 0.8, "supported"), (0.8, 0.5, "contradicted"),
                                                (0.5, 0.502, "not distinguishable at this n")])  # fmt: skip
def test_a_difference_is_judged_by_its_side(tmp_path, monkeypatch, a, b, wanted):
    state(monkeypatch, {})
    write_arm(tmp_path, "a", a)
    write_arm(tmp_path, "b", b)
    (row,) = made(tmp_path).rows
    assert row.verdict == wanted
    assert row.effect == pytest.approx(a - b, abs=0.03)
    assert row.low < row.effect < row.high
    assert (row.n_seeds, row.n_segments, row.n_videos) == ((10, 10), VIDEOS * SIZE, VIDEOS)
    assert 0 < row.detectable < 0.1
    assert (row.p_corrected, row.tests_in_family) == (row.p, 1)


def test_what_cannot_be_tested_says_why(tmp_path, monkeypatch):
    state(monkeypatch, {})
    write_arm(tmp_path, "a", 0.5, seeds=4)
    assert claims.ledger(records.read_all(tmp_path), "mine").rows[0].reason == "not run here: b"
    write_arm(tmp_path, "b", 0.8, seeds=10)
    (row,) = made(tmp_path, "mine").rows
    assert (row.verdict, row.reason) == (claims.UNTESTED, "4 seeds or folds; this claim asks for 5")
    assert row.p < 0.05, "the numbers are shown all the same"
    write_arm(tmp_path, "a", 0.5, seeds=10)
    assert verdict(tmp_path, "mine") == "supported"
    (row,) = made(tmp_path, "mini").rows
    assert (row.verdict, row.reason) == (
        claims.UNTESTED,
        "10 seeds are too few here; this claim rests on the profile mini-full",
    )


def test_generated_and_real_data_are_never_mixed(tmp_path, monkeypatch):
    state(monkeypatch, {})
    for corpus, generated, a in (("mini-mosi", True, 0.5), ("cmu_mosi", False, 0.9)):
        write_arm(tmp_path, "a", a, corpus=corpus, generated=generated)
        write_arm(tmp_path, "b", 0.7, corpus=corpus, generated=generated)
    found = {kind: said for _, kind, said, _ in made(tmp_path).verdicts()}
    assert found == {"generated": "supported", "real": "contradicted"}
    assert all(row.tests_in_family == 1 for row in made(tmp_path).rows)
    state(monkeypatch, {"kinds": ["real"]})
    assert [row.kind for row in made(tmp_path).rows] == ["real"]
    state(monkeypatch, {"corpora": ["mini-mosi"]})
    assert [row.corpus for row in made(tmp_path).rows] == ["mini-mosi"]


def test_a_claim_of_several_comparisons_and_holm_in_its_family(tmp_path, monkeypatch):
    for arm, error in (("a", 0.5), ("b", 0.8), ("c", 0.503), ("d", 0.3)):
        write_arm(tmp_path, arm, error)
    pairs = {other: {"a": "a", "b": other} for other in "bcd"}
    state(monkeypatch, {"comparisons": {"b": pairs["b"]}}, {"id": "two", "comparisons": pairs})
    (_, _, first, _), (_, _, second, rows) = made(tmp_path).verdicts()
    assert (first, second) == ("supported", "contradicted")
    assert [row.verdict for row in rows] == ["supported", "not distinguishable at this n", "contradicted"]
    assert {row.tests_in_family for row in rows} == {4}
    assert rows[1].p_corrected == pytest.approx(rows[1].p)  # the largest p of the family stays as it is
    assert claims.together(["supported", claims.UNTESTED]) == "supported"
    assert claims.together(["supported", claims.OPEN]) == claims.OPEN
    assert claims.together([claims.UNTESTED]) == claims.UNTESTED


def test_not_worse_by_a_margin(tmp_path, monkeypatch):
    write_arm(tmp_path, "a", 0.51)
    write_arm(tmp_path, "b", 0.5)
    state(monkeypatch, {"margin": 0.1})
    (row,) = made(tmp_path).rows
    assert (row.verdict, row.null) == ("supported", 0.1)  # for an error, worse is higher
    write_arm(tmp_path, "a", 0.8)
    assert verdict(tmp_path) == "contradicted"


def test_a_lead_beyond_another_lead(tmp_path, monkeypatch):
    for arm, error in (("a.share-5", 0.5), ("b.share-5", 0.9), ("a.share-100", 0.4), ("b.share-100", 0.45)):
        write_arm(tmp_path, arm, error)
    pair = {"a": "a.share-5", "b": "b.share-5", "beyond": {"a": {"last": "a.share-*"}, "b": {"last": "b.share-*"}}}
    state(monkeypatch, {"comparisons": {"few": pair}})
    (row,) = made(tmp_path).rows
    assert row.effect == pytest.approx((0.5 - 0.9) - (0.4 - 0.45), abs=0.05)
    assert (row.verdict, row.b) == ("supported", "a.share-100 (last) over b.share-100 (last)")


@pytest.mark.parametrize(("first", "second", "wanted"), [(0.01, 0.4, "supported"), (0.4, 0.01, "contradicted"),
                                                         (0.1, 0.1, "not distinguishable at this n")])  # fmt: skip
def test_steadiness_over_seeds_has_its_own_test(tmp_path, monkeypatch, first, second, wanted):
    state(monkeypatch, {"test": "spread"})
    write_arm(tmp_path, "a", 2.0, jitter=first, seeds=12)
    write_arm(tmp_path, "b", 2.0, jitter=second, seeds=12)
    (row,) = made(tmp_path).rows
    assert row.verdict == wanted
    assert (row.effect < 0.4, row.effect > 2.5) == (wanted == "supported", wanted == "contradicted")
    assert 1.5 < row.detectable < 6


def test_costs_are_ratios_and_counts_decide_by_themselves(tmp_path, monkeypatch):
    write_arm(tmp_path, "a", 0.5, measurements={"flops_per_sample": 10, "time": 3.0})
    write_arm(tmp_path, "b", 0.5, measurements={"flops_per_sample": 40})
    pairs = {name: {"a": "a", "b": "b", "value": name} for name in ("flops_per_sample", "time", "seconds")}
    state(monkeypatch, {"test": "ratio", "comparisons": pairs})
    flops, time, seconds = made(tmp_path).rows
    assert (flops.effect, flops.p, flops.verdict) == (pytest.approx(0.25), None, "supported")
    assert (time.verdict, time.reason) == (claims.UNTESTED, "time was not measured")
    assert (seconds.effect, seconds.verdict) == (pytest.approx(1.0), "not distinguishable at this n")
    assert seconds.detectable > 1


def test_a_time_that_one_run_lacks_is_no_test_but_a_count_needs_one_run_only(tmp_path, monkeypatch):
    pairs = {name: {"a": "a", "b": "b", "value": name} for name in ("total_parameters", "time")}
    state(monkeypatch, {"test": "ratio", "comparisons": pairs})
    for arm, size in (("a", 20), ("b", 10)):
        write_arm(tmp_path, arm, 0.5)
        write_arm(tmp_path, arm, 0.5, seeds=1, measurements={"total_parameters": size, "time": 1.0})
    parameters, time = made(tmp_path).rows
    assert (parameters.effect, parameters.verdict) == (pytest.approx(2.0), "contradicted")
    assert (time.reason, time.verdict) == ("time was not measured in every run", claims.UNTESTED)


def test_the_time_of_an_epoch(tmp_path):
    write_arm(tmp_path, "a", 0.5, seeds=1, history=lambda seed: [{"seconds": t} for t in (9.0, 1.0, 2.0)])
    (run,) = records.read_all(tmp_path)
    assert claims.measured(run, "epoch_seconds") == 2.0
    assert np.isnan(claims.measured(run, "roughness"))


def test_roughness_of_the_validation_loss(tmp_path, monkeypatch):
    def losses(step):
        return lambda seed: [{"valid_loss": 1 + (step + 0.01 * seed) * (epoch % 2)} for epoch in range(6)]

    write_arm(tmp_path, "a", 0.5, history=losses(0.1))
    write_arm(tmp_path, "b", 0.5, history=losses(0.5))
    state(monkeypatch, {"test": "ratio", "comparisons": {"r": {"a": "a", "b": "b", "value": "roughness"}}})
    run = next(iter(records.read_all(tmp_path)))
    assert claims.measured(run, "roughness") == pytest.approx(0.1)
    assert verdict(tmp_path) == "supported"


def test_arms_by_their_role(tmp_path):
    for layer, valid in ((0, 0.1), (2, 0.6), (3, 0.4), (10, 0.3)):
        write_arm(tmp_path, f"layer{layer}-text", 0.5, seeds=1, valid=valid)
    runs = records.read_all(tmp_path)
    roles = {role: claim_facts.resolve(runs, {role: "layer*-text"}, "mae") for role in claim_facts.ROLES}
    assert roles == {"chosen": "layer0-text", "intermediate": "layer3-text", "first": "layer0-text",
                     "last": "layer10-text"}  # fmt: skip
    assert claim_facts.resolve(runs, {"last": "layer*-audio"}, "mae") is None
    assert claim_facts.resolve(runs, "layer2-text", "mae") == "layer2-text"
    assert claim_facts.resolve(runs, "layer1-text", "mae") is None


def test_alternatives_are_taken_where_all_their_arms_were_run(tmp_path, monkeypatch):
    state(monkeypatch, {"comparisons": {"t": {"a": ["a3", "a2", "a1"], "b": ["b3", "b2", "b1"]}}})
    for arm in ("a3", "a2", "b2", "a1", "b1"):
        write_arm(tmp_path, arm, 0.5)
    (row,) = made(tmp_path).rows
    assert (row.a, row.b, row.reason) == ("a2", "b2", "")
    write_arm(tmp_path, "b3", 0.5)
    assert made(tmp_path).rows[0].b == "b3"
    state(monkeypatch, {"comparisons": {"t": {"a": ["x", "y"], "b": "a1"}}})
    assert made(tmp_path).rows[0].reason == "not run here: x"
    with pytest.raises(ValueError, match="lists of arms want one length"):
        claim_facts.parsed(claim(comparisons={"t": {"a": ["x", "y"], "b": ["z"]}}), "kim2022", "x")


def test_the_same_arm_on_both_sides_is_no_test(tmp_path, monkeypatch):
    write_arm(tmp_path, "layer1-text", 0.5)
    write_arm(tmp_path, "layer2-text", 0.5, valid=0.1)
    pair = {"a": {"chosen": "layer*-text"}, "b": {"last": "layer*-text"}}
    state(monkeypatch, {"comparisons": {"text": pair}})
    assert made(tmp_path).rows[0].reason == "both sides are the same arm"


def test_the_files(tmp_path, monkeypatch):
    state(monkeypatch, {}, {"id": "two", "comparisons": {"none": {"a": "a", "b": "nowhere"}}})
    write_arm(tmp_path, "a", 0.5)
    write_arm(tmp_path, "b", 0.8)
    texts = claims_text.texts(records.read_all(tmp_path), "mini-full")
    assert texts == claims_text.texts(records.read_all(tmp_path), "mini-full")
    data = json.loads(texts["claims.json"])
    assert (data["profile"], data["alpha"], data["metric_version"]) == ("mini-full", 0.05, 1)
    assert [item["verdict"] for item in data["claims"]] == ["supported", "not testable here"]
    row = data["claims"][0]["comparisons"][0]
    assert set(row) >= {"effect", "low", "high", "n_seeds", "n_segments", "p", "p_corrected", "detectable", "verdict"}
    page = texts["claims.md"]
    assert "**A is better.** → **supported**" in page
    assert "Source: abstract [P]." in page
    shown = f"{row['effect']:+.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert f"| mini-mosi | plain: a vs b | MAE ↓     | {shown}" in page
    assert "10+10 seeds, 240 segments, 30 videos" in page
    assert "Not run here: none (mini-mosi)." in page
    told = claims_text.lines(claims.ledger(records.read_all(tmp_path), "mini"))
    assert "mini has too few seeds" in told[0]
    assert "  NOT TESTABLE HERE" in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tset": "spread"}, "'tset' is no field of a claim"), ({"test": "z"}, "test 'z'; choose from difference"),
     ({"metric": "acc"}, "no metric is called 'acc'"), ({"kinds": ["fake"]}, "kinds fake; choose from generated"),
     ({"comparisons": {"x": {"a": "a"}}}, "comparison x: wants a and b"),
     ({"comparisons": {"x": {"a": "a", "b": {"best": "l*"}}}}, "names no arm; write its name, or one of chosen"),
     ({"test": "ratio"}, "'value' goes with a ratio"), ({"comparisons": {}}, "wants a comparison")],
)  # fmt: skip
def test_faults_in_the_yaml_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        claim_facts.parsed(claim(**changes), "kim2022", "kim2022.yaml, claim 1")
    with pytest.raises(ValueError, match=r"claim 1 \(without id\): id is missing"):
        claim_facts.parsed({k: v for k, v in claim().items() if k != "id"}, "kim2022", "kim2022.yaml, claim 1")


# --- the papers' own claims ---------------------------------------------------------------------------------------

LEAST = {
    "ando2022": {"pretrained-beats-conventional", "intermediate-beats-output", "weighted-beats-best"},
    "toledo2022": {"joint-beats-frozen", "joint-beats-each-modality", "joint-matches", "joint-costs-less",
                   "gain-largest-in-low-resource"},
    "kim2022": {"shift-beats-text", "context-beats-word", "contrast-helps", "steadier-over-seeds"},
}  # fmt: skip


@pytest.mark.parametrize("paper", LEAST)
def test_each_paper_states_its_claims_with_their_sources(paper):
    found = {claim.id: claim for claim in claim_facts.claims_of(paper)}
    assert LEAST[paper] <= set(found)
    for stated in found.values():
        assert stated.sentence.endswith(".")
        assert any(f"[{tag}]" in stated.source for tag in "PCSI?"), stated.source


def test_claims_name_arms_that_the_papers_have():
    for paper, known in (("kim2022", "arms"), ("toledo2022", "arms")):
        arms = set(papers.facts(paper)[known])
        for stated in claim_facts.claims_of(paper):
            for pair in stated.comparisons:
                named = [arm for arm in (pair.a, pair.b, *(pair.beyond or ())) if isinstance(arm, str)]
                assert {arm.partition(".share-")[0] for arm in named} <= arms
    families = yaml.safe_dump(papers.facts("ando2022")["families"])
    for stated in claim_facts.claims_of("ando2022"):
        for pair in stated.comparisons:
            for side in (pair, pair.otherwise or pair):
                assert all(not isinstance(arm, str) or arm in families for arm in (side.a, side.b))


def test_the_command_prints_and_writes_and_keeps_the_manifest_true(tmp_path, monkeypatch):
    state(monkeypatch, {})
    root = tmp_path / "mini-full"
    write_arm(root / "runs", "a", 0.5)
    write_arm(root / "runs", "b", 0.8)
    manifest.write_manifest(root, "mini-full")
    done = CliRunner().invoke(app, ["claims", str(root)])
    assert done.exit_code == 0
    assert "kim2022, generated data: A is better.\n  SUPPORTED\n" in done.output
    assert json.loads((root / "claims.json").read_text())["claims"][0]["verdict"] == "supported"
    listed = json.loads((root / "manifest.json").read_text())["files"]
    assert listed["claims.md"] == records.file_sha256(root / "claims.md")
    assert listed == manifest.hashes(root)
    before = (root / "manifest.json").stat().st_mtime_ns
    CliRunner().invoke(app, ["claims", str(root)])
    assert (root / "manifest.json").stat().st_mtime_ns == before, "nothing new, nothing written"
