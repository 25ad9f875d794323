"""Releases through a real Airflow, and every way round them that we could think of."""

from __future__ import annotations

import pytest

from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.demo import models
from airlock.services.watch import answer_release
from tests.support.small_workloads import RED
from tests.system.conftest import World, until


def answer(world: World, release_id: str, user: str, choice: str = "Approve", **kwargs: object) -> int:
    comment = str(kwargs.get("comment", "Looked at everything."))
    return answer_release(
        world.deployment,
        world.client(user),
        release_id,
        user=user,
        choice=choice,
        comment=comment,
        seat=int(str(kwargs.get("seat", 0))),
    )


def test_the_demo_ends_as_it_should(world: World) -> None:
    """It exited with 0, and left nothing behind: `world` looked."""
    told = world.demo
    assert "How the five releases ended" in told
    for words in ("promoted", "denied", "quarantined", "approved by grace", "four-fifths", "999999.4"):
        assert words in told
    assert "Traceback" not in told


@pytest.mark.requirement("A-1", "T-3")
def test_a_new_architecture_is_promoted_by_two_people(world: World) -> None:
    submitted = world.told["b"]
    assert submitted.wait() is State.PROMOTED
    decided = submitted.events(Kind.RELEASE_DECIDED)[0].data
    assert (decided["track"], decided["seats"]) == ("red", ["governance-analyst", "risk-officer"])
    assert submitted.events(Kind.PROMOTION_FINISHED)[0].data["approved_by"] == ["grace", "ravi"]


@pytest.mark.requirement("T-2", "T-3", "R-1", "E-1")
def test_a_small_refit_is_promoted_without_a_human(world: World) -> None:
    submitted = world.told["a"]
    assert submitted.wait() is State.PROMOTED
    assert submitted.finished() == "success"
    decided = submitted.events(Kind.RELEASE_DECIDED)[0].data
    assert (decided["outcome"], decided["track"], decided["seats"]) == ("ALLOW", "green", [])
    tags = world.deployment.registry.version(models.RATE_TYPE, submitted.version).tags
    assert tags["airlock.state"] == "champion"
    assert tags["airlock.release"] == submitted.release_id
    # Every task has an outcome, the seats that were skipped without running too.
    until(lambda: "yes" if "seat" in submitted.outcomes() else "")
    states = {name: set(found) for name, found in submitted.outcomes().items()}
    assert states.pop("seat") == {"skipped"}
    assert all(found == {"success"} for found in states.values()), states
    assert {"submit", "manifest", "score", "decide", "approval", "promote", "announce", "seal"} < set(states)
    # Nothing but ids and digests travels between tasks.
    for instance in world.client("admin").task_instances(submitted.dag_id, submitted.run_id):
        path = f"{submitted.path}/taskInstances/{instance['task_id']}/xcomEntries"
        for entry in world.client("admin").request("GET", path).json()["xcom_entries"]:
            value = world.client("admin").request("GET", f"{path}/{entry['key']}").json()["value"]
            assert "PASSED" not in str(value)
            assert len(str(value)) < 100


@pytest.mark.requirement("A-1", "A-2", "E-1")
def test_nobody_gets_round_the_approval(world: World) -> None:
    """Viewer, submitter with the right role, state by hand, forged XCom: nothing promotes anything."""
    submitted = world.submit_small(RED, user="omar")
    assert submitted.wait() is State.WAITING
    seat = f"{submitted.path}/taskInstances/seat"
    body = {"chosen_options": ["Approve"], "params_input": {"comment": "I say so"}}
    world.client("admin").wait_for_seat(submitted.dag_id, submitted.run_id, "seat", 0)

    assert world.client("vera").request("PATCH", f"{seat}/0/hitlDetails", json=body).status_code == 403
    assert world.client("omar").request("PATCH", f"{seat}/0/hitlDetails", json=body).status_code == 403
    assert world.client("admin").request("PATCH", f"{seat}/0/hitlDetails", json=body).status_code == 403
    forged = {"key": "return_value", "value": submitted.release_id}
    for task in ("approval", "promote"):
        path = f"{submitted.path}/taskInstances/{task}/xcomEntries"
        assert world.client("petra").request("POST", path, json=forged).status_code < 300
    for index in (0, 1):
        done = world.client("petra").request("PATCH", f"{seat}/{index}", json={"new_state": "success"})
        assert done.status_code == 200
    done = world.client("petra").request(
        "PATCH", f"{submitted.path}/taskInstances/approval", json={"new_state": "success"}
    )
    assert done.status_code == 200

    assert submitted.wait(through_waiting=True) is State.REFUSED
    submitted.finished()
    assert world.deployment.registry.champion(RED) is None
    refused = submitted.events(Kind.PROMOTION_REFUSED)[0].data["problems"]
    assert refused == ["the audit store holds no approval by governance-analyst, risk-officer"]
    assert not submitted.events(Kind.APPROVAL_RECORDED)
    attempts = {(event.actor, event.data["method"], event.data["status"]) for event in submitted.attempts()}
    assert {("vera", "PATCH", 403), ("omar", "PATCH", 403), ("admin", "PATCH", 403)} <= attempts
    assert {("petra", "PATCH", 200), ("petra", "POST", 201)} <= attempts
    by_hand = [
        event.data for event in submitted.events(Kind.TASK_OUTCOME) if event.data["source"] == "by hand"
    ]
    assert {"seat", "approval"} <= {data["task_id"] for data in by_hand}


