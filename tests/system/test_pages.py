"""The pages inside the real Airflow: its login, its menu, its frame, and what people do there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from airlock.adapters.supervisor import local_passwords
from airlock.core.audit import Kind
from airlock.core.release import State
from tests.support.browsers import chromium, keep
from tests.support.small_workloads import RED
from tests.system.conftest import PATIENCE, World


@contextmanager
def logged_in(
    browser: Browser, world: World, user: str, *, width: int = 1440, dark: bool = False
) -> Iterator[Page]:
    """A page of somebody who came through Airflow's login; what goes wrong in Airlock's own fails it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(PATIENCE * 1000)
    page, problems = context.new_page(), []
    page.on(
        "console",
        lambda said: (
            problems.append(said.text)
            if said.type == "error" and "/airlock/" in said.location["url"]
            else None
        ),
    )
    page.goto(f"{world.url}/auth/login")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", local_passwords(world.settings).read()[user])
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "login" not in address)
    try:
        yield page
    finally:
        context.close()
    assert problems == []


def frame_of(page: Page, name: str) -> FrameLocator:
    """Airlock's page inside Airflow's."""
    frame = page.frame_locator(f"iframe[title='{name}']")
    expect(frame.get_by_role("navigation", name="Airlock")).to_be_visible()
    return frame


@pytest.mark.requirement("A-3", "A-4", "A-5", "U-1", "U-5")
def test_people_find_the_pages_in_airflow_and_answer_there(world: World) -> None:
    submitted = world.submit_small(RED)
    assert submitted.wait() is State.WAITING
    run = f"{world.url}/dags/{submitted.dag_id}/runs/{quote(submitted.run_id, safe='')}"
    expect.set_options(timeout=PATIENCE * 1000)
    with chromium() as browser:
        with logged_in(browser, world, "grace") as page:
            page.get_by_role("link", name="Airlock", exact=True).click()
            frame = frame_of(page, "Airlock")
            expect(frame.get_by_role("heading", name="Dashboard")).to_be_visible()
            keep(page, "airflow-dashboard")
            page.goto(run)
            page.get_by_role("link", name="Review", exact=True).click()
            frame = frame_of(page, "Review")
            expect(frame.get_by_role("heading", name=f"Version {submitted.version}")).to_be_visible()
            keep(page, "airflow-review")
            frame.get_by_text("Ask dana something first").first.click()
            frame.locator("textarea#question1").fill("Who uses the forecast first?")
            keep(page, "airflow-question")
            frame.get_by_role("button", name="Ask", exact=True).first.click()
            expect(frame.get_by_role("status")).to_contain_text("Your question is recorded")
        with logged_in(browser, world, "dana") as page:
            page.goto(f"{run}/plugin/airlock-review")
            frame = frame_of(page, "Review")
            frame.get_by_label("Your answer").fill("The back office, for next month.")
            keep(page, "airflow-question-to-answer")
            frame.get_by_role("button", name="Send the answer").click()
            expect(frame.get_by_role("status")).to_contain_text("Your answer is recorded")
        with logged_in(browser, world, "grace") as page:
            page.goto(f"{run}/plugin/airlock-review")
            frame = frame_of(page, "Review")
            expect(frame.get_by_text("The back office, for next month.")).to_be_visible()
            keep(page, "airflow-question-answered")
            frame.locator("textarea#comment1").fill("Looked at everything.")
            frame.locator("button[value=approve]").click()
            expect(frame.get_by_role("status")).to_contain_text("Your approval is recorded and counts.")
        with logged_in(browser, world, "ravi", width=390, dark=True) as page:
            page.goto(f"{world.url}/airlock/releases/{submitted.release_id}")
            page.locator("textarea#comment2").fill("Show a month of shadow traffic first.")
            page.get_by_role("button", name="Reject").click()
            expect(page.get_by_role("status")).to_contain_text("Your rejection is recorded")
            keep(page, "airflow-rejected-dark-phone")
        assert submitted.wait(through_waiting=True) is State.REJECTED
        with logged_in(browser, world, "dana") as page:
            page.goto(f"{run}/plugin/airlock-review")
            blocked = frame_of(page, "Review").get_by_role("region", name="Why was I blocked?")
            expect(blocked).to_contain_text("Show a month of shadow traffic first.")
            keep(page, "airflow-blocked")
    given = [(event.actor, event.data["choice"]) for event in submitted.events(Kind.APPROVAL_RECORDED)]
    assert given == [("grace", "approve"), ("ravi", "reject")]
