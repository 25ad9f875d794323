"""Airflow and the audit store compared, against an Airflow that answers over its REST API from memory.

Rows are those of a real Airflow 3.3.2, with their names and forms; ``tests/system/test_reconcile.py`` asks
a real one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import httpx
import pytest

from airlock.adapters.airflow_api import AirflowClient, service_client
from airlock.core.audit import Event, Kind
from airlock.core.errors import AirlockError, RefusedError, UnavailableError
from airlock.core.task import TaskRef, release_of
from airlock.services.changes import BY_AIRFLOW, EXTRA_LENGTH, is_change, read_change
from airlock.services.reconcile import OVERLAP_US, Finding, Found, Report, reconcile_all
from airlock.services.tasks import record_outcome, record_start
from tests.support.deployments import (
    HOUR_US,
    START_US,
    WORKLOAD,
    Killed,
    World,
    fast_folder,
    make_world,
)

DAG = f"release__{WORKLOAD}"
RUN = "manual__2026-01-01T00:00:00+00:00"
ROOT = Path(__file__).parents[2]

RUN_ROW: dict[str, Any] = {
    "dag_run_id": RUN, "dag_id": DAG, "logical_date": None, "queued_at": "2026-01-01T00:00:00.113554Z",
    "start_date": "2026-01-01T00:00:01.115816Z", "end_date": None, "duration": None,
    "data_interval_start": None, "data_interval_end": None, "run_after": "2026-01-01T00:00:00.452408Z",
    "last_scheduling_decision": "2026-01-01T00:00:31.369729Z", "run_type": "manual", "state": "success",
    "triggered_by": "rest_api", "triggering_user_name": "dana",
    "conf": {"version": "2", "batch": "clean", "context": "A test."}, "note": None, "dag_versions": [],
    "bundle_version": None, "dag_display_name": "Release: Loan model", "partition_key": None,
    "partition_date": None,
}  # fmt: skip
TASK_ROW: dict[str, Any] = {
    "id": "01a1ff22-d5f2-714a-a08f-76be82d2ecba", "task_id": "score", "dag_id": DAG, "dag_run_id": RUN,
    "map_index": -1, "logical_date": None, "run_after": "2026-01-01T00:00:00.452408Z",
    "start_date": "2026-01-01T00:00:01.441173Z", "end_date": "2026-01-01T00:00:02.166663Z",
    "duration": 0.726, "state": "success", "try_number": 1, "max_tries": 3, "task_display_name": "score",
    "dag_display_name": "Release: Loan model", "hostname": "vm", "unixname": "root", "pool": "default_pool",
    "pool_slots": 1, "queue": "default", "priority_weight": 17, "operator": "ScoreOperator",
    "operator_name": "ScoreOperator", "queued_when": None, "scheduled_when": None, "pid": 12533,
    "executor": None, "executor_config": "{}", "note": None, "rendered_map_index": None,
    "rendered_fields": {}, "trigger": None, "triggerer_job": None, "dag_version": None,
}  # fmt: skip
LOG_ROW: dict[str, Any] = {
    "event_log_id": 44, "when": "2026-01-01T00:00:16.296955Z", "dag_id": DAG, "task_id": "seat",
    "run_id": RUN, "map_index": None, "try_number": None, "event": "patch_task_instance",
    "logical_date": None, "owner": "petra",
    "extra": '{"map_index": "0", "new_state": "success", "method": "PATCH"}',
    "dag_display_name": "Release: Loan model", "task_display_name": None,
}  # fmt: skip


@dataclass
class FakeAirflow:
    """What Airflow's REST API answers from memory; each row has the time of its last change beside it."""

    runs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tasks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    page_limit: int = 100
    asked: list[str] = field(default_factory=list)
    before: Callable[[str], httpx.Response | None] = lambda _: None
    """Called with the path of each request; what it returns is the answer."""

    def run(self, run_id: str = RUN, *, updated: str = "2026-01-01", **changes: Any) -> None:
        self.runs.append((updated, {**RUN_ROW, "dag_run_id": run_id, **changes}))

    def task(self, task_id: str = "score", *, updated: str = "2026-01-01", **changes: Any) -> None:
        self.tasks.append((updated, {**TASK_ROW, "task_id": task_id, **changes}))

    def earlier(self, task_id: str = "score", **changes: Any) -> None:
        self.history.append({**TASK_ROW, "task_id": task_id, **changes})

    def log(self, **changes: Any) -> None:
        number = 44 + len(self.logs)
        self.logs.append({**LOG_ROW, "event_log_id": number, **changes})

    def client(self) -> AirflowClient:
        client = AirflowClient("http://airflow", "airlock", "its password")
        client._http = httpx.Client(transport=httpx.MockTransport(self._answer), base_url="http://airflow")
        return client

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        if path == "/auth/token":
            return httpx.Response(201, json={"access_token": "a token"})
        path = path.removeprefix("/api/v2")
        self.asked.append(path)
        return self.before(path) or self._found(path, request)

    def _found(self, path: str, request: httpx.Request) -> httpx.Response:
        response = httpx.Response(404, json={"detail": "not found"})
        match [unquote(part) for part in path.split("/")[1:]]:
            case ["eventLogs"]:
                response = self._event_logs(request.url.params)
            case ["dags", "~", "dagRuns"]:
                response = self._page("dag_runs", self._changed(self.runs, request), request)
            case ["dags", "~", "dagRuns", "~", "taskInstances"]:
                response = self._page("task_instances", self._changed(self.tasks, request), request)
            case ["dags", dag, "dagRuns", run]:
                response = self._one_run(dag, run)
            case ["dags", dag, "dagRuns", run, "taskInstances"] if self._exists(dag, run):
                response = self._page("task_instances", self._of(dag, run), request)
            case ["dags", dag, "dagRuns", run, "taskInstances", task, index, "tries"]:
                response = self._tries(dag, run, task, int(index))
        return response

    def _changed(
        self, rows: list[tuple[str, dict[str, Any]]], request: httpx.Request
    ) -> list[dict[str, Any]]:
        since = request.url.params.get("updated_at_gte", "")
        # As Airflow does: trailing characters that are neither letters nor digits do not count.
        prefix = re.sub(r"[^a-zA-Z0-9]+$", "", request.url.params["dag_id_prefix_pattern"])
        return [
            row
            for updated, row in rows
            if updated >= since and row["dag_id"].startswith(prefix) and row["dag_id"] not in self.unreadable
        ]

    def _page(self, name: str, rows: list[dict[str, Any]], request: httpx.Request) -> httpx.Response:
        limit = min(int(request.url.params["limit"]), self.page_limit)
        start = int(request.url.params["cursor"] or 0)
        end = str(start + limit) if start + limit < len(rows) else None
        return httpx.Response(200, json={name: rows[start : start + limit], "next_cursor": end})

    def _event_logs(self, params: httpx.QueryParams) -> httpx.Response:
        excluded, after = params.get_list("excluded_events"), params.get("after", "")
        rows = [row for row in self.logs if row["event"] not in excluded and row["when"] > after]
        start = int(params["offset"])
        page = rows[start : start + min(int(params["limit"]), self.page_limit)]
        return httpx.Response(200, json={"event_logs": page, "total_entries": len(rows)})

    def _exists(self, dag: str, run: str) -> bool:
        return any((row["dag_id"], row["dag_run_id"]) == (dag, run) for _, row in self.runs)

    def _one_run(self, dag: str, run: str) -> httpx.Response:
        if dag in self.unreadable:
            return httpx.Response(403, json={"detail": "Forbidden"})
        found = [row for _, row in self.runs if (row["dag_id"], row["dag_run_id"]) == (dag, run)]
        return httpx.Response(200, json=found[0]) if found else httpx.Response(404, json={"detail": "gone"})

    def _of(self, dag: str, run: str) -> list[dict[str, Any]]:
        return [row for _, row in self.tasks if (row["dag_id"], row["dag_run_id"]) == (dag, run)]

    def _tries(self, dag: str, run: str, task: str, index: int) -> httpx.Response:
        # A try that waits for its retry stands in the history already, as plain failed.
        latest = [row for row in self._of(dag, run) if row["state"] != "up_for_retry"]
        rows = [
            row for row in [*self.history, *latest] if (row["task_id"], row["map_index"]) == (task, index)
        ]
        return httpx.Response(200, json={"task_instances": rows, "total_entries": len(rows)})


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


