"""The claims ledger: claims as data, each verdict from runs whose truth is known, the same bytes each time."""

import json

import numpy as np
import pandas as pd
import pytest
from small_runs import classes, paper, regression, write
from typer.testing import CliRunner

from msakit import cli, papers
from msakit.files import sha256_of
from msakit.reporting import claim_facts, claims, claims_text, manifest
from msakit.runs.store import read_runs

VIDEOS, SIZE = 30, 8
IDS = [f"v{video}_{part}" for video in range(VIDEOS) for part in range(SIZE)]
VIDEO_IDS = [name.partition("_")[0] for name in IDS]


def write_arm(root, arm, error, seeds=10, jitter=0.02, valid=None, **changes):
    """An arm whose absolute errors average `error` (and `valid` on validation), with `jitter` over seeds."""
    generator = np.random.default_rng(number_of(arm))
    label = np.random.default_rng(1).uniform(-3, 3, len(IDS))
    sign = np.where(np.random.default_rng(2).random(len(IDS)) < 0.5, -1, 1)
    history, runtime = changes.pop("history", lambda seed: []), changes.pop("runtime", lambda seed: {})
    for seed in range(seeds):
        level = error + jitter * generator.normal()
        wrong = sign * level * generator.uniform(0.5, 1.5, len(IDS))
        at = valid if valid is not None else error
        splits = [regression(label, label + by, split, IDS, video_id=VIDEO_IDS)
                  for split, by in (("test", wrong), ("valid", at))]  # fmt: skip
        write(root, arm, seed, pd.concat(splits), history=history(seed), runtime=runtime(seed), **changes)


def number_of(text):
    return sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**31


def stating(*items):
    """The paper kim2022 with those claims."""
    return {"kim2022": paper(claims=[claim(**item) for item in items])}


def claim(**changes):
    return {
        "id": "one", "sentence": "A is better.", "source": "abstract [P]", "metric": "mae", "family": "f",
        "comparisons": {"plain": {"a": "a", "b": "b"}},
    } | changes  # fmt: skip


def ledger(root, *items, profile="mini-full"):
    return claims.ledger(read_runs(root), stating(*(items or [{}])), profile)


def row(root, *items, profile="mini-full"):
    (found,) = ledger(root, *items, profile=profile).rows
    return found


@pytest.mark.parametrize(("a", "b", "wanted"), [(0.5, 0.8, "supported"), (0.8, 0.5, "contradicted"),
                                                (0.5, 0.502, "not distinguishable at this n")])  # fmt: skip
def test_a_difference_has_the_verdict_of_its_side(tmp_path, a, b, wanted):
    write_arm(tmp_path, "a", a)
    write_arm(tmp_path, "b", b)
    found = row(tmp_path)
    assert found.verdict == wanted
    assert found.effect == pytest.approx(a - b, abs=0.03)
    assert found.low < found.effect < found.high
    assert (found.n_runs, found.n_segments, found.n_videos) == ((10, 10), VIDEOS * SIZE, VIDEOS)
    assert 0 < found.detectable < 0.1
    assert (found.p_corrected, found.tests_in_family) == (found.p, 1)


def test_what_cannot_be_tested_has_its_reason(tmp_path):
    write_arm(tmp_path, "a", 0.5, seeds=4)
    assert row(tmp_path, profile="mine").reason == "not run here: b"
    write_arm(tmp_path, "b", 0.8, seeds=10)
    found = row(tmp_path, profile="mine")
    assert (found.verdict, found.reason) == (claims.UNTESTED, "4 seeds or folds; this claim asks for 5")
    assert found.p < 0.05, "the numbers are shown all the same"
    write_arm(tmp_path, "a", 0.5, seeds=10)
    assert row(tmp_path, profile="mine").verdict == "supported"
    found = row(tmp_path, profile="mini")
    assert (found.verdict, found.reason) == (
        claims.UNTESTED,
        "10 seeds are too few here; this claim rests on the profile mini-full",
    )


