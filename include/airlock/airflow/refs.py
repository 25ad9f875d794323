"""From Airflow's task instances to the names the audit store uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airlock.core.task import DAG_PREFIX, TaskRef, is_own_dag, is_release_dag, release_of

__all__ = ["DAG_PREFIX", "is_own_dag", "is_release_dag", "release_of", "task_ref"]


def task_ref(deployment: str, ti: Any, conf: Mapping[str, Any] | None) -> TaskRef:
    """The reference of a task instance, whether it is the runtime's or the database's object."""
    release_id, workload, version = release_of(deployment, ti.dag_id, ti.run_id, conf)
    return TaskRef(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        release_id=release_id,
        workload=workload,
        version=version,
    )
