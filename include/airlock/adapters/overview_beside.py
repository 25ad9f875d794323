"""What the overview keeps beside releases: failing rules, drift, waivers, incidents, and what escaped."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from airlock.core.audit import Kind

SCHEMA = """
CREATE TABLE rule (
    release_id TEXT NOT NULL, rule TEXT NOT NULL, workload TEXT NOT NULL, at_us INTEGER NOT NULL,
    PRIMARY KEY (release_id, rule)
) WITHOUT ROWID;
CREATE INDEX rule_by_time ON rule (at_us, rule, workload);
CREATE INDEX rule_by_name ON rule (rule, release_id);
CREATE TABLE drift (
    workload TEXT PRIMARY KEY, verdict TEXT NOT NULL, at_us INTEGER NOT NULL, release_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE waiver (
    waiver TEXT PRIMARY KEY, workload TEXT NOT NULL, rule TEXT NOT NULL, state TEXT NOT NULL,
    asked_us INTEGER NOT NULL, answer_until_us INTEGER NOT NULL, until_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX waiver_by_workload ON waiver (workload);
CREATE TABLE incident (
    incident TEXT PRIMARY KEY, workload TEXT NOT NULL, what TEXT NOT NULL, severity TEXT NOT NULL,
    role TEXT NOT NULL, opened_us INTEGER NOT NULL, deadline_us INTEGER NOT NULL, acknowledged_us INTEGER,
    resolved_us INTEGER
) WITHOUT ROWID;
CREATE INDEX incident_by_workload ON incident (workload, resolved_us);
CREATE TABLE escaped (
    release_id TEXT PRIMARY KEY, workload TEXT NOT NULL, what TEXT NOT NULL, at_us INTEGER NOT NULL
) WITHOUT ROWID;
"""

Body = dict[str, Any]


STEADY, MOVING, DRIFTED, UNKNOWN = "steady", "moving", "drifted", "unknown"
"""What is known about drift, in the words people read."""

_OF_GATE = {"PASSED": STEADY, "WARNED": MOVING, "FAILED": DRIFTED}
_SIGNALS = ("data_drift", "prediction_drift", "target_drift", "concept_drift")


def _evaluated(connection: sqlite3.Connection, body: Body) -> None:
    if body["data"]["gate"] == "drift":
        _drift(connection, body, _OF_GATE.get(body["data"]["verdict"], UNKNOWN))


def _monitored(connection: sqlite3.Connection, body: Body) -> None:
    """What monitoring saw in production is newer than what the gate saw at the release."""
    readings = body["data"].get("readings", {})
    seen = {readings.get(name, "off") for name in _SIGNALS} - {"off"}
    if seen:
        _drift(connection, body, DRIFTED if "raised" in seen else STEADY if seen == {"calm"} else UNKNOWN)


def _drift(connection: sqlite3.Connection, body: Body, verdict: str) -> None:
    connection.execute(
        "INSERT INTO drift VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "verdict = excluded.verdict, at_us = excluded.at_us, release_id = excluded.release_id",
        (body["workload"], verdict, body["occurred_us"], body["release_id"]),
    )


def _decided(connection: sqlite3.Connection, body: Body) -> None:
    connection.executemany(
        "INSERT INTO rule VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (body["release_id"], rule, body["workload"], body["occurred_us"])
            for rule in body["data"].get("denied_by", [])
        ],
    )


def _asked(connection: sqlite3.Connection, body: Body) -> None:
    data, when = body["data"], body["occurred_us"]
    answer_until = min(data["until_us"], when + int(data["answer_hours"] * 3_600_000_000))
    connection.execute(
        "INSERT INTO waiver VALUES (?, ?, ?, 'asked', ?, ?, ?) ON CONFLICT DO NOTHING",
        (data["waiver"], body["workload"], data["rule"], when, answer_until, data["until_us"]),
    )


def _waiver(state: str, *before: str) -> Callable[[sqlite3.Connection, Body], None]:
    """The first answer counts, as in the log: an answer to what was answered changes nothing."""

    def fold(connection: sqlite3.Connection, body: Body) -> None:
        allowed = ", ".join(f"'{name}'" for name in before)
        connection.execute(
            f"UPDATE waiver SET state = ? WHERE waiver = ? AND state IN ({allowed})",  # noqa: S608
            (state, body["data"]["waiver"]),
        )

    return fold


def _opened(connection: sqlite3.Connection, body: Body) -> None:
    data = body["data"]
    connection.execute(
        "INSERT INTO incident VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL) ON CONFLICT DO NOTHING",
        (
            _incident(body), body["workload"], str(data["summary"])[:300],
            data["severity"], data["role"], body["occurred_us"],
            data["deadline_us"],
        ),
    )  # fmt: skip
    escaped(connection, body, "incident")


def _incident(body: Body) -> str:
    return str(body["data"]["incident"])


def _incident_moment(column: str) -> Callable[[sqlite3.Connection, Body], None]:
    def fold(connection: sqlite3.Connection, body: Body) -> None:
        connection.execute(
            f"UPDATE incident SET {column} = coalesce({column}, ?) WHERE incident = ?",  # noqa: S608
            (body["occurred_us"], _incident(body)),
        )

    return fold


def escaped(connection: sqlite3.Connection, body: Body, what: str) -> None:
    """A version that was let into production had to be looked at again: its release is an escape."""
    found = connection.execute(
        "SELECT release_id, workload FROM release WHERE state IN ('promoted', 'rolled back') AND "
        "(release_id = ? OR (? = '' AND workload = ? AND version = ?)) ORDER BY submitted_us DESC LIMIT 1",
        (body["release_id"], body["release_id"], body["workload"], body["version"]),
    ).fetchone()
    if found is not None:
        connection.execute(
            "INSERT INTO escaped VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*found, what, body["occurred_us"]),
        )


def _escape(what: str) -> Callable[[sqlite3.Connection, Body], None]:
    return lambda connection, body: escaped(connection, body, what)


FOLDS: dict[str, Callable[[sqlite3.Connection, Body], None]] = {
    Kind.GATE_EVALUATED: _evaluated,
    Kind.RELEASE_DECIDED: _decided,
    Kind.WAIVER_REQUESTED: _asked,
    Kind.WAIVER_GRANTED: _waiver("granted", "asked"),
    Kind.WAIVER_REJECTED: _waiver("rejected", "asked"),
    Kind.WAIVER_REVOKED: _waiver("revoked", "granted"),
    Kind.RELEASE_REOPENED: _escape("reopened"),
    "monitor.evaluated": _monitored,
    Kind.INCIDENT_OPENED: _opened,
    Kind.INCIDENT_ACKNOWLEDGED: _incident_moment("acknowledged_us"),
    Kind.INCIDENT_RESOLVED: _incident_moment("resolved_us"),
    Kind.ROLLBACK_FINISHED: _escape("rolled back"),
}
"""Run after the folds of releases, for the same event."""
