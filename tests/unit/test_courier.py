"""The courier tells every channel what there is to tell, once, whatever goes wrong on the way."""

from __future__ import annotations

import hmac
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airlock.adapters.notify import open_notifier
from airlock.adapters.outbox import Outbox
from airlock.core.errors import ConfigurationError, InvalidInputError, UnavailableError
from airlock.core.evidence import Verdict
from airlock.core.notices import ChannelSpec, Notice, Topic
from airlock.services.announce import seal
from airlock.services.courier import Courier
from airlock.services.deployment import anchors_of
from airlock.services.promote import promote
from airlock.services.sequence import Sequencer
from tests.support.deployments import World, edit, fast_folder, make_world
from tests.support.fake_slack import CHANNEL, TOKEN, FakeSlack, fake_slack

pytestmark = pytest.mark.requirement("A-3")

URL = "https://airflow.example"


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        # From now on everything is news.
        Outbox(world.root / "outbox.db").advance(0, [])
        yield world


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as slack:
        yield slack


def spec(slack: FakeSlack | None = None, **changes: object) -> ChannelSpec:
    options = {} if slack is None else {"base_url": slack.url}
    values = {"name": "governance", "type": "slack", "to": CHANNEL, "secret": "SLACK", "options": options}
    return ChannelSpec.model_validate({**values, **changes})


def courier(world: World, *specs: ChannelSpec) -> Courier:
    channels = [(one, open_notifier(one, airflow_url=URL, environment={"SLACK": TOKEN})) for one in specs]
    return Courier(world.deployment, channels, Outbox(world.root / "outbox.db"))


def step(world: World, worker: Courier) -> int:
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    sequencer.step()
    sequencer.publish()
    return worker.step()


def texts(slack: FakeSlack) -> list[str]:
    return [slack.text(ts) for ts in slack.messages]


def test_each_seat_is_one_message_that_is_updated_when_it_is_filled(world: World, slack: FakeSlack) -> None:
    worker = courier(world, spec(slack))
    release_id = world.judged("2", track="red")
    assert step(world, worker) == 2
    first, second = list(slack.messages)
    assert set(slack.buttons(first)) == {"airlock_approve", "airlock_reject", "airlock_ask"}
    assert "governance-analyst" in slack.text(first)
    assert f"{URL}/airlock/releases/{release_id}" in slack.text(first)
    assert "performance changes by 30.0 %" in slack.text(first)
    assert step(world, worker) == 0  # nothing new, nothing told
    world.answer(release_id, "grace", 0)
    assert step(world, worker) == 2  # the other says how many seats are filled
    assert slack.buttons(first) == {}
    assert "approved by grace" in slack.text(first)
    assert set(slack.buttons(second)) == {"airlock_approve", "airlock_reject", "airlock_ask"}
    assert "1 of 2" in slack.text(second)


def test_who_pressed_a_button_sees_their_own_message_change_first(world: World, slack: FakeSlack) -> None:
    worker = courier(world, spec(slack))
    release_id = world.judged("2", track="red")
    step(world, worker)
    first, second = list(slack.messages)
    world.answer(release_id, "ravi", 1)
    step(world, worker)
    assert slack.updated == [second, first]


def test_the_end_is_told_in_the_thread(world: World, slack: FakeSlack) -> None:
    worker = courier(world, spec(slack))
    release_id = world.granted("2")
    promote(world.deployment, release_id)
    step(world, worker)
    last = list(slack.messages)[-1]
    assert slack.messages[last]["thread_ts"] == next(iter(slack.messages))
    assert "promoted" in slack.text(last)


@pytest.mark.requirement("A-5", "U-5")
def test_a_denied_release_tells_how_to_fix_it(world: World, slack: FakeSlack) -> None:
    worker = courier(world, spec(slack))
    release_id = world.judged("2", verdicts={"performance": Verdict.FAILED})
    seal(world.deployment, release_id)
    assert step(world, worker) == 1
    (text,) = texts(slack)
    assert "How to fix it: fix performance" in text
    assert "denied" in text


@pytest.mark.requirement("A-6")
def test_people_are_reminded_then_somebody_else_is_told_and_then_it_is_closed(
    world: World, slack: FakeSlack
) -> None:
    escalation = "escalate_hours: 60\n  escalate_to: risk-officer"
    edit(
        world.policy_file, "expires_hours: 72", f"expires_hours: 72\n  remind_hours: [24, 48]\n  {escalation}"
    )
    worker = courier(world, spec(slack))
    release_id = world.judged("2", track="yellow")
    assert step(world, worker) == 1
    for hours, said in ((24, "has waited 24 hours"), (24, "has waited 48 hours"), (12, "Nobody answers as")):
        world.clock.advance(hours=hours)
        assert step(world, worker) >= 1
        assert said in texts(slack)[-1]
        assert step(world, worker) == 0
    world.clock.advance(hours=13)
    step(world, worker)
    first = next(iter(slack.messages))
    assert slack.buttons(first) == {}
    assert "expired" in slack.text(first)
    assert release_id in slack.text(first)


