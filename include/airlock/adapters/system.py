"""The clock, and errors of the operating system in words."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airlock.core.errors import UnavailableError


class SystemClock:
    """The clock of this machine."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1000


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into words.

    Raises:
        UnavailableError: disk full, quota reached, read-only or not permitted.
    """
    try:
        yield
    except OSError as error:
        fixes = {
            errno.ENOSPC: "free disk space; nothing was half written, the task can run again",
            errno.EDQUOT: "raise the disk quota; nothing was half written, the task can run again",
            errno.EFBIG: "the file is larger than the limit of this process or file system",
            errno.EACCES: "give this user permission to write there",
            errno.EROFS: "the file system is read-only; choose another folder in AIRLOCK_HOME",
        }
        raise UnavailableError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            fix=fixes.get(error.errno or 0, "look at the file system and try again"),
        ) from error
