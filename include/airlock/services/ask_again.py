"""Ask a seat anew whose answer counts no more: a delegation ended, or a role moved (requirement A-6).

Its task has ended in Airflow, so it is cleared and asks again; what was answered stands in the audit store
and is not touched. Airflow never changes whom a waiting question is for: who may fill it since answers on the
page of the release, in Slack or by `airlock approve`.
"""

from __future__ import annotations

from airlock.adapters.airflow_api import AirflowClient, service_client
from airlock.core.errors import AirlockError, UnavailableError
from airlock.core.release import Release, State
from airlock.core.task import SEAT_TASK
from airlock.services.deployment import Deployment
from airlock.services.releases import (
    find_release,
    list_releases,
    panel_for,
    quorum_of,
    read_decision,
    state_of,
)

NEWEST = 200
"""Releases that are looked at."""


def ask_again(deployment: Deployment, client: AirflowClient | None = None) -> list[str]:
    """Ask every open seat again whose task has ended; returns a sentence for each.

    Raises:
        UnavailableError: Airflow or the audit store does not answer, or no service user is configured.
    """
    said = []
    for release in list_releases(deployment, limit=NEWEST):
        try:
            waits = state_of(deployment, release) is State.WAITING
            if waits:
                client = client or service_client(deployment.settings)
                said += _ask_again(deployment, client, release)
        except UnavailableError:
            raise
        except AirlockError as error:
            # One release whose run is gone must not keep the others from being asked.
            said.append(f"{release.release_id} could not be asked again: {error}")
    return said


def _ask_again(deployment: Deployment, client: AirflowClient, release: Release) -> list[str]:
    run = (release.dag_id, release.run_id)
    tasks = {task["map_index"]: task["state"] for task in client.task_instances(*run, SEAT_TASK)}
    # Read after the tasks: what a finished task recorded is seen here.
    release = find_release(deployment, release.release_id)
    decision = read_decision(deployment, release)
    if decision is None:
        return []
    said, panel = [], panel_for(deployment, release)
    for index in quorum_of(deployment, release, decision).open_seats:
        role, state = decision.seats[index].role, tasks.get(index)
        wanted = {person.user for person in panel.eligible(role)}
        if wanted and state == "success":
            client.clear_task(*run, SEAT_TASK, index)
            said.append(f"seat {index + 1} of {release.release_id} ({role}) asks {', '.join(sorted(wanted))}")
    return said
