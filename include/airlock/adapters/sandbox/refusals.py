"""Answers the system calls that the filter refuses, and writes down what they were.

The filter in the kernel (``inside/seccomp.py``) holds a refused call until this process has answered it, so
what is written down here is what was tried, whatever the code in the sandbox says about itself. Where
nobody listens any more the kernel refuses by itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
from collections import Counter
from typing import Self

from airlock.adapters.sandbox.inside.seccomp import what_was_tried

MAXIMUM_ATTEMPTS = 200
"""Refused calls after which a job is stopped: it does nothing else than try."""

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND of linux/seccomp.h
_NOTIFICATION = struct.Struct("QIIiIQ6Q")  # struct seccomp_notif with its struct seccomp_data
_RESPONSE = struct.Struct("QqiI")  # struct seccomp_notif_resp


class Refusals:
    """What a job tried and was refused, by the words for it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._handles: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            os.close(handle)

    def listen(self, handle: int) -> None:
        """Take over the handle of a filter; it is closed in the end."""
        self._handles.append(handle)

    @property
    def too_many(self) -> bool:
        """Whether the job does nothing else than try."""
        return self._counts.total() > MAXIMUM_ATTEMPTS

    def words(self) -> tuple[str, ...]:
        """What was tried, each once and in order: the same job gives the same words."""
        return tuple(sorted(self._counts))

    def take(self, handle: int) -> bool:
        """Refuse one call; ``False`` when no process is left that could make one."""
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        state = next((found for _, found in waiting.poll(0)), 0)
        if not state & select.POLLIN:  # to receive without this would wait, on some kernels for ever
            return not state & (select.POLLHUP | select.POLLERR | select.POLLNVAL)
        notification = bytearray(_NOTIFICATION.size)
        with contextlib.suppress(OSError):  # the caller was killed, or got a signal and will try again
            fcntl.ioctl(handle, _RECEIVE, notification, True)
            identity, _, _, number, *_ = _NOTIFICATION.unpack(notification)
            self._counts[what_was_tried(number)] += 1
            fcntl.ioctl(handle, _SEND, bytearray(_RESPONSE.pack(identity, 0, -errno.EPERM, 0)))
        return True
