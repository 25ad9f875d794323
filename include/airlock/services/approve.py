"""Answers of people: recorded when they count, refused with the reason when they do not."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.approvals import Answer, QuorumState, objection
from airlock.core.audit import Kind
from airlock.core.dates import DAY_US, deadline
from airlock.core.decision import Decision, Outcome
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError
from airlock.core.measure import measure_of
from airlock.core.people import People, Person
from airlock.core.policy import Seat
from airlock.core.release import Release
from airlock.services.deployment import Deployment
from airlock.services.releases import (
    deadline_us,
    filled_by,
    find_release,
    open_case,
    panel_for,
    quorum_of,
    read_decision,
)
from airlock.services.requests import words_problem


@dataclass(frozen=True)
class SeatRequest:
    """What a person is asked, for one seat."""

    release: Release
    decision: Decision
    index: int
    seat: Seat
    eligible: list[Person]
    seconds_left: float


def seat_request(deployment: Deployment, release_id: str, index: int) -> SeatRequest:
    """Who may fill a seat, and until when.

    Raises:
        NotFoundError: the release is not decided, or has no such seat.
        RefusedError: nobody may fill the seat, or its time is over.
    """
    release = find_release(deployment, release_id)
    decision = _decision(deployment, release)
    if not 0 <= index < len(decision.seats):
        raise NotFoundError(f"release {release_id} has no seat {index + 1}")
    seat = decision.seats[index]
    panel = panel_for(deployment, release)
    eligible = panel.eligible(seat.role)
    if not eligible:
        # Airflow lets anyone answer a task without assigned users, so an empty list must never get there.
        out = [f"{user} {did}" for user, did in panel.barred.items() if _holds(panel.people, user, seat.role)]
        raise RefusedError(
            f"nobody may fill the seat of {seat.role}" + (f": {'; '.join(out)}" if out else ""),
            where=release_id,
            fix=f"give someone other than {release.submitter} the role {seat.role} in people.yaml",
        )
    left = (deadline_us(release) - deployment.clock.now_us()) / 1_000_000
    if left <= 0:
        raise RefusedError("the time to answer is over", where=release_id, fix="submit the release again")
    return SeatRequest(release, decision, index, seat, eligible, left)


def _holds(people: People, user: str, role: str) -> bool:
    person = people.find(user)
    return person is not None and role in person.roles


def answer(
    deployment: Deployment,
    release_id: str,
    index: int,
    *,
    user: str,
    choice: str,
    comment: str,
    when: str,
    condition: str = "",
    until: str = "",
) -> Answer:
    """Record a person's answer for a seat; who does not hold its role answers for whom they act for.

    Args:
        deployment: where.
        release_id: which release.
        index: seat number, from 0.
        user: who, as authenticated by Airflow.
        choice: ``approve`` or ``reject``.
        comment: what the person wrote; a rejection must explain itself (requirement A-5).
        when: when the person answered, ISO 8601; tells apart repeated refused attempts.
        condition: what has to be done for the approval to stay; empty for none.
        until: last day to do it, UTC, such as ``2026-03-31``, or a moment, such as ``2026-03-31T14:30``.

    Raises:
        RefusedError: the answer must not count; the refusal is recorded.
        NotFoundError: the release is not decided.
    """
    release = find_release(deployment, release_id)
    decision = _decision(deployment, release)
    try:
        given = _given(
            deployment, release, decision, index, user=user, choice=choice, comment=comment.strip()
        )
        given = _on_condition(deployment, release, given, condition.strip(), until.strip())
        problem = _problem(deployment, release, decision, given)
    except InvalidInputError as error:
        # Anything but a refusal would end the seat's task, and nobody could answer any more.
        problem = f"{error.what}; {error.fix}" if error.fix else error.what
    if problem:
        record_refusal(deployment, release, index, user=user, choice=choice, problem=problem, when=when)
        raise RefusedError(problem, where=release_id, fix="another holder of the role has to answer")
    recorded = deployment.record(
        Kind.APPROVAL_RECORDED,
        f"release/{release_id}/seat/{index}/{user}",
        actor=user,
        release_id=release_id,
        workload=release.workload,
        version=release.version,
        data=given.to_data(),
    )
    return given.model_copy(update={"given_us": recorded.event.occurred_us})


def _given(
    deployment: Deployment,
    release: Release,
    decision: Decision,
    index: int,
    *,
    user: str,
    choice: str,
    comment: str,
) -> Answer:
    """The answer somebody gives, in their own name or for whom they act.

    Raises:
        InvalidInputError: the comment cannot be recorded.
    """
    if problem := words_problem(comment, minimum=0, what="comment"):
        raise InvalidInputError(problem, fix="answer again with a shorter, plain comment")
    given = Answer(
        release_id=release.release_id,
        seat=index,
        user=user,
        role=decision.seats[index].role if 0 <= index < len(decision.seats) else "",
        choice="approve" if choice == "approve" else "reject",
        comment=comment,
        manifest_digest=decision.manifest_digest,
        evidence_digest=decision.evidence_digest,
        policy_digest=decision.policy_digest,
        given_us=deployment.clock.now_us(),
    )
    person = deployment.config.people().find(user)
    if person is None or given.role in person.roles:
        return given
    # Who holds the role answers for themselves; anybody else for the first who delegated it and is free.
    panel, earlier = panel_for(deployment, release), _counted(deployment, release, decision, given)
    acting = [given.model_copy(update={"acts_for": giver}) for giver in panel.givers(user, given.role)]
    free = [one for one in acting if not objection(one, decision=decision, panel=panel, earlier=earlier)]
    return next(iter([*free, *acting, given]))


def _on_condition(
    deployment: Deployment, release: Release, given: Answer, condition: str, until: str
) -> Answer:
    """The answer with its condition.

    Raises:
        InvalidInputError: the condition cannot be taken like this.
    """
    if not condition and not until:
        return given
    if given.choice == "reject":
        raise InvalidInputError("a rejection has no condition", fix="say in the comment what has to change")
    until_us = check_condition(deployment, release.release_id, condition=condition, until=until)
    return given.model_copy(update={"condition": condition, "condition_until_us": until_us})


def check_condition(deployment: Deployment, release_id: str, *, condition: str, until: str) -> int:
    """The moment a condition has to be met by, microseconds since 1970.

    Raises:
        InvalidInputError: the condition cannot be taken like this.
    """
    case = open_case(deployment, release_id)
    rules = case.policy.approval
    if rules.condition_days is None:
        raise InvalidInputError(
            "the policy of this release takes no conditional approval", fix="approve without it, or reject"
        )
    if problem := words_problem(condition, minimum=max(1, rules.minimum_comment), what="condition"):
        raise InvalidInputError(problem, fix="say what has to be done")
    if (measure := measure_of(condition)) is not None:
        measure.check()
        if case.workload.monitoring is None:
            raise InvalidInputError(
                "nothing measures this workload in production",
                fix="add `monitoring` to the workload file, or say the condition in words",
            )
    until_us, now = deadline(until), deployment.clock.now_us()
    if until_us > now + (rules.condition_days + 1) * DAY_US:
        raise InvalidInputError(
            f"a condition has to be met within {rules.condition_days:g} days", fix="choose an earlier day"
        )
    if until_us <= now:
        raise InvalidInputError("the deadline of the condition is over already", fix="choose a later day")
    return until_us


def _problem(deployment: Deployment, release: Release, decision: Decision, given: Answer) -> str:
    if deployment.clock.now_us() > deadline_us(release):
        return "the time to answer is over; submit the release again"
    minimum = open_case(deployment, release.release_id).policy.approval.minimum_comment
    if given.choice == "reject" and len(given.comment) < minimum:
        return f"a rejection needs a comment of at least {minimum} characters that says what to change"
    return objection_to(deployment, release, decision, given)


def objection_to(deployment: Deployment, release: Release, decision: Decision, given: Answer) -> str:
    """Why an answer would not count now, in a sentence; empty when it would."""
    panel = panel_for(deployment, release)
    if (given.seat, given.user) in panel.revoked:
        return f"the approval of {given.user} was revoked; another holder of the role has to answer"
    earlier = _counted(deployment, release, decision, given)
    return objection(given, decision=decision, panel=panel, earlier=earlier)


def _counted(deployment: Deployment, release: Release, decision: Decision, given: Answer) -> list[Answer]:
    """Earlier answers that fill a seat; one that does not count must not keep others from it."""
    quorum = quorum_of(deployment, release, decision)
    return [
        other
        for other in release.answers
        if other.user in (quorum.filled.get(other.seat), quorum.rejected_by)
        and (other.seat != given.seat or other.user != given.user)
    ]


def own_objection(
    deployment: Deployment, release: Release, decision: Decision, index: int, user: str
) -> tuple[str, str]:
    """Whether a person may fill a seat now: why not, in a sentence or empty, and whom they would act for."""
    given = _given(deployment, release, decision, index, user=user, choice="approve", comment="")
    return objection_to(deployment, release, decision, given), given.acts_for


def record_refusal(
    deployment: Deployment, release: Release, index: int, *, user: str, choice: str, problem: str, when: str
) -> None:
    """Record that someone tried to fill a seat and was refused."""
    deployment.record(
        Kind.APPROVAL_REFUSED,
        f"release/{release.release_id}/seat/{index}/refused/{user}/{when}",
        actor=user,
        release_id=release.release_id,
        workload=release.workload,
        version=release.version,
        data={"seat": index, "choice": choice, "problem": problem},
    )


@dataclass(frozen=True)
class Standing:
    """Where the approval stands: may the release go on, must it stop, or is it open?"""

    state: str
    sentence: str
    feedback: str = ""
    """What a rejecter wrote; never recorded a second time, because it can be erased."""


GRANTED, REJECTED, EXPIRED, DENIED, OPEN = "granted", "rejected", "expired", "denied", "open"


def standing(deployment: Deployment, release_id: str) -> Standing:
    """Compute where the approval stands from audited answers alone.

    Raises:
        NotFoundError: the release is not decided.
    """
    release = find_release(deployment, release_id)
    decision = _decision(deployment, release)
    if decision.outcome is Outcome.DENY:
        return Standing(DENIED, decision.sentence)
    quorum = quorum_of(deployment, release, decision)
    if quorum.state is QuorumState.GRANTED:
        people = ", ".join(filled_by(release, quorum).values())
        return Standing(GRANTED, f"approved by {people}" if people else "no approval needed")
    if quorum.state is QuorumState.REJECTED:
        return Standing(REJECTED, f"rejected by {quorum.rejected_by}", quorum.comment)
    if deployment.clock.now_us() > deadline_us(release):
        return Standing(EXPIRED, "nobody answered in time, so the release is closed")
    waiting = ", ".join(decision.seats[seat].role for seat in quorum.open_seats)
    return Standing(OPEN, f"waiting for {waiting}")


def _decision(deployment: Deployment, release: Release) -> Decision:
    decision = read_decision(deployment, release)
    if decision is None:
        raise NotFoundError(f"release {release.release_id} is not decided yet", fix="wait for its gates")
    return decision
