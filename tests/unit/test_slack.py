"""The Slack endpoint: what is signed, fresh, ours and by somebody we know counts; nothing else does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from airlock.adapters.notify.slack import message
from airlock.core.audit import Kind
from airlock.core.errors import RefusedError
from airlock.services.notices import due_notices
from airlock.web import slack as endpoint
from airlock.web.app import create_app
from tests.support.deployments import PEOPLE, World, edit, fast_folder, make_world, write_yaml
from tests.support.fake_slack import SECRET, TEAM, TOKEN, FakeSlack, fake_slack, press, signed, submit

pytestmark = pytest.mark.requirement("A-3")

GRACE, RAVI, DANA, OMAR, STRANGER = "U0GRACE", "U0RAVI", "U0DANA", "U0OMAR", "U0STRANGER"


@dataclass
class Scene:
    """A deployment with Slack, and a browser-less client of the endpoint."""

    world: World
    slack: FakeSlack
    client: TestClient
    release_id: str
    passed: list[tuple[str, int, str, str]]

    def button(self, action: str, seat: int = 0, *, place: str = "") -> dict[str, Any]:
        """The button of a seat's message, or of another one."""
        place = place or f"seat/{seat}"
        notices = due_notices(self.world.deployment, self.world.release(self.release_id))
        wanted = [notice for notice in notices if f"/{place}" in notice.notice_id]
        blocks = message(wanted[0], "https://airflow.example")["blocks"]
        return next(
            element
            for block in blocks
            if block["type"] == "actions"
            for element in block["elements"]
            if element["action_id"] == f"airlock_{action}"
        )

    def send(self, payload: dict[str, Any], **changes: Any) -> Any:
        body, headers = signed(payload, **changes)
        return self.client.post("/slack/actions", content=body, headers=headers)

    def settle(self) -> None:
        """Wait for what goes on after Slack got its answer: until every worker is free at once."""
        workers = endpoint._POOL._max_workers
        free = threading.Barrier(workers)
        for done in [endpoint._POOL.submit(free.wait, 300) for _ in range(workers)]:
            done.result()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    accounts = {"grace": GRACE, "ravi": RAVI, "dana": DANA, "omar": OMAR}
    people = [{**person, "slack": accounts.get(person["user"])} for person in PEOPLE["people"]]
    with fast_folder() as folder, fake_slack() as slack:
        world = make_world(folder / "world")
        edit(world.policy_file, "expires_hours: 72", "expires_hours: 72\n  condition_days: 30")
        write_yaml(
            world.config / "people.yaml",
            {
                "people": [
                    {key: value for key, value in person.items() if value is not None} for person in people
                ]
            },
        )
        settings = world.deployment.settings.model_copy(
            update={
                "slack_signing_secret": SecretStr(SECRET),
                "slack_team": TEAM,
                "slack_token": SecretStr(TOKEN),
                "slack_api": slack.url,
            }
        )
        world.deployment = replace(world.deployment, settings=settings)
        passed: list[tuple[str, int, str, str]] = []

        def answer(
            deployment: Any,
            client: Any,
            release_id: str,
            *,
            user: str,
            choice: str,
            comment: str,
            seat: int,
            **condition: str,
        ) -> int:
            """Airflow without Airflow: the same service decides whether an answer counts."""
            passed.append((user, seat, choice, comment))
            world.answer(release_id, user, seat - 1, choice.lower(), comment, **condition)
            return seat - 1

        monkeypatch.setattr(endpoint, "open_deployment", lambda: world.deployment)
        monkeypatch.setattr(endpoint, "client_of", lambda *_: None)
        monkeypatch.setattr(endpoint, "answer_release", answer)
        client = TestClient(create_app(), raise_server_exceptions=False)
        yield Scene(world, slack, client, world.judged("2", track="red"), passed)


def test_a_press_on_approve_fills_the_seat_of_the_person(scene: Scene) -> None:
    reply = scene.send(press(scene.button("approve"), account=GRACE))
    assert (reply.status_code, reply.content) == (200, b"")
    scene.settle()
    (event,) = scene.world.events(Kind.APPROVAL_RECORDED)
    assert (event.actor, event.data["choice"], event.data["seat"]) == ("grace", "approve", 0)


