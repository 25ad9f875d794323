"""Rollback: back to what is fit under today's policy, whatever happens on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from airlock.core.audit import Event, Kind
from airlock.core.errors import (
    AirlockError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from airlock.core.release import State
from airlock.ports import ModelVersion
from airlock.services import rollback as service
from airlock.services.adopt import adopt
from airlock.services.deployment import SYSTEM
from airlock.services.incidents import list_incidents, open_incident
from airlock.services.moves import moves_of
from airlock.services.promote import promote
from airlock.services.questions.champions import production
from airlock.services.releases import find_release, state_of
from airlock.services.rollback import dry_run, may_roll_back, rollback
from airlock.services.rollback_checks import Plan, feature_problems
from airlock.services.waivers import in_production
from tests.support.deployments import (
    WORKLOAD,
    Killed,
    World,
    edit,
    fast_folder,
    in_operation,
    write_yaml,
)

pytestmark = pytest.mark.requirement("R-3")

Copy = Callable[[], World]
REASON = "it declines everybody"


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        yield in_operation(folder / "template")


@pytest.fixture
def copy(template: World) -> Iterator[Copy]:
    with fast_folder() as folder:
        numbers = iter(range(10_000))
        yield lambda: template.copy(folder / f"world-{next(numbers)}")


@pytest.fixture
def world(copy: Copy) -> World:
    return copy()


def back(world: World, **changes: Any) -> Event:
    values: dict[str, Any] = {"actor": "petra", "reason": REASON, "wait_seconds": 0}
    return rollback(world.deployment, WORKLOAD, **{**values, **changes})


def tags(world: World, version: str) -> dict[str, str]:
    return world.registry.models[WORKLOAD][version].tags


def edit_yaml(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    write_yaml(path, data)


def plan_of(world: World, event: Event) -> Plan:
    return Plan.from_bytes(world.deployment.evidence.get(event.data["plan"]))


# Going back


def test_the_version_before_takes_over_and_everything_says_so(world: World) -> None:
    event = back(world)
    assert (world.champion, event.data["to"], event.version, event.actor) == ("2", "2", "3", "petra")
    assert event.release_id == world.releases["3"]
    assert event.data["to_release"] == world.releases["2"]
    assert tags(world, "3")["airlock.state"] == "rolled-back"
    assert tags(world, "2")["airlock.state"] == "champion"
    assert tags(world, "3")["airlock.incident"] == event.data["incident"]
    assert (
        state_of(world.deployment, find_release(world.deployment, world.releases["3"])) is State.ROLLED_BACK
    )
    kinds = [entry.event.kind for entry in world.deployment.audit.events(workload=WORKLOAD)][-3:]
    assert kinds == [Kind.ROLLBACK_STARTED, Kind.INCIDENT_OPENED, Kind.ROLLBACK_FINISHED]
    assert world.events(Kind.CONFLICT) == []


def test_the_trial_runs_while_the_registry_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = world.deployment.registry
    ask = registry.champion
    seen = []

    def champion(name: str) -> ModelVersion | None:
        end = time.monotonic() + 300
        while not world.trials.tried and time.monotonic() < end:
            time.sleep(0.01)
        seen.append(list(world.trials.tried))
        return ask(name)

    monkeypatch.setattr(registry, "champion", champion)
    back(world)
    assert seen[0] == ["weights 2"]
    assert world.trials.tried == ["weights 2"], "and it is not run again"


def test_every_check_is_named_in_the_stored_plan(world: World) -> None:
    plan = plan_of(world, back(world))
    (one,) = plan.considered
    assert one.fit
    assert [check.name for check in one.checks] == [
        "in production before", "waivers", "approval", "policy of today", "quarantine", "files", "features",
        "trial",
    ]  # fmt: skip
    assert world.trials.tried == ["weights 2"]
    assert "3 rows" in one.checks[-1].sentence


def test_a_reason_is_kept_encrypted_and_only_once(world: World) -> None:
    event = back(world, reason="Ms Example was declined by mistake")
    (started,) = world.events(Kind.ROLLBACK_STARTED)
    assert started.data["reason"] == "Ms Example was declined by mistake"
    bodies = b"".join(world.deployment.log.bodies(0, world.deployment.log.head().size))
    assert b"Ms Example" not in bodies
    assert "reason" not in event.data


def test_a_dry_run_shows_the_same_and_changes_nothing(world: World) -> None:
    before = len(world.deployment.audit.events())
    plan = dry_run(world.deployment, WORKLOAD)
    assert (plan.how, plan.leaving, plan.to) == ("version", "3", "2")
    assert plan.sentence == "version 2 takes over from version 3"
    assert (world.champion, world.registry.moves) == ("3", [])
    assert len(world.deployment.audit.events()) == before
    event = back(world)
    assert plan_of(world, event) == plan


def test_a_named_version_is_taken(world: World) -> None:
    event = back(world, to="1")
    assert (world.champion, event.data["to"]) == ("1", "1")
    names = [check.name for check in plan_of(world, event).considered[0].checks]
    assert names == ["in production before", "policy of today", "quarantine", "files", "features", "trial"]


def test_going_forward_again_is_a_rollback_to_a_named_version(world: World) -> None:
    back(world)
    event = back(world, to="3", reason="the fire was elsewhere")
    assert (world.champion, event.data["from"], event.data["to"]) == ("3", "2", "3")
    assert tags(world, "3")["airlock.state"] == "champion"
    assert moves_of(world.deployment, WORKLOAD).left == {"2"}


@pytest.mark.requirement("E-4")
def test_what_was_in_production_is_answered_over_rollbacks(world: World) -> None:
    world.clock.advance(hours=1)
    until_3 = world.clock.us
    back(world)
    world.clock.advance(hours=1)
    back(world, to="1")
    answer = production(world.deployment, WORKLOAD)
    assert [(period.version, period.how) for period in answer.periods] == [
        ("1", "rolled back"), ("2", "rolled back"), ("3", "promoted"), ("2", "promoted"), ("1", "adopted"),
    ]  # fmt: skip
    assert [period.notes for period in answer.periods][:4] == [(), (), (), ()]
    then = production(world.deployment, WORKLOAD, since_us=until_3 - 1, until_us=until_3)
    assert [period.version for period in then.periods] == ["3"]
    assert answer.periods[0].user == "petra"
    assert answer.periods[0].reason == REASON
    assert answer.open_starts == ()


def test_what_rests_on_a_waiver_is_asked_of_what_is_in_production_after_a_rollback(world: World) -> None:
    assert [event.version for event in in_production(world.deployment)] == ["3"]
    back(world)
    assert [event.version for event in in_production(world.deployment)] == ["2"]
    back(world, to="1")
    assert in_production(world.deployment) == []


# Who may


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize("user", ["dana", "grace", "vera", "nobody", ""])
def test_who_holds_no_role_of_the_policy_is_refused_and_recorded(world: World, user: str) -> None:
    assert "may not roll back" in may_roll_back(world.deployment, WORKLOAD, user)
    with pytest.raises(RefusedError, match="may not roll back: it takes the role ml-platform-engineer or"):
        back(world, actor=user)
    (refused,) = world.events(Kind.ROLLBACK_REFUSED)
    assert refused.actor == (user or "nobody")
    assert world.champion == "3"
    assert world.events(Kind.ROLLBACK_STARTED) == []


def test_roles_are_those_of_the_policy(world: World) -> None:
    assert may_roll_back(world.deployment, WORKLOAD, "ravi") == ""
    republish(world, {"rollback": {"roles": ["governance-analyst"]}})
    with pytest.raises(RefusedError, match="governance-analyst; roles held: risk-officer"):
        back(world, actor="ravi")
    assert back(world, actor="grace").data["to"] == "2"


def republish(world: World, operations: dict[str, Any], version: str = "1.1.0", **changes: Any) -> None:
    """Another policy, as if its owners had published it, and the workload pinned to it."""
    from airlock.services.publish import published

    published(world.deployment)
    data = yaml.safe_load(world.policy_file.read_text())
    data |= {"version": version, "operations": operations, **changes}
    write_yaml(world.config / "policies" / version / "policy.yaml", data)
    policy = world.deployment.config.policy(version)
    world.deployment.record(
        Kind.POLICY_PUBLISHED,
        f"policy/published/{version}",
        data={"policies": {version: world.deployment.evidence.put(policy.to_bytes())}, "first": False},
    )
    edit(world.workload_file, "policy: 1.0.0", f"policy: {version}")


def test_the_policy_acts_only_for_an_incident(world: World) -> None:
    with pytest.raises(RefusedError, match="names the incident"):
        back(world, actor=SYSTEM)
    incident = incident_for(world)
    event = back(world, actor=SYSTEM, incident_id=incident)
    assert (event.actor, event.data["incident"]) == (SYSTEM, incident)
    assert [one.incident_id for one in list_incidents(world.deployment)] == [incident]


def incident_for(world: World, cause: str = "drift/loan-model") -> str:
    return open_incident(
        world.deployment, workload=WORKLOAD, version="3", action="rollback", severity="high",
        summary="drift", cause=cause, detected_us=world.clock.us,
    )  # fmt: skip


def test_a_policy_can_leave_it_to_people(world: World) -> None:
    republish(world, {"rollback": {"automatic": False}})
    with pytest.raises(RefusedError, match="nobody but a person"):
        back(world, actor=SYSTEM, incident_id=incident_for(world))


@pytest.mark.parametrize("reason", ["", "  x  ", "x" * 5000])
def test_a_reason_is_needed(world: World, reason: str) -> None:
    with pytest.raises(RefusedError, match="the reason"):
        back(world, reason=reason)
    assert world.champion == "3"


def test_an_edited_policy_rolls_nothing_back(world: World) -> None:
    """Else whoever can write the file could say who may, and what is fit."""
    edit(world.policy_file, "expires_hours: 72", "expires_hours: 71")
    with pytest.raises(AirlockError, match="published"):
        back(world)
    assert world.champion == "3"


def test_an_unknown_workload_is_told(world: World) -> None:
    with pytest.raises(NotFoundError, match="no workload"):
        rollback(world.deployment, "other", actor="petra", reason=REASON)


# What is fit


def spoil_files(world: World) -> None:
    world.registry.models[WORKLOAD]["2"].files["model.skops"] = b"other weights"


def spoil_tag(world: World) -> None:
    world.registry.quarantine(WORKLOAD, "2", "unsafe pickle")


def spoil_trial(world: World) -> None:
    world.trials.broken.add("weights 2")


def spoil_registry(world: World) -> None:
    del world.registry.models[WORKLOAD]["2"]


SPOILED = {
    "its files changed since it was released": spoil_files,
    "it is quarantined: unsafe pickle": spoil_tag,
    "the model gives no answers": spoil_trial,
    "does not know loan-model version 2": spoil_registry,
}


@pytest.mark.parametrize("said", SPOILED)
def test_a_version_that_is_not_fit_is_passed_over_for_the_one_before(world: World, said: str) -> None:
    SPOILED[said](world)
    event = back(world)
    assert (world.champion, event.data["to"]) == ("1", "1")
    first, second = plan_of(world, event).considered
    assert (first.version, first.fit, second.version, second.fit) == ("2", False, "1", True)
    assert said in "; ".join(first.problems)


@pytest.mark.parametrize("said", SPOILED)
def test_a_named_version_that_is_not_fit_changes_nothing(world: World, said: str) -> None:
    SPOILED[said](world)
    with pytest.raises(RefusedError, match=said):
        back(world, to="2")
    assert world.champion == "3"
    (refused,) = world.events(Kind.ROLLBACK_REFUSED)
    assert refused.data["to"] == "2"
    assert world.events(Kind.INCIDENT_OPENED) == []


def test_a_version_that_was_never_in_production_is_refused(world: World) -> None:
    world.registry.register("4")
    with pytest.raises(RefusedError, match="version 4 was never in production"):
        back(world, to="4")


def test_a_version_that_is_there_already_is_refused(world: World) -> None:
    with pytest.raises(RefusedError, match="version 3 is in production already"):
        back(world, to="3")


@pytest.mark.requirement("R-3", "P-2")
def test_a_version_that_today_s_policy_denies_does_not_return(world: World) -> None:
    data = yaml.safe_load(world.policy_file.read_text())
    rule = {
        **data["rules"][2], "id": "deny-large", "when": "candidate.performance.relative_change > 0.2",
        "effect": {"deny": True}, "because": "too much changed", "otherwise": "little changed",
    }  # fmt: skip
    republish(world, {}, rules=[*data["rules"], rule])
    event = back(world)
    assert event.data["to"] == "1"
    assert "policy 1.1.0 denies it: deny-large fires now" in plan_of(world, event).considered[0].problems[0]


def test_a_gate_that_would_have_to_run_again_counts_against_a_version_unless_policy_says_so(
    copy: Copy,
) -> None:
    world = copy()
    gates = yaml.safe_load(world.policy_file.read_text())["gates"]
    from tests.support.deployments import shipped_gates

    more = {**gates, "cost": shipped_gates()["cost"]}
    republish(world, {}, gates=more, roles=roles_with(world, "cost"))
    event = back(world)
    assert event.data["to"] == "1"
    assert "only a new run of cost could say" in plan_of(world, event).considered[0].problems[0]
    world = copy()
    republish(world, {"rollback": {"unsure": True}}, gates=more, roles=roles_with(world, "cost"))
    assert back(world).data["to"] == "2"


def roles_with(world: World, gate: str) -> dict[str, Any]:
    roles: dict[str, Any] = yaml.safe_load(world.policy_file.read_text())["roles"]
    roles["ml-platform-engineer"]["gates"] = [gate]
    return roles


def test_an_adopted_version_returns_only_where_the_policy_lets_it(world: World) -> None:
    spoil_trial(world)
    republish(world, {"rollback": {"adopted": False}})
    event = back(world)
    assert event.data["how"] == "quarantine"
    assert (
        "adopted, never judged; the policy does not let it return"
        in (plan_of(world, event).considered[1].problems[0])
    )


@pytest.mark.requirement("A-7")
def test_a_version_whose_approval_does_not_hold_any_more_does_not_return(world: World) -> None:
    approval = yaml.safe_load(world.policy_file.read_text())["approval"]
    republish(world, {}, approval={**approval, "condition_days": 30})
    for version in ("4", "5"):
        world.registry.register(version)
    release_id = world.judged("4", run="run-4")
    world.answer(release_id, "grace", 0, condition="Show a month of shadow traffic.", until="2026-01-05")
    world.answer(release_id, "ravi", 1)
    promote(world.deployment, release_id)
    world.promoted("5")
    assert dry_run(world.deployment, WORKLOAD).to == "4", "its condition has time left"
    world.clock.advance(hours=24 * 6)
    event = back(world)
    assert event.data["to"] == "3"
    assert plan_of(world, event).considered[0].problems == [
        "the approval of grace (governance-analyst) does not hold: its condition was not met"
    ]


def test_a_broken_sandbox_says_nothing_about_a_version(world: World) -> None:
    """Else a worker without bubblewrap would take every model out of production."""
    world.trials.unavailable = True
    with pytest.raises(UnavailableError, match="no trial could be run"):
        back(world)
    assert world.champion == "3"
    assert world.events(Kind.ROLLBACK_STARTED) == []


def test_a_busy_machine_takes_nothing_out_of_production(world: World) -> None:
    """A trial that runs out of time says little; another version that answers is taken all the same."""
    world.trials.slow |= {"weights 1", "weights 2"}
    with pytest.raises(UnavailableError, match="the trial of version 2, 1 did not end in time"):
        back(world)
    assert (world.champion, world.events(Kind.ROLLBACK_STARTED)) == ("3", [])
    world.trials.slow.remove("weights 1")
    assert back(world).data["to"] == "1"


@pytest.mark.parametrize(
    ("inputs", "features", "schema", "said"),
    [
        ({"income": "double"}, ["income"], {"income": "number"}, []),
        ({"income": "long"}, ["income"], {"income": "number", "extra": "text"}, []),
        ({}, ["income"], {}, []),
        (
            {"income": "double"},
            ["debt"],
            {"income": "number"},
            ["the workload does not name income any more"],
        ),
        ({"income": "double"}, ["income"], {"debt": "number"}, ["today's data has no column income"]),
        (
            {"income": "double"},
            ["income"],
            {"income": "text"},
            ["income holds texts in today's data, and the version takes numbers"],
        ),
        ({"when": "datetime"}, ["when"], {"when": "text"}, []),
    ],
)
def test_features_fit_or_are_named(
    inputs: dict[str, str], features: list[str], schema: dict[str, str], said: list[str]
) -> None:
    assert feature_problems(inputs, features, schema) == said


def logged(world: World, **columns: list[Any]) -> None:
    """A production log whose newest file has these columns."""
    import pyarrow as pa
    import pyarrow.parquet

    edit_yaml(world.workload_file, lambda data: data.update(monitoring={"log": {"parquet": "loan/log"}}))
    for day, table in (("2026-01-01", {"income": [1.0], "debt": [1.0]}), ("2026-01-02", columns)):
        folder = world.deployment.settings.data_root / "loan" / "log" / "predictions" / f"day={day}"
        folder.mkdir(parents=True)
        pa.parquet.write_table(pa.table(table), folder / "1.parquet")


def test_today_s_data_is_what_is_predicted_in_production_where_that_is_logged(world: World) -> None:
    logged(world, income=[1.0, 2.0], debt=[0.5, 0.1], airlock_id=["a", "b"])
    plan = dry_run(world.deployment, WORKLOAD)
    assert plan.considered[0].checks[-1].sentence == "it answered 3 rows of the production log in the sandbox"
    assert back(world).data["to"] == "2"


def test_a_log_without_features_says_nothing_about_them(world: World) -> None:
    logged(world, airlock_id=["a", "b"])
    plan = dry_run(world.deployment, WORKLOAD)
    assert plan.considered[0].checks[-1].sentence == "it answered 3 rows of batch clean in the sandbox"


def test_a_renamed_column_keeps_a_version_out(world: World) -> None:
    world.trials.features = ["income", "debt", "age"]
    event = back(world)
    assert event.data["how"] == "quarantine"
    assert "uses columns the workload does not name: age" in plan_of(world, event).considered[0].problems[0]


# Nothing is fit


def nothing_fits(world: World) -> None:
    world.trials.broken |= {"weights 1", "weights 2"}


@pytest.mark.requirement("R-5")
def test_where_nothing_is_fit_the_champion_is_taken_out_and_quarantined(world: World) -> None:
    nothing_fits(world)
    event = back(world)
    assert (world.champion, event.data["how"], event.data["to"]) == (None, "quarantine", "")
    assert tags(world, "3")["airlock.state"] == "quarantined"
    (quarantined,) = world.events(Kind.VERSION_QUARANTINED)
    assert (quarantined.version, quarantined.release_id) == ("3", world.releases["3"])
    answer = production(world.deployment, WORKLOAD)
    assert (answer.periods[0].version, answer.periods[0].how) == ("", "rolled back")


@pytest.mark.requirement("R-5")
def test_a_named_fallback_version_takes_over(world: World) -> None:
    nothing_fits(world)
    world.registry.register("9")
    edit_yaml(
        world.workload_file, lambda data: data.update(fallback={"version": "9", "reason": "declines nobody"})
    )
    event = back(world)
    assert (world.champion, event.data["how"]) == ("9", "fallback")
    assert tags(world, "9")["airlock.state"] == "fallback"
    assert tags(world, "3")["airlock.state"] == "rolled-back"


@pytest.mark.requirement("R-5")
def test_a_fallback_that_does_not_answer_is_no_fallback(world: World) -> None:
    nothing_fits(world)
    world.registry.register("9")
    world.trials.broken.add("weights 9")
    edit_yaml(
        world.workload_file, lambda data: data.update(fallback={"version": "9", "reason": "declines nobody"})
    )
    assert back(world).data["how"] == "quarantine"
    assert world.champion is None


@pytest.mark.requirement("R-5")
@pytest.mark.parametrize("constant", [0, "ask a person", False, 0.25])
def test_a_constant_answer_stands_where_serving_can_read_it(world: World, constant: object) -> None:
    nothing_fits(world)
    edit_yaml(
        world.workload_file,
        lambda data: data.update(fallback={"constant": constant, "reason": "nobody is approved by mistake"}),
    )
    event = back(world)
    assert (world.champion, event.data["how"]) == (None, "constant")
    assert yaml.safe_load(world.registry.model_tags[WORKLOAD]["airlock.fallback"]) == constant
    assert tags(world, "3")["airlock.state"] == "rolled-back"


def test_after_nothing_was_left_only_a_release_or_a_rollback_brings_a_champion(world: World) -> None:
    nothing_fits(world)
    back(world)
    with pytest.raises(RefusedError, match="has had a champion under Airlock before"):
        adopt(world.deployment, WORKLOAD, "1", actor="root", reason="a way around")
    world.trials.broken.clear()
    event = back(world, to="2")
    assert (world.champion, event.data["from"]) == ("2", "")


@pytest.mark.requirement("R-5")
def test_a_version_can_be_quarantined_on_its_way_out(world: World) -> None:
    event = back(world, quarantine=True)
    assert (world.champion, event.data["how"]) == ("2", "version")
    assert tags(world, "3")["airlock.state"] == "quarantined"
    with pytest.raises(RefusedError, match="it is quarantined"):
        back(world, to="3")


# Twice, and beside others


def test_two_people_who_see_the_same_fire_go_back_one_version(world: World) -> None:
    first = back(world)
    world.clock.advance(us=60_000_000)
    assert back(world, actor="ravi", reason="everybody is declined") == first
    assert world.champion == "2"
    world.clock.advance(hours=1)
    assert back(world, actor="ravi").data["to"] == "1"


def test_the_same_incident_rolls_back_once_however_late(world: World) -> None:
    incident = incident_for(world)
    first = back(world, actor=SYSTEM, incident_id=incident)
    world.clock.advance(hours=48)
    assert back(world, actor=SYSTEM, incident_id=incident) == first
    assert world.champion == "2"


def test_the_same_named_version_is_rolled_back_to_once(world: World) -> None:
    first = back(world, to="1")
    assert back(world, to="1") == first
    assert len(world.events(Kind.ROLLBACK_STARTED)) == 1


def test_who_names_the_version_to_leave_never_takes_another_one_out(world: World) -> None:
    first = back(world, leaving="3")
    world.clock.advance(hours=5)
    assert back(world, leaving="3") == first
    with pytest.raises(RefusedError, match="version 1 is not in production: version 2 is"):
        back(world, leaving="1")
    assert world.champion == "2"


def test_a_version_that_was_rolled_back_is_not_gone_back_to(world: World) -> None:
    back(world)
    world.clock.advance(hours=1)
    back(world, to="3")
    world.clock.advance(hours=1)
    assert back(world).data["to"] == "1", "version 2 was left too"


@pytest.mark.requirement("R-1")
def test_a_release_that_was_judged_against_the_version_that_is_left_conflicts(world: World) -> None:
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    back(world)
    with pytest.raises(RefusedError, match="the champion is now version 2, but the candidate was compared"):
        promote(world.deployment, release_id)
    assert world.champion == "2"


@pytest.mark.requirement("R-1")
def test_a_promotion_that_loses_the_number_to_a_rollback_conflicts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    from airlock.services import promote as promoting

    real = promoting._start

    def late(*arguments: Any) -> Any:
        back(world)
        return real(*arguments)

    monkeypatch.setattr(promoting, "_start", late)
    with pytest.raises(ConflictError, match=r"is being moved: rollback\.started of version 3"):
        promote(world.deployment, release_id)
    assert world.champion == "2"


def test_a_rollback_that_loses_the_number_to_a_promotion_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    real = service._start

    def late(*arguments: Any) -> Any:
        promote(world.deployment, release_id)
        return real(*arguments)

    monkeypatch.setattr(service, "_start", late)
    with pytest.raises(ConflictError, match=r"is being moved by promotion\.started"):
        back(world)
    assert world.champion == "4"
    assert world.events(Kind.INCIDENT_OPENED) == [], "an incident of a rollback that never was"


def started_promotion(world: World, *, moved: bool) -> str:
    """A promotion of version 4 that was killed right before or after the alias moved."""
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    moment = f"{'after' if moved else 'before'} registry.set_champion"
    with fast_folder() as folder:
        twin = world.copy(folder / "twin")
        twin.failpoints.stop_at(0, Killed())
        promote(twin.watched(), release_id)
        number = twin.failpoints.reached.index(moment) + 1
    world.failpoints.stop_at(number, Killed())
    with pytest.raises(Killed):
        promote(world.watched(), release_id)
    return release_id


def test_a_promotion_that_died_before_it_moved_anything_is_ended(world: World) -> None:
    release_id = started_promotion(world, moved=False)
    event = back(world)
    assert (world.champion, event.data["from"]) == ("2", "3")
    (refused,) = world.events(Kind.PROMOTION_REFUSED)
    assert "a rollback took over" in refused.data["problems"][0]
    with pytest.raises(RefusedError, match="the champion is now version 2"):
        promote(world.deployment, release_id)
    assert world.champion == "2"


def test_a_promotion_that_died_after_it_moved_the_alias_is_finished_and_rolled_back(world: World) -> None:
    release_id = started_promotion(world, moved=True)
    assert world.champion == "4"
    event = back(world)
    assert (event.data["from"], event.data["to"], world.champion) == ("4", "3", "3")
    assert find_release(world.deployment, release_id).first(Kind.PROMOTION_FINISHED) is not None
    assert len(moves_of(world.deployment, WORKLOAD).running) == 0


def test_a_promotion_that_finishes_while_a_rollback_waits_is_not_rolled_back_unseen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_id = started_promotion(world, moved=False)
    monkeypatch.setattr(service.time, "sleep", lambda _: promote(world.deployment, release_id))
    with pytest.raises(ConflictError, match="version 4 went into production meanwhile, where version 3 was"):
        back(world, wait_seconds=20)
    assert world.champion == "4"


def test_a_promotion_that_wakes_up_after_a_rollback_ended_it_moves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one moment that hurts: it was checked, it had started, and then it slept."""
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    from airlock.services import promote as promoting

    real = promoting._refuse_overtaken
    slept: list[Event] = []

    def sleepy(*arguments: Any) -> None:
        if not slept:
            slept.append(back(world))
        real(*arguments)

    monkeypatch.setattr(promoting, "_refuse_overtaken", sleepy)
    with pytest.raises(ConflictError, match="was ended while its task was away"):
        promote(world.deployment, release_id)
    assert world.champion == "2"
    assert world.registry.moves[-1] == (WORKLOAD, "2")


