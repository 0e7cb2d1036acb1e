"""Mini WavLM (Chen et al. 2022): predict the cluster of masked frames, from input with a second voice mixed in.

Targets are k-means clusters of MFCC, energy and pitch frames (HuBERT's first iteration; energy and pitch are added
because sentiment shows there). On half of the utterances another one, or noise, is laid over up to half of the input;
the targets stay those of the first. 4 layers of 64, the strides of the original (50 frames per second).
Deviations: small CNN; one iteration; masks of 100 ms instead of 200; the frames that are not masked count as much as
those that are (alpha = 1/2 in HuBERT's eq. 2), without which so small and short a run never leaves the cluster
frequencies. Pre-norm and layer-normalised CNN, as in WavLM-Large.
"""

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

from msakit.data.media import read_audio
from msakit.encoders.pretrain.common import Pools, Task, draws, hold_out, pool_table

RATE, HOP, WINDOW = 16000, 320, 400  # samples; WINDOW is the receptive field of one output frame
GAIN = 50.0  # start of the first convolution, over the usual one
SPAN, START = 5, 0.12  # frames a mask, and the probability that one starts at a frame: about 45 % are masked
CLUSTERS, BATCH = 50, 8
CROP = round(1.6 * RATE)  # samples of a training clip
Samples = Float[np.ndarray, " _sample"]  # clips differ in length: the axis is not bound


def task(pools: Pools, seed: int) -> Task:
    """Held-out metric: loss in nats a masked frame."""
    paths = [path for path in pool_table(pools["mosi"])["audio"] if path]
    clips = [read_audio(Path(path), rate=RATE) for path in paths]
    clips = [clip for clip in clips if len(clip) >= 4 * WINDOW]
    seen, held = hold_out(len(clips), seed)
    targets = cluster_frames(clips, seen, seed)
    model = _Predictor()
    rows = draws(seen, BATCH, seed)
    generator = np.random.default_rng(seed)

    def loss(step: int) -> Float[Tensor, ""]:
        masked, seen_frames = model(*_batch([(clips[row], targets[row]) for row in next(rows)], clips, generator))
        return masked + seen_frames

    fixed = [(clips[row], targets[row]) for row in held[:48]]
    return Task(
        objective="masked prediction of acoustic clusters, mixed utterances",
        metric="masked loss",
        better="down",
        measure=lambda: _masked_loss(model, fixed, clips, seed),
        saved={".": [model.wavlm, Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)]},
        steps=300,
        model=model,
        loss=loss,
        rate=4e-3,
    )