@pytest.mark.requirement("A-5")
def test_reject_asks_for_words_and_takes_no_empty_ones(scene: Scene) -> None:
    scene.send(press(scene.button("reject"), account=GRACE))
    (opened,) = scene.slack.views
    view = opened["view"]
    refused = scene.send(submit(view, "no", account=GRACE))
    assert "at least 10 characters" in refused.json()["errors"]["text"]
    assert scene.world.events(Kind.APPROVAL_RECORDED) == []
    scene.send(submit(view, "The floor is not reached for women.", account=GRACE))
    scene.settle()
    (event,) = scene.world.events(Kind.APPROVAL_RECORDED)
    assert (event.actor, event.data["choice"]) == ("grace", "reject")


def test_a_question_is_recorded_and_its_words_can_be_erased(scene: Scene) -> None:
    scene.send(press(scene.button("ask"), account=GRACE))
    scene.send(submit(scene.slack.views[0]["view"], "Why so few women?", account=GRACE))
    (event,) = scene.world.events(Kind.QUESTION_ASKED)
    assert (event.actor, event.data["question"]) == ("grace", "Why so few women?")
    stored = scene.world.deployment.log.database.read(
        lambda connection: connection.exec_driver_sql("SELECT * FROM event").all()
    )
    assert "Why so few" not in repr(stored)


@pytest.mark.requirement("A-7")
def test_approve_with_a_condition_asks_for_both_and_records_both(scene: Scene) -> None:
    scene.send(press(scene.button("condition"), account=GRACE))
    view = scene.slack.views[0]["view"]
    assert [block["block_id"] for block in view["blocks"]] == ["text", "until"]
    assert not any(block.get("optional") for block in view["blocks"])
    text = "Show a month of shadow traffic."
    for words, until, field in (
        ("short", "2026-01-10", "text"),
        (text, None, "until"),
        (text, "2027-01-01", "until"),
        (text, "2025-01-01", "until"),
    ):
        reply = scene.send(submit(view, words, account=GRACE, until=until))
        assert list(reply.json()["errors"]) == [field]
    assert scene.passed == []
    assert scene.send(submit(view, text, account=GRACE, until="2026-01-10")).content == b""
    scene.settle()
    (event,) = scene.world.events(Kind.APPROVAL_RECORDED)
    assert (event.actor, event.data["choice"], event.data["condition"]) == ("grace", "approve", text)


def test_a_question_is_answered_on_record_and_shown_under_it(scene: Scene) -> None:
    scene.send(press(scene.button("ask"), account=GRACE))
    scene.send(submit(scene.slack.views[0]["view"], "Why so few women?", account=GRACE))
    scene.send(press(scene.button("reply", place="question/"), account=DANA, nonce="2"))
    form = scene.slack.views[1]["view"]
    empty = scene.send(submit(form, "  ", account=DANA))
    assert "at least 1 characters" in empty.json()["errors"]["text"]
    scene.send(submit(form, "They are a third of the applicants.", account=DANA))
    (event,) = scene.world.events(Kind.QUESTION_ANSWERED)
    assert (event.actor, event.data["answer"]) == ("dana", "They are a third of the applicants.")
    (notice,) = [
        notice
        for notice in due_notices(scene.world.deployment, scene.world.release(scene.release_id))
        if notice.question
    ]
    assert notice.thread == f"{scene.release_id}/seat/0"
    assert notice.lines == ["Why so few women?", "dana answers: They are a third of the applicants."]
    assert not notice.waits


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize("action", ["approve", "reject", "condition"])
def test_what_would_not_count_is_refused_on_record_before_a_form_opens(scene: Scene, action: str) -> None:
    scene.send(press(scene.button(action), account=DANA))
    scene.settle()
    assert (scene.slack.views, scene.passed) == ([], [])
    (refusal,) = scene.world.events(Kind.APPROVAL_REFUSED)
    assert (refusal.actor, refusal.data["problem"].split(" and")[0]) == (
        "dana",
        "dana submitted this release",
    )


@pytest.mark.requirement("A-2")
def test_two_tabs_at_once_give_one_answer(scene: Scene) -> None:
    button = scene.button("approve")
    for nonce in ("1", "2"):
        scene.send(press(button, account=GRACE, nonce=nonce))
    scene.settle()
    assert [event.actor for event in scene.world.events(Kind.APPROVAL_RECORDED)] == ["grace"]


@pytest.mark.requirement("A-7")
def test_a_button_of_an_earlier_state_does_nothing_any_more(scene: Scene) -> None:
    """The message was posted, then the evidence changed: what was shown is not what would be approved."""
    button = scene.button("approve")
    scene.world.answer(scene.release_id, "grace", 0, "reject", "Not like this, please.")
    scene.send(press(button, account=OMAR))
    scene.settle()
    assert len(scene.world.events(Kind.APPROVAL_RECORDED)) == 1
    assert scene.slack.whispers


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize(
    ("account", "said"), [(DANA, "dana submitted this release"), (RAVI, "does not hold the role")]
)
def test_who_may_not_is_told_why_alone(scene: Scene, account: str, said: str) -> None:
    scene.send(press(scene.button("approve"), account=account))
    scene.settle()
    assert scene.world.events(Kind.APPROVAL_RECORDED) == []
    (whisper,) = scene.slack.whispers
    assert whisper["user"] == account
    assert said in whisper["text"]


