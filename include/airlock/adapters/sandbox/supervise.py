"""Starts a process, watches its time, text and disk, and ends all of it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from airlock.adapters.sandbox.refusals import Refusals
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

    def take(self, number: int) -> bool:
        """Read what is there; ``False`` at its end."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(number, 1 << 16)
            self.add(data)
            return bool(data)
        return True

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


class _Source(Protocol):
    """Something that is read whenever there is something to read."""

    def take(self, number: int) -> bool:
        """Read what is there; ``False`` when nothing will come any more."""


@dataclass
class _Report(Captured):
    """What a process says before any code of the job runs, and the handle of its system call filter."""

    handles: list[int] = field(default_factory=list)

    def take(self, number: int) -> bool:
        """Read text and handles."""
        with (
            contextlib.suppress(BlockingIOError),
            socket.socket(fileno=os.dup(number)) as channel,
        ):
            data, handles, _, _ = socket.recv_fds(channel, 1 << 16, 4)
            self.handles += handles
            self.add(data)
            return bool(data)
        return True


def printable(text: str) -> str:
    """Text without control characters; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


@dataclass
class Ended:
    """How a job ended.

    Attributes:
        stopped: which limit it broke: ``time``, ``text``, ``output``, ``attempts`` or none.
        notes: what it asked for by Python's own account, a line each; written by untrusted code.
        refused: what the system call filter refused, in words.
    """

    code: int
    seconds: float
    stdout: str
    stderr: str
    report: bytes
    stopped: str
    notes: str = ""
    refused: tuple[str, ...] = ()


def supervise(
    command: Sequence[str],
    *,
    work: Path,
    environment: Mapping[str, str],
    seconds: float,
    output_bytes: int,
) -> Ended:
    """Run ``command`` in a process group of its own until it ends or breaks a limit.

    The numbers of a socket to report to and of a pipe for notes are added to its arguments.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        reading, reporting = _socket_pair(stack)
        noting, writing = _pipe(stack)
        try:
            process = subprocess.Popen(
                [*command, str(reporting), str(writing)],
                cwd=work,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(reporting, writing),
            )
        except OSError as error:
            raise SandboxError(f"the sandbox cannot be started: {error}", where=command[0]) from error
        finally:
            os.close(reporting)
            os.close(writing)
        stack.callback(_close, process)
        stack.callback(_end, process)
        selector = stack.enter_context(selectors.DefaultSelector())
        streams = {"stdout": Captured(), "stderr": Captured(), "notes": Captured()}
        report, refusals = _Report(), stack.enter_context(Refusals())
        sources = (process.stdout, process.stderr, noting, reading)
        for source, stream in zip(sources, (*streams.values(), report), strict=True):
            os.set_blocking(_number(source), False)
            selector.register(_number(source), selectors.EVENT_READ, stream)
        watched = _Watched(process, selector, streams, report, refusals)
        stopped = _watch(watched, started + seconds, (work, output_bytes))
        _end(process)
        _read(watched, 0)
        _read(watched, 0)
    return Ended(
        code=process.returncode,
        seconds=time.monotonic() - started,
        stdout=streams["stdout"].text(),
        stderr=streams["stderr"].text(),
        report=bytes(report.head),
        stopped=stopped,
        notes=streams["notes"].text(),
        refused=refusals.words(),
    )


@dataclass
class _Watched:
    """A running job and all that comes out of it."""

    process: subprocess.Popen[bytes]
    selector: selectors.BaseSelector
    streams: Mapping[str, Captured]
    report: _Report
    refusals: Refusals


def _socket_pair(stack: contextlib.ExitStack) -> tuple[int, int]:
    mine, theirs = (end.detach() for end in socket.socketpair())
    stack.callback(os.close, mine)
    return mine, theirs


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    mine, theirs = os.pipe()
    stack.callback(os.close, mine)
    return mine, theirs


def _close(process: subprocess.Popen[bytes]) -> None:
    for source in (process.stdout, process.stderr):
        if source is not None:
            source.close()


def _number(source: IO[bytes] | int | None) -> int:
    if source is None:
        raise AssertionError("the pipes were asked for")
    return source if isinstance(source, int) else source.fileno()


def _watch(watched: _Watched, deadline: float, disk: tuple[Path, int]) -> str:
    """Wait for the end of the process; the name of the limit it breaks, if it does."""
    look_at_disk = 0.0
    while not _has_ended(watched.process):
        _read(watched, _TICK)
        if sum(stream.count for stream in (*watched.streams.values(), watched.report)) > _MAXIMUM_TEXT:
            return "text"
        if watched.refusals.too_many:
            return "attempts"
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


def _read(watched: _Watched, timeout: float) -> None:
    selector = watched.selector
    if not selector.get_map():
        time.sleep(timeout)  # everything is closed, but the process has not ended
        return
    for key, _ in selector.select(timeout):
        source: _Source = key.data
        if not source.take(key.fd):
            selector.unregister(key.fd)
    for handle in watched.report.handles:
        watched.refusals.listen(handle)
        selector.register(handle, selectors.EVENT_READ, watched.refusals)
    watched.report.handles.clear()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group, also when its leader has ended already: it may have left children behind."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
