"""Approvals: who answered, whether it counts, and whether the quorum stands.

Everything is computed from audited answers. Task states and XCom are never asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from airlock.core.base import Value
from airlock.core.decision import Decision, Outcome
from airlock.core.people import People


class Answer(Value):
    """One person's answer for one seat, bound to what that person was shown (requirement A-7)."""

    release_id: str
    seat: int
    user: str
    role: str
    choice: Literal["approve", "reject"]
    comment: str
    manifest_digest: str
    evidence_digest: str
    policy_digest: str


class QuorumState(StrEnum):
    """Where the approval of a release stands."""

    OPEN = "open"
    GRANTED = "granted"
    REJECTED = "rejected"


class Quorum(Value):
    """The state of the approval, the seats that count, and why others do not."""

    state: QuorumState
    filled: dict[int, str]
    open_seats: list[int]
    rejected_by: str = ""
    comment: str = ""
    problems: list[str] = []


def objection(
    answer: Answer, *, decision: Decision, people: People, submitter: str, earlier: Sequence[Answer]
) -> str:
    """Why this answer must not count, in a sentence; empty when it does (requirements A-2, A-7)."""
    if decision.outcome is not Outcome.PENDING:
        return f"the release is not waiting for approval: its decision is {decision.outcome}"
    if not 0 <= answer.seat < len(decision.seats):
        return f"seat {answer.seat + 1} does not exist"
    bound = (answer.manifest_digest, answer.evidence_digest, answer.policy_digest)
    if bound != (decision.manifest_digest, decision.evidence_digest, decision.policy_digest):
        return "the answer was given for another manifest, evidence or policy and is void"
    role = decision.seats[answer.seat].role
    return _person_objection(answer, role, people, submitter) or _seat_objection(answer, earlier)


def _person_objection(answer: Answer, role: str, people: People, submitter: str) -> str:
    if answer.user == submitter:
        return f"{answer.user} submitted this release and cannot approve or reject it"
    person = people.find(answer.user)
    if person is None:
        return f"{answer.user} holds no governance role; ask for an entry in people.yaml"
    if role not in person.roles:
        held = ", ".join(person.roles) or "none"
        return f"{answer.user} does not hold the role {role}; roles held: {held}"
    return "" if answer.role == role else f"the answer is for role {answer.role}, the seat asks for {role}"


def _seat_objection(answer: Answer, earlier: Sequence[Answer]) -> str:
    for other in earlier:
        if other.user == answer.user and other.seat != answer.seat:
            return f"{answer.user} already fills seat {other.seat + 1}; one person fills one seat"
        if other.seat == answer.seat and other.user != answer.user:
            return f"seat {answer.seat + 1} is already filled by {other.user}"
    return ""


def tally(answers: Sequence[Answer], *, decision: Decision, people: People, submitter: str) -> Quorum:
    """Count audited answers in the order they were recorded.

    Law: no answers never grant anything; a decision with no seats is granted only if it is ``ALLOW``.
    """
    counted: list[Answer] = []
    problems: list[str] = []
    for answer in answers:
        if answer.release_id != decision.release_id:
            problems.append(f"answer of {answer.user} belongs to release {answer.release_id}")
            continue
        problem = objection(answer, decision=decision, people=people, submitter=submitter, earlier=counted)
        if problem:
            problems.append(problem)
        else:
            counted.append(answer)
    rejection = next((answer for answer in counted if answer.choice == "reject"), None)
    filled = {answer.seat: answer.user for answer in counted if answer.choice == "approve"}
    open_seats = [seat for seat in range(len(decision.seats)) if seat not in filled]
    if decision.outcome is Outcome.ALLOW:
        state = QuorumState.GRANTED
    elif decision.outcome is Outcome.DENY or rejection is not None:
        state = QuorumState.REJECTED
    else:
        state = QuorumState.OPEN if open_seats or not decision.seats else QuorumState.GRANTED
    return Quorum(
        state=state,
        filled=filled,
        open_seats=open_seats,
        rejected_by=rejection.user if rejection else "",
        comment=rejection.comment if rejection else "",
        problems=problems,
    )
