"""Freed memory is kept: a block asked for again brings no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from msakit.memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    torch.ones(16 * 2**20)  # 64 MiB: 16384 pages

for _ in range(3):
    step()
before = faults()
for _ in range(3):
    step()
print(faults() - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_a_block_that_is_asked_for_again_brings_no_page_faults():
    # Huge pages make them fewer, but there are always some without it.
    assert faults("kept") < 20 < faults("returned")
