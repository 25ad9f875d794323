"""Incidents: opened once for a cause, owned, escalated, and closed with a post-mortem (requirement M-4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from airlock.core.audit import Event, Kind
from airlock.core.errors import ConflictError, NotFoundError, RefusedError
from airlock.core.incident import (
    HOUR_US,
    KINDS,
    Incident,
    PostMortem,
    incident_id_for,
    read_incidents,
)
from airlock.core.operations import IncidentRules
from airlock.core.policy import Policy, Severity
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.requests import words_problem

SUMMARY = 1000
"""Characters of a summary that are kept."""

LOOK_BACK_US = HOUR_US
"""How far before its detection the timeline of an incident begins when nobody knows when it began."""


def open_incident(
    deployment: Deployment,
    *,
    workload: str,
    version: str,
    action: str,
    severity: str,
    summary: str,
    cause: str,
    detected_us: int,
    data: dict[str, Any] | None = None,
    release_id: str = "",
    began_us: int = 0,
) -> str:
    """Open an incident and return its id; while one is open for the same cause, that one's.

    Args:
        deployment: where.
        workload: the workload it is about, with its file in ``config/workloads/``.
        version: the model version it is about; empty for none.
        action: what was done, or is asked of people.
        severity: ``info`` to ``critical``; the policy says how long each may wait.
        summary: what is wrong, in a sentence without personal data.
        cause: what it is about, such as ``drift/mortgage-approval``; a cause has one open incident.
        detected_us: when it was noticed, microseconds since 1970.
        data: more about it.
        release_id: the release behind the version, if there is one.
        began_us: when what is wrong began, if that is known.

    Raises:
        NotFoundError: there is no such workload.
        UnavailableError: the audit store does not answer.
    """
    spec = deployment.config.workload(workload)
    rules = rules_of(deployment, spec.policy)
    earlier = [one for one in list_incidents(deployment, workload=workload) if one.cause == cause]
    if (standing := next((one for one in earlier if one.is_open), None)) is not None:
        return standing.incident_id
    level = Severity(severity)
    incident_id = incident_id_for(deployment.settings.deployment, workload, cause, len(earlier))
    try:
        deployment.record(
            Kind.INCIDENT_OPENED,
            f"incident/{incident_id}/opened",
            release_id=release_id,
            workload=workload,
            version=version,
            data={
                "incident": incident_id,
                "cause": cause,
                "action": action,
                "severity": str(level),
                "summary": summary[:SUMMARY],
                "owner": spec.owner,
                "role": rules.role,
                "escalate_to": rules.escalate_to,
                "began_us": began_us,
                "detected_us": detected_us,
                "deadline_us": detected_us + int(rules.hours_for(level.value) * HOUR_US),
                "data": data or {},
            },
        )
    except ConflictError:
        # Somebody noticed in the same moment and said it in other words: it is the same incident.
        if deployment.find(f"incident/{incident_id}/opened") is None:
            raise
    return incident_id


def rules_of(deployment: Deployment, version: str) -> IncidentRules:
    """What the policy says about incidents."""
    return deployment.config.policy(version).operations.incidents


def list_incidents(
    deployment: Deployment, *, workload: str | None = None, only_open: bool = False
) -> list[Incident]:
    """Incidents of this deployment in the order they were opened."""
    name = deployment.settings.deployment
    recorded = deployment.audit.events(workload=workload, kinds=KINDS)
    found = read_incidents(entry.event for entry in recorded if entry.event.deployment == name)
    return [one for one in found if one.is_open] if only_open else found


def find_incident(deployment: Deployment, incident_id: str) -> Incident:
    """One incident.

    Raises:
        NotFoundError: there is none of this id here.
    """
    opened = deployment.find(f"incident/{incident_id}/opened")
    found = [] if opened is None else list_incidents(deployment, workload=opened.workload)
    for one in found:
        if one.incident_id == incident_id:
            return one
    raise NotFoundError(f"there is no incident {incident_id!r}", fix="list them with `airlock incident list`")


def acknowledge(deployment: Deployment, incident_id: str, *, actor: str, comment: str = "") -> Incident:
    """Say that somebody is on it. The first who says so stands; repeating it changes nothing.

    Raises:
        RefusedError: this user holds no governance role, or it is resolved; recorded.
        NotFoundError: unknown incident.
    """
    incident = find_incident(deployment, incident_id)
    problem = _person_problem(deployment, actor) or words_problem(comment, minimum=0, what="comment")
    if not incident.is_open:
        problem = f"incident {incident_id} is resolved"
    if problem:
        raise _refused(deployment, incident, actor, "acknowledge", problem)
    if incident.acknowledged is None:
        _record(deployment, Kind.INCIDENT_ACKNOWLEDGED, incident, {"comment": comment}, actor=actor)
    return find_incident(deployment, incident_id)


def resolve(deployment: Deployment, incident_id: str, *, actor: str, post_mortem: PostMortem) -> Incident:
    """Close an incident with its post-mortem. Repeating it changes nothing.

    A proposal for the policy is recorded with it and shown; the policy itself changes only by publication.

    Raises:
        RefusedError: this user holds no governance role, a part of the post-mortem is too short, or it
            proposes a limit that the policy does not have; recorded.
        NotFoundError: unknown incident.
    """
    incident = find_incident(deployment, incident_id)
    if incident.resolved is not None:
        return incident
    policy = deployment.config.policy(deployment.config.workload(incident.workload).policy)
    problem = _person_problem(deployment, actor) or _post_mortem_problem(policy, post_mortem)
    if problem:
        raise _refused(deployment, incident, actor, "resolve", problem)
    proposal = post_mortem.proposal
    data = {
        "happened": post_mortem.happened,
        "why": post_mortem.why,
        "changes": post_mortem.changes,
        "proposal": None
        if proposal is None
        else {**proposal.to_data(), "now": policy.limits[proposal.limit].value, "policy": policy.version},
    }
    _record(deployment, Kind.INCIDENT_RESOLVED, incident, data, actor=actor)
    return find_incident(deployment, incident_id)


def _post_mortem_problem(policy: Policy, post_mortem: PostMortem) -> str:
    minimum = policy.operations.incidents.minimum_words
    for name in ("happened", "why", "changes"):
        words = getattr(post_mortem, name)
        if problem := words_problem(words, minimum=minimum, what=f"part `{name}` of the post-mortem"):
            return problem
    proposal = post_mortem.proposal
    if proposal is not None and proposal.limit not in policy.limits:
        return f"policy {policy.version} has no limit {proposal.limit!r}"
    return ""


def _person_problem(deployment: Deployment, user: str) -> str:
    person = deployment.config.people().active(user)
    if person is None or not person.roles:
        return f"{user or 'nobody'} holds no governance role; ask for an entry in people.yaml"
    return ""


def _refused(deployment: Deployment, incident: Incident, actor: str, what: str, problem: str) -> RefusedError:
    deployment.record(
        Kind.REQUEST_REFUSED,
        f"incident/{incident.incident_id}/refused/{what}/{deployment.clock.now_us()}",
        actor=actor[:200] or SYSTEM,
        workload=incident.workload,
        data={"request": incident.incident_id, "what": what, "problem": problem[:2000]},
    )
    return RefusedError(problem, where=incident.incident_id)


def _record(
    deployment: Deployment, kind: Kind, incident: Incident, data: dict[str, Any], *, actor: str
) -> None:
    verb = str(kind).removeprefix("incident.")
    try:
        deployment.record(
            kind,
            f"incident/{incident.incident_id}/{verb}",
            actor=actor,
            release_id=incident.release_id,
            workload=incident.workload,
            version=incident.version,
            data={"incident": incident.incident_id, **data},
        )
    except ConflictError:
        if deployment.find(f"incident/{incident.incident_id}/{verb}") is None:
            raise  # else somebody else was first, and theirs stands


def review_incidents(deployment: Deployment) -> list[str]:
    """Escalate what is past its deadline, once each; safe to repeat.

    Returns:
        What there is to say, a sentence for each.
    """
    now = deployment.clock.now_us()
    said = []
    for incident in list_incidents(deployment, only_open=True):
        if not incident.overdue(now) or incident.escalated is not None:
            continue
        sentence = (
            f"{incident.incident_id} of {incident.workload} ({incident.severity}) is not resolved in time; "
            f"{incident.escalate_to} is told"
        )
        data = {"to": incident.escalate_to, "sentence": sentence}
        _record(deployment, Kind.INCIDENT_ESCALATED, incident, data, actor=SYSTEM)
        said.append(sentence)
    return said


TIMELINE = frozenset(
    {
        Kind.RELEASE_SUBMITTED,
        Kind.RELEASE_DECIDED,
        Kind.APPROVAL_RECORDED,
        Kind.PROMOTION_STARTED,
        Kind.PROMOTION_FINISHED,
        Kind.PROMOTION_REFUSED,
        Kind.CHAMPION_ADOPTED,
        Kind.VERSION_QUARANTINED,
        Kind.WAIVER_ENDED,
        Kind.WAIVER_REVOKED,
        Kind.RELEASE_REOPENED,
        Kind.ROLLBACK_STARTED,
        Kind.ROLLBACK_FINISHED,
        Kind.ROLLBACK_REFUSED,
        Kind.GUARD_ALIAS_MOVED,
        Kind.GUARD_UNDO_STARTED,
        Kind.GUARD_UNDO_FINISHED,
        Kind.DECISIONS_COMPARED,
        *KINDS,
    }
)
"""What belongs into the timeline of an incident."""


def timeline(deployment: Deployment, incident_id: str) -> list[Event]:
    """What happened around an incident, from the audit store alone.

    It begins when what is wrong began, or an hour before it was noticed, and ends when it was resolved.
    Other incidents of the workload have timelines of their own.
    """
    incident = find_incident(deployment, incident_id)
    since = incident.began_us or incident.detected_us - LOOK_BACK_US
    until = None if incident.resolved is None else incident.resolved.occurred_us + 1
    recorded = deployment.audit.events(
        workload=incident.workload, kinds=sorted(TIMELINE), since_us=max(0, since), until_us=until
    )
    own = (entry.event for entry in recorded if entry.event.deployment == deployment.settings.deployment)
    return [event for event in own if event.data.get("incident", incident_id) in ("", incident_id)]


@dataclass(frozen=True)
class IncidentFigures:
    """What a dashboard shows; times in seconds, ``None`` where there is nothing to measure.

    Attributes:
        detect_seconds: median time from the beginning, where it is known, to detection.
        acknowledge_seconds: median time from detection until somebody was on it.
        resolve_seconds: median time from detection to resolution.
    """

    total: int
    open: int
    overdue: int
    by_severity: dict[str, int]
    by_action: dict[str, int]
    detect_seconds: float | None
    acknowledge_seconds: float | None
    resolve_seconds: float | None


def figures(deployment: Deployment, *, workload: str | None = None, since_us: int = 0) -> IncidentFigures:
    """Count and time the incidents that were opened since a moment."""
    now = deployment.clock.now_us()
    found = [one for one in list_incidents(deployment, workload=workload) if one.opened_us >= since_us]
    waited = [one.acknowledged.occurred_us - one.detected_us for one in found if one.acknowledged is not None]
    return IncidentFigures(
        total=len(found),
        open=sum(one.is_open for one in found),
        overdue=sum(one.overdue(now) for one in found),
        by_severity=_counts([str(one.severity) for one in found]),
        by_action=_counts([one.action for one in found]),
        detect_seconds=_median([one.detect_us for one in found]),
        acknowledge_seconds=_median(waited),
        resolve_seconds=_median([one.resolve_us for one in found]),
    )


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _median(times: Sequence[int | None]) -> float | None:
    known = [time for time in times if time is not None]
    return median(known) / 1_000_000 if known else None
