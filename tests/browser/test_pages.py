"""The pages in a browser: usable by everybody, by keyboard, on a phone, in the dark; and the whole way.

Pictures of every page and state are kept in ``build/screenshots``; those of the guides are made here too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from airlock.core.audit import Kind
from tests.support.browsers import keep, tab, too_wide, violations
from tests.support.gallery import Gallery

STATES = ("waiting", "denied", "rejected", "expired", "failed", "promoted", "checking", "long")
PAGES = {
    "dashboard": "/", "releases": "/releases", "nothing-found": "/releases?workload=nothing",
    "workloads": "/workloads", "incidents": "/incidents", "waivers": "/waivers", "audit": "/audit",
    "not-there": "/releases/nothing", "gate": "/releases/{denied}/gates/bias",
    **{f"release-{state}": f"/releases/{{{state}}}" for state in STATES},
}  # fmt: skip
LIGHT, DARK_PHONE = (1280, False), (390, True)
IMAGES = Path(__file__).parents[2] / "docs" / "images"
SHOWN = {"dashboard": "dashboard", "release-waiting": "review", "release-denied": "blocked"}
"""Pages that the guides show, as they look in light mode."""


def visit(page: Page, gallery: Gallery, path: str, user: str = "grace") -> None:
    page.context.add_cookies([{"name": "as", "value": user, "url": gallery.url}])
    page.goto(gallery.url + path.format(**gallery.releases))


@pytest.mark.requirement("A-4", "U-1")
@pytest.mark.parametrize(("width", "dark"), [LIGHT, DARK_PHONE], ids=["light", "dark-phone"])
@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_use_every_page(
    browser: Browser, gallery: Gallery, name: str, width: int, dark: bool
) -> None:
    with tab(browser, width=width, dark=dark, refused=name == "not-there") as page:
        visit(page, gallery, PAGES[name], "dana" if name == "release-denied" else "grace")
        if name in SHOWN and not dark:
            show(page, SHOWN[name])
        keep(page, f"{name}-{'dark-phone' if dark else 'light'}")
        assert too_wide(page) <= 0
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert too_wide(page) <= 0, "with everything opened"
        assert violations(page) == []


@pytest.mark.requirement("U-3")
def test_rest_describes_everything_that_a_page_shows(gallery: Gallery) -> None:
    """A field that is not described is refused, so each page is asked for as data too."""
    seen = set()
    with httpx.Client(base_url=f"{gallery.url}/api", cookies={"as": "grace"}, timeout=300) as asked:
        for path in ("/overview", "/releases", "/workloads", "/incidents", "/waivers", "/audit"):
            found = asked.get(path)
            assert found.status_code == 200, path
            seen |= {name for name, value in found.json().items() if value}
        for state in STATES:
            found = asked.get(f"/releases/{gallery.releases[state]}")
            assert found.status_code == 200, (state, found.text)
            seen |= {name for name, value in found.json().items() if value}
            for gate in found.json()["gates"]:
                path = f"/releases/{gallery.releases[state]}/gates/{gate['gate']}"
                assert asked.get(path).status_code == 200, path
    assert seen >= {"flips", "groups", "explanation", "earlier", "blocked", "glance", "seats", "incidents"}


def show(page: Page, name: str) -> None:
    """Give a guide its picture, when it is asked for: pictures differ a little from machine to machine."""
    target = IMAGES / f"{name}.png"
    assert target.exists(), "the guides show this page: make the picture with AIRLOCK_TEST_IMAGES=1"
    if os.environ.get("AIRLOCK_TEST_IMAGES") == "1":
        page.screenshot(path=target)  # what one sees first


@pytest.mark.parametrize("dark", [True, False], ids=["dark", "light"])
def test_an_empty_deployment_says_how_to_begin(browser: Browser, empty: Gallery, dark: bool) -> None:
    with tab(browser, dark=dark) as page:
        visit(page, empty, "/")
        keep(page, f"empty-{'dark' if dark else 'light'}")
        assert violations(page) == []
        expect(page.get_by_text("Nothing waits for anybody.")).to_be_visible()
        expect(page.get_by_text("airlock submit WORKLOAD --version N")).to_be_visible()


@pytest.mark.requirement("A-3", "A-4")
def test_an_approver_decides_with_the_keyboard_alone(browser: Browser, gallery: Gallery) -> None:
    release_id = gallery.releases["keyboard"]
    with tab(browser) as page:
        visit(page, gallery, "/")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        tab_to(page, f'a[href$="/releases/{release_id}"]')
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Version 10")).to_be_visible()
        tab_to(page, "textarea#comment1")
        page.keyboard.type("Gates and groups reviewed.")
        tab_to(page, 'button[value="approve"]')
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Your approval is recorded and counts.")
        expect(page.get_by_text("approved by grace")).to_be_visible()
        assert violations(page) == []
        keep(page, "answered")
    (event,) = gallery.world.events(Kind.APPROVAL_RECORDED, release_id)
    assert (event.actor, event.data["comment"]) == ("grace", "Gates and groups reviewed.")


def tab_to(page: Page, selector: str, most: int = 200) -> None:
    """Press Tab until an element has the focus, as somebody does who has no mouse."""
    for _ in range(most):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached with the keyboard")


@pytest.mark.requirement("A-5")
def test_a_rejection_on_a_phone_needs_a_reason(browser: Browser, gallery: Gallery) -> None:
    with tab(browser, width=390, dark=True, has_touch=True, is_mobile=True) as page:
        visit(page, gallery, "/releases/{phone}", "ravi")
        page.get_by_role("link", name="Answer as risk-officer").tap()
        expect(page.get_by_role("button", name="Reject")).to_be_in_viewport()
        page.locator("textarea#comment2").fill("Show a month of shadow traffic first.")
        page.get_by_role("button", name="Reject").tap()
        expect(page.get_by_role("status")).to_contain_text("Your rejection is recorded")
        expect(page.get_by_role("heading", name="Why was I blocked?")).to_be_visible()
        assert too_wide(page) <= 0


@pytest.mark.requirement("U-5")
def test_a_blocked_submitter_learns_why_and_tries_again(browser: Browser, gallery: Gallery) -> None:
    with tab(browser) as page:
        visit(page, gallery, "/", "dana")
        page.get_by_role("link", name=re.compile("stopped")).click()
        page.locator(f'a[href$="/releases/{gallery.releases["denied"]}"]').first.click()
        blocked = page.get_by_role("region", name="Why was I blocked?")
        expect(blocked).to_contain_text("limit 0.8")
        expect(blocked).to_contain_text("try a lower decision threshold")
        expect(blocked.get_by_text("airlock waiver request")).to_be_hidden()
        blocked.get_by_text("It cannot be fixed now?").click()
        expect(blocked.get_by_text("airlock waiver request")).to_be_visible()
        blocked.get_by_text("What a lighter track would need").click()
        expect(blocked.get_by_text("nobody asked")).to_be_visible()
        page.get_by_label("version in the registry").fill("13")
        page.get_by_label("why this release").fill("A lower threshold, as the gate advised.")
        page.get_by_role("button", name="Submit again").click()
        expect(page.get_by_role("status")).to_contain_text("It is submitted again")
        page.get_by_role("status").get_by_role("link").click()
        expect(page.get_by_role("heading", name="Version 13")).to_be_visible()
        expect(page.get_by_text("A lower threshold, as the gate advised.")).to_be_visible()
        keep(page, "submitted-again")


@pytest.mark.requirement("E-6")
def test_evidence_opens_without_an_origin_and_the_rest_is_downloaded(
    browser: Browser, gallery: Gallery
) -> None:
    with tab(browser) as page:
        visit(page, gallery, "/releases/{denied}/gates/bias", "vera")
        picture = page.locator("img.report")
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
        # In place: the frame in which Airflow shows this page opens no other window.
        page.get_by_role("link", name="report.html").click()
        expect(page.get_by_text("63.3 %").first).to_be_visible()
        assert page.evaluate("self.origin") == "null"
        page.go_back()
        with page.expect_download() as download:
            page.get_by_role("link", name="evidence.json").click()
        assert download.value.suggested_filename.endswith("bias-evidence.json")
        visit(page, gallery, "/releases/{denied}", "vera")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the evidence pack").click()
        assert download.value.suggested_filename == f"{gallery.releases['denied']}.zip"


def test_two_tabs_give_one_answer(browser: Browser, gallery: Gallery) -> None:
    release_id = gallery.releases["waiting"]
    with tab(browser) as first, tab(browser, refused=True) as second:
        for page in (first, second):
            visit(page, gallery, "/releases/{long}", "petra")
        first.locator("textarea").first.fill("Fine.")
        first.get_by_role("button", name="Approve").click()
        expect(first.get_by_role("status")).to_contain_text("recorded")
        answers = len(gallery.world.events(Kind.APPROVAL_RECORDED, gallery.releases["long"]))
        second.locator("textarea").first.fill("Fine as well.")
        second.get_by_role("button", name="Approve").click()
        assert len(gallery.world.events(Kind.APPROVAL_RECORDED, gallery.releases["long"])) == answers == 1
        assert gallery.world.events(Kind.APPROVAL_RECORDED, release_id) == []
