"""What a results folder holds, and what made it: written when results are published, compared when they are checked."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from msakit.evaluation import metrics
from msakit.runs import record as records

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy", "pandas", "scipy", "scikit-learn",
            "matplotlib", "seaborn", "librosa", "snakemake", "papermill")  # fmt: skip
FILE = "manifest.json"
LISTED = ("runs", "tables", "figures", "heads")
BESIDE = ("claims.json", "claims.md", "references.bib", "ro-crate-metadata.json")


def manifest(
    results: Path, profile: str, started: str | None = None, finished: str | None = None, **more: Any
) -> dict[str, Any]:
    """The manifest of a profile's results.

    started, finished: ISO times of the workflow, where known. seconds sums the runs' own times; commits, dirty and
    machines are those the runs recorded (several, if the results grew over several). Raises RecordError for a bad run.
    """
    results = Path(results)
    runs = records.read_all(results / "runs")
    frame = runs.frame
    environments = [run.record.environment for run in runs]
    content = {
        "schema": records.SCHEMA,
        "metric_version": metrics.VERSION,
        "profile": profile,
        "started": started,
        "finished": finished,
        "seconds": round(float(frame["seconds"].sum()), 1),
        "runs": len(runs),
        "papers": sorted(frame["paper"].unique()),
        "corpora": {
            name: {"fingerprint": sorted(part["fingerprint"].unique()), "generated": bool(part["generated"].any())}
            for name, part in frame.groupby("corpus")
        },
        "seeds": {paper: sorted(part["seed"].unique()) for paper, part in frame.groupby("paper")},
        "commits": sorted({item["commit"] for item in environments if item["commit"]}),
        "dirty": any(item["dirty"] for item in environments),
        "machines": sorted({item["machine"] for item in environments}),
        "devices": sorted({item["device"] for item in environments}),
        "versions": {"python": records.environment()["python"], **_versions()},
        "files": hashes(results),
        **more,
    }
    plain: dict[str, Any] = records.plain(content)
    return plain


def hashes(results: Path) -> dict[str, str]:
    """sha256 of each file of LISTED folders, and of BESIDE, by path relative to the results folder."""
    files = [path for folder in LISTED for path in sorted((Path(results) / folder).rglob("*")) if path.is_file()]
    files += [Path(results) / name for name in BESIDE if (Path(results) / name).is_file()]
    return {path.relative_to(results).as_posix(): records.file_sha256(path) for path in files}


def write_manifest(results: Path, profile: str, **more: Any) -> Path:
    """Write `manifest.json` into the results folder; keywords as for `manifest`."""
    path = Path(results) / FILE
    text = json.dumps(manifest(results, profile, **more), indent=1, sort_keys=True, allow_nan=False)
    records.write_atomically(path, f"{text}\n".encode())
    return path


def refresh_hashes(results: Path) -> None:
    """Note the present files in an existing manifest, and leave the rest of it as it is."""
    path = Path(results) / FILE
    content = json.loads(path.read_text(encoding="utf-8")) | {"files": hashes(results)}
    records.write_atomically(path, (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
