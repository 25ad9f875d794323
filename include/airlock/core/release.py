"""A release as its audit events tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum

from airlock.core.approvals import Answer
from airlock.core.audit import Event, Kind
from airlock.core.evidence import Verdict


class State(StrEnum):
    """Where a release stands, in the words people read."""

    CHECKING = "checking"
    WAITING = "waiting for approval"
    DENIED = "denied"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    EXPIRED = "expired"
    READY = "approved"
    REFUSED = "promotion refused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"

    @property
    def at_end(self) -> State:
        """The state when the run is over: what has not ended by then was stopped."""
        stopped = {State.CHECKING: State.FAILED, State.READY: State.FAILED, State.WAITING: State.EXPIRED}
        return stopped.get(self, self)


@dataclass(frozen=True)
class GateLine:
    """One gate of a release as people see it."""

    gate: str
    verdict: Verdict
    summary: str
    seconds: float
    digest: str


@dataclass(frozen=True)
class Release:
    """A release as its events tell it."""

    release_id: str
    workload: str
    version: str
    submitter: str
    context: str
    dag_id: str
    run_id: str
    batch: str
    submitted_us: int
    last_us: int
    events: list[Event] = field(repr=False)

    @property
    def submitted_on(self) -> date:
        """The day it was submitted, in UTC; rules must be in force on it."""
        return datetime.fromtimestamp(self.submitted_us // 1_000_000, UTC).date()

    def first(self, kind: Kind) -> Event | None:
        """The first event of a kind."""
        return next((event for event in self.events if event.kind is kind), None)

    def all(self, kind: Kind) -> list[Event]:
        """Every event of a kind, in order."""
        return [event for event in self.events if event.kind is kind]

    @property
    def gates(self) -> list[GateLine]:
        """Gates in the order they answered."""
        return [
            GateLine(
                gate=event.data["gate"],
                verdict=Verdict(event.data["verdict"]),
                summary=event.data["summary"],
                seconds=event.data["seconds"],
                digest=event.data["evidence"],
            )
            for event in self.all(Kind.GATE_EVALUATED)
        ]

    @property
    def answers(self) -> list[Answer]:
        """Recorded answers in order."""
        return [
            Answer.model_validate({**event.data, "given_us": event.occurred_us})
            for event in self.all(Kind.APPROVAL_RECORDED)
        ]
