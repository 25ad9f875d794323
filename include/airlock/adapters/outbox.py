"""What was told through which channel, and what still has to be: a SQLite file of this machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from airlock.core.errors import UnavailableError

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS watched (release_id TEXT PRIMARY KEY, wake_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    channel TEXT NOT NULL, notice_id TEXT NOT NULL, digest TEXT NOT NULL, reference TEXT NOT NULL,
    attempts INTEGER NOT NULL, problem TEXT NOT NULL, PRIMARY KEY (channel, notice_id)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Told:
    """What a channel was told about a notice.

    Attributes:
        digest: of the notice as it was told; empty while that has not worked.
        reference: how the channel refers to the message; empty before there is one.
        attempts: how often telling it failed since it last worked.
        problem: why it failed last.
    """

    digest: str = ""
    reference: str = ""
    attempts: int = 0
    problem: str = ""


class Outbox:
    """The memory of the courier; each change is on disk before the call returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def position(self) -> int | None:
        """How many entries of the log were looked at; ``None`` before the first start."""

        def work(connection: sqlite3.Connection) -> int | None:
            row = connection.execute("SELECT seq FROM position").fetchone()
            return None if row is None else int(row[0])

        return self._work(work)

    def advance(self, seq: int, releases: Iterable[str]) -> None:
        """Look at the log from ``seq`` on next time, and at these releases now."""
        rows = [(release_id,) for release_id in releases]

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO position VALUES (1, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq", (seq,)
            )
            connection.executemany(
                "INSERT INTO watched VALUES (?, 0) ON CONFLICT DO UPDATE SET wake_us = 0", rows
            )

        self._work(work)

    def due(self, now_us: int) -> list[str]:
        """Releases to be looked at now."""
        question = "SELECT release_id FROM watched WHERE wake_us <= ? ORDER BY wake_us, release_id"
        return self._work(lambda connection: [row[0] for row in connection.execute(question, (now_us,))])

    def sleep(self, release_id: str, wake_us: int | None) -> None:
        """Look at a release again at a moment, or not before something is recorded about it."""

        def work(connection: sqlite3.Connection) -> None:
            if wake_us is None:
                connection.execute("DELETE FROM watched WHERE release_id = ?", (release_id,))
            else:
                connection.execute(
                    "UPDATE watched SET wake_us = ? WHERE release_id = ?", (wake_us, release_id)
                )

        self._work(work)

    def told(self, channel: str, notice_id: str) -> Told:
        """What a channel was told about a notice."""
        question = "SELECT digest, reference, attempts, problem FROM told WHERE channel = ? AND notice_id = ?"

        def work(connection: sqlite3.Connection) -> Told:
            row = connection.execute(question, (channel, notice_id)).fetchone()
            return Told() if row is None else Told(*row)

        return self._work(work)

    def record(self, channel: str, notice_id: str, told: Told) -> None:
        """Remember what a channel was told."""
        values = (channel, notice_id, told.digest, told.reference, told.attempts, told.problem[:500])

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)", values)

        self._work(work)

    def problems(self) -> list[tuple[str, str, str]]:
        """Channel, notice and problem of everything that could not be told so far."""
        question = (
            "SELECT channel, notice_id, problem FROM told WHERE problem <> '' ORDER BY channel, notice_id"
        )
        return self._work(lambda connection: [tuple(row) for row in connection.execute(question)])

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._connect() as connection:
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                connection.execute("COMMIT")
                return result
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                f"the outbox cannot be used: {error}", where=str(self._path), fix="make room on the disk"
            ) from error

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            yield connection
        finally:
            connection.close()
