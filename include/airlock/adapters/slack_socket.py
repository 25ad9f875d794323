"""Socket Mode: Slack's buttons for an Airflow that Slack cannot reach.

Slack sends what people press through a connection that we open. Each is passed on to Airlock's own endpoint,
signed as Slack would sign it, so that there is one place where an answer is checked, and one way it is given.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx

from airlock.adapters.settings import Settings
from airlock.core.errors import AirlockError, ConfigurationError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from slack_sdk.socket_mode.client import BaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest

ENDPOINT = "/airlock/slack/actions"
SECONDS = 2.5
"""Slack waits three for an answer, and sends it again then."""

PING_SECONDS = 1.0
"""Between two looks whether the connection still stands. A dead one is replaced after about five of them, and
what people press meanwhile waits; slack-sdk's own five seconds make that half a minute."""

REMEMBERED = 1000
"""Envelopes that are known again when Slack repeats them."""

LONGEST_PAUSE = 60.0

OnError = Callable[[AirlockError], None]

log = logging.getLogger(__name__)


class SlackSocket:
    """One connection to Slack, kept open; needs an app token (``xapp-…``) with ``connections:write``."""

    def __init__(self, settings: Settings) -> None:
        if not settings.slack_signing_secret.get_secret_value() or not settings.slack_team:
            raise ConfigurationError(
                "Socket Mode passes on what is pressed signed, and there is no secret to sign with",
                where="AIRLOCK_SLACK_SIGNING_SECRET, AIRLOCK_SLACK_TEAM",
                fix="set both for the courier and for Airflow's API server, as docs/notifications.md says",
            )
        self._settings = settings
        self._url = settings.airflow_url.rstrip("/") + ENDPOINT
        self._seen: OrderedDict[str, dict[str, Any] | None] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, stop: threading.Event, on_error: OnError) -> None:
        """Stay connected until ``stop`` is set; errors are told, and it goes on."""
        from slack_sdk.errors import SlackClientError

        pause = 1.0
        while not stop.is_set():
            client = self._client(on_error)
            try:
                client.connect()
                pause = 1.0
                stop.wait()
            except (SlackClientError, OSError) as error:
                on_error(UnavailableError(f"Slack does not answer: {error}", fix="it is tried again"))
                stop.wait(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            finally:
                client.close()

    def _client(self, on_error: OnError) -> BaseSocketModeClient:
        from slack_sdk import WebClient
        from slack_sdk.socket_mode.builtin import SocketModeClient
        from slack_sdk.socket_mode.response import SocketModeResponse

        def received(client: BaseSocketModeClient, request: SocketModeRequest) -> None:
            try:
                answer = self.pass_on(request.type, request.envelope_id, request.payload)
            except RefusedError as error:
                answer = None  # it will be refused again
                on_error(error)
            except AirlockError as error:
                on_error(error)
                return  # not acknowledged: Slack sends it once more
            client.send_socket_mode_response(
                SocketModeResponse(envelope_id=request.envelope_id, payload=answer)
            )

        token = self._settings.slack_app_token.get_secret_value()
        web = WebClient(base_url=self._settings.slack_api, timeout=10, retry_handlers=[])
        client = SocketModeClient(app_token=token, web_client=web, logger=log, ping_interval=PING_SECONDS)
        client.socket_mode_request_listeners.append(received)
        return client

    def pass_on(self, kind: str, envelope_id: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Give what Slack sent to the endpoint, once, and return its answer.

        Raises:
            RefusedError: the endpoint refuses it.
            UnavailableError: the endpoint does not answer; it is worth sending again.
        """
        if kind != "interactive":
            return None
        with self._lock:
            if envelope_id in self._seen:
                return self._seen[envelope_id]
        answer = self._post(payload)
        with self._lock:
            self._seen[envelope_id] = answer
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return answer

    def _post(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        from slack_sdk.signature import SignatureVerifier

        body, stamp = urlencode({"payload": json.dumps(payload)}), str(int(time.time()))
        secret = self._settings.slack_signing_secret.get_secret_value()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body)
            or "",
        }
        try:
            reply = httpx.post(self._url, content=body, headers=headers, timeout=SECONDS, trust_env=False)
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"Airflow does not answer: {error}", where=self._url, fix="check AIRLOCK_AIRFLOW_URL"
            ) from error
        if reply.is_server_error:
            raise UnavailableError(f"Airflow answers {reply.status_code}", where=self._url)
        if not reply.is_success:
            raise RefusedError(
                f"the endpoint refuses it with {reply.status_code}: {reply.text[:200]}", where=self._url
            )
        found: dict[str, Any] | None = reply.json() if reply.content else None
        return found
