"""Approvals: who answered, whether it counts, and whether the quorum stands.

Everything is computed from audited answers. Task states and XCom are never asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.decision import Decision, Outcome
from airlock.core.delegation import Delegation
from airlock.core.people import People, Person


class Answer(Value):
    """One person's answer for one seat, bound to what that person was shown (requirement A-7).

    Attributes:
        acts_for: whose role it is, where the person answers under a delegation; empty for their own.
        condition: what has to be done for an approval to stay; empty where it is unconditional.
        condition_until_us: by when, microseconds since 1970; 0 without a condition.
        given_us: when it was given, microseconds since 1970; stands in its event and not in the answer.
    """

    release_id: str
    seat: int
    user: str
    role: str
    choice: Literal["approve", "reject"]
    comment: str
    manifest_digest: str
    evidence_digest: str
    policy_digest: str
    acts_for: Annotated[str, Field(exclude_if=lambda value: not value)] = ""
    condition: Annotated[str, Field(exclude_if=lambda value: not value)] = ""
    condition_until_us: Annotated[int, Field(ge=0, exclude_if=lambda value: not value)] = 0
    given_us: Annotated[int, Field(exclude=True)] = 0

    @property
    def who(self) -> str:
        """The person, and whom they act for: ``petra for omar``."""
        return f"{self.user} for {self.acts_for}" if self.acts_for else self.user

    @property
    def persons(self) -> frozenset[str]:
        """Everybody whose one seat this answer takes."""
        return frozenset({self.user, self.acts_for} - {""})


@dataclass(frozen=True)
class Panel:
    """Who may answer about one release or request, as it stands now.

    Attributes:
        people: who holds which role.
        barred: people who may not answer about it whatever they hold, and what they did, such as ``submitted
            this release``.
        now_us: the moment it is asked for, microseconds since 1970.
        delegations: everything that was delegated, also what is over.
        delegate_days: longest delegation that its policy takes; ``None`` takes none.
        met: seat and user of conditional approvals whose condition was confirmed in time.
        revoked: seat and user of approvals that were revoked.
    """

    people: People
    barred: Mapping[str, str]
    now_us: int = 0
    delegations: Sequence[Delegation] = ()
    delegate_days: float | None = None
    met: frozenset[tuple[int, str]] = field(default_factory=frozenset)
    revoked: frozenset[tuple[int, str]] = field(default_factory=frozenset)

    def eligible(self, role: str) -> list[Person]:
        """Who may answer for a role now: who holds it, then who acts for one of those."""
        free = [person for person in self.people.people if person.active and person.user not in self.barred]
        holders = [person for person in free if role in person.roles]
        deputies = [
            person for person in free if role not in person.roles and self.acting_for(person.user, role)
        ]
        return [*holders, *deputies]

    def givers(self, user: str, role: str) -> list[str]:
        """Who ever delegated a role to a person, the newest first."""
        found = [entry.giver for entry in self.delegations if entry.to == user and role in entry.roles]
        return list(dict.fromkeys(reversed(found)))

    def acting_for(self, user: str, role: str) -> list[str]:
        """Whom a person may act for in a role now."""
        return [
            giver
            for giver in self.givers(user, role)
            if not self.deputy_problem(user, giver, role, self.now_us)
        ]

    def acts_for(self, user: str, role: str) -> str:
        """Whom a person answers for in a role; empty for who holds it, and for who may not."""
        person = self.people.find(user)
        if person is not None and role in person.roles:
            return ""
        return next(iter(self.acting_for(user, role)), "")

    def deputy_problem(self, user: str, giver: str, role: str, at_us: int) -> str:
        """Why ``user`` could not act for ``giver`` at a moment, in a sentence; empty when they could."""
        if giver in self.barred:
            return f"{giver} {self.barred[giver]}, so nobody may answer for {giver} either"
        holder = self.people.find(giver)
        if holder is None or not holder.active or role not in holder.roles:
            return f"{giver} does not hold the role {role}, so nobody can hold it for {giver}"
        given = [
            entry
            for entry in self.delegations
            if (entry.giver, entry.to) == (giver, user) and role in entry.roles and entry.covers(at_us)
        ]
        if not given:
            return f"{giver} has not delegated the role {role} to {user} for this time"
        return self._delegation_problem(giver, user, role, given)

    def _delegation_problem(self, giver: str, user: str, role: str, given: Sequence[Delegation]) -> str:
        standing = [entry for entry in given if entry.ended_us is None]
        if not standing:
            return f"{giver} took the delegation of {role} to {user} back"
        if self.delegate_days is None:
            return "its policy takes no delegation"
        if all(entry.days > self.delegate_days for entry in standing):
            return (
                f"the delegation of {giver} lasts {min(entry.days for entry in standing):g} days, "
                f"the policy takes at most {self.delegate_days:g}"
            )
        return ""


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


def objection(answer: Answer, *, decision: Decision, panel: Panel, earlier: Sequence[Answer]) -> str:
    """Why this answer must not count, in a sentence; empty when it does (requirements A-2, A-7)."""
    if decision.outcome is not Outcome.PENDING:
        return f"the release is not waiting for approval: its decision is {decision.outcome}"
    if not 0 <= answer.seat < len(decision.seats):
        return f"seat {answer.seat + 1} does not exist"
    bound = (answer.manifest_digest, answer.evidence_digest, answer.policy_digest)
    if bound != (decision.manifest_digest, decision.evidence_digest, decision.policy_digest):
        return "the answer was given for another manifest, evidence or policy and is void"
    role = decision.seats[answer.seat].role
    problem = person_objection(answer.user, role, panel, acts_for=answer.acts_for, at_us=answer.given_us)
    if not problem and answer.role != role:
        problem = f"the answer is for role {answer.role}, the seat asks for {role}"
    return problem or _seat_objection(answer, earlier)


def person_objection(user: str, role: str, panel: Panel, *, acts_for: str = "", at_us: int = 0) -> str:
    """Why a person may not answer for a role, in a sentence; empty when they may (requirement A-2).

    Args:
        user: who answers.
        role: the role that is asked.
        panel: who may answer now.
        acts_for: who delegated the role to them; empty where they answer for themselves.
        at_us: when they answered, which the delegation has to cover.
    """
    if user in panel.barred:
        return f"{user} {panel.barred[user]} and cannot approve or reject it"
    person = panel.people.find(user)
    if person is None:
        return f"{user} holds no governance role; ask for an entry in people.yaml"
    if not person.active:
        return f"{user} is not active any more in people.yaml"
    if acts_for:
        return panel.deputy_problem(user, acts_for, role, at_us)
    if role not in person.roles:
        return f"{user} does not hold the role {role}; roles held: {', '.join(person.roles) or 'none'}"
    return ""


def _seat_objection(answer: Answer, earlier: Sequence[Answer]) -> str:
    for other in earlier:
        if other.seat != answer.seat and (twice := other.persons & answer.persons):
            return f"{min(twice)} already fills seat {other.seat + 1}; one person fills one seat"
        if other.seat == answer.seat and other.user != answer.user:
            return f"seat {answer.seat + 1} is already filled by {other.user}"
    return ""


def withdrawn(answer: Answer, panel: Panel) -> str:
    """Why an approval that counted counts no more, in a sentence; empty while it does (requirement A-7)."""
    if (answer.seat, answer.user) in panel.revoked:
        return f"the approval of {answer.user} was revoked"
    missed = answer.condition_until_us and panel.now_us >= answer.condition_until_us
    if missed and (answer.seat, answer.user) not in panel.met:
        return f"the condition of {answer.user}'s approval was not met in time"
    return ""


def tally(answers: Sequence[Answer], *, decision: Decision, panel: Panel) -> Quorum:
    """Count audited answers in the order they were recorded.

    ``filled`` names who answered, also where they act for somebody.

    Law: no answers never grant anything; a decision with no seats is granted only if it is ``ALLOW``.
    """
    counted: list[Answer] = []
    problems: list[str] = []
    for answer in answers:
        if answer.release_id != decision.release_id:
            problems.append(f"answer of {answer.user} belongs to release {answer.release_id}")
            continue
        problem = objection(answer, decision=decision, panel=panel, earlier=counted) or withdrawn(
            answer, panel
        )
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
