"""A file or a folder is there whole or not at all."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from msakit.files import new_folder, replacing, sha256_of, write_atomically


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o044, "readable by others where the umask allows it"
    assert sha256_of(path) == hashlib.sha256(b"new").hexdigest()


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "array.npz"
    write_atomically(path, b"old")

    def fail():
        with replacing(path) as partial:
            assert partial.suffix == ".npz", "some writers choose the format by it"
            partial.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    write_atomically(path, b"old")
    script = """
        import os, signal, sys
        from msakit.files import replacing
        with replacing(sys.argv[1]) as partial:
            partial.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (other,) = [each for each in tmp_path.iterdir() if each != path]
    assert other.name.startswith("."), "readers of *.json pass it over"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "corpus"

    def fail():
        with new_folder(folder) as partial:
            (partial / "half").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
    stale = tmp_path / f"corpus.{os.getpid()}.partial"  # of a process of the same number, long ago
    stale.mkdir()
    (stale / "junk").write_text("x")
    with new_folder(folder) as partial:
        (partial / "whole").write_text("x")
        assert not folder.exists()
    assert [each.name for each in folder.iterdir()] == ["whole"]
    assert list(tmp_path.iterdir()) == [folder]


def test_the_folder_of_a_quicker_process_is_kept(tmp_path):
    folder = tmp_path / "corpus"
    with new_folder(folder) as partial:
        (partial / "mine").write_text("x")
        folder.mkdir()
        (folder / "theirs").write_text("x")
    assert [each.name for each in folder.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [folder]