@pytest.fixture
def airflow() -> FakeAirflow:
    return FakeAirflow()


def look(world: World, airflow: FakeAirflow, since_us: int | None = None) -> Report:
    return reconcile_all(world.deployment, airflow.client(), since_us)


def ref(task_id: str = "score", *, run_id: str = RUN, **changes: Any) -> TaskRef:
    release_id, workload, version = release_of("test", DAG, run_id, RUN_ROW["conf"])
    values = {"dag_id": DAG, "run_id": run_id, "task_id": task_id, "map_index": -1, "try_number": 1}
    names = {"release_id": release_id, "workload": workload, "version": version}
    return TaskRef.model_validate({**values, **names, **changes})


def outcomes(world: World) -> list[tuple[str, int, str, str]]:
    return [
        (data["task_id"], data["try_number"], data["state"], data["source"])
        for data in (event.data for event in world.events(Kind.TASK_OUTCOME))
    ]


def found(report: Report, sort: Found) -> list[Finding]:
    return [finding for finding in report.findings if finding.found is sort]


def changes(world: World) -> list[Event]:
    return world.events(Kind.AIRFLOW_CHANGED)


# Outcomes


@pytest.mark.requirement("E-1")
def test_outcomes_nobody_recorded_are_appended_once(world: World, airflow: FakeAirflow) -> None:
    airflow.run()
    airflow.task("submit")
    airflow.task("score", state="failed")
    airflow.task("gates.bias", state="upstream_failed", try_number=0, end_date=None)
    airflow.task("seat", state="skipped", try_number=0, map_index=0)
    airflow.task("seat", state="skipped", try_number=0, map_index=1)
    record_start(world.deployment, ref("submit"))
    record_outcome(world.deployment, ref("submit"), "success", source="operator")
    report = look(world, airflow)
    assert report.count(Found.OUTCOME) == len(report.findings) == 4
    assert outcomes(world) == [
        ("submit", 1, "success", "operator"),
        ("score", 1, "failed", "reconciled"),
        ("gates.bias", 0, "upstream_failed", "reconciled"),
        ("seat", 0, "skipped", "reconciled"),
        ("seat", 0, "skipped", "reconciled"),
    ]
    failed = world.events(Kind.TASK_OUTCOME)[1]
    assert failed.release_id == ref().release_id
    assert (failed.workload, failed.version) == (WORKLOAD, "2")
    assert failed.data["ended"] == "2026-01-01T00:00:02.166663Z", "Airflow's time"
    assert failed.occurred_us == START_US, "ours"
    assert report.findings[0].sentence == (
        f"{DAG} {RUN}: the outcome of score, try 1 was missing; Airflow says failed"
    )
    assert look(world, airflow).findings == []
    assert len(outcomes(world)) == 5


