"""Conditions of approvals: confirmed in time, or the approval is revoked and its release taken back (A-7)."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.approvals import Answer, objection
from airlock.core.audit import Event, Kind
from airlock.core.dates import due_words
from airlock.core.errors import NotFoundError
from airlock.core.measure import measure_of
from airlock.core.release import Release
from airlock.services.deployment import Deployment
from airlock.services.releases import find_release, panel_for, read_decision
from airlock.services.requests import refuse, words_problem

OPEN, MET, MISSED, REVOKED = "open", "met", "missed", "revoked"


@dataclass(frozen=True)
class Condition:
    """The condition of one approval.

    Attributes:
        state: ``open``, ``met``, ``missed`` (its day is over, nobody has acted yet) or ``revoked``.
        met_by: who confirmed it; ``system`` where production showed the number that it names.
        given_us: when the approval was given.
    """

    release_id: str
    workload: str
    version: str
    seat: int
    role: str
    user: str
    text: str
    until_us: int
    state: str
    met_by: str = ""
    given_us: int = 0

    @property
    def until(self) -> str:
        """The last day to meet it, or the moment, UTC."""
        return due_words(self.until_us)


def conditions_of(release: Release, now_us: int) -> list[Condition]:
    """Conditions of a release, in the order they were set."""
    return [_condition(release, answer, now_us) for answer in release.answers if answer.condition]


def _condition(release: Release, answer: Answer, now_us: int) -> Condition:
    def said(kind: Kind) -> Event | None:
        of = (answer.seat, answer.user)
        return next(
            (event for event in release.all(kind) if (event.data["seat"], event.data["user"]) == of), None
        )

    met = said(Kind.CONDITION_MET)
    state = OPEN if now_us < answer.condition_until_us else MISSED
    state = MET if met is not None else REVOKED if said(Kind.APPROVAL_REVOKED) is not None else state
    return Condition(
        release_id=release.release_id,
        workload=release.workload,
        version=release.version,
        seat=answer.seat,
        role=answer.role,
        user=answer.user,
        text=answer.condition,
        until_us=answer.condition_until_us,
        state=state,
        met_by="" if met is None else met.actor,
        given_us=answer.given_us,
    )


def list_conditions(deployment: Deployment, workload: str | None = None) -> list[Condition]:
    """Every condition of this deployment, in the order they were set."""
    name, now = deployment.settings.deployment, deployment.clock.now_us()
    recorded = deployment.audit.events(workload=workload, kinds=[Kind.APPROVAL_RECORDED])
    releases = dict.fromkeys(
        entry.event.release_id
        for entry in recorded
        if entry.event.deployment == name and entry.event.data.get("condition_until_us")
    )
    return [one for release in releases for one in conditions_of(find_release(deployment, release), now)]


def confirm(
    deployment: Deployment, release_id: str, seat: int, *, user: str, comment: str, when: str
) -> Condition:
    """Confirm that the condition of a seat is met: a holder of its role who had no part in the release.

    Args:
        deployment: where.
        release_id: which release.
        seat: seat number, from 0.
        user: who, as authenticated by Airflow.
        comment: how it was met.
        when: tells apart repeated attempts.

    Raises:
        RefusedError: this user may not, its day is over, or it does not say how; recorded.
        NotFoundError: there is no such condition.
    """
    release = find_release(deployment, release_id)
    found = [one for one in conditions_of(release, deployment.clock.now_us()) if one.seat == seat]
    if not found:
        raise NotFoundError(
            f"seat {seat + 1} of {release_id} has no condition", fix="list them with `airlock condition list`"
        )
    condition = found[-1]
    if condition.state == MET:
        return condition
    if problem := _confirm_problem(deployment, release, condition, user, comment):
        raise refuse(
            deployment,
            f"{release_id}/condition/{seat}",
            problem,
            user=user,
            what="confirm",
            when=when,
            workload=release.workload,
        )
    record_met(deployment, condition, actor=user, comment=comment.strip())
    release = find_release(deployment, release_id)
    return next(
        one
        for one in conditions_of(release, deployment.clock.now_us())
        if (one.seat, one.user) == (seat, condition.user)
    )


def record_met(deployment: Deployment, condition: Condition, *, actor: str, comment: str) -> None:
    """Record that a condition is met, and how."""
    deployment.record(
        Kind.CONDITION_MET,
        f"release/{condition.release_id}/condition/{condition.seat}/{condition.user}/met",
        actor=actor,
        release_id=condition.release_id,
        workload=condition.workload,
        version=condition.version,
        data={"seat": condition.seat, "user": condition.user, "comment": comment},
    )


@dataclass(frozen=True)
class Measured:
    """What production shows about a condition that names a number."""

    holds: bool
    sentence: str


def measured(deployment: Deployment, condition: Condition) -> Measured | None:
    """What the newest window that began after the approval shows; ``None`` while there is none.

    A window in which the number could not be measured shows nothing.
    """
    measure = measure_of(condition.text)
    if measure is None:
        return None
    recorded = deployment.audit.events(
        workload=condition.workload, kinds=[Kind.MONITOR_EVALUATED], newest_first=True, limit=_WINDOWS
    )
    for event in (entry.event for entry in recorded):
        value = event.data["values"].get(measure.signal)
        of_it = (event.deployment, event.version) == (deployment.settings.deployment, condition.version)
        if of_it and value is not None and event.data["start_us"] >= condition.given_us:
            sentence = f"{measure.signal} was {value:.4g} in the window {event.data['window']}"
            return Measured(measure.holds(value), f"{sentence}, and has to be {condition.text.strip()}")
    return None


_WINDOWS = 20
"""Newest windows among which one is looked for."""


def _confirm_problem(
    deployment: Deployment, release: Release, condition: Condition, user: str, comment: str
) -> str:
    if condition.state != OPEN:
        return f"the condition was to be met by {condition.until} and is {condition.state}"
    if (found := measured(deployment, condition)) is not None and not found.holds:
        return found.sentence
    decision = read_decision(deployment, release)
    if decision is None:
        return "the release is not decided"
    panel = panel_for(deployment, release)
    asked = Answer(
        release_id=release.release_id,
        seat=condition.seat,
        user=user,
        role=condition.role,
        choice="approve",
        comment="",
        manifest_digest=decision.manifest_digest,
        evidence_digest=decision.evidence_digest,
        policy_digest=decision.policy_digest,
        acts_for=panel.acts_for(user, condition.role),
        given_us=deployment.clock.now_us(),
    )
    return objection(asked, decision=decision, panel=panel, earlier=()) or words_problem(
        comment, minimum=1, what="comment"
    )


# In production


def in_production(deployment: Deployment, condition: Condition) -> bool:
    """Whether what rests on the approval of a condition made the champion that is there now."""
    recorded = deployment.audit.events(
        workload=condition.workload, kinds=[Kind.PROMOTION_FINISHED], newest_first=True
    )
    name = deployment.settings.deployment
    newest = next((entry.event for entry in recorded if entry.event.deployment == name), None)
    if newest is None or newest.release_id != condition.release_id:
        return False
    if condition.user not in newest.data["approved_by"]:
        return False  # somebody else has filled the seat since
    model = deployment.config.workload(condition.workload).model.registered_model
    champion = deployment.registry.champion(model)
    return champion is not None and champion.version == condition.version


def unapproved(deployment: Deployment) -> list[Condition]:
    """What is in production though the condition of its approval was missed."""
    return [
        one
        for one in list_conditions(deployment)
        if one.state in (MISSED, REVOKED) and in_production(deployment, one)
    ]
