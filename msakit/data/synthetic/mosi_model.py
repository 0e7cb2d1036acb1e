"""The generating model of mini-mosi: how sentiment shows in words, tone and face, and the best possible prediction.

Sentiment s lies on the grid -3, -2.8, ..., 3 with prior p(s) ∝ exp(-s² / 2·1.9²). A segment is of one of three kinds,
drawn independently of s (`KIND_SHARE`):

    plain      its sentiment words are drawn from p(phrase | s), see `lexicon`
    sarcastic  its sentiment words are drawn from p(phrase | -s); tone and face still show s
    ambiguous  its sentiment words ("sick", "wild", ...) are drawn from p(phrase | |s|): the text tells only
               the strength

Templates, nouns and all other words are independent of s. σ of the phrases is `SIGMA_WORDS`.

Tone: every word, sentiment word or not, carries four cues (pitch, glide, level, quickness). Face: every frame carries
three (brow, eye, mouth). In units of s, cue j at word or frame t is

    x_tj = s + u_j + e_tj        u_j ~ N(0, TONE_COMMON²), constant over the segment; e: over words independent,
                                 N(0, TONE_WORD²); over frames a stationary AR(1) of sd FACE_FRAME,
                                 coefficient FACE_MEMORY

so that one word or one frame says little and the mean of the utterance says more. With Σ the covariance of a cue over
time, log p(x | s) = s·1ᵀΣ⁻¹x - s²/2·1ᵀΣ⁻¹1 + const: the posterior over the grid is a finite sum, with the kind summed
out where the text leaves it open (plain or sarcastic). It is given the cues as generated, before rendering, the
speaker's baselines, the template and the number of frames (whose length cue counts as tone).

Nuisances, one draw a speaker: pitch (and with it the vocal tract), level, pace, breath; appearance and background.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Float

from msakit.data.synthetic.face_drawing import Face, sample_face
from msakit.data.synthetic.generated import SPLIT_CODES, generator
from msakit.data.synthetic.lexicon import SLOTS, WORDS
from msakit.data.synthetic.speech import Prosody, Voice, word_seconds

GRID = np.round(np.arange(-15, 16) * 0.2, 1)
PRIOR = np.exp(-(GRID**2) / (2 * 1.9**2))
PRIOR = PRIOR / PRIOR.sum()
KIND_SHARE = {"plain": 0.79, "ambiguous": 0.13, "sarcastic": 0.08}
SIGMA_WORDS = 0.6
TONE_COMMON, TONE_WORD = 2.2, 7.5  # in units of s
FACE_COMMON, FACE_FRAME, FACE_MEMORY = 2.3, 5.0, 0.5
FPS = 6
# One unit of s in: semitones, semitones over the word, dB, log length (quick = positive).
TONE_GAIN = (0.40, 0.60, 0.55, -0.030)
FACE_SCALE = 7.0  # what is drawn is tanh(cue / FACE_SCALE)

_LOG_P = {name: np.log(slot.probabilities(GRID, SIGMA_WORDS)) for name, slot in SLOTS.items() if name != "AMB"}
_LOG_P["AMB"] = np.log(SLOTS["AMB"].probabilities(np.abs(GRID), SIGMA_WORDS))


@dataclass(frozen=True)
class Speaker:
    """The nuisances of one speaker."""

    voice: Voice
    face: Face


@dataclass(frozen=True)
class Segment:
    """Everything drawn for one segment before anything is rendered; the cues are in units of s."""

    segment_id: str
    video_id: str
    clip_id: int
    split: str
    sentiment: float
    kind: str
    words: tuple[str, ...]
    slots: tuple[tuple[str, int], ...]  # (kind of slot, index of the phrase)
    tone: Float[np.ndarray, "words 4"]
    face: Float[np.ndarray, "frames 3"]
    speaker: Speaker
    render_seed: int


def sample_segments(split: str, count: int, seed: int, corpus: str = "mm", corpus_code: int = 1) -> list[Segment]:
    """`count` segments of as many new speakers as needed (8 to 12 each); one split, corpus and seed give one list."""
    segments: list[Segment] = []
    number = 0
    while len(segments) < count:
        key = (corpus_code, SPLIT_CODES[split], number)
        rng = generator(seed, *key)
        speaker = sample_speaker(rng)
        for clip in range(1, 1 + int(rng.integers(8, 13))):
            child = generator(seed, *key, clip)
            segments.append(sample_segment(child, speaker, split, f"{corpus}-{split}-{number:03d}", clip))
        number += 1
    return segments[:count]


def sample_speaker(rng: np.random.Generator) -> Speaker:
    """High voices come with short vocal tracts, so that a listener can tell a high voice from a raised one."""
    height = rng.uniform(-1, 1)
    voice = Voice(
        pitch=160 * 2 ** (6 * height / 12),
        tract=1 + 0.11 * height + rng.normal(0, 0.01),
        level=rng.normal(0, 1.5),
        pace=float(np.exp(rng.normal(0, 0.08))),
        breath=rng.uniform(0.02, 0.10),
    )
    return Speaker(voice, sample_face(rng))


def sample_segment(rng: np.random.Generator, speaker: Speaker, split: str, video_id: str, clip_id: int) -> Segment:
    """Draw sentiment, kind, words and cues of one segment."""
    level = int(rng.choice(len(GRID), p=PRIOR))
    kind = str(rng.choice(list(KIND_SHARE), p=list(KIND_SHARE.values())))
    words, slots = sample_words(rng, level, kind)
    s = GRID[level]
    tone = s + rng.normal(0, TONE_COMMON, 4) + rng.normal(0, TONE_WORD, (len(words), 4))
    seconds = sum(word_seconds(w, speaker.voice, p) + 0.0215 for w, p in zip(words, prosody(tone), strict=True)) + 0.11
    face = s + rng.normal(0, FACE_COMMON, 3) + _autoregressive(rng, max(2, ceil(seconds * FPS)))
    return Segment(
        f"{video_id}_{clip_id}", video_id, clip_id, split, float(s), kind, words, slots, tone, face, speaker,
        int(rng.integers(2**31)),
    )  # fmt: skip


def sample_words(
    rng: np.random.Generator, level: int, kind: str
) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
    """Fill a template for the sentiment GRID[level]; returns the words and the filled slots."""
    templates = WORDS["ambiguous_reviews" if kind == "ambiguous" else "reviews"]
    meant = len(GRID) - 1 - level if kind == "sarcastic" else level
    words: list[str] = []
    slots: list[tuple[str, int]] = []
    nouns = iter(rng.permutation(len(WORDS["nouns"])))
    for token in str(rng.choice(templates)).split():
        if token == "N":
            words.append(WORDS["nouns"][next(nouns)])
        elif token in ("ADJ", "VERB"):
            slot = "AMB" if kind == "ambiguous" else token
            index = int(rng.choice(len(SLOTS[slot].texts), p=np.exp(_LOG_P[slot][meant])))
            slots.append((slot, index))
            words += SLOTS[slot].texts[index].split()
        else:
            words.append(token)
    return tuple(words), tuple(slots)


def prosody(tone: Float[np.ndarray, "words 4"]) -> list[Prosody]:
    """The cues of the words in the synthesizer's units."""
    return [Prosody(*(float(v) for v in row)) for row in tone * np.array(TONE_GAIN)]