@pytest.mark.requirement("E-1")
def test_a_try_that_was_killed_is_found_while_its_run_goes_on(world: World, airflow: FakeAirflow) -> None:
    airflow.run(state="running")
    airflow.task("score", state="running", try_number=2)
    airflow.earlier("score", state="failed", try_number=1)
    for state in ("queued", "scheduled", "deferred", "awaiting_input", "restarting", "up_for_reschedule"):
        airflow.task(state, state=state)
    airflow.task("seal", state=None, try_number=0)
    record_start(world.deployment, ref())
    assert look(world, airflow).count(Found.OUTCOME) == 1
    assert outcomes(world) == [("score", 1, "failed", "reconciled")]
    assert look(world, airflow).findings == []


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("state", ["upstream_failed", "skipped", "removed", None])
def test_a_cleared_task_does_not_hide_the_try_it_had(
    world: World, airflow: FakeAirflow, state: str | None
) -> None:
    """Clearing leaves the number of the try as it was until the task runs again."""
    airflow.run(state="running")
    airflow.task("score", state=state, try_number=1)
    airflow.earlier("score", state="failed", try_number=1)
    look(world, airflow)
    expected = {("score", 1, "failed", "reconciled")} | (
        {("score", 1, state, "reconciled")} if state else set()
    )
    assert set(outcomes(world)) == expected
    assert look(world, airflow).findings == []


@pytest.mark.requirement("E-1")
def test_what_the_try_itself_said_is_more_exact_than_the_history(world: World, airflow: FakeAirflow) -> None:
    airflow.run()
    airflow.task(try_number=2)
    airflow.earlier(try_number=1, state="failed")
    record_outcome(world.deployment, ref(), "up_for_retry", source="operator", error="MLflow is away")
    record_outcome(world.deployment, ref(try_number=2), "success", source="operator")
    assert look(world, airflow).findings == []
    assert not [path for path in airflow.asked if path.endswith("/tries")], "all tries are known"


@pytest.mark.requirement("E-1")
def test_of_several_tries_only_those_nobody_recorded_are_appended(world: World, airflow: FakeAirflow) -> None:
    airflow.run(state="running")
    airflow.task(try_number=3, state="running")
    airflow.earlier(try_number=1, state="failed")
    airflow.earlier(try_number=2, state="failed")
    record_outcome(world.deployment, ref(), "up_for_retry", source="operator", error="MLflow is away")
    look(world, airflow)
    assert outcomes(world) == [("score", 1, "up_for_retry", "operator"), ("score", 2, "failed", "reconciled")]


@pytest.mark.requirement("E-1")
def test_a_killed_try_that_waits_for_its_retry_is_no_failure(world: World, airflow: FakeAirflow) -> None:
    airflow.run(state="running")
    airflow.task(try_number=2, state="up_for_retry")
    airflow.earlier(try_number=1, state="failed")
    airflow.earlier(try_number=2, state="failed")
    look(world, airflow)
    assert set(outcomes(world)) == {
        ("score", 2, "up_for_retry", "reconciled"),
        ("score", 1, "failed", "reconciled"),
    }


