"""What the dashboard shows: releases, seats, gates and champions, read from the overview.

The overview is brought up to the end of the log before it is read, so it is never older than the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.overview import Overview, bodies_of
from airlock.core.canonical import sha256_hex
from airlock.core.errors import AirlockError
from airlock.core.release import State
from airlock.services.deployment import Deployment

PART = 5000
"""Entries that are taken over in one transaction."""

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

Row = dict[str, Any]


@contextmanager
def reading(deployment: Deployment) -> Iterator[Overview]:
    """The overview, brought up to the end of the log, as it stands at one moment.

    All questions inside the block see the same state, over one connection.

    Raises:
        UnavailableError: as ``open_overview``.
    """
    overview = open_overview(deployment)
    with overview.snapshot():
        yield overview


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
        escaped: releases that went into production and had to be looked at again there.
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
    escaped: bool = False
    since_us: int = 0


def list_page(
    overview: Overview,
    wanted: Filter,
    *,
    now_us: int,
    limit: int,
    offset: int = 0,
    oldest_first: bool = False,
) -> list[Row]:
    """Releases that match, newest first, each with the roles that are waited for."""
    where, values = _conditions(wanted, now_us)
    order = "ASC" if oldest_first else "DESC"
    rows = overview.query(
        f"SELECT * FROM release WHERE {where} ORDER BY submitted_us {order}, release_id LIMIT ? OFFSET ?",  # noqa: S608
        [*values, limit, offset],
    )
    return _with_seats(overview, [_aged(row, now_us) for row in rows])


def count(overview: Overview, wanted: Filter, *, now_us: int) -> int:
    """How many releases match."""
    where, values = _conditions(wanted, now_us)
    return int(overview.query(f"SELECT count(*) AS n FROM release WHERE {where}", values)[0]["n"])  # noqa: S608


def visible_part(wanted: Filter) -> tuple[str, list[Any]]:
    """The condition that only what somebody may see is counted, and its values."""
    if wanted.visible is None:
        return "1", []
    return "workload IN (SELECT value FROM json_each(?))", [json.dumps(sorted(wanted.visible))]


def _conditions(wanted: Filter, now_us: int) -> tuple[str, list[Any]]:
    first, values = visible_part(wanted)
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
    if wanted.escaped:
        parts.append("release_id IN (SELECT release_id FROM escaped)")
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
    """One workload of the inventory.

    Attributes:
        drift: the newest answer about drift, of a release or of monitoring; empty when nobody looked.
        day_usd: what a day without the release costs, as the workload says; ``None`` where it says nothing.
    """

    name: str
    title: str
    owner: str
    problem: str
    champion: str
    since_us: int
    tier: str
    last: Row | None
    waiting: int
    drift: str
    drift_us: int
    incidents: int
    waivers: int
    day_usd: float | None


@dataclass(frozen=True)
class Said:
    """What a workload file says about itself; ``problem`` when it cannot be used."""

    title: str = ""
    owner: str = ""
    problem: str = ""
    day_usd: float | None = None


@lru_cache(maxsize=10_000)
def _said(path: Path, stamp: tuple[int, int]) -> Said:
    """Read again when the file changed."""
    del stamp
    try:
        workload = ConfigFolder.load_workload(path)
    except AirlockError as error:
        return Said(problem=str(error))
    return Said(workload.title, workload.owner, "", workload.value_per_day_usd)


def what_it_says(deployment: Deployment) -> dict[str, Said]:
    """What each workload file says, by name."""
    found = {}
    for path in deployment.config.workload_files():
        state = path.stat()
        found[path.stem] = _said(path, (state.st_mtime_ns, state.st_size))
    return found


def workload_names(deployment: Deployment) -> list[str]:
    """Names of the workload files."""
    return [path.stem for path in deployment.config.workload_files()]


def inventory(deployment: Deployment, overview: Overview, wanted: Filter) -> list[WorkloadLine]:
    """Every workload of the configuration that is visible, with its champion and what is open about it."""
    now_us = deployment.clock.now_us()
    champions = _by_workload(overview, "SELECT * FROM champion")
    newest = _by_workload(
        overview,
        "SELECT r.* FROM (SELECT workload, max(submitted_us) AS newest FROM release GROUP BY workload) m "
        "JOIN release r ON r.workload = m.workload AND r.submitted_us = m.newest",
    )
    waiting = _counts(
        overview,
        "SELECT workload, count(*) AS n FROM release WHERE state = ? AND deadline_us >= ? GROUP BY workload",
        [State.WAITING, now_us],
    )
    drift = _by_workload(overview, "SELECT * FROM drift")
    incidents = _counts(
        overview, "SELECT workload, count(*) AS n FROM incident WHERE resolved_us IS NULL GROUP BY workload"
    )
    waivers = _counts(
        overview,
        "SELECT workload, count(*) AS n FROM waiver WHERE until_us > ? AND "
        "(state = 'granted' OR (state = 'asked' AND answer_until_us > ?)) GROUP BY workload",
        [now_us, now_us],
    )
    lines = []
    for name, said in what_it_says(deployment).items():
        if wanted.visible is not None and name not in wanted.visible:
            continue
        champion, last, moved = champions.get(name), newest.get(name), drift.get(name)
        lines.append(
            WorkloadLine(
                name=name,
                title=said.title or name,
                owner=said.owner,
                problem=said.problem,
                champion=champion["version"] if champion else "",
                since_us=champion["since_us"] if champion else 0,
                tier=(last["tier"] or "") if last else "",
                last=_aged(last, now_us) if last else None,
                waiting=waiting.get(name, 0),
                drift=moved["verdict"] if moved else "",
                drift_us=moved["at_us"] if moved else 0,
                incidents=incidents.get(name, 0),
                waivers=waivers.get(name, 0),
                day_usd=said.day_usd,
            )
        )
    return lines


def _by_workload(overview: Overview, question: str) -> dict[str, Row]:
    return {row["workload"]: row for row in overview.query(question)}


def _counts(overview: Overview, question: str, values: Sequence[Any] = ()) -> dict[str, int]:
    return {row["workload"]: row["n"] for row in overview.query(question, values)}
