"""Conditions of approvals, and who made what is approved: an approval stands only as long as it should."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airlock.adapters.lineage import commit_authors
from airlock.core.approvals import Panel, person_objection
from airlock.core.audit import Kind
from airlock.core.dates import DAY_US
from airlock.core.declarations import LineageSpec
from airlock.core.errors import NotFoundError, RefusedError
from airlock.core.people import People
from airlock.core.release import State
from airlock.ports import ModelVersion, RunFacts
from airlock.services import conditions
from airlock.services.approve import answer, seat_request, standing
from airlock.services.conditions import Condition, confirm, list_conditions, unapproved
from airlock.services.notices import due_notices
from airlock.services.promote import promote
from airlock.services.publish import publish
from airlock.services.releases import find_release, open_case, state_of
from airlock.services.review_approvals import review
from tests.support.deployments import (
    PEOPLE,
    START_US,
    WORKLOAD,
    World,
    edit,
    fast_folder,
    make_world,
    policy_data,
    workload_data,
    write_yaml,
)
from tests.unit.test_publish import ask, say

pytestmark = pytest.mark.requirement("A-7")

TEXT = "Show a month of shadow traffic."


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        edit(world.policy_file, "expires_hours: 72", "expires_hours: 72\n  condition_days: 30")
        yield world


def approve(world: World, release_id: str, user: str, seat: int = 0, **changes: Any) -> Any:
    values = {"choice": "approve", "comment": "Yes, but.", "when": "now", "condition": TEXT}
    return answer(
        world.deployment, release_id, seat, user=user, **{**values, "until": "2026-01-10", **changes}
    )


def conditional(world: World, *, promoted: bool = True) -> str:
    release_id = world.judged("2", track="red")
    approve(world, release_id, "grace")
    world.answer(release_id, "ravi", 1)
    if promoted:
        promote(world.deployment, release_id)
    return release_id


def only(world: World) -> Condition:
    (found,) = list_conditions(world.deployment)
    return found


def test_an_approval_with_a_condition_counts_and_says_until_when(world: World) -> None:
    release_id = conditional(world)
    assert world.champion == "2"
    found = only(world)
    assert (found.release_id, found.user, found.text, found.until) == (
        release_id,
        "grace",
        TEXT,
        "2026-01-10",
    )
    assert found.state == conditions.OPEN
    assert review(world.deployment) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"until": ""}, "'' is no date"),
        ({"until": "next week"}, "is no date"),
        ({"until": "2026-01-10T25:00"}, "is no moment"),
        ({"until": "0001-01-01T00:00+23:59"}, "is over already"),
        ({"until": "2025-12-31T23:59"}, "the deadline of the condition is over already"),
        ({"until": "2026-02-01T00:01"}, "has to be met within 30 days"),
        ({"until": "2025-12-31"}, "the deadline of the condition is over already"),
        ({"until": "2026-03-01"}, "has to be met within 30 days"),
        ({"condition": "", "until": "2026-01-10"}, "the condition needs at least 10 characters"),
        ({"condition": "soon"}, "the condition needs at least 10 characters"),
        ({"condition": "x" * 5000}, "the limit is 4000"),
        ({"choice": "reject", "comment": "Not like this, please."}, "a rejection has no condition"),
    ],
)
def test_a_condition_that_nobody_could_hold_anybody_to_is_refused(
    world: World, changes: dict[str, Any], why: str
) -> None:
    release_id = world.judged("2", track="red")
    with pytest.raises(RefusedError, match=why):
        approve(world, release_id, "grace", **changes)
    (refusal,) = world.events(Kind.APPROVAL_REFUSED)
    assert why in refusal.data["problem"]
    world.answer(release_id, "grace", 0)  # and the seat is still open


def test_without_a_word_of_the_policy_there_is_no_condition(world: World) -> None:
    edit(world.policy_file, "\n  condition_days: 30", "")
    release_id = world.judged("2", track="red")
    with pytest.raises(RefusedError, match="takes no conditional approval"):
        approve(world, release_id, "grace")


def test_the_words_of_a_condition_can_be_erased(world: World) -> None:
    conditional(world)
    assert b"shadow traffic" not in b"".join(
        world.deployment.log.database.read(
            lambda connection: [
                row[0].encode() for row in connection.exec_driver_sql("SELECT data FROM event")
            ]
        )
    )


def test_the_role_of_the_seat_confirms_it_and_then_it_stays(world: World) -> None:
    release_id = conditional(world)
    world.clock.advance(hours=24)
    found = confirm(world.deployment, release_id, 0, user="omar", comment="It ran in January.", when="r")
    assert (found.state, found.met_by) == (conditions.MET, "omar")
    assert confirm(world.deployment, release_id, 0, user="omar", comment="Again.", when="r2") == found
    world.clock.advance(hours=24 * 60)
    assert review(world.deployment) == []
    assert world.events(Kind.APPROVAL_REVOKED) == []


@pytest.mark.parametrize(
    ("until", "minute"), [("2026-01-01T14:30", "14:30"), ("2026-01-01T14:30:00+02:00", "12:30")]
)
def test_a_condition_may_end_at_a_minute(world: World, until: str, minute: str) -> None:
    release_id = world.judged("2", track="red")
    approve(world, release_id, "grace", until=until)
    found = only(world)
    assert found.until == f"2026-01-01 {minute} UTC"
    world.clock.us = found.until_us - 1
    assert only(world).state == conditions.OPEN
    world.clock.advance(us=1)
    assert only(world).state == conditions.MISSED


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize(
    ("user", "comment", "why"),
    [
        ("dana", "It ran.", "dana submitted this release"),
        ("ravi", "It ran.", "ravi does not hold the role governance-analyst"),
        ("mallory", "It ran.", "holds no governance role"),
        ("grace", "", "the comment needs at least 1"),
    ],
)
def test_who_may_not_confirms_nothing(world: World, user: str, comment: str, why: str) -> None:
    release_id = conditional(world)
    with pytest.raises(RefusedError, match=why):
        confirm(world.deployment, release_id, 0, user=user, comment=comment, when="r")
    assert only(world).state == conditions.OPEN
    assert len(world.events(Kind.REQUEST_REFUSED)) == 1
    with pytest.raises(NotFoundError):
        confirm(world.deployment, release_id, 1, user="ravi", comment="It ran.", when="r")


def test_missed_it_revokes_the_approval_and_opens_the_release_again(world: World) -> None:
    release_id = conditional(world)
    world.clock.advance(hours=24 * 10)
    assert only(world).state == conditions.MISSED
    with pytest.raises(RefusedError, match="was to be met by 2026-01-10 and is missed"):
        confirm(world.deployment, release_id, 0, user="grace", comment="Late.", when="r")
    said = review(world.deployment)
    assert "the approval of loan-model version 2 by grace (governance-analyst) is revoked" in said[0]
    assert [event.data["user"] for event in world.events(Kind.APPROVAL_REVOKED)] == ["grace"]
    assert only(world).state == conditions.REVOKED
    (incident,) = world.events(Kind.INCIDENT_OPENED)
    assert "in production without its approval" in incident.data["summary"]
    (back,) = world.events(Kind.ROLLBACK_FINISHED)
    assert (back.version, back.data["incident"]) == ("2", incident.data["incident"])
    assert world.champion != "2"
    assert "is rolled back from version 2" in said[1]
    assert unapproved(world.deployment) == []
    seat = due_notices(world.deployment, world.release(release_id))[0]
    assert seat.title == "Loan model version 2: the condition of grace's approval was missed"
    assert review(world.deployment) == []  # once
    assert len(world.events(Kind.APPROVAL_REVOKED)) == 1


def test_where_the_policy_lets_nobody_but_people_roll_back_they_are_called(world: World) -> None:
    rules = world.policy_file.read_text()
    world.policy_file.write_text(f"{rules}operations: {{rollback: {{automatic: false}}}}\n")
    conditional(world)
    world.clock.advance(hours=24 * 10)
    said = review(world.deployment)
    assert (
        "it could not be rolled back: rollback refused: the policy lets nobody but a person roll back"
        in said[1]
    )
    assert world.champion == "2"
    assert [one.user for one in unapproved(world.deployment)] == ["grace"]
    assert len(world.events(Kind.INCIDENT_OPENED)) == len(world.events(Kind.RELEASE_REOPENED)) == 1
    assert review(world.deployment) == []


def test_missed_before_promotion_there_is_no_promotion_even_if_nobody_looked(world: World) -> None:
    edit(world.policy_file, "expires_hours: 72", "expires_hours: 1000")
    release_id = conditional(world, promoted=False)
    assert standing(world.deployment, release_id).state == "granted"
    world.clock.advance(hours=24 * 10)
    assert state_of(world.deployment, find_release(world.deployment, release_id)) is State.WAITING
    with pytest.raises(RefusedError, match="condition of grace's approval was not met in time"):
        promote(world.deployment, release_id)
    review(world.deployment)
    with pytest.raises(RefusedError, match="the approval of grace was revoked"):
        world.answer(release_id, "grace", 0)
    world.answer(release_id, "omar", 0)
    promote(world.deployment, release_id)
    assert world.champion == "2"
    assert unapproved(world.deployment) == []


# A number decides


MEASURED = "data_drift <= 0.1"


def measured(world: World, value: float | None, *, version: str = "2", day: int = 5) -> None:
    """A window of a day of January, as monitoring records it."""
    start_us = START_US + day * DAY_US
    data = {
        "start_us": start_us,
        "end_us": start_us + DAY_US,
        "window": f"2026-01-{day + 1:02d}",
        "values": {} if value is None else {"data_drift": value},
    }
    key = f"monitor/{WORKLOAD}/{version}/{day}/{value}"
    world.deployment.record(Kind.MONITOR_EVALUATED, key, workload=WORKLOAD, version=version, data=data)


@pytest.fixture
def watched(world: World) -> World:
    log = {"log": {"parquet": "loan/production"}, "schedule": "0 6 * * 1", "window_days": 1}
    write_yaml(world.workload_file, workload_data(monitoring=log))
    release_id = world.judged("2", track="red")
    approve(world, release_id, "grace", condition=MEASURED)
    world.answer(release_id, "ravi", 1)
    promote(world.deployment, release_id)
    return world


@pytest.mark.parametrize(
    ("value", "state"), [(0.1, conditions.MET), (0.11, conditions.OPEN), (None, conditions.OPEN)]
)
def test_a_condition_with_a_number_is_confirmed_by_what_production_shows(
    watched: World, value: float | None, state: str
) -> None:
    measured(watched, 0.3)
    measured(watched, value, day=6)
    measured(watched, 0.0, version="1", day=7)  # another version says nothing about this one
    watched.clock.advance(hours=24 * 10 - 3)
    assert review(watched.deployment) == []
    assert only(watched).state == conditions.OPEN, "it counts as it stands at the end"
    watched.clock.advance(hours=2)
    said = review(watched.deployment)
    found = only(watched)
    assert found.state == state
    assert f"data_drift was {0.3 if value is None else value:.4g} in the window" in said[0]
    assert found.met_by == ("system" if state == conditions.MET else "")
    watched.clock.advance(hours=1)
    review(watched.deployment)
    assert (watched.champion == "2") is (state == conditions.MET)


def test_nobody_confirms_against_the_number_and_somebody_does_where_there_is_none(watched: World) -> None:
    release_id = only(watched).release_id
    measured(watched, 0.3)
    with pytest.raises(RefusedError, match=r"data_drift was 0\.3 in the window 2026-01-06, and has to be"):
        confirm(watched.deployment, release_id, 0, user="omar", comment="It looks fine.", when="r")
    measured(watched, 0.05, day=6)
    found = confirm(watched.deployment, release_id, 0, user="omar", comment="It came back.", when="r2")
    assert (found.state, found.met_by) == (conditions.MET, "omar")


def test_a_number_that_nothing_measures_is_refused(world: World) -> None:
    release_id = world.judged("2", track="red")
    with pytest.raises(RefusedError, match="nothing measures this workload in production"):
        approve(world, release_id, "grace", condition=MEASURED)
    with pytest.raises(RefusedError, match=r"'data\.drift' is not measured .* did you mean 'data_drift'"):
        approve(world, release_id, "grace", condition="data.drift <= 0.1", when="again")


# Whoever made it does not approve it


def with_authors(world: World, *users: tuple[str, str], registered: str = "") -> None:
    """A registry that knows who trained the candidate."""
    registry = world.registry

    class Knowing:
        def __getattr__(self, name: str) -> Any:
            return getattr(registry, name)

        def run(self, run_id: str) -> RunFacts:
            return RunFacts(users=list(users)) if run_id else RunFacts()

        def version(self, name: str, version: str) -> ModelVersion:
            return registry.version(name, version).model_copy(update={"user": registered})

    world.deployment = replace(world.deployment, registry=Knowing())


def known_as(world: World, **identities: list[str]) -> None:
    people = [{**person, "identities": identities.get(person["user"], [])} for person in PEOPLE["people"]]
    write_yaml(world.config / "people.yaml", {"people": people})


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize("choice", ["approve", "reject"])
@pytest.mark.parametrize(
    ("users", "registered", "why"),
    [
        ([("grace", "trained this model")], "", "grace trained this model and cannot approve or reject it"),
        ([(" Grace@Example.org", "made its data")], "", "grace made its data"),
        ([], "grace@example.org", "grace registered this version"),
    ],
)
def test_who_made_the_model_or_its_data_cannot_answer(
    world: World, users: list[tuple[str, str]], registered: str, why: str, choice: str
) -> None:
    known_as(world, grace=["grace@example.org", "Grace Okafor"])
    with_authors(world, *users, registered=registered)
    release_id = world.judged("2", track="red")
    with pytest.raises(RefusedError, match=why):
        world.answer(release_id, "grace", 0, choice, "The evidence says it all.")
    (refusal,) = world.events(Kind.APPROVAL_REFUSED)
    assert why in refusal.data["problem"]
    assert open_case(world.deployment, release_id).manifest.authors.keys() == {"grace"}
    world.answer(release_id, "omar", 0)


@pytest.mark.requirement("A-2")
def test_who_made_it_stays_known_whatever_the_registry_says_later(world: World) -> None:
    with_authors(world, ("grace", "trained this model"), ("somebody", "trained this model"))
    release_id = world.judged("2", track="red")
    with_authors(world)
    with pytest.raises(RefusedError, match="grace trained this model"):
        world.answer(release_id, "grace", 0)


@pytest.mark.requirement("A-2")
def test_the_seat_is_not_asked_where_nobody_free_holds_it(world: World) -> None:
    with_authors(world, ("petra", "trained this model"))
    release_id = world.judged("2", track="yellow")
    with pytest.raises(RefusedError, match="nobody may fill the seat of ml-platform-engineer: petra trained"):
        seat_request(world.deployment, release_id, 0)


@pytest.mark.requirement("A-2")
def test_authors_of_code_and_data_are_those_of_their_newest_commits(world: World) -> None:
    root = world.root / "repositories"
    folder = root / "code"
    folder.mkdir(parents=True)

    def git(*words: str, who: str = "grace") -> None:
        name = ("-c", f"user.name={who}", "-c", f"user.email={who}@example.org")
        subprocess.run(
            [shutil.which("git") or "git", "-C", str(folder), *name, *words], check=True, capture_output=True
        )

    git("init", "--quiet")
    for file, who in (("data.dvc", "ravi"), ("train.py", "grace")):
        (folder / file).write_text(file)
        git("add", file, who=who)
        git("commit", "--quiet", "--message", file, who=who)
    spec = LineageSpec(repository="code", dvc=["data.dvc"])
    found = commit_authors(spec, root)
    assert ("grace@example.org", "wrote the code it was trained with") in found
    assert ("ravi@example.org", "made its data") in found
    assert commit_authors(LineageSpec(), root) == []
    assert commit_authors(LineageSpec(repository="nowhere", dvc=["x"]), root) == []


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize("days", [None, 30])
def test_who_changed_or_approved_the_policy_does_not_judge_by_it(world: World, days: int | None) -> None:
    data = policy_data(version="1.1.0", description="A later one.")
    if days is not None:
        data["approval"]["policy_author_days"] = days
    world.frozen("2", run="run-0")  # publishes what there is
    write_yaml(world.config / "policies" / "1.1.0" / "policy.yaml", data)
    request = ask(world, user="grace")
    for seat, user in enumerate(("omar", "ravi")):
        say(world, request, user, seat)
    publish(world.deployment, request.request_id)
    edit(world.workload_file, "policy: 1.0.0", "policy: 1.1.0")
    early = world.judged("2", track="red")
    with pytest.raises(RefusedError, match=r"grace changed policy 1.1.0, by which this release is judged"):
        world.answer(early, "grace", 0)
    with pytest.raises(RefusedError, match=r"ravi approved policy 1.1.0, by which this release is judged"):
        world.answer(early, "ravi", 1)
    world.clock.advance(hours=24 * 31)
    late = world.judged("3", track="red", run="run-3")
    if days is None:
        with pytest.raises(RefusedError, match="grace changed policy"):
            world.answer(late, "grace", 0)
    else:
        assert world.answer(late, "grace", 0).user == "grace"


@pytest.mark.parametrize(
    ("people", "why"),
    [
        ([("ann", {"identities": ["a@x"]}), ("bob", {"identities": [" A@X "]})], "share the identity 'a@x'"),
        ([("ann", {"identities": ["Bob"]}), ("bob", {})], "share the identity 'bob'"),
        ([("ann", {"airflow_id": "1"}), ("bob", {"airflow_id": "1"})], "share an airflow_id"),
    ],
)
def test_one_identity_belongs_to_one_person(people: list[tuple[str, dict[str, Any]]], why: str) -> None:
    entries = [{"user": user, "name": user, **more} for user, more in people]
    with pytest.raises(ValueError, match=why):
        People.model_validate({"people": entries})


@pytest.mark.requirement("A-2")
def test_somebody_who_left_neither_answers_nor_counts(world: World) -> None:
    release_id = conditional(world, promoted=False)
    people = [
        {**person, "active": False} if person["user"] == "ravi" else person for person in PEOPLE["people"]
    ]
    write_yaml(world.config / "people.yaml", {"people": people})
    with pytest.raises(RefusedError, match="ravi is not active any more"):
        promote(world.deployment, release_id)
    other = world.judged("3", track="red", run="run-3")
    with pytest.raises(RefusedError, match="ravi is not active any more"):
        world.answer(other, "ravi", 1)
    # The same for waivers and policies.
    assert "not active" in person_objection(
        "ravi", "risk-officer", Panel(world.deployment.config.people(), barred={})
    )