@pytest.mark.requirement("E-1")
def test_green_in_airflow_takes_nothing_away_from_red_in_the_store(
    world: World, airflow: FakeAirflow
) -> None:
    """Whoever marks a failed task successful in Airflow's database leaves both states in the store."""
    airflow.run()
    airflow.task(state="success")
    record_outcome(world.deployment, ref(), "failed", source="operator", error="below the floor")
    assert look(world, airflow).count(Found.OUTCOME) == 1
    assert outcomes(world) == [("score", 1, "failed", "operator"), ("score", 1, "success", "reconciled")]


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize(
    ("dag_id", "workload"),
    [("airlock__waivers", ""), ("retrain__loan-model", "loan-model"), ("monitor__loan-model", "loan-model")],
)
def test_tasks_that_are_about_no_release_are_recorded_as_well(
    world: World, airflow: FakeAirflow, dag_id: str, workload: str
) -> None:
    airflow.run(dag_id=dag_id, conf={}, state="failed")
    airflow.task("review", dag_id=dag_id, state="failed", try_number=3)
    airflow.task("said", dag_id=dag_id, state="upstream_failed", try_number=0)
    airflow.task("known", dag_id=dag_id)
    for number in (1, 2):
        airflow.earlier("review", dag_id=dag_id, state="failed", try_number=number)
    own = {"dag_id": dag_id, "release_id": "", "workload": workload, "version": ""}
    record_outcome(world.deployment, ref("known", **own), "success", source="listener")
    record_outcome(world.deployment, ref("review", try_number=1, **own), "up_for_retry", source="listener")
    assert look(world, airflow).count(Found.OUTCOME) == 3
    assert set(outcomes(world)) == {
        ("known", 1, "success", "listener"),
        ("review", 1, "up_for_retry", "listener"),
        ("review", 2, "failed", "reconciled"),
        ("review", 3, "failed", "reconciled"),
        ("said", 0, "upstream_failed", "reconciled"),
    }
    for event in world.events(Kind.TASK_OUTCOME):
        assert (event.release_id, event.workload, event.version) == ("", workload, "")
    assert look(world, airflow).findings == []


@pytest.mark.requirement("E-1")
def test_other_people_s_dags_are_not_ours_to_record(world: World, airflow: FakeAirflow) -> None:
    airflow.run(dag_id="airlocked", conf={})
    airflow.task("theirs", dag_id="airlocked")
    assert look(world, airflow).findings == []
    assert outcomes(world) == []


# Changes by hand


@pytest.mark.requirement("E-1")
def test_what_a_person_did_is_appended_once_with_who_and_when(world: World, airflow: FakeAirflow) -> None:
    airflow.run(state="running")
    airflow.log()
    airflow.log(event="post_clear_task_instances", task_id=None, owner="dana")
    airflow.log(event="running", owner="credit-models", extra='{"host_name": "vm"}')
    report = look(world, airflow)
    assert [event.actor for event in changes(world)] == ["petra", "dana"]
    event = changes(world)[0]
    assert (event.release_id, event.workload, event.version) == (ref().release_id, WORKLOAD, "2")
    extra = event.data.pop("extra")
    assert json.loads(extra) == {"map_index": "0", "new_state": "success", "method": "PATCH"}
    assert event.data == {
        "event": "patch_task_instance",
        "dag_id": DAG,
        "run_id": RUN,
        "task_id": "seat",
        "map_index": 0,
        "when": "2026-01-01T00:00:16.296955Z",
    }
    assert [finding.sentence for finding in report.findings] == [
        f"{DAG} {RUN}: petra: patch_task_instance seat[0] at 2026-01-01T00:00:16.296955Z",
        f"{DAG} {RUN}: dana: post_clear_task_instances at 2026-01-01T00:00:16.296955Z",
    ]
    assert look(world, airflow).findings == []
    assert len(changes(world)) == 2


