"""An incident as its audit events tell it (requirement M-4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from airlock.core.audit import Event, Kind
from airlock.core.base import Value
from airlock.core.canonical import sha256_hex
from airlock.core.policy import Key, Severity

HOUR_US = 3_600_000_000

KINDS = (
    Kind.INCIDENT_OPENED,
    Kind.INCIDENT_ACKNOWLEDGED,
    Kind.INCIDENT_ESCALATED,
    Kind.INCIDENT_RESOLVED,
)


class IncidentState(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class PolicyProposal(Value):
    """A limit that would have caught it sooner, or would not have cried wolf."""

    limit: Annotated[Key, Field(description="name of a limit of the policy")]
    value: float
    why: Annotated[str, Field(min_length=1, max_length=1000)]


class PostMortem(Value):
    """What is known once it is over; plain words, about causes and not about people."""

    happened: Annotated[str, Field(max_length=4000, description="what happened, and who was affected")]
    why: Annotated[str, Field(max_length=4000, description="why it could happen")]
    changes: Annotated[str, Field(max_length=4000, description="what changes, so that it does not again")]
    proposal: PolicyProposal | None = None


@dataclass(frozen=True)
class Incident:
    """One incident.

    Attributes:
        incident_id: such as ``incident-1a2b3c4d5e``.
        cause: what it is about; while one is open for a cause there is no second one.
        action: what was done or is asked for: alert, rollback, quarantine …
        owner: the team that answers for the workload; ``role``: the role that is asked to act.
        began_us: when what is wrong began, where that is known; 0 where not.
        detected_us: when it was noticed; ``deadline_us``: until when it must be resolved.
        data: more about it, as whoever opened it wrote it.
    """

    incident_id: str
    workload: str
    version: str
    release_id: str
    cause: str
    action: str
    severity: Severity
    summary: str
    owner: str
    role: str
    escalate_to: str
    began_us: int
    detected_us: int
    opened_us: int
    deadline_us: int
    data: dict[str, Any]
    acknowledged: Event | None
    escalated: Event | None
    resolved: Event | None

    @property
    def state(self) -> IncidentState:
        """Where it stands."""
        if self.resolved is not None:
            return IncidentState.RESOLVED
        return IncidentState.OPEN if self.acknowledged is None else IncidentState.ACKNOWLEDGED

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to do something."""
        return self.resolved is None

    def overdue(self, now_us: int) -> bool:
        """Whether it is past its deadline and not resolved."""
        return self.is_open and now_us > self.deadline_us

    @property
    def detect_us(self) -> int | None:
        """Time to detect, microseconds; ``None`` where nobody knows when it began."""
        return max(0, self.detected_us - self.began_us) if self.began_us else None

    @property
    def resolve_us(self) -> int | None:
        """Time from detection to resolution, microseconds; ``None`` while it is open."""
        return None if self.resolved is None else max(0, self.resolved.occurred_us - self.detected_us)

    def to_data(self) -> dict[str, Any]:
        """For programs; what people wrote is left out, because it can be erased from the log alone."""
        return {
            "incident": self.incident_id,
            "workload": self.workload,
            "version": self.version,
            "release": self.release_id,
            "state": str(self.state),
            "severity": str(self.severity),
            "action": self.action,
            "cause": self.cause,
            "summary": self.summary,
            "owner": self.owner,
            "role": self.role,
            "detected_us": self.detected_us,
            "deadline_us": self.deadline_us,
            "escalated": self.escalated is not None,
            "seconds_to_detect": _seconds(self.detect_us),
            "seconds_to_resolve": _seconds(self.resolve_us),
            "data": self.data,
        }


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000_000


def incident_id_for(deployment: str, workload: str, cause: str, earlier: int) -> str:
    """The id of the incident that a cause opens when ``earlier`` ones of it were resolved.

    Law: while one is open the same cause gives the same id, so two who notice at once open one incident.
    """
    key = f"{deployment}\x1f{workload}\x1f{cause}\x1f{earlier}"
    return f"incident-{sha256_hex(key.encode())[:10]}"


def read_incidents(events: Iterable[Event]) -> list[Incident]:
    """Incidents from their events, in the order they were opened."""
    opened: dict[str, Event] = {}
    later: dict[str, dict[Kind, Event]] = {}
    for event in events:
        incident_id = str(event.data.get("incident", ""))
        if event.kind is Kind.INCIDENT_OPENED:
            opened.setdefault(incident_id, event)
        elif event.kind in KINDS:
            later.setdefault(incident_id, {}).setdefault(event.kind, event)
    return [_incident(event, later.get(incident_id, {})) for incident_id, event in opened.items()]


def _incident(event: Event, later: dict[Kind, Event]) -> Incident:
    data = event.data
    return Incident(
        incident_id=data["incident"],
        workload=event.workload,
        version=event.version,
        release_id=event.release_id,
        cause=data["cause"],
        action=data["action"],
        severity=Severity(data["severity"]),
        summary=data["summary"],
        owner=data["owner"],
        role=data["role"],
        escalate_to=data["escalate_to"],
        began_us=data["began_us"],
        detected_us=data["detected_us"],
        opened_us=event.occurred_us,
        deadline_us=data["deadline_us"],
        data=data["data"],
        acknowledged=later.get(Kind.INCIDENT_ACKNOWLEDGED),
        escalated=later.get(Kind.INCIDENT_ESCALATED),
        resolved=later.get(Kind.INCIDENT_RESOLVED),
    )
