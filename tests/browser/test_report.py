"""The report page in a real browser: it asks for nothing, links lead somewhere, tables sort, anyone can read it."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
SETTINGS = [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)]


class Watched:
    """A page and all that it said and asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        self.refused: list[tuple[str, str]] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("requestfailed", lambda request: self.refused.append((request.url, request.failure)))

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        return self.page


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    context = chromium.new_context(viewport=DESK, offline=True)
    yield Watched(context.new_page())
    context.close()


@pytest.fixture
def page(watched: Watched, report: Path) -> Any:
    return watched.open(report)


def wait_until(page: Any, condition: str) -> None:
    """Ask until it holds. Playwright's own wait evaluates a string inside the page, which the page forbids."""
    end = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never true: {condition}"
        page.wait_for_timeout(20)


def unfold(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    wait_until(page, "[...document.images].every((image) => image.complete)")


def column(page: Any, table: int, number: int) -> list[str]:
    cells = page.locator("table.sortable").nth(table).locator(f"tbody tr > :nth-child({number})")
    return [text.strip() for text in cells.all_text_contents()]


def test_nothing_is_asked_of_a_network_and_nothing_goes_wrong(watched: Watched, report: Path):
    page = watched.open(report)
    unfold(page)
    for button in page.locator("button:enabled").all():
        button.click()
    outside = [url for url in watched.asked if not url.startswith("data:")]
    assert outside == [report.as_uri()]
    assert watched.said == []


def test_what_would_load_is_refused_by_the_browser_itself(watched: Watched, report: Path):
    page = watched.open(report)
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in said for said in watched.said)
    assert watched.refused == [("https://example.org/x.png", "csp")]


def test_every_link_leads_somewhere(page: Any):
    links = page.eval_on_selector_all("a[href]", "links => links.map((link) => link.getAttribute('href'))")
    ids = page.eval_on_selector_all("[id]", "parts => parts.map((part) => part.id)")
    assert len(ids) == len(set(ids))
    inside = [link[1:] for link in links if link.startswith("#")]
    assert len(inside) >= 12
    assert set(inside) <= set(ids)
    rest = {link for link in links if not link.startswith(("#", "data:"))}
    # Out of the page, for readers with a network: the authors' code, and what a notebook links to.
    assert {link.split("/")[2] for link in rest} == {"github.com", "example.org"}
    named = page.eval_on_selector_all(
        "[aria-labelledby]", "parts => parts.map((part) => part.getAttribute('aria-labelledby'))"
    )
    assert set(named) <= set(ids)


def test_files_are_saved_as_they_were(page: Any, tmp_path: Path):
    for link in page.locator("a[download]").all():
        with page.expect_download() as waiting:
            link.click()
        kept = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(kept)
        assert kept.stat().st_size > 0
    saved = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(saved) >= {
        "kim2022-mini-mosi.csv",
        "kim2022-mini-mosi-wide.csv",
        "kim2022-mini-mosi-arms.csv",
        "claims.json",
    }
    assert saved["kim2022-mini-mosi.csv"].startswith("arm,title,metric")
    assert saved["kim2022-mini-mosi-arms.csv"].startswith("arm,seed,value")


def test_a_click_sorts_the_other_way_and_back(page: Any):
    original = column(page, 0, 3)
    assert len(original) == 3
    head = page.locator("table.sortable").first.locator("th[scope=col]").nth(2)
    assert head.get_attribute("aria-sort") is None
    states = []
    for _ in range(3):
        head.get_by_role("button").click()
        states.append((head.get_attribute("aria-sort"), column(page, 0, 3)))
    assert states == [("ascending", sorted(original)), ("descending", sorted(original, reverse=True)), (None, original)]
    assert page.locator("#announced").text_content() == "In the original order"


def test_sorting_takes_whole_rows_and_numbers_as_numbers(page: Any):
    rows = page.locator("table.sortable").nth(1).locator("tbody tr")
    before = {row.locator("th").text_content(): row.text_content() for row in rows.all()}
    page.locator("table.sortable").nth(1).get_by_role("button").nth(1).click()
    values = [float(text) for text in column(page, 1, 2)]
    assert values == sorted(values)
    assert {row.locator("th").text_content(): row.text_content() for row in rows.all()} == before


