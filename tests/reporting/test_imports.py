"""Rebuilding and testing published results needs no library that trains."""

import subprocess
import sys

import numpy as np
import pytest
from small_runs import regression, write

from msakit import papers
from msakit.reporting.publish import publish

HEAVY = ("torch", "transformers", "datasets", "accelerate")


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reports_and_the_papers_tables_and_figures_are_light():
    modules = [f"msakit.papers.{name}.{part}" for name in papers.PAPERS for part in ("tables", "figures")]
    modules += [f"msakit.reporting.{part}" for part in ("publish", "compare", "latex", "page", "readme", "site.build")]
    code = f"import sys, {', '.join(modules)}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert run(code) == "[]\n"


@pytest.mark.parametrize("command", ["check-results", "claims"])
def test_a_command_on_published_results_is_light(command, tmp_path):
    label = np.linspace(-2, 2, 12)
    for arm in ("mag", "text-only"):
        for seed in range(2):
            write(tmp_path / "built" / "runs", arm, seed, regression(label, label + 0.1 * (1 + seed)), title=arm)
    (tmp_path / "built/heads/kim2022/mini-mosi/mag").mkdir(parents=True)
    (tmp_path / "built/heads/kim2022/mini-mosi/mag/config.json").write_text("{}")
    publish(tmp_path / "built", tmp_path / "mini", "mini", papers.load_all())
    code = (
        "import sys; from typer.testing import CliRunner; from msakit.cli import app\n"
        "done = CliRunner().invoke(app, sys.argv[1:])\n"
        f"print(done.exit_code, sorted(set({HEAVY!r}) & set(sys.modules))); print(done.output, done.exception)"
    )
    assert run(code, command, tmp_path / "mini").startswith("0 []\n")
