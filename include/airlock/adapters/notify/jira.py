"""Jira: an issue for what somebody has to act on, a comment for what became of it."""

from __future__ import annotations

from typing import Any

from airlock.adapters.notify.email import text_of
from airlock.adapters.notify.http import send
from airlock.core.errors import ConfigurationError
from airlock.core.notices import ChannelSpec, Notice


class JiraNotifier:
    """One project: ``to`` is its key, option ``base_url`` the site, ``secret`` is ``user:token``."""

    def __init__(self, spec: ChannelSpec, *, secret: str, airflow_url: str) -> None:
        user, separator, token = secret.partition(":")
        base = str(spec.options.get("base_url") or "")
        if not separator or not base.startswith(("https://", "http://")):
            raise ConfigurationError(
                f"channel {spec.name} needs options.base_url and a secret of the form user:token",
                where="notifications.yaml",
                fix="make an API token for a user who may create issues in the project",
            )
        self.name = spec.name
        self._project = spec.to
        self._auth = (user, token)
        self._base = base.rstrip("/")
        self._type = str(spec.options.get("issue_type") or "Task")
        self._url = airflow_url

    def post(self, notice: Notice, *, thread: str) -> str:
        """Create an issue, or a comment where the notice belongs under one."""
        if thread:
            self._comment(thread, notice)
            return thread
        fields: dict[str, Any] = {
            "project": {"key": self._project},
            "issuetype": {"name": self._type},
            "summary": " ".join(notice.title.split())[:250],
            "description": text_of(notice, self._url)[:30_000],
            "labels": ["airlock", notice.workload],
        }
        answer = send(
            self.name, "POST", f"{self._base}/rest/api/2/issue", json={"fields": fields}, auth=self._auth
        )
        return str(answer["key"])

    def update(self, reference: str, notice: Notice) -> None:
        """Say in a comment what changed; closing the issue is for people."""
        self._comment(reference, notice)

    def _comment(self, key: str, notice: Notice) -> None:
        body = {"body": text_of(notice, self._url)[:30_000]}
        send(self.name, "POST", f"{self._base}/rest/api/2/issue/{key}/comment", json=body, auth=self._auth)
