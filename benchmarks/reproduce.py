"""Cold and warm time of ``make reproduce``, against the budgets that the mini profile keeps.

Cold means from a clone whose ``.venv`` is ready and whose ``build/`` is empty; warm means once more, nothing changed.
It runs in a copy of the checkout, so that what is built here stays.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import Result

ROOT = Path(__file__).parents[1]
COLD_BUDGET, WARM_BUDGET = 600.0, 10.0  # seconds


def run() -> list[Result]:
    """Two results: cold and warm seconds as shares of their budgets."""
    with tempfile.TemporaryDirectory(prefix="msakit bench ") as folder:
        clone = Path(folder) / "clone"
        # The working tree as it is, uncommitted changes included.
        shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".venv", "build", ".snakemake", ".*_cache"))
        (clone / ".venv").symlink_to(ROOT / ".venv")
        cold, warm = _seconds(clone), _seconds(clone)
    detail = {"cold_seconds": round(cold, 1), "warm_seconds": round(warm, 1)}
    return [
        Result("reproduce-cold", cold / COLD_BUDGET, 1.0, "down", f"the budget of {COLD_BUDGET:g} s", detail),
        Result("reproduce-warm", warm / WARM_BUDGET, 1.0, "down", f"the budget of {WARM_BUDGET:g} s", detail),
    ]


def _seconds(clone: Path) -> float:
    started = time.perf_counter()
    # The editable install points at the checkout; the copy's own sources must win.
    environment = {"PYTHONPATH": str(clone)}
    done = subprocess.run(["env", *[f"{k}={v}" for k, v in environment.items()], "make", "reproduce"], cwd=clone)
    if done.returncode:
        raise RuntimeError(f"make reproduce failed with exit code {done.returncode}; its messages are above")
    return time.perf_counter() - started
