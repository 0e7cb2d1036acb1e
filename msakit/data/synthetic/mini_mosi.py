"""mini-mosi: generated monologue segments with transcript, word timings, speech-like sound and a talking face.

`mosi_model` documents what is drawn (prior, likelihoods, noise levels) and computes the best possible prediction;
this file renders it: `speech` turns words and tone into 16 kHz wav, `face_drawing` turns face cues into 128 x 128
frames, six a second, in mp4. Labels are in [-3, 3]. Speakers (video_id) occur in one split only. `kind` says plain,
ambiguous or sarcastic. `oracle.csv` holds E[s | all cues] as prediction, and prediction_text / _audio / _vision from
one modality each.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from msakit.data.media import write_audio, write_video
from msakit.data.synthetic import mosi_model
from msakit.data.synthetic.face_drawing import draw_face
from msakit.data.synthetic.generated import checked_sizes, write_description, write_oracle, write_table
from msakit.data.synthetic.mosi_model import FACE_SCALE, FPS, Segment, posterior_means, prosody, sample_segments
from msakit.data.synthetic.speech import RATE, synthesize

NAME = "mini-mosi"
SIZES = {"train": 640, "valid": 160, "test": 320}
TASK = {"kind": "regression", "low": -3, "high": 3}
DESCRIPTION = (
    "Generated monologue segments: sentiment in [-3, 3] shows, noisily, in words, tone of voice and face; some words "
    "are ambiguous, some segments sarcastic. Model: msakit.data.synthetic.mosi_model. Not recordings of people."
)


def generate(folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> None:
    """Write the corpus into `folder`; one seed and sizes always give the same bytes of csv and wav."""
    chosen = checked_sizes(sizes, SIZES)
    segments = [s for split, count in chosen.items() for s in sample_segments(split, count, seed)]
    rows, words, oracle = [], [], []
    for segment in tqdm(segments, desc=NAME, unit="segment"):
        row, timings = render(segment, folder)
        rows.append(row)
        words += timings
        oracle.append({"segment_id": segment.segment_id} | posterior_means(segment))
    write_table(folder / "segments.csv", rows, {"label": ".1f"})
    write_table(folder / "words.csv", words, {"start": ".4f", "end": ".4f"})
    write_oracle(folder, oracle)
    write_description(folder, NAME, TASK, DESCRIPTION, seed, mosi_model.__doc__ or "")


def render(segment: Segment, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write one segment's wav and mp4; returns its rows of segments.csv and of words.csv."""
    audio, video = f"audio/{segment.segment_id}.wav", f"video/{segment.segment_id}.mp4"
    for path in (audio, video):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(segment.render_seed)
    samples, spans = synthesize(list(segment.words), segment.speaker.voice, prosody(segment.tone), rng)
    write_audio(folder / audio, samples, RATE)
    write_video(folder / video, draw_frames(segment, rng), FPS)
    timings = [
        {"segment_id": segment.segment_id, "word_index": k, "word": word, "start": start, "end": end}
        for k, (word, (start, end)) in enumerate(zip(segment.words, spans, strict=True))
    ]
    row = {
        "segment_id": segment.segment_id, "video_id": segment.video_id, "clip_id": segment.clip_id,
        "split": segment.split, "label": segment.sentiment, "text": " ".join(segment.words),
        "audio": audio, "video": video, "kind": segment.kind,
    }  # fmt: skip
    return row, timings


def draw_frames(segment: Segment, rng: np.random.Generator) -> UInt8[np.ndarray, "frames size size 3"]:
    """The talking head: expressions from the cues, and a head that sways a little (pure nuisance)."""
    count = len(segment.face)
    t = np.arange(count) / FPS
    phases = rng.uniform(0, 2 * np.pi, 3)
    sway = [a * np.sin(2 * np.pi * f * t + p) for a, f, p in zip((2.0, 1.2, 1.5), (0.4, 0.7, 0.3), phases, strict=True)]
    shown = np.tanh(segment.face / FACE_SCALE)
    frames = []
    for (brow, eye, mouth), (x, y, roll) in zip(shown.tolist(), np.stack(sway, axis=1).tolist(), strict=True):
        frames.append(draw_face(segment.speaker.face, brow, eye, mouth, (x, y), roll))
    return np.stack(frames)
