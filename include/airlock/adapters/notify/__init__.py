"""Channels that people are told through; one file for each type."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module

from airlock.core.errors import ConfigurationError
from airlock.core.notices import ChannelSpec
from airlock.ports import Notifier

_TYPES = {
    "slack": "SlackNotifier",
    "email": "EmailNotifier",
    "webhook": "WebhookNotifier",
    "pagerduty": "PagerDutyNotifier",
    "jira": "JiraNotifier",
}


def open_notifier(
    spec: ChannelSpec, *, airflow_url: str, environment: Mapping[str, str] | None = None
) -> Notifier:
    """The channel that a specification names; nothing is contacted yet.

    Raises:
        ConfigurationError: its secret is not set, or an option is wrong.
    """
    environment = os.environ if environment is None else environment
    secret = environment.get(spec.secret, "") if spec.secret else ""
    if not secret and (spec.secret or spec.type in ("slack", "pagerduty")):
        raise ConfigurationError(
            f"the secret of channel {spec.name} is not set",
            where=spec.secret or f"channels.{spec.name}.secret",
            fix="name an environment variable in config/notifications.yaml and set it, or remove the channel",
        )
    module = import_module(f"{__name__}.{spec.type}")
    make: Callable[..., Notifier] = getattr(module, _TYPES[spec.type])
    return make(spec, secret=secret, airflow_url=airflow_url.rstrip("/"))