def test_generated_and_real_data_are_never_mixed(tmp_path):
    for corpus, generated, a in (("mini-mosi", True, 0.5), ("cmu_mosi", False, 0.9)):
        write_arm(tmp_path, "a", a, corpus=corpus, generated=generated)
        write_arm(tmp_path, "b", 0.7, corpus=corpus, generated=generated)
    found = {kind: verdict for _, kind, verdict, _ in ledger(tmp_path).verdicts()}
    assert found == {"generated": "supported", "real": "contradicted"}
    assert all(each.tests_in_family == 1 for each in ledger(tmp_path).rows)


def test_a_metric_a_task(tmp_path):
    label = np.tile([0, 1], 40)
    for arm, right in (("a", 0.9), ("b", 0.55)):
        for seed in range(6):
            chance = np.random.default_rng(seed + number_of(arm)).normal(right, 0.2, 80).clip(0, 1)
            p1 = np.where(label == 1, chance, 1 - chance)
            write(tmp_path, arm, seed, classes(label, np.stack([1 - p1, p1], 1), ["no", "yes"]), corpus="mini-memes")
        write_arm(tmp_path, arm, 1.0 - right / 2)
    both = {"metric": {"regression": "mae", "classification": "auroc"}}
    found = {each.corpus: each for each in ledger(tmp_path, both).rows}
    assert [(each.measure, each.direction) for each in found.values()] == [("auroc", "up"), ("mae", "down")]
    assert {each.verdict for each in found.values()} == {"supported"}
    alone = {each.corpus: each for each in ledger(tmp_path).rows}
    assert alone["mini-memes"].reason == "the claim has no metric for classification"
    assert alone["mini-mosi"].verdict == "supported"


def test_a_claim_of_several_comparisons_and_holm_in_its_family(tmp_path):
    for arm, error in (("a", 0.5), ("b", 0.8), ("c", 0.503), ("d", 0.3)):
        write_arm(tmp_path, arm, error)
    pairs = {other: {"a": "a", "b": other} for other in "bcd"}
    found = ledger(tmp_path, {"comparisons": {"b": pairs["b"]}}, {"id": "two", "comparisons": pairs})
    (_, _, first, _), (_, _, second, rows) = found.verdicts()
    assert (first, second) == ("supported", "contradicted")
    assert [each.verdict for each in rows] == ["supported", "not distinguishable at this n", "contradicted"]
    assert {each.tests_in_family for each in rows} == {4}
    assert rows[1].p_corrected == pytest.approx(rows[1].p)  # the largest p of the family stays as it is
    assert claims.together(["supported", claims.UNTESTED]) == "supported"
    assert claims.together(["supported", claims.OPEN]) == claims.OPEN
    assert claims.together([claims.UNTESTED]) == claims.UNTESTED


def test_not_worse_by_a_margin(tmp_path):
    write_arm(tmp_path, "a", 0.51)
    write_arm(tmp_path, "b", 0.5)
    found = row(tmp_path, {"margin": 0.1})
    assert (found.verdict, found.null) == ("supported", 0.1)  # for an error, worse is higher
    write_arm(tmp_path, "a", 0.8)
    assert row(tmp_path, {"margin": 0.1}).verdict == "contradicted"


def test_a_lead_beyond_another_lead(tmp_path):
    shares = (
        ("a5", "a", 5, 0.5),
        ("b5", "b", 5, 0.9),
        ("a25", "a", 25, 0.45),
        ("a100", "a", 100, 0.4),
        ("b100", "b", 100, 0.45),
    )
    for arm, like, share, error in shares:
        write_arm(tmp_path, arm, error, like=like, protocol={"share": share})
    last = {arm: {"last": {"arms": [f"{arm}5", f"{arm}100"], "by": "share"}} for arm in "ab"}
    pair = {"a": "a5", "b": "b5", "beyond": last}
    found = row(tmp_path, {"comparisons": {"few": pair}})
    assert found.effect == pytest.approx((0.5 - 0.9) - (0.4 - 0.45), abs=0.05)
    assert (found.verdict, found.b) == ("supported", "a100 (last) over b100 (last)")


@pytest.mark.parametrize(("first", "second", "wanted"), [(0.01, 0.4, "supported"), (0.4, 0.01, "contradicted"),
                                                         (0.1, 0.1, "not distinguishable at this n")])  # fmt: skip
