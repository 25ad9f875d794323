"""``airlock courier``: the process that tells people."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from airlock.adapters.notify import open_notifier
from airlock.adapters.outbox import Outbox
from airlock.cli.output import console, safe
from airlock.cli.process import OnError, run_until_stopped
from airlock.core.errors import UnavailableError
from airlock.services.courier import Courier, sign_of_life
from airlock.services.deployment import open_deployment

SILENT_SECONDS = 60


def courier(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the courier of this machine is at work.")
    ] = False,
) -> None:
    """Tell people through the channels of config/notifications.yaml, until Ctrl-C.

    Where there is no such file, nobody is told, and Airflow's own pages are the way to answer. With
    AIRLOCK_SLACK_APP_TOKEN it also takes what people press in Slack, over Socket Mode, for an Airflow that
    Slack cannot reach.
    """
    deployment = open_deployment()
    settings = deployment.settings
    if check:
        _check(sign_of_life(deployment))
        return
    specs = deployment.config.notifications().channels
    channels = [(spec, open_notifier(spec, airflow_url=settings.airflow_url)) for spec in specs]
    worker = Courier(deployment, channels, Outbox(settings.home / "outbox.db"))
    names = ", ".join(spec.name for spec in specs) or "no channel"
    if not settings.slack_app_token.get_secret_value():
        run_until_stopped(worker.run, f"Telling {safe(names)}.")
        return
    from airlock.adapters.slack_socket import SlackSocket

    socket = SlackSocket(settings)

    def both(stop: threading.Event, on_error: OnError) -> None:
        listening = threading.Thread(target=socket.run, args=(stop, on_error), name="slack-socket")
        listening.start()
        try:
            worker.run(stop, on_error)
        finally:
            stop.set()
            listening.join()

    run_until_stopped(both, f"Telling {safe(names)}, and listening to Slack over Socket Mode.")


def _check(path: Path) -> None:
    silent = time.time() - path.stat().st_mtime if path.is_file() else None
    if silent is None or silent > SILENT_SECONDS:
        since = "has never looked" if silent is None else f"last looked {silent:.0f} s ago"
        raise UnavailableError(
            f"the courier {since} at what there is to tell",
            where=str(path),
            fix="start `airlock courier`, or read its log",
        )
    console.print("The courier is at work.")
