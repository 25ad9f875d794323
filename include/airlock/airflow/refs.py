"""From Airflow's task instances to the names the audit store uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airlock.core.manifest import release_id_for
from airlock.core.task import TaskRef

DAG_PREFIX = "release__"
"""Ids of release DAGs start with it; the rest is the workload's name."""


def is_release_dag(dag_id: str) -> bool:
    """Whether a DAG is one of ours."""
    return dag_id.startswith(DAG_PREFIX)


def release_of(
    deployment: str, dag_id: str, run_id: str, conf: Mapping[str, Any] | None
) -> tuple[str, str, str]:
    """Release id, workload and version of a DAG run."""
    workload = dag_id.removeprefix(DAG_PREFIX)
    version = str((conf or {}).get("version", ""))
    return release_id_for(deployment, workload, version, dag_id, run_id), workload, version


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
