"""An epoch of joint fine-tuning at the published sizes: DistilBERT-base and ResNet-50, posts as long as tweets.

Ours is an epoch of `msakit.training.loop.fit` as the recipe calls it: texts in batches of similar length, padded to the
longest of the batch, images decoded once.  The reference, written here, does what the authors' code does: every text
is padded to 512 tokens, and every image is read, decoded, resized and cropped again each epoch.  Both train on the same
posts in batches of 32, validate on an eighth as many others, and have the same random weights and as many threads.
Every batch of the reference costs the same, being padded to the same size: it is timed on a sixth of the epoch.

The bound is what no epoch of this model can go below without other arithmetic: forward and backward of the two bare
encoders on ready tensors, with as many tokens (none of them padding) and as many pixels, and no data, head, optimizer
or validation around them.

Text lengths are log-normal with a median of 18 tokens and at most 64; the pictures are photographs' size and noise.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from transformers import DistilBertConfig, DistilBertModel, ResNetConfig, ResNetModel

from benchmarks import Result
from msakit import process
from msakit.data.media import read_image
from msakit.encoders.outputs import image_feature
from msakit.models.joint import JointFusion
from msakit.training.batching import TextBatches
from msakit.training.loop import fit, predict, set_seed
from msakit.training.losses import cross_entropy

TRAIN, VALID, BATCH, PADDED, CLASSES = 192, 24, 32, 512, 3
REFERENCE_SHARE = 6  # the reference runs on the first sixth of both splits
REPEATS = {"float32": 2, "bfloat16": 1}
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
TARGET, BOUND = 7.0, 1.15


class Posts(Dataset):
    """Posts as the published code serves them: padded to 512 tokens, the picture decoded at each access."""

    def __init__(self, token_ids: list[list[int]], pictures: list[Path], label: np.ndarray) -> None:
        self.token_ids, self.pictures, self.label = token_ids, pictures, label

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        ids = torch.zeros(PADDED, dtype=torch.long)
        ids[: len(self.token_ids[row])] = torch.tensor(self.token_ids[row])
        return {
            "input_ids": ids,
            "attention_mask": (torch.arange(PADDED) < len(self.token_ids[row])).long(),
            "pixel_values": torch.from_numpy(pixels(self.pictures[row])),
            "label": torch.tensor(self.label[row]),
        }


def pixels(path: Path) -> np.ndarray:
    """A picture decoded, its short side scaled to 256, the middle 224 x 224 cut out and normalised, colours first."""
    picture = read_image(path)
    scale = 256 / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    values = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    return np.ascontiguousarray(((values - MEAN) / STD).transpose(2, 0, 1))


class Published(nn.Module):
    """The published model: one token of 64 through one encoder layer, then the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = DistilBertModel(DistilBertConfig()), ResNetModel(ResNetConfig())
        self.project_text, self.project_image = nn.Linear(768, 32), nn.Linear(2048, 32)
        self.attention = nn.TransformerEncoderLayer(64, 8, dropout=0.4)
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, CLASSES)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        text = self.text(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, 0]
        image = self.image(pixel_values=batch["pixel_values"]).pooler_output.flatten(1)
        both = torch.cat([self.project_image(image).relu(), self.project_text(text).relu()], dim=1)
        return self.head(self.attention(both[None])[0])