def test_many_at_once_go_back_one_version(world: World) -> None:
    start = threading.Barrier(6)

    def one(number: int) -> Event | AirlockError:
        start.wait()
        try:
            return back(world, actor=("petra", "ravi")[number % 2], wait_seconds=5)
        except AirlockError as error:
            return error

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(one, range(6)))
    finished = {answer.key for answer in answers if isinstance(answer, Event)}
    assert len(finished) == 1
    assert all(isinstance(answer, Event | ConflictError) for answer in answers), answers
    assert (world.champion, world.registry.moves[-1]) == ("2", (WORKLOAD, "2"))
    assert len(world.events(Kind.ROLLBACK_FINISHED)) == 1
    assert len(world.events(Kind.INCIDENT_OPENED)) == 1


# Ends in the middle


def killed_at(world: World, number: int, error: BaseException) -> bool:
    world.failpoints.stop_at(number, error)
    try:
        rollback(world.watched(), WORKLOAD, actor="petra", reason=REASON, wait_seconds=0)
    except type(error):
        return True
    return False


@pytest.mark.slow
@pytest.mark.requirement("R-1", "E-1")
@pytest.mark.parametrize(
    ("error", "last"),
    [
        # Each step of these is killed with SIGKILL in test_killed_moves; every line only in the campaign.
        pytest.param(Killed(), False, marks=pytest.mark.soak),
        pytest.param(Killed(), True, marks=pytest.mark.soak),
        (UnavailableError("no acknowledgement came"), False),
    ],
)
def test_a_rollback_killed_at_any_moment_ends_with_one_champion_and_one_record(
    copy: Copy, error: BaseException, last: bool
) -> None:
    moments: set[str] = set()
    number = 0
    while True:
        number += 1
        world = copy()
        if last:
            nothing_fits(world)
        if not killed_at(world, number, error):
            break
        moments.add(world.failpoints.reached[-1])
        event = back(world, actor="ravi", reason="the same fire again")
        assert world.champion == (None if last else "2")
        assert world.registry.moves == [(WORKLOAD, "" if last else "2")], "moved twice"
        for kind in (Kind.ROLLBACK_STARTED, Kind.ROLLBACK_FINISHED, Kind.INCIDENT_OPENED):
            assert len(world.events(kind)) == 1
        assert len(world.events(Kind.VERSION_QUARANTINED)) == (1 if last else 0)
        assert world.events(Kind.CONFLICT) == []
        assert event.data["how"] == ("quarantine" if last else "version")
        assert moves_of(world.deployment, WORKLOAD).running == ()
    mover = "clear_champion" if last else "set_champion"
    assert {f"before registry.{mover}", f"after registry.{mover}", "after audit.append"} <= moments
    assert number > 20


