"""Commands that work until they are told to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from airlock.cli.output import console, safe
from airlock.core.errors import AirlockError

OnError = Callable[[AirlockError], None]

Run = Callable[[threading.Event, OnError], None]
"""``run(stop, on_error)``: work until ``stop`` is set, and tell of errors that may heal."""


def run_until_stopped(run: Run, greeting: str) -> None:
    """Print a greeting and work until Ctrl-C or SIGTERM; errors are printed and the work goes on."""
    stop = threading.Event()

    def end(number: int, frame: Any) -> None:
        del number, frame
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # What is written is to be read by nobody else, whatever the umask of the shell.
    os.umask(0o077)
    console.print(f"{greeting} Stop with Ctrl-C.")
    run(stop, _say)


def _say(error: AirlockError) -> None:
    console.print(f"[yellow]{safe(str(error), lines=True)}[/]", soft_wrap=True)
