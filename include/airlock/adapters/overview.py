"""The overview: what the dashboard shows, kept as a small database made from the log.

It is derived and believed by nobody who decides: approvals, promotions and the review page read the audit
store. It can be deleted at any time; the next reader makes it again. What people wrote is not in it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from airlock.adapters import overview_beside
from airlock.core.audit import Kind
from airlock.core.errors import UnavailableError
from airlock.core.release import State

T = TypeVar("T")

_VERSION = 5
"""Raised when the tables change; an overview of another version is made again."""

_SCHEMA = """
CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, origin TEXT NOT NULL);
CREATE TABLE release (
    release_id TEXT PRIMARY KEY, workload TEXT NOT NULL, version TEXT NOT NULL, submitter TEXT NOT NULL,
    submitted_us INTEGER NOT NULL, decided_us INTEGER, deadline_us INTEGER, ended_us INTEGER,
    outcome TEXT, track TEXT, tier TEXT, sentence TEXT NOT NULL DEFAULT '', state TEXT NOT NULL,
    quarantined INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX release_by_time ON release (submitted_us);
CREATE INDEX release_by_workload ON release (workload, submitted_us);
CREATE INDEX release_by_state ON release (state, submitted_us);
CREATE TABLE gate (
    release_id TEXT NOT NULL, gate TEXT NOT NULL, workload TEXT NOT NULL, verdict TEXT NOT NULL,
    seconds REAL NOT NULL, at_us INTEGER NOT NULL, evidence TEXT NOT NULL, after_us INTEGER NOT NULL,
    PRIMARY KEY (release_id, gate)
) WITHOUT ROWID;
CREATE INDEX gate_by_name ON gate (gate, at_us, verdict, seconds, after_us, workload);
CREATE TABLE seat (
    release_id TEXT NOT NULL, seat INTEGER NOT NULL, workload TEXT NOT NULL, role TEXT NOT NULL,
    asked_us INTEGER NOT NULL, until_us INTEGER, user TEXT, choice TEXT, PRIMARY KEY (release_id, seat)
) WITHOUT ROWID;
CREATE INDEX seat_by_time ON seat (asked_us, role, until_us, workload);
CREATE TABLE champion (
    workload TEXT PRIMARY KEY, version TEXT NOT NULL, since_us INTEGER NOT NULL, release_id TEXT NOT NULL
) WITHOUT ROWID;
"""

Body = dict[str, Any]
"""An audit event as it stands in the log."""


class Overview:
    """Rows about releases, gates, seats and champions, in a SQLite file of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: sqlite3.Connection | None = None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Inside this, every question sees the state of one moment, over one connection of this thread."""
        try:
            with self._connect() as connection:
                connection.execute("BEGIN")
                self._open = connection
                try:
                    yield
                finally:
                    self._open = None
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def position(self) -> tuple[int, str]:
        """How many entries of which log are in here: their number and the digest of the first."""
        return self._work(_position)

    def restart(self) -> None:
        """Forget everything: the log is another one."""
        self._work(_create)

    def apply(self, start: int, origin: str, bodies: Sequence[Body]) -> bool:
        """Add entries ``start``, ``start + 1`` and so on, all or none.

        Returns:
            Whether they were added; another process may have been faster.
        """

        def work(connection: sqlite3.Connection) -> bool:
            if _position(connection)[0] != start:
                return False
            for body in bodies:
                for folds in (_FOLDS, overview_beside.FOLDS):
                    if (fold := folds.get(body["kind"])) is not None:
                        fold(connection, body)
            connection.execute(
                "INSERT INTO position VALUES (1, ?, ?) ON CONFLICT DO UPDATE SET seq = ?, origin = ?",
                (start + len(bodies), origin, start + len(bodies), origin),
            )
            return True

        return self._work(work)

    def query(self, question: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of a question, as mappings."""

        def work(connection: sqlite3.Connection) -> list[dict[str, Any]]:
            cursor = connection.execute(question, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

        return work(self._open) if self._open is not None else self._work(work, write=False)

    def _work(self, work: Callable[[sqlite3.Connection], T], *, write: bool = True) -> T:
        try:
            with self._connect() as connection:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                result = work(connection)
                connection.execute("COMMIT")
                return result
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"the overview cannot be used: {error}",
            where=str(self._path),
            fix="make room on the disk, or delete the file: it is made again from the log",
        )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Connections are not shared between threads of the server; opening one takes 0.1 ms.
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA temp_store = MEMORY")  # what is sorted has no business on a disk
            if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                connection.execute("BEGIN IMMEDIATE")
                if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                    _create(connection)
                connection.execute("COMMIT")
            yield connection
        finally:
            connection.close()


def _create(connection: sqlite3.Connection) -> None:
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        connection.execute(f'DROP TABLE "{name}"')
    for statement in (_SCHEMA + overview_beside.SCHEMA).split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _position(connection: sqlite3.Connection) -> tuple[int, str]:
    row = connection.execute("SELECT seq, origin FROM position").fetchone()
    return (0, "") if row is None else (row[0], row[1])


def _submitted(connection: sqlite3.Connection, body: Body) -> None:
    connection.execute(
        "INSERT INTO release (release_id, workload, version, submitter, submitted_us, state) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            body["release_id"],
            body["workload"],
            body["version"],
            body["actor"],
            body["occurred_us"],
            State.CHECKING,
        ),
    )


