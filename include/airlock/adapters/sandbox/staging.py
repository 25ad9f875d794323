"""Copies the inputs of a job into its folder and the files it wrote out of it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from airlock.core.errors import InvalidInputError, SandboxError, UnavailableError

MAXIMUM_OUTPUT_FILES = 1000
"""A job writes four files; more than this is an attempt to fill the disk with empty ones."""

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def disk_errors(where: Path | str) -> Iterator[None]:
    """Turn a full disk into an error that may heal: retrying after somebody made room helps."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise UnavailableError(
            "the disk is full",
            where=str(where),
            fix="make room, or set TMPDIR to a disk with room, and retry",
        ) from error


def copy_in(source: Path, target: Path) -> None:
    """Copy an input as it is, following no symbolic link.

    Links and pipes are recreated and not followed, so that the scan sees and reports them. Copies and
    never hard links: a job that writes to its input must not change the original.

    Raises:
        InvalidInputError: the input is missing, or holds a device or socket.
        UnavailableError: the disk is full.
    """
    try:
        with disk_errors(target):
            _copy(source, target)
    except FileNotFoundError as error:
        raise InvalidInputError("an input of the sandbox is missing", where=str(source)) from error
    except OSError as error:
        raise InvalidInputError(
            f"an input of the sandbox cannot be read: {error.strerror}", where=str(source)
        ) from error


def _copy(source: Path, target: Path) -> None:
    mode = source.lstat().st_mode
    if stat.S_ISDIR(mode):
        target.mkdir()
        with os.scandir(source) as entries:
            for entry in entries:
                _copy(Path(entry.path), target / entry.name)
    elif stat.S_ISREG(mode):
        copy_regular(source, target)
    elif stat.S_ISLNK(mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISFIFO(mode):
        os.mkfifo(target)
    else:
        raise InvalidInputError(
            "an input of the sandbox holds a device or socket",
            where=str(source),
            fix="remove it from the artifact",
        )


def copy_regular(source: Path, target: Path) -> None:
    """Copy the bytes of a regular file; neither path may be a symbolic link."""
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(reading, "rb") as incoming:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(source))
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(writing, "wb") as outgoing:
            shutil.copyfileobj(incoming, outgoing, 1 << 20)


def size_of(folder: Path, leave_out: str) -> tuple[int, int]:
    """Bytes and number of entries below a folder, but for one subfolder, without following links."""
    total, entries, folders, left_out = 0, 0, [str(folder)], str(folder / leave_out)
    while folders and entries <= MAXIMUM_OUTPUT_FILES:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.path == left_out:
                    continue
                entries += 1
                with contextlib.suppress(OSError):  # it may vanish while it is counted
                    information = entry.stat(follow_symlinks=False)
                    total += information.st_size
                    if stat.S_ISDIR(information.st_mode):
                        folders.append(entry.path)
                if entries > MAXIMUM_OUTPUT_FILES:
                    break
    return total, entries


def copy_out(source: Path, target: Path) -> None:
    """Copy what a job wrote; nothing but regular files may be there.

    Raises:
        SandboxError: the job left a folder, link or pipe.
        UnavailableError: the disk is full.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise SandboxError(
                f"the job left {path.name!r}, which is not a regular file",
                fix="the model does something no model should: look at what it runs",
            )
    with disk_errors(target):
        for path in sorted(source.iterdir()):
            (target / path.name).unlink(missing_ok=True)
            copy_regular(path, target / path.name)
