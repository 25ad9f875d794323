"""Ports for servers of tests and benchmarks: none is fixed."""

from __future__ import annotations

import random

from airlock.adapters.supervisor import port_problem


def free_port() -> int:
    """A port nobody uses now.

    It is below those that systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere): one
    of theirs would be taken by anybody while the server that it was chosen for is started again.

    Raises:
        OSError: none was found.
    """
    for port in random.sample(range(20000, 32768), 1000):
        if not port_problem(port):
            return port
    raise OSError("no port from 20000 to 32767 is free")
