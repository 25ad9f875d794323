"""One try of a task instance, as the audit store names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airlock.core.base import Value
from airlock.core.manifest import release_id_for

DAG_PREFIX = "release__"
"""Ids of release DAGs start with it; the rest is the workload's name."""

OWN_PREFIXES = (DAG_PREFIX, "airlock__", "retrain__", "monitor__")
"""How the ids of Airlock's DAGs begin; whatever ends in one of them is recorded."""

SEAT_TASK = "seat"
"""Task id of the questions to people, in release DAGs and in those of requests."""

WAIVER_DAG, REVOKE_DAG, WAIVERS_DAG = "airlock__waiver", "airlock__waiver_revoke", "airlock__waivers"
"""DAGs that ask for a waiver, take one back, and look after all of them."""

POLICY_DAG = "airlock__policy"
"""The DAG that asks to publish a policy."""

DELEGATE_DAG, END_DELEGATION_DAG = "airlock__delegate", "airlock__delegate_end"
"""DAGs that let somebody answer in one's place, and take that back."""

CONDITION_DAG, APPROVALS_DAG = "airlock__condition", "airlock__approvals"
"""DAGs that confirm the condition of an approval, and look after all approvals."""

ROLLBACK_DAG, GUARD_DAG = "airlock__rollback", "airlock__guard"
"""DAGs that roll a workload back, and that look every few minutes whether somebody moved a champion."""


class TaskRef(Value):
    """One try of one task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    release_id: str
    workload: str
    version: str

    @property
    def key(self) -> str:
        """Idempotency key of everything about this try."""
        return f"{self.dag_id}/{self.run_id}/{self.task_id}/{self.map_index}/{self.try_number}"


def is_own_dag(dag_id: str) -> bool:
    """Whether a DAG is one of ours."""
    return dag_id.startswith(OWN_PREFIXES)


def is_release_dag(dag_id: str) -> bool:
    """Whether the runs of a DAG are releases."""
    return dag_id.startswith(DAG_PREFIX)


def release_of(
    deployment: str, dag_id: str, run_id: str, conf: Mapping[str, Any] | None
) -> tuple[str, str, str]:
    """Release id, workload and version of a DAG run; a run that is no release has neither id nor version."""
    if not is_release_dag(dag_id):
        prefix, _, name = dag_id.partition("__")
        return "", "" if prefix == "airlock" else name, ""
    workload = dag_id.removeprefix(DAG_PREFIX)
    version = str((conf or {}).get("version", ""))
    return release_id_for(deployment, workload, version, dag_id, run_id), workload, version
