"""Follow a release from outside Airflow: start it, wait for it, answer it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from airlock.adapters.airflow_api import AirflowClient
from airlock.core.audit import Kind
from airlock.core.decision import required_gates
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError, UnavailableError
from airlock.core.interview import ANSWER_PREFIX
from airlock.core.manifest import AnswerValue, release_id_for
from airlock.core.release import Release, State
from airlock.core.task import SEAT_TASK
from airlock.services.approve import answer as approve
from airlock.services.approve import seat_request
from airlock.services.deployment import Deployment
from airlock.services.follow import wait_for_record
from airlock.services.releases import (
    filled_by,
    find_release,
    open_case,
    panel_for,
    quorum_of,
    read_decision,
    state_of,
)

WAIT_SECONDS = 3600
POLL_SECONDS = 0.5


def start_release(
    deployment: Deployment,
    client: AirflowClient,
    workload: str,
    *,
    version: str,
    batch: str,
    context: str,
    answers: Mapping[str, AnswerValue] | None = None,
    run_id: str = "",
) -> tuple[str, str]:
    """Trigger the release DAG; returns release id and run id.

    Asking again with the same ``run_id`` starts nothing: there is one run of that id.
    """
    dag_id = f"release__{workload}"
    conf: dict[str, Any] = {"version": version, "batch": batch, "context": context}
    conf |= {f"{ANSWER_PREFIX}{name}": value for name, value in (answers or {}).items()}
    run_id = str(client.trigger(dag_id, conf, run_id=run_id)["dag_run_id"])
    return release_id_for(deployment.settings.deployment, workload, version, dag_id, run_id), run_id


def pending_gates(deployment: Deployment, release: Release) -> list[str]:
    """Gates that have not answered yet."""
    if release.first(Kind.RELEASE_DECIDED) is not None:
        return []
    if release.first(Kind.RELEASE_FROZEN) is not None:
        policy = open_case(deployment, release.release_id).policy  # pinned, whatever the folder says now
    else:
        policy = deployment.config.policy(deployment.config.workload(release.workload).policy)
    answered = {line.gate for line in release.gates}
    return [gate for gate in required_gates(policy) if gate not in answered]


def wait_for(
    deployment: Deployment,
    client: AirflowClient,
    dag_id: str,
    run_id: str,
    release_id: str,
    *,
    on_change: Callable[[Release], None],
    through_waiting: bool = False,
    seconds: float = WAIT_SECONDS,
) -> State:
    """Wait until a release has ended, or asks people unless ``through_waiting``.

    Raises:
        InvalidInputError: the release was not accepted; with the reason.
        UnavailableError: the time is over, or Airflow does not answer.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            release = find_release(deployment, release_id)
        except NotFoundError:
            _raise_if_not_accepted(deployment, client, dag_id, run_id, release_id)
            time.sleep(POLL_SECONDS)
            continue
        on_change(release)
        state = state_of(deployment, release)
        if release.first(Kind.RELEASE_SEALED) is not None or (state is State.WAITING and not through_waiting):
            return state
        if client.run(dag_id, run_id)["state"] == "failed":
            return State.FAILED
        time.sleep(POLL_SECONDS)
    raise UnavailableError(f"release {release_id} did not end in {seconds:.0f} s", where=run_id)


def _raise_if_not_accepted(
    deployment: Deployment, client: AirflowClient, dag_id: str, run_id: str, release_id: str
) -> None:
    outcomes = [
        entry.event.data
        for entry in deployment.audit.events(release_id=release_id, kinds=[Kind.TASK_OUTCOME])
    ]
    problem = next(
        (data["error"] for data in outcomes if data["task_id"] == "submit" and data["state"] == "failed"), ""
    )
    if problem or client.run(dag_id, run_id)["state"] == "failed":
        raise InvalidInputError(
            f"the release was not accepted: {problem or 'see the task `submit`'}", where=run_id
        )


def answer_release(
    deployment: Deployment,
    client: AirflowClient,
    release_id: str,
    *,
    user: str,
    choice: str,
    comment: str,
    seat: int = 0,
    condition: str = "",
    until: str = "",
) -> int:
    """Answer as ``user`` through Airflow, wait until the answer is audited, and return the seat's index.

    ``condition`` and ``until`` are what has to be done, by which day, for an approval to stay.

    Raises:
        RefusedError: the release does not wait, the user holds no open role, or the answer was refused.
    """
    release = find_release(deployment, release_id)
    index = _open_seat(deployment, release, user, seat)
    seen = len(release.events)
    place = (release.dag_id, release.run_id, SEAT_TASK, index)

    def send() -> None:
        client.wait_for_seat(*place)
        try:
            client.answer(*place, choice=choice, comment=comment, condition=condition, until=until)
        except RefusedError:
            # Airflow never changes whom a question is for. Who may fill the seat since, because a delegation
            # began or a role moved, has proved to Airflow who they are, and is recorded here.
            if user not in {person.user for person in seat_request(deployment, release_id, index).eligible}:
                raise
            when = str(deployment.clock.now_us())
            approve(
                deployment,
                release_id,
                index,
                user=user,
                choice=choice.lower(),
                comment=comment,
                when=when,
                condition=condition,
                until=until,
            )

    def recorded() -> bool:
        for event in find_release(deployment, release_id).events[seen:]:
            if event.actor == user and event.data.get("seat") == index:
                if event.kind is Kind.APPROVAL_REFUSED:
                    raise RefusedError(event.data["problem"], where=release_id)
                if event.kind is Kind.APPROVAL_RECORDED:
                    return True
        return False

    send()
    wait_for_record(
        deployment,
        client,
        recorded,
        subject=release_id,
        run=(release.dag_id, release.run_id),
        again=(lambda: client.asks_again(*place), send),
    )
    return index


def _open_seat(deployment: Deployment, release: Release, user: str, seat: int) -> int:
    """Index of the seat that is meant, or of the first that the user may fill; known at once, or refused."""
    decision = read_decision(deployment, release)
    state = state_of(deployment, release)
    if decision is None or state is not State.WAITING:
        raise RefusedError(
            f"release {release.release_id} does not wait for approval: it is {state}",
            fix="see `airlock release show`",
        )
    quorum = quorum_of(deployment, release, decision)
    open_seats = quorum.open_seats
    if seat:
        if seat - 1 in open_seats:
            return seat - 1
        who = filled_by(release, quorum).get(seat - 1)
        raise RefusedError(
            f"seat {seat} is already filled by {who}" if who else f"seat {seat} does not exist",
            where=release.release_id,
            fix="see `airlock release show`",
        )
    person = deployment.config.people().find(user)
    roles, panel = person.roles if person else [], panel_for(deployment, release)
    asked = [(index, decision.seats[index].role) for index in open_seats]
    own = [index for index, role in asked if role in roles]
    if found := own or [index for index, role in asked if panel.acting_for(user, role)]:
        return found[0]
    wanted = ", ".join(seat.role for seat in decision.seats)
    raise RefusedError(
        f"{user} holds no role that is open here; roles held: {', '.join(roles) or 'none'}",
        where=release.release_id,
        fix=f"the release needs {wanted}",
    )
