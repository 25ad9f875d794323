"""The dashboard and the lists behind its numbers, as plain data; REST gives the same data as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from airlock.adapters.overview_beside import DRIFTED
from airlock.core.release import State
from airlock.core.waiver import WaiverRequest, WaiverState
from airlock.services.incidents import list_incidents
from airlock.services.measures import measures
from airlock.services.overview import (
    DAY_US,
    Filter,
    WorkloadLine,
    count,
    inventory,
    list_page,
    reading,
    what_it_says,
)
from airlock.services.waivers import list_waivers

if TYPE_CHECKING:
    from airlock.web.access import Visitor

Data = dict[str, Any]

DASHBOARD_ROWS = 20
LISTED = 500
"""Incidents or waivers on one page."""

DAG_PREFIX = "release__"


def visible(visitor: Visitor) -> frozenset[str] | None:
    """Workloads the user may see; ``None`` when that is all of them."""
    names = what_it_says(visitor.deployment)
    seen = frozenset(name for name in names if f"{DAG_PREFIX}{name}" in visitor.dags)
    return None if len(seen) == len(names) else seen


def dashboard(visitor: Visitor, *, days: int) -> Data:
    """What waits, what is open, how well it flows, and the state of the audit log."""
    deployment, now = visitor.deployment, visitor.deployment.clock.now_us()
    seen = Filter(visible=visible(visitor))
    window = replace(seen, since_us=now - days * DAY_US)
    waiting = replace(seen, state=str(State.WAITING))
    with reading(deployment) as overview:
        lines = inventory(deployment, overview, seen)
        day_usd = {line.name: line.day_usd for line in lines}
        rows = list_page(overview, waiting, now_us=now, limit=DASHBOARD_ROWS, oldest_first=True)
        return {
            "now_us": now,
            "days": days,
            "workloads": [asdict(line) for line in sorted(lines, key=_attention)[:DASHBOARD_ROWS]],
            "workload_count": len(lines),
            "waiting": [{**row, "cost_usd": _cost(row, day_usd, now)} for row in rows],
            "waiting_count": count(overview, waiting, now_us=now),
            "incident_count": sum(line.incidents for line in lines),
            "waiver_count": sum(line.waivers for line in lines),
            "drifted_count": sum(line.drift == DRIFTED for line in lines),
            "recent": list_page(overview, seen, now_us=now, limit=DASHBOARD_ROWS // 2),
            "measures": asdict(measures(overview, window, now_us=now, day_usd=day_usd)),
            "audit": audit_state(visitor),
        }


def _attention(line: WorkloadLine) -> tuple[bool, int, bool, int, str]:
    """Workloads that somebody should look at first."""
    return (not line.problem, -line.incidents, line.drift != DRIFTED, -line.waiting, line.name)


def _cost(row: Data, day_usd: Mapping[str, float | None], now_us: int) -> float | None:
    """What it has cost so far that a release waits; ``None`` where nobody said what a day is worth."""
    value = day_usd.get(row["workload"])
    return None if value is None else value * max(0, now_us - row["decided_us"]) / DAY_US


def workload_list(visitor: Visitor) -> Data:
    """Every workload the user may see, those that need attention first."""
    deployment = visitor.deployment
    with reading(deployment) as overview:
        lines = inventory(deployment, overview, Filter(visible=visible(visitor)))
    return {
        "now_us": deployment.clock.now_us(),
        "workloads": [asdict(line) for line in sorted(lines, key=_attention)],
    }


def incident_list(visitor: Visitor, *, workload: str = "") -> Data:
    """Incidents of what the user may see, open ones first, the nearest deadline first."""
    now, seen = visitor.deployment.clock.now_us(), visible(visitor)
    found = [
        one
        for one in list_incidents(visitor.deployment, workload=workload or None)
        if seen is None or one.workload in seen
    ]
    found.sort(key=lambda one: (not one.is_open, one.deadline_us if one.is_open else -one.opened_us))
    return {
        "now_us": now,
        "incidents": [
            {
                "incident": one.incident_id,
                "workload": one.workload,
                "version": one.version,
                "release": one.release_id,
                "severity": str(one.severity),
                "state": str(one.state),
                "summary": one.summary,
                "action": one.action,
                "owner": one.owner,
                "role": one.role,
                "opened_us": one.opened_us,
                "deadline_us": one.deadline_us,
                "overdue": one.overdue(now),
            }
            for one in found[:LISTED]
        ],
        "total": len(found),
    }


def waiver_list(visitor: Visitor, *, workload: str = "") -> Data:
    """Waivers of what the user may see, those in force and those asked for first."""
    now, seen = visitor.deployment.clock.now_us(), visible(visitor)
    found = [
        one
        for one in list_waivers(visitor.deployment, workload or None)
        if seen is None or one.workload in seen
    ]
    found.sort(key=lambda one: (not stands(one.state(now)), one.until_us))
    return {"now_us": now, "waivers": [waiver_data(one, now) for one in found[:LISTED]], "total": len(found)}


def stands(state: WaiverState) -> bool:
    """Whether a waiver is in force, or may still be."""
    return state.in_force or state is WaiverState.ASKED


def audit_state(visitor: Visitor) -> Data:
    """Size of the log, what waits to be taken into it, its newest checkpoint, how far each anchor has it."""
    log = visitor.deployment.log
    head, waiting, now = log.head(), log.waiting(), visitor.deployment.clock.now_us()
    return {
        "entries": head.size,
        "root": head.root.hex(),
        "note": head.note,
        "waiting": waiting.count,
        "lag_us": 0 if waiting.since_us is None else max(0, now - waiting.since_us),
        "anchors": [
            {"name": name, "entries": size, "behind": head.size - size}
            for name, size in sorted(log.receipts().items())
        ],
    }


def release_list(visitor: Visitor, wanted: Filter, *, limit: int, offset: int) -> Data:
    """One page of releases."""
    now = visitor.deployment.clock.now_us()
    seen = replace(wanted, visible=visible(visitor))
    with reading(visitor.deployment) as overview:
        return {
            "now_us": now,
            "releases": list_page(overview, seen, now_us=now, limit=limit, offset=offset),
            "total": count(overview, seen, now_us=now),
            "limit": limit,
            "offset": offset,
        }


def waiver_data(one: WaiverRequest, now_us: int) -> Data:
    """A waiver as people read it."""
    return {
        "waiver": one.waiver_id,
        "workload": one.workload,
        "rule": one.rule,
        "versions": one.versions,
        "state": str(one.state(now_us)),
        "by": one.requested.actor,
        "role": one.role,
        "granted_by": one.answer.who if one.granted and one.answer else "",
        "until_us": one.until_us,
        "reason": one.requested.data.get("reason", ""),
    }
