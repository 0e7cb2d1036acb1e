"""What a results folder holds: written when results are published, compared when they are checked.

Nothing in it depends on when or where the runs ran; that is in their runtimes, which `provenance` sums up.
"""

import json
from pathlib import Path
from typing import Any

from msakit.evaluation import metrics
from msakit.files import sha256_of, write_atomically
from msakit.runs.store import Runs, read_runs

SCHEMA = 3  # of this file
FILE = "manifest.json"
LISTED = ("runs", "tables", "figures", "heads")
BESIDE = ("claims.json", "claims.md", "references.bib", "ro-crate-metadata.json")  # texts made from the runs


def manifest(results: Path, profile: str) -> dict[str, Any]:
    """The manifest of a profile's results. Raises RecordError for a bad run."""
    runs = read_runs(Path(results) / "runs")
    frame = runs.frame
    return {
        "schema": SCHEMA,
        "metric_version": metrics.VERSION,
        "profile": profile,
        "runs": len(runs),
        "papers": {str(name): sorted(map(int, part["version"].unique())) for name, part in frame.groupby("paper")},
        "corpora": {
            str(name): {
                "fingerprint": sorted(part["fingerprint"].unique()),
                "generated": bool(part["generated"].any()),
                "task": str(part["task"].iloc[0]),
            }
            for name, part in frame.groupby("corpus")
        },
        "seeds": {str(name): sorted(map(int, part["seed"].unique())) for name, part in frame.groupby("paper")},
        "folds": {str(name): int(part["fold"].nunique()) for name, part in frame.groupby("paper")},
        "files": hashes(results),
    }


def provenance(runs: Runs) -> dict[str, Any]:
    """Where the runs ran and how long: seconds (their sum), commits, dirty, machines, devices, versions (by library).

    Each holds what the runs recorded, several values where they grew over several machines or versions; all are empty
    where nothing was recorded.
    """
    runtimes = [run.runtime for run in runs if run.runtime is not None]
    environments = [runtime.environment for runtime in runtimes]

    def values(name: str) -> list[str]:
        return sorted({str(each[name]) for each in environments if each.get(name) is not None})

    apart = {"commit", "dirty", "machine", "device", "platform"}
    names = dict.fromkeys(name for each in environments for name in each if name not in apart)
    return {
        "seconds": round(sum(runtime.seconds for runtime in runtimes), 1),
        "commits": values("commit"),
        "dirty": any(each.get("dirty") for each in environments),
        "machines": values("machine"),
        "devices": values("device"),
        "versions": {name: ", ".join(values(name)) for name in names if values(name)},
    }


def hashes(results: Path) -> dict[str, str]:
    """sha256 of each file of LISTED folders, and of BESIDE, by path relative to the results folder."""
    files = [path for folder in LISTED for path in sorted((Path(results) / folder).rglob("*")) if path.is_file()]
    files += [Path(results) / name for name in BESIDE if (Path(results) / name).is_file()]
    return {path.relative_to(results).as_posix(): sha256_of(path) for path in files}


def read_manifest(results: Path) -> dict[str, Any]:
    """Raises ValueError where the folder holds no published results."""
    path = Path(results) / FILE
    if not path.is_file():
        raise ValueError(f"{results} has no {FILE}: publish results there first, for instance `make reproduce`")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_manifest(results: Path, profile: str) -> None:
    """Write `manifest.json` into the results folder."""
    text = json.dumps(manifest(results, profile), indent=1, sort_keys=True, allow_nan=False)
    write_atomically(Path(results) / FILE, f"{text}\n".encode())
