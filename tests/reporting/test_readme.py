"""The README's numbers are the published ones, and so are those of the walkthroughs' text; its links lead somewhere."""

import re
from pathlib import Path

import nbformat
import pytest

from msakit.reporting.readme import BLOCK, check, filled, refresh

ROOT = Path(__file__).parents[2]
# Typed all the same, each for its reason: (file's name, what it says) -> why it is no result of a run.
ALLOWED = {
    ("README.md", "3.11"): "the oldest Python that pyproject.toml admits",
    ("README.md", "4 GB"): "a bound, which the measured peak memory of benchmarks/reproduce.py must keep",
}

# What a measurement looks like in prose: a decimal point, or a unit, a percentage, a factor behind the digits.
UNITS = r"%|×|per cent\b|times\b|[kMG]?B\b|ms\b|s\b|min\b|seconds\b|minutes\b|hours\b"
TYPED = re.compile(rf"(?<![\w.])\d+(?:[.,]\d+)*(?:\s?(?:{UNITS}))?")
CODE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
TARGET = re.compile(r"\]\([^)]*\)|https?://\S+|<!--.*?-->", re.DOTALL)


def typed_numbers(text: str) -> list[tuple[int, str]]:
    """(line, number) of what looks like a measurement and is in no block, code fence, link target or comment."""

    def blank(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n")

    for pattern in (BLOCK, CODE, TARGET):
        text = pattern.sub(blank, text)
    found = [(line, hit[0]) for line, row in enumerate(text.splitlines(), start=1) for hit in TYPED.finditer(row)]
    return [(line, value) for line, value in found if not value.isdigit()]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    table = tmp_path / "results" / "a.md"
    table.parent.mkdir()
    table.write_text("## Heading\n\n| x |\n|---|\n| 1 |\n")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table: results/a.md -->\nold\n<!-- end -->\nafter\n")
    return readme


def test_blocks_are_filled_without_the_heading_and_the_rest_stays(page: Path):
    refresh(page)
    expected = "before\n<!-- table: results/a.md -->\n| x |\n|---|\n| 1 |\n<!-- end -->\nafter\n"
    assert page.read_text() == expected
    assert filled(expected, page.parent) == expected
    assert check(page) == "1 tables, all as published"


def test_a_typed_number_is_found(page: Path):
    with pytest.raises(ValueError, match="refresh-readme"):
        check(page)


def test_a_table_that_is_not_there_is_named(page: Path):
    page.write_text(page.read_text().replace("a.md", "b.md"))
    with pytest.raises(ValueError, match=r"results/b\.md"):
        refresh(page)


def test_a_page_without_a_block_is_not_called_checked(page: Path):
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no table block"):
        check(page)


def test_the_readme_shows_published_tables_and_its_links_lead_somewhere():
    check(ROOT / "README.md")
    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert len(links) >= 10
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_what_looks_like_a_measurement_is_found():
    text = """Better by 0.021, that is 3 % or 2× (4 times) in 97 s with 1.5 GB; version 1.2.3.
See [page](https://x.org/1.25) and arXiv <!-- 9.5 --> in 2017, layer 3 of 24, ids 1284/229/686.
```
rate: 5.0e-4
```
<!-- table: a.md -->
| 0.5 |
<!-- end -->
On the range 0.5-0.7.
"""
    found = typed_numbers(text)
    assert [value for line, value in found if line == 1] == ["0.021", "3 %", "2×", "4 times", "97 s", "1.5 GB", "1.2.3"]
    assert [(line, value) for line, value in found if line > 1] == [(9, "0.5"), (9, "0.7")]


def pages() -> dict[str, str]:
    """The text of the README and of the walkthroughs' Markdown cells; their outputs are computed."""
    found = {"README.md": (ROOT / "README.md").read_text()}
    for path in sorted((ROOT / "notebooks/walkthroughs").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        found[path.name] = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return found


def test_no_result_is_typed():
    texts = pages()
    assert len(texts) >= 2
    found = [(name, value) for name, text in texts.items() for _, value in typed_numbers(text)]
    typed = sorted({f"{name}: {value}" for name, value in found if (name, value) not in ALLOWED})
    assert not typed, "put these into a published table, or say in ALLOWED why they are no results"
    stale = set(ALLOWED) - set(found)
    assert not stale, f"nobody writes these any more: {stale}"
