"""Batches straight from arrays: no workers, no copies of what is not used, no padding beyond the batch's longest.

Three kinds, one interface: iterate it once an epoch, `len` gives the number of batches, and each batch is a dict with
"index" (row numbers in the arrays, which lets `predict` restore their order), "label", and the model's inputs.
A `torch.Generator` turns shuffling on; the generator's state alone decides the order, so the same seed repeats it, and
it is all that a checkpoint has to keep of them (`state_dict`, `load_state_dict`).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from msakit.models.layers.packed import Packed, layout_of, split_packed
from msakit.training.frame_source import FrameSource
from msakit.training.spec_augment import SpecAugment

Labels = np.ndarray | Sequence[float] | Sequence[int]

# Bucketing sorts by length within pools of so many batches, which keeps most of the randomness of the order.
POOL_OF_BATCHES = 50
# So many batches of frames of one layer are gathered at once; with more layers fewer, for the sake of memory.
AHEAD = 4


def batch_order(
    count: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    drop_last: bool = False,
    lengths: Int[Tensor, " rows"] | None = None,
) -> list[Int[Tensor, " batch"]]:
    """Row numbers of each batch.  generator: shuffle.  lengths: put rows of similar length together (within pools of
    50 shuffled batches, or over all rows without a generator), the batches themselves in random order."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    if lengths is not None:
        pool = count if generator is None else POOL_OF_BATCHES * batch_size
        order = torch.cat([part[lengths[part].argsort(stable=True)] for part in order.split(max(pool, 1))])
    batches = [b for b in order.split(batch_size) if len(b) == batch_size or not drop_last]
    if lengths is not None and generator is not None:
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
    return batches


