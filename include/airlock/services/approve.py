"""Answers of people: recorded when they count, refused with the reason when they do not."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.approvals import Answer, QuorumState, objection
from airlock.core.audit import Kind
from airlock.core.canonical import canonical_json
from airlock.core.decision import Decision, Outcome
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError
from airlock.core.people import Person
from airlock.core.policy import Seat
from airlock.core.release import Release
from airlock.services.deployment import Deployment
from airlock.services.releases import (
    deadline_us,
    find_release,
    open_case,
    quorum_of,
    read_decision,
)

MAX_COMMENT = 4000
"""Characters of a comment; it has to fit into an audit event."""


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
    eligible = [
        person for person in deployment.config.people().holders(seat.role) if person.user != release.submitter
    ]
    if not eligible:
        # Airflow lets anyone answer a task without assigned users, so an empty list must never get there.
        raise RefusedError(
            f"nobody may fill the seat of {seat.role}",
            where=release_id,
            fix=f"give someone other than {release.submitter} the role {seat.role} in people.yaml",
        )
    left = (deadline_us(release) - deployment.clock.now_us()) / 1_000_000
    if left <= 0:
        raise RefusedError("the time to answer is over", where=release_id, fix="submit the release again")
    return SeatRequest(release, decision, index, seat, eligible, left)


def answer(
    deployment: Deployment, release_id: str, index: int, *, user: str, choice: str, comment: str, when: str
) -> Answer:
    """Record a person's answer for a seat.

    Args:
        deployment: where.
        release_id: which release.
        index: seat number, from 0.
        user: who, as authenticated by Airflow.
        choice: ``approve`` or ``reject``.
        comment: what the person wrote; a rejection must explain itself (requirement A-5).
        when: when the person answered, ISO 8601; tells apart repeated refused attempts.

    Raises:
        RefusedError: the answer must not count; the refusal is recorded.
        NotFoundError: the release is not decided.
    """
    release = find_release(deployment, release_id)
    decision = _decision(deployment, release)
    role = decision.seats[index].role if 0 <= index < len(decision.seats) else ""
    if problem := _comment_problem(comment):
        # Anything but a refusal would end the seat's task, and nobody could answer any more.
        record_refusal(deployment, release, index, user=user, choice=choice, problem=problem, when=when)
        raise RefusedError(problem, where=release_id, fix="answer again with a shorter, plain comment")
    given = Answer(
        release_id=release_id,
        seat=index,
        user=user,
        role=role,
        choice="approve" if choice == "approve" else "reject",
        comment=comment,
        manifest_digest=decision.manifest_digest,
        evidence_digest=decision.evidence_digest,
        policy_digest=decision.policy_digest,
    )
    problem = _problem(deployment, release, decision, given)
    if problem:
        record_refusal(deployment, release, index, user=user, choice=choice, problem=problem, when=when)
        raise RefusedError(problem, where=release_id, fix="another holder of the role has to answer")
    deployment.record(
        Kind.APPROVAL_RECORDED,
        f"release/{release_id}/seat/{index}/{user}",
        actor=user,
        release_id=release_id,
        workload=release.workload,
        version=release.version,
        data=given.to_data(),
    )
    return given


def _comment_problem(comment: str) -> str:
    if len(comment) > MAX_COMMENT:
        return f"the comment has {len(comment)} characters, the limit is {MAX_COMMENT}"
    try:
        canonical_json(comment)
    except InvalidInputError as error:
        return f"the comment cannot be recorded: {error.what}"
    return ""


def _problem(deployment: Deployment, release: Release, decision: Decision, given: Answer) -> str:
    if deployment.clock.now_us() > deadline_us(release):
        return "the time to answer is over; submit the release again"
    minimum = open_case(deployment, release.release_id).policy.approval.minimum_comment
    if given.choice == "reject" and len(given.comment.strip()) < minimum:
        return f"a rejection needs a comment of at least {minimum} characters that says what to change"
    # Only answers that count fill a seat; one that does not must not keep others from it.
    quorum = quorum_of(deployment, release, decision)
    earlier = [
        other
        for other in release.answers
        if other.user in (quorum.filled.get(other.seat), quorum.rejected_by)
        and (other.seat != given.seat or other.user != given.user)
    ]
    return objection(
        given,
        decision=decision,
        people=deployment.config.people(),
        submitter=release.submitter,
        earlier=earlier,
    )


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
        people = ", ".join(quorum.filled.values())
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
