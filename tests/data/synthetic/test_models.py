"""The generating models, on cues alone: the posteriors are exact, and each modality is useful but not enough."""

import numpy as np
import pandas as pd
import pytest

from msakit.data.synthetic import mini_memes, mini_posts, mosi_model
from msakit.data.synthetic.lexicon import SLOTS
from msakit.data.synthetic.scenes import EXPRESSIONS, LIGHTS, WEATHERS


@pytest.fixture(scope="module")
def mosi() -> pd.DataFrame:
    segments = mosi_model.sample_segments("test", 1500, seed=11)
    return pd.DataFrame(
        [{"s": s.sentiment, "kind": s.kind, "words": len(s.words)} | mosi_model.posterior_means(s) for s in segments]
    )


def test_mosi_oracle_beats_single_modalities_which_beat_a_constant(mosi: pd.DataFrame) -> None:
    error = {c: (mosi[c] - mosi["s"]).abs().mean() for c in mosi if c.startswith("prediction")}
    constant = (mosi["s"] - mosi["s"].median()).abs().mean()
    singles = [error["prediction_text"], error["prediction_audio"], error["prediction_vision"]]
    assert 0.35 < error["prediction"] < 0.5
    assert error["prediction"] + 0.15 < min(singles)
    assert max(singles) + 0.2 < constant
    corr = mosi.drop(columns="kind").corr()["s"]
    assert 0.68 < corr["prediction_text"] < 0.80
    assert 0.55 < corr["prediction_audio"] < 0.75
    assert 0.55 < corr["prediction_vision"] < 0.75


def test_mosi_posterior_mean_is_calibrated(mosi: pd.DataFrame) -> None:
    # E[s | prediction] = prediction for a true posterior mean: the regression of s on it has slope 1 and intercept 0.
    for column in ("prediction", "prediction_text", "prediction_audio", "prediction_vision"):
        slope, intercept = np.polyfit(mosi[column], mosi["s"], 1)
        assert slope == pytest.approx(1.0, abs=0.09)
        assert intercept == pytest.approx(0.0, abs=0.1)


def test_mosi_kinds_need_tone_and_face(mosi: pd.DataFrame) -> None:
    ambiguous, sarcastic = mosi[mosi["kind"] == "ambiguous"], mosi[mosi["kind"] == "sarcastic"]
    assert ambiguous["prediction_text"].abs().max() < 1e-9  # the sign is open
    assert ambiguous["prediction"].corr(ambiguous["s"]) > 0.75
    assert sarcastic["prediction_text"].corr(sarcastic["s"]) < -0.5
    assert set(mosi["kind"]) == set(mosi_model.KIND_SHARE)
    assert mosi["words"].between(6, 13).all()


def test_mosi_one_word_says_less_than_all() -> None:
    segments = mosi_model.sample_segments("valid", 600, seed=2)
    s = np.array([x.sentiment for x in segments])
    one = np.corrcoef([x.tone[2].sum() for x in segments], s)[0, 1]
    whole = np.corrcoef([x.tone.mean() for x in segments], s)[0, 1]
    frame = np.corrcoef([x.face[3].sum() for x in segments], s)[0, 1]
    clip = np.corrcoef([x.face.mean() for x in segments], s)[0, 1]
    assert one + 0.2 < whole
    assert frame + 0.08 < clip


def test_mosi_cue_likelihood_is_the_gaussian_one() -> None:
    from scipy.stats import multivariate_normal

    segment = mosi_model.sample_segments("train", 3, seed=4)[2]
    n = len(segment.tone)
    covariance = mosi_model.TONE_COMMON**2 * np.ones((n, n)) + mosi_model.TONE_WORD**2 * np.eye(n)
    score = np.array([
        sum(multivariate_normal.logpdf(segment.tone[:, j], np.full(n, s), covariance) for j in range(4))
        for s in mosi_model.GRID
    ])  # fmt: skip
    p = mosi_model.PRIOR * np.exp(score - score.max())
    expected = float(mosi_model.GRID @ p / p.sum())
    assert mosi_model.posterior_means(segment)["prediction_audio"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["ADJ", "VERB", "AMB"])
