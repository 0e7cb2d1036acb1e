"""The workflow plans the right jobs, in a copy of the tree whose path has a space in it; the jobs are stubs."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAPERS = {"ando2022", "toledo2022", "kim2022"}
CORPORA = {"mini-mosi", "mini-posts", "mini-memes", "mini-pool-mosi", "mini-pool-posts"}
ENCODERS = {"bert", "distilbert", "wavlm", "clip", "resnet", "visualbert", "word-vectors"}
LAST = {("publish", ""), ("summary", ""), ("report", ""), ("all", "")}
JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)
# What stands in for `python -m msakit.cli …`: it makes the folder that a job promises, and nothing else.
STUB = """#!/bin/sh
case $3 in corpus | pretrain) mkdir -p "$5/$4" ;; esac
"""


def snakemake(folder: Path, profile: str, *arguments: str) -> str:
    """What snakemake prints; the package is the copy's own, and `python` is the stub."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--cores", "2"]
    command += ["--configfile", f"workflow/profiles/{profile}.yaml", *arguments]
    path = f"{folder / 'stub'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(text: str) -> set[tuple[str, str]]:
    """(rule, wildcard) of every job of a dry run."""
    return {
        (rule, found[1] if (found := re.search(r"wildcards: \w+=([^\s,]+)", body)) else "")
        for rule, body in JOB.findall(text)
    }


def plan(folder: Path, profile: str = "mini", *arguments: str) -> set[tuple[str, str]]:
    return planned(snakemake(folder, profile, "--dry-run", *arguments))


def copy_tree(folder: Path) -> Path:
    kept = {".py", ".yaml", ".csv", ".css", ".js", ".j2", ".ipynb", ""}
    for part in ("workflow", "msakit", "notebooks"):
        for file in (path for path in (ROOT / part).rglob("*") if path.is_file() and path.suffix in kept):
            (folder / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, folder / file.relative_to(ROOT))
    (folder / "stub").mkdir()
    (folder / "stub/python").write_text(STUB)
    (folder / "stub/python").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which nothing was built."""
    return copy_tree(tmp_path_factory.mktemp("fresh") / "my copy of msakit")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which every job has run, as a stub."""
    folder = copy_tree(tmp_path_factory.mktemp("built") / "my copy of msakit")
    snakemake(folder, "mini")
    assert plan(folder) == set()
    return folder


@contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[None]:
    """The file with one text replaced, and a date before everything that was built; put back afterwards."""
    text, stat = path.read_text(), path.stat()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    os.utime(path, (0, 0))
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def only(*papers: str) -> set[tuple[str, str]]:
    return {("paper", paper) for paper in papers} | LAST


def test_the_mini_profile_plans_everything_from_nothing(fresh: Path):
    text = snakemake(fresh, "mini", "--dry-run", "--printshellcmds")
    expected = {("corpus", name) for name in CORPORA} | {("encoder", name) for name in ENCODERS}
    assert planned(text) == expected | only(*PAPERS)
    assert not (fresh / "build").exists()
    assert not (fresh / "results").exists()
    commands = re.findall(r"^Shell command: (python .*)$", text, re.MULTILINE)
    assert len(commands) == len(expected) + len(PAPERS) + 3
    assert all(command.startswith("python -m msakit.cli ") for command in commands)
    assert text.count('"preset": "mini"') == len(PAPERS)
    # Paths are relative, so that the space in the folder's name needs no care.
    assert not any(str(fresh) in command for command in commands)


def test_the_real_data_profile_plans_its_papers_on_the_given_folder(fresh: Path):
    text = snakemake(fresh, "cmu-mosi", "--dry-run", "--printshellcmds", "--config", "cmu_mosi=../some where/mosi")
    assert planned(text) == only("ando2022", "kim2022")
    assert '"corpora": ["../some where/mosi"]' in text
    assert '"path": "../some where/mosi"' in text
    assert "{cmu_mosi}" not in text
    assert "results/cmu-mosi" in text


def test_a_papers_runs_are_dealt_out_among_jobs_before_the_paper_gathers_them(fresh: Path):
    profile = yaml.safe_load((fresh / "workflow/profiles/mini.yaml").read_text())
    profile["profile"] = "dealt"
    profile["jobs"] = {"kim2022": 2, "toledo2022": 3}
    profile["notebooks"]["kim2022"]["seeds"] = [0, 1, 2, 3, 4]
    profile["notebooks"]["toledo2022"] |= {"folds": 5, "test_folds": None}
    (fresh / "workflow/profiles/dealt.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    text = snakemake(fresh, "dealt", "--dry-run", "--printshellcmds")
    jobs = re.findall(r"kim2022(\.job-\d)?\.ipynb --file .*\"seeds\": (\[[0-9, ]*\])", text)
    assert dict(jobs) == {".job-0": "[0, 2, 4]", ".job-1": "[1, 3]", "": "[0, 1, 2, 3, 4]"}
    jobs = re.findall(r"toledo2022(\.job-\d)?\.ipynb --file .*\"test_folds\": (\[[0-9, ]*\]|null)", text)
    assert dict(jobs) == {".job-0": "[0, 3]", ".job-1": "[1, 4]", ".job-2": "[2]", "": "null"}
    assert text.count('"preset": "dealt"') == 2 + 3 + len(PAPERS)


def test_a_changed_notebook_plans_its_paper_alone(built: Path):
    with changed(built / "notebooks/experiments/toledo2022.ipynb", '"cells"', '"cells" '):
        assert plan(built) == only("toledo2022")
    assert plan(built) == set()


def test_a_changed_parameter_plans_its_paper_alone(built: Path):
    profile = built / "workflow/profiles/mini.yaml"
    parameters = yaml.safe_load(profile.read_text())
    parameters["notebooks"]["kim2022"]["seeds"] = [7]
    with changed(profile, profile.read_text(), yaml.safe_dump(parameters, sort_keys=False)):
        assert plan(built) == only("kim2022")


def test_a_changed_model_plans_the_papers_that_use_it(built: Path):
    """Its date is older than what was built: the content counts."""
    with changed(built / "msakit/models/cms.py", '"""', '"""Changed. '):
        assert plan(built) == only("kim2022")
    os.utime(built / "msakit/models/cms.py")
    assert plan(built) == set()


def test_changed_facts_of_a_paper_plan_it_alone(built: Path):
    with changed(built / "msakit/papers/ando2022/published.csv", "\n", "\n\n"):
        assert plan(built) == only("ando2022")


def test_a_changed_generator_plans_its_corpus_and_what_rests_on_it(built: Path):
    with changed(built / "msakit/data/synthetic/mini_memes.py", '"""', '"""Changed. '):
        found = plan(built)
    assert {("corpus", "mini-memes"), ("paper", "toledo2022")} < found
    assert ("corpus", "mini-mosi") not in found


def test_a_changed_encoder_recipe_plans_the_encoder_and_what_rests_on_it(built: Path):
    with changed(built / "msakit/encoders/pretrain/wavlm.py", '"""', '"""Changed. '):
        assert plan(built) == only("ando2022") | {("encoder", "wavlm")}


def test_a_changed_summary_plans_itself_alone(built: Path):
    with changed(built / "notebooks/reports/summary.ipynb", '"cells"', '"cells" '):
        assert plan(built) == {("summary", ""), ("report", ""), ("all", "")}


def test_a_changed_page_plans_the_report_alone(built: Path):
    with changed(built / "msakit/reporting/site/page.css", "\n", "\n\n"):
        assert plan(built) == {("report", ""), ("all", "")}