class _Predictor(nn.Module):
    """WavLM with a linear head over its output frames."""

    def __init__(self) -> None:
        super().__init__()
        self.wavlm = WavLMModel(
            WavLMConfig(
                hidden_size=64,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=256,
                conv_dim=(16, 16, 32, 32, 32, 32, 32),
                conv_bias=True,  # with layer norm after it, the bias is what keeps loudness visible
                feat_extract_norm="layer",
                do_stable_layer_norm=True,
                num_conv_pos_embeddings=32,
                num_conv_pos_embedding_groups=4,
                num_buckets=64,
                max_bucket_distance=256,
                layerdrop=0.0,
                hidden_dropout=0.0,
                attention_dropout=0.0,
                feat_proj_dropout=0.0,
                mask_time_prob=0.05,  # makes the mask vector; the masks themselves are given from outside
            )
        )
        self.head = nn.Linear(64, CLUSTERS)
        # Clips enter as they are, about 0.05 loud, and every convolution ends in a layer norm: with the usual start
        # its bias would outweigh the sound.
        with torch.no_grad():
            first: Any = self.wavlm.feature_extractor.conv_layers[0]
            first.conv.weight.mul_(GAIN)

    def forward(
        self,
        values: Float[Tensor, "batch sample"],
        masked: Bool[Tensor, "batch time"],
        wanted: Int[Tensor, "batch time"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean loss over the masked frames and over the others."""
        logits = self.head(self.wavlm(values, mask_time_indices=masked).last_hidden_state)
        return (
            nn.functional.cross_entropy(logits[masked], wanted[masked]),
            nn.functional.cross_entropy(logits[~masked], wanted[~masked]),
        )


def cluster_frames(clips: list[Samples], seen: Int[np.ndarray, " row"], seed: int) -> list[Int[np.ndarray, " _time"]]:
    """Cluster number of every 20 ms frame; the centres are learnt on the seen clips alone."""
    features = [_acoustics(clip) for clip in clips]
    known = np.concatenate([features[row] for row in seen])
    mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-5
    # Energy and pitch are two of fifteen columns; three times their weight lets them shape the clusters.
    weight = np.array([1.0] * 13 + [3.0, 3.0]) / deviation
    means = MiniBatchKMeans(CLUSTERS, random_state=seed, batch_size=2048, n_init=1, max_iter=20)
    means.fit(((known - mean) * weight).astype(np.float32))
    return [means.predict(((frames - mean) * weight).astype(np.float32)) for frames in features]


def _acoustics(clip: Samples) -> Float[np.ndarray, "time 15"]:
    """13 MFCC, log energy and log pitch of each of WavLM's frames (400 samples every 320)."""
    magnitude = np.abs(librosa.stft(clip, n_fft=512, win_length=WINDOW, hop_length=HOP)) ** 2
    mel = librosa.power_to_db(librosa.feature.melspectrogram(S=magnitude, sr=RATE, n_mels=40))
    cepstrum = librosa.feature.mfcc(S=mel, n_mfcc=14)[1:]
    energy = np.log(magnitude.sum(axis=0) + 1e-6)
    pitch = np.log(librosa.yin(clip, fmin=60, fmax=500, sr=RATE, frame_length=1024, hop_length=HOP))
    count = 1 + (len(clip) - WINDOW) // HOP
    return np.stack([*cepstrum, energy, pitch], axis=1)[:count].astype(np.float32)


def _batch(
    pairs: list[tuple[Samples, Int[np.ndarray, " _time"]]],
    others: list[Samples],
    generator: np.random.Generator,
) -> tuple[Float[Tensor, "batch sample"], Bool[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Crops of one length, half of them with another voice or noise on top; about half the frames masked in spans."""
    length = min(CROP, min(len(clip) for clip, _ in pairs)) // HOP * HOP + WINDOW - HOP
    length = min(length, min(len(clip) for clip, _ in pairs))
    frames = 1 + (length - WINDOW) // HOP
    values = np.zeros((len(pairs), length), dtype=np.float32)
    wanted = np.zeros((len(pairs), frames), dtype=np.int64)
    masked = np.zeros((len(pairs), frames), dtype=bool)
    for row, (clip, clusters) in enumerate(pairs):
        first = int(generator.integers(0, (len(clip) - length) // HOP + 1))
        values[row] = clip[first * HOP : first * HOP + length]
        wanted[row] = clusters[first : first + frames]
        if generator.random() < 0.5:
            _mix_in(values[row], others, generator)
        for start in np.flatnonzero(generator.random(frames) < START):
            masked[row, start : start + SPAN] = True
        if not masked[row].any() or masked[row].all():
            masked[row] = np.arange(frames) < max(1, frames // 2)
    return torch.from_numpy(values), torch.from_numpy(masked), torch.from_numpy(wanted)


def _mix_in(values: Samples, others: list[Samples], generator: np.random.Generator) -> None:
    """Lay a piece of another clip (or noise, one time in ten) over up to half of the samples, in place; -5 to 5 dB."""
    span = int(generator.integers(1, len(values) // 2 + 1))
    start = int(generator.integers(0, len(values) - span + 1))
    if generator.random() < 0.1:
        other = generator.normal(size=span).astype(np.float32)
    else:
        clip = others[int(generator.integers(len(others)))]
        begin = int(generator.integers(0, max(1, len(clip) - span + 1)))
        other = clip[begin : begin + span]
    ratio = 10 ** (generator.uniform(-5, 5) / 20)
    scale = np.sqrt((values**2).mean() + 1e-9) / np.sqrt((other**2).mean() + 1e-9) / ratio
    values[start : start + len(other)] += (scale * other).astype(np.float32)


def _masked_loss(
    model: _Predictor,
    pairs: list[tuple[Samples, Int[np.ndarray, " _time"]]],
    others: list[Samples],
    seed: int,
) -> float:
    """Mean loss over masked frames (of batches of 8); crops, mixtures and masks depend on the seed alone."""
    generator = np.random.default_rng(seed + 1)
    losses = []
    for start in range(0, len(pairs), 8):
        masked, _ = model(*_batch(pairs[start : start + 8], others, generator))
        losses.append(float(masked))
    return float(np.mean(losses))