def test_an_outage_of_the_channel_loses_nothing(world: World, slack: FakeSlack) -> None:
    worker = courier(world, spec(slack))
    release_id = world.judged("2", track="yellow")
    slack.problems = [(0, ""), (500, "internal_error"), (429, "ratelimited")]
    for seconds in (1, 2, 4):
        assert step(world, worker) == 0
        assert slack.messages == {}
        assert step(world, worker) == 0  # not before its time
        world.clock.advance(us=seconds * 1_000_000)
    assert len(slack.calls) == 3
    assert step(world, worker) == 1
    world.answer(release_id, "petra", 0)
    slack.problems = [(500, "fatal_error")]
    assert step(world, worker) == 0
    world.clock.advance(us=1_000_000)
    assert step(world, worker) == 1
    assert "approved by petra" in slack.text(next(iter(slack.messages)))


def test_a_channel_that_refuses_does_not_hold_up_another(world: World, slack: FakeSlack) -> None:
    bad, good = spec(slack, name="bad"), spec(slack, name="good")
    worker = courier(world, bad, good)
    world.judged("2", track="yellow")
    slack.problems = [(200, "channel_not_found")]
    assert step(world, worker) == 1
    assert step(world, worker) == 0
    ((channel, _, problem),) = Outbox(world.root / "outbox.db").problems()
    assert (channel, "channel_not_found" in problem) == ("bad", True)


def test_a_courier_that_is_killed_goes_on_where_it_stopped(
    world: World, slack: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*args: object) -> None:
        raise Killed

    worker = courier(world, spec(slack))
    world.judged("2", track="yellow")
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "sleep", die)
        with pytest.raises(Killed):
            step(world, worker)
    assert len(slack.messages) == 1
    assert step(world, courier(world, spec(slack))) == 0
    assert len(slack.messages) == 1


def test_the_first_start_tells_what_waits_and_not_what_is_over(
    world: World, slack: FakeSlack, tmp_path: Path
) -> None:
    over = world.judged("2", verdicts={"performance": Verdict.FAILED})
    seal(world.deployment, over)
    world.judged("3", track="yellow")
    one = spec(slack)
    notifier = open_notifier(one, airflow_url=URL, environment={"SLACK": TOKEN})
    worker = Courier(world.deployment, [(one, notifier)], Outbox(tmp_path / "new.db"))
    assert step(world, worker) == 0 or len(slack.messages) == 1
    worker.step()
    (text,) = texts(slack)
    assert "version 3" in text


def test_channels_choose_by_topic_role_and_workload(world: World, slack: FakeSlack) -> None:
    worker = courier(
        world,
        spec(slack, name="risk", roles=["risk-officer"], topics=["seat"]),
        spec(slack, name="others", workloads=["another-model"]),
    )
    world.judged("2", track="red")
    assert step(world, worker) == 1
    assert "approve as risk-officer" in texts(slack)[0]


def test_text_of_others_can_neither_mention_nor_link(world: World, slack: FakeSlack) -> None:
    worker = courier(world, spec(slack))
    world.judged("2", track="yellow", summary="<!channel> <http://evil.example|click> & more")
    step(world, worker)
    (text,) = texts(slack)
    assert "<!channel>" not in text
    assert "<http://evil" not in text
    assert "&lt;!channel&gt;" in text


def test_long_texts_fit_into_what_slack_takes() -> None:
    from airlock.adapters.notify.slack import message

    notice = Notice(
        notice_id="x/seat/0", topic=Topic.SEAT, release_id="x", workload="w", version="1", title="t" * 900,
        text="t" * 9000, lines=["l" * 9000], facts=[("n", "v" * 9000)] * 30,
        gates=[{"gate": "g", "verdict": "PASSED", "text": "g" * 900}] * 40, waits=True, review="/r", run="/r",
    )  # fmt: skip
    blocks = message(notice, URL)["blocks"]
    for block in blocks:
        if block["type"] == "header":
            assert len(block["text"]["text"]) <= 150
        if "text" in block:
            assert len(block["text"]["text"]) <= 3000
        assert len(block.get("fields", [])) <= 10
        assert all(len(one["text"]) <= 2000 for one in block.get("fields", []))


def test_a_secret_that_is_not_set_is_said_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="the secret of channel governance is not set"):
        open_notifier(spec(), airflow_url=URL, environment={})