def test_the_keyboard_sorts_and_its_place_is_seen(page: Any):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "sort":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for key, state in (("Enter", "ascending"), ("Space", "descending")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == state
    assert "descending" in page.locator("#announced").text_content()


def test_where_more_is_better_the_best_comes_first(page: Any):
    head = page.locator("table.sortable").first.locator("th[scope=col]").nth(3)
    assert "↑" in head.text_content()
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"


def test_claims_come_first_and_show_by_verdict(page: Any):
    assert page.locator("main > section").first.get_attribute("id") == "claims"
    assert page.locator(".claim:visible").count() == 4
    button = page.locator(".counts button").nth(1)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".claim:visible .sentence").all_text_contents() == ["A sentence that is contradicted."]
    # A link to a claim shows it all the same.
    page.locator("#left-out a[href^='#claim-']").first.click()
    wait_until(page, "!document.querySelector(location.hash).hidden")
    button.click()
    assert page.locator(".claim:visible").count() == 4


def test_comparisons_open_at_once_and_for_print(page: Any):
    assert page.locator(".evidence:visible").count() == 0
    button = page.locator("#unfold")
    for opened in (4, 0):
        button.click()
        assert page.locator(".evidence:visible").count() == opened
        assert button.get_attribute("aria-expanded") == str(opened > 0).lower()
    page.pdf()
    assert page.locator(".evidence:visible").count() == 4


def test_a_link_into_a_folded_notebook_opens_it(page: Any):
    notebook = page.locator("#notebook-kim2022")
    assert notebook.get_attribute("open") is None
    page.evaluate("location.hash = '#notebook-kim2022'")
    wait_until(page, "document.getElementById('notebook-kim2022').open")


def test_formulas_are_drawn_without_a_network(page: Any):
    unfold(page)
    formulas = page.locator("#notebook-kim2022 math")
    assert formulas.count() == 2
    sum_ = page.locator("#notebook-kim2022 math[display=block] munder")
    assert sum_.count() == 1
    letter = page.locator("#notebook-kim2022 math[display=inline] mi").first
    # Drawn as mathematics: the sum with its index below it is taller than a letter with its own index.
    assert sum_.bounding_box()["height"] > 1.2 * letter.bounding_box()["height"]
    index, sign = (sum_.locator(name).bounding_box() for name in ("mi", "mo"))
    assert index["y"] > sign["y"] + 0.5 * sign["height"]
    assert "$" not in page.locator("#notebook-kim2022 .text").first.text_content()


@pytest.mark.parametrize(("scheme", "size"), SETTINGS)
def test_axe_finds_nothing_serious(page: Any, scheme: str, size: dict[str, int]):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    page.reload()
    unfold(page)
    found = axe.Axe().run(page).response
    serious = [
        f"{fault['id']}: {node['target']} {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] != "minor"
        for node in fault["nodes"]
    ]
    assert serious == []


def test_axe_would_find_a_fault(page: Any):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.evaluate("document.querySelector('img').removeAttribute('alt')")
    assert "image-alt" in {fault["id"] for fault in axe.Axe().run(page).response["violations"]}


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1600])
def test_the_page_never_scrolls_sideways(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 740})
    page.reload()
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 360:
        wide = page.locator("div.scroll:has(table.wide)").first
        assert wide.evaluate("box => box.scrollWidth > box.clientWidth")
        assert wide.get_attribute("tabindex") == "0"
        assert page.locator(".contents").get_attribute("open") is not None  # unfold opened it
        page.reload()
        assert page.locator(".contents").get_attribute("open") is None


def test_light_and_dark_differ_and_follow_the_reader(page: Any):
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
    assert light > 700
    assert dark < 100


def test_print_shows_whole_tables_and_no_controls(page: Any):
    page.set_viewport_size({"width": 700, "height": 1000})  # about the width of the paper
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert not page.locator(".saves").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ends = page.eval_on_selector_all(
        "main table, main img", "parts => parts.map((part) => [part.className, part.getBoundingClientRect().right])"
    )
    assert [end for end in ends if end[1] > 701] == []
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) < 12


def test_it_reads_without_its_script(chromium: Any, report: Path):
    context = chromium.new_context(viewport=PHONE, offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("nav a[href='#provenance']").is_visible()
    assert page.locator("table.sortable th", has_text="MAE").first.is_visible()
    context.close()


def test_every_picture_has_words(page: Any):
    unfold(page)
    images = page.eval_on_selector_all("img", "images => images.map((image) => [image.alt, image.naturalWidth])")
    assert len(images) == 2
    assert all(len(alt) > 20 and width > 50 for alt, width in images)
    alt = page.locator("figure img").first.get_attribute("alt")
    for part in (
        "mini-mosi (generated data), test",
        "MAE (← better)",
        "“Text only”",
        "Means over 3 seeds: ",
        "joint 0.",
    ):
        assert part in alt
