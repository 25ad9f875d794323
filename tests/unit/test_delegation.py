"""Delegation: who acts for whom, for how long, and that it opens no way around any other rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airlock.core.approvals import Answer, Panel, QuorumState, objection, tally
from airlock.core.audit import Kind
from airlock.core.dates import DAY_US
from airlock.core.delegation import Delegation
from airlock.core.errors import NotFoundError, RefusedError
from airlock.core.people import People, Person
from airlock.core.release import State
from airlock.core.waiver import WaiverRequest
from airlock.services import delegations, publish, waivers
from airlock.services.approve import OPEN, own_objection, seat_request, standing
from airlock.services.panel import list_delegations
from airlock.services.promote import promote
from airlock.services.releases import find_release, state_of
from airlock.services.rollback import may_roll_back, rollback
from airlock.web.lists import waiver_data
from airlock.web.schema import WaiverRow
from tests.support.deployments import (
    START_US,
    WORKLOAD,
    World,
    edit,
    fast_folder,
    make_world,
    policy_data,
    write_yaml,
)
from tests.unit.test_approvals import DECISION, answer
from tests.unit.test_publish import ask as ask_policy
from tests.unit.test_publish import say
from tests.unit.test_waiver_service import ask as ask_waiver
from tests.unit.test_waiver_service import grant

pytestmark = pytest.mark.requirement("A-6")

NOW = 10 * DAY_US
PEOPLE = People(
    people=[
        Person(user="ann", name="Ann", roles=["analyst"]),
        Person(user="bob", name="Bob", roles=["risk"]),
        Person(user="eve", name="Eve", roles=["analyst", "risk"]),
        Person(user="sam", name="Sam", roles=["analyst"]),
        Person(user="viv", name="Viv"),
        Person(user="old", name="Old", roles=["risk"], active=False),
    ]
)


def delegation(giver: str = "bob", to: str = "viv", **changes: Any) -> Delegation:
    values: dict[str, Any] = {
        "delegation_id": f"{giver}-{to}",
        "giver": giver,
        "to": to,
        "roles": ["risk"],
        "from_us": NOW - DAY_US,
        "until_us": NOW + DAY_US,
        "reason": "away",
    }
    return Delegation(**{**values, **changes})


def panel(*given: Delegation, **changes: Any) -> Panel:
    values: dict[str, Any] = {
        "people": PEOPLE,
        "barred": {"sam": "submitted this release"},
        "now_us": NOW,
        "delegations": given,
        "delegate_days": 31,
    }
    return Panel(**{**values, **changes})


def deputy(user: str = "viv", giver: str = "bob", **changes: Any) -> Answer:
    return answer(user, 1, acts_for=giver, given_us=NOW, **changes)


def problem(one: Answer, *given: Delegation, **changes: Any) -> str:
    earlier = changes.pop("earlier", ())
    return objection(one, decision=DECISION, panel=panel(*given, **changes), earlier=earlier)


def test_who_acts_for_a_holder_fills_the_holders_seat() -> None:
    assert problem(deputy(), delegation()) == ""
    quorum = tally([answer("ann", 0), deputy()], decision=DECISION, panel=panel(delegation()))
    assert (quorum.state, quorum.filled) == (QuorumState.GRANTED, {0: "ann", 1: "viv"})
    assert deputy().who == "viv for bob"


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize(
    ("one", "given", "changes", "why"),
    [
        (deputy(), [], {}, "bob has not delegated the role risk to viv"),
        (deputy(), [delegation(roles=["analyst"])], {}, "bob has not delegated the role risk"),
        (deputy(), [delegation(to="ann")], {}, "has not delegated"),
        (deputy(), [delegation(from_us=NOW + 1)], {}, "for this time"),
        (deputy(), [delegation(until_us=NOW)], {}, "for this time"),
        (deputy(), [delegation(ended_us=NOW - 1)], {}, "bob took the delegation of risk to viv back"),
        (deputy(), [delegation(ended_us=NOW + 1)], {}, "bob took the delegation of risk to viv back"),
        (deputy(), [delegation()], {"delegate_days": None}, "takes no delegation"),
        (deputy(), [delegation()], {"delegate_days": 1}, "lasts 2 days, the policy takes at most 1"),
        (deputy(giver="ann"), [delegation(giver="ann")], {}, "ann does not hold the role risk"),
        (deputy(giver="gone"), [delegation(giver="gone")], {}, "gone does not hold the role risk"),
        (deputy(giver="old"), [delegation(giver="old")], {}, "old does not hold the role risk"),
        (deputy(user="sam"), [delegation(to="sam")], {}, "sam submitted this release"),
        (deputy(user="old"), [delegation(to="old")], {}, "not active"),
        (deputy(user="nobody"), [delegation(to="nobody")], {}, "holds no governance role"),
        (
            deputy(),
            [delegation()],
            {"barred": {"bob": "trained this model"}},
            "bob trained this model, so nobody may answer for bob either",
        ),
    ],
)
def test_a_delegation_that_must_not_count_says_why(
    one: Answer, given: list[Delegation], changes: dict[str, Any], why: str
) -> None:
    assert why in problem(one, *given, **changes)


def test_a_delegation_is_never_passed_on() -> None:
    chain = [delegation("bob", "viv"), delegation("viv", "ann")]
    assert "viv does not hold the role risk" in problem(deputy("ann", "viv"), *chain)
    assert "bob has not delegated" in problem(deputy("ann", "bob"), *chain)


@pytest.mark.requirement("A-2")
def test_a_person_and_who_acts_for_them_fill_one_seat() -> None:
    given = delegation("eve", "viv")
    assert "eve already fills seat 1" in problem(deputy(giver="eve"), given, earlier=[answer("eve", 0)])
    assert "viv already fills seat 1" in problem(
        deputy(), delegation(), earlier=[answer("viv", 0, acts_for="ann")]
    )


def test_a_delegation_that_is_over_by_now_counted_when_it_was_used() -> None:
    later = panel(delegation(), now_us=NOW + 5 * DAY_US)
    assert objection(deputy(), decision=DECISION, panel=later, earlier=()) == ""
    assert later.acting_for("viv", "risk") == []


def test_who_is_asked_are_the_holders_and_then_who_acts_for_them() -> None:
    asked = panel(delegation(), delegation("bob", "sam"), delegation("old", "ann"))
    assert [person.user for person in asked.eligible("risk")] == ["bob", "eve", "viv"]


DELEGATIONS = st.builds(
    delegation,
    st.sampled_from(["ann", "bob", "eve", "sam", "viv", "old"]),
    st.sampled_from(["ann", "bob", "eve", "sam", "viv", "old"]),
    roles=st.sampled_from([["risk"], ["analyst"], ["risk", "analyst"]]),
    ended_us=st.sampled_from([None, None, NOW]),
)
ANSWERS = st.builds(
    answer,
    st.sampled_from(["ann", "bob", "eve", "sam", "viv", "old"]),
    st.integers(0, 1),
    acts_for=st.sampled_from(["", "", "bob", "eve", "sam", "old"]),
    given_us=st.just(NOW),
)


@pytest.mark.requirement("A-2")
@example(
    [
        answer("ann", 0, acts_for="sam", given_us=NOW),
        answer("bob", 1, given_us=NOW),
        answer("ann", 0, given_us=NOW),
    ],
    [],
)
@given(st.lists(ANSWERS, max_size=7), st.lists(DELEGATIONS, max_size=5))
def test_whatever_is_delegated_a_grant_needs_two_people_who_are_free_and_two_holders(
    answers: list[Answer], given: list[Delegation]
) -> None:
    known = panel(*given)
    quorum = tally(answers, decision=DECISION, panel=known)
    if quorum.state is not QuorumState.GRANTED:
        return
    # The same person may have tried before in another's place; what counts is what nothing speaks against.
    counted: list[Answer] = []
    for one in answers:
        if not objection(one, decision=DECISION, panel=known, earlier=counted):
            counted.append(one)
    behind = {one.seat: one.acts_for or one.user for one in reversed(counted)}
    roles = {person.user: person.roles for person in PEOPLE.people if person.active}
    assert len(set(quorum.filled.values())) == len(set(behind.values())) == 2
    assert not {"sam", "old"} & {*quorum.filled.values(), *behind.values()}
    for seat, role in enumerate(("analyst", "risk")):
        assert any(role in roles[one.acts_for or one.user] for one in counted if one.seat == seat)


# On record


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        edit(world.policy_file, "expires_hours: 72", "expires_hours: 72\n  delegate_days: 31")
        yield world


def give(world: World, giver: str = "ravi", to: str = "petra", **changes: Any) -> Delegation:
    values: dict[str, Any] = {
        "delegation_id": "delegation-1",
        "roles": ["risk-officer"],
        "start": "2026-01-01",
        "until": "2026-01-14",
        "reason": "On holiday until the middle of the month.",
        "when": "run-1",
    }
    return delegations.give(world.deployment, giver=giver, to=to, **{**values, **changes})


def test_a_delegation_is_recorded_and_its_reason_can_be_erased(world: World) -> None:
    given = give(world)
    assert (given.giver, given.to, given.state(START_US)) == ("ravi", "petra", "in force")
    assert give(world) == given  # the same run again
    (event,) = world.events(Kind.DELEGATION_GIVEN)
    assert (event.actor, event.data["reason"]) == ("ravi", "On holiday until the middle of the month.")
    assert b"On holiday" not in b"".join(
        world.deployment.log.database.read(
            lambda connection: [
                row[0].encode() for row in connection.exec_driver_sql("SELECT data FROM event")
            ]
        )
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"giver": "petra"}, "petra does not hold the role risk-officer"),
        ({"roles": ["risk-officer", "data-governance"]}, "does not hold the role data-governance"),
        ({"roles": []}, "at least one role"),
        ({"to": "mallory"}, "knows nobody active named mallory"),
        ({"to": "ravi"}, "cannot delegate to themselves"),
        ({"until": "2025-12-31"}, "over before it begins"),
        ({"until": "2026-02-14"}, "lasts at most 31 days"),
        ({"until": "soon"}, "'soon' is no date"),
        ({"start": "2026-01-20"}, "over before it begins"),
        ({"reason": "away"}, "the reason needs at least 10 characters"),
        ({"giver": ""}, "nobody is known as the giver"),
    ],
)
def test_what_cannot_be_delegated_is_refused_on_record(
    world: World, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(RefusedError, match=why):
        give(world, **changes)
    assert list_delegations(world.deployment) == []
    (refusal,) = world.events(Kind.REQUEST_REFUSED)
    assert why in refusal.data["problem"]


def test_what_somebody_received_they_cannot_delegate(world: World) -> None:
    give(world)
    with pytest.raises(RefusedError, match="petra does not hold the role risk-officer"):
        give(world, "petra", "vera", delegation_id="delegation-2")


@pytest.mark.requirement("A-2")
def test_petra_answers_for_ravi_and_the_release_is_promoted(world: World) -> None:
    release_id = world.judged("2", track="red")
    assert own_objection(world.deployment, world.release(release_id), world.decision(release_id), 1, "petra")[
        0
    ]
    give(world)
    assert "petra" in [person.user for person in seat_request(world.deployment, release_id, 1).eligible]
    world.answer(release_id, "grace", 0)
    given = world.answer(release_id, "petra", 1)
    assert (given.user, given.acts_for) == ("petra", "ravi")
    assert standing(world.deployment, release_id).sentence == "approved by grace, petra for ravi"
    promote(world.deployment, release_id)
    assert world.champion == "2"


def test_taken_back_before_promotion_it_counts_no_more(world: World) -> None:
    release_id = world.judged("2", track="red")
    give(world)
    world.answer(release_id, "grace", 0)
    world.answer(release_id, "petra", 1)
    delegations.end(world.deployment, "delegation-1", user="ravi", reason="I am back already.", when="run-2")
    with pytest.raises(RefusedError, match="no approval by risk-officer; ravi took the delegation"):
        promote(world.deployment, release_id)
    assert world.champion == "1"


def test_over_before_promotion_it_counts_and_for_nothing_new(world: World) -> None:
    edit(world.policy_file, "expires_hours: 72", "expires_hours: 1000")
    release_id = world.judged("2", track="red")
    give(world, until="2026-01-02")
    world.answer(release_id, "petra", 1)
    world.clock.advance(hours=72)
    world.answer(release_id, "grace", 0)
    assert state_of(world.deployment, find_release(world.deployment, release_id)) is State.READY
    other = world.judged("3", track="red", run="run-3")
    with pytest.raises(RefusedError, match="ravi has not delegated the role risk-officer to petra for this"):
        world.answer(other, "petra", 1)


@pytest.mark.requirement("A-2")
def test_a_submitter_neither_receives_nor_hands_on_an_approval_of_their_own(world: World) -> None:
    give(world, to="dana")
    release_id = world.judged("2", track="red")
    with pytest.raises(RefusedError, match="dana submitted this release"):
        world.answer(release_id, "dana", 1)
    give(world, to="petra", delegation_id="delegation-2")
    own = world.judged("3", track="red", run="run-3", user="ravi")
    with pytest.raises(RefusedError, match="ravi submitted this release, so nobody may answer for ravi"):
        world.answer(own, "petra", 1)


def test_only_who_gave_or_received_it_takes_it_back(world: World) -> None:
    give(world)
    with pytest.raises(RefusedError, match="neither given nor received"):
        delegations.end(world.deployment, "delegation-1", user="grace", reason="I do not like it.", when="r")
    with pytest.raises(RefusedError, match="at least 10 characters"):
        delegations.end(world.deployment, "delegation-1", user="ravi", reason="", when="r")
    with pytest.raises(NotFoundError):
        delegations.end(world.deployment, "delegation-9", user="ravi", reason="I am back already.", when="r")
    ended = delegations.end(
        world.deployment, "delegation-1", user="petra", reason="I am too busy for it.", when="r"
    )
    assert ended.state(START_US) == "taken back"


def test_a_role_that_was_taken_from_the_giver_is_taken_from_who_acts_for_them(world: World) -> None:
    release_id = world.judged("2", track="red")
    give(world)
    world.answer(release_id, "grace", 0)
    world.answer(release_id, "petra", 1)
    world.set_roles("ravi", [])
    with pytest.raises(RefusedError, match="ravi does not hold the role risk-officer"):
        promote(world.deployment, release_id)


def test_without_a_word_of_the_policy_nothing_is_delegated(world: World) -> None:
    edit(world.policy_file, "\n  delegate_days: 31", "")
    with pytest.raises(RefusedError, match="no policy here takes delegations"):
        give(world)


# Other seats than those of releases


def waiver_of(world: World, user: str = "dana") -> WaiverRequest:
    write_yaml(
        world.policy_file,
        policy_data(
            ("documentation", "performance", "privacy"),
            approval={**policy_data()["approval"], "delegate_days": 31},
        ),
    )
    give(world, "gita", roles=["data-governance"])
    return ask_waiver(world, user=user)


@pytest.mark.requirement("A-8")
def test_petra_grants_a_waiver_for_gita_and_it_never_serves_gita_herself(world: World) -> None:
    request = waiver_of(world)
    asked = waivers.question(world.deployment, request.waiver_id, 0)
    assert [person.user for person in asked.eligible] == ["gita", "petra"]
    granted = grant(world, request, "petra")
    assert granted.answer is not None
    assert (granted.answer.actor, granted.answer.data["acts_for"]) == ("petra", "gita")
    assert waivers.standing(world.deployment, request.waiver_id).sentence.startswith(
        "granted by petra for gita"
    )
    shown = WaiverRow.model_validate(waiver_data(granted, world.clock.now_us()))
    assert shown.granted_by == "petra for gita"
    waiver = granted.granted
    assert waiver is not None
    served = {
        user: waiver.is_for(workload=WORKLOAD, version="2", submitter=user)
        for user in ("dana", "petra", "gita")
    }
    assert served == {"dana": True, "petra": False, "gita": False}


@pytest.mark.requirement("A-2", "A-8")
def test_nobody_grants_a_waiver_for_who_asked_for_it(world: World) -> None:
    request = waiver_of(world, user="gita")
    with pytest.raises(RefusedError, match="petra does not hold the role data-governance"):
        grant(world, request, "petra")


@pytest.mark.requirement("A-2", "P-3")
def test_a_deputy_and_the_giver_fill_one_seat_of_a_new_policy_together(world: World) -> None:
    world.judged("2", track="green")
    data = policy_data(version="1.1.0", approval={**policy_data()["approval"], "delegate_days": 31})
    data["limits"]["red_change"]["value"] = 0.1
    write_yaml(world.config / "policies" / "1.1.0" / "policy.yaml", data)
    give(world, "omar", "vera", roles=["governance-analyst", "risk-officer"])
    request = ask_policy(world)
    assert request.seats == ["risk-officer"]
    seats = {user: publish.seats_for(world.deployment, request, user) for user in ("vera", "grace", "petra")}
    assert seats == {"vera": [0], "grace": [], "petra": []}
    say(world, request, "vera")
    assert publish.standing(world.deployment, request.request_id).sentence == "approved by vera for omar"
    delegations.end(world.deployment, "delegation-1", user="omar", reason="I am back already.", when="run-2")
    assert publish.standing(world.deployment, request.request_id).state == OPEN
    say(world, request, "ravi")
    event = publish.publish(world.deployment, request.request_id)
    assert event.data["approved_by"] == {"risk-officer": "ravi"}


@pytest.mark.requirement("A-2", "P-3")
def test_a_new_policy_does_not_let_its_own_deputies_in(world: World) -> None:
    edit(world.policy_file, "delegate_days: 31", "delegate_days: 2")
    world.judged("2", track="green")
    data = policy_data(version="1.1.0", approval={**policy_data()["approval"], "delegate_days": 31})
    write_yaml(world.config / "policies" / "1.1.0" / "policy.yaml", data)
    edit(world.workload_file, "policy: 1.0.0", "policy: 1.1.0")
    give(world)
    request = ask_policy(world, user="dana")
    assert request.seats == ["governance-analyst", "risk-officer"]
    with pytest.raises(RefusedError, match="petra does not hold the role risk-officer"):
        say(world, request, "petra", 1)


@pytest.mark.requirement("R-3")
def test_a_deputy_rolls_back_and_the_record_says_for_whom(world: World) -> None:
    world.judged("2", track="green")
    promote(world.deployment, world.judged("3", track="green", run="run-3"))
    assert "vera may not roll back" in may_roll_back(world.deployment, WORKLOAD, "vera")
    give(world, to="vera")
    assert may_roll_back(world.deployment, WORKLOAD, "vera") == ""
    rollback(world.deployment, WORKLOAD, actor="vera", reason="It declines everybody.")
    (started,) = world.events(Kind.ROLLBACK_STARTED)
    assert started.who == "vera for ravi"
