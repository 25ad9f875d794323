"""What Airflow's long-lived processes import once, so that the processes they fork need not.

A task of the LocalExecutor is a fork of a fork of the scheduler, and the DAG processor forks for each file it
reads. Both begin with what their parent has imported. Without this, the libraries of the gates are imported
again by every one of a release's twenty tasks, which takes most of the processor time of a release.
"""

from __future__ import annotations

import logging
from importlib import import_module

log = logging.getLogger(__name__)

PARSED: tuple[str, ...] = (
    "airlock.airflow.dag_factory",
    "airlock.airflow.monitoring",
    "airlock.airflow.operation",
    "airlock.airflow.requests",
    "airlock.airflow.retraining",
    "airlock.airflow.seats",
)
"""What the files in ``dags/`` import."""

RUN: tuple[str, ...] = (
    "airflow.sdk.execution_time.task_runner",
    *PARSED,
    "airlock.services.announce",
    "airlock.services.ask_again",
    "airlock.services.close_seats",
    "airlock.services.decide",
    "airlock.services.decision_changes",
    "airlock.services.delegations",
    "airlock.services.desks",
    "airlock.services.evaluate",
    "airlock.services.guard",
    "airlock.services.promote",
    "airlock.services.reconcile",
    "airlock.services.reproduce",
    "airlock.services.retrain_data",
    "airlock.services.retrain_model",
    "airlock.services.review_approvals",
    "airlock.services.score",
    "airlock.services.submit",
    "airlock.services.tasks",
    "airlock.adapters.audit.store",
    "airlock.adapters.cel_engine",
    "duckdb",
    "mlflow",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
)
"""What tasks import."""


def preload(command: str, executor: str) -> list[str]:
    """Import what the children of this process need, and say which modules could not be imported.

    Args:
        command: Airflow's subcommand that this process is, such as ``scheduler``.
        executor: value of ``[core] executor``; tasks run below the scheduler with the LocalExecutor alone.
    """
    if command == "dag-processor":
        names = PARSED
    elif command == "scheduler" and "LocalExecutor" in executor:
        names = RUN
    else:
        names = ()
    failed = []
    for name in names:
        try:
            import_module(name)
        except Exception:  # whatever it is, the task that needs the module says it better
            log.exception("%s could not be imported beforehand; tasks will try by themselves", name)
            failed.append(name)
    return failed
