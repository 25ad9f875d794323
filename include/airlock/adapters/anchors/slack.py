"""An anchor in a Slack channel: people see each checkpoint, and nobody can take that back unseen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from airlock.adapters.anchors.rules import conflict, in_order, is_newest, kept, tampered, to_publish
from airlock.core.canonical import sha256_hex
from airlock.core.errors import ConfigurationError, UnavailableError
from airlock.proof import Checkpoint

if TYPE_CHECKING:
    from slack_sdk import WebClient

EVENT = "airlock_checkpoint"
VARIABLE = "AIRLOCK_SLACK_TOKEN"
"""Environment variable with the bot's token."""

API = "https://slack.com/api/"

_PAGE = 999


@dataclass(frozen=True)
class _Posted:
    """A message with a checkpoint; ``after`` is the digest of the one that its publisher saw before."""

    ts: str
    note: str
    digest: str
    after: str


class SlackAnchor:
    """Checkpoints as messages of a bot: a sentence, the signed note, and both as metadata for programs.

    Slack cannot compare and swap. So each message names the checkpoint it follows, and of two
    that follow the same one the earlier counts; the later is passed over by every reader and its publisher
    gets a conflict. The message itself stays: two publishers at once are worth seeing.

    The bot needs the scopes ``chat:write`` and ``channels:history`` (``groups:history`` in a private
    channel) and has to be a member. Messages of others are not read.
    """

    def __init__(
        self, channel: str, token: str, *, every_seconds: int = 3600, base_url: str | None = None
    ) -> None:
        self._channel = channel
        self._token = token
        self._base_url = base_url or API
        self.name = f"slack://{channel}"
        self.every_seconds = every_seconds

    @cached_property
    def _client(self) -> WebClient:
        # No handlers: a message that is sent again would be there twice.
        from slack_sdk import WebClient

        return WebClient(token=self._token, base_url=self._base_url, timeout=10, retry_handlers=[])

    @cached_property
    def _bot(self) -> str:
        return str(self._client.auth_test()["user_id"])

    def history(self) -> list[str]:
        """All checkpoints the channel still has, oldest first."""
        with self._translated():
            posts = list(self._posts())[::-1]
        return in_order((post.note for post in self._counted(posts)), self.name)

    def latest(self) -> str | None:
        """The newest checkpoint that counts."""
        newest = self._newest()
        return None if newest is None else newest.note

    def publish(self, note: str, *, after: str | None) -> str:
        """Post a message; the receipt is its channel and time stamp."""
        checkpoint = to_publish(note)
        newest = self._newest()
        if not is_newest(note, newest.note if newest else None, after, self.name):
            with self._translated():
                self._client.chat_postMessage(channel=self._channel, **_message(checkpoint, note, after))
            newest = self._newest()
            if newest is None or newest.note != note:
                raise conflict(self.name)
        return f"message {newest.ts if newest else None} in {self._channel}"

    def _newest(self) -> _Posted | None:
        posts: list[_Posted] = []
        digests: set[str] = set()
        with self._translated():
            for post in self._posts():
                digests.add(post.digest)
                # Back to one that counted for sure, because the publishers of all others since had seen it.
                enough = bool(posts) and all(later.after in digests for later in posts)
                posts.append(post)
                if enough:
                    break
        counted = self._counted(posts[::-1])
        return counted[-1] if counted else None

    def _counted(self, posts: Sequence[_Posted]) -> list[_Posted]:
        """The posts that count, of all in the order of time: each follows the one before.

        Raises:
            IntegrityError: one follows a post that is gone, though older ones are there.
        """
        counted = list(posts[:1])
        known = {post.after for post in counted}
        for post in posts[1:]:
            known.add(counted[-1].digest)
            if post.after == counted[-1].digest:
                counted.append(post)
            elif post.after not in known:
                raise tampered("the message of a checkpoint was deleted", f"{self.name} before {post.ts}")
        return counted

    def _posts(self) -> Iterator[_Posted]:
        """Messages of this bot that hold a checkpoint, newest first."""
        cursor = None
        while True:
            page = self._client.conversations_history(
                channel=self._channel, include_all_metadata=True, limit=_PAGE, cursor=cursor
            )
            for message in page["messages"]:
                metadata = message.get("metadata") or {}
                if message.get("user") == self._bot and metadata.get("event_type") == EVENT:
                    yield self._post(message, metadata.get("event_payload"))
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return

    def _post(self, message: Any, payload: Any) -> _Posted:
        ts = str(message.get("ts"))
        where = f"{self.name} message {ts}"
        note, after = (payload or {}).get("note"), (payload or {}).get("after")
        if "edited" in message or not isinstance(note, str) or not isinstance(after, str):
            raise tampered("the message of a checkpoint was edited", where)
        return _Posted(ts, kept(note, where), sha256_hex(note.encode()), after)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            from slack_sdk.errors import SlackApiError, SlackClientError
        except ImportError as error:
            raise ConfigurationError(
                "slack-sdk is not installed", where=self.name, fix="pip install 'airlock-governance[slack]'"
            ) from error
        try:
            yield
        except SlackApiError as error:
            answer = error.response.data if isinstance(error.response.data, dict) else {}
            code = str(answer.get("error", f"status {error.response.status_code}"))
            raise self._unavailable(code, _fix(code, answer)) from None
        except (
            SlackClientError,
            OSError,
            HTTPException,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ) as error:
            raise self._unavailable(str(error), "check the network and that Slack is up") from None

    def _unavailable(self, message: str, fix: str) -> UnavailableError:
        text = re.sub(r"xox[a-z]*-[\w-]+", "***", message.replace(self._token, "***"))
        return UnavailableError(f"Slack failed: {text[:300]}", where=self.name, fix=fix)


def _fix(code: str, answer: dict[str, Any]) -> str:
    if code in ("invalid_auth", "not_authed", "token_revoked", "account_inactive", "token_expired"):
        return f"set {VARIABLE} to the bot's token"
    if code in ("channel_not_found", "not_in_channel", "is_archived"):
        return "invite the bot to the channel; the URL has the channel's id, such as C0123456789"
    if code == "missing_scope":
        return f"give the bot the scope {answer.get('needed')}"
    if code == "ratelimited":
        return "publish less often: every=3600"
    return "look that word up in Slack's documentation of chat.postMessage and conversations.history"


def _message(checkpoint: Checkpoint, note: str, after: str | None) -> dict[str, Any]:
    sentence = f"Audit log of {checkpoint.origin}: {checkpoint.size:,} entries"
    # Blocks of rich text take the text as it is: nothing in it can mention people or become a link.
    parts = [
        {"type": "rich_text_section", "elements": [{"type": "text", "text": sentence}]},
        {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": note}]},
    ]
    payload = {
        "size": checkpoint.size,
        "note": note,
        "after": "" if after is None else sha256_hex(after.encode()),
    }
    return {
        "text": sentence.translate({ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}),
        "blocks": [{"type": "rich_text", "elements": parts}],
        "metadata": {"event_type": EVENT, "event_payload": payload},
        "unfurl_links": False,
        "unfurl_media": False,
    }
