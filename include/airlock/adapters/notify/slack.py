"""Slack: one message for each seat, with buttons while it is open, and a thread for what follows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
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

_LINE, _GATE = 600, 160
"""Characters of a line and of what a gate says, so that the message can be read at a glance."""

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
                    seconds=float(wait) if wait.isdecimal() else 0.0,
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
    blocks = _seat(notice) if notice.topic is Topic.SEAT else _news(notice)
    links = [(notice.review, "Review page"), (notice.run, "Run in Airflow")]
    blocks.append(_context(" · ".join(f"<{airflow_url}{path}|{label}>" for path, label in links)))
    return {"text": escape(notice.text)[:_SECTION], "blocks": blocks, "unfurl_links": False}


def _news(notice: Notice) -> list[dict[str, Any]]:
    """What comes in a thread, or for itself: a title, its words, and who it is for."""
    words = notice.lines or ([notice.text] if notice.text != notice.title else [])
    blocks = [_section(f"{_MARKS[notice.tone]} *{escape(notice.title)}*"), *map(_quoted, words)]
    if notice.gates:
        blocks.append(_gates(notice))
    if notice.waits and notice.question:
        value = json.dumps({"release": notice.release_id, "question": notice.question})
        reply = _button("reply", "Answer…", value)
        blocks.append({"type": "actions", "block_id": "airlock", "elements": [reply]})
    return blocks


def _quoted(text: str) -> dict[str, Any]:
    """What somebody wrote; each of its lines is marked as a quotation, so it cannot pass for ours."""
    return _section("\n".join(f"&gt; {line}" for line in escape(text).splitlines() or [""]))


def _seat(notice: Notice) -> list[dict[str, Any]]:
    """The question for one seat, the decision-relevant first; without buttons once nobody has to act."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": notice.title[:_HEADER]}},
        _section("\n".join(escape(_one_line(line)) for line in notice.lines)),
    ]
    if notice.changed:
        blocks.append(
            _section("*What changed*\n" + "\n".join(f"• {escape(_one_line(one))}" for one in notice.changed))
        )
    fields = [f"*{escape(name)}*\n{escape(value)}"[:1900] for name, value in notice.facts]
    if notice.until_us:
        fields.append(f"*open until*\n{_moment(notice.until_us)}")
    if fields:
        blocks.append(
            {"type": "section", "fields": [{"type": "mrkdwn", "text": text} for text in fields[:10]]}
        )
    if notice.gates:
        blocks.append(_gates(notice))
    if notice.waits:
        blocks += [_buttons(notice), _context("Unanswered, it is closed. Silence never approves.")]
    return blocks


def _one_line(text: str) -> str:
    """Words of somebody on one line of ours, so that no line of theirs can pass for one of ours."""
    words = " ".join(text.split())
    return words if len(words) <= _LINE else words[: _LINE - 1] + "…"


def _gates(notice: Notice) -> dict[str, Any]:
    lines = [_gate(line.verdict, line.gate, line.text) for line in notice.gates]
    shown: list[str] = []
    for line in lines:
        # Whole lines only: a cut one would lose the word that matters.
        if sum(map(len, shown)) + len(line) > _SECTION - 100:
            shown.append(f"… and {len(lines) - len(shown)} more on the review page")
            break
        shown.append(line)
    return _section("\n".join(shown))


def _gate(verdict: str, gate: str, text: str) -> str:
    short = text if len(text) <= _GATE else text[: _GATE - 1].rsplit(" ", 1)[0] + "…"
    return f"{_VERDICTS.get(verdict, '')} *{escape(gate.replace('_', ' '))}*  {escape(short)}"


def _moment(us: int) -> str:
    """A time in each reader's own time zone; UTC for programs that know no such thing."""
    fallback = datetime.fromtimestamp(us / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"<!date^{us // 1_000_000}^{{date_short_pretty}} {{time}}|{fallback}>"


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
            "text": f"You approve {notice.workload} version {notice.version} as {notice.role}."[:290],
        },
        "confirm": {"type": "plain_text", "text": "Approve"},
        "deny": {"type": "plain_text", "text": "Back"},
    }
    elements = [_button("approve", "Approve", value, style="primary", confirm=confirm)]
    if notice.conditional:
        elements.append(_button("condition", "Approve with condition…", value))
    elements += [_button("reject", "Reject…", value, style="danger"), _button("ask", "Ask…", value)]
    return {"type": "actions", "block_id": "airlock", "elements": elements}


def _button(action: str, text: str, value: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "button",
        "action_id": f"airlock_{action}",
        "text": {"type": "plain_text", "text": text},
        "value": value,
        **more,
    }
