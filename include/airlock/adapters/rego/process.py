"""A child process that evaluates Rego, with limits, and that may die."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from airlock.core.errors import ConfigurationError, InvalidInputError

SECONDS = 60.0
"""For one answer, when the child's own limit of processor time did not end it."""

_WORKER = Path(__file__).with_name("worker.py")


class RegoProcess:
    """Asks the child, starts it when there is none, and ends it when it takes too long.

    Safe under threads; a process that was forked from this one gets a child of its own.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        atexit.register(self.close)

    def ask(self, action: str, **arguments: Any) -> Any:
        """One request.

        Raises:
            ConfigurationError: the extra is not installed.
            InvalidInputError: the engine refused, took too long or too much memory, or died.
        """
        with self._lock:
            child = self._living()
            line = json.dumps({"action": action, **arguments}).encode() + b"\n"
            answer, late = b"", False
            try:
                answer = self._exchange(child, line)
            except TimeoutError:
                late = True
            except OSError:  # it died while it was written to
                child.kill()
            if not answer.endswith(b"\n"):
                raise self._buried(child, action, late=late)
        found = json.loads(answer)
        if "error" in found:
            raise InvalidInputError(str(found["error"]), where="Rego", fix="correct the *.rego file it names")
        return found["value"]

    def close(self) -> None:
        """End the child, if it is one's own."""
        child, self._child = self._child, None
        if child is not None and self._owner == os.getpid():
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()

    def _living(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            if importlib.util.find_spec("regorus") is None:
                raise ConfigurationError(
                    "the policy has rules in Rego, and the engine for them is not installed",
                    fix="install the extra: pip install 'airlock-governance[rego]'",
                )
            self.close()
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-B", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"LANG": "C.UTF-8", "RUST_BACKTRACE": "0"},
                bufsize=0,
            )
            self._owner = os.getpid()
        return self._child

    def _exchange(self, child: subprocess.Popen[bytes], line: bytes) -> bytes:
        if child.stdin is None or child.stdout is None:
            return b""
        deadline = time.monotonic() + self._seconds
        sent, answer = 0, b""
        source, sink = child.stdout.fileno(), child.stdin.fileno()
        os.set_blocking(sink, False)
        while not answer.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable, writable, _ = select.select(
                [source], [sink] if sent < len(line) else [], [], max(0, left)
            )
            if not readable and not writable:
                raise TimeoutError
            if writable:
                sent += os.write(sink, line[sent : sent + 65_536])
            if readable:
                part = os.read(source, 65_536)
                if not part:
                    return b""
                answer += part
        return answer

    def _buried(self, child: subprocess.Popen[bytes], action: str, *, late: bool) -> InvalidInputError:
        what = f"no answer within {self._seconds:g} seconds"
        if not late:
            code = child.wait()
            what = f"the engine died ({code}) of a function that calls itself, or of too much work or memory"
        self.close()
        return InvalidInputError(
            f"{action}: {what}", where="Rego", fix="take out recursion and loops over loops"
        )
