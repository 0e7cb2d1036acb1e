"""The dependency reading behind the caches: what is imported counts, what only shows results does not."""

from pathlib import Path

import pytest

from msakit.sources import PACKAGE, PRESENTATION, fingerprint, meaning, sources


def relative(files: list[str]) -> set[str]:
    return {str(Path(file).relative_to(PACKAGE)) for file in files}


def test_imports_are_followed_and_settings_come_along():
    found = relative(sources("papers/ando2022.py"))
    assert {"papers/ando2022.py", "papers/ando2022.yaml", "fusion/gated.py", "training/loop.py", "features.py"} <= found
    assert "fusion/cms.py" not in found


def test_registry_strings_are_followed():
    assert "data/mini_mosi.py" in relative(sources("data/__init__.py"))


def test_presentation_does_not_reach_the_fingerprint():
    found = relative(sources("papers/kim2022.py", without=PRESENTATION))
    assert "fusion/cms.py" in found
    assert not any(file.startswith("reporting") or file == "records.py" for file in found)


def test_fingerprints_differ_between_papers():
    assert len({fingerprint(f"papers/{paper}.py") for paper in ("ando2022", "toledo2022", "kim2022")}) == 3


def test_a_part_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError, match="no part of the package"):
        sources("papers/nobody1999.py")


def test_comments_docstrings_and_layout_mean_nothing():
    plain = "def f(x):\n    return x + 1\n"
    told = '"""A module."""\n\n\ndef f(x):  # one more\n    """Add one."""\n    return (x +\n            1)\n'
    assert meaning(plain) == meaning(told)
    assert meaning(plain) != meaning(plain.replace("1", "2"))
