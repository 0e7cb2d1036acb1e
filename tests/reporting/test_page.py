"""What the summary notebook shows of a results folder: claims, tables, figures with their descriptions."""

import pytest
import small_results
from IPython.display import Image, Markdown

from msakit.reporting import page


@pytest.fixture
def shown(monkeypatch):
    items = []
    monkeypatch.setattr(page, "display", items.append)
    return items


def test_tables_come_first_then_figures_with_their_words(tmp_path, shown):
    folder = small_results.results(tmp_path / "mini")
    page.show(folder, "kim2022")
    assert [type(item) for item in shown] == [Markdown, Markdown, Image]
    assert shown[0].data == (folder / "tables/kim2022/mini-mosi.md").read_text()
    assert shown[2].alt.startswith("mini-mosi (generated data), test. Vertical axis: 3 positions")
    shown.clear()
    page.show(folder, "ando2022")
    assert [item.data for item in shown] == ["*Not part of this profile.*"]


def test_claims_are_shown_below_the_notebooks_own_heading(tmp_path, shown):
    page.show_claims(tmp_path)
    (tmp_path / "claims.md").write_text("# Claims, profile mini\n\nBody.\n")
    page.show_claims(tmp_path)
    assert "No claims ledger here" in shown[0].data
    assert shown[1].data.strip() == "Body."


def test_where_the_runs_ran_is_shown(tmp_path, shown):
    page.show_provenance(small_results.results(tmp_path / "mini"))
    values = shown[0]["value"]
    assert (values["runs"], values["seconds"], values["machines"], values["torch"]) == (
        9, 13.5, ["x86_64, 2 cores"], "2.13.0",
    )  # fmt: skip


def test_a_folder_without_tables_says_what_to_run(tmp_path, shown):
    with pytest.raises(FileNotFoundError, match="run `make reproduce` first"):
        page.show(tmp_path, "kim2022")
    assert shown == []
