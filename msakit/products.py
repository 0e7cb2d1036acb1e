"""Float32 matrix products by oneDNN, where torch's own library for them leaves part of the processor idle.

On a CPU torch multiplies float32 matrices with MKL, which takes its AVX2 path on any processor but Intel's. oneDNN,
which torch carries as well, takes AVX-512 wherever it is: on an AMD EPYC (Zen 5) 1028 x 768 times 768 x 3072 ran at
217 instead of 102 Gflop/s on one core.
torch leads float32 products to oneDNN only by the setting that permits bfloat16 inside of them. oneDNN makes use of
that permission where the processor has units for it (AMX); so it is given only after products have shown that
float32 comes out all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

WIDE = 256  # of matrices; below, a call to oneDNN costs more than its product saves
SIZES = (64, 512)  # of the matrices that are tried: oneDNN chooses its way by size


@contextmanager
def onednn_products(model: nn.Module) -> Iterator[None]:
    """Until the end of the block the float32 products of a wide model go to oneDNN on the CPU.

    Where the model is narrow, where products would become coarser than float32, or where torch came without oneDNN,
    nothing happens. oneDNN compiles a kernel for each new shape (half a millisecond): this is for batches whose shapes
    return, not for packed frames, of which each batch has another number.
    """
    if not (wide(model) and stays_float32()):
        yield
        return
    with _permission():
        yield


def wide(model: nn.Module) -> bool:
    """Whether the model multiplies by a matrix with at least 256 rows and columns, as those of published sizes do."""
    return any(isinstance(part, nn.Linear) and min(part.weight.shape) >= WIDE for part in model.modules())


@cache
def stays_float32() -> bool:
    """Whether products keep float32's digits under the permission; 1 + 2^-12 has more than bfloat16 or TF32 can."""
    if not torch.backends.mkldnn.is_available():
        return False
    value = 1 + 2**-12
    with _permission(), torch.inference_mode():
        for size in SIZES:
            rows, unit = torch.full((2, size, size), value), torch.eye(size)
            products = rows[0] @ unit, rows @ unit.expand(2, -1, -1), torch.addmm(torch.zeros(size), rows[0], unit)
            if not all(bool((product == value).all()) for product in products):
                return False
    return True


@contextmanager
def _permission() -> Iterator[None]:
    backend: Any = torch.backends.mkldnn  # its stubs know nothing of `matmul`
    setting = backend.matmul
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before
