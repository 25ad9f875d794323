"""``airlock courier``: the process that tells people."""

from __future__ import annotations

from airlock.adapters.notify import open_notifier
from airlock.adapters.outbox import Outbox
from airlock.cli.output import safe
from airlock.cli.process import run_until_stopped
from airlock.services.courier import Courier
from airlock.services.deployment import open_deployment


def courier() -> None:
    """Tell people through the channels of config/notifications.yaml, until Ctrl-C.

    Where there is no such file, nobody is told, and Airflow's own pages are the way to answer.
    """
    deployment = open_deployment()
    url = deployment.settings.airflow_url
    specs = deployment.config.notifications().channels
    channels = [(spec, open_notifier(spec, airflow_url=url)) for spec in specs]
    worker = Courier(deployment, channels, Outbox(deployment.settings.home / "outbox.db"))
    names = ", ".join(spec.name for spec in specs) or "no channel"
    run_until_stopped(worker.run, f"Telling {safe(names)}.")