@pytest.mark.parametrize("kind", ["slack", "email", "webhook", "pagerduty", "jira"])
def test_a_channel_that_is_not_set_up_says_what_it_needs(kind: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_notifier(spec(type=kind, secret=None), airflow_url=URL)
    assert caught.value.fix


def sample(**changes: object) -> Notice:
    values = {
        "notice_id": "loan-model-v2/seat/0",
        "topic": "seat",
        "release_id": "loan-model-v2",
        "workload": "loan-model", "version": "2",
        "title": "Loan model version 2: approve?", "text": "Approve?", "tone": "warn",
        "lines": ["dana asks"], "facts": [("impact ratio", "0.81, limit 0.8")], "waits": True,
        "gates": [{"gate": "bias", "verdict": "PASSED", "text": "fair"}],
        "review": "/airlock/releases/x", "run": "/r",
    }  # fmt: skip
    return Notice.model_validate({**values, **changes})


@dataclass
class Received:
    """What a local server was sent, and what it answers."""

    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    body: bytes = b"{}"


@pytest.fixture
def server() -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.requests.append((self.path, headers, content))
            self.send_response(received.status)
            self.send_header("Content-Length", str(len(received.body)))
            self.end_headers()
            self.wfile.write(received.body)

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield received
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_webhook_is_signed_so_that_the_receiver_can_tell(server: Received) -> None:
    one = spec(type="webhook", to=f"{server.url}/hook", secret="HOOK")
    hook = open_notifier(one, airflow_url=URL, environment={"HOOK": "shared"})
    reference = hook.post(sample(), thread="")
    hook.update(reference, sample(waits=False))
    for (path, headers, body), event in zip(server.requests, ("posted", "updated"), strict=True):
        signed = f"{headers['x-airlock-timestamp']}.".encode() + body
        assert headers["x-airlock-signature"] == "v1=" + hmac.new(b"shared", signed, "sha256").hexdigest()
        found = json.loads(body)
        assert (path, found["event"], found["notice"]["review"]) == (
            "/hook",
            event,
            f"{URL}/airlock/releases/x",
        )


def test_pagerduty_is_triggered_while_somebody_has_to_act_and_resolved_then(server: Received) -> None:
    one = spec(type="pagerduty", to="releases", secret="KEY", options={"base_url": server.url})
    pager = open_notifier(one, airflow_url=URL, environment={"KEY": "routing"})
    reference = pager.post(sample(), thread="")
    pager.update(reference, sample(waits=False, tone="good"))
    bodies = [json.loads(body) for _, _, body in server.requests]
    assert [body["event_action"] for body in bodies] == ["trigger", "resolve"]
    assert {body["dedup_key"] for body in bodies} == {"loan-model-v2/seat/0"}
    assert {body["routing_key"] for body in bodies} == {"routing"}
    pager.post(sample(topic="outcome", waits=False, tone="good"), thread="")
    assert len(server.requests) == 2  # good news wakes nobody


def test_jira_gets_an_issue_and_comments(server: Received) -> None:
    server.body = b'{"key": "GOV-7"}'
    one = spec(type="jira", to="GOV", secret="JIRA", options={"base_url": server.url})
    jira = open_notifier(one, airflow_url=URL, environment={"JIRA": "bot:token"})
    reference = jira.post(sample(), thread="")
    jira.update(reference, sample(waits=False, title="approved by grace"))
    jira.post(sample(topic="outcome"), thread=reference)
    paths = [path for path, _, _ in server.requests]
    assert paths == ["/rest/api/2/issue", *["/rest/api/2/issue/GOV-7/comment"] * 2]
    assert json.loads(server.requests[0][2])["fields"]["project"] == {"key": "GOV"}
    assert "approved by grace" in json.loads(server.requests[1][2])["body"]
    assert server.requests[0][1]["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, UnavailableError), (429, UnavailableError), (404, InvalidInputError), (302, InvalidInputError)],
)
def test_what_may_heal_is_told_from_what_will_not(
    server: Received, status: int, error: type[Exception]
) -> None:
    server.status = status
    one = spec(type="webhook", to=server.url, secret="HOOK")
    with pytest.raises(error):
        open_notifier(one, airflow_url=URL, environment={"HOOK": "shared"}).post(sample(), thread="")


def test_mail_goes_out_as_a_thread() -> None:
    received: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            data = False
            for line in self.rfile:
                word = line.decode().strip()
                if data and word == ".":
                    data = False
                    self.wfile.write(b"250 ok\r\n")
                elif data:
                    received.append(word)
                elif word.upper() == "DATA":
                    data = True
                    self.wfile.write(b"354 go on\r\n")
                elif word.upper() == "QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                else:
                    self.wfile.write(b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        one = spec(type="email", to="gov@example.org", secret="SMTP", options={"plain": True})
        url = f"smtp://127.0.0.1:{server.server_address[1]}"
        mail = open_notifier(one, airflow_url=URL, environment={"SMTP": url})
        reference = mail.post(sample(title="Approve?\r\nBcc: evil@example.org"), thread="")
        mail.update(reference, sample(waits=False, title="approved"))
        server.shutdown()
    text = "\n".join(received)
    assert "\nBcc:" not in text
    assert f"In-Reply-To: {reference}" in text
    assert f"{URL}/airlock/releases/x" in text


def test_no_secret_is_in_an_error(slack: FakeSlack) -> None:
    notifier = open_notifier(spec(slack), airflow_url=URL, environment={"SLACK": "xoxb-very-secret"})
    notice = Notice(
        notice_id="x", topic=Topic.OUTCOME, release_id="x", workload="w", version="1", title="t", text="t",
        review="/r", run="/r",
    )  # fmt: skip
    with pytest.raises((InvalidInputError, UnavailableError)) as caught:
        notifier.post(notice, thread="")
    assert "xoxb-very-secret" not in f"{caught.value!r} {caught.value.where} {caught.value.fix}"