def test_steadiness_over_seeds_has_its_own_test(tmp_path, first, second, wanted):
    write_arm(tmp_path, "a", 2.0, jitter=first, seeds=12)
    write_arm(tmp_path, "b", 2.0, jitter=second, seeds=12)
    found = row(tmp_path, {"test": "spread"})
    assert found.verdict == wanted
    assert (found.effect < 0.4, found.effect > 2.5) == (wanted == "supported", wanted == "contradicted")
    assert 1.5 < found.detectable < 6


def test_costs_are_ratios_and_counts_decide_by_themselves(tmp_path):
    write_arm(
        tmp_path, "a", 0.5, measurements={"flops_per_sample": 10}, runtime=lambda seed: {"epoch_seconds": [1.0 + seed]}
    )
    write_arm(
        tmp_path, "b", 0.5, measurements={"flops_per_sample": 40}, runtime=lambda seed: {"epoch_seconds": [1.0 + seed]}
    )
    pairs = {name: {"a": "a", "b": "b", "value": name} for name in ("flops_per_sample", "time", "epoch_seconds")}
    flops, time, seconds = ledger(tmp_path, {"test": "ratio", "comparisons": pairs}).rows
    assert (flops.effect, flops.p, flops.verdict) == (pytest.approx(0.25), None, "supported")
    assert (time.verdict, time.reason) == (claims.UNTESTED, "time was not measured")
    assert (seconds.effect, seconds.verdict) == (pytest.approx(1.0), "not distinguishable at this n")
    assert seconds.detectable > 1


def test_a_time_that_one_run_lacks_is_no_test_but_a_count_needs_one_run_only(tmp_path):
    pairs = {name: {"a": "a", "b": "b", "value": name} for name in ("total_parameters", "epoch_seconds")}
    for arm, size in (("a", 20), ("b", 10)):
        write_arm(tmp_path, arm, 0.5)
        write_arm(tmp_path, arm, 0.5, seeds=1, measurements={"total_parameters": size},
                  runtime=lambda seed: {"epoch_seconds": [1.0]})  # fmt: skip
    parameters, time = ledger(tmp_path, {"test": "ratio", "comparisons": pairs}).rows
    assert (parameters.effect, parameters.verdict) == (pytest.approx(2.0), "contradicted")
    assert (time.reason, time.verdict) == ("epoch_seconds was not measured in every run", claims.UNTESTED)


def test_what_is_measured_is_counted_or_timed(tmp_path):
    write_arm(tmp_path, "a", 0.5, seeds=1, runtime=lambda seed: {"epoch_seconds": [9.0, 1.0, 2.0]},
              measurements={"flops_per_sample": 3})  # fmt: skip
    (run,) = read_runs(tmp_path)
    assert [claims.measured(run, name) for name in ("epoch_seconds", "flops_per_sample")] == [2.0, 3.0]
    assert np.isnan([claims.measured(run, "roughness"), claims.measured(run, "other")]).all()


def test_roughness_of_the_validation_loss(tmp_path):
    def losses(step):
        return lambda seed: [{"valid_loss": 1 + (step + 0.01 * seed) * (epoch % 2)} for epoch in range(6)]

    write_arm(tmp_path, "a", 0.5, history=losses(0.1))
    write_arm(tmp_path, "b", 0.5, history=losses(0.5))
    assert claims.measured(next(iter(read_runs(tmp_path))), "roughness") == pytest.approx(0.1)
    pairs = {"r": {"a": "a", "b": "b", "value": "roughness"}}
    assert row(tmp_path, {"test": "ratio", "comparisons": pairs}).verdict == "supported"