class Case:
    """The posts, both models, and one epoch of each kind."""

    def __init__(self, folder: Path) -> None:
        draw = np.random.default_rng(0)
        count = TRAIN + VALID
        lengths = np.clip(np.round(draw.lognormal(np.log(18), 0.4, count)), 4, 64).astype(int)
        self.token_ids = [draw.integers(1000, 30000, n).tolist() for n in lengths]
        self.label = draw.integers(0, CLASSES, count)
        self.pictures = [folder / f"{row}.jpg" for row in range(count)]
        for path in self.pictures:
            # Noise over coarse blocks, so that the file is as large as a photograph's.
            coarse = Image.fromarray(draw.integers(0, 256, (28, 28, 3), dtype=np.uint8)).resize((224, 224))
            fine = np.asarray(coarse, dtype=np.int16) + draw.integers(-20, 21, (224, 224, 3))
            Image.fromarray(np.clip(fine, 0, 255).astype(np.uint8)).save(path, quality=90)
        started = time.perf_counter()
        self.pixels = np.stack([pixels(path) for path in self.pictures]).astype(np.float16)
        self.decoding = time.perf_counter() - started
        set_seed(0)
        self.ours = JointFusion(DistilBertConfig().to_dict(), ResNetConfig().to_dict(), n_classes=CLASSES)
        self.reference = Published()
        self.reference.text.load_state_dict(self.ours.encoders["text"].state_dict())
        self.reference.image.load_state_dict(self.ours.encoders["image"].state_dict())

    def batches(self, rows: slice, generator: torch.Generator | None) -> TextBatches:
        dense = {"pixel_values": self.pixels[rows]}
        return TextBatches(self.token_ids[rows], self.label[rows], BATCH, dense=dense, bucket=True, generator=generator)

    def our_epoch(self, precision: str) -> float:
        """Seconds of an epoch of the kit's loop, the second of two: the first one takes memory for the first time."""
        process.configure(matmul="onednn")
        generator = set_seed(1)
        accelerator = Accelerator(cpu=True, mixed_precision="bf16" if precision == "bfloat16" else "no")
        found = fit(
            self.ours,
            self.batches(slice(0, TRAIN), generator),
            self.batches(slice(TRAIN, None), None),
            loss=cross_entropy,
            optimizer=torch.optim.AdamW(self.ours.parameters(), 3e-5, fused=True),
            epochs=2,
            accelerator=accelerator,
        )
        AcceleratorState._reset_state(True)
        return found.history[-1]["seconds"]

    def reference_epoch(self, precision: str) -> float:
        """Seconds of an epoch as published, from a part of it."""
        process.configure(keep_memory=False)
        set_seed(1)
        optimizer = torch.optim.AdamW(self.reference.parameters(), 3e-5)
        split = [
            DataLoader(Posts(self.token_ids[rows], self.pictures[rows], self.label[rows]), BATCH, shuffle=shuffle)
            for rows, shuffle in (
                (slice(0, TRAIN // REFERENCE_SHARE), True),
                (slice(TRAIN, TRAIN + VALID // REFERENCE_SHARE), False),
            )
        ]
        started = time.perf_counter()
        self.reference.train()
        for batch in split[0]:
            optimizer.zero_grad()
            with _autocast(precision):
                loss = nn.functional.cross_entropy(self.reference(batch), batch["label"])
            loss.backward()
            optimizer.step()
        self.reference.eval()
        with torch.no_grad(), _autocast(precision):
            for batch in split[1]:
                nn.functional.cross_entropy(self.reference(batch), batch["label"]).item()
        return (time.perf_counter() - started) * REFERENCE_SHARE

    def bare_passes(self, precision: str) -> tuple[float, float]:
        """Seconds of forward and backward over the training posts: of the text encoder, and of the image encoder.

        Two passes, of which the second counts, as of the kit's epochs.
        """
        for _ in range(2):
            seconds = [0.0, 0.0]
            for ready in self._ready():
                for part, (name, value) in enumerate(ready.items()):
                    encoder = self.ours.encoders[name].train()
                    encoder.zero_grad()
                    started = time.perf_counter()
                    with _autocast(precision):
                        output = encoder(value)
                        vector = output.last_hidden_state[:, 0] if name == "text" else image_feature(output)
                    vector.float().square().mean().backward()
                    seconds[part] += time.perf_counter() - started
        return seconds[0], seconds[1]

    def _ready(self) -> Iterator[dict[str, Tensor]]:
        """Batches without padding: the tokens of 32 posts in 32 rows of their mean length, rounded down."""
        for start in range(0, TRAIN, BATCH):
            tokens = np.concatenate(self.token_ids[start : start + BATCH])
            rows = np.resize(tokens, (BATCH, len(tokens) // BATCH))
            yield {
                "text": torch.from_numpy(rows),
                "image": torch.from_numpy(self.pixels[start : start + BATCH]).float(),
            }

    def other_parts(self, precision: str) -> dict[str, float]:
        """Seconds of what an epoch of ours does besides the two encoders' forward and backward."""
        started = time.perf_counter()
        batches = list(self.batches(slice(0, TRAIN), set_seed(1)))
        data = time.perf_counter() - started
        valid = self.batches(slice(TRAIN, None), None)
        started = time.perf_counter()
        with _autocast(precision):
            predict(self.ours, valid)
        validation = time.perf_counter() - started
        optimizer = torch.optim.AdamW(self.ours.parameters(), 0.0, fused=True)
        for parameter in self.ours.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        started = time.perf_counter()
        for _ in batches:
            optimizer.step()
        return {"data": data, "validation": validation, "optimizer": time.perf_counter() - started}

    def padding(self) -> float:
        """Tokens computed by ours over the tokens that are there."""
        batches = self.batches(slice(0, TRAIN), set_seed(1))
        masks = [batch["attention_mask"] for batch in batches]
        return sum(mask.numel() for mask in masks) / float(sum(mask.sum() for mask in masks))


def operations(epoch: Callable[[], object], most: int = 12) -> dict[str, float]:
    """Share of an epoch's time that each of torch's operations takes itself, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        epoch()
    rows = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(rows.values())
    largest = sorted(rows, key=lambda key: -rows[key])[:most]
    return {key: round(rows[key] / total, 4) for key in largest}


def run() -> list[Result]:
    """Reference over ours in float32 and in bfloat16, and ours over the bare passes."""
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder))
        return [result for precision in REPEATS for result in _compare(case, precision)]


def _compare(case: Case, precision: str) -> list[Result]:
    seconds: dict[str, list[float]] = {"ours": [], "bare_text": [], "bare_image": [], "reference": []}
    for _ in range(REPEATS[precision]):
        # In turn, so that a busy machine slows them all.
        seconds["ours"].append(case.our_epoch(precision))
        text, image = case.bare_passes(precision)
        seconds["bare_text"].append(text)
        seconds["bare_image"].append(image)
        seconds["reference"].append(case.reference_epoch(precision))
    least = {name: min(values) for name, values in seconds.items()}
    bare = least["bare_text"] + least["bare_image"]
    detail = {
        "precision": precision,
        "threads": torch.get_num_threads(),
        "posts": {"train": TRAIN, "valid": VALID, "batch": BATCH, "of_the_reference": TRAIN // REFERENCE_SHARE},
        "tokens_mean": round(statistics.mean(map(len, case.token_ids)), 1),
        "tokens_computed_per_token": round(case.padding(), 3),
        "seconds_each": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "seconds_least": {name: round(value, 2) for name, value in least.items()},
        "seconds_of_decoding_once": round(case.decoding, 2),
    }
    spent = {
        "seconds_of_other_parts": {name: round(value, 2) for name, value in case.other_parts(precision).items()},
        "share_of_operations": operations(lambda: case.our_epoch(precision)),
    }
    suffix = "" if precision == "float32" else "-bf16"
    how = "as published (512 tokens a text, images decoded each time)"
    return [
        Result(f"toledo-epoch{suffix}", least["reference"] / least["ours"], TARGET, "up", f"an epoch {how}", detail),
        Result(
            f"toledo-bound{suffix}",
            least["ours"] / bare,
            BOUND,
            "down",
            "forward and backward of the two bare encoders, no token padded",
            detail | spent,
        ),
    ]


def _autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
