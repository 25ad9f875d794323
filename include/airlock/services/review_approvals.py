"""Look after approvals: what rests on a missed condition is revoked and taken back (requirement A-7)."""

from __future__ import annotations

from airlock.core.audit import Kind
from airlock.core.errors import ConflictError, RefusedError
from airlock.services.conditions import (
    MISSED,
    OPEN,
    REVOKED,
    Condition,
    in_production,
    list_conditions,
    measured,
    record_met,
)
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.incidents import open_incident
from airlock.services.rollback import rollback


def review(deployment: Deployment) -> list[str]:
    """Confirm conditions that production shows to be met, and act on those that were missed.

    An approval whose condition was missed is revoked, and what is in production by it is rolled back.

    Safe to repeat, also after a kill at any point: what was done is recorded, and done once.

    Raises:
        UnavailableError: the registry or a store does not answer.
    """
    said = []
    for condition in list_conditions(deployment):
        if condition.state == OPEN:
            said += _look(deployment, condition)
        if condition.state not in (MISSED, REVOKED):
            continue
        if condition.state == MISSED:
            said.append(_revoke(deployment, condition))
        if in_production(deployment, condition):
            said += _take_back(deployment, condition)
    return said


LAST_LOOK_US = 2 * 3_600_000_000
"""A number counts as it stands at the end: it is looked at in the last two hours, twice by the hourly run."""


def _look(deployment: Deployment, condition: Condition) -> list[str]:
    """Confirm a condition that is due soon and names a number that production shows to be right."""
    if condition.until_us - deployment.clock.now_us() > LAST_LOOK_US:
        return []
    found = measured(deployment, condition)
    if found is None:
        return []
    if found.holds:
        record_met(deployment, condition, actor=SYSTEM, comment=found.sentence)
        return [
            f"the condition of {condition.release_id}, seat {condition.seat + 1}, is met: {found.sentence}"
        ]
    return [
        f"the condition of {condition.release_id}, seat {condition.seat + 1}, is not met: {found.sentence}"
    ]


def _revoke(deployment: Deployment, condition: Condition) -> str:
    sentence = (
        f"the approval of {condition.workload} version {condition.version} by {condition.user} "
        f"({condition.role}) is revoked: its condition was not met by {condition.until}"
    )
    deployment.record(
        Kind.APPROVAL_REVOKED,
        f"release/{condition.release_id}/seat/{condition.seat}/{condition.user}/revoked",
        release_id=condition.release_id,
        workload=condition.workload,
        version=condition.version,
        data={"seat": condition.seat, "user": condition.user, "sentence": sentence},
    )
    return sentence


def _reopen(deployment: Deployment, condition: Condition) -> str:
    key = f"release/{condition.release_id}/reopened/condition/{condition.seat}/{condition.user}"
    if deployment.find(key) is not None:
        return ""
    sentence = (
        f"{condition.workload} version {condition.version} is in production and its approval by "
        f"{condition.user} was revoked: roll it back, or release another version"
    )
    deployment.record(
        Kind.RELEASE_REOPENED,
        key,
        release_id=condition.release_id,
        workload=condition.workload,
        version=condition.version,
        data={"condition": condition.seat, "user": condition.user, "sentence": sentence},
    )
    return sentence


def _take_back(deployment: Deployment, condition: Condition) -> list[str]:
    """Say that it is in production without an approval, call somebody, and roll back if policy lets us."""
    sentence = _reopen(deployment, condition)
    incident_id = open_incident(
        deployment,
        workload=condition.workload,
        version=condition.version,
        action="rollback",
        severity="high",
        summary=f"{condition.workload} version {condition.version} is in production without its approval: "
        f"a condition was not met by {condition.until}",
        cause=f"condition/{condition.release_id}/{condition.seat}",
        detected_us=deployment.clock.now_us(),
        release_id=condition.release_id,
        began_us=condition.until_us,
    )
    reason = f"The approval of {condition.user} was revoked: its condition was not met by {condition.until}."
    try:
        done = rollback(
            deployment,
            condition.workload,
            actor=SYSTEM,
            reason=reason,
            incident_id=incident_id,
            leaving=condition.version,
        )
    except (RefusedError, ConflictError) as error:
        # Said once; the incident goes on asking somebody to act.
        return [f"{sentence}; it could not be rolled back: {error.what}"] if sentence else []
    where = done.data["to"] or "none"
    return [f"{condition.workload} is rolled back from version {condition.version} to {where}"]