def test_arms_by_facts_of_their_records(tmp_path):
    for layer, valid in ((0, 0.1), (2, 0.6), (3, 0.4), (10, 0.3)):
        write_arm(tmp_path, f"x{layer}", 0.5, seeds=1, valid=valid, layers={"text": layer}, group="Single layer")
    write_arm(tmp_path, "variant", 0.5, seeds=1, valid=0.01, layers={"text": 4}, group="Single layer", like="x3")
    write_arm(tmp_path, "other", 0.5, seeds=1, valid=0.01, layers={"audio": 2}, group="Single layer")
    write_arm(tmp_path, "mixed", 0.5, seeds=1, valid=0.2, layers={"text": "all"}, group="All layers")
    runs = read_runs(tmp_path)

    def resolve(role, **facts):
        return claim_facts.resolve(runs, claim_facts.Role(**{role: claim_facts.Selection(**facts)}), "mae")

    text = {"group": "Single layer", "encoders": "text"}
    roles = {role: resolve(role, **text) for role in ("chosen", "intermediate", "last")}
    assert roles == {"chosen": "x0", "intermediate": "x3", "last": "x10"}
    assert resolve("last", group="Single layer", encoders="audio") is None  # a single one is not the last
    assert resolve("chosen", group="Single layer", encoders="audio") == "other"
    assert resolve("chosen", group="Nothing") is None
    assert (resolve("last", encoders="text"), resolve("last", encoders="bert")) == ("x10", None)
    assert resolve("chosen", arms=["mixed", "x2"]) == "mixed"
    assert resolve("chosen", arms=["variant", "x2"], encoders="text") == "variant"
    assert claim_facts.resolve(runs, "x2", "mae") == "x2"
    assert claim_facts.resolve(runs, "x1", "mae") is None


def test_alternatives_are_taken_where_all_their_arms_were_run(tmp_path):
    three = {"comparisons": {"t": {"a": ["a3", "a2", "a1"], "b": ["b3", "b2", "b1"]}}}
    for arm in ("a3", "a2", "b2", "a1", "b1"):
        write_arm(tmp_path, arm, 0.5)
    found = row(tmp_path, three)
    assert (found.a, found.b, found.reason) == ("a2", "b2", "")
    write_arm(tmp_path, "b3", 0.5)
    assert row(tmp_path, three).b == "b3"
    assert row(tmp_path, {"comparisons": {"t": {"a": ["x", "y"], "b": "a1"}}}).reason == "not run here: x"
    with pytest.raises(ValueError, match="lists of arms on both sides are alternatives and want one length"):
        claim_facts.claims_of(paper(claims=[claim(comparisons={"t": {"a": ["x", "y"], "b": ["z"]}})]))


def test_the_same_arm_on_both_sides_is_no_test(tmp_path):
    write_arm(tmp_path, "x1", 0.5, layers={"text": 1})
    write_arm(tmp_path, "x2", 0.5, valid=0.1, layers={"text": 2})
    write_arm(tmp_path, "again", 0.5, same_as="x1", group="Other")
    layers = {"encoders": "text"}
    pair = {"a": {"chosen": layers}, "b": {"last": layers}}
    assert row(tmp_path, {"comparisons": {"text": pair}}).reason == "both sides are the same arm"
    assert row(tmp_path, {"comparisons": {"x": {"a": "x1", "b": "again"}}}).reason == "both sides are one training"


