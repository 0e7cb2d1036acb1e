"""Extraction against the bare forward pass of the same models, and against going file by file.

Text, sound and video of a generated corpus with log-normal lengths (about 4 s, 14 words) go through BERT, WavLM and
CLIP models with random weights: full width (768; WavLM's 512 convolution channels) and 3 of the 12 layers of the base
models, so that it takes minutes on a CPU. Fewer layers make the rest weigh more: the full models can only do better.

`extraction-efficiency`: time of the bare forward passes, media read and batches made before, over that of `extract`,
which also decodes, finds faces and writes the store; both with oneDNN's products where they keep float32
(`msakit.process`).
`extraction-speedup`: time of a reference, written here from its description (one process; segments in listing order,
four at a time, padded to the longest of the four; of a video, its pictures four at a time; one float32 file a segment;
torch's default products and glibc's default allocator), over that of `extract`, both in float32. A CPU core is as busy
with four segments as with forty, so what is gained there is the padding (none for pictures) and, on processors that are
not Intel's, the library ("float32_by_onednn" in the detail says whether); on a GPU four segments leave most of it idle.
`extraction-speedup-bfloat16`: the same reference over `extract` with the encoders' option dtype: bfloat16.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from benchmarks import Result
from msakit import process
from msakit.data.corpus import Corpus, load_corpus
from msakit.data.media import write_audio, write_video
from msakit.data.synthetic.face_drawing import draw_face, sample_face
from msakit.encoders.audio import AudioEncoder
from msakit.encoders.pretrain.common import word_pieces
from msakit.encoders.text import TextEncoder, TokenIds
from msakit.encoders.vision import VisionEncoder
from msakit.features import _batches, extract

SEGMENTS = {"text": 160, "audio": 16, "vision": 12}
LAYERS = 3
ROUNDS = 3
WORDS = [
    "the",
    "a",
    "film",
    "was",
    "so",
    "good",
    "bad",
    "dull",
    "bright",
    "actor",
    "plot",
    "scene",
    "and",
    "then",
    "she",
    "he",
    "they",
    "said",
    "it",
    "me",
    "see",
    "again",
]


def run() -> list[Result]:
    """Both ratios over the three modalities together, with the parts a modality."""
    threads = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole, half = encoders(torch.float32), encoders(torch.bfloat16)
            parts = {name: _measure(Path(folder), name, whole[name], half[name]) for name in whole}
    finally:
        process.configure(threads=threads)
    total = {how: sum(part[how] for part in parts.values()) for how in ("extract", "half", "bare", "reference")}
    detail = {
        "seconds": {name: {how: round(value, 3) for how, value in part.items()} for name, part in parts.items()},
        "segments": SEGMENTS,
        "layers": LAYERS,
        "rounds": ROUNDS,
        "device": "cpu, one thread a model",
        "float32_by_onednn": process.onednn_keeps_float32(),
    }
    listed = "the throughput of going file by file, four at a time in listing order"
    compared = (
        ("extraction-efficiency", "bare", "extract", 0.9, "the bare forward pass's throughput on the same frames"),
        ("extraction-speedup", "reference", "extract", 2.0, listed),
        ("extraction-speedup-bfloat16", "reference", "half", 2.0, f"{listed}, in float32"),
    )
    results = []
    for name, other, ours, target, what in compared:
        by_modality = {modality: round(part[other] / part[ours], 3) for modality, part in parts.items()}
        ratio = total[other] / total[ours]
        results.append(Result(name, ratio, target, "up", what, {**detail, "by_modality": by_modality}))
    return results


def encoders(dtype: torch.dtype) -> dict[str, Any]:
    """Random models of full width, the same ones in each precision."""
    torch.manual_seed(0)
    tokenizer = word_pieces([" ".join(WORDS)], 200, 512)
    bert = BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=LAYERS))
    wavlm = WavLMModel(WavLMConfig(num_hidden_layers=LAYERS, feat_extract_norm="layer", do_stable_layer_norm=True))
    clip = CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=LAYERS))
    for model in (bert, wavlm, clip):
        model.requires_grad_(False).to(dtype)
    return {
        "text": TextEncoder(bert, tokenizer, "bert"),
        "audio": AudioEncoder(wavlm, Wav2Vec2FeatureExtractor(), "wavlm"),
        "vision": VisionEncoder(clip, CLIPImageProcessorPil(), "clip"),
    }


def corpus(folder: Path, modality: str, segments: int) -> Corpus:
    """Segments of log-normal length in files of the one modality."""
    rng = np.random.default_rng(0)
    seconds = np.clip(np.exp(rng.normal(np.log(3.4), 0.65, segments)), 0.7, 25)
    rows: list[dict[str, Any]] = []
    folder.mkdir(parents=True)
    for number, length in enumerate(seconds):
        words = rng.choice(WORDS, max(2, round(3.4 * length)))
        row = {"segment_id": f"s{number}", "video_id": f"v{number}", "clip_id": "1", "split": "train", "label": 0.0,
               "text": " ".join(words)}  # fmt: skip
        if modality == "audio":
            write_audio(folder / f"{number}.wav", 0.1 * np.tanh(rng.normal(size=int(16000 * length))), 16000)
            row["audio"] = f"{number}.wav"
        if modality == "vision":
            face = sample_face(rng)
            drawn = np.stack([draw_face(face, *np.tanh(rng.normal(size=3)).tolist()) for _ in range(4)])
            scene = np.full((4, 360, 480, 3), 128, np.uint8)
            scene[:, 36 : 36 + 2 * drawn.shape[1], 96 : 96 + 2 * drawn.shape[2]] = drawn.repeat(2, 1).repeat(2, 2)
            write_video(folder / f"{number}.mp4", scene[np.arange(max(24, int(24 * length))) // 6 % 4], 24.0)
            row["video"] = f"{number}.mp4"
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "segments.csv", index=False)
    return load_corpus(folder)


def _measure(folder: Path, modality: str, encoder: Any, half: Any) -> dict[str, float]:
    """Median seconds of each way, taken in turn so that a busy neighbour disturbs all alike."""
    whole = corpus(folder / modality / "corpus", modality, SEGMENTS[modality])
    rows = [{str(key): value for key, value in row.items()} for row in whole.table().to_dict("records")]
    prepared = [encoder.prepare(row) for row in rows]
    sizes = {row: encoder.size(item) for row, item in enumerate(prepared)}
    batches = [[prepared[row] for row in batch] for batch in _batches(sizes, encoder.batch_frames)]
    times: dict[str, list[float]] = {"extract": [], "half": [], "bare": [], "reference": []}
    for number in range(ROUNDS):
        root = folder / modality / str(number)
        # One thread a model everywhere: the second core decodes.
        process.configure(matmul="onednn", threads=1)
        times["extract"].append(_timed(lambda root=root: extract(whole, encoder, root, progress=False)))
        times["half"].append(_timed(lambda root=root: extract(whole, half, root, progress=False)))
        times["bare"].append(_timed(lambda: [bare(encoder, modality, batch) for batch in batches]))
        process.configure(keep_memory=False, threads=1)
        times["reference"].append(_timed(lambda root=root: file_by_file(encoder, modality, rows, root / "files")))
    return {how: statistics.median(values) for how, values in times.items()}


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.inference_mode()
def bare(encoder: Any, modality: str, batch: list[Any]) -> None:
    """Nothing but the model, on one batch."""
    if modality == "vision":
        for pixels in torch.from_numpy(np.concatenate([item.pixels for item in batch])).split(encoder.batch):
            encoder.model(pixel_values=pixels)
        return
    encoder.model(**_padded(modality, batch))


def _padded(modality: str, batch: list[Any]) -> dict[str, torch.Tensor]:
    items = [item.ids if isinstance(item, TokenIds) else item for item in batch]
    lengths = [len(item) for item in items]
    values = torch.zeros(len(batch), max(lengths), dtype=torch.float32 if modality == "audio" else torch.long)
    for row, item in enumerate(items):
        values[row, : len(item)] = torch.as_tensor(item)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_values" if modality == "audio" else "input_ids": values, "attention_mask": mask}


@torch.inference_mode()
def file_by_file(encoder: Any, modality: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """The reference: segments in listing order, four sequences or four pictures at a time, a float32 file a segment."""
    folder.mkdir()
    step = 1 if modality == "vision" else 4
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        items = [encoder.prepare(row) for row in part]
        if modality == "vision":
            groups = torch.from_numpy(items[0].pixels).split(4)
            states = [encoder.model(pixel_values=group, output_hidden_states=True).hidden_states for group in groups]
            layers = [torch.cat([state[layer][:, 0] for state in states]) for layer in range(LAYERS + 1)]
            np.save(folder / f"{part[0]['segment_id']}.npy", torch.stack(layers).numpy())
            continue
        hidden = encoder.model(**_padded(modality, items), output_hidden_states=True).hidden_states
        stacked = torch.stack(hidden)
        for number, row in enumerate(part):
            length = encoder.size(items[number])
            if modality == "audio":
                length = int(encoder.model._get_feat_extract_output_lengths(torch.tensor(len(items[number]))))
            kept = stacked[:, number, :length]
            np.save(folder / f"{row['segment_id']}.npy", (kept[:, ::10] if modality == "audio" else kept).numpy())
    os.sync()
