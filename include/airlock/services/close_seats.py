"""Take back questions nobody needs to answer any more."""

from __future__ import annotations

from airlock.adapters.airflow_api import service_client
from airlock.core.task import SEAT_TASK
from airlock.services.deployment import Deployment


def close_seats(deployment: Deployment, dag_id: str, run_id: str) -> int:
    """Skip the seats of a run that still wait, and return how many those were.

    Raises:
        UnavailableError: Airflow does not answer, or no service user is configured.
    """
    client = service_client(deployment.settings)
    waiting = [
        seat for seat in client.task_instances(dag_id, run_id, SEAT_TASK) if seat["state"] == "awaiting_input"
    ]
    for seat in waiting:
        client.set_task_state(dag_id, run_id, SEAT_TASK, seat["map_index"], "skipped")
    return len(waiting)