def test_an_account_nobody_has_counts_for_nobody(scene: Scene) -> None:
    scene.send(press(scene.button("approve"), account=STRANGER))
    scene.settle()
    assert scene.passed == []
    assert "belongs to nobody in people.yaml" in scene.slack.whispers[0]["text"]


def test_somebody_whom_airflow_does_not_know_any_more_counts_for_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(deployment: Any, person: Any) -> None:
        raise RefusedError("Airflow has no active user grace")

    monkeypatch.setattr(endpoint, "client_of", gone)
    scene.send(press(scene.button("approve"), account=GRACE))
    scene.settle()
    assert scene.passed == []
    assert "no active user" in scene.slack.whispers[0]["text"]


@pytest.mark.parametrize(
    ("secret", "seconds"), [("another", 0), (SECRET, -301), (SECRET, 3_000), (SECRET, -1_700_000_000)]
)
def test_forged_stale_and_future_requests_are_refused(scene: Scene, secret: str, seconds: float) -> None:
    press_it = press(scene.button("approve"), account=GRACE)
    reply = scene.send(press_it, secret=secret, at=time.time() + seconds)
    scene.settle()
    assert reply.status_code == 403
    assert scene.passed == []


def test_a_replay_is_refused(scene: Scene) -> None:
    body, headers = signed(press(scene.button("approve"), account=GRACE))
    codes = [scene.client.post("/slack/actions", content=body, headers=headers).status_code for _ in range(2)]
    scene.settle()
    assert codes == [200, 403]
    assert len(scene.passed) == 1


@pytest.mark.parametrize("where", ["team", "user"])
def test_another_workspace_is_refused(scene: Scene, where: str) -> None:
    payload = press(scene.button("approve"), account=GRACE)
    payload[where] = {**payload[where], "id" if where == "team" else "team_id": "T0EVIL"}
    assert scene.send(payload).status_code == 403
    assert scene.passed == []


@pytest.mark.parametrize(
    "body", [b"", b"payload=", b"payload=%7B", b"payload=[]", b"payload=null", b"\xff\xfe", b"x" * 400_000]
)
def test_what_is_no_payload_is_refused_in_words(scene: Scene, body: bytes) -> None:
    import hashlib
    import hmac

    stamp = str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}
    reply = scene.client.post("/slack/actions", content=body, headers=headers)
    assert reply.status_code in (400, 403)
    assert json.loads(reply.content)["error"]["what"]


def test_buttons_of_others_and_hostile_values_do_nothing(scene: Scene) -> None:
    other = {"action_id": "someone_elses", "value": "{}"}
    assert scene.send(press(other, account=GRACE)).status_code == 200
    for value in ("", "[]", "{}", '{"release": "x"}', '{"release": "../../etc", "seat": "x"}'):
        hostile = {"action_id": "airlock_approve", "value": value}
        assert scene.send(press(hostile, account=GRACE, nonce=value)).status_code == 400
    unknown = {"action_id": "airlock_reject", "value": json.dumps({"release": "no-such", "seat": 0})}
    assert scene.send(press(unknown, account=GRACE)).status_code == 200
    assert "no-such" in scene.slack.whispers[0]["text"]
    assert scene.passed == []


def test_without_a_secret_nothing_is_believed(scene: Scene) -> None:
    settings = scene.world.deployment.settings.model_copy(update={"slack_signing_secret": SecretStr("")})
    scene.world.deployment = replace(scene.world.deployment, settings=settings)
    reply = scene.send(press(scene.button("approve"), account=GRACE), secret="")
    assert (reply.status_code, scene.passed) == (403, [])


def test_a_slack_that_is_away_leaves_what_was_recorded(scene: Scene) -> None:
    scene.slack.problems = [(0, ""), (500, "internal_error")]
    scene.send(press(scene.button("approve"), account=GRACE))
    scene.settle()
    assert len(scene.world.events(Kind.APPROVAL_RECORDED)) == 1
    scene.send(press(scene.button("approve", 1), account=GRACE, nonce="2"))
    scene.settle()
    assert len(scene.world.events(Kind.APPROVAL_RECORDED)) == 1