def _evaluated(connection: sqlite3.Connection, body: Body) -> None:
    data = body["data"]
    connection.execute(
        "INSERT INTO gate VALUES (?, ?, ?, ?, ?, ?, ?, "
        "? - coalesce((SELECT submitted_us FROM release WHERE release_id = ?), ?)) ON CONFLICT DO NOTHING",
        (
            body["release_id"], data["gate"], body["workload"], data["verdict"], data["seconds"],
            body["occurred_us"], data["evidence"],
            body["occurred_us"], body["release_id"], body["occurred_us"],
        ),
    )  # fmt: skip


_AFTER_DECISION = {"ALLOW": State.READY, "PENDING": State.WAITING, "DENY": State.DENIED}


def _decided(connection: sqlite3.Connection, body: Body) -> None:
    data, when = body["data"], body["occurred_us"]
    deadline = when + int(data["expires_hours"] * 3_600_000_000) if data["outcome"] == "PENDING" else None
    connection.execute(
        "UPDATE release SET decided_us = ?, deadline_us = ?, outcome = ?, track = ?, tier = ?, sentence = ?, "
        "state = CASE WHEN quarantined THEN ? ELSE ? END WHERE release_id = ?",
        (
            when, deadline, data["outcome"], data["track"], data["tier"], data["sentence"],
            State.QUARANTINED, _AFTER_DECISION[data["outcome"]], body["release_id"],
        ),
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO seat (release_id, seat, workload, role, asked_us) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        [(body["release_id"], seat, body["workload"], role, when) for seat, role in enumerate(data["seats"])],
    )


def _answered(connection: sqlite3.Connection, body: Body) -> None:
    data = body["data"]
    connection.execute(
        "UPDATE seat SET until_us = ?, user = ?, choice = ? "
        "WHERE release_id = ? AND seat = ? AND user IS NULL",
        (body["occurred_us"], body["actor"], data["choice"], body["release_id"], data["seat"]),
    )
    if data["choice"] == "reject":
        _set_state(connection, body, State.REJECTED)
        return
    connection.execute(
        "UPDATE release SET state = ? WHERE release_id = ? AND state = ? AND NOT EXISTS "
        "(SELECT 1 FROM seat WHERE seat.release_id = release.release_id AND user IS NULL)",
        (State.READY, body["release_id"], State.WAITING),
    )


def _promoted(connection: sqlite3.Connection, body: Body) -> None:
    _end(connection, body, State.PROMOTED)
    _crown(connection, body)


def _crown(connection: sqlite3.Connection, body: Body) -> None:
    connection.execute(
        "INSERT INTO champion VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "version = excluded.version, since_us = excluded.since_us, release_id = excluded.release_id",
        (body["workload"], body["version"], body["occurred_us"], body["release_id"]),
    )


def _rolled_back(connection: sqlite3.Connection, body: Body) -> None:
    if body["release_id"]:
        _end(connection, body, State.ROLLED_BACK)
    data = body["data"]
    if data["to"]:
        _crown(connection, {**body, "version": data["to"], "release_id": data["to_release"]})
    else:
        connection.execute("DELETE FROM champion WHERE workload = ?", (body["workload"],))


def _refused(connection: sqlite3.Connection, body: Body) -> None:
    _set_state(connection, body, State.REFUSED)


def _quarantined(connection: sqlite3.Connection, body: Body) -> None:
    connection.execute("UPDATE release SET quarantined = 1 WHERE release_id = ?", (body["release_id"],))


def _sealed(connection: sqlite3.Connection, body: Body) -> None:
    _end(connection, body, body["data"]["state"])


def _end(connection: sqlite3.Connection, body: Body, state: str) -> None:
    # Whoever had not answered by then is not asked any more.
    connection.execute(
        "UPDATE seat SET until_us = ? WHERE release_id = ? AND until_us IS NULL",
        (body["occurred_us"], body["release_id"]),
    )
    connection.execute(
        "UPDATE release SET state = ?, ended_us = coalesce(ended_us, ?) WHERE release_id = ?",
        (str(state), body["occurred_us"], body["release_id"]),
    )


def _set_state(connection: sqlite3.Connection, body: Body, state: State) -> None:
    connection.execute("UPDATE release SET state = ? WHERE release_id = ?", (state, body["release_id"]))


_FOLDS: dict[str, Callable[[sqlite3.Connection, Body], None]] = {
    Kind.RELEASE_SUBMITTED: _submitted,
    Kind.GATE_EVALUATED: _evaluated,
    Kind.RELEASE_DECIDED: _decided,
    Kind.APPROVAL_RECORDED: _answered,
    Kind.PROMOTION_FINISHED: _promoted,
    Kind.CHAMPION_ADOPTED: _crown,
    Kind.ROLLBACK_FINISHED: _rolled_back,
    Kind.PROMOTION_REFUSED: _refused,
    Kind.VERSION_QUARANTINED: _quarantined,
    Kind.RELEASE_SEALED: _sealed,
}


def bodies_of(texts: Iterable[str | bytes]) -> list[Body]:
    """Events of the log as data; only what is in the log already, so it was valid once."""
    return [json.loads(text) for text in texts]
