"""The report page as bytes: whole, the same each time, and honest about what it lacks."""

import base64
import gzip
import json
import logging
import re
import shutil
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import small_results
from bs4 import BeautifulSoup
from PIL import Image
from typer.testing import CliRunner

from msakit import cli, papers
from msakit.reporting.site import build, content, embed, ledger, markup, notebooks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small results folder, its executed notebooks, and its page."""
    root = tmp_path_factory.mktemp("site")
    folder = small_results.results(root / "results" / "mini")
    small_results.claims(folder)
    executed = small_results.executed(root / "notebooks", folder)
    path = build.build(folder, small_results.PAPERS, executed)
    text = path.read_text(encoding="utf-8")
    return SimpleNamespace(
        folder=folder, executed=executed, path=path, text=text, soup=BeautifulSoup(text, "html.parser")
    )


def decoded(link: str) -> bytes:
    return base64.b64decode(link.partition(";base64,")[2])


def test_the_same_inputs_give_the_same_bytes(made):
    again = build.page(made.folder, small_results.PAPERS, sorted(made.executed.glob("*.ipynb")))
    assert again == made.text
    assert made.path == made.folder / "report" / "index.html"


def test_nothing_in_it_points_to_a_file_or_loads_from_a_network(made):
    loads = [
        tag.get(name) for name in ("src", "srcset", "poster", "data") for tag in made.soup.find_all(**{name: True})
    ]
    loads += [tag["href"] for tag in made.soup.find_all("link")]
    assert loads
    assert all(link.startswith("data:") for link in loads)
    style = made.soup.style.get_text()
    assert "url(" not in style
    assert "@import" not in style
    assert str(made.folder) not in made.text
    assert not [tag for tag in made.soup.find_all(True) for name in tag.attrs if name.startswith("on")]
    assert made.text.count("<script") == 1


def test_every_link_within_the_page_has_its_target_and_ids_are_unique(made):
    ids = [tag["id"] for tag in made.soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    inside = {link["href"][1:] for link in made.soup.find_all("a", href=re.compile("^#"))}
    assert {"claims", "kim2022", "notebooks", "provenance", "left-out"} <= inside <= set(ids)


def test_files_to_save_are_the_published_files(made):
    saved = {link["download"]: decoded(link["href"]) for link in made.soup.find_all("a", download=True)}
    for name in ("mini-mosi", "mini-mosi-wide"):
        assert saved[f"kim2022-{name}.csv"] == (made.folder / f"tables/kim2022/{name}.csv").read_bytes()
    plotted = pd.read_csv(BytesIO(saved["kim2022-mini-mosi-arms.csv"]))
    stored = json.loads((made.folder / "figures/kim2022/data.json").read_text())["mini-mosi-arms"]
    pd.testing.assert_frame_equal(plotted, pd.DataFrame(**stored))
    assert saved["claims.json"] == (made.folder / "claims.json").read_bytes()


def test_the_shown_picture_is_the_published_one_pixel_for_pixel(made):
    picture = made.folder / "figures/kim2022/mini-mosi-arms.png"
    shown = made.soup.find("figure").find("img")
    with Image.open(BytesIO(decoded(shown["src"]))) as ours, Image.open(picture) as theirs:
        assert np.array_equal(np.asarray(ours.convert("RGB")), np.asarray(theirs.convert("RGB")))
        assert int(shown["width"]) == round(theirs.width * 96 / 180)
    assert "joint 0." in shown["alt"]


def test_a_large_table_is_packed_and_pandas_reads_it(tmp_path):
    frame = pd.DataFrame({"x": np.arange(40_000)})
    frame.to_csv(tmp_path / "large.csv", index=False)
    content = (tmp_path / "large.csv").read_bytes()
    packed = embed.download(content, "large.csv")
    assert packed.name == "large.csv.gz"
    assert packed == embed.download(content, "large.csv")
    assert gzip.decompress(decoded(packed.href)) == content
    (tmp_path / packed.name).write_bytes(decoded(packed.href))
    assert pd.read_csv(tmp_path / packed.name).equals(frame)


def test_tables_keep_what_was_published(made):
    table = made.soup.find("table", class_="sortable")
    lines = (made.folder / "tables/kim2022/mini-mosi.md").read_text().splitlines()
    published = [
        [cell.strip() for cell in line.strip("|").replace("**", "").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    shown = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
    assert shown[1:] == published[2:]
    assert shown[0] == ["Arm", *published[0][1:]]
    assert [cell["scope"] for cell in table.tbody.find_all("th")] == ["row"] * 3
    assert table.find("caption").get_text() == "Kim & Kim 2022 (reconstructed) on mini-mosi"
    columns = {cell.get_text(): cell.get("class") for cell in table.thead.find_all("th")}
    assert (columns["MAE ↓"], columns["Arm"], columns["from"]) == (["number"], ["short"], ["short"])
    notes = [note.get_text() for note in table.find_next("ul", class_="notes").find_all("li")]
    assert "Not run in this profile: CMS." in notes


def test_bold_and_reference_rows_are_kept():
    text = "| | MAE | from |\n|:--|--:|:--|\n| a | **1.0 ± 0.1** | runs |\n| b | – | reference |\n| c | 2 | published |"
    box = markup.table(markup.markdown(text), "Label")
    assert box.find("strong").get_text() == "1.0 ± 0.1"
    assert [row.get("class") for row in box.find_all("tr")] == [None, None, "reference", "reference"]
    assert (box["class"], box["tabindex"], box["aria-label"]) == ("scroll", "0", "Label")


def test_claims_come_first_verdict_by_verdict(made):
    sections = [section["id"] for section in made.soup.main.find_all("section")]
    assert sections == ["claims", "ando2022", "toledo2022", "kim2022", "notebooks", "provenance", "left-out"]
    claims = made.soup.find_all("li", class_="claim")
    assert [claim.find("p", class_="found").get_text(" ", strip=True) for claim in claims] == [
        "✓ supported", "✗ contradicted", "≈ not distinguishable at this n", "– not testable here"]  # fmt: skip
    first = claims[0]
    assert "joint vs frozen" in first.find("p", class_="compared").get_text()
    numbers = first.find("p", class_="numbers").get_text(" ", strip=True)
    assert "MAE ↓ -0.200 [-0.300, -0.100]" in numbers
    assert "corrected 0.004" in numbers
    assert first.svg["aria-label"] == "MAE ↓: -0.200 [-0.300, -0.100], on the claim’s side"
    assert float(first.svg.circle["cx"]) > ledger.WIDTH / 2  # a lower error lies to the right
    assert "too few seeds" in claims[3].get_text()
    assert "mini-full" in made.soup.find(id="claims").get_text()


def test_a_page_without_claims_or_notebooks_says_so(made, tmp_path):
    folder = small_results.results(tmp_path / "mini")
    text = build.page(folder, small_results.PAPERS, [])
    assert "This profile has no claims ledger" in text
    assert "This page was made without them" in text


def test_a_ledger_of_another_make_is_refused_in_one_line(made, tmp_path):
    for wrong in ("{", "[]", json.dumps({"claims": [{"id": "x"}], "rests_on": {}})):
        (tmp_path / "claims.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"claims\.json is not a claims ledger of this version") as caught:
            ledger.read(tmp_path, "mini")
        assert "\n" not in str(caught.value)
    assert ledger.read(tmp_path / "none", "mini") is None


@pytest.mark.parametrize(
    ("test", "direction", "effect", "right"),
    [("difference", "up", 0.1, True), ("difference", "down", 0.1, False), ("spread", "up", 0.5, True),
     ("ratio", "down", 2.0, False)],
)  # fmt: skip
def test_an_effect_on_the_claims_side_is_drawn_to_the_right(test, direction, effect, right):
    row = ledger.Row("p", "c", "x", "generated", "m", "f", test, "mae", direction, "a", "b", effect=effect)
    drawn = str(ledger._interval(row, 1.0, "words"))
    x = float(re.search(r'cx="([\d.]+)"', drawn)[1])
    assert (x > ledger.WIDTH / 2) == right
    assert ("on the claim’s side" in drawn) == right


def test_what_was_left_out_is_listed_with_its_reason(made):
    text = made.soup.find(id="left-out").get_text(" ", strip=True)
    assert "Not run in this profile: CMS." in text
    assert "Not part of this profile: none of its arms was run." in text  # of the two papers without runs
    assert "The authors' own equations They are not public." in text
    assert "Claims that this profile cannot test A sentence that is not testable here." in text
    assert set(content.left_out()) == {"everywhere", "generated", "real"}


def test_the_environment_is_that_of_the_records(made):
    text = made.soup.find(id="provenance").get_text(" ", strip=True)
    for part in (
        "torch 2.13.0",
        "x86_64, 2 cores",
        "c0ffee",
        "f00d",
        "joint kim2022 mini-mosi",
        "kim2022: seed 0, 1, 2",
    ):
        assert part in text
    strip = made.soup.find("dl", class_="strip").get_text(" ", strip=True)
    assert strip == "Papers 1 Runs 9 Seeds 3 Time of all runs 0 min"


def test_a_notebook_brings_its_work_and_nothing_that_acts(made):
    part = made.soup.find("details", id="notebook-kim2022")
    assert part.summary.h3.get_text() == "When a word"
    assert len(part.find_all("math")) == 2
    assert part.find("math", display="block")["alttext"] == small_results.FORMULA.strip("$")
    assert "example.org/x" not in str(part)
    assert "onerror" not in str(part)
    outputs = [output.get_text() for output in part.find_all("pre", class_="output")]
    assert outputs == ["100%\nred <b>", "E: e"]
    assert part.find("pre", class_="output").find("span", class_="ansi-red-fg").get_text() == "red"
    # The published figure is linked to, the other one is shown.
    assert [link["href"] for link in part.find_all("a")] == ["https://example.org", "#kim2022-mini-mosi-arms-figure"]
    assert part.find("span", class_="path").get_text() == "a file"
    assert [image["alt"] for image in part.find_all("img")] == ["Figure of the notebook, under “The shift”"]
    assert {heading.name for heading in part.find_all(re.compile("^h[1-6]$"))} == {"h3", "h4"}


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"a\.ipynb is not readable as a notebook"):
        notebooks.render(tmp_path / "a.ipynb")
    with pytest.raises(FileNotFoundError, match="holds no executed notebook"):
        build.build(tmp_path, small_results.PAPERS, tmp_path / "none")


def test_every_formula_of_the_stored_notebooks_is_rendered(caplog):
    found = 0
    with caplog.at_level(logging.WARNING):
        for path in sorted((ROOT / "notebooks").glob("*/*.ipynb")):
            _, html = notebooks.render(path)
            soup = BeautifulSoup(html, "html.parser")
            assert not soup.find_all("code", class_="latex"), path
            assert "$$" not in " ".join(text.get_text() for text in soup.find_all("div", class_="text")), path
            found += len(soup.find_all("math"))
    assert found >= 10
    assert not caplog.records


@pytest.mark.parametrize("latex", [r"\foo{x}", r"\left( a", "x_"])
def test_a_formula_that_cannot_be_read_stays_as_its_source(latex, caplog):
    assert markup.formula(latex) == f'<code class="latex">{latex}</code>'
    assert "formula not rendered" in caplog.text


def test_headings_of_figures_come_from_their_names():
    assert content.heading("mini-mosi-layers", ["mini-memes", "mini-mosi"]) == "Layers on mini-mosi"
    assert content.heading("gates-by-layer", ["mini-mosi"]) == "Gates by layer"


def test_the_page_knows_whether_it_is_of_these_results(tmp_path):
    folder = small_results.results(tmp_path / "mini")
    with pytest.raises(ValueError, match="is not there: run `msakit report"):
        build.check(folder)
    build.build(folder, small_results.PAPERS)
    assert build.check(folder) == "index.html shows these results"
    small_results.claims(folder)
    with pytest.raises(ValueError, match="shows other results"):
        build.check(folder)
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        build.build(tmp_path, small_results.PAPERS)


def test_the_command_builds_checks_and_says_what_is_wrong(made, tmp_path, monkeypatch):
    def run(*arguments):
        return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])

    monkeypatch.setattr(papers, "load_all", lambda: small_results.PAPERS)
    folder = tmp_path / "results" / "mini"
    shutil.copytree(made.folder, folder)
    monkeypatch.chdir(tmp_path)
    assert run("results/mini", "--notebooks", made.executed).output == "results/mini/report/index.html\n"
    assert (folder / "report/index.html").read_text(encoding="utf-8") == made.text
    assert run("--check").output == "results/mini: index.html shows these results\n"
    # Without a word about notebooks, those of the profile's build are taken.
    shutil.copytree(made.executed, tmp_path / "build" / "mini" / "notebooks")
    (folder / "report/index.html").unlink()
    assert run().exit_code == 0
    assert (folder / "report/index.html").read_text(encoding="utf-8") == made.text
    assert "--notebooks goes with one results folder" in run("a", "b", "--notebooks", "c").output
    monkeypatch.chdir(made.executed)
    assert "there is no results/*/manifest.json" in str(run().exception)


def test_committed_pages_are_of_the_committed_results():
    pages = sorted(ROOT.glob("results/*/report/index.html"))
    if not pages:
        pytest.skip("no report page is committed")
    for page in pages:
        build.check(page.parents[1])
        assert page.stat().st_size < 6_000_000
