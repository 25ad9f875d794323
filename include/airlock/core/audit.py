"""Audit events: what is written, once, and never changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from airlock.core.base import Value

MAX_BODY_BYTES = 65536
"""Largest event; bigger things belong into the evidence store, and their digest here."""


class Kind(StrEnum):
    """Every kind of event there is."""

    RELEASE_SUBMITTED = "release.submitted"
    RELEASE_FROZEN = "release.frozen"
    RELEASE_RETRAINED = "release.retrained"
    GATE_EVALUATED = "gate.evaluated"
    RELEASE_DECIDED = "release.decided"
    APPROVAL_RECORDED = "approval.recorded"
    APPROVAL_REFUSED = "approval.refused"
    APPROVAL_REVOKED = "approval.revoked"
    CONDITION_MET = "condition.met"
    DELEGATION_GIVEN = "delegation.given"
    DELEGATION_ENDED = "delegation.ended"
    QUESTION_ASKED = "question.asked"
    QUESTION_ANSWERED = "question.answered"
    PROMOTION_STARTED = "promotion.started"
    PROMOTION_FINISHED = "promotion.finished"
    PROMOTION_REFUSED = "promotion.refused"
    VERSION_QUARANTINED = "version.quarantined"
    SECURITY_REVIEW_OPENED = "security.review_opened"
    CHAMPION_ADOPTED = "champion.adopted"
    RELEASE_ANNOUNCED = "release.announced"
    RELEASE_SEALED = "release.sealed"
    TASK_STARTED = "task.started"
    TASK_OUTCOME = "task.outcome"
    API_ATTEMPT = "api.attempt"
    AIRFLOW_CHANGED = "airflow.changed"
    AUDIT_RECONCILED = "audit.reconciled"
    AUDIT_READ = "audit.read"
    KEY_ROTATED = "key.rotated"
    KEY_ADOPTED = "key.adopted"
    LOG_RESTARTED = "log.restarted"
    HOLD_PLACED = "hold.placed"
    HOLD_LIFTED = "hold.lifted"
    PERSONAL_ERASED = "personal.erased"
    WAIVER_REQUESTED = "waiver.requested"
    WAIVER_GRANTED = "waiver.granted"
    WAIVER_REJECTED = "waiver.rejected"
    WAIVER_REVOKED = "waiver.revoked"
    WAIVER_EXPIRING = "waiver.expiring"
    WAIVER_ENDED = "waiver.ended"
    RELEASE_REOPENED = "release.reopened"
    REQUEST_REFUSED = "request.refused"
    POLICY_REQUESTED = "policy.requested"
    POLICY_APPROVED = "policy.approved"
    POLICY_REJECTED = "policy.rejected"
    POLICY_PUBLISHED = "policy.published"
    CANARY_EVALUATED = "canary.evaluated"
    ROLLBACK_STARTED = "rollback.started"
    ROLLBACK_FINISHED = "rollback.finished"
    ROLLBACK_REFUSED = "rollback.refused"
    GUARD_ALIAS_MOVED = "guard.alias_moved"
    GUARD_UNDO_STARTED = "guard.undo_started"
    GUARD_UNDO_FINISHED = "guard.undo_finished"
    DECISIONS_COMPARED = "decisions.compared"
    RETRAIN_REQUESTED = "retrain.requested"
    RETRAIN_FROZEN = "retrain.frozen"
    RETRAIN_CHECKED = "retrain.checked"
    RETRAIN_TRAINED = "retrain.trained"
    RETRAIN_COMPARED = "retrain.compared"
    RETRAIN_CLOSED = "retrain.closed"
    RETRAIN_SUBMITTED = "retrain.submitted"
    INCIDENT_OPENED = "incident.opened"
    INCIDENT_ACKNOWLEDGED = "incident.acknowledged"
    INCIDENT_ESCALATED = "incident.escalated"
    INCIDENT_RESOLVED = "incident.resolved"
    MONITOR_BASELINED = "monitor.baselined"
    MONITOR_EVALUATED = "monitor.evaluated"
    MONITOR_PAUSED = "monitor.paused"
    MONITOR_RESUMED = "monitor.resumed"
    ACTION_PROPOSED = "action.proposed"
    ACTION_ANSWERED = "action.answered"
    ACTION_TAKEN = "action.taken"
    ACTION_DECLINED = "action.declined"
    CONFLICT = "conflict"

    @property
    def critical(self) -> bool:
        """Whether nothing may go on before this is in the log and anchored outside the database."""
        return self in _CRITICAL

    @property
    def spoolable(self) -> bool:
        """Whether this may wait on a worker's disk while the database does not answer.

        Only what nothing reads before it goes on: a verdict that is not in the database yet would be a
        missing verdict for the decision, so its task waits and tries again instead.
        """
        return self in _SPOOLABLE

    @property
    def first_wins(self) -> bool:
        """Whether several sources report the same fact, so that the first report is the record of it."""
        return self in _FIRST_WINS

    @property
    def personal(self) -> tuple[str, ...]:
        """Fields of ``data`` in which people write freely: kept encrypted, and erasable."""
        return _PERSONAL.get(self, ())


_CRITICAL = frozenset(
    {
        Kind.APPROVAL_RECORDED,
        Kind.APPROVAL_REVOKED,
        Kind.CONDITION_MET,
        Kind.DELEGATION_GIVEN,
        Kind.DELEGATION_ENDED,
        Kind.PROMOTION_STARTED,
        Kind.PROMOTION_FINISHED,
        Kind.CHAMPION_ADOPTED,
        Kind.KEY_ROTATED,
        Kind.KEY_ADOPTED,
        Kind.HOLD_PLACED,
        Kind.HOLD_LIFTED,
        Kind.PERSONAL_ERASED,
        Kind.WAIVER_REQUESTED,
        Kind.WAIVER_GRANTED,
        Kind.WAIVER_REJECTED,
        Kind.WAIVER_REVOKED,
        Kind.POLICY_APPROVED,
        Kind.POLICY_REJECTED,
        Kind.POLICY_PUBLISHED,
        Kind.VERSION_QUARANTINED,
        Kind.ROLLBACK_STARTED,
        Kind.ROLLBACK_FINISHED,
        Kind.ROLLBACK_REFUSED,
        Kind.GUARD_ALIAS_MOVED,
        Kind.GUARD_UNDO_STARTED,
        Kind.GUARD_UNDO_FINISHED,
    }
)

_SPOOLABLE = frozenset(
    {Kind.TASK_STARTED, Kind.TASK_OUTCOME, Kind.API_ATTEMPT, Kind.AIRFLOW_CHANGED, Kind.AUDIT_READ}
)

_FIRST_WINS = frozenset({Kind.TASK_OUTCOME, Kind.AIRFLOW_CHANGED, Kind.KEY_ROTATED, Kind.LOG_RESTARTED})

_PERSONAL = {
    Kind.RELEASE_SUBMITTED: ("context",),
    Kind.APPROVAL_RECORDED: ("comment", "condition"),
    Kind.CONDITION_MET: ("comment",),
    Kind.DELEGATION_GIVEN: ("reason",),
    Kind.DELEGATION_ENDED: ("reason",),
    Kind.QUESTION_ASKED: ("question",),
    Kind.QUESTION_ANSWERED: ("answer",),
    Kind.CHAMPION_ADOPTED: ("reason",),
    Kind.WAIVER_REQUESTED: ("reason",),
    Kind.WAIVER_GRANTED: ("comment",),
    Kind.WAIVER_REJECTED: ("comment",),
    Kind.WAIVER_REVOKED: ("reason",),
    Kind.POLICY_APPROVED: ("comment",),
    Kind.POLICY_REJECTED: ("comment",),
    Kind.ROLLBACK_STARTED: ("reason",),
    Kind.ROLLBACK_REFUSED: ("reason",),
    Kind.RETRAIN_REQUESTED: ("reason",),
    Kind.MONITOR_RESUMED: ("reason",),
    Kind.ACTION_ANSWERED: ("comment",),
    Kind.INCIDENT_ACKNOWLEDGED: ("comment",),
    Kind.INCIDENT_RESOLVED: ("happened", "why", "changes"),
}


class Event(Value):
    """One fact about what happened.

    Attributes:
        key: idempotency key; the same key with the same content is recorded once, with other
            content it is answered with a ``conflict`` event.
        occurred_us: claimed time, microseconds since 1970 UTC (nanoseconds would not fit JSON).
        received_us: when the store received it, the same unit; 0 before that. It is part of what is
            signed, like everything else that is kept.
        actor: user id, or ``system`` when no person acted. A pseudonym: names stand in
            ``people.yaml`` alone.
    """

    schema_version: Literal[1] = 1
    key: Annotated[str, Field(min_length=1, max_length=1000)]
    kind: Kind
    occurred_us: Annotated[int, Field(ge=0, lt=2**53)]
    received_us: Annotated[int, Field(ge=0, lt=2**53)] = 0
    actor: Annotated[str, Field(min_length=1, max_length=200)]
    deployment: str
    release_id: str = ""
    workload: str = ""
    version: str = ""
    data: dict[str, Any] = {}

    @property
    def who(self) -> str:
        """Who acted, and in whose place: ``petra for omar``."""
        acts_for = self.data.get("acts_for")
        return f"{self.actor} for {acts_for}" if acts_for else self.actor


class Recorded(Value):
    """An event as it stands in the store.

    Attributes:
        ingest_id: its number in the store, in the order of arrival; ``None`` while it waits in the
            spool of this machine because the store does not answer.
    """

    ingest_id: int | None
    event: Event
