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
from airlock.core.errors import NotFoundError
from airlock.core.evidence import Evidence, GateResult, Metric, Verdict
from airlock.core.policy import Policy
from airlock.core.replay import rejudge
from airlock.services import waivers
from airlock.services.canary import canary_report, try_canary
from airlock.services.decide import decide
from airlock.services.releases import open_case
from airlock.services.replay import replay
from airlock.services.zombies import rule_use
from tests.support.deployments import (
    HOUR_US,
    START_US,
    Killed,
    World,
    fast_folder,
    make_world,
    policy_data,
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


# Gates judged again


def record(
    value: float, verdict: Verdict, *, interval: tuple[float, float] | None = None, **config: Any
) -> Evidence:
    metric = Metric(name="psi", value=value, threshold=config["psi"], direction="lower", interval=interval)
    result = GateResult(verdict=verdict, summary="as told", metrics=[metric])
    return Evidence(release_id="r", manifest_digest="0" * 64, gate="drift", config=config, result=result)


@pytest.mark.requirement("P-4")
@pytest.mark.parametrize(
    ("evidence", "config", "expected"),
    [
        (record(0.1, Verdict.PASSED, psi=0.2), {"psi": 0.2}, Verdict.PASSED),
        (record(0.1, Verdict.PASSED, psi=0.2), {"psi": 0.3}, Verdict.PASSED),
        (record(0.1, Verdict.PASSED, psi=0.2), {"psi": 0.15}, Verdict.PASSED),
        (record(0.1, Verdict.PASSED, psi=0.2), {"psi": 0.05}, Verdict.FAILED),
        (record(0.1, Verdict.PASSED, psi=0.2, interval=(0.01, 0.3)), {"psi": 0.05}, None),
        (record(0.1, Verdict.WARNED, psi=0.2), {"psi": 0.05}, None),
        (record(0.3, Verdict.FAILED, psi=0.2), {"psi": 0.4}, None),
        (record(0.3, Verdict.FAILED, psi=0.2), {"psi": 0.1}, Verdict.FAILED),
        (record(0.3, Verdict.ERROR, psi=0.2), {"psi": 0.4}, Verdict.ERROR),
        (record(0.1, Verdict.PASSED, psi=0.2, rows=5), {"psi": 0.2, "rows": 9}, None),
        (record(0.1, Verdict.PASSED, psi=0.2), {"psi": "0.2"}, None),
        (record(0.1, Verdict.PASSED, psi=0.2), {}, None),
    ],
)
def test_a_gate_is_judged_again_only_where_its_numbers_tell(
    evidence: Evidence, config: dict[str, Any], expected: Verdict | None
) -> None:
    assert rejudge(evidence, config) is expected


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_looser_never_fails_and_tighter_never_passes(value: float, old: float, new: float) -> None:
    verdict = Verdict.PASSED if value <= old else Verdict.FAILED
    after = rejudge(record(value, verdict, psi=old), {"psi": new})
    if new >= old and verdict is Verdict.PASSED:
        assert after is Verdict.PASSED
    if new <= old and verdict is Verdict.FAILED:
        assert after is Verdict.FAILED


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
