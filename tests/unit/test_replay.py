"""Replay, canary and zombie rules: another policy on what was decided, and what it would change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.audit import Kind
from airlock.core.canary import Canary
from airlock.core.decision import Outcome
from airlock.core.errors import NotFoundError
from airlock.core.evidence import GateResult, Metric, Verdict
from airlock.core.policy import Policy
from airlock.services import waivers
from airlock.services.canary import canary_report, try_canary
from airlock.services.decide import decide
from airlock.services.evaluate import keep_evidence
from airlock.services.releases import open_case
from airlock.services.replay import Replay, replay
from airlock.services.zombies import rule_use
from tests.support.deployments import (
    HOUR_US,
    START_US,
    Killed,
    World,
    fast_folder,
    make_world,
    policy_data,
    shipped_gates,
    write_yaml,
)
from tests.unit.test_waiver_service import GATES, granted


@pytest.fixture(scope="module")
def pristine() -> Iterator[World]:
    """Five decided releases: green, yellow, red, one denied, one that rests on a waiver."""
    with fast_folder() as folder:
        world = make_world(folder / "0")
        write_yaml(world.policy_file, policy_data(GATES))
        for track in ("green", "yellow", "red"):
            world.judged(run=track, track=track)
            world.clock.advance(hours=1)
        world.judged(run="denied", track="green", verdicts={"documentation": Verdict.FAILED})
        world.clock.advance(hours=1)
        granted(world)
        world.judged(run="waived", track="green", verdicts={"privacy": Verdict.FAILED})
        yield world


@pytest.fixture
def world(pristine: World) -> Iterator[World]:
    with fast_folder() as folder:
        yield pristine.copy(folder / "1")


def other(version: str = "1.1.0", **limits: float) -> Policy:
    data = policy_data(GATES, version=version)
    for name, value in limits.items():
        data["limits"][name]["value"] = value
    return Policy.model_validate(data)


@pytest.mark.requirement("P-4")
def test_the_same_rules_change_nothing_and_write_nothing(world: World) -> None:
    before = len(world.deployment.audit.events())
    report = replay(world.deployment, other())
    assert (report.total, report.changed, report.unsure, report.failed) == (5, [], [], {})
    assert report.to_data()["same"] == 5
    assert len(world.deployment.audit.events()) == before


@pytest.mark.requirement("P-4")
def test_a_limit_that_moves_says_whose_track_and_seats_change_and_why(world: World) -> None:
    report = replay(world.deployment, other(red_change=0.08))
    (found,) = report.changed
    assert found.changed == ["track", "seats"]
    assert (found.before["track"], found.after["track"]) == ("yellow", "red")
    assert found.after["seats"] == ["governance-analyst", "risk-officer"]
    assert any("track-red fires now (track red): performance changes by 10.0 %" in why for why in found.why)
    lighter = replay(world.deployment, other(red_change=0.5, green_change=0.4))
    assert [(one.before["track"], one.after["track"]) for one in lighter.changed] == [
        ("yellow", "green"),
        ("red", "green"),
    ]


@pytest.mark.requirement("P-4", "A-8")
def test_waivers_count_as_they_did_and_only_where_the_policy_takes_them(world: World) -> None:
    data = policy_data(GATES, version="1.1.0")
    data["waivers"]["waivable"] = ["gate-documentation"]
    report = replay(world.deployment, Policy.model_validate(data))
    (found,) = report.changed
    assert (found.before["outcome"], found.after["outcome"]) == ("PENDING", "DENY")
    assert "gate-privacy is not waived any more" in found.why
    # Taken back afterwards, it was still in force when the release was decided.
    (request,) = waivers.list_waivers(world.deployment)
    world.clock.advance(hours=1)
    waivers.revoke(world.deployment, request.waiver_id, user="gita", reason="It is not needed.", when="1")
    assert replay(world.deployment, other()).changed == []


@pytest.mark.requirement("P-4")
def test_what_only_a_re_run_can_tell_is_said_and_not_guessed(world: World) -> None:
    data = policy_data((*GATES, "drift"), version="1.1.0")
    data["gates"]["documentation"] = {**data["gates"]["documentation"], "minimum_words": 9999}
    report = replay(world.deployment, Policy.model_validate(data))
    assert len(report.unsure) == 5
    assert {tuple(one.unsure) for one in report.unsure} >= {("documentation", "drift")}
    assert report.changed == [], "what is not known changes nothing"
    dropped = policy_data(("performance",), version="1.1.0")
    freed = {one.release_id: one for one in replay(world.deployment, Policy.model_validate(dropped)).changed}
    assert sorted((one.before["outcome"], one.after["outcome"]) for one in freed.values()) == [
        ("DENY", "ALLOW"),
        ("PENDING", "ALLOW"),
    ]


@pytest.mark.requirement("P-4")
def test_a_gates_limit_that_moves_is_judged_from_its_stored_numbers(world: World) -> None:
    world.clock.advance(hours=1)
    release_id = world.frozen(run="measured")
    world.evidence(release_id, relative=0.01, verdicts={"performance": None})
    case, config = open_case(world.deployment, release_id), shipped_gates()["performance"]
    metric = Metric(
        name="roc_auc", value=0.8, threshold=config["floors"]["roc_auc"], direction="higher",
        interval=(0.75, 0.85), n=500,
    )  # fmt: skip
    change = {"change": {"relative": 0.01, "direction": "better", "metric": "roc_auc"}}
    result = GateResult(verdict=Verdict.PASSED, summary="fine", metrics=[metric], details=change)
    keep_evidence(world.deployment, case, "performance", config=config, result=result, seconds=1)
    assert decide(world.deployment, release_id).outcome is Outcome.ALLOW

    def under(**changes: Any) -> Replay:
        data = policy_data(GATES, version="1.1.0")
        data["gates"]["performance"] = {**config, **changes}
        return replay(world.deployment, Policy.model_validate(data), since_us=world.clock.us)

    floor = {**config["floors"], "roc_auc": 0.9}
    (found,) = under(floors=floor).changed
    assert (found.before["outcome"], found.after["outcome"], found.unsure) == ("ALLOW", "DENY", [])
    assert found.why == ["gate-performance fires now (deny): performance would say FAILED under policy 1.1.0"]
    for harmless in ({**floor, "roc_auc": 0.7}, {**floor, "roc_auc": 0.8}):
        report = under(floors=harmless)
        assert (report.total, report.changed, report.unsure) == (1, [], [])
    report = under(floors=floor, minimum_rows=5000)
    assert [one.unsure for one in report.unsure] == [["performance"]]
    assert report.changed == []


def test_since_and_workload_narrow_it_and_many_processes_say_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = other(red_change=0.08)
    assert replay(world.deployment, policy, since_us=START_US + 2 * HOUR_US).total == 3
    assert replay(world.deployment, policy, workload="another").total == 0
    alone = replay(world.deployment, policy, processes=1)
    monkeypatch.setattr("airlock.services.replay.ALONE", 2)
    monkeypatch.setattr("airlock.services.replay.CHUNK", 2)
    assert replay(world.deployment, policy, processes=2).to_data() == alone.to_data()


def test_a_release_that_cannot_be_read_hides_no_other(world: World) -> None:
    (event, *_) = world.events(Kind.RELEASE_DECIDED)
    world.evidence_file(str(event.data["decision"])).write_bytes(b"{}")
    report = replay(world.deployment, other(red_change=0.08))
    assert list(report.failed) == [event.release_id]
    assert "was changed on disk" in report.failed[event.release_id]
    assert len(report.changed) == 1


# Canary


def put_canary(world: World, share: float = 1.0, **limits: float) -> None:
    data = policy_data(GATES, version="1.1.0")
    for name, value in limits.items():
        data["limits"][name]["value"] = value
    write_yaml(world.config / "policies" / "1.1.0" / "policy.yaml", data)
    write_yaml(world.config / "canary.yaml", {"policy": "1.1.0", "share": share})


@pytest.mark.requirement("P-4")
def test_a_canary_records_that_it_disagrees_and_binds_nobody(world: World) -> None:
    put_canary(world, red_change=0.08)
    release_id = world.judged(run="tried", track="yellow")
    assert str(world.decision(release_id).track) == "yellow"
    (event,) = world.events(Kind.CANARY_EVALUATED, release_id)
    assert (event.data["agrees"], event.data["changed"]) == (False, ["track", "seats"])
    world.judged(run="agreed", track="green")
    report = canary_report(world.deployment)
    assert (report.policy, report.total, report.agreed) == ("1.1.0", 2, 1)
    assert "track-red fires now" in report.to_data()["disagreements"][0]["why"][0]
    with pytest.raises(NotFoundError, match=r"policy 2\.0\.0"):
        canary_report(world.deployment, "2.0.0")


@pytest.mark.requirement("P-4")
@pytest.mark.parametrize("broken", ["no policy", "bad file", "bad policy"])
def test_a_broken_canary_stops_no_release(world: World, broken: str) -> None:
    put_canary(world)
    if broken == "no policy":
        write_yaml(world.config / "canary.yaml", {"policy": "9.9.9", "share": 1})
    elif broken == "bad file":
        (world.config / "canary.yaml").write_text("policy: [", encoding="utf-8")
    else:
        (world.config / "policies" / "1.1.0" / "policy.yaml").write_text("rules: 3", encoding="utf-8")
    release_id = world.judged(run="tried", track="green")
    assert str(world.decision(release_id).outcome) == "ALLOW"
    said = world.events(Kind.CANARY_EVALUATED, release_id)
    assert [event.data["agrees"] for event in said] == ([] if broken == "bad file" else [None])


def test_a_canary_that_was_killed_is_tried_when_the_decision_is_asked_again(world: World) -> None:
    put_canary(world, red_change=0.08)
    release_id = world.frozen(run="killed")
    world.evidence(release_id)
    killed = 0
    while not world.events(Kind.RELEASE_DECIDED, release_id):
        killed += 1
        world.failpoints.stop_at(killed, Killed())
        try:
            decide(world.watched(), release_id)
        except Killed:
            continue
    decide(world.deployment, release_id)
    decide(world.deployment, release_id)
    assert len(world.events(Kind.CANARY_EVALUATED, release_id)) == 1
    (world.config / "canary.yaml").unlink()
    case = open_case(world.deployment, release_id)
    assert try_canary(world.deployment, case, world.events(Kind.RELEASE_DECIDED, release_id)[0]) is None


@given(st.floats(0, 1), st.floats(0, 1), st.text(min_size=1, max_size=20))
def test_a_larger_share_takes_all_a_smaller_one_takes(one: float, two: float, release_id: str) -> None:
    small, large = (Canary(policy="1.0.0", share=share) for share in sorted((one, two)))
    assert not small.takes(release_id, "w") or large.takes(release_id, "w")
    assert not Canary(policy="1.0.0", share=0).takes(release_id, "w")
    assert Canary(policy="1.0.0", share=1).takes(release_id, "w")
    assert not Canary(policy="1.0.0", share=1, workloads=["other"]).takes(release_id, "w")


def test_a_share_is_about_that_share() -> None:
    canary = Canary(policy="1.0.0", share=0.2)
    taken = sum(canary.takes(f"loan-v{number}", "loan") for number in range(5000))
    assert 900 < taken < 1100


# Zombies


@pytest.mark.requirement("P-5")
def test_rules_that_do_nothing_are_named_with_what_the_others_cost(world: World) -> None:
    data = policy_data(GATES)
    data["rules"].append({**data["rules"][-1], "id": "track-new"})
    data["rules"].append({**data["rules"][-1], "id": "track-old", "expires": "2025-01-01"})
    report = rule_use(world.deployment, Policy.model_validate(data), today=date(2026, 1, 2))
    use = {one.rule: one for one in report.rules}
    assert report.releases == 5
    assert {name: one.verdict for name, one in use.items()} == {
        "tier-regulated": "never fires",
        "track-first": "never fires",
        "track-red": "",
        "track-yellow": "",
        "track-new": "never asked",
        "track-old": "expired",
    }
    assert (use["track-red"].evaluated, use["track-red"].fired) == (5, 1)
    assert all(one.median_us is not None and one.median_us > 0 for one in report.rules)
    assert report.gates["gate-documentation"] == 1
    assert rule_use(world.deployment, other(), today=date(2026, 1, 2), since_us=2**52).releases == 0