class TensorBatches:
    """Rows of plain arrays: images, pooled features, stored vectors of frozen encoders.  The other kinds add to it."""

    sizes: Tensor | None = None  # of rows that are to be batched by similar size
    repeats: int = 1  # passes over the rows an epoch

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        label: Labels,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> None:
        array = np.asarray(label)
        # Class indices stay whole numbers; anything else is a regression target.
        self.label = torch.from_numpy(array.astype(np.int64 if array.dtype.kind in "iub" else np.float32))
        self.batch_size, self.generator, self.drop_last = batch_size, generator, drop_last
        self.arrays = {name: _tensor(values) for name, values in arrays.items()}
        for name, values in self.arrays.items():
            _check_rows(name, len(values), len(self.label))

    def __len__(self) -> int:
        full, rest = divmod(len(self.label), self.batch_size)
        return self.repeats * (full + (rest > 0 and not self.drop_last))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for rows in self._order():
            yield {"index": rows, "label": self.label[rows]} | self._inputs(rows)

    def state_dict(self) -> dict[str, Tensor]:
        """What decides the order of the epochs to come: the generator's state; nothing without shuffling."""
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken."""
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    def _order(self) -> list[Int[Tensor, " batch"]]:
        given = len(self.label), self.batch_size, self.generator, self.drop_last, self.sizes
        return [rows for _ in range(self.repeats) for rows in batch_order(*given)]

    def _inputs(self, rows: Int[Tensor, " batch"]) -> dict[str, Any]:
        return {name: values[rows].float() for name, values in self.arrays.items()}


class FeatureBatches(TensorBatches):
    """Packed frames (`msakit.models.Frames`), gathered batch by batch from arrays in memory or memory-mapped.

    features: for each modality a FrameSource, or (frames "*layer frames dim", lengths "segments"); half precision is
    widened batch by batch.  augment: SpecAugment on each batch, drawn from `generator`.
    """

    def __init__(
        self,
        features: Mapping[str, FrameSource | tuple[np.ndarray, np.ndarray]],
        label: Labels,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        augment: SpecAugment | None = None,
    ) -> None:
        super().__init__({}, label, batch_size, generator=generator, drop_last=drop_last)
        self.augment = augment
        self.features: dict[str, _Frames] = {}
        for name, given in features.items():
            source = given if isinstance(given, FrameSource) else FrameSource.end_to_end(*given)
            _check_rows(name, len(source.lengths), len(self.label))
            scaling = source.scaling
            self.features[name] = _Frames(
                _tensor(source.frames),
                torch.as_tensor(source.starts, dtype=torch.long),
                torch.as_tensor(source.lengths, dtype=torch.long),
                None if scaling is None else (_tensor(scaling.mean), _tensor(scaling.deviation)),
            )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = self._order()
        layers = max([frames.shape[:-2].numel() for frames, *_ in self.features.values()], default=1)
        ahead = max(AHEAD // layers, 1)
        for start in range(0, len(order), ahead):
            yield from self._gather(order[start : start + ahead])

    def _gather(self, order: list[Tensor]) -> Iterator[dict[str, Any]]:
        """A few batches at once: gathering and masking are many small operations, which cost less in common."""
        rows, sizes = torch.cat(order), [len(batch) for batch in order]
        drawn: dict[str, list[Tensor]] = {name: [] for name in self.features}
        # Batch by batch, so that the masks do not depend on how many are gathered at once.
        for size, (name, (frames, *_)) in product(sizes, self.features.items()):
            if self.augment is not None:
                drawn[name].append(self.augment.draw(size, frames.shape[:-2].numel(), self.generator))
        parts: dict[str, list[Packed]] = {}
        for name, (frames, starts, lengths, scale) in self.features.items():
            layout = layout_of(lengths[rows])
            wanted = starts[rows][layout.owner] + layout.position
            values = frames.index_select(-2, wanted).float()
            if scale is not None:
                values = (values - scale[0]) / scale[1]
            packed = Packed(values, lengths[rows], layout)
            if self.augment is not None:
                packed = self.augment.mask(packed, torch.cat(drawn[name], 2))
            parts[name] = split_packed(packed, sizes)
        for number, batch in enumerate(order):
            yield {"index": batch, "label": self.label[batch]} | {name: part[number] for name, part in parts.items()}


class _Frames(NamedTuple):
    frames: Tensor  # "*layer all_frames dim"
    starts: Tensor
    lengths: Tensor
    scale: tuple[Tensor, Tensor] | None  # mean and standard deviation


class TextBatches(TensorBatches):
    """Token ids with per-token and per-row companions: "input_ids", "attention_mask", and the companions by name.

    per_token: for each name one array "token dim" a row (audio and vision on word pieces), padded with zeros; dense:
    arrays with one entry a row (images, cached features).  Padding reaches the batch's longest row, or `pad_to`
    tokens (as published for the joint fine-tuning; far slower).  bucket: rows of similar length together.
    """

    def __init__(
        self,
        token_ids: Sequence[Sequence[int]],
        label: Labels,
        batch_size: int,
        *,
        per_token: Mapping[str, Sequence[Any]] | None = None,
        dense: Mapping[str, np.ndarray] | None = None,
        pad_id: int = 0,
        pad_to: int | None = None,
        bucket: bool = False,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__(dense or {}, label, batch_size, generator=generator, drop_last=drop_last)
        _check_rows("token_ids", len(token_ids), len(self.label))
        self.token_ids = [torch.as_tensor(ids, dtype=torch.long) for ids in token_ids]
        self.lengths = torch.tensor([len(ids) for ids in self.token_ids])
        self.per_token = {
            name: [torch.as_tensor(np.asarray(v), dtype=torch.float32) for v in values]
            for name, values in (per_token or {}).items()
        }
        for name, values in self.per_token.items():
            _check_rows(name, len(values), len(self.label))
        self.pad_id, self.pad_to = pad_id, pad_to
        self.sizes = self.lengths if bucket else None

    def _inputs(self, rows: Int[Tensor, " batch"]) -> dict[str, Any]:
        lengths = self.lengths[rows]
        width = self.pad_to or int(lengths.max())
        inputs = super()._inputs(rows)
        inputs["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
        inputs["input_ids"] = _padded([self.token_ids[i] for i in rows], width, self.pad_id)
        for name, values in self.per_token.items():
            inputs[name] = _padded([values[i] for i in rows], width, 0)
        return inputs


def _padded(rows: list[Tensor], width: int, fill: int) -> Shaped[Tensor, "batch token *dim"]:
    padded = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), fill)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded


def _tensor(values: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # A read-only memory map is only ever read here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _check_rows(name: str, given: int, expected: int) -> None:
    if given != expected:
        raise ValueError(f"{name} has {given} rows, the labels {expected}; take both from the same list of segments")