REQUEST = '{"method": "POST"}'


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"event": "update_hitl_detail"}, True),
        ({"event": "create_xcom_entry", "extra": '{"value": "x", "method": "POST"}'}, True),
        ({"event": "delete_dag_run", "extra": '{"method": "DELETE"}'}, True),
        ({"event": "cli_task_clear", "extra": '{"host_name": "vm", "full_command": "[]"}'}, True),
        ({"event": "a_request_of_a_later_airflow"}, True),
        # Not about one DAG, so about ours too.
        ({"event": "post_variable", "dag_id": None, "run_id": None}, True),
        ({"event": "patch_dags", "dag_id": None, "run_id": None}, True),
        ({"event": "bulk_dag_runs", "dag_id": "~", "run_id": None}, True),
        ({"event": "cli_cleanup_tables", "dag_id": None, "extra": None}, True),
        # Who stops the reconciliation wants to change something.
        ({"event": "patch_dag", "dag_id": "airlock__reconcile"}, True),
        # Made unreadable by whoever sent it.
        ({"extra": '{"map_index": ' + "[" * 100_000}, True),
        ({"extra": '{"value": NaN, "method": "POST"}'}, True),
        ({"extra": '{"new_state": "succ'}, True),
        # Other people's DAGs, Airflow itself, and what changes nothing.
        ({"dag_id": "etl"}, False),
        ({"dag_id": "xrelease__a"}, False),
        ({"event": "success", "extra": '{"host_name": "vm"}'}, False),
        ({"event": "heartbeat timeout", "extra": "Task did not emit heartbeat"}, False),
        ({"event": "state mismatch", "extra": None}, False),
        ({"event": "generate_token", "dag_id": None}, False),
        ({"event": "cli_scheduler", "dag_id": None}, False),
    ],
)
def test_a_row_counts_when_a_person_changed_what_concerns_us(change: dict[str, Any], counts: bool) -> None:
    assert is_change({**LOG_ROW, "extra": REQUEST, **change}) is counts


@pytest.mark.requirement("E-1")
def test_values_that_may_be_secret_are_not_kept(world: World, airflow: FakeAirflow) -> None:
    body = {
        "key": "return_value",
        "value": "s3cret",
        "conf": {"token": "s3cret"},
        "note": "s3cret",
        "params_input": {"comment": "s3cret"},
        "actions": [
            {"action": "update", "entities": [{"task_id": "seat", "new_state": "success", "x": "s3cret"}]}
        ],
        "method": "POST",
    }
    airflow.log(event="create_xcom_entry", extra=json.dumps(body))
    airflow.log(event="cli_variables_set", extra=json.dumps({"host_name": "vm", "full_command": "x s3cret"}))
    report = look(world, airflow)
    assert len(changes(world)) == 2
    assert "s3cret" not in json.dumps([event.to_data() for event in changes(world)]) + str(report)
    kept = json.loads(changes(world)[0].data["extra"])
    assert kept["key"] == "return_value"
    assert kept["value"] == "***", "that there was a value is said"
    assert kept["actions"][0]["entities"] == [{"task_id": "seat", "new_state": "success", "x": "***"}]


@pytest.mark.parametrize(
    "change",
    [
        {"extra": '{"map_index": "' + "9" * 5000 + '", "method": "PATCH"}'},
        {"extra": '{"map_index": 1e400, "method": "PATCH"}'},
        {"extra": '{"map_index": -7, "method": "PATCH"}'},
        {"extra": '{"map_index": "' + "9" * 20 + '", "method": "PATCH"}'},
        {"extra": '{"task_ids": ' + "[" * 200 + "]" * 200 + ', "method": "POST"}'},
        {"extra": '{"task_ids": ' + "[" * 600 + "]" * 600 + ', "method": "POST"}'},
        {"extra": '{"task_ids": ' + "[" * 50_000 + "]" * 50_000 + ', "method": "POST"}'},
        {"extra": '{"key": "\\ud800\\u0000", "method": "POST"}'},
        {"extra": json.dumps({"task_ids": ["x" * 300_000], "method": "POST"})},
        {"extra": '{"key": 123456789012345678901234567890, "method": "POST"}'},
        {"owner": None},
        {"owner": "o" * 500},
        {"task_id": "a\0b", "run_id": "r" * 900, "owner": "\x1b[31mroot\n"},
    ],
)  # fmt: skip
def test_a_change_is_recorded_whatever_was_sent(
    world: World, airflow: FakeAirflow, change: dict[str, Any]
) -> None:
    """Else one hostile request would stop every reconciliation after it."""
    airflow.log(**change)
    airflow.log(owner="dana")
    report = look(world, airflow)
    assert len(changes(world)) == 2
    assert len(changes(world)[0].data["extra"]) <= EXTRA_LENGTH
    assert all(finding.sentence.isprintable() for finding in report.findings)
    assert look(world, airflow).findings == []


def test_the_same_number_in_a_new_airflow_database_is_another_change(
    world: World, airflow: FakeAirflow
) -> None:
    airflow.log()
    look(world, airflow)
    airflow.logs.clear()
    airflow.log(when="2026-01-01T00:00:17Z", owner="mallory")
    assert look(world, airflow).count(Found.CHANGE) == 1
    assert [event.actor for event in changes(world)] == ["petra", "mallory"]


def test_times_name_a_row_to_the_microsecond() -> None:
    rows = [
        {**LOG_ROW, "when": when} for when in ("2026-01-01T00:00:16.296955Z", "2026-01-01T00:00:16.296956Z")
    ]
    first, second = (read_change(row).key for row in rows)
    assert first == "44/1767225616296955"
    assert second == "44/1767225616296956"


