"""Debian's chromium, driven by Playwright; and what every page has to hold in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
"""Every page and state as it looked, made anew by each run and kept out of the repository."""

_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; without one the test is skipped, which CI does not accept."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_QUIET])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(
    browser: Browser, *, width: int = 1280, dark: bool = False, refused: bool = False, **options: Any
) -> Iterator[Page]:
    """A page of a fresh profile that fails the test when something on it goes wrong.

    ``refused`` when the server is expected to answer with an error, which browsers note in the console.
    """
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", **options
    )
    context.set_default_timeout(300_000)
    problems: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    try:
        yield page
    finally:
        context.close()
    unexpected = [one for one in problems if not (refused and "the server responded with" in one)]
    assert unexpected == []


def violations(page: Page) -> list[str]:
    """What axe finds: rule, what is wrong, and the first element it is wrong with."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found]


def too_wide(page: Page) -> int:
    """How many pixels of the page stand beyond the right edge of the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def keep(page: Page, name: str) -> Path:
    """Take a picture of the whole page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path
