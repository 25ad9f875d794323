"""``airlock sequencer``: the process that signs the audit log."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from airlock.cli.output import console, safe
from airlock.core.errors import AirlockError
from airlock.services.deployment import anchors_of, open_deployment
from airlock.services.sequence import Sequencer


def sequencer() -> None:
    """Put recorded events into the signed log and publish it to the anchors, until Ctrl-C.

    It alone needs the signing key. Approvals and promotions wait for it.
    """
    deployment = open_deployment()
    worker = Sequencer(deployment, anchors_of(deployment.settings))
    stop = threading.Event()

    def end(number: int, frame: Any) -> None:
        del number, frame
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # What it writes is to be read by nobody else, whatever the umask of the shell.
    os.umask(0o077)
    console.print(f"Signing {safe(worker.origin)} with key {worker.public_key.id}. Stop with Ctrl-C.")
    worker.run(stop, _say)


def _say(error: AirlockError) -> None:
    console.print(f"[yellow]{safe(str(error), lines=True)}[/]", soft_wrap=True)
