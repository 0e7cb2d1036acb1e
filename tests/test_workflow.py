"""The workflow plans the right jobs: dry runs in a copy of the tree whose path has a space in it."""

import base64
import json
import os
import re
import shlex
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


def snakemake(folder: Path, profile: str, *arguments: str) -> str:
    """What snakemake prints; the package is the copy's own."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--cores", "1"]
    command += ["--configfile", f"workflow/profiles/{profile}.yaml", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
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
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns(".snakemake"))
    for part, kept in (("msakit", {".py", ".yaml", ".css", ".js", ".j2"}), ("notebooks", {".ipynb"})):
        for file in (path for path in (ROOT / part).rglob("*") if path.suffix in kept):
            (folder / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, folder / file.relative_to(ROOT))
    return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which nothing was built."""
    return copy_tree(tmp_path_factory.mktemp("fresh") / "my copy of msakit")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that snakemake takes for finished: every output is there, empty, and recorded as made."""
    folder = copy_tree(tmp_path_factory.mktemp("built") / "my copy of msakit")
    for kind, names in (("corpora", CORPORA), ("encoders", ENCODERS)):
        for name in names:
            (folder / "build" / kind / name).mkdir(parents=True)
    (folder / "build/mini/notebooks").mkdir(parents=True)
    for name in (*PAPERS, "published", "summary", "report"):
        (folder / "build/mini" / f"{name}.done").touch()
    for name in (*PAPERS, "summary"):
        (folder / "build/mini/notebooks" / f"{name}.ipynb").touch()
    snakemake(folder, "mini", "--touch")
    record_parameters(folder)
    assert plan(folder) == set()
    return folder


def record_parameters(folder: Path) -> None:
    """Note the papers' parameters as a finished run does, in snakemake's own records; --touch leaves them out."""
    text = snakemake(folder, "mini", "--dry-run", "--forceall", "--printshellcmds")
    given = dict(re.findall(r"run notebooks/experiments/(\w+)\.ipynb .* --file <\(echo (.*)\)$", text, re.MULTILINE))
    assert set(given) == PAPERS
    for paper, quoted in given.items():
        (value,) = shlex.split(quoted)
        name = base64.b64encode(f"build/mini/{paper}.done".encode()).decode()
        record = {"rule": "paper", "params": [repr(value)], "record_format_version": 6}
        (folder / ".snakemake/metadata" / name).write_text(json.dumps(record))


@contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[None]:
    """The file with one text replaced; put back afterwards, its time too."""
    text, stat = path.read_text(), path.stat()
    assert old in text
    path.write_text(text.replace(old, new, 1))
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
    # Paths are relative, so that the space in the folder's name needs no care.
    assert not any(str(fresh) in command for command in commands)


def test_the_mini_profile_gives_parameters_that_the_notebooks_declare():
    from msakit.notebook import resolve, template_declarations

    profile = yaml.safe_load((ROOT / "workflow/profiles/mini.yaml").read_text())
    assert set(profile["notebooks"]) == PAPERS
    for paper, wanted in profile["notebooks"].items():
        declared = template_declarations(ROOT / f"notebooks/experiments/{paper}.ipynb")
        assert set(wanted["parameters"]) <= set(resolve(declared, wanted["parameters"]))


def test_the_real_data_profile_plans_its_papers_on_the_given_folder(fresh: Path):
    text = snakemake(fresh, "cmu-mosi", "--dry-run", "--printshellcmds", "--config", "data=../some where/mosi")
    assert planned(text) == only("ando2022", "kim2022")
    assert '"corpus": "../some where/mosi"' in text
    assert '"path": "../some where/mosi"' in text
    assert "{data}" not in text
    assert "results/cmu-mosi" in text


def test_shares_of_the_seeds_run_before_the_paper_gathers_them(fresh: Path):
    profile = yaml.safe_load((fresh / "workflow/profiles/mini.yaml").read_text())
    profile["notebooks"]["kim2022"]["shares"] = 2
    profile["notebooks"]["kim2022"]["parameters"]["seeds"] = [0, 1, 2, 3, 4]
    (fresh / "workflow/profiles/shared.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    text = snakemake(fresh, "shared", "--dry-run", "--printshellcmds")
    jobs = re.findall(r"kim2022(\.share-\d)?\.ipynb --file .*\"seeds\": (\[[0-9, ]*\])", text)
    assert dict(jobs) == {".share-0": "[0, 2, 4]", ".share-1": "[1, 3]", "": "[0, 1, 2, 3, 4]"}
    assert len(planned(text) & {("share", "kim2022"), ("paper", "kim2022")}) == 2


def test_a_changed_notebook_plans_its_paper_alone(built: Path):
    with changed(built / "notebooks/experiments/toledo2022.ipynb", '"cells"', '"cells" '):
        assert plan(built) == only("toledo2022")
    assert plan(built) == set()


def test_a_changed_parameter_plans_its_paper_alone(built: Path):
    profile = yaml.safe_load((built / "workflow/profiles/mini.yaml").read_text())
    profile["notebooks"]["kim2022"]["parameters"]["seeds"] = [0, 1]
    (built / "workflow/profiles/fewer.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    assert plan(built, "fewer") == only("kim2022")


def test_a_changed_fusion_module_plans_the_papers_that_use_it(built: Path):
    with changed(built / "msakit/fusion/cms.py", '"""', '"""Changed. '):
        assert plan(built) == only("kim2022")


def test_a_changed_encoder_recipe_plans_the_encoder_and_what_rests_on_it(built: Path):
    with changed(built / "msakit/encoders/pretrain/wavlm.py", '"""', '"""Changed. '):
        assert plan(built) == only("ando2022") | {("encoder", "wavlm")}


def test_a_changed_summary_plans_itself_alone(built: Path):
    with changed(built / "notebooks/reports/summary.ipynb", '"cells"', '"cells" '):
        assert plan(built) == {("summary", ""), ("report", ""), ("all", "")}
