"""``airlock courier``: the process that tells people."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from airlock.adapters.notify import open_notifier
from airlock.adapters.outbox import Outbox
from airlock.cli.output import console, safe
from airlock.core.errors import AirlockError
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
    stop = threading.Event()

    def end(number: int, frame: Any) -> None:
        del number, frame
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    os.umask(0o077)
    names = ", ".join(spec.name for spec in specs) or "no channel"
    console.print(f"Telling {safe(names)}. Stop with Ctrl-C.")
    worker.run(stop, _say)


def _say(error: AirlockError) -> None:
    console.print(f"[yellow]{safe(str(error), lines=True)}[/]", soft_wrap=True)
