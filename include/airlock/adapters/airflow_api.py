"""Airflow's REST API, as far as Airlock uses it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airlock.adapters.settings import Settings
from airlock.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 30.0

OUTAGE_SECONDS = 60.0
"""How long Airflow may give no answer to who has logged in: it may be restarted, or have more to do."""

RETRY_SECONDS: tuple[float | None, ...] = (0.5, 1.0, 2.0, 4.0, None)
"""Pauses before a change is sent again that Airflow could not take just now; ``None`` gives up."""

SETTLED_SECONDS = 30
"""A task that began longer ago has parked long since; its scheduler may still be busy with a younger one."""

PAGE = 100
"""Rows asked for at once; Airflow's own limit unless `[api] maximum_page_limit` says otherwise."""


class AirflowClient:
    """A user's view of one Airflow; every rule of Airflow applies to that user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._user = user
        self._password = password
        # Requests go to the one address that was configured; proxies of the environment are for others.
        # Connections are not kept: commands live shortly, and nobody would close them.
        # Here, because every command of the command line would wait for it.
        import httpx

        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=self._url, timeout=TIMEOUT_SECONDS, trust_env=False, limits=limits)

    @classmethod
    def for_token(cls, url: str, user: str, token: str) -> AirflowClient:
        """A client for a user who has logged in already."""
        client = cls(url, user, "")
        client.__dict__["_token"] = token  # what the cached property would have fetched
        return client

    def log_in(self) -> None:
        """Ask Airflow now whether the password is right.

        Raises:
            RefusedError: it is not.
            UnavailableError: Airflow does not answer.
        """
        _ = self._token

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
        import httpx

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
        response = (self._read if method == "GET" else self.request)(method, path, **kwargs)
        if response.is_success:
            return response.json() if response.content else None
        try:
            detail = response.json().get("detail", "")
        except (ValueError, AttributeError):
            detail = response.text[:300]
        errors = {403: RefusedError, 404: NotFoundError, 409: ConflictError, 401: RefusedError}
        if response.is_server_error:
            raise UnavailableError(f"Airflow failed with {response.status_code}: {detail}", where=path)
        kind = errors.get(response.status_code, InvalidInputError)
        raise kind(
            f"Airflow answers {response.status_code}: {detail}", where=f"{method} {path} as {self._user}"
        )

    def _read(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send a request that changes nothing, again while nobody answers."""
        _ = self._token  # where nobody answers from the start, that is said at once
        until = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                return self.request(method, path, **kwargs)
            except UnavailableError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)

    def _insist(self, method: str, path: str, **kwargs: Any) -> None:
        """Send a change that Airflow takes once, again if it could not take it just now.

        On SQLite Airflow refuses a write that waits for five seconds while a task starts. After an answer
        that got lost on its way the change may stand already: then it is a conflict, and that is fine.
        """
        for number, pause in enumerate(RETRY_SECONDS):
            try:
                self._call(method, path, **kwargs)
            except UnavailableError:
                if pause is None:
                    raise
                time.sleep(pause)
            except ConflictError:
                if number == 0:
                    raise
                return
            else:
                return

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

    def trigger(
        self, dag_id: str, conf: dict[str, Any], *, run_id: str = "", logical_date: str = ""
    ) -> dict[str, Any]:
        """Start a run. The run's id is chosen here, so that asking again cannot start a second one.

        With a ``run_id`` of the caller, a run that has it already is the answer, whoever started it. A
        ``logical_date`` (ISO 8601) makes it the run that the schedule would have started then.
        """
        moment = datetime.now(UTC).isoformat(timespec="microseconds")
        chosen = run_id or f"manual__{moment}_{secrets.token_hex(4)}"
        body = {"dag_run_id": chosen, "conf": conf, "logical_date": logical_date or None}
        try:
            self._insist("POST", f"/dags/{quote(dag_id)}/dagRuns", json=body)
        except ConflictError:
            if not run_id:
                raise
        return self.run(dag_id, chosen)

    def dag(self, dag_id: str) -> dict[str, Any]:
        """A DAG as Airflow knows it."""
        data: dict[str, Any] = self._call("GET", f"/dags/{quote(dag_id)}")
        return data

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """A run."""
        data: dict[str, Any] = self._call("GET", _run_path(dag_id, run_id))
        return data

    def runs(self, dag_prefix: str, *, updated_since: str = "") -> Iterator[dict[str, Any]]:
        """Runs of all DAGs whose id starts with ``dag_prefix``, oldest first.

        ``updated_since`` is an ISO 8601 time; runs that did not change since are left out.
        """
        params = _known({"dag_id_prefix_pattern": dag_prefix, "updated_at_gte": updated_since})
        for run in self._pages("/dags/~/dagRuns", "dag_runs", {**params, "order_by": "id"}):
            # Airflow leaves out what is neither letter nor digit at the end of a prefix.
            if run["dag_id"].startswith(dag_prefix):
                yield run

    def task_instances(self, dag_id: str, run_id: str, task_id: str = "") -> list[dict[str, Any]]:
        """Task instances of a run, of one task if it is named."""
        path = _run_path(dag_id, run_id) + "/taskInstances"
        found = self._pages(path, "task_instances", _known({"task_id": task_id}) | {"order_by": "id"})
        return [ti for ti in found if not task_id or ti["task_id"] == task_id]

    def changed_task_instances(self, dag_prefix: str, *, updated_since: str) -> Iterator[dict[str, Any]]:
        """Task instances of all runs of DAGs as in ``runs`` that changed since an ISO 8601 time."""
        params = {"dag_id_prefix_pattern": dag_prefix, "updated_at_gte": updated_since, "order_by": "id"}
        for instance in self._pages("/dags/~/dagRuns/~/taskInstances", "task_instances", params):
            if instance["dag_id"].startswith(dag_prefix):
                yield instance

    def tries(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> list[dict[str, Any]]:
        """Every try of a task instance that Airflow remembers, the current one among them."""
        data = self._call("GET", _task_path(dag_id, run_id, task_id, map_index) + "/tries")
        found: list[dict[str, Any]] = data["task_instances"]
        return found

    def event_logs(self, *, after: str = "", excluded: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
        """Airflow's event log, oldest first: rows after an ISO 8601 time, without ``excluded`` events.

        Raises:
            RefusedError: this user may not read it.
        """
        params = _known({"after": after, "excluded_events": list(excluded)})
        seen = 0
        while True:
            page = {**params, "order_by": "event_log_id", "limit": PAGE, "offset": seen}
            data = self._call("GET", "/eventLogs", params=page)
            yield from data["event_logs"]
            seen += len(data["event_logs"])
            if not data["event_logs"] or seen >= data["total_entries"]:
                return

    def _pages(self, path: str, field: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Everything of a list, page by page; rows that come or go meanwhile hide no other row."""
        cursor: str | None = ""
        while cursor is not None:
            data = self._call("GET", path, params={**params, "limit": PAGE, "cursor": cursor})
            yield from data[field]
            cursor = data["next_cursor"]

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, map_index: int, state: str) -> None:
        """Set the state of a task instance by hand."""
        self._call("PATCH", _task_path(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def clear_task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        """Let a task instance run again, it alone."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [[task_id, map_index]],
            "only_failed": False,
            "reset_dag_runs": False,
        }
        self._call("POST", f"/dags/{quote(dag_id, safe='')}/clearTaskInstances", json=body)

    def answer(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        *,
        choice: str,
        comment: str,
        condition: str = "",
        until: str = "",
    ) -> None:
        """Answer a waiting task as this user.

        Airflow can lose an answer that comes in the moment a task begins to wait, so a fresh one is
        left alone for a moment.
        """
        path = _task_path(dag_id, run_id, task_id, map_index) + "/hitlDetails"
        words = {"comment": comment, **_known({"condition": condition, "until": until})}
        body = {"chosen_options": [choice], "params_input": words}
        self._insist("PATCH", path, json=body)

    def asks_again(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> bool:
        """Whether a seat waits without an answer, as it does after Airflow failed the task that had one.

        When an answer comes before the scheduler has noted that the task parked, Airflow takes the end of
        the parked process for a failure; the task is tried again, and its answer is gone.
        """
        path = _task_path(dag_id, run_id, task_id, map_index) + "/hitlDetails"
        detail = self._call("GET", path)
        return not detail["response_received"] and detail["task_instance"]["state"] == "awaiting_input"

    def wait_for_seat(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, seconds: float = 60
    ) -> None:
        """Wait until a task waits for input and has done so for a moment, or began long enough ago."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seats = self.task_instances(dag_id, run_id, task_id)
            waiting = [
                seat for seat in seats if seat["map_index"] == map_index and seat["state"] == "awaiting_input"
            ]
            if waiting:
                if not _began_before(waiting[0], SETTLED_SECONDS):
                    time.sleep(1)
                return
            time.sleep(0.5)
        raise UnavailableError(f"task {task_id}[{map_index}] does not wait for an answer", where=run_id)


def service_client(settings: Settings) -> AirflowClient:
    """Airflow as the service user of a deployment sees it.

    Raises:
        UnavailableError: no service user is configured.
    """
    password = settings.service_password.get_secret_value()
    if not password:
        raise UnavailableError(
            "no service user is configured",
            where="AIRLOCK_SERVICE_PASSWORD",
            fix="set AIRLOCK_SERVICE_USER and AIRLOCK_SERVICE_PASSWORD to a user who may edit tasks",
        )
    return AirflowClient(settings.airflow_url, settings.service_user, password)


def _began_before(task: dict[str, Any], seconds: float) -> bool:
    """Whether a task instance started longer ago than that, by the clocks of both machines."""
    try:
        started = datetime.fromisoformat(str(task.get("start_date")))
    except ValueError:
        return False
    return (datetime.now(UTC) - started).total_seconds() > seconds


def _known(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value}


def _run_path(dag_id: str, run_id: str) -> str:
    # Run ids contain ":" and "+".
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}"
    return f"{path}/{map_index}"
