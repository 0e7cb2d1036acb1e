"""Switches of the whole process: allocator, matrix products, threads. Whoever starts a process sets them once.

The command line, :func:`msakit.notebook.begin` and the benchmarks call :func:`configure`; no function of a library
room does. Between runs :func:`release_memory` gives back what the allocator has kept.
"""

import ctypes
import gc
import logging
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MAPPED_AT_MOST = 65536  # glibc's own value of M_MMAP_MAX
# Where glibc's thresholds end up by themselves once large blocks have been freed; after mallopt they no longer move.
_MAPPED_FROM, _TRIMMED_FROM = 32 * 2**20, 64 * 2**20
_WIDE = 256  # rows and columns; a narrower matrix leaves more to the calls than to the product
_SIZES = (64, 512)  # of the matrices that are tried: oneDNN chooses its kernel by size


def configure(
    *, matmul: Literal["default", "onednn"] = "default", keep_memory: bool = True, threads: int | None = None
) -> None:
    """Set up this process; a later call replaces what an earlier one set.

    Args:
        matmul: "default", or "onednn" for float32 products on a CPU by oneDNN where they keep every digit of float32
            (elsewhere a line of the log says that the default stays). Sums are then rounded in another order, so
            results differ in their last digits from those of "default".
        keep_memory: as :func:`keep_freed_memory`; False, as torch is without this package, gives back what was kept.
        threads: of torch's operators; None leaves what the environment (OMP_NUM_THREADS) says.
    """
    keep_freed_memory(keep_memory)
    _set_matmul(matmul)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def keep_freed_memory(keep: bool = True) -> None:
    """From now on the C library keeps what is freed, for the next step of a training. Outside glibc nothing happens.

    By default glibc gives a large freed block back to the system, which clears every page anew when the next step asks
    for it. Epochs of joint fine-tuning (DistilBERT-base and ResNet-50, 96 posts in batches of 32, two cores) took 20 s
    that way, 12 s of them in the system, and 12 s with the pages kept, at a peak 10 % higher.
    """
    libc = _glibc()
    if libc is None:
        return
    if keep:
        # Never trim the heap, and never serve a large block by a mapping of its own, which ends when it is freed.
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_MMAP_MAX, 0)
    else:
        libc.mallopt(_M_MMAP_MAX, _MAPPED_AT_MOST)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIMMED_FROM)
        libc.malloc_trim(0)


def release_memory() -> None:
    """Give freed memory back to the system. Call it between runs: blocks of other sizes would find the kept ones too
    small, and memory would grow."""
    gc.collect()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def reset_peak_memory() -> None:
    """Start measuring the peak of :func:`peak_memory_mb` anew; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        log.debug("the peak of memory cannot be reset here")


def peak_memory_mb() -> float | None:
    """Largest resident size of the process since :func:`reset_peak_memory`, in MiB; None where the system does not
    tell it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return round(peaks[0] / 1024, 1) if peaks and os.access("/proc/self/clear_refs", os.W_OK) else None


def _set_matmul(matmul: str) -> None:
    """Hand float32 matrix products to torch's default library, or to oneDNN if it keeps float32.

    On a CPU torch multiplies float32 matrices with MKL, which takes its AVX2 path on any processor but Intel's. oneDNN,
    which torch carries as well, takes AVX-512 wherever it is: on an AMD EPYC (Zen 5) 1028 x 768 times 768 x 3072 ran at
    217 instead of 102 Gflop/s on one core. It compiles a kernel for each new shape (half a millisecond), so it serves
    batches whose shapes return.
    """
    import torch

    backend: Any = torch.backends.mkldnn  # its stubs know nothing of `matmul`
    if matmul == "onednn" and not onednn_keeps_float32():
        log.info("matrix products stay with torch's default library: oneDNN would be coarser than float32 here")
        matmul = "default"
    # torch leads float32 products to oneDNN only by the setting that permits bfloat16 inside of them.
    backend.matmul.fp32_precision = "bf16" if matmul == "onednn" else "none"


@cache
def onednn_keeps_float32() -> bool:
    """Whether products keep float32's digits when bfloat16 is permitted; 1 + 2^-12 has more than bfloat16 or TF32 can.

    oneDNN makes use of the permission where the processor has units for bfloat16 (AMX).
    """
    import torch

    backend: Any = torch.backends.mkldnn
    if not backend.is_available():
        return False
    value, before = 1 + 2**-12, backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "bf16"
    try:
        with torch.inference_mode():
            for size in _SIZES:
                rows, unit = torch.full((2, size, size), value), torch.eye(size)
                products = rows[0] @ unit, rows @ unit.expand(2, -1, -1), torch.addmm(torch.zeros(size), rows[0], unit)
                if not all(bool((product == value).all()) for product in products):
                    return False
    finally:
        backend.matmul.fp32_precision = before
    return True


def wide(model: "nn.Module") -> bool:
    """Whether the model multiplies by a matrix with at least 256 rows and columns, as those of published sizes do."""
    from torch import nn

    return any(isinstance(part, nn.Linear) and min(part.weight.shape) >= _WIDE for part in model.modules())


def _glibc() -> Any:
    """The C library with `mallopt` and `malloc_trim`, or None."""
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return libc if libc is not None and hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
