"""Follow a request from outside Airflow: start it, answer it, and wait until the audit store has it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airlock.adapters.airflow_api import AirflowClient
from airlock.core.errors import RefusedError, UnavailableError
from airlock.core.task import SEAT_TASK
from airlock.services.deployment import Deployment
from airlock.services.requests import refusal_of, request_id_for

WAIT_SECONDS = 120
POLL_SECONDS = 0.5


def start_request(
    deployment: Deployment, client: AirflowClient, kind: str, dag_id: str, conf: dict[str, Any]
) -> str:
    """Start a request DAG as the client's user, wait until the request is on record, and return its id.

    Raises:
        RefusedError: it was not accepted; with the reason.
        UnavailableError: it is not on record in time.
    """
    run_id = str(client.trigger(dag_id, conf)["dag_run_id"])
    request_id = request_id_for(kind, deployment.settings.deployment, dag_id, run_id)
    wait_for_record(
        deployment,
        client,
        lambda: deployment.find(f"{kind}/{request_id}/requested") is not None,
        subject=request_id,
        run=(dag_id, run_id),
    )
    return request_id


def start_and_wait(
    deployment: Deployment,
    client: AirflowClient,
    dag_id: str,
    conf: dict[str, Any],
    *,
    subject: str,
    recorded: Callable[[], bool],
) -> None:
    """Start a DAG about something that is on record as the client's user, and wait for what it records.

    Raises:
        RefusedError: it was refused, with the reason, or the run failed.
        UnavailableError: it is not on record in time.
    """
    seen, _ = refusal_of(deployment, subject)
    run_id = str(client.trigger(dag_id, conf)["dag_run_id"])
    wait_for_record(deployment, client, recorded, subject=subject, run=(dag_id, run_id), seen=seen)


def answer_request(
    deployment: Deployment,
    client: AirflowClient,
    request_id: str,
    index: int,
    *,
    run: tuple[str, str],
    choice: str,
    comment: str,
    recorded: Callable[[], bool],
) -> None:
    """Answer a seat as the client's user, and wait until the answer is on record.

    Args:
        deployment: where.
        client: Airflow as the user sees it.
        request_id: the request.
        index: its seat, from 0.
        run: DAG and run of the request.
        choice: ``Approve`` or ``Reject``.
        comment: what the user writes.
        recorded: says whether the answer is on record.

    Raises:
        RefusedError: Airflow or the rules refuse this user's answer.
        UnavailableError: it is not on record in time.
    """
    seen, _ = refusal_of(deployment, request_id)
    place = (*run, SEAT_TASK, index)

    def send() -> None:
        client.wait_for_seat(*place)
        client.answer(*place, choice=choice, comment=comment)

    send()
    wait_for_record(
        deployment,
        client,
        recorded,
        subject=request_id,
        run=run,
        seen=seen,
        again=(lambda: client.asks_again(*place), send),
    )


def wait_for_record(
    deployment: Deployment,
    client: AirflowClient,
    recorded: Callable[[], bool],
    *,
    subject: str,
    run: tuple[str, str],
    seen: int = 0,
    again: tuple[Callable[[], bool], Callable[[], None]] | None = None,
) -> None:
    """Wait until something is on record.

    ``again`` says whether what was sent got lost, and sends it once more.

    Raises:
        RefusedError: it was refused since ``seen`` refusals, or the run failed.
        UnavailableError: the time is over, or Airflow does not answer.
    """
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        # Asked first: a seat that refused the answer waits again too, and has said so before.
        lost = again is not None and again[0]()
        if recorded():
            return
        _, problem = refusal_of(deployment, subject, since=seen)
        if problem:
            raise RefusedError(problem, where=subject)
        if client.run(*run)["state"] == "failed":
            raise RefusedError(
                "the request failed before it was recorded",
                where=f"{run[0]} {run[1]}",
                fix="see the failed task of this run in Airflow",
            )
        if again is not None and lost:
            again[1]()
        time.sleep(POLL_SECONDS)
    raise UnavailableError(
        f"nothing was recorded in {WAIT_SECONDS} s", where=subject, fix="look at the run in Airflow"
    )
