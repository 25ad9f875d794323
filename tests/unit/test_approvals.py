"""Approvals: whose answer counts, and that silence, strangers and old answers grant nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.approvals import Answer, Panel, Quorum, QuorumState, objection, tally
from airlock.core.decision import AskedSeat, Decision, Outcome
from airlock.core.people import People, Person
from airlock.core.policy import Tier, Track
from tests.support.engines import TODAY

PEOPLE = People(
    people=[
        Person(user="ann", name="Ann", roles=["analyst"]),
        Person(user="bob", name="Bob", roles=["risk"]),
        Person(user="eve", name="Eve", roles=["analyst", "risk"]),
        Person(user="sam", name="Sam", roles=["analyst", "risk"]),
        Person(user="viv", name="Viv", roles=[]),
    ]
)
SUBMITTER = "sam"


def make_decision(*roles: str, outcome: Outcome = Outcome.PENDING, **changes: Any) -> Decision:
    values: dict[str, Any] = {
        "release_id": "r1",
        "outcome": outcome,
        "track": Track.RED,
        "tier": Tier.HIGH,
        "reasons": [],
        "as_of": TODAY,
        "seats": [AskedSeat(role=role, reason="a test") for role in roles],
        "manifest_digest": "m",
        "evidence": {"bias": "e"},
        "policy_version": "1.0.0",
        "policy_digest": "p",
    }
    return Decision(**{**values, **changes})


DECISION = make_decision("analyst", "risk")


def answer(user: str, seat: int, choice: str = "approve", **changes: Any) -> Answer:
    values: dict[str, Any] = {
        "release_id": "r1",
        "seat": seat,
        "user": user,
        "role": DECISION.seats[seat].role if 0 <= seat < 2 else "analyst",
        "choice": choice,
        "comment": f"{user} says {choice}",
        "manifest_digest": DECISION.manifest_digest,
        "evidence_digest": DECISION.evidence_digest,
        "policy_digest": DECISION.policy_digest,
    }
    return Answer(**{**values, **changes})


def count(*answers: Answer, decision: Decision = DECISION, submitter: str = SUBMITTER) -> Quorum:
    return tally(answers, decision=decision, panel=panel(submitter))


def panel(submitter: str = SUBMITTER, **changes: Any) -> Panel:
    return Panel(**{"people": PEOPLE, "barred": {submitter: "submitted this release"}, **changes})


@pytest.mark.requirement("A-1")
def test_all_seats_filled_by_people_with_the_roles_grant() -> None:
    quorum = count(answer("ann", 0), answer("bob", 1))
    assert quorum.state is QuorumState.GRANTED
    assert quorum.filled == {0: "ann", 1: "bob"}
    assert (quorum.open_seats, quorum.problems) == ([], [])


def test_one_of_two_seats_leaves_it_open() -> None:
    quorum = count(answer("bob", 1))
    assert quorum.state is QuorumState.OPEN
    assert quorum.open_seats == [0]


@pytest.mark.requirement("A-5")
def test_one_rejection_rejects_and_keeps_its_words() -> None:
    for answers in ([answer("bob", 1, "reject")], [answer("ann", 0), answer("bob", 1, "reject")]):
        quorum = count(*answers)
        assert quorum.state is QuorumState.REJECTED
        assert (quorum.rejected_by, quorum.comment) == ("bob", "bob says reject")


def test_a_rejection_is_final_also_for_who_gave_it() -> None:
    assert count(answer("bob", 1, "reject"), answer("ann", 0), answer("bob", 1)).state is QuorumState.REJECTED
    assert count(answer("ann", 0), answer("bob", 1), answer("bob", 1, "reject")).state is QuorumState.REJECTED


@pytest.mark.requirement("A-6")
def test_no_answers_never_grant_anything() -> None:
    assert count().state is QuorumState.OPEN
    assert count(decision=make_decision(outcome=Outcome.DENY)).state is QuorumState.REJECTED


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_decision_with_no_seats_is_granted_only_if_it_allows(outcome: Outcome) -> None:
    quorum = count(decision=make_decision(outcome=outcome))
    assert (quorum.state is QuorumState.GRANTED) is (outcome is Outcome.ALLOW)


@pytest.mark.parametrize("outcome", [Outcome.ALLOW, Outcome.DENY])
def test_nobody_answers_a_release_that_does_not_wait(outcome: Outcome) -> None:
    decision = make_decision("analyst", outcome=outcome)
    quorum = count(answer("ann", 0), decision=decision)
    assert quorum.filled == {}
    assert "not waiting for approval" in quorum.problems[0]
    assert (quorum.state is QuorumState.GRANTED) is (outcome is Outcome.ALLOW)


# Whose answer does not count

BAD: dict[str, tuple[Answer, str]] = {
    "submitter": (answer("sam", 0), "submitted this release"),
    "stranger": (answer("mallory", 0), "holds no governance role"),
    "other role": (answer("ann", 1), "does not hold the role risk"),
    "no role": (answer("viv", 0), "roles held: none"),
    "role swapped": (answer("ann", 0, role="risk"), "the answer is for role risk"),
    "other case": (answer("Ann", 0), "holds no governance role"),
    "space": (answer("ann ", 0), "holds no governance role"),
    "no such seat": (answer("ann", 2), "seat 3 does not exist"),
    "negative seat": (answer("ann", -1), "seat 0 does not exist"),
    "old manifest": (answer("ann", 0, manifest_digest="old"), "is void"),
    "old evidence": (answer("ann", 0, evidence_digest="old"), "is void"),
    "old policy": (answer("ann", 0, policy_digest="old"), "is void"),
    "other release": (answer("ann", 0, release_id="r2"), "belongs to release r2"),
}


@pytest.mark.requirement("A-2", "A-7")
@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("choice", ["approve", "reject"])
def test_an_answer_that_does_not_count_says_why_and_changes_nothing(
    bad: Answer, why: str, choice: str
) -> None:
    bad = bad.model_copy(update={"choice": choice})
    quorum = count(bad)
    assert why in quorum.problems[0]
    assert quorum.model_copy(update={"problems": []}) == count()
    around = count(bad, answer("ann", 0), bad, answer("bob", 1), bad)
    assert around.state is QuorumState.GRANTED
    assert len(around.problems) == 3


@pytest.mark.requirement("A-2")
def test_one_person_fills_one_seat() -> None:
    quorum = count(answer("eve", 0), answer("eve", 1))
    assert (quorum.state, quorum.filled) == (QuorumState.OPEN, {0: "eve"})
    assert "one person fills one seat" in quorum.problems[0]
    assert count(answer("eve", 0), answer("eve", 1), answer("bob", 1)).state is QuorumState.GRANTED


def test_a_seat_is_filled_once_and_the_first_counts() -> None:
    quorum = count(answer("ann", 0), answer("eve", 0), answer("eve", 0, "reject"))
    assert (quorum.state, quorum.filled) == (QuorumState.OPEN, {0: "ann"})
    assert quorum.problems == ["seat 1 is already filled by ann"] * 2


def test_the_same_answer_twice_counts_once() -> None:
    quorum = count(answer("ann", 0), answer("ann", 0))
    assert (quorum.filled, quorum.problems) == ({0: "ann"}, [])


def test_a_person_with_two_roles_may_choose_the_seat() -> None:
    for seat in (0, 1):
        assert objection(answer("eve", seat), decision=DECISION, panel=panel("sam"), earlier=[]) == ""


def test_two_seats_of_one_role_need_two_people() -> None:
    decision = make_decision("analyst", "analyst")
    twice = [answer("ann", 0, role="analyst"), answer("ann", 1, role="analyst")]
    assert count(*twice, decision=decision).state is QuorumState.OPEN
    both = [answer("ann", 0, role="analyst"), answer("eve", 1, role="analyst")]
    assert count(*both, decision=decision).state is QuorumState.GRANTED


def test_a_seat_that_carries_any_role_it_is_asked_for_by_index() -> None:
    assert "does not hold" in count(answer("bob", 0)).problems[0]


# Laws

ANSWERS = st.builds(
    answer,
    st.sampled_from(["ann", "bob", "eve", "sam", "viv", "mallory"]),
    st.integers(-1, 2),
    st.sampled_from(["approve", "approve", "reject"]),
    manifest_digest=st.sampled_from(["m", "m", "m", "old"]),
    release_id=st.sampled_from(["r1", "r1", "r1", "r2"]),
)


@given(st.lists(ANSWERS, max_size=8))
def test_what_is_granted_has_two_different_people_with_the_roles_and_no_rejection(
    answers: list[Answer],
) -> None:
    quorum = count(*answers)
    roles = {person.user: person.roles for person in PEOPLE.people}
    for seat, user in quorum.filled.items():
        assert DECISION.seats[seat].role in roles[user]
        assert user != SUBMITTER
    assert len(set(quorum.filled.values())) == len(quorum.filled)
    assert sorted([*quorum.filled, *quorum.open_seats]) == [0, 1]
    if quorum.state is QuorumState.GRANTED:
        assert set(quorum.filled) == {0, 1}
        assert not quorum.rejected_by
    assert (quorum.state is QuorumState.REJECTED) is bool(quorum.rejected_by)
    assert Quorum.from_bytes(quorum.to_bytes()) == quorum


@given(st.lists(ANSWERS, max_size=6), st.lists(ANSWERS, max_size=6))
def test_later_answers_take_no_seat_away_and_undo_no_rejection(
    first: list[Answer], later: list[Answer]
) -> None:
    before, after = count(*first), count(*first, *later)
    assert before.filled.items() <= after.filled.items()
    if before.state is QuorumState.REJECTED:
        assert after.state is QuorumState.REJECTED
        assert after.rejected_by == before.rejected_by


@given(st.lists(ANSWERS, max_size=8), st.sampled_from(["manifest_digest", "policy_digest", "evidence"]))
def test_any_change_of_what_was_shown_voids_every_answer(answers: list[Answer], what: str) -> None:
    changed: Any = {"bias": "other"} if what == "evidence" else "other"
    quorum = count(*answers, decision=make_decision("analyst", "risk", **{what: changed}))
    assert (quorum.state, quorum.filled) == (QuorumState.OPEN, {})


@given(st.lists(ANSWERS, max_size=8), st.sampled_from(["ann", "bob", "eve"]))
def test_the_submitter_never_counts_whoever_it_is(answers: list[Answer], submitter: str) -> None:
    quorum = count(*answers, submitter=submitter)
    assert submitter not in quorum.filled.values()
    assert quorum.rejected_by != submitter