@pytest.mark.requirement("A-2", "A-7")
def test_one_person_fills_one_seat_and_a_changed_model_voids_the_approval(world: World) -> None:
    submitted = world.submit_small(RED)
    assert submitted.wait() is State.WAITING
    answer(world, submitted.release_id, "omar", seat=1)
    with pytest.raises(Exception, match="one person fills one seat"):
        answer(world, submitted.release_id, "omar", seat=2)
    assert submitted.events(Kind.APPROVAL_REFUSED)[0].actor == "omar"
    # Someone swaps the model file behind the registry's back, after the first approval.
    store = world.settings.home / "mlflow-artifacts" / RED
    changed = [
        path
        for path in store.rglob("model.skops")
        if world.deployment.registry.version(RED, submitted.version).run_id in str(path)
    ]
    assert len(changed) == 1
    changed[0].write_bytes(changed[0].read_bytes() + b"\0")
    answer(world, submitted.release_id, "ravi", seat=2)
    assert submitted.wait(through_waiting=True) is State.REFUSED
    problems = submitted.events(Kind.PROMOTION_REFUSED)[0].data["problems"]
    assert problems == ["the model files changed after the release was frozen"]
    assert world.deployment.registry.champion(RED) is None


@pytest.mark.requirement("G-5", "T-5", "G-16")
def test_the_bias_gate_refuses_with_groups_rates_limit_and_fix(world: World) -> None:
    submitted = world.told["c"]
    assert submitted.wait() is State.DENIED
    summary = next(line.summary for line in submitted.release().gates if line.gate == "bias")
    for words in ("Black", "0.8", "%"):
        assert words in summary
    assert "fix it" in submitted.events(Kind.RELEASE_ANNOUNCED)[0].data["message"]
    assert not submitted.events(Kind.PROMOTION_STARTED)


@pytest.mark.requirement("G-1")
def test_a_batch_with_codes_is_refused_before_anything_is_scored(world: World) -> None:
    submitted = world.told["d"]
    assert submitted.wait() is State.DENIED
    quality = next(line for line in submitted.release().gates if line.gate == "data_quality")
    assert quality.verdict == "FAILED"
    assert "score" not in {line.gate for line in submitted.release().gates}
    submitted.finished()
    until(lambda: "yes" if submitted.outcomes().get("score") == ["upstream_failed"] else "")


@pytest.mark.requirement("G-8", "R-5")
def test_a_malicious_pickle_is_quarantined_and_never_loaded(world: World) -> None:
    submitted = world.told["e"]
    assert submitted.wait() is State.QUARANTINED
    assert submitted.events(Kind.VERSION_QUARANTINED)
    version = world.deployment.registry.version(models.APPROVAL, submitted.version)
    assert version.tags["airlock.state"] == "quarantined"
    # The demo exits with 0 only if the pickle did not leave its mark; see test_failures for the demo.
    submitted.finished()
    again = world.submit(models.APPROVAL, submitted.version)
    with pytest.raises(Exception, match="quarantined"):
        again.wait()


def test_a_version_that_does_not_exist_is_said_and_nothing_opens(world: World) -> None:
    submitted = world.submit(models.RATE_TYPE, "999")
    with pytest.raises(Exception, match="MLflow does not know rate-type-forecast version 999"):
        submitted.wait()
    assert submitted.finished() == "failed"
    bad = {"conf": {"version": "latest; rm -rf"}, "logical_date": None}
    response = world.client("dana").request("POST", f"/dags/{submitted.dag_id}/dagRuns", json=bad)
    assert response.status_code == 400
