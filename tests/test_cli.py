"""The command line: a mistake gets one line that says how to mend it, exit code 1, and no traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msakit import cli

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "experiments" / "kim2022.ipynb"
COMMANDS = ("corpus", "pretrain", "run", "publish", "check-results", "walkthrough", "check-model", "latex")


def error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that `msakit ARGUMENTS` writes before it exits with code 1."""
    monkeypatch.setattr(sys, "argv", ["msakit", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = written.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_help_lists_the_commands():
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    there = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert there >= set(COMMANDS)
    for name in there:
        assert f" {name} " in shown.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    shown = CliRunner().invoke(cli.app, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_a_real_process_shows_no_traceback(tmp_path: Path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "segments.csv").write_text("segment_id,split,label,text\na,train,1,good\n")
    command = [sys.executable, "-m", "msakit.cli", "corpus", str(tmp_path / "bad"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=NOTEBOOK.parents[2])
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert "error:" in line
    assert "segments.csv lacks the columns video_id, clip_id" in line


def test_a_folder_in_place_of_a_file(tmp_path, monkeypatch, capsys):
    assert str(tmp_path) in error(monkeypatch, capsys, "run", NOTEBOOK, tmp_path / "out.ipynb", "--file", tmp_path)


def test_a_folder_that_is_no_corpus(tmp_path, monkeypatch, capsys):
    assert "has no segments.csv" in error(monkeypatch, capsys, "corpus", tmp_path, tmp_path)


def test_a_misspelt_corpus_names_the_choices_and_the_nearest(tmp_path, monkeypatch, capsys):
    line = error(monkeypatch, capsys, "corpus", "mini-mosy", tmp_path)
    assert "choose one of mini-mosi, mini-posts" in line
    assert "Did you mean 'mini-mosi'?" in line
    assert not any(tmp_path.iterdir())


def test_a_good_folder_is_read_and_counted(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "good"
    folder.mkdir()
    rows = [f"s{k},v{k},1,{split},1.5,so good\n" for k, split in enumerate(("train", "train", "valid", "test"))]
    (folder / "segments.csv").write_text("".join(["segment_id,video_id,clip_id,split,label,text\n", *rows]))
    monkeypatch.setattr(sys, "argv", ["msakit", "--quiet", "corpus", str(folder), str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code in (0, None)
    assert capsys.readouterr().out == f"{folder}: train 2, valid 1, test 1\n"


def test_a_misspelt_parameter_names_the_nearest_and_starts_nothing(tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.ipynb"
    line = error(monkeypatch, capsys, "run", NOTEBOOK, output, "-p", "sedes=[0]")
    assert line.startswith("unknown parameter 'sedes': this notebook has ")
    assert "Did you mean 'seeds'?" in line
    assert not output.exists()


def test_a_value_of_the_wrong_type_is_named(tmp_path, monkeypatch, capsys):
    line = error(monkeypatch, capsys, "run", NOTEBOOK, tmp_path / "out.ipynb", "-p", "seeds=three")
    assert "parameter 'seeds' must be list[int] | None, not 'three' (str)" in line


def test_parameters_of_a_file_are_checked_too_and_the_option_wins(tmp_path, monkeypatch, capsys):
    given = tmp_path / "given.yaml"
    given.write_text("seeds: [0, 1]\ncorpsu: mini-mosi\n")
    line = error(monkeypatch, capsys, "run", NOTEBOOK, tmp_path / "out.ipynb", "--file", given)
    assert "Did you mean 'corpora'?" in line
    given.write_text("seeds: [0, 1]\n")
    line = error(monkeypatch, capsys, "run", NOTEBOOK, tmp_path / "out.ipynb", "--file", given, "-p", "seeds=1")
    assert "'seeds' must be list[int] | None, not 1 (int)" in line


def test_a_parameter_without_a_value_is_a_usage_error(tmp_path):
    shown = CliRunner().invoke(cli.app, ["run", str(NOTEBOOK), str(tmp_path / "out.ipynb"), "-p", "seeds"])
    assert shown.exit_code == 2
    assert "write -p name=value" in shown.output


def test_a_missing_notebook_names_its_siblings(tmp_path, monkeypatch, capsys):
    line = error(monkeypatch, capsys, "run", NOTEBOOK.with_name("kim2023.ipynb"), tmp_path / "out.ipynb")
    assert "there is no notebook" in line
    assert "ando2022.ipynb, kim2022.ipynb" in line


def test_results_that_are_not_there_are_an_error(tmp_path, monkeypatch, capsys):
    line = error(monkeypatch, capsys, "check-results", tmp_path / "mini")
    assert f"{tmp_path / 'mini' / 'runs'}: no such folder of runs" in line
    monkeypatch.chdir(tmp_path)
    assert "there is no results/*/manifest.json" in error(monkeypatch, capsys, "check-results")


def test_publishing_nothing_is_an_error_and_leaves_no_results(tmp_path, monkeypatch, capsys):
    (tmp_path / "built").mkdir()
    target = tmp_path / "results" / "mini"
    line = error(monkeypatch, capsys, "publish", tmp_path / "built", target, "--profile", "mini")
    assert "no such folder of runs" in line
    assert not target.exists()


@pytest.mark.parametrize("text", ["- a list\n", "seeds: [0\n"])
def test_parameters_that_are_no_mapping_are_an_error(tmp_path, monkeypatch, capsys, text):
    (tmp_path / "given.yaml").write_text(text)
    error(monkeypatch, capsys, "run", NOTEBOOK, tmp_path / "out.ipynb", "--file", tmp_path / "given.yaml")


def test_check_model_lists_every_check_and_fails_with_the_faulty_class(tmp_path):
    good = CliRunner().invoke(cli.app, ["check-model", "gated"])
    assert good.exit_code == 0, good.output
    assert "passed" in good.output
    (tmp_path / "mine.py").write_text("class Bare:\n    pass\n")
    bad = CliRunner().invoke(cli.app, ["check-model", f"{tmp_path / 'mine.py'}:Bare"])
    assert bad.exit_code == 1
    assert "it has no INPUTS" in bad.output


@pytest.mark.parametrize("command", ["--help", "claims", "check-results", "latex", "compare"])
def test_reports_import_neither_torch_nor_transformers(command: str, tmp_path: Path):
    """A whole run of each command, on a copy of the published results."""
    folder = "results/mini"
    if command != "--help":
        shutil.copytree(NOTEBOOK.parents[2] / folder, tmp_path / folder)
    given = {"--help": [], "latex": [folder, "out"], "compare": [folder, folder]}.get(command, [folder])
    code = (
        f"import sys\nfrom msakit import cli\nsys.argv = ['msakit', *{[command, *given]!r}]\n"
        "try: cli.main()\nexcept SystemExit as end: print(end.code)\n"
        "print('heavy:', *sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-2:] == ["0", "heavy:"], done.stdout[-2000:] + done.stderr[-2000:]
