"""Task outcomes in the audit store, whatever the outcome (requirement E-1).

Three sources write the same events under the same keys, so each outcome stands once: the operator
while it runs, Airflow's listener for states no operator sees, and the reconciliation of a finished
run for tasks that never ran, were killed, or were changed by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from airlock.core.audit import Kind
from airlock.core.canonical import storable
from airlock.core.task import TaskRef
from airlock.services.deployment import Deployment

Ended = tuple[TaskRef, str]
"""A try and the state it ended in."""

Outcomes = dict[str, set[str]]
"""States by try; a try whose state was changed by hand has more than one."""

_STATES = ("success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry")
"""In which a try can end."""

ERROR_LENGTH = 2000
"""Characters of an error kept in an event."""

_PLACE = ("dag_id", "run_id", "task_id", "map_index", "try_number")


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
    deployment: Deployment,
    task: TaskRef,
    state: str,
    *,
    source: str,
    error: str = "",
    actor: str = "system",
    ended: str = "",
) -> bool:
    """Record the outcome of a try; returns whether this report is the record of it.

    Several sources report the same outcome, and the first one stands.

    A try that ends twice (success, then marked failed by hand) has two outcomes, both recorded.
    ``ended`` is when it ended as Airflow says, for outcomes that are recorded later than they happened.
    """
    key = f"task/{task.key}/outcome/{state}"
    data = {
        **_place(task),
        "state": state,
        "source": source,
        "error": storable(error)[:ERROR_LENGTH],
        **({"ended": ended} if ended else {}),
    }
    recorded = deployment.record(
        Kind.TASK_OUTCOME,
        key,
        actor=actor,
        release_id=task.release_id,
        workload=task.workload,
        version=task.version,
        data=data,
    )
    return recorded.event.data == data


def known_outcomes(deployment: Deployment, release_id: str) -> Outcomes:
    """The recorded outcomes of a release by try, named by the key of its ``TaskRef``."""
    known: Outcomes = {}
    for entry in deployment.audit.events(release_id=release_id, kinds=[Kind.TASK_OUTCOME]):
        key = "/".join(str(entry.event.data[name]) for name in _PLACE)
        known.setdefault(key, set()).add(entry.event.data["state"])
    return known


def known_outcomes_of(deployment: Deployment, tasks: Iterable[TaskRef]) -> Outcomes:
    """The recorded outcomes of tries that are about no release; they are looked up one by one."""
    known: Outcomes = {}
    for task in tasks:
        found = {
            state for state in _STATES if deployment.find(f"task/{task.key}/outcome/{state}") is not None
        }
        if found:
            known[task.key] = found
    return known


def append_missing(
    deployment: Deployment,
    known: Outcomes,
    last: Sequence[Ended],
    earlier: Sequence[Ended] = (),
    *,
    ended: Mapping[Ended, str] | None = None,
) -> list[Ended]:
    """Append the outcomes that are not ``known``, and return those that were appended.

    Args:
        deployment: where.
        known: what is recorded about the run.
        last: the last try of each task, with its state.
        earlier: tries before those. Airflow remembers a retried try as plain ``failed``, so they only
            fill gaps: what the try itself said is more exact.
        ended: when they ended, as Airflow says.
    """
    missing = [(task, state) for task, state in last if state not in known.get(task.key, ())]
    gaps = [(task, state) for task, state in earlier if task.key not in known]
    when = ended or {}
    return [
        (task, state)
        for task, state in [*missing, *gaps]
        if record_outcome(deployment, task, state, source="reconciled", ended=when.get((task, state), ""))
    ]


def reconcile(deployment: Deployment, last: Sequence[Ended], earlier: Sequence[Ended] = ()) -> int:
    """Append what is missing about a finished run; returns how many events that were.

    Arguments as of ``append_missing``.
    """
    tasks = [task for task, _ in [*last, *earlier]]
    known = known_outcomes_of(deployment, [task for task in tasks if not task.release_id])
    for release_id in {task.release_id for task in tasks} - {""}:
        known |= known_outcomes(deployment, release_id)
    return len(append_missing(deployment, known, last, earlier))


def _place(task: TaskRef) -> dict[str, str | int]:
    return {name: getattr(task, name) for name in _PLACE}
