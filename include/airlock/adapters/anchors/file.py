"""An anchor in a folder: one file that only grows, for a mounted disk of another machine or owner."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from airlock.adapters.anchors.rules import (
    MAX_NOTE_BYTES,
    in_order,
    is_newest,
    kept,
    locked,
    sync_folder,
    tampered,
    to_publish,
)
from airlock.adapters.system import writing
from airlock.core.canonical import sha256_hex
from airlock.core.errors import UnavailableError

FILE = "checkpoints.jsonl"

_OPENING = b'{"note":"'
_LONGEST = 2 * MAX_NOTE_BYTES + 100
"""Bytes of the longest line: JSON writes a newline, a quote or a backslash as two."""


class FileAnchor:
    r"""Checkpoints in ``checkpoints.jsonl`` below a folder, one JSON line each.

    A line holds the note and its SHA-256: ``{"note":"…","sha256":"…"}``. A last line without an end, or with
    the zero bytes that a file system may leave after a power cut, is what a crash tore off: nobody was
    told that it is there. Readers pass over it and the next publisher cuts it off. Any other line that
    is not exactly what Airlock writes is an integrity error.

    The folder has to be there: a disk that is not mounted must not look like an empty anchor.
    """

    def __init__(self, folder: Path, *, every_seconds: int = 0) -> None:
        self._folder = folder
        self._path = folder / FILE
        # By its real path: whoever waits for this anchor may reach it through another link.
        self.name = f"file://{folder.resolve()}"
        self.every_seconds = every_seconds

    def history(self) -> list[str]:
        """All kept checkpoints, oldest first."""
        with self._reading() as stream:
            return [] if stream is None else in_order(self._notes(stream), str(self._path))

    def latest(self) -> str | None:
        """The newest checkpoint; reads the end of the file only."""
        with self._reading() as stream:
            return None if stream is None else self._newest(stream)[0]

    def publish(self, note: str, *, after: str | None) -> str:
        """Append a checkpoint; the receipt names the file and the byte where its line begins."""
        to_publish(note)
        self._need_folder()
        with writing(self._path), self._open(os.O_RDWR | os.O_CREAT) as stream:
            with locked(stream.fileno(), str(self._path)):
                newest, start, end = self._newest(stream)
                if not is_newest(note, newest, after, str(self._path)):
                    start = end
                    _append(stream.fileno(), _line(note), end)
                # Also when it stood there already: who wrote it may have died before this.
                os.fsync(stream.fileno())
            if start == 0:
                sync_folder(self._folder)
        return f"{self._path} at byte {start}"

    @contextmanager
    def _reading(self) -> Iterator[BinaryIO | None]:
        self._need_folder()
        try:
            with self._open(os.O_RDONLY) as stream, locked(stream.fileno(), str(self._path), shared=True):
                yield stream
        except FileNotFoundError:
            yield None
        except OSError as error:
            raise UnavailableError(
                f"checkpoints cannot be read: {error.strerror or error}",
                where=str(self._path),
                fix="give this user permission to read the folder, or look at the file system",
            ) from error

    def _need_folder(self) -> None:
        try:
            if stat.S_ISDIR(self._folder.stat().st_mode):
                return
            reason = "it is no folder"
        except OSError as error:
            reason = error.strerror or str(error)
        raise UnavailableError(
            f"the anchor's folder is not there: {reason}",
            where=str(self._folder),
            fix=f"mount the disk, or create the folder once: mkdir -p '{self._folder}'",
        )

    @contextmanager
    def _open(self, flags: int) -> Iterator[BinaryIO]:
        # O_NONBLOCK: a named pipe in its place must not hang us.
        descriptor = os.open(self._path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise tampered("this is no regular file", str(self._path))
        with os.fdopen(descriptor, "rb") as stream:
            yield stream

    def _notes(self, stream: BinaryIO) -> Iterator[str]:
        end = self._newest(stream)[2]
        stream.seek(0)
        while (at := stream.tell()) < end:
            yield self._note(stream.readline(_LONGEST), at)

    def _newest(self, stream: BinaryIO) -> tuple[str | None, int, int]:
        """The last note, where its line begins, and where it ends: what follows was torn off."""
        size = stream.seek(0, os.SEEK_END)
        offset = max(0, size - 3 * _LONGEST)
        stream.seek(offset)
        data = stream.read(size - offset)
        start, end = _last_line(data, len(data))
        if b"\0" in data[start:end]:
            start, end = _last_line(data, start)
        torn = data[end:]
        text = torn.partition(b"\0")[0]
        if len(torn) > _LONGEST or text[: len(_OPENING)] != _OPENING[: len(text)]:
            raise tampered("the end of the file is not what a crash leaves behind", self._at(offset + end))
        if end == 0 and offset == 0:
            return None, 0, 0
        return self._note(data[start:end], offset + start), offset + start, offset + end

    def _note(self, line: bytes, at: int) -> str:
        try:
            note = json.loads(line)["note"]
            if _line(note) == line:
                return kept(note, self._at(at))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # said below, for every way in which a line can be wrong
        raise tampered("a line is not as Airlock wrote it", self._at(at))

    def _at(self, offset: int) -> str:
        return f"{self._path} at byte {offset}"


def _line(note: str) -> bytes:
    values = {"note": note, "sha256": sha256_hex(note.encode())}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _last_line(data: bytes, end: int) -> tuple[int, int]:
    """Where the last line that has an end begins and ends; twice the same where there is none."""
    end = data.rfind(b"\n", 0, end) + 1
    return data.rfind(b"\n", 0, max(0, end - 1)) + 1, end


def _append(descriptor: int, line: bytes, end: int) -> None:
    os.ftruncate(descriptor, end)
    try:
        written = 0
        while written < len(line):
            written += os.pwrite(descriptor, line[written:], end + written)
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):  # the next publisher does it otherwise; the first error is the one to tell
            os.ftruncate(descriptor, end)
        raise