# Runs that only one side knows


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("tasks", [0, 1])
def test_a_finished_run_the_store_knows_nothing_of_is_reported_once(
    world: World, airflow: FakeAirflow, tasks: int
) -> None:
    airflow.run(state="failed")
    if tasks:
        airflow.task(state="failed")
    airflow.run("second", state="running")
    report = look(world, airflow)
    assert [finding.release_id for finding in found(report, Found.UNKNOWN)] == [ref().release_id]
    assert "the audit store knew nothing of it" in report.findings[0].sentence
    assert changes(world)[0].data == {"event": "run unknown", "dag_id": DAG, "run_id": RUN}
    assert look(world, airflow).findings == []


def test_a_run_of_which_only_a_change_by_hand_is_known_is_unknown(world: World, airflow: FakeAirflow) -> None:
    airflow.run(state="running")
    airflow.log(event="patch_dag_run")
    assert look(world, airflow).count(Found.UNKNOWN) == 0
    airflow.runs[0][1]["state"] = "success"
    assert look(world, airflow).count(Found.UNKNOWN) == 1


@pytest.mark.requirement("E-1")
def test_a_release_whose_run_was_deleted_is_reported_once(world: World, airflow: FakeAirflow) -> None:
    release_id = world.submit(run=RUN)
    kept = world.submit(run="kept")
    airflow.run("kept", state="running")
    airflow.log(event="delete_dag_run", task_id=None, owner="admin", extra='{"method": "DELETE"}')
    report = look(world, airflow)
    assert report.releases == 2
    assert [finding.release_id for finding in found(report, Found.DELETED)] == [release_id]
    assert [event.data["event"] for event in changes(world)] == ["run deleted", "delete_dag_run"]
    assert [event.release_id for event in changes(world)] == [release_id, release_id], "the store knows which"
    assert kept not in str(report)
    assert look(world, airflow).findings == []


def test_a_release_submitted_while_airflow_answers_is_not_deleted(world: World, airflow: FakeAirflow) -> None:
    def submit(path: str) -> httpx.Response | None:
        if path == "/eventLogs":
            world.submit(run="just now")
        return None

    airflow.before = submit
    assert look(world, airflow).findings == []


def test_a_run_that_may_not_be_read_is_not_taken_for_a_deleted_one(
    world: World, airflow: FakeAirflow
) -> None:
    """Airflow leaves it out of lists without a word."""
    world.submit(run=RUN)
    airflow.run()
    airflow.unreadable.add(DAG)
    with pytest.raises(RefusedError, match="403"):
        look(world, airflow)
    assert world.events(Kind.AUDIT_RECONCILED) == []
    assert changes(world) == []


def test_a_run_deleted_in_the_middle_is_left_to_the_next_reconciliation(
    world: World, airflow: FakeAirflow
) -> None:
    world.submit(run=RUN)
    airflow.run()
    airflow.task()

    def delete(path: str) -> httpx.Response | None:
        if path.endswith("/taskInstances"):
            airflow.runs.clear()
        return None

    airflow.before = delete
    assert look(world, airflow).findings == []
    assert look(world, airflow).count(Found.DELETED) == 1


def test_what_cannot_be_recorded_is_said_and_stops_nothing(world: World, airflow: FakeAirflow) -> None:
    """Airflow on SQLite takes names that are longer than any key."""
    airflow.run("r" * 2000)
    airflow.task(dag_run_id="r" * 2000)
    airflow.run()
    airflow.task()
    airflow.log(run_id="r" * 2000)
    report = look(world, airflow)
    assert report.count(Found.UNRECORDABLE) == 1
    assert outcomes(world) == [("score", 1, "success", "reconciled")]
    assert [event.actor for event in changes(world)[1:]] == ["petra"]
    assert world.events(Kind.AUDIT_RECONCILED)[0].data["unrecordable"] == 1


# What each reconciliation covers


@pytest.mark.requirement("E-1")
def test_the_result_is_recorded_with_its_numbers(world: World, airflow: FakeAirflow) -> None:
    world.submit(run="gone")
    airflow.run()
    airflow.task()
    airflow.log()
    report = look(world, airflow)
    event = world.events(Kind.AUDIT_RECONCILED)[0]
    assert event.actor == "system"
    assert event.data == report.to_data() == {
        "since_us": 0, "until_us": START_US, "runs": 1, "releases": 1, "outcomes": 1, "changes": 1,
        "runs_unknown": 1, "runs_deleted": 1, "unrecordable": 0,
    }  # fmt: skip
    look(world, airflow)
    assert len(world.events(Kind.AUDIT_RECONCILED)) == 2, "that nothing was found is a fact too"


def _iso(us: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)).isoformat()


