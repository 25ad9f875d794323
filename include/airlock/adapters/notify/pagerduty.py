"""PagerDuty, Events API v2: an alert while somebody has to act, resolved when not."""

from __future__ import annotations

from airlock.adapters.notify.http import send
from airlock.core.notices import ChannelSpec, Notice

API = "https://events.pagerduty.com"

_SEVERITY = {"bad": "error", "warn": "warning", "good": "info", "plain": "info"}


class PagerDutyNotifier:
    """One service; ``secret`` is its routing key, ``to`` its name. The notice id is the deduplication key."""

    def __init__(self, spec: ChannelSpec, *, secret: str, airflow_url: str) -> None:
        self.name = spec.name
        self._key = secret
        self._url = airflow_url
        self._api = str(spec.options.get("base_url") or API).rstrip("/")

    def post(self, notice: Notice, *, thread: str) -> str:
        """Trigger an alert where somebody has to act; otherwise there is nothing to wake anybody for."""
        del thread
        if notice.waits or notice.tone == "bad":
            self._send("trigger", notice)
        return notice.notice_id

    def update(self, reference: str, notice: Notice) -> None:
        """Trigger again, or resolve."""
        del reference
        self._send("trigger" if notice.waits else "resolve", notice)

    def _send(self, action: str, notice: Notice) -> None:
        body = {
            "routing_key": self._key,
            "event_action": action,
            "dedup_key": notice.notice_id[:255],
            "payload": {
                "summary": notice.title[:1024],
                "source": "airlock",
                "severity": _SEVERITY[notice.tone],
                "component": notice.workload,
                "custom_details": {"text": notice.text[:2000], **dict(notice.facts)},
            },
            "links": [{"href": f"{self._url}{notice.review}", "text": "Review"}],
        }
        send(self.name, "POST", f"{self._api}/v2/enqueue", json=body)
