"""A local Slack: the methods of its API that Airlock calls, and requests signed as Slack signs them."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode

TOKEN, APP_TOKEN = "xoxb-test", "xapp-test"
SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
TEAM = "T0TEST"
CHANNEL = "C0GOVERN"


@dataclass
class FakeSlack:
    """What was posted, by time stamp, and what is to go wrong."""

    url: str = ""
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    whispers: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Status and error of the next calls, one each; status 0 hangs up."""
    socket_url: str = ""
    """Where Socket Mode connects to."""

    def answer(self, method: str, values: dict[str, Any]) -> dict[str, Any]:
        """What the API answers."""
        problem = ""
        match method:
            case "chat.postMessage":
                ts = f"{1_700_000_000 + len(self.messages)}.000100"
                self.messages[ts] = values
                return {"ok": True, "ts": ts, "channel": values["channel"]}
            case "chat.update" if values["ts"] in self.messages:
                self.messages[values["ts"]] |= values
                self.updated.append(values["ts"])
            case "chat.update":
                problem = "message_not_found"
            case "apps.connections.open" if self.socket_url:
                return {"ok": True, "url": self.socket_url}
            case "chat.postEphemeral":
                self.whispers.append(values)
            case "views.open" if all(view["trigger_id"] != values["trigger_id"] for view in self.views):
                self.views.append(values)
            case "views.open":
                problem = "exchanged_trigger_id"
            case _:
                problem = "unknown_method"
        return {"ok": not problem, **({"error": problem} if problem else {})}

    def text(self, ts: str) -> str:
        """Everything a person reads of a message."""
        return json.dumps(self.messages[ts]["blocks"], ensure_ascii=False)

    def buttons(self, ts: str) -> dict[str, dict[str, Any]]:
        """The buttons of a message by their action."""
        return {
            element["action_id"]: element
            for block in self.messages[ts]["blocks"]
            if block["type"] == "actions"
            for element in block["elements"]
        }


@contextmanager
def fake_slack() -> Iterator[FakeSlack]:
    """Run a fake Slack on a free port."""
    slack = FakeSlack()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            method = self.path.rsplit("/", 1)[-1]
            slack.calls.append(method)
            status, problem = slack.problems.pop(0) if slack.problems else (200, "")
            if status == 0:
                self.connection.close()
                return
            if problem:
                answer: dict[str, Any] = {"ok": False, "error": problem}
            elif self.headers.get("Authorization") not in (f"Bearer {TOKEN}", f"Bearer {APP_TOKEN}"):
                answer = {"ok": False, "error": "invalid_auth"}
            else:
                answer = slack.answer(method, _values(self.headers.get("Content-Type", ""), body))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    slack.url = f"http://127.0.0.1:{server.server_port}/api/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield slack
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _values(content_type: str, body: bytes) -> dict[str, Any]:
    if content_type.startswith("application/json"):
        found: dict[str, Any] = json.loads(body or b"{}")
        return found
    values: dict[str, Any] = {name: value[0] for name, value in parse_qs(body.decode()).items()}
    for name in ("blocks", "view"):
        if isinstance(values.get(name), str):
            values[name] = json.loads(values[name])
    return values


def signed(
    payload: dict[str, Any], *, secret: str = SECRET, at: float | None = None
) -> tuple[bytes, dict[str, str]]:
    """A request as Slack sends it: body and headers."""
    body = urlencode({"payload": json.dumps(payload)}).encode()
    stamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    return body, {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={digest}",
    }


def press(
    button: dict[str, Any], *, account: str, ts: str = "1.1", team: str = TEAM, nonce: str = "1"
) -> dict[str, Any]:
    """What Slack sends when somebody presses a button."""
    return {
        "type": "block_actions",
        "team": {"id": team},
        "user": {"id": account, "team_id": team},
        "channel": {"id": CHANNEL},
        "message": {"ts": ts},
        "trigger_id": f"trigger-{nonce}",
        "actions": [{"action_id": button["action_id"], "value": button["value"]}],
    }


def submit(
    view: dict[str, Any], text: str, *, account: str, team: str = TEAM, until: str | None = None
) -> dict[str, Any]:
    """What Slack sends when somebody sends a form."""
    values: dict[str, Any] = {"text": {"text": {"value": text}}}
    if any(block["block_id"] == "until" for block in view["blocks"]):
        values["until"] = {"until": {"selected_date": until}}
    return {
        "type": "view_submission",
        "team": {"id": team},
        "user": {"id": account, "team_id": team},
        "view": {
            "callback_id": view["callback_id"],
            "private_metadata": view["private_metadata"],
            "state": {"values": values},
        },
    }
