"""Listener: outcomes no operator sees (requirement E-1), and what long-lived processes import beforehand.

A task killed with SIGKILL, skipped by a branch or failed upstream runs no code of ours; when the run
ends, its tasks are compared with the store and what is missing is appended.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from airflow.configuration import conf
from airflow.listeners import hookimpl
from sqlalchemy import inspect, select

from airlock.airflow.base import outcome_state
from airlock.airflow.preload import preload
from airlock.airflow.refs import is_own_dag, task_ref
from airlock.core.errors import AirlockError

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """A process of Airflow starts. Tasks say so too, with a marker of their own instead of a job."""
    # By name: the class belongs to Airflow's core, which a task need not import.
    if type(component).__name__ == "Job":
        preload(sys.argv[1] if len(sys.argv) > 1 else "", conf.get("core", "executor"))


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """A task succeeded, by itself or by hand."""
    _record(previous_state, task_instance, "success", None)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """A task skipped itself, or was marked so by hand."""
    _record(previous_state, task_instance, "skipped", None)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:
    """A task failed, by itself, by its supervisor, or by hand."""
    state = outcome_state(error or "failed", task_instance) if previous_state else "failed"
    _record(previous_state, task_instance, state, error)


def _record(previous_state: Any, ti: Any, state: str, error: Any) -> None:
    if not is_own_dag(ti.dag_id):
        return
    from airlock.services.deployment import open_deployment
    from airlock.services.tasks import record_outcome

    # Airflow's API server passes no previous state when a person sets the state by hand.
    source = "listener" if previous_state else "by hand"
    try:
        deployment = open_deployment()
        ref = task_ref(deployment.settings.deployment, ti, _conf(ti))
        record_outcome(deployment, ref, state, source=source, error=str(error or ""))
    except AirlockError:
        log.exception("The outcome %s of task %s could not be recorded now", state, ti.task_id)


def _conf(ti: Any) -> dict[str, Any]:
    context = getattr(ti, "_ti_context_from_server", None)
    dag_run = context.dag_run if context is not None else ti.dag_run
    return dict(dag_run.conf or {})


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """A run ended."""
    del msg
    _reconcile(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """A run ended badly."""
    del msg
    _reconcile(dag_run)


def _reconcile(dag_run: Any) -> None:
    if not is_own_dag(dag_run.dag_id):
        return
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancehistory import TaskInstanceHistory

    from airlock.services.deployment import open_deployment
    from airlock.services.tasks import reconcile

    # The session that holds the run: any other would commit under the scheduler's lock and kill it.
    session: Any = inspect(dag_run).session

    def rows(table: Any) -> list[Any]:
        mine = table.dag_id == dag_run.dag_id, table.run_id == dag_run.run_id
        return [row for row in session.scalars(select(table).where(*mine)) if row.state is not None]

    try:
        deployment = open_deployment()
        name, conf = deployment.settings.deployment, dag_run.conf
        last = [(task_ref(name, ti, conf), str(ti.state)) for ti in rows(TaskInstance)]
        # Earlier tries are in the history alone: one that was killed hard and retried told nobody.
        earlier = [(task_ref(name, ti, conf), str(ti.state)) for ti in rows(TaskInstanceHistory)]
        missing = reconcile(deployment, last, earlier)
        log.info(
            "Run %s of %s: %d outcomes appended by reconciliation", dag_run.run_id, dag_run.dag_id, missing
        )
    except AirlockError:
        log.exception("Run %s of %s could not be reconciled now", dag_run.run_id, dag_run.dag_id)
