"""Socket Mode: what is pressed arrives over our own connection, and is checked as if Slack had called."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from airlock.adapters.settings import Settings
from airlock.adapters.slack_socket import ENDPOINT, SlackSocket
from airlock.core.errors import AirlockError, ConfigurationError
from tests.support.fake_slack import SECRET, TEAM, FakeSlack, fake_slack
from tests.support.fake_socket import FakeSocket, fake_socket

pytestmark = pytest.mark.requirement("A-3")

PAYLOAD = {"type": "block_actions", "team": {"id": TEAM}, "user": {"id": "U0GRACE"}}


@dataclass
class Endpoint:
    """Airlock's endpoint, as far as the socket knows it."""

    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    replies: list[tuple[int, bytes]] = field(default_factory=list)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append(
                (self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            status, data = found.replies.pop(0) if found.replies else (200, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


@dataclass
class Line:
    """A running connection."""

    socket: FakeSocket
    slack: FakeSlack
    endpoint: Endpoint
    errors: list[AirlockError]


@pytest.fixture
def line(endpoint: Endpoint, tmp_path: Path) -> Iterator[Line]:
    with fake_slack() as slack, fake_socket() as socket:
        slack.socket_url = socket.url
        settings = Settings(
            home=tmp_path,
            airflow_url=endpoint.url,
            slack_signing_secret=SecretStr(SECRET),
            slack_team=TEAM,
            slack_app_token=SecretStr("xapp-test"),
            slack_api=slack.url,
        )
        stop, errors = threading.Event(), list[AirlockError]()
        thread = threading.Thread(target=SlackSocket(settings).run, args=(stop, errors.append))
        thread.start()
        try:
            socket.until(lambda: socket.connection)
            yield Line(socket, slack, endpoint, errors)
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive()


def test_what_is_pressed_is_passed_on_signed_and_acknowledged(line: Line) -> None:
    from slack_sdk.signature import SignatureVerifier

    line.socket.send("e1", PAYLOAD)
    assert line.socket.wait_for("e1") == {"envelope_id": "e1"}
    ((path, headers, body),) = line.endpoint.requests
    assert path == ENDPOINT
    stamp, signature = headers["x-slack-request-timestamp"], headers["x-slack-signature"]
    assert SignatureVerifier(SECRET).is_valid(body, stamp, signature)


def test_what_the_endpoint_answers_to_a_form_goes_back(line: Line) -> None:
    answer = {"response_action": "errors", "errors": {"text": "Say more."}}
    line.endpoint.replies = [(200, json.dumps(answer).encode())]
    line.socket.send("e1", PAYLOAD)
    assert line.socket.wait_for("e1")["payload"] == answer


def test_a_repetition_is_acknowledged_and_passed_on_once(line: Line) -> None:
    for _ in range(2):
        line.socket.send("e1", PAYLOAD)
    line.socket.until(lambda: len(line.socket.acknowledged) == 2)
    assert len(line.endpoint.requests) <= 2
    line.socket.send("e1", PAYLOAD)
    line.socket.until(lambda: len(line.socket.acknowledged) == 3)
    assert len(line.endpoint.requests) <= 2


def test_what_airflow_could_not_take_is_not_acknowledged_so_that_it_comes_again(line: Line) -> None:
    line.endpoint.replies = [(503, b"")]
    line.socket.send("e1", PAYLOAD)
    line.socket.until(lambda: line.errors)
    assert (line.socket.acknowledged, line.errors[0].what) == ([], "Airflow answers 503")
    line.socket.send("e1", PAYLOAD)
    line.socket.wait_for("e1")
    assert len(line.endpoint.requests) == 2


def test_what_the_endpoint_refuses_is_told_and_not_asked_for_again(line: Line) -> None:
    line.endpoint.replies = [(403, b"another workspace")]
    line.socket.send("e1", PAYLOAD)
    line.socket.wait_for("e1")
    assert "refuses it with 403: another workspace" in line.errors[0].what


def test_other_events_are_none_of_its_business(line: Line) -> None:
    line.socket.send("e1", {"text": "hello"}, kind="events_api")
    line.socket.wait_for("e1")
    assert line.endpoint.requests == []


def test_a_broken_connection_is_opened_again(line: Line) -> None:
    line.socket.hang_up()
    line.socket.until(lambda: line.socket.opened == 2 and line.socket.connection, 40)
    line.socket.send("e2", PAYLOAD)
    line.socket.wait_for("e2")
    assert line.slack.calls.count("apps.connections.open") == 2


def test_without_a_secret_there_is_nothing_to_sign_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no secret to sign with"):
        SlackSocket(Settings(home=tmp_path, slack_app_token=SecretStr("xapp-test")))
