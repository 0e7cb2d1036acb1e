"""The README's tables are the published ones; its pictures and links are there."""

import re
from pathlib import Path

import pytest

from msakit.reporting.readme import check, filled, refresh

ROOT = Path(__file__).parents[2]


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
