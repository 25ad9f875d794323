"""A PostgreSQL of one's own: data in memory, a flush that takes a fixed time, and nobody minds a kill.

``commit_delay`` holds each flush of the write-ahead log for that long, so that what is measured does
not depend on the disk of the machine; both sides of a comparison wait for the same flush.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.ports import free_port

FLUSH_US = 1000


class MissingError(Exception):
    """PostgreSQL's programs are not on this machine."""


class PrivatePostgres:
    """A server and how to reach it."""

    def __init__(self, programs: Path, folder: Path, *, flush_us: int) -> None:
        self._programs = programs
        self.folder = folder
        # The server refuses to run as root.
        root = os.geteuid() == 0
        self._user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}
        )
        if root:
            shutil.chown(folder, "postgres", "postgres")
        self.port = free_port()
        self._data = folder / "data"
        self._call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        settings = {
            "port": self.port,
            "listen_addresses": "''",
            "unix_socket_directories": f"'{folder}'",
            "commit_delay": flush_us,
            "commit_siblings": 0,
            "shared_buffers": "'512MB'",
            "max_wal_size": "'4GB'",
        }
        with (self._data / "postgresql.conf").open("a") as stream:
            stream.writelines(f"{name} = {value}\n" for name, value in settings.items())

    @property
    def url(self) -> str:
        """SQLAlchemy URL; over a Unix socket, as local clients connect."""
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}&port={self.port}"

    def run(self, name: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs against the server and return what it prints."""
        place = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres"]
        command = [str(self._programs / name), *place, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def start(self) -> None:
        """Start the server and wait until it answers, also after a crash."""
        self._call("pg_ctl", "-l", str(self.folder / "log"), "-w", "start")

    def stop(self) -> None:
        """Stop the server at once."""
        self._call("pg_ctl", "-m", "immediate", "stop")

    def kill(self) -> None:
        """End every process of the server with SIGKILL, as a machine that loses its power does."""
        family = self._family()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        # They are nobody's children here, so they are waited for by looking.
        psutil.wait_procs(family, timeout=10)

    def limit_files(self, size: int | None) -> None:
        """Let sessions that begin from now on write no file beyond so many bytes, as on a full disk."""
        leader, *_ = self._family()
        limit = f"{'unlimited' if size is None else size}:unlimited"
        command = ["prlimit", f"--pid={leader.pid}", f"--fsize={limit}"]
        subprocess.run(command, check=True, **self._user)

    def processor_seconds(self) -> float:
        """Processor time of the server so far, sessions that have ended included."""
        leader, *others = self._family()
        spent = leader.cpu_times()
        total = spent.user + spent.system + spent.children_user + spent.children_system
        for process in others:
            with suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                total += spent.user + spent.system
        return float(total)

    def _family(self) -> list[psutil.Process]:
        leader = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        return [leader, *leader.children(recursive=True)]

    def _call(self, name: str, *arguments: str) -> None:
        command = [str(self._programs / name), "-D", str(self._data), *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, **self._user)


@contextmanager
def private_postgres(*, flush_us: int = FLUSH_US) -> Iterator[PrivatePostgres]:
    """Start a server, and stop it and remove its data at the end.

    Raises:
        MissingError: there is none on this machine.
    """
    programs = _programs()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    try:
        server = PrivatePostgres(programs, folder, flush_us=flush_us)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
    for folder in found:
        if (folder / "pgbench").exists() and (folder / "initdb").exists():
            return folder
    raise MissingError("PostgreSQL's server and pgbench are needed: apt install postgresql")