def _autoregressive(rng: np.random.Generator, frames: int) -> Float[np.ndarray, "frames 3"]:
    noise = rng.normal(0, FACE_FRAME, (frames, 3))
    for t in range(1, frames):
        noise[t] = FACE_MEMORY * noise[t - 1] + np.sqrt(1 - FACE_MEMORY**2) * noise[t]
    return noise


def posterior_means(segment: Segment) -> dict[str, float]:
    """E[s | cues] from everything ("prediction") and from one modality each ("prediction_text", ...)."""
    text = log_likelihood_words(segment)
    n, t = len(segment.tone), len(segment.face)
    tone = _log_likelihood_cues(segment.tone, TONE_COMMON**2 + TONE_WORD**2 * np.eye(n))
    lags = np.abs(np.subtract.outer(np.arange(t), np.arange(t)))
    face = _log_likelihood_cues(segment.face, FACE_COMMON**2 + FACE_FRAME**2 * FACE_MEMORY**lags)
    scores = {"": text + tone + face, "_text": text, "_audio": tone, "_vision": face}
    means = {}
    for name, score in scores.items():
        p = PRIOR * np.exp(score - score.max())
        means[f"prediction{name}"] = float(GRID @ p / p.sum())
    return means


def log_likelihood_words(segment: Segment) -> Float[np.ndarray, "grid"]:
    """log p(words | s): ambiguous words give themselves away; otherwise plain and sarcastic are weighed and summed."""
    score = sum((_LOG_P[slot][:, index] for slot, index in segment.slots), np.zeros(len(GRID)))
    if segment.slots[0][0] == "AMB":
        return score
    return np.logaddexp(np.log(KIND_SHARE["plain"]) + score, np.log(KIND_SHARE["sarcastic"]) + score[::-1])


def _log_likelihood_cues(
    cues: Float[np.ndarray, "time cues"], covariance: Float[np.ndarray, "time time"]
) -> Float[np.ndarray, "grid"]:
    weight = np.linalg.solve(covariance, np.ones(len(cues)))
    return np.asarray(GRID * (weight @ cues).sum() - GRID**2 / 2 * weight.sum() * cues.shape[1])