@pytest.mark.requirement("E-1")
def test_each_one_goes_on_where_the_last_one_stopped(world: World, airflow: FakeAirflow) -> None:
    airflow.run(updated=_iso(START_US))
    airflow.run("old", updated=_iso(START_US))
    airflow.task(dag_run_id="old", updated=_iso(START_US))
    assert look(world, airflow).since_us == 0
    world.clock.advance(hours=5)
    airflow.run("new", updated=_iso(START_US + 4 * HOUR_US + 1))
    # A task of a run that ended long ago: marked by hand, or in the database.
    airflow.tasks.clear()
    airflow.task(dag_run_id="old", state="failed", updated=_iso(START_US + 5 * HOUR_US))
    airflow.log(when=_iso(START_US + 3 * HOUR_US), owner="long ago")
    airflow.log(when=_iso(START_US + 5 * HOUR_US), owner="just now")
    airflow.asked.clear()
    # Nothing is looked at before an hour of the first one's time, so the log's first row is not seen.
    world.deployment.record(Kind.AUDIT_RECONCILED, "other", data={"until_us": START_US + 5 * HOUR_US})
    report = look(world, airflow)
    assert report.since_us == START_US + 5 * HOUR_US - OVERLAP_US
    assert report.runs == 2
    assert ("score", 1, "failed", "reconciled") in outcomes(world)
    assert [event.actor for event in changes(world) if event.actor != "system"] == ["just now"]
    assert not [path for path in airflow.asked if RUN in unquote(path)], "nothing happened in that run"


def test_looking_back_further_is_possible_and_leaving_out_is_not(world: World, airflow: FakeAirflow) -> None:
    look(world, airflow)
    world.clock.advance(hours=10)
    assert look(world, airflow, since_us=START_US + 9 * HOUR_US).since_us == START_US - OVERLAP_US
    world.clock.advance(hours=10)
    assert look(world, airflow, since_us=0).since_us == 0
    assert look(world, airflow, since_us=-5).since_us == 0
    assert look(world, airflow).since_us == START_US + 20 * HOUR_US - OVERLAP_US


def test_another_deployment_in_the_same_store_covers_nothing_of_ours(
    world: World, airflow: FakeAirflow
) -> None:
    other = Event(
        key="other/reconciled/1",
        kind=Kind.AUDIT_RECONCILED,
        occurred_us=START_US,
        actor="system",
        deployment="other",
        data={"until_us": START_US},
    )
    world.deployment.audit.append(other)
    assert look(world, airflow).since_us == 0


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("path", ["/dags/~/dagRuns", "/taskInstances", "/eventLogs"])
def test_when_airflow_fails_in_the_middle_nothing_counts_as_covered(
    world: World, airflow: FakeAirflow, path: str
) -> None:
    airflow.run()
    airflow.task()
    airflow.log()
    away = httpx.Response(503, json={"detail": "the database is away"})
    airflow.before = lambda asked: away if asked.endswith(path) else None
    with pytest.raises(UnavailableError, match="the database is away"):
        look(world, airflow)
    assert world.events(Kind.AUDIT_RECONCILED) == []
    airflow.before = lambda _: None
    look(world, airflow)
    assert (len(outcomes(world)), len(changes(world))) == (1, 2)


def test_without_the_right_to_read_the_event_log_it_fails_and_says_what_to_do(
    world: World, airflow: FakeAirflow
) -> None:
    refused = httpx.Response(403, json={"detail": "Forbidden"})
    airflow.before = lambda asked: refused if asked == "/eventLogs" else None
    with pytest.raises(RefusedError, match=r"event log cannot be read.*let the service user read audit logs"):
        look(world, airflow)
    assert world.events(Kind.AUDIT_RECONCILED) == []


@pytest.mark.requirement("E-1")
def test_everything_arrives_over_many_pages(world: World, airflow: FakeAirflow) -> None:
    airflow.page_limit = 2
    for number in range(7):
        airflow.run(f"run-{number}")
        for task in range(5):
            airflow.task(f"task-{task}", dag_run_id=f"run-{number}")
        airflow.log(when=f"2026-01-01T00:00:0{number}Z")
    # The prefix as Airflow understands it takes these too.
    airflow.run("other", dag_id="release-notes")
    airflow.task(dag_run_id="other", dag_id="release-notes")
    report = look(world, airflow)
    assert (report.runs, report.count(Found.OUTCOME), report.count(Found.CHANGE)) == (7, 35, 7)
    assert "release-notes" not in str(report)
    client = airflow.client()
    assert len(list(client.changed_task_instances("release__", updated_since="2025-01-01"))) == 35
    assert len(list(client.event_logs(excluded=BY_AIRFLOW))) == 7


# Attacks on the reconciliation itself


def _prepare(world: World, airflow: FakeAirflow) -> None:
    world.submit(run="gone")
    airflow.run()
    airflow.task()
    airflow.task("seal", try_number=2)
    airflow.earlier("seal", state="failed")
    airflow.log()
    airflow.log(owner="dana")


