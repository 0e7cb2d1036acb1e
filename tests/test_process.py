"""Freed memory is kept and given back on demand; products of oneDNN stay float32; no library function switches."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import msakit
from msakit import process

PROGRAM = """
import json, resource
import torch
from msakit import process

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def steps():
    before = faults()
    for _ in range(3):
        torch.ones(16 * 2**20)  # 64 MiB: 16384 pages
    return faults() - before

steps()
found = {"before": steps()}
process.configure()
for _ in range(8):  # until a freed block is there that small ones have not nibbled at
    steps()
found |= {"kept": steps(), "resident_kept": resident()}
process.release_memory()
found |= {"resident_released": resident()}
process.configure(keep_memory=False)
print(json.dumps(found | {"after": steps()}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept_until_it_is_released():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    # Huge pages make the faults fewer, but without keeping there are always some.
    assert found["kept"] < 20 < min(found["before"], found["after"])
    assert found["resident_kept"] - found["resident_released"] > 50 * 2**20


@pytest.fixture
def configured(monkeypatch):
    """Switches that the end of the test puts back; the allocator of the test process stays as it is."""
    monkeypatch.setattr(process, "keep_freed_memory", lambda keep: None)
    threads = torch.get_num_threads()
    yield
    process.configure(threads=threads)


def precision() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.mark.usefixtures("configured")
def test_products_have_float32_accuracy_whatever_the_processor():
    torch.manual_seed(0)
    left, right, bias = torch.randn(3, 130, 200), torch.randn(70, 200), torch.randn(70)
    exact = left.double() @ right.double().T + bias.double()
    process.configure(matmul="onednn")
    found = torch.nn.functional.linear(left, right, bias)
    # bfloat16 inside would be off by about 0.05 here.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("configured")
def test_the_last_call_counts():
    process.configure(matmul="onednn", threads=1)
    assert precision() == ("bf16" if process.onednn_keeps_float32() else "none")
    assert torch.get_num_threads() == 1
    process.configure()
    assert precision() == "none"


@pytest.mark.usefixtures("configured")
def test_nothing_is_permitted_where_products_would_be_coarser(monkeypatch):
    monkeypatch.setattr(process, "onednn_keeps_float32", lambda: False)
    process.configure(matmul="onednn")
    assert precision() == "none"


def test_the_trial_tells_bfloat16_from_float32(monkeypatch):
    """As on a processor whose units for bfloat16 oneDNN would use."""
    matmul = torch.Tensor.__matmul__

    def in_bfloat16(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return matmul(left.bfloat16(), right.bfloat16()).float()

    before = precision()
    monkeypatch.setattr(torch.Tensor, "__matmul__", in_bfloat16)
    assert not process.onednn_keeps_float32.__wrapped__()
    assert precision() == before


def test_wide_models_are_those_of_published_sizes():
    narrow = torch.nn.Sequential(torch.nn.Linear(1024, 128), torch.nn.ReLU(), torch.nn.Conv1d(512, 512, 1))
    assert not process.wide(narrow)
    assert process.wide(torch.nn.Sequential(narrow, torch.nn.Linear(256, 300)))


def test_only_who_starts_a_process_configures_it():
    package = Path(msakit.__file__).parent
    switch = re.compile(r"process\.configure\(|import configure|fp32_precision =|set_num_threads\(|mallopt")
    callers = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if switch.search(path.read_text())
    }
    assert callers <= {"process.py", "cli.py", "notebook.py"}
