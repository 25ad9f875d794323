"""Task outcomes in the audit store, whatever the outcome (requirement E-1).

Three sources write the same events under the same keys, so each outcome stands once: the operator
while it runs, Airflow's listener for states no operator sees, and the reconciliation of a finished
run for tasks that never ran, were killed, or were changed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from airlock.core.audit import Kind
from airlock.core.canonical import storable
from airlock.core.errors import ConflictError
from airlock.core.task import TaskRef
from airlock.services.deployment import Deployment

Ended = tuple[TaskRef, str]
"""A try and the state it ended in."""

ERROR_LENGTH = 2000
"""Characters of an error kept in an event."""


def record_start(deployment: Deployment, task: TaskRef) -> None:
    """Record that a try started running; a resumed task starts only once."""
    deployment.record(
        Kind.TASK_STARTED,
        f"task/{task.key}/started",
        release_id=task.release_id,
        workload=task.workload,
        version=task.version,
        data=_place(task),
    )


def record_outcome(
    deployment: Deployment, task: TaskRef, state: str, *, source: str, error: str = "", actor: str = "system"
) -> bool:
    """Record the outcome of a try; returns whether it was new.

    A try that ends twice (success, then marked failed by hand) has two outcomes, both recorded.
    """
    key = f"task/{task.key}/outcome/{state}"
    if deployment.find(key) is not None:
        return False
    try:
        deployment.record(
            Kind.TASK_OUTCOME,
            key,
            actor=actor,
            release_id=task.release_id,
            workload=task.workload,
            version=task.version,
            data={
                **_place(task),
                "state": state,
                "source": source,
                "error": storable(error)[:ERROR_LENGTH],
            },
        )
    except ConflictError:
        # Another source recorded the same outcome in the same moment; one record is what we want.
        return False
    return True


def reconcile(deployment: Deployment, last: Sequence[Ended], earlier: Sequence[Ended] = ()) -> int:
    """Append what is missing about a finished run; returns how many events that were.

    Args:
        deployment: where.
        last: the last try of each task, with its state.
        earlier: tries before those. Airflow remembers a retried try as plain ``failed``, so they only
            fill gaps: what the try itself said is more exact.
    """
    release_ids = {task.release_id for task, _ in earlier}
    known = {
        tuple(entry.event.data[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number"))
        for release_id in release_ids
        for entry in deployment.audit.events(release_id=release_id, kinds=[Kind.TASK_OUTCOME])
    }
    gaps = [(task, state) for task, state in earlier if tuple(_place(task).values()) not in known]
    return sum(record_outcome(deployment, task, state, source="reconciled") for task, state in [*last, *gaps])


def _place(task: TaskRef) -> dict[str, str | int]:
    return {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "map_index": task.map_index,
        "try_number": task.try_number,
    }
