"""What the dashboard shows: releases, seats, gates and champions, read from the overview.

The overview is brought up to the end of the log before it is read, so it is never older than the log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.overview import Overview, bodies_of
from airlock.core.canonical import sha256_hex
from airlock.core.errors import AirlockError
from airlock.core.policy import Track
from airlock.core.release import State
from airlock.services.deployment import Deployment

PART = 5000
"""Entries that are taken over in one transaction."""

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

Row = dict[str, Any]


def open_overview(deployment: Deployment) -> Overview:
    """The overview of a deployment, brought up to the end of its log.

    Raises:
        UnavailableError: the audit store does not answer, or the file cannot be written.
    """
    overview = Overview(deployment.settings.home / "overview.db")
    catch_up(deployment, overview)
    return overview


def catch_up(deployment: Deployment, overview: Overview) -> int:
    """Take over what the log has and the overview has not; returns how many entries that were."""
    first = deployment.log.bodies(0, 1)
    # Another log, or the same one seen as another deployment, makes another overview.
    origin = sha256_hex(deployment.settings.deployment.encode() + first[0]) if first else ""
    position, known = overview.position()
    size = deployment.log.head().size
    if position and (known != origin or position > size):
        # Restored from a backup, or another database: what was taken over is of another log.
        overview.restart()
        position = 0
    taken = 0
    while position < size:
        bodies = bodies_of(deployment.log.bodies(position, min(PART, size - position)))
        name = deployment.settings.deployment
        own = [body if body["deployment"] == name else {"kind": ""} for body in bodies]
        overview.apply(position, origin, own)
        position, _ = overview.position()
        taken += len(bodies)
    return taken


@dataclass(frozen=True)
class Filter:
    """Which releases are meant; empty fields narrow nothing.

    Attributes:
        visible: names of the workloads somebody may see; ``None`` for all.
        gate: releases that this gate refused.
        role: releases that this role was asked about and has not answered.
        rule: releases that this rule denied.
    """

    visible: frozenset[str] | None = None
    workload: str = ""
    state: str = ""
    track: str = ""
    version: str = ""
    submitter: str = ""
    gate: str = ""
    role: str = ""
    rule: str = ""
    since_us: int = 0


def list_page(overview: Overview, wanted: Filter, *, now_us: int, limit: int, offset: int = 0) -> list[Row]:
    """Releases that match, newest first, each with the roles that are waited for."""
    where, values = _conditions(wanted, now_us)
    rows = overview.query(
        f"SELECT * FROM release WHERE {where} ORDER BY submitted_us DESC, release_id LIMIT ? OFFSET ?",  # noqa: S608
        [*values, limit, offset],
    )
    return _with_seats(overview, [_aged(row, now_us) for row in rows])


def count(overview: Overview, wanted: Filter, *, now_us: int) -> int:
    """How many releases match."""
    where, values = _conditions(wanted, now_us)
    return int(overview.query(f"SELECT count(*) AS n FROM release WHERE {where}", values)[0]["n"])  # noqa: S608


def _visible(wanted: Filter) -> tuple[str, list[Any]]:
    if wanted.visible is None:
        return "1", []
    return "workload IN (SELECT value FROM json_each(?))", [json.dumps(sorted(wanted.visible))]


def _conditions(wanted: Filter, now_us: int) -> tuple[str, list[Any]]:
    first, values = _visible(wanted)
    parts = [first]
    for column in ("workload", "track", "version", "submitter"):
        if value := getattr(wanted, column):
            parts.append(f"{column} = ?")
            values.append(value)
    if wanted.state:
        condition, more = _STATE_CONDITIONS.get(wanted.state, ("state = ?", 0))
        parts.append(condition)
        values += [wanted.state, *[now_us] * more]
    if wanted.gate:
        parts.append(
            "release_id IN (SELECT release_id FROM gate WHERE gate = ? AND verdict IN ('FAILED', 'ERROR'))"
        )
        values.append(wanted.gate)
    if wanted.role:
        parts.append("release_id IN (SELECT release_id FROM seat WHERE role = ? AND until_us IS NULL)")
        values.append(wanted.role)
    if wanted.rule:
        parts.append("release_id IN (SELECT release_id FROM rule WHERE rule = ?)")
        values.append(wanted.rule)
    if wanted.since_us:
        parts.append("submitted_us >= ?")
        values.append(wanted.since_us)
    return " AND ".join(parts), values


_STATE_CONDITIONS: dict[str, tuple[str, int]] = {
    State.WAITING: ("state = ? AND deadline_us >= ?", 1),
    State.EXPIRED: (f"(state = ? OR (state = '{State.WAITING}' AND deadline_us < ?))", 1),
}
"""A release that waits beyond its deadline has expired, whether or not its run noticed yet."""


def _aged(row: Row, now_us: int) -> Row:
    over = row["state"] == State.WAITING and row["deadline_us"] is not None and row["deadline_us"] < now_us
    return {**row, "state": str(State.EXPIRED)} if over else row


def _with_seats(overview: Overview, rows: list[Row]) -> list[Row]:
    ids = json.dumps([row["release_id"] for row in rows])
    seats: dict[str, list[Row]] = {}
    for seat in overview.query(
        "SELECT release_id, role, until_us FROM seat "
        "WHERE release_id IN (SELECT value FROM json_each(?)) ORDER BY seat",
        [ids],
    ):
        seats.setdefault(seat["release_id"], []).append(seat)
    for row in rows:
        own = seats.get(row["release_id"], [])
        row["open_roles"] = [seat["role"] for seat in own if seat["until_us"] is None]
        row["seats"] = len(own)
    return rows


@dataclass(frozen=True)
class WorkloadLine:
    """One workload of the inventory."""

    name: str
    title: str
    owner: str
    problem: str
    champion: str
    since_us: int
    tier: str
    last: Row | None
    waiting: int


@cache
def _named(path: Path, stamp: tuple[int, int]) -> tuple[str, str, str]:
    """Title, owner and problem of a workload file; read again when it changed."""
    del stamp
    try:
        workload = ConfigFolder.load_workload(path)
    except AirlockError as error:
        return "", "", str(error)
    return workload.title, workload.owner, ""


def workload_names(deployment: Deployment) -> list[str]:
    """Names of the workload files."""
    return [path.stem for path in deployment.config.workload_files()]


def inventory(deployment: Deployment, overview: Overview, wanted: Filter) -> list[WorkloadLine]:
    """Every workload of the configuration that is visible, with its champion and its last release."""
    now_us = deployment.clock.now_us()
    champions = {row["workload"]: row for row in overview.query("SELECT * FROM champion")}
    newest = {
        row["workload"]: _aged(row, now_us)
        for row in overview.query(
            "SELECT r.* FROM (SELECT workload, max(submitted_us) AS newest FROM release GROUP BY workload) m "
            "JOIN release r ON r.workload = m.workload AND r.submitted_us = m.newest"
        )
    }
    waiting = {
        row["workload"]: row["n"]
        for row in overview.query(
            "SELECT workload, count(*) AS n FROM release "
            "WHERE state = ? AND deadline_us >= ? GROUP BY workload",
            [State.WAITING, now_us],
        )
    }
    lines = []
    for path in deployment.config.workload_files():
        name = path.stem
        if wanted.visible is not None and name not in wanted.visible:
            continue
        found = path.stat()
        title, owner, problem = _named(path, (found.st_mtime_ns, found.st_size))
        champion, last = champions.get(name), newest.get(name)
        lines.append(
            WorkloadLine(
                name=name,
                title=title or name,
                owner=owner,
                problem=problem,
                champion=champion["version"] if champion else "",
                since_us=champion["since_us"] if champion else 0,
                tier=(last["tier"] or "") if last else "",
                last=last,
                waiting=waiting.get(name, 0),
            )
        )
    return lines


@dataclass(frozen=True)
class Flow:
    """How long something took: how many, the median and the ninth decile, microseconds."""

    name: str
    n: int
    median_us: float
    p90_us: float

    @staticmethod
    def of(name: str, spans_us: Sequence[int]) -> Flow:
        """Of at least one span."""
        p90 = quantiles(spans_us, n=10, method="inclusive")[-1] if len(spans_us) > 1 else spans_us[0]
        return Flow(name, len(spans_us), median(spans_us), p90)


@dataclass(frozen=True)
class Measures:
    """The governance measures of a span of time (requirement U-2)."""

    since_us: int
    submitted: int
    promoted: int
    without_people: int
    stopped: int
    lead_times: list[Flow]
    waiting_times: list[Flow]
    gates: list[Row]


STOPPED = (State.DENIED, State.QUARANTINED, State.REJECTED, State.EXPIRED, State.REFUSED)


def measures(overview: Overview, wanted: Filter, *, now_us: int) -> Measures:
    """Lead time by track, waiting time by role, and gates by how often they refuse, since ``since_us``."""
    visible, names = _visible(wanted)
    since = [wanted.since_us]
    totals = _by(
        overview,
        "SELECT state AS name, count(*) AS n FROM release "  # noqa: S608
        f"WHERE submitted_us >= ? AND {visible} GROUP BY state",
        since + names,
    )
    alone = overview.query(
        "SELECT count(*) AS n FROM release "  # noqa: S608
        f"WHERE submitted_us >= ? AND state = ? AND outcome = 'ALLOW' AND {visible}",
        [*since, State.PROMOTED, *names],
    )[0]["n"]
    leads = _spans(
        overview,
        "SELECT track AS name, ended_us - submitted_us AS span FROM release "  # noqa: S608
        f"WHERE submitted_us >= ? AND state = ? AND track IS NOT NULL AND {visible}",
        [*since, State.PROMOTED, *names],
    )
    waits = _spans(
        overview,
        "SELECT role AS name, coalesce(until_us, ?) - asked_us AS span FROM seat "  # noqa: S608
        f"WHERE asked_us >= ? AND {visible}",
        [now_us, *since, *names],
    )
    gates = overview.query(
        "SELECT gate, count(*) AS n, sum(verdict = 'FAILED') AS failed, sum(verdict = 'ERROR') AS errors, "  # noqa: S608
        "sum(verdict = 'WARNED') AS warned, avg(seconds) AS seconds FROM gate "
        f"WHERE at_us >= ? AND {visible} GROUP BY gate ORDER BY failed + errors DESC, gate",
        since + names,
    )
    return Measures(
        since_us=wanted.since_us,
        submitted=sum(totals.values()),
        promoted=totals.get(State.PROMOTED, 0),
        without_people=alone,
        stopped=sum(totals.get(state, 0) for state in STOPPED),
        lead_times=[Flow.of(str(track), leads[track]) for track in Track if track in leads],
        waiting_times=sorted((Flow.of(*item) for item in waits.items()), key=lambda flow: -flow.median_us),
        gates=gates,
    )


def _by(overview: Overview, question: str, values: list[Any]) -> dict[str, int]:
    return {row["name"]: row["n"] for row in overview.query(question, values)}


def _spans(overview: Overview, question: str, values: list[Any]) -> dict[str, list[int]]:
    spans: dict[str, list[int]] = {}
    for row in overview.query(question, values):
        spans.setdefault(row["name"], []).append(row["span"])
    return spans
