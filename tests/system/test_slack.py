"""Slack in front of a real Airflow: who presses a button there answers as themselves, and all see it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.core.task import APPROVALS_DAG, DELEGATE_DAG
from airlock.services.announce import outcome_sentence
from airlock.services.conditions import list_conditions
from airlock.services.follow import start_request
from airlock.services.watch import answer_release
from tests.support.fake_slack import press, signed, submit
from tests.support.small_workloads import CLOSES_SOON, IN_SLACK, ON_CONDITION, RED
from tests.system.conftest import PATIENCE, Submitted, World, until
from tests.system.test_releases import answer

pytestmark = pytest.mark.requirement("A-3")

_NONCES = itertools.count()


def send(world: World, payload: dict[str, Any]) -> httpx.Response:
    """Send what Slack would, signed as Slack signs it."""
    body, headers = signed(payload)
    return httpx.post(f"{world.url}/airlock/slack/actions", content=body, headers=headers, timeout=PATIENCE)


def message_of(world: World, submitted: Submitted, role: str) -> str:
    """Time stamp of the message that asks a role about a release, once it is there."""

    def found() -> str:
        for ts, message in list(world.slack.messages.items()):
            if submitted.release_id in world.slack.text(ts) and role in message["text"]:
                return ts
        return ""

    return until(found)


def push(world: World, ts: str, action: str, user: str) -> httpx.Response:
    """Press a button of a message."""
    button = world.slack.buttons(ts)[f"airlock_{action}"]
    nonce = f"{action}-{next(_NONCES)}"
    return send(world, press(button, account=f"U0{user.upper()}", ts=ts, nonce=nonce))


def fill_in(world: World, text: str, user: str, *, day: str | None = None) -> httpx.Response:
    """Fill in and send the form that was opened last."""
    view = world.slack.views[-1]["view"]
    return send(world, submit(view, text, account=f"U0{user.upper()}", until=day))


def says(world: World, ts: str, words: str) -> str:
    """Wait until a message says something, and return it."""
    return until(lambda: text if words in (text := world.slack.text(ts)) else "")


def thread(world: World, ts: str) -> str:
    """Everything that stands in the thread of a message."""
    return "\n".join(
        world.slack.text(other)
        for other, message in list(world.slack.messages.items())
        if message.get("thread_ts") == ts
    )


@dataclass
class Timed:
    """Two releases whose time goes by: one that nobody answers, one in production on a condition."""

    silent: Submitted
    asked: str
    button: dict[str, Any]
    held: Submitted
    analyst: str


@pytest.fixture(scope="module", autouse=True)
def timed(world: World) -> Timed:
    """With the clock of the machine, which runs while other tests do their work."""
    held, silent = (world.submit_small(name) for name in (ON_CONDITION, CLOSES_SOON))
    assert silent.wait() is State.WAITING
    asked = message_of(world, silent, "risk-officer")
    button = world.slack.buttons(asked)["airlock_approve"]
    assert held.wait() is State.WAITING
    analyst = message_of(world, held, "governance-analyst")
    push(world, message_of(world, held, "risk-officer"), "approve", "ravi")
    until_us = world.deployment.clock.now_us() + 75_000_000
    answer_release(
        world.deployment,
        world.client("grace"),
        held.release_id,
        user="grace",
        choice="Approve",
        comment="",
        condition="Show an hour of shadow traffic.",
        # To a moment, which Slack's form cannot say and Airflow's can.
        until=datetime.fromtimestamp(until_us / 1_000_000, tz=UTC).isoformat(timespec="seconds"),
    )
    assert held.wait(through_waiting=True) is State.PROMOTED
    assert world.champion(ON_CONDITION) == held.version
    return Timed(silent, asked, button, held, analyst)


@pytest.mark.requirement("A-2", "A-6", "A-7")
def test_two_seats_are_filled_in_slack_one_on_condition_and_one_by_a_deputy(world: World) -> None:
    # Slack is away when there is something to tell; the release goes on, and the message comes later.
    world.slack.problems += [(503, "service_unavailable"), (429, "ratelimited")]
    submitted = world.submit_small(IN_SLACK)
    assert submitted.wait() is State.WAITING
    analyst = message_of(world, submitted, "governance-analyst")
    officer = message_of(world, submitted, "risk-officer")
    assert world.slack.problems == []

    # Somebody who may not is told at once, alone, and on record.
    assert push(world, analyst, "approve", "dana").status_code == 200
    until(lambda: "yes" if world.slack.whispers else "")
    assert "dana submitted this release" in world.slack.whispers[-1]["text"]
    assert [event.actor for event in submitted.events(Kind.APPROVAL_REFUSED)] == ["dana"]

    # A question, and its answer, in the thread.
    push(world, analyst, "ask", "grace")
    fill_in(world, "Which customers are decided differently?", "grace")
    until(lambda: "yes" if "decided differently?" in thread(world, analyst) else "")
    asked = next(ts for ts in list(world.slack.messages) if "decided differently?" in world.slack.text(ts))
    push(world, asked, "reply", "dana")
    fill_in(world, "Those near the threshold.", "dana")
    says(world, asked, "Those near the threshold.")

    # On condition.
    day = (datetime.now(UTC) + timedelta(days=20)).strftime("%Y-%m-%d")
    push(world, analyst, "condition", "grace")
    fill_in(world, "Show a month of shadow traffic.", "grace", day=day)
    said = says(world, analyst, "approved by grace, on condition until")
    assert world.slack.buttons(analyst) == {}
    assert "Show a month of shadow traffic." in said
    assert "1 of 2" in says(world, officer, "1 of 2")

    # Ravi lets petra answer in his place; she fills the seat that waits already, though Airflow asks others.
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    period = {"start": today, "until": day}
    conf = {"to": "petra", "roles": "risk-officer", "reason": "On holiday for two weeks.", **period}
    start_request(world.deployment, world.client("ravi"), "delegation", DELEGATE_DAG, conf)
    until(lambda: "yes" if world.deployment.audit.events(kinds=[Kind.DELEGATION_GIVEN]) else "")
    push(world, officer, "approve", "petra")
    says(world, officer, "approved by petra for ravi")

    assert submitted.wait(through_waiting=True) is State.PROMOTED
    assert submitted.finished() == "success"
    assert submitted.task_state("seat", 1) == "skipped", "nobody is asked any more"
    until(lambda: "yes" if "promoted" in thread(world, analyst) else "")
    (condition,) = [
        one for one in list_conditions(world.deployment) if one.release_id == submitted.release_id
    ]
    assert (condition.user, condition.until, condition.state) == ("grace", day, "open")


@pytest.mark.requirement("A-5", "A-6")
def test_a_rejection_has_words_ends_the_release_and_closes_the_other_seat(world: World) -> None:
    submitted = world.submit_small(RED)
    assert submitted.wait() is State.WAITING
    officer = message_of(world, submitted, "risk-officer")
    analyst = message_of(world, submitted, "governance-analyst")
    with pytest.raises(Exception, match="at least 10 characters"):
        answer(world, submitted.release_id, "grace", "Reject", comment="no")
    push(world, officer, "reject", "ravi")
    refused = fill_in(world, "no", "ravi")
    assert "at least 10 characters" in refused.json()["errors"]["text"]
    words = "Show a month of shadow traffic first."
    fill_in(world, words, "ravi")
    says(world, officer, "rejected by ravi")
    assert words in world.slack.text(officer)
    assert submitted.wait(through_waiting=True) is State.REJECTED
    assert submitted.finished() == "success"
    says(world, analyst, "closed: the release is rejected")
    assert world.slack.buttons(officer) == world.slack.buttons(analyst) == {}
    assert submitted.task_state("seat", 0) == "skipped"
    _, sentence = outcome_sentence(world.deployment, submitted.release())
    assert f"rejected by ravi (risk-officer): {words}" in sentence
    announced = submitted.events(Kind.RELEASE_ANNOUNCED)[0].data["message"]
    assert "rejected by ravi" in announced
    assert words not in announced, "what people write is kept once, so that it can be erased"
    until(lambda: "yes" if "upstream_failed" in submitted.outcomes().get("promote", []) else "")


@pytest.mark.requirement("A-6", "A-7")
def test_what_nobody_answers_in_time_is_escalated_and_closed(world: World, timed: Timed) -> None:
    """And what was a button does nothing."""
    silent, asked = timed.silent, timed.asked
    until(lambda: "yes" if "Nobody answers as risk-officer" in thread(world, asked) else "")
    assert "still waits for risk-officer" in thread(world, asked)
    assert silent.wait(through_waiting=True) is State.EXPIRED
    assert silent.finished() == "success"
    says(world, asked, "closed: the release is expired")
    assert world.slack.buttons(asked) == {}
    told = len(world.slack.whispers)
    send(world, press(timed.button, account="U0RAVI", ts=asked, nonce="too-late"))
    until(lambda: "yes" if world.slack.whispers[told:] else "")
    assert "did not count" in world.slack.whispers[-1]["text"]
    assert silent.events(Kind.APPROVAL_RECORDED) == []
    assert world.deployment.registry.champion(CLOSES_SOON) is None


@pytest.mark.requirement("A-6", "A-7")
def test_what_nobody_confirms_in_time_leaves_production(world: World, timed: Timed) -> None:
    held, analyst = timed.held, timed.analyst
    until(lambda: "yes" if "the approval of grace is revoked" in thread(world, analyst) else "")
    world.client("admin").trigger(APPROVALS_DAG, {})
    until(lambda: "yes" if held.events(Kind.ROLLBACK_FINISHED) else "")
    assert [event.data["user"] for event in held.events(Kind.APPROVAL_REVOKED)] == ["grace"]
    assert world.deployment.registry.champion(ON_CONDITION) is None
    until(lambda: "yes" if "rolled back" in thread(world, analyst) else "")
