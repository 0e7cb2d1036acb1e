"""``python -m benchmarks [NAME …]``: run benchmarks, print a line each, keep them in results/benchmarks.json."""

import importlib
import json
import sys
from pathlib import Path

from benchmarks import Result
from msakit.files import write_atomically

HERE = Path(__file__).parent
FILE = HERE.parent / "results" / "benchmarks.json"


def main(wanted: list[str]) -> int:
    """Run the named benchmark modules, or all; the exit code is 1 if one missed its target."""
    there = sorted(path.stem for path in HERE.glob("[a-z]*.py"))
    unknown = [name for name in wanted if name not in there]
    if unknown:
        print(f"no benchmark {unknown[0]!r}: choose from {', '.join(there)}", file=sys.stderr)
        return 2
    missed = 0
    for name in wanted or there:
        for result in importlib.import_module(f"benchmarks.{name}").run():
            store(result)
            verdict = "met" if result.met else "MISSED"
            bound = "at most" if result.direction == "down" else "at least"
            print(
                f"{result.name}: {result.ratio:.3f} of {result.reference} (target {bound} {result.target:g}, {verdict})"
            )
            missed += not result.met
    return 1 if missed else 0


def store(result: Result) -> None:
    """Put a figure into the file, which holds those of earlier times by name."""
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    known[result.name] = result.as_dict()
    write_atomically(FILE, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