def _facts(world: World) -> list[tuple[str, str]]:
    kinds = [Kind.TASK_OUTCOME, Kind.AIRFLOW_CHANGED, Kind.CONFLICT]
    return sorted((entry.event.kind, entry.event.key) for entry in world.deployment.audit.events(kinds=kinds))


@pytest.mark.requirement("E-1")
@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_leaves_what_it_would_have(
    world: World, airflow: FakeAirflow
) -> None:
    _prepare(world, airflow)
    whole = world.copy(world.root.parent / "whole")
    reconcile_all(whole.watched(), airflow.client())
    moments = whole.failpoints.reached
    assert len(moments) > 30
    for number in range(1, len(moments) + 1):
        copied = world.copy(world.root.parent / str(number))
        copied.failpoints.stop_at(number, Killed())
        with pytest.raises(Killed):
            reconcile_all(copied.watched(), airflow.client())
        copied.clock.advance(us=1)
        look(copied, airflow)
        assert _facts(copied) == _facts(whole), f"killed {moments[number - 1]}"


@pytest.mark.requirement("E-1")
def test_two_at_once_append_everything_once(world: World, airflow: FakeAirflow) -> None:
    _prepare(world, airflow)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: look(world, airflow), range(4)))
    assert len(reports) == 4
    assert len(outcomes(world)) == 3
    assert len(changes(world)) == 4
    assert world.events(Kind.CONFLICT) == []
    assert look(world, airflow).findings == []


# In Airflow


def test_the_dag_runs_every_hour_alone_and_without_being_switched_on() -> None:
    from airlock.airflow.dag_factory import RECONCILE_DAG, reconcile_dag

    dag = reconcile_dag()
    assert dag.dag_id == RECONCILE_DAG == "airlock__reconcile"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.is_paused_upon_creation is False
    assert dag.tags == {"airlock", "audit"}
    assert "Each finding is a line in the log" in str(dag.doc_md)
    assert [task.task_id for task in dag.tasks] == ["reconcile"]
    assert dag.tasks[0].doc_md


def test_it_starts_at_the_full_hour_and_makes_up_for_one_hour_at_most() -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import DataInterval, TimeRestriction
    from pendulum import DateTime

    from airlock.airflow.dag_factory import reconcile_dag

    timetable = DagSerialization.from_dict(DagSerialization.to_dict(reconcile_dag())).timetable
    never_ran = TimeRestriction(None, None, catchup=False)
    now = DateTime.now(UTC)
    first = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=never_ran)
    assert now <= first.run_after <= DateTime.now(UTC).add(hours=1)
    assert (first.run_after.minute, first.run_after.second) == (0, 0)
    days_ago = DataInterval.exact(now.start_of("hour").subtract(days=3))
    late = timetable.next_dagrun_info(last_automated_data_interval=days_ago, restriction=never_ran)
    assert now.subtract(hours=1) < late.run_after <= DateTime.now(UTC)


@pytest.mark.slow
def test_importing_its_file_loads_no_heavy_library(tmp_path: Path) -> None:
    heavy = ["great_expectations", "evidently", "mlflow", "shap", "fairlearn", "sklearn", "pandas", "numpy"]
    file = ROOT / "dags" / "reconcile.py"
    code = (
        f"import json, runpy, sys; found = runpy.run_path({str(file)!r})\n"
        f"print(json.dumps([found['dag'].dag_id, [name for name in {heavy!r} if name in sys.modules]]))"
    )
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == ["airlock__reconcile", []]


def test_the_task_says_each_finding_and_returns_how_many(
    world: World, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airlock.airflow.operators import ReconcileOperator

    monkeypatch.setenv("AIRLOCK_HOME", str(world.deployment.settings.home))
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(world.config))
    monkeypatch.setenv("AIRLOCK_DEPLOYMENT", "test")
    monkeypatch.setattr("airlock.adapters.airflow_api.service_client", lambda _: airflow.client())
    monkeypatch.setattr(ReconcileOperator, "log", logging.getLogger("the task"))
    world.submit(run=RUN)
    airflow.log(owner="petra")
    with caplog.at_level(logging.INFO):
        assert ReconcileOperator(task_id="reconcile").execute(cast("Any", {})) == 2
    assert "deleted run: " in caplog.text
    assert "change: " in caplog.text
    assert "petra" in caplog.text
    assert "looked for 1 releases: 2 findings" in caplog.text
    assert ReconcileOperator(task_id="reconcile").execute(cast("Any", {})) == 0


def test_without_a_service_user_it_says_what_to_set(world: World) -> None:
    with pytest.raises(AirlockError, match="AIRLOCK_SERVICE_PASSWORD"):
        service_client(world.deployment.settings)
