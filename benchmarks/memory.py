"""Memory of extraction and of training, for a corpus of a tenth of CMU-MOSEI's training split and for all of it.

Each is a process of its own. Counted is its anonymous memory (RssAnon: what it has allocated), sampled every 5 ms;
pages of memory-mapped files, which the system takes back when it needs them, are given beside it. Features are
generated, 1024-d, three modalities, one layer (more layers make a bucket of the extraction larger, not the corpus).
The ratio is peak memory of the whole over that of the tenth; training is one epoch at MOSEI's widths.
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import Result
from benchmarks._ando_corpus import DIM, MOSEI_TRAIN, GeneratedEncoder, corpus, lengths
from msakit.data.corpus import load_corpus
from msakit.features import FeatureStore, extract, store_folder
from msakit.models.gated import GatedFusion
from msakit.process import configure
from msakit.training.batching import FeatureBatches
from msakit.training.frame_source import FrameSource
from msakit.training.loop import fit, set_seed
from msakit.training.losses import l1
from msakit.training.spec_augment import SpecAugment

SIZES = {"tenth": MOSEI_TRAIN // 10, "whole": MOSEI_TRAIN}
BOUND = 1.1  # ten times the segments, at most so many times the memory
EVERY = 0.005  # seconds between samples


def run() -> list[Result]:
    """Two results: extraction and training."""
    found: dict[str, dict[str, dict[str, float]]] = {"extraction": {}, "training": {}}
    for name, segments in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="msakit bench ") as folder:
            corpus(Path(folder) / "corpus", segments)
            for what, peaks in found.items():
                peaks[name] = _in_a_process(what, folder, segments)
    return [
        Result(
            f"memory-{what}",
            peaks["whole"]["anonymous_mb"] / peaks["tenth"]["anonymous_mb"],
            BOUND,
            "down",
            "the peak memory with a tenth of the segments",
            {f"{name}_{key}": value for name, peak in peaks.items() for key, value in peak.items()},
        )
        for what, peaks in found.items()
    ]


def _in_a_process(what: str, folder: str, segments: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", what, folder, str(segments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(what: str, folder: str, segments: str) -> None:
    """Run one of the two and print its peak memory in MB as JSON."""
    configure()
    count, root = int(segments), Path(folder)
    encoders = [GeneratedEncoder(modality, 1, count) for modality in lengths(1)]
    with Watch() as watch:
        if what == "extraction":
            data = load_corpus(root / "corpus")
            for encoder in encoders:
                extract(data, encoder, root / "features", progress=False)
        else:
            _train(root, encoders)
    print(json.dumps({"segments": count, **watch.peak_mb}))


def _train(root: Path, encoders: list[GeneratedEncoder]) -> None:
    data = load_corpus(root / "corpus")
    generator = set_seed(0)
    stores = {each.modality: FeatureStore.open(store_folder(data, each, root / "features")) for each in encoders}
    batches = {}
    for split in ("train", "valid"):
        rows = data.splits[split]
        sources = {name: FrameSource.of(store, rows["segment_id"], 0) for name, store in stores.items()}
        drawn: dict[str, Any] = {"generator": generator, "drop_last": True, "augment": SpecAugment()}
        label = np.asarray(rows["label"])
        batches[split] = FeatureBatches(sources, label, 16, **(drawn if split == "train" else {}))
    model = GatedFusion(dict.fromkeys(stores, DIM), width=256, embedding=128)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    fit(model, batches["train"], batches["valid"], loss=l1, optimizer=optimizer, epochs=1)


class Watch:
    """Samples the memory of this process in a thread; `peak_mb` holds the highest values."""

    def __init__(self) -> None:
        self.peak_mb = {"anonymous_mb": 0.0, "file_pages_mb": 0.0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            for key, field in (("anonymous_mb", "RssAnon"), ("file_pages_mb", "RssFile")):
                self.peak_mb[key] = max(self.peak_mb[key], round(int(status[field].split()[0]) / 1024, 1))
            if self._stop.wait(EVERY):
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