def test_phrase_probabilities(name: str) -> None:
    p = SLOTS[name].probabilities(np.array([-2.0, 0.0, 2.0]), 0.6)
    assert p.sum(axis=1) == pytest.approx(1.0)
    mean = p @ SLOTS[name].valence
    assert mean[0] < mean[1] < mean[2]


def _accuracy(found: list[dict[str, np.ndarray]], labels: np.ndarray, view: str) -> float:
    return float(np.mean(np.stack([f[view] for f in found]).argmax(axis=1) == labels))


def test_posts_oracle_and_single_modalities() -> None:
    posts = mini_posts.sample_posts("test", 2500, seed=5)
    labels = np.array([p.label for p in posts])
    found = [mini_posts.posterior(p) for p in posts]
    assert 0.85 < _accuracy(found, labels, "") < 0.92
    assert 0.70 < _accuracy(found, labels, "text_") < 0.80
    assert 0.62 < _accuracy(found, labels, "image_") < 0.75
    p = np.stack([f[""] for f in found])
    assert p.sum(axis=1) == pytest.approx(1.0)
    assert p.mean(axis=0) == pytest.approx(np.bincount(labels) / len(labels), abs=0.03)  # calibrated on the whole
    disagree = np.mean([x.text_label != x.image_label for x in posts])
    assert 0.3 < disagree < 0.5


def test_posts_tables_are_distributions() -> None:
    for table in (mini_posts.TAG_GIVEN, mini_posts.WEATHER_GIVEN, mini_posts.LIGHT_GIVEN, mini_posts.EXPRESSION_GIVEN):
        assert table.sum(axis=1) == pytest.approx(1.0)
    assert mini_posts.JOINT.sum(axis=(1, 2)) == pytest.approx(1.0)
    assert mini_posts.PRIOR.sum() == pytest.approx(1.0)


def test_memes_are_an_exclusive_or() -> None:
    memes = mini_memes.sample_memes("test", 3000, seed=6)
    label = np.array([m.label for m in memes])
    a = np.array([m.text_polarity for m in memes])
    b = np.array([m.image_polarity for m in memes])
    assert np.mean(label == (a ^ b)) == pytest.approx(1 - mini_memes.FLIP, abs=0.012)
    for side in (a, b):  # neither tells the class, within the noise of 1500 coins
        assert label[side == 0].mean() == pytest.approx(0.5, abs=0.045)
        assert label[side == 1].mean() == pytest.approx(0.5, abs=0.045)
    found = [mini_memes.posterior(m) for m in memes]
    assert 0.91 < _accuracy(found, label, "") < 0.95
    for view in ("text_", "image_"):
        assert np.stack([f[view] for f in found]) == pytest.approx(0.5)


def test_meme_posterior_by_hand() -> None:
    meme = mini_memes.sample_memes("train", 1, seed=0)[0]
    noise = [mini_memes.WORD_NOISE, mini_memes.WORD_NOISE, *mini_memes.VIEW_NOISE]
    weight = np.zeros(2)
    for a in (0, 1):
        for b in (0, 1):
            truths = [a, a, b, b, b]
            cues = [*meme.word_cues, *meme.view_cues]
            p = np.prod([1 - e if c == t else e for c, t, e in zip(cues, truths, noise, strict=True)])
            for y in (0, 1):
                weight[y] += p * ((1 - mini_memes.FLIP) if y == (a ^ b) else mini_memes.FLIP)
    assert mini_memes.posterior(meme)[""] == pytest.approx(weight / weight.sum())


def test_scene_values_of_the_memes_are_scene_values() -> None:
    cues = (mini_memes.WEATHER, mini_memes.LIGHT, mini_memes.EXPRESSION)
    for cue, values in zip(cues, (WEATHERS, LIGHTS, EXPRESSIONS), strict=True):
        assert sorted(cue[0] + cue[1]) == sorted(values)
