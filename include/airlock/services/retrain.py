"""Ask that a workload is trained again, and follow what becomes of it (requirement M-3).

A person asks with `airlock retrain` or the DAG's form; the policy's automatic action asks as the system. The
id of a retraining follows from its DAG run alone, so nothing in the run's configuration can name another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from airlock.adapters.airflow_api import AirflowClient, service_client
from airlock.core.audit import Kind
from airlock.core.canonical import digest_of
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError
from airlock.core.production import Window, microseconds, moment
from airlock.core.retraining import KINDS, RETRAIN_PREFIX, Retraining, RetrainState, TrainingData
from airlock.core.workload import Workload
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.requests import refuse, request_id_for, words_problem

MINIMUM_REASON = 10
"""Characters in which a person says why."""

_KIND = "retrain"


def dag_of(workload_name: str) -> str:
    """Id of the retraining DAG of a workload."""
    return f"{RETRAIN_PREFIX}{workload_name}"


def request(
    deployment: Deployment,
    workload_name: str,
    *,
    window: Window | None = None,
    incident_id: str = "",
    actor: str = SYSTEM,
    reason: str,
    file: str = "",
    client: AirflowClient | None = None,
) -> str:
    """Ask that a workload is trained again, start its DAG, and return the id of the retraining.

    Asking again for the same incident changes nothing and starts nothing. Without a window or file it is
    trained on the pinned training data.

    Args:
        deployment: where.
        workload_name: what is trained.
        window: rows of the production log to train on.
        incident_id: incident that this answers; empty for none.
        actor: who asks: a person of ``people.yaml``, or the system.
        reason: why, in a sentence.
        file: Parquet file inside the data directory to train on.
        client: Airflow, as the user in whose name the DAG is started; the service user if not given.

    Raises:
        NotFoundError: there is no such workload.
        RefusedError: it has no training command, or this person may not ask.
        InvalidInputError: there is no reason, or window and file are both given.
        UnavailableError: Airflow or a store does not answer; asking again goes on where it stopped.
    """
    workload = deployment.config.workload(workload_name)
    data = _data(window, file)
    asked = {"reason": reason, "data": data.to_data(), "incident": incident_id}
    told = asked if incident_id else {**asked, "actor": actor, "us": deployment.clock.now_us()}
    dag_id, run_id = dag_of(workload_name), f"airlock__{incident_id or digest_of(told)[:16]}"
    retrain_id = request_id_for(_KIND, deployment.settings.deployment, dag_id, run_id)
    _record(deployment, retrain_id, workload, actor=actor, asked=asked, run=(dag_id, run_id))
    airflow = service_client(deployment.settings) if client is None else client
    airflow.trigger(dag_id, {"reason": reason[:1000], **_form(data), "incident": incident_id}, run_id=run_id)
    return retrain_id


def ask_as(
    deployment: Deployment,
    client: AirflowClient,
    workload: Workload,
    *,
    reason: str,
    start: str = "",
    end: str = "",
    file: str = "",
) -> tuple[str, str]:
    """Start the DAG as a logged-in user, who is recorded by its first task; returns retraining and run id.

    What cannot be right is said here, before anything starts.

    Raises:
        RefusedError: the workload has no training command, or Airflow does not let this user.
        InvalidInputError: the reason or the window cannot be used.
    """
    _refuse_without_command(workload)
    if problem := words_problem(reason, minimum=MINIMUM_REASON, what="reason"):
        raise InvalidInputError(problem, where="reason")
    data = _data(_window(start, end), file)
    dag_id = dag_of(workload.name)
    run_id = str(client.trigger(dag_id, {"reason": reason, **_form(data)})["dag_run_id"])
    return request_id_for(_KIND, deployment.settings.deployment, dag_id, run_id), run_id


def open_request(
    deployment: Deployment,
    workload_name: str,
    *,
    params: Mapping[str, Any],
    user: str,
    dag_id: str,
    run_id: str,
) -> str:
    """The first task of the DAG: what was asked for before the run was started, else by whoever started it.

    Raises:
        RefusedError: this user may not ask; recorded.
        InvalidInputError: the form cannot be used.
    """
    retrain_id = request_id_for(_KIND, deployment.settings.deployment, dag_id, run_id)
    if deployment.find(f"retrain/{retrain_id}/requested") is not None:
        return retrain_id
    workload = deployment.config.workload(workload_name)
    data = _data(
        _window(str(params.get("start") or ""), str(params.get("end") or "")), str(params.get("file") or "")
    )
    # An incident is named by what Airlock itself recorded, never by a form.
    asked = {"reason": str(params.get("reason") or ""), "data": data.to_data(), "incident": ""}
    _record(deployment, retrain_id, workload, actor=user, asked=asked, run=(dag_id, run_id))
    return retrain_id


def _record(
    deployment: Deployment,
    retrain_id: str,
    workload: Workload,
    *,
    actor: str,
    asked: dict[str, Any],
    run: tuple[str, str],
) -> None:
    key = f"retrain/{retrain_id}/requested"
    if deployment.find(key) is not None:
        return
    _refuse_without_command(workload)
    if actor != SYSTEM and (problem := _person_problem(deployment, actor, asked["reason"])):
        raise refuse(
            deployment,
            retrain_id,
            problem,
            user=actor,
            what=_KIND,
            when=run[1],
            workload=workload.name,
        )
    deployment.record(
        Kind.RETRAIN_REQUESTED,
        key,
        actor=actor,
        workload=workload.name,
        data={"retrain": retrain_id, **asked, "dag_id": run[0], "run_id": run[1]},
    )


def _refuse_without_command(workload: Workload) -> None:
    if not workload.training.command:
        raise RefusedError(
            f"workload {workload.name} has no training command",
            where=f"{workload.name}.yaml: training.command",
            fix="name the command; docs/retraining.md has an example",
        )


def _person_problem(deployment: Deployment, user: str, reason: str) -> str:
    """Why a person may not ask, in a sentence; empty when they may."""
    if not user:
        return "nobody is known as the one who asks; start the DAG as a logged-in user"
    person = deployment.config.people().active(user)
    if person is None:
        return f"{user} has no active entry in people.yaml"
    if person.airflow_role == "viewer":
        return f"{user} may look and not submit"
    return words_problem(reason, minimum=MINIMUM_REASON, what="reason")


def _data(window: Window | None, file: str) -> TrainingData:
    try:
        return TrainingData(window=window, file=file)
    except ValidationError as error:
        raise InvalidInputError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error


def _window(start: str, end: str) -> Window | None:
    """Two days or times as a window; ``None`` when both are empty."""
    if not start and not end:
        return None
    try:
        return Window(start_us=microseconds(start), end_us=microseconds(end))
    except (ValidationError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"{start or 'nothing'} to {end or 'nothing'} is no window",
            where="start, end",
            fix="give two days or times in ISO 8601, such as 2026-01-05 and 2026-02-02, the end not included",
        ) from error


def _form(data: TrainingData) -> dict[str, str]:
    if data.window is None:
        return {"file": data.file}
    return {"start": _iso(data.window.start_us), "end": _iso(data.window.end_us)}


def _iso(us: int) -> str:
    return moment(us).isoformat()


def find_retraining(deployment: Deployment, retrain_id: str) -> Retraining:
    """What is recorded about a retraining.

    Raises:
        NotFoundError: nobody asked for it here.
    """
    asked = deployment.find(f"retrain/{retrain_id}/requested")
    if asked is None:
        raise NotFoundError(
            f"there is no retraining {retrain_id!r}", fix="list them with `airlock retrain WORKLOAD --list`"
        )
    recorded = deployment.audit.events(workload=asked.workload, kinds=KINDS)
    return Retraining(
        [
            entry.event
            for entry in recorded
            if entry.event.data.get("retrain") == retrain_id
            and entry.event.deployment == deployment.settings.deployment
        ]
    )


def list_retrainings(deployment: Deployment, workload: str | None = None) -> list[Retraining]:
    """All retrainings, newest first."""
    name = deployment.settings.deployment
    found: dict[str, list[Any]] = {}
    for entry in deployment.audit.events(workload=workload, kinds=KINDS):
        if entry.event.deployment == name:
            found.setdefault(str(entry.event.data["retrain"]), []).append(entry.event)
    return [Retraining(events) for events in reversed(found.values())]


def record_step(
    deployment: Deployment, retraining: Retraining, kind: Kind, data: dict[str, Any], *, version: str = ""
) -> None:
    """Record that a step is done, once; a step that stands already stands as it is."""
    asked = retraining.requested
    if asked is None:
        raise NotFoundError("this retraining was never asked for")
    retrain_id = str(asked.data["retrain"])
    key = f"retrain/{retrain_id}/{kind.removeprefix('retrain.')}"
    if deployment.find(key) is None:
        deployment.record(
            kind, key, workload=asked.workload, version=version, data={"retrain": retrain_id, **data}
        )


def close(deployment: Deployment, retraining: Retraining, step: str, reasons: list[str]) -> str:
    """End a retraining without a release, and say why. Safe to repeat; returns the sentence."""
    record_step(
        deployment,
        retraining,
        Kind.RETRAIN_CLOSED,
        {"step": step, "reasons": [reason[:1000] for reason in reasons[:20]]},
    )
    return find_retraining(deployment, str(retraining.events[0].data["retrain"])).sentence


def is_closed(retraining: Retraining) -> bool:
    """Whether there is nothing left to do for a step."""
    return retraining.state is RetrainState.CLOSED


def requester_of_release(deployment: Deployment, run_id: str) -> str:
    """Who asked for the retraining that submits a release, if a person did; empty otherwise.

    They stand behind the release as its submitter, and so can never approve it.
    """
    if not run_id.startswith(RETRAIN_PREFIX):
        return ""
    asked = deployment.find(f"retrain/{run_id.removeprefix(RETRAIN_PREFIX)}/requested")
    return "" if asked is None or asked.actor == SYSTEM else asked.actor
