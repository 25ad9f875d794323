"""What a real Airflow remembers and the audit store missed is appended, and what is gone is said."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from airlock.core.audit import Event, Kind
from airlock.core.release import State
from airlock.services.reconcile import Found, Report, reconcile_all
from tests.support.small_workloads import RED
from tests.system.conftest import Submitted, World, until

DAG = "airlock__reconcile"


def run_dag(world: World) -> str:
    """Start the reconciliation by hand, wait for its end, and return what its log says to a viewer."""
    admin = world.client("admin")
    run_id = str(admin.trigger(DAG, {})["dag_run_id"])
    state = until(
        lambda: found if (found := str(admin.run(DAG, run_id)["state"])) in ("success", "failed") else ""
    )
    assert state == "success"
    task = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/reconcile"
    return world.client("vera").request("GET", f"{task}/logs/1", params={"full_content": True}).text


def look(world: World) -> Report:
    """As the service user, from outside Airflow."""
    return reconcile_all(world.deployment, world.client(world.settings.service_user))


def change_in_database(submitted: Submitted, task_id: str, state: str) -> None:
    """Change a task's state behind Airflow's back: no listener runs, and no request is recorded."""
    database = submitted.world.settings.home / "airflow" / "airflow.db"
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        done = connection.execute(
            "UPDATE task_instance SET state = ? WHERE dag_id = ? AND run_id = ? AND task_id = ?",
            (state, submitted.dag_id, submitted.run_id, task_id),
        )
        assert done.rowcount == 1


def changes(submitted: Submitted) -> set[tuple[str, str, str]]:
    return {
        (event.actor, event.data["event"], event.data.get("task_id", ""))
        for event in submitted.events(Kind.AIRFLOW_CHANGED)
    }


@pytest.mark.requirement("E-1")
def test_what_airflow_knows_and_the_store_does_not_is_appended_once(world: World) -> None:
    submitted = world.submit_small(RED)
    assert submitted.wait() is State.WAITING
    _change_by_hand(world, submitted)
    change_in_database(submitted, "checks.security", "failed")

    log = run_dag(world)
    outcomes = submitted.events(Kind.TASK_OUTCOME)
    found = [(event.data["state"], event.data["source"]) for event in outcomes if _is_security(event)]
    assert found == [("success", "operator"), ("failed", "reconciled")]
    assert all(event.data["ended"] for event in outcomes if event.data["source"] == "reconciled")
    assert {
        ("petra", "create_xcom_entry", "promote"),
        ("admin", "patch_task_instance", "checks.documentation"),
        ("petra", "post_clear_task_instances", ""),
    } <= changes(submitted)
    assert "s3cret" not in str(submitted.events(Kind.AIRFLOW_CHANGED))
    assert "admin: patch_task_instance checks.documentation at " in log
    assert "the outcome of checks.security, try 1 was missing; Airflow says failed" in log
    assert [found for found in look(world).findings if found.release_id == submitted.release_id] == []

    _end_and_delete(world, submitted)
    look(world)
    assert {("admin", "patch_dag_run", ""), ("admin", "delete_dag_run", "")} <= changes(submitted)
    deleted = [event for event in submitted.events(Kind.AIRFLOW_CHANGED) if event.actor == "system"]
    assert [event.data["event"] for event in deleted] == ["run deleted"]
    again = look(world)
    assert [found for found in again.findings if found.release_id == submitted.release_id] == []
    assert again.count(Found.DELETED) == 0
    recorded = world.deployment.audit.events(kinds=[Kind.AUDIT_RECONCILED])[-1].event
    assert recorded.data == again.to_data()


def _is_security(event: Event) -> bool:
    return bool(event.data["task_id"] == "checks.security")


def ask(world: World, user: str, method: str, path: str, body: dict[str, object] | None = None) -> None:
    """Send a request that changes something until Airflow does it.

    On SQLite, Airflow answers 500 when another request writes in the same moment.
    """
    client = world.client(user)
    until(lambda: "done" if client.request(method, path, json=body).is_success else "")


def _change_by_hand(world: World, submitted: Submitted) -> None:
    """An XCom forged, a gate marked, a task cleared, each by whoever may."""
    for seat in (0, 1):
        world.client("admin").wait_for_seat(submitted.dag_id, submitted.run_id, "seat", seat)
    tasks = f"{submitted.path}/taskInstances"
    xcom = {"key": "forged", "value": "s3cret"}
    ask(world, "petra", "POST", f"{tasks}/promote/xcomEntries", xcom)
    ask(world, "admin", "PATCH", f"{tasks}/checks.documentation", {"new_state": "failed"})
    clear = {
        "dry_run": False,
        "only_failed": False,
        "dag_run_id": submitted.run_id,
        "task_ids": ["gates.performance"],
    }
    ask(world, "petra", "POST", f"/dags/{submitted.dag_id}/clearTaskInstances", clear)
    until(lambda: "again" if _tries(world, submitted, "gates.performance") == 2 else "")
    submitted.wait_for_task("gates.performance", {"success"})


def _tries(world: World, submitted: Submitted, task_id: str) -> int:
    client = world.client("admin")
    return max(
        instance["try_number"]
        for instance in client.task_instances(submitted.dag_id, submitted.run_id, task_id)
    )


def _end_and_delete(world: World, submitted: Submitted) -> None:
    ask(world, "admin", "PATCH", submitted.path, {"state": "failed"})
    # A task that is being stopped keeps its run from being deleted for a moment.
    ask(world, "admin", "DELETE", submitted.path)


def test_airflow_tells_what_changed_since_a_moment(world: World) -> None:
    """The fake Airflow of the unit tests rests on these forms."""
    submitted = world.told["a"]
    client = world.client(world.settings.service_user)
    place = submitted.dag_id, submitted.run_id
    started = client.run(*place)["start_date"]
    for since, expected in (
        ("2020-01-01T00:00:00+00:00", True),
        (started, True),
        ("2090-01-01T00:00:00Z", False),
    ):
        runs = {(row["dag_id"], row["dag_run_id"]) for row in client.runs("release__", updated_since=since)}
        tasks = client.changed_task_instances("release__", updated_since=since)
        assert (place in runs) is expected
        assert (place in {(row["dag_id"], row["dag_run_id"]) for row in tasks}) is expected
        events = [row for row in client.event_logs(after=since) if row["run_id"] == submitted.run_id]
        assert bool(events) is expected
    assert {row["event"] for row in client.event_logs(excluded=["running"])}.isdisjoint({"running"})
    assert [row["try_number"] for row in client.tries(*place, "score", -1)] == [1]
    row = next(row for row in client.event_logs() if row["run_id"] == submitted.run_id)
    assert {"event_log_id", "when", "dag_id", "task_id", "map_index", "event", "owner", "extra"} <= set(row)
