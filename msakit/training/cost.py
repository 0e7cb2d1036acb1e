"""What training a model costs: parameters, floating-point operations a sample, time and memory of an epoch.

Operations are counted by torch (`FlopCounterMode`: matrix products, convolutions and attention, 2 a multiply-add;
element-wise work, norms and softmax are left out), forward and backward, at the lengths of the batch given.  Attention
is counted as the matrix products that it is, whichever kernel would run it, since torch has no count for some kernels.

Memory is what tensors hold at the peak: weights, buffers, gradients, the optimizer's state, activations and temporary
results.  On CUDA that is the allocator's peak over a whole epoch.  On the CPU it is the profiler's count of torch's
own allocations over two steps on the largest batch (the second meets the optimizer's state), which is the epoch's
peak as every step frees what it took.  The scratch space of oneDNN and BLAS, the interpreter and the data set itself
are not in it: the memory of the whole process is larger.

Everything is measured on a copy of the model, and the random numbers drawn and the order of the batches are put back:
a run that measures its costs first trains exactly like one that does not.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from msakit.training.losses import Loss

MEGABYTE = 2**20


@dataclass(frozen=True)
class Parameters:
    """Numbers in a model's weights; buffers do not count."""

    trainable: int
    total: int


@dataclass(frozen=True)
class EpochCost:
    """One pass over the training batches: data, forward, loss, backward, step; no validation."""

    seconds: float  # wall clock, median of the repeats
    samples: int
    peak_memory_mb: float  # MiB in tensors at the peak; see the module's text


def parameters(model: nn.Module) -> Parameters:
    """Trainable and total numbers in the weights; a weight used twice counts once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Parameters(sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes))


def flops_per_sample(model: nn.Module, batch: dict[str, Any], loss: Loss) -> float:
    """Operations of forward and backward over `batch`, divided by its samples; forward alone if nothing is trained.

    Backward passes reach only as far down as a trained weight needs, so frozen layers at the bottom cost a forward.
    """
    with _untouched(model) as copied, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _forward_backward(copied, _to_device(batch, copied), loss)
    return counter.get_total_flops() / len(batch["label"])


def epoch(
    model: nn.Module,
    batches: Iterable[dict[str, Any]],
    *,
    loss: Loss,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    repeats: int = 1,
) -> EpochCost:
    """Time and peak memory of one training epoch, after a step to warm up, on the device that the model is on.

    optimizer(trained parameters) -> a new optimizer, for instance `partial(torch.optim.AdamW, lr=3e-5)`; it is not
    called for a model without trained parameters, which is only run forward.  Raises ValueError without any batch.
    """
    state = batches.state_dict() if hasattr(batches, "state_dict") else None
    with _untouched(model) as copied:
        trained = [parameter for parameter in copied.parameters() if parameter.requires_grad]
        steps = optimizer(trained) if trained else None
        largest, samples = None, 0
        for batch in batches:
            samples += len(batch["label"])
            if largest is None or _bytes(batch) > _bytes(largest):
                largest = batch
        if largest is None:
            raise ValueError("no training batch: is the batch larger than the training split, with drop_last?")
        weights = _bytes([*copied.parameters(), *copied.buffers()])
        cuda = next((parameter.device for parameter in copied.parameters() if parameter.is_cuda), None)
        if cuda is None:
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
                for _ in range(2):
                    _step(copied, _to_device(largest, copied), loss, steps)
            peak = _peak(profiled)
        else:
            before = torch.cuda.memory_allocated(cuda)
            torch.cuda.reset_peak_memory_stats(cuda)
            _step(copied, _to_device(largest, copied), loss, steps)
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            for batch in batches:
                _step(copied, _to_device(batch, copied), loss, steps)
            if cuda is not None:
                torch.cuda.synchronize(cuda)
            seconds.append(time.perf_counter() - started)
        if cuda is not None:
            peak = torch.cuda.max_memory_allocated(cuda) - before
    if state is not None:
        batches.load_state_dict(state)  # type: ignore[attr-defined]
    return EpochCost(statistics.median(seconds), samples, (weights + peak) / MEGABYTE)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[nn.Module]:
    """A copy in training mode (running statistics move), and torch's random numbers put back afterwards."""
    with torch.random.fork_rng():
        yield copy.deepcopy(model).train()


def _step(model: nn.Module, batch: dict[str, Any], loss: Loss, optimizer: torch.optim.Optimizer | None) -> None:
    if optimizer is None:
        with torch.no_grad():
            loss(model(batch), batch)
        return
    optimizer.zero_grad()
    _forward_backward(model, batch, loss)
    optimizer.step()


def _forward_backward(model: nn.Module, batch: dict[str, Any], loss: Loss) -> None:
    value = loss(model(batch), batch)
    if value.requires_grad:
        value.backward()


def _to_device(batch: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    moved: dict[str, Any] = send_to_device(batch, next(model.parameters()).device)
    return moved


def _bytes(values: Any) -> int:
    """Bytes in the tensors of a nest of dicts, tuples and lists."""
    if isinstance(values, Tensor):
        return values.nbytes
    if isinstance(values, dict):
        values = values.values()
    return sum(map(_bytes, values)) if isinstance(values, Iterable) and not isinstance(values, str) else 0


def _peak(profiled: profile) -> int:
    """Bytes of torch's allocations that were alive together, at most."""
    results = profiled.profiler.kineto_results if profiled.profiler else None
    if results is None:
        raise RuntimeError("torch's profiler gave no record of allocations")
    held = peak = 0
    events: list[Any] = [event for event in results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        peak = max(peak, held)
    return peak