def test_a_rollback_is_finished_as_it_was_started_whoever_goes_on(world: World) -> None:
    moments = 0
    with fast_folder() as folder:
        twin = world.copy(folder / "twin")
        twin.failpoints.stop_at(0, Killed())
        rollback(twin.watched(), WORKLOAD, actor="petra", reason=REASON)
        moments = twin.failpoints.reached.index("before registry.set_champion") + 1
    assert killed_at(world, moments, Killed())
    world.trials.broken.add("weights 2")  # what would be chosen now is another version
    event = back(world, actor="ravi")
    assert (event.actor, event.data["to"], world.champion) == ("petra", "2", "2")


def test_a_rollback_whose_version_is_gone_by_then_does_not_block_the_next(world: World) -> None:
    with fast_folder() as folder:
        twin = world.copy(folder / "twin")
        twin.failpoints.stop_at(0, Killed())
        rollback(twin.watched(), WORKLOAD, actor="petra", reason=REASON)
        number = twin.failpoints.reached.index("before registry.set_champion") + 1
    assert killed_at(world, number, Killed())
    del world.registry.models[WORKLOAD]["2"]
    event = back(world)
    assert (event.data["to"], world.champion) == ("1", "1")
    assert len(world.events(Kind.ROLLBACK_REFUSED)) == 1


