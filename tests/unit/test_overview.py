"""The overview: what the dashboard counts is what the log says, however it was read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock.adapters.overview import Overview
from airlock.core.evidence import Verdict
from airlock.core.incident import PostMortem
from airlock.core.release import State
from airlock.services.announce import outcome_sentence, seal
from airlock.services.deployment import anchors_of
from airlock.services.incidents import open_incident, resolve
from airlock.services.measures import measures
from airlock.services.overview import (
    Filter,
    catch_up,
    count,
    inventory,
    list_page,
    open_overview,
    reading,
)
from airlock.services.promote import promote
from airlock.services.sequence import Sequencer
from tests.support.deployments import HOUR_US, WORKLOAD, World, edit, fast_folder, make_world

pytestmark = pytest.mark.requirement("U-1", "U-2")


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


def sequence(world: World) -> None:
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    sequencer.step()
    sequencer.publish()


def opened(world: World) -> Overview:
    sequence(world)
    return open_overview(world.deployment)


def states(world: World) -> dict[str, str]:
    rows = list_page(opened(world), Filter(), now_us=world.clock.now_us(), limit=100)
    return {row["release_id"]: row["state"] for row in rows}


def test_an_empty_deployment_has_workloads_and_nothing_else(world: World) -> None:
    overview = opened(world)
    (line,) = inventory(world.deployment, overview, Filter())
    assert (line.name, line.title, line.champion, line.last, line.waiting) == (
        WORKLOAD,
        "Loan model",
        "",
        None,
        0,
    )
    found = measures(overview, Filter(), now_us=world.clock.now_us())
    assert (found.submitted, found.promoted, found.lead_times, found.waiting_times, found.gates) == (
        0, 0, [], [], [],
    )  # fmt: skip


def test_a_release_is_followed_from_submission_to_champion(world: World) -> None:
    release_id = world.frozen("2")
    assert states(world) == {release_id: State.CHECKING}
    release_id = world.judged("3", track="red")
    assert states(world)[release_id] == State.WAITING
    (row,) = list_page(opened(world), Filter(state=State.WAITING), now_us=world.clock.now_us(), limit=10)
    assert row["open_roles"] == ["governance-analyst", "risk-officer"]
    world.clock.advance(hours=2)
    world.answer(release_id, "grace", 0)
    world.clock.advance(hours=1)
    world.answer(release_id, "ravi", 1)
    assert states(world)[release_id] == State.READY
    world.clock.advance(hours=1)
    promote(world.deployment, release_id)
    overview = opened(world)
    (line,) = inventory(world.deployment, overview, Filter())
    assert (line.champion, line.since_us) == ("3", world.clock.now_us())
    found = measures(overview, Filter(), now_us=world.clock.now_us())
    (lead,) = found.lead_times
    assert (lead.name, lead.n, lead.median_us) == ("red", 1, 4 * HOUR_US)
    assert {flow.name: flow.median_us for flow in found.waiting_times} == {
        "governance-analyst": 2 * HOUR_US,
        "risk-officer": 3 * HOUR_US,
    }
    assert (found.submitted, found.promoted, found.without_people) == (2, 1, 0)


def test_states_agree_with_what_the_release_itself_says(world: World) -> None:
    denied = world.judged("2", verdicts={"performance": Verdict.FAILED})
    rejected = world.judged("3", track="yellow")
    world.answer(rejected, "petra", 0, "reject", "The floor is not reached for women.")
    for release_id in (denied, rejected):
        seal(world.deployment, release_id)
    said = {
        each: str(outcome_sentence(world.deployment, world.release(each))[0]) for each in (denied, rejected)
    }
    assert states(world) == said == {denied: "denied", rejected: "rejected"}
    found = measures(opened(world), Filter(), now_us=world.clock.now_us())
    assert found.stopped == 2
    assert found.gates[0]["gate"] == "performance"
    assert (found.gates[0]["n"], found.gates[0]["failed"]) == (2, 1)


def test_a_gate_says_how_long_after_submission_it_answers(world: World) -> None:
    for version, hours in (("2", 1), ("3", 3)):
        release_id = world.frozen(version, run=f"run-{version}")
        world.clock.advance(hours=hours)
        world.evidence(release_id)
    found = measures(opened(world), Filter(), now_us=world.clock.now_us()).gates
    assert {row["gate"]: row["after_us"] for row in found}["performance"] == 2 * HOUR_US


def test_an_unanswered_release_expires_without_anybody_writing_it_down(world: World) -> None:
    release_id = world.judged("2", track="red")
    assert states(world)[release_id] == State.WAITING
    world.clock.advance(hours=73)
    now = world.clock.now_us()
    overview = opened(world)
    assert states(world)[release_id] == State.EXPIRED
    assert count(overview, Filter(state=State.WAITING), now_us=now) == 0
    assert count(overview, Filter(state=State.EXPIRED), now_us=now) == 1


def test_only_what_somebody_may_see_is_listed_and_counted(world: World) -> None:
    world.judged("2", verdicts={"performance": Verdict.FAILED})
    overview, now = opened(world), world.clock.now_us()
    nothing = Filter(visible=frozenset({"another"}))
    assert list_page(overview, nothing, now_us=now, limit=10) == []
    assert count(overview, nothing, now_us=now) == 0
    assert inventory(world.deployment, overview, nothing) == []
    assert measures(overview, nothing, now_us=now).gates == []
    assert measures(overview, nothing, now_us=now).submitted == 0
    mine = Filter(visible=frozenset({WORKLOAD}), gate="performance")
    assert count(overview, mine, now_us=now) == 1


def test_reading_in_parts_or_twice_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.granted("2")
    sequence(world)
    path = world.deployment.settings.home
    whole, parts = Overview(path / "whole.db"), Overview(path / "parts.db")
    taken = catch_up(world.deployment, whole)
    monkeypatch.setattr("airlock.services.overview.PART", 1)
    assert catch_up(world.deployment, parts) == taken > 5
    assert catch_up(world.deployment, parts) == 0
    for table in ("release", "gate", "seat", "champion", "position"):
        question = f"SELECT * FROM {table}"  # noqa: S608
        assert whole.query(question) == parts.query(question)
    # A second process that was slower must not add the same entries again.
    assert not whole.apply(0, "origin", [{"kind": "release.sealed"}])


def test_an_overview_of_another_log_is_made_again(world: World, tmp_path: Path) -> None:
    overview = opened(world)
    other = make_world(tmp_path / "other")
    other.judged("2")
    sequence(other)
    catch_up(other.deployment, overview)
    world.judged("3")
    sequence(world)
    catch_up(world.deployment, overview)
    rows = overview.query("SELECT version FROM release")
    assert [row["version"] for row in rows] == ["3"]


def test_a_workload_that_cannot_be_used_says_so_and_is_read_again_when_mended(world: World) -> None:
    edit(world.workload_file, "title: Loan model", "titel: Loan model")
    (line,) = inventory(world.deployment, opened(world), Filter())
    assert "did you mean 'title'" in line.problem
    edit(world.workload_file, "titel: Loan model", "title: Lending")
    (line,) = inventory(world.deployment, opened(world), Filter())
    assert (line.title, line.problem) == ("Lending", "")


def test_what_is_open_about_a_workload_is_counted(world: World) -> None:
    release_id = world.granted("2")
    promote(world.deployment, release_id)
    edit(world.workload_file, "owner: team", "owner: team\nvalue_per_day_usd: 2400")
    opened_at = world.clock.now_us()
    incident = open_incident(
        world.deployment, workload=WORKLOAD, version="2", action="alert", severity="high",
        summary="Approvals fell by a half.", cause="drift", detected_us=opened_at, release_id=release_id,
    )  # fmt: skip
    (line,) = inventory(world.deployment, opened(world), Filter())
    assert (line.champion, line.incidents, line.day_usd) == ("2", 1, 2400.0)
    found = measures(opened(world), Filter(), now_us=world.clock.now_us())
    assert (found.promoted, found.escapes) == (1, 1)
    escaped = Filter(escaped=True)
    assert count(opened(world), escaped, now_us=world.clock.now_us()) == 1
    lesson = PostMortem(happened="Fewer approvals.", why="A new channel.", changes="It is watched.")
    resolve(world.deployment, incident, actor="petra", post_mortem=lesson)
    (line,) = inventory(world.deployment, opened(world), Filter())
    assert line.incidents == 0
    assert measures(opened(world), Filter(), now_us=world.clock.now_us()).escapes == 1, "it happened"


def test_rules_that_deny_are_counted_and_lead_to_their_releases(world: World) -> None:
    denied = world.judged("2", verdicts={"performance": Verdict.FAILED, "documentation": Verdict.FAILED})
    world.judged("3", run="other", verdicts={"performance": Verdict.FAILED})
    found = measures(opened(world), Filter(), now_us=world.clock.now_us())
    assert [(row["rule"], row["n"]) for row in found.rules][:2] == [
        ("gate-performance", 2),
        ("gate-documentation", 1),
    ]
    now = world.clock.now_us()
    rows = list_page(opened(world), Filter(rule="gate-documentation"), now_us=now, limit=10)
    assert [row["release_id"] for row in rows] == [denied]


def test_waiting_costs_what_the_workload_says_a_day_is_worth(world: World) -> None:
    world.judged("2", track="red")
    world.clock.advance(hours=12)
    now = world.clock.now_us()
    priced = measures(opened(world), Filter(), now_us=now, day_usd={WORKLOAD: 2400.0})
    assert (priced.asked, priced.priced, priced.waited_us) == (1, 1, 12 * HOUR_US)
    assert priced.cost_usd == pytest.approx(1200)
    unknown = measures(opened(world), Filter(), now_us=now, day_usd={WORKLOAD: None})
    assert (unknown.cost_usd, unknown.priced) == (0, 0)


def window(**readings: str) -> dict[str, Any]:
    return {"kind": "monitor.evaluated", "data": {"readings": readings}}


def test_drift_is_what_was_seen_last(world: World) -> None:
    overview = Overview(world.deployment.settings.home / "drift.db")
    body = {"workload": WORKLOAD, "release_id": "r", "version": "2", "actor": "system", "key": "k"}
    gate = {"gate": "drift", "verdict": "FAILED", "seconds": 1.0, "evidence": "e"}
    events = [
        ({"kind": "gate.evaluated", "data": gate}, "drifted"),
        ({"kind": "gate.evaluated", "data": {**gate, "verdict": "PASSED"}}, "steady"),
        ({"kind": "gate.evaluated", "data": {**gate, "verdict": "ERROR"}}, "unknown"),
        (
            {"kind": "monitor.evaluated", "data": {"readings": {"data_drift": "calm", "cost": "raised"}}},
            "steady",
        ),
        ({"kind": "monitor.evaluated", "data": {"readings": {"data_drift": "unsure"}}}, "unknown"),
        ({"kind": "monitor.evaluated", "data": {"readings": {"target_drift": "raised"}}}, "drifted"),
        ({"kind": "monitor.evaluated", "data": {"readings": {"cost": "calm"}}}, "drifted"),
    ]
    for place, (event, said) in enumerate(events):
        overview.apply(place, "origin", [{**body, **event, "occurred_us": place}])
        assert overview.query("SELECT verdict FROM drift") == [{"verdict": said}]


def test_inside_a_snapshot_every_question_sees_the_same_moment(world: World) -> None:
    world.judged("2")
    with reading(world.deployment) as overview:
        before = overview.query("SELECT count(*) AS n FROM release")
        sequence(world)
        world.judged("3", run="other")
        sequence(world)
        open_overview(world.deployment)
        assert overview.query("SELECT count(*) AS n FROM release") == before
    assert opened(world).query("SELECT count(*) AS n FROM release") == [{"n": 2}]
