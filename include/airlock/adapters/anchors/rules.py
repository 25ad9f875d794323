"""What holds in every place: which text is a checkpoint, which one may follow which, who writes now."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from airlock.core.errors import ConflictError, IntegrityError, InvalidInputError, UnavailableError
from airlock.proof import Checkpoint, ProofError

MAX_NOTE_BYTES = 5_000
"""The longest checkpoint: what every MLflow server takes as a tag, so that all places take the same ones."""

_LOCK_SECONDS = 10.0


def to_publish(note: str) -> Checkpoint:
    """Read a checkpoint that is to be published.

    Raises:
        InvalidInputError: it is none, or too long.
    """
    try:
        return _parse(note)
    except ProofError as error:
        raise InvalidInputError(
            f"this cannot be published: {error}",
            fix="publish checkpoints of the audit log as they were signed",
        ) from error


def kept(note: str | bytes, where: str) -> str:
    """A note that was read from a place; whose signature it has is for the caller.

    Raises:
        IntegrityError: it is no checkpoint, so Airlock did not write it or somebody changed it.
    """
    try:
        text = note if isinstance(note, str) else note.decode()
        _parse(text)
    except (ProofError, UnicodeDecodeError) as error:
        reason = error if isinstance(error, ProofError) else "it is not UTF-8"
        raise tampered(f"what is kept here is no checkpoint: {reason}", where) from error
    return text


def tampered(what: str, where: str) -> IntegrityError:
    """The error for content that Airlock did not write like this."""
    return IntegrityError(
        what,
        where=where,
        fix="find out who changed it; compare with the other anchors before you restore or replace it",
    )


def _parse(note: str) -> Checkpoint:
    if len(note) > MAX_NOTE_BYTES or len(note.encode(errors="replace")) > MAX_NOTE_BYTES:
        raise ProofError(f"it is longer than {MAX_NOTE_BYTES} bytes")
    return Checkpoint.parse(note)


def in_order(notes: Iterable[str], where: str) -> list[str]:
    """The notes of one place, oldest first.

    Raises:
        IntegrityError: one of them does not cover more entries than the one before of the same log.
    """
    found: list[str] = []
    before: Checkpoint | None = None
    for note in notes:
        following = Checkpoint.parse(note)
        if before is not None and not _may_follow(following, before):
            what = f"a checkpoint of {following.size} entries stands behind one of {before.size}"
            raise tampered(what, where)
        before = following
        found.append(note)
    return found


def _may_follow(new: Checkpoint, newest: Checkpoint) -> bool:
    # A log that was begun anew has another origin, and may be smaller than the one before it.
    return new.size > newest.size or new.origin != newest.origin


def is_newest(note: str, newest: str | None, after: str | None, where: str) -> bool:
    """Whether the note is kept already as the newest one; if not, it may be written now.

    The same statement with other signatures is the same checkpoint: signing again changes the time in it.

    Raises:
        ConflictError: it does not follow what is kept here.
    """
    new = Checkpoint.parse(note)
    there = None if newest is None else Checkpoint.parse(newest)
    if there is not None and new.note.text == there.note.text:
        return True
    if newest != after:
        raise conflict(where)
    if there is not None and not _may_follow(new, there):
        raise ConflictError(
            f"a checkpoint of {new.size} entries does not continue the kept one of {there.size}",
            where=where,
            fix="look for a second sequencer or a restored database: `airlock audit verify` compares them",
        )
    return False


def conflict(where: str) -> ConflictError:
    """The error for a place that was written in between."""
    return ConflictError(
        "another checkpoint was published here in between",
        where=where,
        fix="read the newest one, check that the log continues it, and publish again",
    )


@contextmanager
def locked(descriptor: int, where: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of an open file; closing the file gives it back, and so does a kill.

    Raises:
        UnavailableError: others have held it for too long.
    """
    wanted = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, wanted | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise UnavailableError(
                    f"another process has held the lock for {_LOCK_SECONDS:.0f} s",
                    where=where,
                    fix="look for a publisher that hangs and end it",
                ) from None
            time.sleep(0.01)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
