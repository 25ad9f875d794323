"""Airflow's REST API as Airlock uses it: what is sent again, what is not, and in whose name."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from airlock.adapters import airflow_api
from airlock.adapters.airflow_api import AirflowClient
from airlock.core.errors import ConflictError, UnavailableError

Answer = Callable[[httpx.Request], httpx.Response]


def client(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> AirflowClient:
    monkeypatch.setattr(airflow_api, "RETRY_SECONDS", (0.0, 0.0, None))
    made = AirflowClient.for_token("http://airflow", "dana", "a token")
    made._http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(answer))
    return made


def refusing(times: int, then: int, sent: list[httpx.Request]) -> Answer:
    """Fail ``times`` times with 500, then answer ``then``."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"dag_run_id": request.url.path.rsplit("/", 1)[-1]})
        sent.append(request)
        failed = len(sent) <= times
        return httpx.Response(500 if failed else then, json={"detail": "locked" if failed else "there"})

    return answer


@pytest.mark.parametrize(("failures", "then"), [(0, 200), (1, 200), (2, 200), (1, 409)])
def test_a_run_is_started_once_however_often_it_has_to_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, failures: int, then: int
) -> None:
    sent: list[httpx.Request] = []
    run = client(monkeypatch, refusing(failures, then, sent)).trigger("release__x", {"version": "2"})
    bodies: list[Any] = [json.loads(request.content) for request in sent]
    assert len(bodies) == failures + 1
    assert {body["dag_run_id"] for body in bodies} == {run["dag_run_id"]}
    assert sent[0].headers["authorization"] == "Bearer a token"


def test_a_run_can_be_the_one_the_schedule_would_have_started(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    client(monkeypatch, refusing(0, 200, sent)).trigger("monitor__x", {}, logical_date="2026-03-02T00:00:00Z")
    client(monkeypatch, refusing(0, 200, sent)).trigger("monitor__x", {})
    dates = [json.loads(request.content)["logical_date"] for request in sent]
    assert dates == ["2026-03-02T00:00:00Z", None]


def test_a_conflict_at_the_first_try_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    with pytest.raises(ConflictError):
        client(monkeypatch, refusing(0, 409, sent)).trigger("release__x", {})


def test_what_does_not_heal_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    with pytest.raises(UnavailableError, match="locked"):
        client(monkeypatch, refusing(9, 200, sent)).answer("d", "r", "seat", 0, choice="Approve", comment="")
    assert len(sent) == 3


@pytest.mark.parametrize(
    ("received", "state", "expected"),
    [
        (False, "awaiting_input", True),
        (True, "awaiting_input", False),
        (False, "up_for_retry", False),
        (True, "success", False),
    ],
)
def test_a_seat_asks_again_when_it_waits_without_an_answer(
    monkeypatch: pytest.MonkeyPatch, received: bool, state: str, expected: bool
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"response_received": received, "task_instance": {"state": state}})

    assert client(monkeypatch, answer).asks_again("d", "r", "seat", 1) is expected
    assert asked == ["/api/v2/dags/d/dagRuns/r/taskInstances/seat/1/hitlDetails"]


@pytest.mark.parametrize(
    ("ago", "pauses"), [(3600, 0), (airflow_api.SETTLED_SECONDS + 5, 0), (5, 1), (-60, 1), (None, 1)]
)
def test_only_a_seat_that_began_just_now_is_left_alone_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, ago: float | None, pauses: int
) -> None:
    began = None if ago is None else (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
    seat = {"task_id": "seat", "map_index": 1, "state": "awaiting_input", "start_date": began}
    slept: list[float] = []
    monkeypatch.setattr(airflow_api.time, "sleep", slept.append)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "GET"
        return httpx.Response(200, json={"task_instances": [seat], "next_cursor": None})

    client(monkeypatch, answer).wait_for_seat("d", "r", "seat", 1)
    assert len(slept) == pauses


def test_a_seat_is_asked_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={})

    api = client(monkeypatch, answer)
    api.clear_task("d", "r+1", "seat", 1)
    body = json.loads(sent[0].content)
    assert (body["task_ids"], body["dag_run_id"]) == ([["seat", 1]], "r+1")
    assert body["dry_run"] is body["only_failed"] is body["reset_dag_runs"] is False


def silent(times: int, sent: list[httpx.Request]) -> Answer:
    """Give no answer ``times`` times: refused, and then too slow."""

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if len(sent) > times:
            return httpx.Response(200, json={"state": "running"})
        raise (httpx.ConnectError if len(sent) == 1 else httpx.ReadTimeout)("no answer", request=request)

    return answer


def test_what_is_read_is_asked_for_again_while_airflow_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    monkeypatch.setattr(airflow_api.time, "sleep", lambda _: None)
    assert client(monkeypatch, silent(2, sent)).run("d", "r") == {"state": "running"}
    assert len(sent) == 3


def test_an_outage_that_does_not_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    monkeypatch.setattr(airflow_api, "OUTAGE_SECONDS", -1.0)
    with pytest.raises(UnavailableError, match="Airflow does not answer: no answer"):
        client(monkeypatch, silent(9, sent)).run("d", "r")
    assert len(sent) == 1


def test_who_has_not_logged_in_learns_at_once_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    api = AirflowClient("http://airflow", "dana", "her password")
    api._http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(silent(9, sent)))
    with pytest.raises(UnavailableError, match="airlock up"):
        api.run("d", "r")
    assert [request.url.path for request in sent] == ["/auth/token"]
