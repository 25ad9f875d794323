"""Publishing: what counts, who has to agree, and that nothing published ever changes."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from airlock.core.audit import Kind
from airlock.core.errors import RefusedError
from airlock.core.policy import Policy, Track
from airlock.services import publish, questions
from airlock.services.approve import EXPIRED, GRANTED, OPEN, REJECTED
from airlock.services.promote import promote
from airlock.services.publish import PolicyRequest
from airlock.services.requests import request_id_for
from airlock.services.submit import freeze
from tests.support.deployments import (
    Killed,
    World,
    edit,
    fast_folder,
    limit_data,
    make_world,
    policy_data,
    shipped_gates,
    workload_data,
    write_yaml,
)

OWNERS = {"governance-analyst": "grace", "risk-officer": "ravi"}


@pytest.fixture(scope="module")
def pristine() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "0")
        world.judged(track="green")
        yield world


@pytest.fixture
def world(pristine: World) -> Iterator[World]:
    with fast_folder() as folder:
        yield pristine.copy(folder / "1")


def write(world: World, version: str, **limits: float) -> None:
    data = policy_data(version=version)
    for name, value in limits.items():
        data["limits"][name]["value"] = value
    write_yaml(world.config / "policies" / version / "policy.yaml", data)


def ask(world: World, version: str = "1.1.0", *, run: str = "p1", user: str = "petra") -> PolicyRequest:
    name = world.deployment.settings.deployment
    return publish.request_publication(
        world.deployment,
        request_id=request_id_for("policy", name, "airlock__policy", run),
        policy=world.deployment.config.policy(version),
        requester=user,
        dag_id="airlock__policy",
        run_id=run,
    )


def say(world: World, request: PolicyRequest, user: str, seat: int = 0, choice: str = "approve") -> None:
    world.asked += 1
    publish.answer(
        world.deployment,
        request.request_id,
        seat,
        user=user,
        choice=choice,
        comment="Looked at the numbers.",
        when=str(world.asked),
    )


def both(world: World) -> PolicyRequest:
    """A request that changes a limit of the risk officer and a gate of the governance analyst."""
    data = policy_data(version="1.1.0")
    data["limits"]["red_change"]["value"] = 0.1
    data["gates"]["documentation"] = {**data["gates"]["documentation"], "minimum_words": 200}
    write_yaml(world.config / "policies" / "1.1.0" / "policy.yaml", data)
    return ask(world)


def standing(world: World, request: PolicyRequest) -> str:
    return publish.standing(world.deployment, request.request_id).state


@pytest.mark.requirement("P-3")
def test_what_nobody_owns_asks_the_heaviest_track_of_the_old_policy() -> None:
    was = Policy.model_validate(policy_data())

    def asked(**changed: Any) -> list[str]:
        new = was.model_copy(update={"version": "1.1.0", **changed})
        return publish.roles_asked(publish.changes(was, new), was)

    common = ["governance-analyst", "risk-officer"]
    assert (
        asked()
        == asked(description="Another.")
        == asked(waivers=None)
        == asked(rego={"a.rego": ""})
        == common
    )
    seats = {**was.approval.seats, Track.RED: was.approval.seats[Track.RED][:1]}
    assert asked(approval=was.approval.model_copy(update={"seats": seats})) == common, "who loses it is asked"
    limit = was.limits["red_change"].model_copy(update={"value": 0.1, "owner": "data-governance"})
    assert asked(limits={**was.limits, "red_change": limit}) == [was.limits["red_change"].owner]


# What counts


COMMON = ["governance-analyst", "risk-officer"]
WITH_ENGINEER = ["governance-analyst", "ml-platform-engineer", "risk-officer"]


def _new_limit(data: dict[str, Any]) -> None:
    data["limits"]["mine"] = limit_data(0.5) | {"owner": "ml-platform-engineer"}


def _new_rule(data: dict[str, Any]) -> None:
    rule = next(rule for rule in data["rules"] if rule["id"] == "track-first")
    data["rules"].append({**rule, "id": "mine", "owner": "ml-platform-engineer"})


def _new_gate(data: dict[str, Any]) -> None:
    data["gates"]["cost"] = shipped_gates()["cost"]
    data["roles"]["ml-platform-engineer"]["gates"] = ["cost"]


def _new_role(data: dict[str, Any]) -> None:
    data["roles"]["friends"] = {"title": "Friends", "answers_for": "each other"}
    data["limits"]["mine"] = limit_data(0.5) | {"owner": "friends"}


def _take_over_limit(data: dict[str, Any]) -> None:
    data["limits"]["red_change"] |= {"owner": "ml-platform-engineer", "value": 0.9}


def _take_over_by_a_new_name(data: dict[str, Any]) -> None:
    data["limits"]["other"] = {**data["limits"].pop("red_change"), "owner": "ml-platform-engineer"}
    for rule in data["rules"]:
        rule["when"] = rule["when"].replace("limits.red_change", "limits.other")
        rule["owner"] = "ml-platform-engineer"


@pytest.mark.requirement("P-3")
@pytest.mark.parametrize(
    ("change", "roles"),
    [
        (_new_limit, WITH_ENGINEER),
        (_new_rule, WITH_ENGINEER),
        (_new_gate, WITH_ENGINEER),
        (_new_role, ["friends", *COMMON]),
        (_take_over_limit, ["risk-officer"]),
        (_take_over_by_a_new_name, WITH_ENGINEER),
    ],
)
def test_an_author_who_picks_the_owner_of_something_new_is_not_enough(change: Any, roles: list[str]) -> None:
    was = Policy.model_validate(policy_data())
    data = copy.deepcopy(policy_data(version="1.1.0"))
    change(data)
    new = Policy.model_validate(data)
    assert publish.roles_asked(publish.changes(was, new), was) == roles


@pytest.mark.requirement("P-3")
def test_a_gate_nobody_owned_is_not_owned_by_who_writes_an_owner_into_the_new_bundle() -> None:
    data = policy_data()
    data["roles"]["risk-officer"]["gates"] = []
    was = Policy.model_validate(data)
    data = copy.deepcopy(data) | {"version": "1.1.0"}
    data["roles"]["ml-platform-engineer"]["gates"] = ["performance"]
    data["gates"]["performance"] = {**data["gates"]["performance"], "maximum_worsening": 1.0}
    new = Policy.model_validate(data)
    assert set(publish.roles_asked(publish.changes(was, new), was)) >= set(COMMON)
    (change,) = [one for one in publish.changes(was, new) if one.section == "gates"]
    assert publish.owners(change, was) == COMMON


@pytest.mark.requirement("A-2", "P-3")
def test_a_new_limit_is_not_published_by_the_friend_it_names(world: World) -> None:
    data = copy.deepcopy(policy_data(version="1.1.0"))
    _new_limit(data)
    write_yaml(world.config / "policies" / "1.1.0" / "policy.yaml", data)
    request = ask(world, user="dana")
    assert request.seats == WITH_ENGINEER
    (engineer, *_) = world.deployment.config.people().holders("ml-platform-engineer")
    say(world, request, engineer.user, seat=1)
    assert standing(world, request) == OPEN
    with pytest.raises(RefusedError, match="not approved"):
        publish.publish(world.deployment, request.request_id)
    for role in COMMON:
        say(world, request, OWNERS[role], request.seats.index(role))
    assert standing(world, request) == GRANTED


@pytest.mark.requirement("P-3")
def test_the_first_release_publishes_what_there_is_and_says_so(world: World) -> None:
    (event,) = world.events(Kind.POLICY_PUBLISHED)
    digest = world.deployment.config.policy("1.0.0").digest
    assert (event.actor, event.data["first"], event.data["policies"]) == ("system", True, {"1.0.0": digest})
    world.frozen(run="again")
    assert len(world.events(Kind.POLICY_PUBLISHED)) == 1


@pytest.mark.requirement("P-2", "P-3")
def test_a_published_bundle_that_was_edited_is_refused_by_name(world: World) -> None:
    edit(world.policy_file, "value: 0.15", "value: 0.9")
    release_id = world.submit(run="new")
    with pytest.raises(RefusedError, match="limit red_change rises from 15 % to 90 %") as caught:
        freeze(world.deployment, release_id)
    assert "new version" in caught.value.fix


@pytest.mark.requirement("P-2", "P-3")
def test_a_version_nobody_published_judges_nothing(world: World) -> None:
    write(world, "1.1.0", red_change=0.1)
    write_yaml(world.workload_file, workload_data(policy="1.1.0"))
    release_id = world.submit(run="new")
    with pytest.raises(RefusedError, match=r"policy 1\.1\.0 is not published"):
        freeze(world.deployment, release_id)


def test_all_policies_workloads_name_begin_together() -> None:
    with fast_folder() as folder:
        world = make_world(folder / "0")
        write(world, "1.1.0")
        write_yaml(world.config / "workloads" / "other.yaml", workload_data(name="other", policy="1.1.0"))
        world.frozen()
        assert list(publish.published(world.deployment)) == ["1.0.0", "1.1.0"]


@pytest.mark.requirement("P-2")
def test_a_release_stays_on_what_it_was_pinned_to(world: World) -> None:
    """Somebody edits the folder while people decide: the decision does not move, and nothing is promoted."""
    release_id = world.judged(track="yellow", run="pinned")
    before = world.decision(release_id).to_bytes()
    edit(world.policy_file, "value: 0.05", "value: 0.2")
    world.answer(release_id, "petra")
    assert world.decision(release_id).to_bytes() == before
    with pytest.raises(RefusedError, match="was edited after the release was frozen"):
        promote(world.deployment, release_id)
    edit(world.policy_file, "value: 0.2", "value: 0.05")
    promote(world.deployment, release_id)


@pytest.mark.requirement("E-4", "P-3")
def test_an_auditor_sees_who_published_a_version_that_judged_nothing_yet(world: World) -> None:
    request = both(world)
    for seat, role in enumerate(request.seats):
        say(world, request, OWNERS[role], seat)
    event = publish.publish(world.deployment, request.request_id)
    use = questions.policy_use(world.deployment, "1.1.0")
    assert (use.total, use.releases) == (0, ())
    assert use.published is not None
    assert (use.published.digest, use.published.at_us) == (request.digest, event.occurred_us)
    assert (use.published.requested_by, use.published.approved_by) == ("petra", OWNERS)
    assert (use.published.predecessor, use.published.first) == ("1.0.0", False)
    assert use.published.sentences == tuple(event.data["sentences"])
    recorded = world.deployment.audit.events(kinds=[Kind.POLICY_PUBLISHED])
    assert use.published.event == recorded[-1].ingest_id
    begun = questions.policy_use(world.deployment, "1.0.0")
    assert begun.published is not None
    assert (begun.total, begun.published.first, begun.published.approved_by) == (1, True, {})
    assert set(begun.digests) == {begun.published.digest}


# Asking


@pytest.mark.requirement("P-3")
def test_each_owner_of_a_change_gets_a_seat(world: World) -> None:
    request = both(world)
    assert request.seats == sorted(request.seats)
    assert {"governance-analyst", "risk-officer"} <= set(request.seats)
    said = [change.sentence for change in publish.changes_of(world.deployment, request)]
    assert any("red_change" in sentence for sentence in said)
    question = publish.question(
        world.deployment, request.request_id, request.seats.index("governance-analyst")
    )
    assert {person.user for person in question.eligible} == {"grace", "omar"}
    yours, others = question.body.split("What else changes")
    assert "gate documentation" in yours
    assert "limit red" in others


@pytest.mark.parametrize(
    ("version", "words"),
    [("1.0.0", "already published"), ("0.9.0", "versions grow")],
)
def test_a_version_must_be_new_and_grow(world: World, version: str, words: str) -> None:
    if version != "1.0.0":
        write(world, version)
    with pytest.raises(RefusedError, match=words):
        ask(world, version)
    assert words in world.events(Kind.REQUEST_REFUSED)[0].data["problem"]


def test_a_request_needs_somebody_and_is_the_same_when_repeated(world: World) -> None:
    write(world, "1.1.0", red_change=0.1)
    with pytest.raises(RefusedError, match="nobody is known as the requester"):
        ask(world, user="")
    first = ask(world, run="p2")
    assert ask(world, run="p2") == first


# Answering


@pytest.mark.requirement("P-3", "A-2")
def test_the_owners_publish_and_the_event_says_who(world: World) -> None:
    request = both(world)
    with pytest.raises(RefusedError, match="it is not approved: waiting for"):
        publish.publish(world.deployment, request.request_id)
    for seat, role in enumerate(request.seats):
        assert standing(world, request) == OPEN
        say(world, request, OWNERS[role], seat)
    assert standing(world, request) == GRANTED
    event = publish.publish(world.deployment, request.request_id)
    assert publish.publish(world.deployment, request.request_id) == event
    assert event.data["approved_by"] == {role: OWNERS[role] for role in request.seats}
    assert event.data["predecessor"] == "1.0.0"
    assert publish.published_policy(world.deployment, "1.1.0") == world.deployment.config.policy("1.1.0")
    write_yaml(world.workload_file, workload_data(policy="1.1.0"))
    assert world.decision(world.judged(run="under", track="green")).policy_version == "1.1.0"


@pytest.mark.requirement("A-2", "P-3")
def test_who_asked_and_who_owns_nothing_cannot_agree_and_one_person_fills_one_seat(world: World) -> None:
    request = both(world)
    seat = {role: index for index, role in enumerate(request.seats)}
    world.set_roles("petra", ["governance-analyst", "risk-officer"])
    with pytest.raises(RefusedError, match="asked to publish this and cannot approve"):
        say(world, request, "petra")
    with pytest.raises(RefusedError, match="does not hold the role"):
        say(world, request, "grace", seat["risk-officer"])
    with pytest.raises(RefusedError, match="seat 9 does not exist"):
        say(world, request, "ravi", 8)
    say(world, request, "omar", seat["governance-analyst"])
    with pytest.raises(RefusedError, match="one person fills one seat"):
        say(world, request, "omar", seat["risk-officer"])
    with pytest.raises(RefusedError, match="already filled by omar"):
        say(world, request, "grace", seat["governance-analyst"])
    say(world, request, "ravi", seat["risk-officer"])
    world.set_roles("omar", [])
    with pytest.raises(RefusedError, match="it is not approved"):
        publish.publish(world.deployment, request.request_id)


@pytest.mark.requirement("A-5", "A-6", "P-3")
def test_a_rejection_or_silence_publishes_nothing(world: World) -> None:
    request = both(world)
    say(world, request, "grace", request.seats.index("governance-analyst"), "reject")
    assert standing(world, request) == REJECTED
    with pytest.raises(RefusedError, match="rejected by grace"):
        publish.publish(world.deployment, request.request_id)
    other = ask(world, run="p9")
    world.clock.advance(hours=73)
    assert standing(world, other) == EXPIRED
    with pytest.raises(RefusedError, match="the time to answer is over"):
        say(world, other, "grace")
    with pytest.raises(RefusedError, match="the time to answer is over"):
        publish.question(world.deployment, other.request_id, 0)


@pytest.mark.requirement("P-3", "A-7")
def test_what_changed_since_it_was_asked_for_is_not_published(world: World) -> None:
    request = both(world)
    path = world.config / "policies" / "1.1.0" / "policy.yaml"
    edit(path, "minimum_words: 200", "minimum_words: 2")
    for seat, user in enumerate(
        {"governance-analyst": "grace", "risk-officer": "ravi"}[r] for r in request.seats
    ):
        say(world, request, user, seat)
    with pytest.raises(RefusedError, match="changed after it was asked for"):
        publish.publish(world.deployment, request.request_id)
    shutil.rmtree(path.parent)
    with pytest.raises(RefusedError, match="changed after it was asked for"):
        publish.publish(world.deployment, request.request_id)


def test_a_publication_that_is_killed_anywhere_happens_once(world: World) -> None:
    request = both(world)
    for seat, user in enumerate(
        {"governance-analyst": "grace", "risk-officer": "ravi"}[r] for r in request.seats
    ):
        say(world, request, user, seat)
    for moment in range(1, 60):
        world.failpoints.stop_at(moment, Killed())
        try:
            publish.publish(world.watched(), request.request_id)
            break
        except Killed:
            continue
    named = [event for event in world.events(Kind.POLICY_PUBLISHED) if "1.1.0" in event.data["policies"]]
    assert len(named) == 1


def test_two_requests_for_one_version_publish_one(world: World) -> None:
    write(world, "1.1.0", red_change=0.1)
    requests = [ask(world, run=run) for run in ("p1", "p2")]
    for request in requests:
        for seat, role in enumerate(request.seats):
            say(world, request, OWNERS[role], seat)
    publish.publish(world.deployment, requests[0].request_id)
    with pytest.raises(RefusedError, match="already published"):
        publish.publish(world.deployment, requests[1].request_id)
