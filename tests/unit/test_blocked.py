"""Why was I blocked? Every way to be stopped is told with its remedy, and can be tried again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from airlock.core.errors import ConflictError, InvalidInputError, NotFoundError
from airlock.core.evidence import GateResult, Metric, Verdict
from airlock.core.policy import Track
from airlock.core.release import State
from airlock.services.announce import seal
from airlock.services.blocked import lighter_tracks, submit_again, why_blocked
from airlock.services.decide import decide
from airlock.services.evaluate import keep_evidence
from airlock.services.promote import promote
from airlock.services.releases import open_case
from tests.support.deployments import World, fast_folder, make_world

pytestmark = pytest.mark.requirement("U-5")


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


class Airflow:
    """What was triggered, by whom it is."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def trigger(self, dag_id: str, conf: dict[str, Any], *, run_id: str = "") -> dict[str, str]:
        self.asked.append((dag_id, conf))
        return {"dag_run_id": f"manual__{len(self.asked)}"}


def test_a_denied_release_names_rule_value_limit_owner_and_remedy(world: World) -> None:
    release_id = world.frozen("2")
    case = open_case(world.deployment, release_id)
    world.evidence(release_id, relative=0.01, verdicts={"performance": None})
    metrics = [
        Metric(name="accuracy", value=0.81, threshold=0.85, direction="higher"),
        Metric(name="f1", value=0.9, threshold=0.85, direction="higher"),
    ]
    result = GateResult(
        verdict=Verdict.FAILED, summary="The floor of accuracy is not reached.", metrics=metrics,
        details={"change": {"relative": 0.01}},
    )  # fmt: skip
    keep_evidence(world.deployment, case, "performance", config={}, result=result, seconds=0.1)
    decide(world.deployment, release_id)
    found = why_blocked(world.deployment, release_id)
    assert (found.state, found.sentence) == ("denied", "The floor of accuracy is not reached.")
    (one,) = found.obstacles
    assert (one.rule, one.title, one.owner) == ("gate-performance", "Gate performance", "risk-officer")
    assert [(each.name, each.value, each.limit) for each in one.values] == [("accuracy", "0.81", "0.85")]
    assert one.waiver.startswith("airlock waiver request loan-model --rule gate-performance")
    assert found.command == f"airlock release again {release_id} --version N"


def test_the_findings_of_a_gate_come_with_their_own_remedies(world: World) -> None:
    release_id = world.judged("2", verdicts={"documentation": Verdict.FAILED, "performance": Verdict.ERROR})
    found = {one.rule: one for one in why_blocked(world.deployment, release_id).obstacles}
    assert [finding.fix for finding in found["gate-documentation"].findings] == ["fix documentation"]
    assert found["gate-documentation"].waiver
    assert not found["gate-performance"].waiver, "what could not be judged is never waived"


def test_a_rejection_gives_the_words_of_who_rejected(world: World) -> None:
    release_id = world.judged("2", track="yellow")
    world.answer(release_id, "petra", 0, "reject", "Show a month of shadow traffic first.")
    found = why_blocked(world.deployment, release_id)
    assert found.state == State.REJECTED
    assert [(said.user, said.role, said.text) for said in found.feedback] == [
        ("petra", "ml-platform-engineer", "Show a month of shadow traffic first.")
    ]
    assert found.obstacles[0].fix == "do what the rejection asks for, then submit again"


def test_an_expired_a_refused_and_a_failed_release_say_what_to_do(world: World) -> None:
    expired = world.judged("2", run="a")
    world.clock.advance(hours=73)
    assert "Nobody answered" in why_blocked(world.deployment, expired).obstacles[0].title
    refused = world.judged("2", run="b")
    promote_refused(world, refused)
    assert "Promotion refused" in why_blocked(world.deployment, refused).obstacles[0].title
    failed = world.submit("3", run="c")
    seal(world.deployment, failed)
    found = why_blocked(world.deployment, failed)
    assert (found.state, len(found.obstacles)) == (State.FAILED, 1)


def promote_refused(world: World, release_id: str) -> None:
    with pytest.raises(Exception, match="no approval"):
        promote(world.deployment, release_id)


def test_what_is_not_stopped_has_no_answer(world: World) -> None:
    release_id = world.judged("2")
    with pytest.raises(ConflictError, match="not stopped: it is waiting"):
        why_blocked(world.deployment, release_id)
    with pytest.raises(NotFoundError):
        why_blocked(world.deployment, "nothing-v1-00000000")


@pytest.mark.requirement("T-5")
@pytest.mark.parametrize(
    ("track", "lighter"), [("green", []), ("yellow", ["green"]), ("red", ["yellow", "green"])]
)
def test_a_lighter_track_lists_everything_that_is_in_its_way(
    world: World, track: str, lighter: list[str]
) -> None:
    decision = world.decision(world.judged("2", track=track))
    policy = open_case(world.deployment, decision.release_id).policy
    found = lighter_tracks(policy, decision)
    assert [one.track for one in found] == lighter
    assert all(one.needs for one in found)
    for heavier, lightest in pairwise(found):
        assert {need.name for need in heavier.needs} <= {need.name for need in lightest.needs}
    if track == "red":
        assert found[0].asks == ["ml-platform-engineer"]
        assert any(need.value == "avoid track-red" for need in found[0].needs)
    assert decision.track is Track(track)


def test_trying_again_takes_over_what_is_not_changed(world: World) -> None:
    release_id = world.judged("2", verdicts={"performance": Verdict.FAILED})
    airflow: Any = Airflow()
    new, run_id = submit_again(world.deployment, airflow, release_id, version="3", context=" Refitted. ")
    assert airflow.asked == [
        ("release__loan-model", {"version": "3", "batch": "clean", "context": "Refitted."})
    ]
    assert run_id == "manual__1"
    assert new.startswith("loan-model-v3-")
    submit_again(world.deployment, airflow, release_id)
    assert airflow.asked[1][1] == {"version": "2", "batch": "clean", "context": "A test."}


def test_only_a_stopped_release_is_tried_again_and_only_with_a_version_that_exists(world: World) -> None:
    airflow: Any = Airflow()
    waiting = world.judged("3")
    with pytest.raises(ConflictError):
        submit_again(world.deployment, airflow, waiting)
    denied = world.judged("2", verdicts={"performance": Verdict.FAILED}, run="other")
    with pytest.raises(InvalidInputError, match="is no version"):
        submit_again(world.deployment, airflow, denied, version="latest; rm -rf")
    with pytest.raises(NotFoundError):
        submit_again(world.deployment, airflow, denied, version="999")
    assert airflow.asked == []
