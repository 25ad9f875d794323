"""What policy says about operation: who may roll back, what the guard does, how long incidents may wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.workload import Name

SeverityName = Literal["info", "low", "medium", "high", "critical"]


class RollbackRules(Value):
    """Who may roll back, and what a version must hold to go back into production (requirement R-3)."""

    roles: Annotated[
        list[Name], Field(min_length=1, description="roles of people.yaml that may roll back")
    ] = ["ml-platform-engineer", "risk-officer"]
    automatic: Annotated[bool, Field(description="whether an incident may roll back without a person")] = True
    adopted: Annotated[
        bool,
        Field(
            description="whether a version that was in production before Airlock, never judged, may return"
        ),
    ] = True
    unsure: Annotated[
        bool,
        Field(
            description="whether a version may return when today's policy asks what only a new run of a gate "
            "can answer"
        ),
    ] = False
    settle_minutes: Annotated[
        float,
        Field(
            ge=0,
            description="within this time a second rollback that names no version changes nothing: two "
            "people who see the same fire go back one version, not two",
        ),
    ] = 10
    trial_rows: Annotated[int, Field(gt=0, le=1000, description="rows of the trial in the sandbox")] = 20


class GuardRules(Value):
    """What happens when somebody else moved the champion (requirement R-1)."""

    moved: Annotated[
        Literal["restore", "tell"], Field(description="put the governed champion back, or tell people alone")
    ] = "restore"


class IncidentRules(Value):
    """Who answers for an incident, and until when (requirement M-4)."""

    role: Annotated[Name, Field(description="role that is asked to act")] = "ml-platform-engineer"
    hours: Annotated[
        dict[SeverityName, Annotated[float, Field(gt=0)]],
        Field(description="hours until it must be resolved"),
    ] = {"critical": 4, "high": 24, "medium": 72, "low": 168, "info": 336}
    escalate_to: Annotated[Name, Field(description="role that is told when the deadline has passed")] = (
        "risk-officer"
    )
    minimum_words: Annotated[
        int, Field(ge=1, description="characters that each part of a post-mortem needs")
    ] = 10

    def hours_for(self, severity: SeverityName) -> float:
        """Hours until an incident of a severity must be resolved; the strictest where none is named."""
        return self.hours.get(severity, min(self.hours.values(), default=4.0))


class Operations(Value):
    """What happens after a release."""

    rollback: RollbackRules = RollbackRules()
    guard: GuardRules = GuardRules()
    incidents: IncidentRules = IncidentRules()

    def named_roles(self) -> Iterator[tuple[str, str]]:
        """Place and name of every role that is named."""
        for number, role in enumerate(self.rollback.roles):
            yield f"operations.rollback.roles.{number}", role
        yield "operations.incidents.role", self.incidents.role
        yield "operations.incidents.escalate_to", self.incidents.escalate_to
