"""A small source-filter synthesizer: words become speech-like sound whose pitch, level, glide and length can be set.

After Fant's acoustic theory (source, filter, radiation): glottal pulses at the pitch F0 run through three formant
resonators that depend on the letters; fricatives are filtered noise, plosives a closure and a burst. The result is
not intelligible, but letters have stable spectra, so that a speech encoder has phones, words and voices to learn
from.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RATE = 16000  # samples a second
FLOOR_DB = -33.0  # level of an ordinary word, dB of full scale (rms); leaves room for loud words
# First three formants in Hz for an average voice.
_VOWELS = {
    "a": (730, 1300, 2500), "e": (530, 1840, 2480), "i": (310, 2250, 2950), "o": (520, 900, 2420),
    "u": (330, 900, 2250), "y": (360, 2050, 2700),
}  # fmt: skip
_SONORANTS = {
    "m": (280, 1000, 2200), "n": (290, 1600, 2500), "l": (380, 1150, 2700), "r": (420, 1250, 1650),
    "w": (320, 700, 2200), "j": (300, 2150, 2900), "v": (260, 1250, 2300),
}  # fmt: skip
_FRICATIVES = {"s": 5600.0, "z": 5200.0, "f": 3800.0, "h": 1500.0, "c": 4200.0, "x": 4700.0}  # centre of the noise, Hz
_PLOSIVES = {"p": 900.0, "b": 700.0, "t": 4000.0, "d": 3300.0, "k": 2000.0, "g": 1700.0, "q": 1900.0}


@dataclass(frozen=True)
class Voice:
    """A speaker's voice: F0 in Hz, tract scale (multiplies the formants), level in dB, pace, breath."""

    pitch: float
    tract: float
    level: float
    pace: float
    breath: float


@dataclass(frozen=True)
class Prosody:
    """Prosody of one word: pitch and glide over the word in semitones, level in dB, log length; all relative."""

    pitch: float
    glide: float
    level: float
    stretch: float


def word_seconds(word: str, voice: Voice, prosody: Prosody) -> float:
    """Length of a word in seconds: 0.07 and 0.042 a letter, stretched; never under 0.08 or over 0.9."""
    plain = 0.07 + 0.042 * sum(c.isalpha() for c in word)
    return float(np.clip(plain * voice.pace * np.exp(prosody.stretch), 0.08, 0.9))


def synthesize(
    words: list[str], voice: Voice, prosody: list[Prosody], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "time"], Float[np.ndarray, "words 2"]]:
    """Samples at 16 kHz in [-0.99, 0.99], and each word's start and end in seconds; `rng` gives noise and pauses."""
    pieces = [np.zeros(int(0.06 * RATE))]
    spans = np.zeros((len(words), 2))
    at = len(pieces[0])
    for k, (word, how) in enumerate(zip(words, prosody, strict=True)):
        sound = _word(word, voice, how, rng)
        spans[k] = at / RATE, (at + len(sound)) / RATE
        pause = np.zeros(int(rng.uniform(0.008, 0.035) * RATE))
        pieces += [sound, pause]
        at += len(sound) + len(pause)
    pieces.append(np.zeros(int(0.05 * RATE)))
    samples = np.concatenate(pieces)
    samples = samples + 10 ** (-62 / 20) * rng.standard_normal(len(samples))
    return np.clip(samples, -0.99, 0.99), spans


def _word(word: str, voice: Voice, how: Prosody, rng: np.random.Generator) -> Float[np.ndarray, "time"]:
    from scipy.signal import sosfilt

    letters = [c for c in word.lower() if c.isalpha()] or ["a"]
    weights = np.array([2.0 if c in _VOWELS else 1.0 for c in letters])
    total = int(word_seconds(word, voice, how) * RATE)
    edges = np.round(np.concatenate([[0.0], np.cumsum(weights / weights.sum())]) * total).astype(int)
    # Pitch falls a little over every word; the glide tilts that. Jitter keeps the voice from sounding like a flute.
    along = np.linspace(-0.5, 0.5, total)
    semitones = how.pitch + (how.glide - 1.0) * along
    f0 = np.clip(voice.pitch * 2 ** (semitones / 12), 55, 600)
    phase = rng.uniform() + np.cumsum(f0) / RATE
    turn = phase % 1.0
    jitter = 1 + 0.06 * rng.standard_normal(int(phase[-1]) + 2)
    # Rosenberg's pulse, differentiated: a slow opening, a sharp closure, silence.
    pulse = np.where(turn < 0.4, np.sin(np.pi * turn / 0.4) * 0.5, np.where(turn < 0.56, -(turn - 0.4) / 0.16, 0.0))
    noise = rng.standard_normal(total)
    voiced = pulse * jitter[phase.astype(int)] + voice.breath * noise

    out = np.zeros(total)
    state = np.zeros((3, 2))
    for letter, start, stop in zip(letters, edges[:-1], edges[1:], strict=True):
        if stop - start < 2:
            continue
        if letter in _FRICATIVES or letter in _PLOSIVES:
            out[start:stop] = _consonant(letter, noise[start:stop], voiced[start:stop], voice.tract)
            state[:] = 0.0
        else:
            formants = _VOWELS.get(letter) or _SONORANTS.get(letter, (500, 1500, 2500))
            gain = 1.0 if letter in _VOWELS else 0.45
            sound, state = sosfilt(_resonators(formants, voice.tract), voiced[start:stop], zi=state)
            out[start:stop] = gain * sound
    fade = min(total // 4, int(0.015 * RATE))
    ramp = np.sin(np.linspace(0, np.pi / 2, fade)) ** 2
    out[:fade] *= ramp
    out[-fade:] *= ramp[::-1]
    loud = 10 ** ((FLOOR_DB + voice.level + how.level) / 20)
    return np.asarray(out * loud / np.sqrt(np.mean(out**2) + 1e-12))


def _resonators(formants: tuple[int, ...], tract: float) -> Float[np.ndarray, "3 6"]:
    """Klatt's digital resonators in series, one a formant, with unit gain at zero frequency."""
    sections = []
    for formant, width in zip(formants, (70.0, 100.0, 150.0), strict=True):
        radius = np.exp(-np.pi * width / RATE)
        b = 2 * radius * np.cos(2 * np.pi * min(formant * tract, 7600.0) / RATE)
        sections.append([1 - b + radius**2, 0, 0, 1, -b, radius**2])
    return np.array(sections)


def _consonant(letter: str, noise: np.ndarray, voiced: np.ndarray, tract: float) -> Float[np.ndarray, "time"]:
    from scipy.signal import sosfilt

    centre = {**_FRICATIVES, **_PLOSIVES}[letter] * tract
    radius = 0.86
    b = 2 * radius * np.cos(2 * np.pi * min(centre, 7400.0) / RATE)
    hiss = sosfilt(np.array([[1 - radius, 0, -(1 - radius), 1, -b, radius**2]]), noise)
    if letter in _FRICATIVES:
        return np.asarray(0.8 * hiss + (0.15 * voiced if letter == "z" else 0.0))
    n = len(noise)
    burst = np.where(np.arange(n) < 0.45 * n, 0.0, np.exp(-(np.arange(n) - 0.45 * n) / (0.15 * n)))
    return np.asarray(1.4 * hiss * burst + (0.12 * voiced if letter in "bdg" else 0.0))