def test_the_files(tmp_path):
    items = [{}, {"id": "two", "comparisons": {"none": {"a": "a", "b": "nowhere"}}}]
    write_arm(tmp_path, "a", 0.5)
    write_arm(tmp_path, "b", 0.8)
    known = stating(*items)
    texts = claims_text.texts(ledger(tmp_path, *items), known)
    assert texts == claims_text.texts(ledger(tmp_path, *items), known)
    data = json.loads(texts["claims.json"])
    assert (data["profile"], data["alpha"], data["metric_version"]) == ("mini-full", 0.05, 1)
    assert [item["verdict"] for item in data["claims"]] == ["supported", "not testable here"]
    first = data["claims"][0]["comparisons"][0]
    assert set(first) >= {"effect", "low", "high", "n_runs", "n_segments", "p", "p_corrected", "detectable", "verdict"}
    page = texts["claims.md"]
    assert "**A is better.** → **supported**" in page
    assert "Source: abstract [P]." in page
    shown = f"{first['effect']:+.3f} [{first['low']:.3f}, {first['high']:.3f}]"
    assert f"| mini-mosi | plain: a vs b | MAE ↓     | {shown}" in page
    assert "10+10 seeds, 240 segments, 30 videos" in page
    assert "Not run here: none (mini-mosi)." in page
    lines = claims_text.lines(ledger(tmp_path, *items, profile="mini"))
    assert "mini has too few seeds" in lines[0]
    assert "  NOT TESTABLE HERE" in lines
    assert claims_text.texts(claims.ledger(read_runs(tmp_path), {"kim2022": paper()}, "mini"), known) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tset": "spread"}, "no field 'tset'"), ({"test": "z"}, "'test' should be 'difference', 'spread' or 'ratio'"),
     ({"metric": "acc"}, "no metric is called 'acc'"), ({"kinds": ["real"]}, "no field 'kinds'"),
     ({"comparisons": {"x": {"a": "a"}}}, r"field 'comparisons\.x\.b' is missing"),
     ({"comparisons": {"x": {"a": "a", "b": {"best": {"group": "l"}}}}}, "an arm: no field 'best'"),
     ({"comparisons": {"x": {"a": "a", "b": {"last": {"layer": 3}}}}}, r"no field 'last\.layer'"),
     ({"comparisons": {"x": {"a": "a", "b": {"last": {}, "chosen": {}}}}}, "one of chosen, intermediate, last"),
     ({"test": "ratio"}, "'value' goes with a ratio"), ({"comparisons": {}}, "at least 1 item"),
     ({"seeds": 1}, "field 'seeds' should be greater than or equal to 2")],
)  # fmt: skip
def test_faults_in_the_yaml_are_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        claim_facts.claims_of(paper(claims=[claim(**changes)]))
    assert str(caught.value).startswith("kim2022/paper.yaml, claim 1 (one): ")
    with pytest.raises(ValueError, match=r"claim 1 \(without id\): field 'id' is missing"):
        claim_facts.claims_of(paper(claims=[{k: v for k, v in claim().items() if k != "id"}]))


# --- the papers' own claims ---------------------------------------------------------------------------------------

LEAST = {
    "ando2022": {"pretrained-beats-conventional", "intermediate-beats-output", "weighted-beats-best"},
    "toledo2022": {"joint-beats-frozen", "joint-beats-each-modality", "joint-matches", "joint-costs-less",
                   "gain-largest-in-low-resource"},
    "kim2022": {"shift-beats-text", "context-beats-word", "contrast-helps", "steadier-over-seeds"},
}  # fmt: skip


@pytest.mark.parametrize("name", LEAST)
def test_each_paper_states_its_claims_with_their_sources_and_of_arms_that_it_has(name):
    known = papers.load(name)
    found = {stated.id: stated for stated in claim_facts.claims_of(known)}
    assert len(found) == len(known.facts["claims"])
    assert LEAST[name] <= set(found)
    for stated in found.values():
        assert stated.sentence.endswith(".")
        assert any(f"[{tag}]" in stated.source for tag in "PCSI?"), stated.source
        for pair in stated.comparisons.values():
            for sides in pair.alternatives():
                # Arms on parts of the training data are made by the recipe.
                assert {side.partition(".share-")[0] for side in sides if isinstance(side, str)} <= set(known.arms)
                groups = {side.selection.group for side in sides if not isinstance(side, str)} - {None}
                assert groups <= {arm.group for arm in known.arms.values()}


def test_the_command_prints_and_writes_and_keeps_the_manifest_true(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "load_all", lambda: stating({}))
    root = tmp_path / "mini-full"
    write_arm(root / "runs", "a", 0.5)
    write_arm(root / "runs", "b", 0.8)
    manifest.write_manifest(root, "mini-full")
    done = CliRunner().invoke(cli.app, ["claims", str(root)])
    assert done.exit_code == 0
    assert "kim2022, generated data: A is better.\n  SUPPORTED\n" in done.output
    assert json.loads((root / "claims.json").read_text())["claims"][0]["verdict"] == "supported"
    listed = json.loads((root / "manifest.json").read_text())["files"]
    assert listed["claims.md"] == sha256_of(root / "claims.md")
    assert listed == manifest.hashes(root)
    before = (root / "manifest.json").stat().st_mtime_ns
    CliRunner().invoke(cli.app, ["claims", str(root)])
    assert (root / "manifest.json").stat().st_mtime_ns == before, "nothing new, nothing written"
