"""Nothing reads an arm's name: with other names in records and facts alike, reports are the same up to the names."""

import random
import string

import numpy as np
import pandas as pd
from small_runs import paper, regression, write

from msakit.reporting import claims_text, figures, tables
from msakit.reporting.claims import ledger
from msakit.reporting.contract import PUBLISHED_COLUMNS
from msakit.runs.store import read_runs

LABEL = np.linspace(-2, 2, 24)
VIDEOS = [f"v{index // 4}" for index in range(24)]
# Names that say something of what the arm is, and what it is.
ARMS = {
    "layer0-text": {"layers": {"text": 0}, "group": "Single layer", "error": 0.7},
    "layer1-text": {"layers": {"text": 1}, "group": "Single layer", "error": 0.4},
    "layer10-text": {"layers": {"text": 10}, "group": "Single layer", "error": 0.5},
    "best-text-audio": {"layers": {"text": 1, "audio": 3}, "group": "Best", "error": 0.3},
    "best-text-audio.concat": {"layers": {"text": 1, "audio": 3}, "group": "Best", "error": 0.6},
    "joint.share-5": {"protocol": {"share": 5}, "error": 0.9, "like": "joint"},
    "joint.share-100": {"error": 0.2, "like": "joint"},
    "joint.only-stop": {"protocol": {"name": "as_published_stop", "stop": "test"}, "error": 0.25},
    "cms-clr-smooth.lambda-0.3": {"error": 0.45, "settings": {"epochs": 3}},
    "late-fusion@wide": {"error": 0.35, "like": "layer0-text"},
}
UNLISTED = "late-fusion@wide"


def reports(root, names):
    """Every text that reports make of the same runs under those names."""
    for place, (arm, given) in enumerate(ARMS.items()):
        changes = {name: value for name, value in given.items() if name != "error"}
        changes["like"] = names.get(changes.get("like"), changes.get("like"))
        for seed in range(3):
            generator = np.random.default_rng(100 * place + seed)
            splits = [regression(LABEL, LABEL + given["error"] * generator.normal(size=24), split, video_id=VIDEOS)
                      for split in ("valid", "test")]  # fmt: skip
            title = f"Title {place}"
            write(root, names[arm], seed, pd.concat(splits), corpus="cmu_mosi", generated=False, title=title, **changes)
    layers = {"group": "Single layer", "encoders": "text"}
    shares = {"arms": [names["joint.share-5"], names["joint.share-100"]], "by": "share"}
    pairs = {
        "layers": {"a": {"intermediate": layers}, "b": {"last": layers}},
        "chosen": {"a": {"chosen": layers}, "b": names["best-text-audio"]},
        "shares": {"a": {"last": shares}, "b": names["joint.share-5"]},
        "several": {"a": ["gone", names["layer0-text"]], "b": ["gone", names["joint.only-stop"]]},
    }
    claim = {"id": "c", "sentence": "A.", "source": "here [P]", "metric": "mae", "family": "f", "seeds": 2}
    known = paper(
        values=pd.DataFrame([("cmu-mosi", "row", "mae", 0.5, "s", "C", "n")], columns=PUBLISHED_COLUMNS),
        arms={
            names[arm]: {"title": f"Title {place}", "model": "gated"}
            for place, arm in enumerate(ARMS)
            if arm != UNLISTED
        },
        published={"row": "Published"},
        published_beside={names["best-text-audio"]: "row"},
        claims=[claim | {"comparisons": pairs}],
    )
    runs = read_runs(root)
    table = known.tables(runs)["cmu_mosi"]
    found = claims_text.texts(ledger(runs, {known.name: known}, "real"), {known.name: known})
    figure, data = figures.arm_figure(runs, known, "mae")
    order = [tick.get_text() for axes in figure.axes for tick in axes.get_yticklabels()]
    data = data.sort_values(["value"]).to_csv(index=False)
    return [tables.to_csv(table), tables.to_markdown(table), *found.values(), data, "\n".join(order)]


def test_reports_are_the_same_under_other_names(tmp_path):
    plain = {arm: arm for arm in ARMS}
    letters = random.Random(0)
    others = {arm: "".join(letters.choices(string.ascii_lowercase, k=len(arm))) for arm in ARMS}
    # Names that would say something else.
    others["layer0-text"], others["best-text-audio"] = "layer7-audio", "oracle2.share-50"
    assert len(set(others.values())) == len(ARMS)
    before, after = reports(tmp_path / "x", plain), reports(tmp_path / "y", others)
    assert len(before) == 6
    for one, two in zip(before, after, strict=True):
        for arm in sorted(ARMS, key=len, reverse=True):
            one, two = (
                one.replace(arm, f"<{list(ARMS).index(arm)}>"),
                two.replace(others[arm], f"<{list(ARMS).index(arm)}>"),
            )
        # Columns of Markdown are as wide as their names.
        assert [" ".join(line.split()) for line in two.replace("-", "").splitlines()] == [
            " ".join(line.split()) for line in one.replace("-", "").splitlines()
        ]
    # Each kind of comparison was really resolved, by facts alone.
    assert "not run here" not in before[2]
    assert "<1> (intermediate, chosen on validation)" in str(before[3].replace("layer1-text", "<1>"))
