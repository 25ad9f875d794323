"""Every request that tries to change a release run, in the audit store, allowed or not.

Airflow's own event log does not have requests refused for lack of permission; an auditor wants
exactly those. The middleware sits in front of Airflow's API and decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airlock.airflow.refs import DAG_PREFIX
from airlock.core.audit import Kind
from airlock.core.errors import AirlockError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_NOBODY = "anonymous"
_CHANGING = {"POST", "PUT", "PATCH", "DELETE"}
_PATH = re.compile(rf"^(?:/[^/]+)*?/(?:api/v2|ui)/dags/(?P<dag>{DAG_PREFIX}[^/]+|~)(?P<rest>/.*)?$")


class AttemptsMiddleware:
    """Records method, path, user and status of requests that try to change a release run."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._bound = _Bound()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and record what became of it."""
        found = (
            _PATH.match(scope["path"]) if scope["type"] == "http" and scope["method"] in _CHANGING else None
        )
        if found is None:
            await self.app(scope, receive, send)
            return
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            await self._record(scope, found["dag"], found["rest"] or "", status)

    async def _record(self, scope: Scope, dag_id: str, rest: str, status: int) -> None:
        try:
            user = await _user(scope)
            await asyncio.to_thread(_write, scope["method"], (dag_id, rest), user, status, self._bound)
        except AirlockError:
            log.exception(
                "%s %s%s answered %s and could not be recorded now", scope["method"], dag_id, rest, status
            )


async def _user(scope: Scope) -> str:
    """Who asks, by the token Airflow itself checks; ``anonymous`` when there is none that is valid."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
    from starlette.requests import HTTPConnection

    connection = HTTPConnection(scope)
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    token = token if scheme.lower() == "bearer" else connection.cookies.get(COOKIE_NAME_JWT_TOKEN, "")
    if not token:
        return _NOBODY
    try:
        user: Any = await get_auth_manager().get_user_from_token(token)
    except Exception:  # noqa: BLE001  # each auth manager has its own errors; all mean "not authenticated"
        return _NOBODY
    return str(user.get_name())


class _Bound:
    """Lets so many refused attempts of nobody through in a minute, and counts the others.

    Who has no login could otherwise fill the log, which nothing is ever removed from.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute, self._let, self._left_out = 0, 0, 0

    def pass_one(self, most: int) -> int | None:
        """``None`` for one too many, else how many were left out before this one."""
        minute = int(time.monotonic() // 60)
        with self._lock:
            if minute != self._minute:
                self._minute, self._let = minute, 0
            if self._let >= most:
                self._left_out += 1
                return None
            self._let += 1
            before, self._left_out = self._left_out, 0
            return before


def _write(method: str, path: tuple[str, str], user: str, status: int, bound: _Bound) -> None:
    from airlock.services.deployment import open_deployment

    dag_id, rest = path
    deployment = open_deployment()
    refused = user == _NOBODY and status >= HTTPStatus.BAD_REQUEST
    left_out = bound.pass_one(deployment.settings.anonymous_per_minute) if refused else 0
    if left_out is None:
        return
    run = re.match(r"/dagRuns/([^/]+)", rest)
    deployment.record(
        Kind.API_ATTEMPT,
        f"api/{time.time_ns() // 1000}/{uuid.uuid4().hex}",
        actor=user[:200],
        workload="" if dag_id == "~" else dag_id.removeprefix(DAG_PREFIX)[:200],
        data={
            "method": method,
            "path": f"/dags/{dag_id}{rest}"[:2000],
            "dag_id": dag_id[:500],
            "run_id": unquote(run[1])[:500] if run else "",
            "status": status,
            **({"left_out_before": left_out} if left_out else {}),
        },
    )
