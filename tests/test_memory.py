"""Freed memory is kept for the time of a training, and given back afterwards."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource
import torch
from msakit.memory import kept_memory

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
with kept_memory():
    for _ in range(8):  # until a freed block is there that small ones have not nibbled at
        steps()
    found |= {"within": steps(), "resident_within": resident()}
found |= {"resident_after": resident(), "after": steps()}
print(json.dumps(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept_within_and_given_back_after():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    # Huge pages make the faults fewer, but without keeping there are always some.
    assert found["within"] < 20 < min(found["before"], found["after"])
    assert found["resident_within"] - found["resident_after"] > 50 * 2**20
