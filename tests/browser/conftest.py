"""A real Chromium, headless, and report pages for it to open.

The browser is $CHROMIUM, or the first of chromium, google-chrome, chromium-browser on the PATH, or the one that
`playwright install chromium` fetched; without any of them these tests are skipped, and say so. With $CI_BROWSER set,
its absence is a failure: a machine that is to test the page must.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "google-chrome", "chromium-browser")


def find_chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The running browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=find_chromium())
        except playwright.Error as error:
            why = f"no Chromium: {', '.join(NAMES)} are not on the PATH, $CHROMIUM names none ({str(error)[:80]!r})"
            (pytest.fail if os.environ.get("CI_BROWSER") else pytest.skip)(why)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small results folder that has something of everything; moved alone to another folder."""
    from small_results import PAPERS, claims, executed, results

    from msakit.reporting.site.build import build

    root = tmp_path_factory.mktemp("report")
    folder = results(root / "results" / "mini")
    claims(folder)
    page = build(folder, PAPERS, executed(root / "notebooks", folder))
    alone = tmp_path_factory.mktemp("a folder with spaces") / "moved.html"
    return page.rename(alone)
