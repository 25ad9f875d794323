"""What people read in Slack and in mails, in every state; kept as pages to be looked at in `build/`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock.adapters.notify.email import text_of
from airlock.adapters.notify.slack import message
from airlock.core.evidence import Verdict
from airlock.core.notices import GateLine, Notice, Topic
from airlock.services.ask import ask, reply
from airlock.services.notices import due_notices
from airlock.services.promote import promote
from airlock.web.slack import FORMS, Place, form
from tests.support.deployments import World, edit, fast_folder, make_world
from tests.support.slack_page import page

pytestmark = pytest.mark.requirement("A-3", "A-4")

BUILD = Path(__file__).parents[2] / "build" / "messages"
URL = "https://airflow.example"

HOSTILE = (
    "<!channel> <@U0EVE> <https://evil.example|Approve> *bold* _i_ `c` ~s~ & "
    "\u202e\n> ok\n:white_check_mark: approved"
)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        rules = "remind_hours: [24]\n  escalate_hours: 48\n  delegate_days: 31\n  condition_days: 30"
        edit(world.policy_file, "expires_hours: 72", f"expires_hours: 72\n  {rules}")
        yield world


def keep(name: str, messages: dict[str, dict[str, Any]], mails: str = "") -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / f"{name}.html").write_text(page(messages))
    if mails:
        (BUILD / f"{name}.txt").write_text(mails)


def told(world: World, release_id: str, state: str) -> tuple[dict[str, dict[str, Any]], str]:
    notices = due_notices(world.deployment, world.release(release_id))
    mails = "\n\n----\n\n".join(text_of(notice, URL) for notice in notices)
    return {f"{state}: {notice.notice_id}": message(notice, URL) for notice in notices}, mails


def test_every_state_of_a_release_can_be_read(world: World) -> None:
    shown: dict[str, dict[str, Any]] = {}
    mails = []
    release_id = world.judged("2", track="red", verdicts={"documentation": Verdict.WARNED})

    def look(state: str) -> None:
        found, text = told(world, release_id, state)
        shown.update(found)
        mails.append(f"==== {state}\n\n{text}")

    look("asked")
    question = ask(world.deployment, release_id, 0, user="grace", text="Why so few women?\nAnd from where?")
    world.clock.advance(hours=50)
    look("waiting for two days, with a question")
    reply(world.deployment, release_id, question, user="dana", text="They are a third of the applicants.")
    world.answer(
        release_id,
        "grace",
        0,
        condition="Show a month of shadow traffic.",
        until="2026-01-20",
        comment="Yes, but.",
    )
    world.answer(release_id, "ravi", 1)
    promote(world.deployment, release_id)
    look("promoted")
    keep("release", shown, "\n\n".join(mails))
    keep("forms", {what: form(what, Place(release_id, "C0", "1.1"), world.deployment) for what in FORMS})
    texts = {name: json.dumps(one, ensure_ascii=False) for name, one in shown.items()}
    asked = texts[f"asked: {release_id}/seat/0"]
    for words in ("What changed", "champion version 1", "open until", "0 of 2", "Silence never approves"):
        assert words in asked
    promoted = texts[f"promoted: {release_id}/seat/0"]
    for words in ("approved by grace, on condition until 2026-01-20", "2026-01-03 02:00 UTC", "Yes, but."):
        assert words in promoted
    assert "airlock_approve" not in promoted


@pytest.mark.parametrize("topic", list(Topic))
def test_words_of_others_can_neither_mention_nor_link_nor_pass_for_ours(topic: Topic) -> None:
    notice = Notice(
        notice_id="x/seat/0", topic=topic, release_id="x", workload=HOSTILE, version=HOSTILE, title=HOSTILE,
        text=HOSTILE, lines=[HOSTILE] * 3, facts=[(HOSTILE, HOSTILE)], changed=[HOSTILE], role=HOSTILE,
        gates=[GateLine(gate=HOSTILE, verdict="PASSED", text=HOSTILE)] * 60, seat=0, waits=True,
        question="q" * 16, conditional=True, until_us=1_767_225_600_000_000, people=[HOSTILE],
        review="/airlock/releases/x", run="/dags/x/runs/y",
    )  # fmt: skip
    built = message(notice, URL)
    keep(f"hostile-{topic}", {topic: built})
    for text in texts_of(built):
        links = re.findall(r"<[^>]*>", text)
        assert all(link.startswith((f"<{URL}/", "<!date^1767225600^")) for link in links), links
    for block in built["blocks"]:
        assert len(json.dumps(block)) < 12_000
        assert all(len(one["text"]) <= 3000 for one in mrkdwn_of(block))
    assert len(built["blocks"]) <= 50
    for button in [one for block in built["blocks"] for one in block.get("elements", []) if "value" in one]:
        assert len(button["value"]) <= 2000
        assert json.loads(button["value"])["release"] == "x"


def test_a_quotation_is_marked_on_each_of_its_lines() -> None:
    notice = Notice(
        notice_id="x", topic=Topic.QUESTION, release_id="x", workload="w", version="1", title="grace asks",
        text="t", lines=["first\n:white_check_mark: *approved by ravi*"], review="/r", run="/r",
    )  # fmt: skip
    quoted = message(notice, URL)["blocks"][1]["text"]["text"]
    assert all(line.startswith("&gt; ") for line in quoted.split("\n"))


def mrkdwn_of(block: dict[str, Any]) -> list[dict[str, Any]]:
    found = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
    return [one for one in found if isinstance(one, dict) and one.get("type") == "mrkdwn"]


def texts_of(built: dict[str, Any]) -> list[str]:
    return [built["text"], *(one["text"] for block in built["blocks"] for one in mrkdwn_of(block))]
