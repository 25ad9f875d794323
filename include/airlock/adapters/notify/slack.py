"""Slack: one message for each seat, with buttons while it is open, and a thread for what follows."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airlock.core.errors import InvalidInputError, UnavailableError
from airlock.core.notices import ChannelSpec, Notice, Topic

if TYPE_CHECKING:
    from slack_sdk import WebClient

API = "https://slack.com/api/"

_MARKS = {
    "good": ":white_check_mark:",
    "warn": ":hourglass_flowing_sand:",
    "bad": ":octagonal_sign:",
    "plain": "",
}
_VERDICTS = {"PASSED": ":white_check_mark:", "WARNED": ":warning:", "FAILED": ":x:", "ERROR": ":x:"}
_HEADER, _SECTION = 150, 2900
"""Characters that Slack takes in a header and in a section."""

_HEALS = {
    "ratelimited",
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
}


class SlackNotifier:
    """Messages of a bot in one channel. It needs the scope ``chat:write`` and has to be a member."""

    def __init__(self, spec: ChannelSpec, *, secret: str, airflow_url: str) -> None:
        self.name = spec.name
        self._channel = spec.to
        self._token = secret
        self._url = airflow_url
        self._base_url = str(spec.options.get("base_url") or API)

    @cached_property
    def _client(self) -> WebClient:
        from slack_sdk import WebClient

        # No handlers: who calls decides when a message is sent again.
        return WebClient(token=self._token, base_url=self._base_url, timeout=10, retry_handlers=[])

    def post(self, notice: Notice, *, thread: str) -> str:
        """Post a message and return its time stamp, which is its id."""
        under = {"thread_ts": thread} if thread else {}
        answer = self._call("chat_postMessage", **message(notice, self._url), **under)
        return str(answer["ts"])

    def update(self, reference: str, notice: Notice) -> None:
        """Replace a message; buttons go when nobody has to act any more."""
        self._call("chat_update", ts=reference, **message(notice, self._url))

    def _call(self, method: str, **values: Any) -> Any:
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            return getattr(self._client, method)(channel=self._channel, **values)
        except SlackApiError as error:
            problem = str(error.response.get("error", error)) if hasattr(error, "response") else str(error)
            status = getattr(error.response, "status_code", 200)
            if problem in _HEALS or status >= 429:  # noqa: PLR2004  # too many requests, or failures over there
                wait = str(getattr(error.response, "headers", {}).get("Retry-After", ""))
                raise UnavailableError(
                    f"Slack answers {problem}" + (f"; try again in {wait} s" if wait else ""),
                    where=self.name,
                    fix="it is tried again",
                ) from error
            raise InvalidInputError(
                f"Slack refuses the message: {problem}", where=self.name, fix="see docs/slack.md"
            ) from error
        except (SlackClientError, OSError, ValueError) as error:
            raise UnavailableError(
                f"Slack does not answer: {error}", where=self.name, fix="it is tried again"
            ) from error


def escape(text: str) -> str:
    """Text of other people for mrkdwn: it can neither mention anybody nor make a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def message(notice: Notice, airflow_url: str) -> dict[str, Any]:
    """``text`` and ``blocks`` of a notice, within what Slack takes."""
    if notice.topic is not Topic.SEAT:
        text = f"{_MARKS[notice.tone]} *{escape(notice.title)}*\n" + "\n".join(
            map(escape, notice.lines or [notice.text])
        )
        links = f"<{airflow_url}{notice.review}|Review> · <{airflow_url}{notice.run}|Run>"
        return {"text": escape(notice.text)[:_SECTION], "blocks": [_section(text), _context(links)]}
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": notice.title[:_HEADER]}},
        *(_section(escape(line)) for line in notice.lines),
    ]
    if notice.facts:
        fields = [
            {"type": "mrkdwn", "text": f"*{escape(name)}*\n{escape(value)}"[:1900]}
            for name, value in notice.facts
        ]
        blocks.append({"type": "section", "fields": fields[:10]})
    if notice.gates:
        blocks.append(_section("\n".join(_gate(line.verdict, line.gate, line.text) for line in notice.gates)))
    if notice.waits:
        blocks.append(_buttons(notice))
    blocks.append(
        _context(f"<{airflow_url}{notice.review}|Review page> · <{airflow_url}{notice.run}|Run in Airflow>")
    )
    return {"text": escape(notice.text)[:_SECTION], "blocks": blocks}


def _gate(verdict: str, gate: str, text: str) -> str:
    return f"{_VERDICTS.get(verdict, '')} *{gate.replace('_', ' ')}*  {escape(text)}"[:400]


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:_SECTION] or "-"}}


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text[:_SECTION]}]}


def _buttons(notice: Notice) -> dict[str, Any]:
    value = json.dumps({"release": notice.release_id, "seat": notice.seat})
    confirm = {
        "title": {"type": "plain_text", "text": "Approve?"},
        "text": {
            "type": "plain_text",
            "text": f"You approve {notice.workload} version {notice.version}."[:290],
        },
        "confirm": {"type": "plain_text", "text": "Approve"},
        "deny": {"type": "plain_text", "text": "Back"},
    }
    return {
        "type": "actions",
        "block_id": "airlock",
        "elements": [
            _button("approve", "Approve", value, style="primary", confirm=confirm),
            _button("reject", "Reject…", value, style="danger"),
            _button("ask", "Ask…", value),
        ],
    }


def _button(action: str, text: str, value: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "button",
        "action_id": f"airlock_{action}",
        "text": {"type": "plain_text", "text": text},
        "value": value,
        **more,
    }
