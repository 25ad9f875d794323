"""Notices about operation: incidents, and the decisions that a new champion changes (M-4, R-4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airlock.core.audit import Event, Kind
from airlock.core.errors import NotFoundError
from airlock.core.incident import HOUR_US, Incident, IncidentState
from airlock.core.notices import Notice, Topic
from airlock.services.deployment import Deployment
from airlock.services.incidents import find_incident, list_incidents

INCIDENT, CHANGES = "incident/", "changes/"
"""How the courier tells subjects apart; ids of releases hold no slash."""

Due = tuple[list[Notice], list[int]]
"""Notices, and the moments at which they change by themselves; none once it is over."""


def subjects_of(body: dict[str, Any]) -> Iterator[str]:
    """What an event of the log is about, as the courier watches it."""
    if body["release_id"]:
        yield body["release_id"]
    kind, data = body["kind"], body["data"]
    if kind.startswith("incident."):
        yield INCIDENT + str(data.get("incident", ""))
    if kind == Kind.DECISIONS_COMPARED and data.get("downstream"):
        yield CHANGES + body["key"]


def is_operation(subject: str) -> bool:
    """Whether a subject is one of these."""
    return subject.startswith((INCIDENT, CHANGES))


def open_subjects(deployment: Deployment) -> list[str]:
    """What still waits for somebody when a courier runs for the first time."""
    return [INCIDENT + one.incident_id for one in list_incidents(deployment, only_open=True)]


def operation_due(deployment: Deployment, subject: str) -> Due:
    """The notices about a subject as they should stand now.

    Raises:
        NotFoundError: it is not on record.
    """
    if subject.startswith(INCIDENT):
        return _incident_due(deployment, find_incident(deployment, subject.removeprefix(INCIDENT)))
    found = deployment.audit.events(key=subject.removeprefix(CHANGES))
    if not found:
        raise NotFoundError(f"nothing was compared under {subject!r}")
    return _changes(deployment, found[0].event), []


def _incident_due(deployment: Deployment, incident: Incident) -> Due:
    now = deployment.clock.now_us()
    notices = [_incident(deployment, incident)]
    if incident.overdue(now) or incident.escalated is not None:
        notices.append(_escalation(deployment, incident))
    wakes = [incident.deadline_us + 1] if incident.is_open and not incident.overdue(now) else []
    return notices, wakes


def _common(incident: Incident) -> dict[str, str]:
    return {
        "release_id": incident.release_id,
        "workload": incident.workload,
        "version": incident.version,
        "review": f"/airlock/incidents/{quote(incident.incident_id, safe='')}",
        "run": "",
    }


def _incident(deployment: Deployment, incident: Incident) -> Notice:
    state = incident.state
    ack = f"Say that you are on it: airlock incident ack {incident.incident_id}"
    end = f"Close it with what was learned: airlock incident resolve {incident.incident_id}"
    on_it = "" if incident.acknowledged is None else f"{incident.acknowledged.actor} is on it."
    over = "" if incident.resolved is None else f"{incident.resolved.actor} has resolved it."
    lines = [incident.summary, over or on_it or ack, *([] if over else [end])]
    return Notice(
        notice_id=f"{incident.incident_id}/incident",
        topic=Topic.INCIDENT,
        title=f"{incident.workload}: {incident.action}, {incident.severity}, {state}",
        text=f"{incident.summary} [{incident.severity}, {state}]",
        tone={IncidentState.OPEN: "bad", IncidentState.ACKNOWLEDGED: "warn"}.get(state, "good"),
        lines=lines,
        facts=[
            ("incident", incident.incident_id),
            ("owner", incident.owner),
            ("resolve by", _when(incident.deadline_us)),
        ],
        role=incident.role,
        people=[person.user for person in deployment.config.people().holders(incident.role)],
        waits=incident.is_open,
        **_common(incident),
    )


def _escalation(deployment: Deployment, incident: Incident) -> Notice:
    hours = (incident.deadline_us - incident.detected_us) / HOUR_US
    text = f"{incident.workload}: {incident.incident_id} was to be resolved within {hours:g} hours."
    return Notice(
        notice_id=f"{incident.incident_id}/escalation",
        topic=Topic.ESCALATION,
        title=f"{incident.workload}: an incident is past its deadline",
        text=text,
        tone="bad" if incident.is_open else "good",
        lines=[text, incident.summary],
        role=incident.escalate_to,
        people=[person.user for person in deployment.config.people().holders(incident.escalate_to)],
        waits=incident.is_open,
        thread=f"{incident.incident_id}/incident",
        **_common(incident),
    )


def _changes(deployment: Deployment, event: Event) -> list[Notice]:
    """One notice for each team downstream; a channel takes those of its roles."""
    data = event.data
    incident = str(data["incident"])
    review = (
        f"/airlock/releases/{quote(event.release_id, safe='')}"
        if event.release_id
        else f"/airlock/incidents/{quote(incident, safe='')}"
    )
    return [
        Notice(
            notice_id=f"{event.key}/{team}",
            topic=Topic.DECISIONS,
            release_id=event.release_id,
            workload=event.workload,
            version=event.version,
            title=f"{event.workload}: which decisions a {data['kind']} changes",
            text=data["sentence"],
            tone="warn" if data["changed"] else "plain",
            lines=[data["sentence"], f"The whole report: airlock changes {event.workload}"],
            facts=[("cases", f"{data['cases']:,}"), ("changed", f"{data['changed']:,}")],
            role=team,
            people=[person.user for person in deployment.config.people().holders(team)],
            review=review,
            run="",
        )
        for team in data["downstream"]
    ]


def _when(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
