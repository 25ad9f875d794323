"""Airflow's REST API, as far as Airlock uses it."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx

from airlock.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)

TIMEOUT_SECONDS = 30.0


class AirflowClient:
    """A user's view of one Airflow; every rule of Airflow applies to that user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._user = user
        self._password = password
        # Requests go to the one address that was configured; proxies of the environment are for others.
        # Connections are not kept: commands live shortly, and nobody would close them.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=self._url, timeout=TIMEOUT_SECONDS, trust_env=False, limits=limits)

    @cached_property
    def _token(self) -> str:
        body = {"username": self._user, "password": self._password}
        response = self._send("POST", "/auth/token", json=body)
        if response.status_code not in (200, 201):
            raise RefusedError(
                f"Airflow does not accept the password of {self._user}",
                where=self._url,
                fix="check user and password",
            )
        return str(response.json()["access_token"])

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"Airflow does not answer: {error}",
                where=self._url,
                fix="start it with `airlock up`, or set AIRLOCK_AIRFLOW_URL",
            ) from error

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send an authenticated request below ``/api/v2`` and return whatever comes back."""
        headers = {"Authorization": f"Bearer {self._token}"}
        return self._send(method, f"/api/v2{path}", headers=headers, **kwargs)

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        response = self.request(method, path, **kwargs)
        if response.is_success:
            return response.json() if response.content else None
        try:
            detail = response.json().get("detail", "")
        except (ValueError, AttributeError):
            detail = response.text[:300]
        errors = {403: RefusedError, 404: NotFoundError, 409: ConflictError, 401: RefusedError}
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise UnavailableError(f"Airflow failed with {response.status_code}: {detail}", where=path)
        kind = errors.get(response.status_code, InvalidInputError)
        raise kind(
            f"Airflow answers {response.status_code}: {detail}", where=f"{method} {path} as {self._user}"
        )

    def health(self) -> dict[str, Any]:
        """State of the four components; needs no login."""
        response = self._send("GET", "/api/v2/monitor/health")
        data: dict[str, Any] = response.json() if response.is_success else {}
        return data

    def is_healthy(self) -> bool:
        """Whether Airflow answers and says that all four components are healthy."""
        try:
            health = self.health()
        except UnavailableError:
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Start a run."""
        data: dict[str, Any] = self._call(
            "POST", f"/dags/{quote(dag_id)}/dagRuns", json={"conf": conf, "logical_date": None}
        )
        return data

    def dag(self, dag_id: str) -> dict[str, Any]:
        """A DAG as Airflow knows it."""
        data: dict[str, Any] = self._call("GET", f"/dags/{quote(dag_id)}")
        return data

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """A run."""
        data: dict[str, Any] = self._call("GET", _run_path(dag_id, run_id))
        return data

    def task_instances(self, dag_id: str, run_id: str, task_id: str = "") -> list[dict[str, Any]]:
        """Task instances of a run, of one task if it is named."""
        params = {"limit": 500} | ({"task_id": task_id} if task_id else {})
        data = self._call("GET", _run_path(dag_id, run_id) + "/taskInstances", params=params)
        return [ti for ti in data["task_instances"] if not task_id or ti["task_id"] == task_id]

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, map_index: int, state: str) -> None:
        """Set the state of a task instance by hand."""
        self._call("PATCH", _task_path(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def answer(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, *, choice: str, comment: str
    ) -> None:
        """Answer a waiting task as this user.

        Airflow can lose an answer that comes in the moment a task begins to wait, so a fresh one is
        left alone for a moment.
        """
        path = _task_path(dag_id, run_id, task_id, map_index) + "/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": [choice], "params_input": {"comment": comment}})

    def wait_for_seat(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, seconds: float = 60
    ) -> None:
        """Wait until a task waits for input and has done so for a moment."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seats = self.task_instances(dag_id, run_id, task_id)
            if any(seat["map_index"] == map_index and seat["state"] == "awaiting_input" for seat in seats):
                time.sleep(1)
                return
            time.sleep(0.5)
        raise UnavailableError(f"task {task_id}[{map_index}] does not wait for an answer", where=run_id)


def _run_path(dag_id: str, run_id: str) -> str:
    # Run ids contain ":" and "+".
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}"
    return f"{path}/{map_index}"
