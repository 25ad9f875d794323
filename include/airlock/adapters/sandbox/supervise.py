"""Starts a process, watches its time, text and disk, and ends all of it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from airlock.adapters.sandbox.staging import MAXIMUM_OUTPUT_FILES, size_of
from airlock.core.errors import SandboxError

_HEAD = _TAIL = 32 * 1024
_MAXIMUM_TEXT = 16 * 1024 * 1024
"""Bytes a job may print before it is stopped; only the first and last 32 KiB are kept."""

_TICK = 0.02
_DISK_TICK = 0.2


@dataclass
class Captured:
    """The beginning and the end of what was printed, however much it was."""

    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    count: int = 0

    def add(self, data: bytes) -> None:
        """Take in more output."""
        self.count += len(data)
        room = _HEAD - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        del self.tail[:-_TAIL]

    def text(self) -> str:
        """What was kept, with nothing in it that could act on a terminal."""
        left_out = self.count - len(self.head) - len(self.tail)
        gap = f"\n… {left_out} bytes left out …\n".encode() if left_out else b""
        return printable((bytes(self.head) + gap + bytes(self.tail)).decode("utf-8", "replace"))


def printable(text: str) -> str:
    """Text without control characters; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


@dataclass
class Ended:
    """How a job ended. ``stopped`` says which limit it broke: ``time``, ``text``, ``output`` or none."""

    code: int
    seconds: float
    stdout: str
    stderr: str
    report: bytes
    stopped: str


def supervise(
    command: Sequence[str],
    *,
    work: Path,
    environment: Mapping[str, str],
    seconds: float,
    output_bytes: int,
) -> Ended:
    """Run ``command`` in a process group of its own until it ends or breaks a limit.

    The number of a pipe to report to is added to its arguments.
    """
    started = time.monotonic()
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [*command, str(writing)],
            cwd=work,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(writing,),
        )
    except OSError as error:
        os.close(reading)
        raise SandboxError(f"the sandbox cannot be started: {error}", where=command[0]) from error
    finally:
        os.close(writing)
    streams = {"stdout": Captured(), "stderr": Captured(), "report": Captured()}
    try:
        with selectors.DefaultSelector() as selector:
            for name, source in (("stdout", process.stdout), ("stderr", process.stderr), ("report", reading)):
                os.set_blocking(_number(source), False)
                selector.register(_number(source), selectors.EVENT_READ, streams[name])
            stopped = _watch(process, selector, streams, started + seconds, (work, output_bytes))
            _end(process)
            _read(selector, 0)
    finally:
        _end(process)
        os.close(reading)
        for source in (process.stdout, process.stderr):
            if source is not None:
                source.close()
    return Ended(
        code=process.returncode,
        seconds=time.monotonic() - started,
        stdout=streams["stdout"].text(),
        stderr=streams["stderr"].text(),
        report=bytes(streams["report"].head),
        stopped=stopped,
    )


def _number(source: IO[bytes] | int | None) -> int:
    if source is None:
        raise AssertionError("the pipes were asked for")
    return source if isinstance(source, int) else source.fileno()


def _watch(
    process: subprocess.Popen[bytes],
    selector: selectors.BaseSelector,
    streams: Mapping[str, Captured],
    deadline: float,
    disk: tuple[Path, int],
) -> str:
    """Wait for the end of the process; the name of the limit it breaks, if it does."""
    look_at_disk = 0.0
    while not _has_ended(process):
        _read(selector, _TICK)
        if sum(stream.count for stream in streams.values()) > _MAXIMUM_TEXT:
            return "text"
        now = time.monotonic()
        if now > deadline:
            return "time"
        if now > look_at_disk:
            look_at_disk = now + _DISK_TICK
            if _too_much(*disk):
                return "output"
    return "output" if _too_much(*disk) else ""


def _too_much(work: Path, output_bytes: int) -> bool:
    """Whether the job wrote more than it may, outputs and scratch files together."""
    size, entries = size_of(work, leave_out="inputs")
    return size > output_bytes or entries > MAXIMUM_OUTPUT_FILES


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process ended, without taking its number away: ``_end`` needs that for the group."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _read(selector: selectors.BaseSelector, timeout: float) -> None:
    if not selector.get_map():
        time.sleep(timeout)  # all pipes are closed, but the process has not ended
        return
    for key, _ in selector.select(timeout):
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(key.fd, 1 << 16)
        if data:
            key.data.add(data)
        else:
            selector.unregister(key.fd)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group, also when its leader has ended already: it may have left children behind."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
