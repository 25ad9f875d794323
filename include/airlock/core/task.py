"""One try of a task instance, as the audit store names it."""

from __future__ import annotations

from airlock.core.base import Value


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
