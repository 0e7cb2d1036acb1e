"""What training a model costs: floating-point operations a sample, time and memory of an epoch.

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
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from msakit.training.batching import TensorBatches
from msakit.training.losses import Loss

MEGABYTE = 2**20


def flops_per_sample(model: nn.Module, batch: dict[str, Any], loss: Loss) -> float:
    """Operations of forward and backward over `batch`, divided by its samples; forward alone if nothing is trained.

    Backward passes reach only as far down as a trained weight needs, so frozen layers at the bottom cost a forward.
    """
    with _untouched(model) as copied, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _forward_backward(copied, batch, loss)
    return counter.get_total_flops() / len(batch["label"])


def epoch(
    model: nn.Module,
    batches: TensorBatches,
    *,
    loss: Loss,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> tuple[float, float]:
    """Seconds, and MiB in tensors at the peak, of one training epoch, after a step to warm up, on the model's device.

    An epoch is data, forward, loss, backward and step, without validation.  optimizer(trained parameters) -> a new
    optimizer, for instance `partial(torch.optim.AdamW, lr=3e-5)`.
    """
    state = batches.state_dict()
    with _untouched(model) as copied:
        steps = optimizer([parameter for parameter in copied.parameters() if parameter.requires_grad])

        def step(batch: dict[str, Any]) -> None:
            steps.zero_grad()
            _forward_backward(copied, batch, loss)
            steps.step()

        largest = max(batches, key=_bytes)
        weights = _bytes([*copied.parameters(), *copied.buffers()])
        cuda = next((parameter.device for parameter in copied.parameters() if parameter.is_cuda), None)
        if cuda is None:
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
                step(largest)
                step(largest)
            peak = _peak(profiled)
        else:
            before = torch.cuda.memory_allocated(cuda)
            torch.cuda.reset_peak_memory_stats(cuda)
            step(largest)
        started = time.perf_counter()
        for batch in batches:
            step(batch)
        if cuda is not None:
            torch.cuda.synchronize(cuda)
        seconds = time.perf_counter() - started
        if cuda is not None:
            peak = torch.cuda.max_memory_allocated(cuda) - before
    batches.load_state_dict(state)
    return seconds, (weights + peak) / MEGABYTE


@contextmanager
def _untouched(model: nn.Module) -> Iterator[nn.Module]:
    """A copy in training mode (running statistics move), and torch's random numbers put back afterwards."""
    with torch.random.fork_rng():
        yield copy.deepcopy(model).train()


def _forward_backward(model: nn.Module, batch: dict[str, Any], loss: Loss) -> None:
    batch = send_to_device(batch, next(model.parameters()).device)
    value = loss(model(batch), batch)
    if value.requires_grad:
        value.backward()


def _bytes(values: Any) -> int:
    """Bytes in the tensors of a nest of dicts, tuples and lists."""
    if isinstance(values, Tensor):
        return values.nbytes
    if isinstance(values, dict):
        values = values.values()
    return sum(map(_bytes, values)) if isinstance(values, Iterable) and not isinstance(values, str) else 0


def _peak(profiled: Any) -> int:
    """Bytes of torch's allocations that were alive together, at most."""
    held = peak = 0
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        peak = max(peak, held)
    return peak
