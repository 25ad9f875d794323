"""A webhook: the notice as JSON, signed, so that the receiver knows who sent it."""

from __future__ import annotations

import hashlib
import hmac
import time

from airlock.adapters.notify.http import send
from airlock.core.canonical import canonical_json
from airlock.core.errors import ConfigurationError
from airlock.core.notices import ChannelSpec, Notice


class WebhookNotifier:
    """Posts to one URL. ``X-Airlock-Signature`` is ``v1=`` and the HMAC-SHA256 of ``timestamp.body``."""

    def __init__(self, spec: ChannelSpec, *, secret: str, airflow_url: str) -> None:
        if not spec.to.startswith(("https://", "http://")) or not secret:
            raise ConfigurationError(
                f"channel {spec.name} needs a URL in `to` and the name of a secret in `secret`",
                where="notifications.yaml",
                fix="the receiver checks the signature with the same secret",
            )
        self.name = spec.name
        self._to = spec.to
        self._secret = secret.encode()
        self._url = airflow_url

    def post(self, notice: Notice, *, thread: str) -> str:
        """Send the notice; its id is the reference."""
        del thread  # the notice itself names what it belongs under
        self._send("posted", notice)
        return notice.notice_id

    def update(self, reference: str, notice: Notice) -> None:
        """Send the new state of the same notice."""
        del reference
        self._send("updated", notice)

    def _send(self, event: str, notice: Notice) -> None:
        links = {"review": self._url + notice.review, "run": self._url + notice.run}
        body = canonical_json({"event": event, "notice": {**notice.to_data(), **links}})
        stamp = str(int(time.time()))
        signature = hmac.new(self._secret, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-Airlock-Timestamp": stamp,
            "X-Airlock-Signature": f"v1={signature}",
            "X-Airlock-Id": notice.notice_id,
        }
        send(self.name, "POST", self._to, content=body, headers=headers)