def test_a_version_that_somebody_deleted_can_still_be_left(world: World) -> None:
    del world.registry.models[WORKLOAD]["3"]
    assert back(world).data["to"] == "2"


def test_a_registry_that_does_not_answer_changes_nothing_and_the_next_try_succeeds(copy: Copy) -> None:
    number = 0
    while True:
        number += 1
        world = copy()
        world.registry.fail_at(number)
        try:
            back(world)
            break
        except UnavailableError:
            assert world.champion in ("2", "3")
        back(world)
        assert (world.champion, len(world.events(Kind.ROLLBACK_FINISHED))) == ("2", 1)
    assert number > 6


def test_an_alias_that_somebody_moves_back_at_once_is_noticed(world: World) -> None:
    real = world.registry.set_champion

    def and_back(name: str, version: str, tags: Any) -> None:
        real(name, version, tags)
        world.registry.champions[name] = "3"

    world.registry.set_champion = and_back  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match="is at 3, not at 2"):
        back(world)
    assert world.events(Kind.ROLLBACK_FINISHED) == []
    world.registry.set_champion = real  # type: ignore[method-assign]
    assert back(world).data["to"] == "2"


def test_another_deployment_of_the_same_store_is_not_believed(world: World) -> None:
    world.deployment.audit.append(
        Event(
            key="other/rollback/loan-model/1/finished",
            kind=Kind.ROLLBACK_FINISHED,
            occurred_us=world.clock.us,
            actor="mallory",
            deployment="other",
            workload=WORKLOAD,
            version="3",
            data={"to": "1", "move": 9, "incident": ""},
        )
    )
    assert moves_of(world.deployment, WORKLOAD).champion == "3"
    assert back(world).data["to"] == "2"


def test_evidence_that_was_changed_keeps_a_version_out(world: World) -> None:
    line = find_release(world.deployment, world.releases["2"]).gates[0]
    world.evidence_file(line.digest).write_bytes(b"{}")
    event = back(world)
    assert event.data["to"] == "1"
    assert "cannot be decided again" in plan_of(world, event).considered[0].problems[0]
