"""Airflow compared with the audit store (requirement E-1).

A task that is killed runs no listener, a listener that cannot reach the store can only complain, and
what people do by hand stands in Airflow's own event log. So, every now and then, everything Airflow
remembers is compared with the store: what is missing is appended, and what is gone from Airflow is said.
Nothing here believes that a task is green: its state is recorded as what Airflow says, beside what the
task itself said.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airlock.adapters.airflow_api import AirflowClient
from airlock.core.audit import Event, Kind
from airlock.core.base import Value
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError
from airlock.core.task import OWN_PREFIXES, TaskRef, release_of
from airlock.reporting.terminal import clean
from airlock.services.changes import BY_AIRFLOW, Change, is_change, read_change
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.tasks import Ended, Outcomes, append_missing, known_outcomes, known_outcomes_of

OVERLAP_US = 3_600_000_000
"""How far a reconciliation looks back behind the end of the last one, microseconds: for rows that were
committed late, and for clocks that disagree. What was seen before costs a look and is not written again."""

_OVER = frozenset({"success", "failed"})
"""States of a run that has ended."""

_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry"})
"""States of a task instance whose last try is over."""

_NOT_RUN = frozenset({None, "skipped", "upstream_failed", "removed"})
"""States a task can be in without having run since it was cleared; the try before has the same number."""


class Found(StrEnum):
    """What a reconciliation can find."""

    OUTCOME = "outcome"
    CHANGE = "change"
    UNKNOWN = "unknown run"
    DELETED = "deleted run"
    UNRECORDABLE = "unrecordable"


class Finding(Value):
    """One thing the audit store did not have, and has now unless it is ``unrecordable``.

    Attributes:
        release_id: empty when it is about no single release.
        sentence: for people; one line, harmless in a terminal.
    """

    found: Found
    release_id: str
    sentence: str


@dataclass(frozen=True)
class Report:
    """What one reconciliation covered and found.

    Attributes:
        since_us: it looked at what happened since then, microseconds since 1970; 0 is the beginning.
        until_us: when it began, which is where the next one goes on.
        runs: how many runs were compared task by task.
        releases: how many releases of the store were looked for in Airflow.
    """

    since_us: int
    until_us: int
    runs: int
    releases: int
    findings: list[Finding]

    def count(self, found: Found) -> int:
        """How many findings are of one sort."""
        return sum(finding.found is found for finding in self.findings)

    def to_data(self) -> dict[str, int]:
        """The numbers, as they are recorded."""
        return {
            "since_us": self.since_us,
            "until_us": self.until_us,
            "runs": self.runs,
            "releases": self.releases,
            "outcomes": self.count(Found.OUTCOME),
            "changes": self.count(Found.CHANGE),
            "runs_unknown": self.count(Found.UNKNOWN),
            "runs_deleted": self.count(Found.DELETED),
            "unrecordable": self.count(Found.UNRECORDABLE),
        }


@dataclass(frozen=True)
class _Run:
    """A run of a DAG, and the release it is about."""

    dag_id: str
    run_id: str
    state: str = ""
    release_id: str = ""
    workload: str = ""
    version: str = ""

    def task(self, row: dict[str, Any], try_number: int | None = None) -> TaskRef:
        return TaskRef(
            dag_id=self.dag_id,
            run_id=self.run_id,
            task_id=row["task_id"],
            map_index=row["map_index"],
            try_number=row["try_number"] if try_number is None else try_number,
            release_id=self.release_id,
            workload=self.workload,
            version=self.version,
        )


_Runs = dict[tuple[str, str], _Run]
"""Runs by DAG id and run id."""


def reconcile_all(deployment: Deployment, client: AirflowClient, since_us: int | None = None) -> Report:
    """Append what Airflow remembers and the audit store does not. Safe to repeat, and to run twice at once.

    Args:
        deployment: whose audit store.
        client: Airflow, as a user who may read all DAGs of ours and the event log.
        since_us: look back at least to here, microseconds since 1970. It can only lengthen what is looked
            at: each reconciliation goes on where the last one stopped, and the first covers everything.

    Raises:
        UnavailableError: Airflow or the store does not answer. What was appended stays, and as no result
            is recorded, the next reconciliation starts where this one did.
        RefusedError: the user may not read something; never passed over in silence.
    """
    until_us = deployment.clock.now_us()
    start_us = _start(deployment, since_us)
    # The store first: a release that is submitted while Airflow answers must not seem deleted.
    submitted = _submitted(deployment)
    runs = _runs(deployment, client)
    touched = _touched(client, runs, start_us)
    findings = [
        *(finding for run in touched for finding in _compare(deployment, client, run)),
        *(finding for run in submitted.values() for finding in _look_for(deployment, client, run, runs)),
        # Of a run that was deleted, the store alone knows which release it was.
        *_changes(deployment, client, start_us, submitted | runs),
    ]
    report = Report(start_us, until_us, len(touched), len(submitted), findings)
    # Each reconciliation is a fact of its own, even if two begin in the same microsecond.
    key = f"reconciled/{until_us}/{uuid.uuid4().hex}"
    deployment.record(Kind.AUDIT_RECONCILED, key, data=report.to_data())
    return report


def _start(deployment: Deployment, since_us: int | None) -> int:
    """Where to start; never after the end of the last one, or something would never be looked at."""
    ends = [event.data["until_us"] for event in _own(deployment, Kind.AUDIT_RECONCILED)]
    start_us = max(0, max(ends, default=0) - OVERLAP_US)
    return start_us if since_us is None else max(0, min(since_us, start_us))


def _own(deployment: Deployment, kind: Kind) -> list[Event]:
    """Events of this deployment: others may share the store."""
    events = [entry.event for entry in deployment.audit.events(kinds=[kind])]
    return [event for event in events if event.deployment == deployment.settings.deployment]


def _submitted(deployment: Deployment) -> _Runs:
    """The runs of all releases, as the store knows them."""
    found: _Runs = {}
    for event in _own(deployment, Kind.RELEASE_SUBMITTED):
        place = str(event.data["dag_id"]), str(event.data["run_id"])
        found[place] = _Run(*place, "", event.release_id, event.workload, event.version)
    return found


def _runs(deployment: Deployment, client: AirflowClient) -> _Runs:
    """The runs of all DAGs of ours, as Airflow knows them."""
    found: _Runs = {}
    for row in (row for prefix in OWN_PREFIXES for row in client.runs(prefix)):
        place = row["dag_id"], row["dag_run_id"]
        release = release_of(deployment.settings.deployment, *place, row["conf"])
        found[place] = _Run(*place, row["state"], *release)
    return found


def _touched(client: AirflowClient, runs: _Runs, start_us: int) -> list[_Run]:
    """Runs in which something happened: to the run, or to a task of a run that was over long ago."""
    if start_us == 0:
        return list(runs.values())
    since = _iso(start_us)
    places = set()
    for prefix in OWN_PREFIXES:
        rows = [
            *client.runs(prefix, updated_since=since),
            *client.changed_task_instances(prefix, updated_since=since),
        ]
        places |= {(row["dag_id"], row["dag_run_id"]) for row in rows}
    return [run for place, run in runs.items() if place in places]


def _compare(deployment: Deployment, client: AirflowClient, run: _Run) -> Iterator[Finding]:
    """Append the missing outcomes of one run."""
    try:
        rows = client.task_instances(run.dag_id, run.run_id)
        known = _known(deployment, run, rows)
        earlier = [row for latest in rows for row in _earlier(client, run, latest, known)]
        if run.release_id and run.state in _OVER and not known and not _heard_of(deployment, run):
            yield from _say_unknown(deployment, run)
        ended = {(run.task(row), row["state"]): str(row["end_date"] or "") for row in [*earlier, *rows]}
        last, before = _ended(run, rows), _ended(run, earlier)
        for task, state in append_missing(deployment, known, last, before, ended=ended):
            place = f"{_task_name(task.task_id, task.map_index)}, try {task.try_number}"
            sentence = f"the outcome of {place} was missing; Airflow says {state}"
            yield _finding(Found.OUTCOME, run, sentence)
    except NotFoundError:
        return  # deleted since the runs were listed, which the next reconciliation will say
    except InvalidInputError as error:
        yield _finding(Found.UNRECORDABLE, run, str(error))


def _known(deployment: Deployment, run: _Run, rows: list[dict[str, Any]]) -> Outcomes:
    """What is recorded about the tries of a run."""
    if run.release_id:
        return known_outcomes(deployment, run.release_id)
    tries = [run.task(row, number) for row in rows for number in range(row["try_number"] + 1)]
    return known_outcomes_of(deployment, tries)


def _earlier(
    client: AirflowClient, run: _Run, latest: dict[str, Any], known: Outcomes
) -> list[dict[str, Any]]:
    """Tries of a task before its latest one, if there may be any whose outcome nobody recorded."""
    behind = latest["try_number"] + (latest["state"] in _NOT_RUN)
    if all(run.task(latest, number).key in known for number in range(1, behind)):
        return []
    tries = client.tries(run.dag_id, run.run_id, latest["task_id"], latest["map_index"])
    return [row for row in tries if row["try_number"] < behind]


def _ended(run: _Run, rows: list[dict[str, Any]]) -> list[Ended]:
    return [(run.task(row), row["state"]) for row in rows if row["state"] in _ENDED]


def _heard_of(deployment: Deployment, run: _Run) -> bool:
    """Whether a task of a run ever reached the store by itself."""
    kinds = [Kind.RELEASE_SUBMITTED, Kind.TASK_STARTED]
    return bool(deployment.audit.events(release_id=run.release_id, kinds=kinds, limit=1))


def _say_unknown(deployment: Deployment, run: _Run) -> Iterator[Finding]:
    data = {"event": "run unknown", "dag_id": run.dag_id, "run_id": run.run_id}
    if _record_once(deployment, f"airflow/unknown/{run.dag_id}/{run.run_id}", run, data):
        sentence = f"it ended as {run.state}, and the audit store knew nothing of it"
        yield _finding(Found.UNKNOWN, run, sentence)


def _look_for(deployment: Deployment, client: AirflowClient, run: _Run, runs: _Runs) -> Iterator[Finding]:
    """Say once that the run of a release is gone from Airflow."""
    key = f"airflow/deleted/{run.dag_id}/{run.run_id}"
    if (run.dag_id, run.run_id) in runs or deployment.find(key) is not None or _is_there(client, run):
        return
    data = {"event": "run deleted", "dag_id": run.dag_id, "run_id": run.run_id}
    if _record_once(deployment, key, run, data):
        yield _finding(Found.DELETED, run, "its run is gone from Airflow")


def _is_there(client: AirflowClient, run: _Run) -> bool:
    """Ask for one run: lists leave out what a user may not read, which must not look like a deletion."""
    try:
        client.run(run.dag_id, run.run_id)
    except NotFoundError:
        return False
    return True


def _changes(deployment: Deployment, client: AirflowClient, start_us: int, runs: _Runs) -> Iterator[Finding]:
    """Append what people did by hand."""
    after = _iso(start_us) if start_us else ""
    try:
        for row in client.event_logs(after=after, excluded=BY_AIRFLOW):
            if is_change(row):
                yield from _append(deployment, read_change(row), runs)
    except RefusedError as error:
        raise RefusedError(
            f"Airflow's event log cannot be read: {error.what}",
            where=error.where,
            fix="let the service user read audit logs, see docs/operator.md",
        ) from error


def _append(deployment: Deployment, change: Change, runs: _Runs) -> Iterator[Finding]:
    _, workload, _ = release_of(deployment.settings.deployment, change.dag_id, change.run_id, None)
    nameless = _Run(change.dag_id, change.run_id, workload=workload)
    run = runs.get((change.dag_id, change.run_id), nameless)
    data = {
        "event": change.event,
        "dag_id": change.dag_id,
        "run_id": change.run_id,
        "task_id": change.task_id,
        "map_index": change.map_index,
        "when": change.when,
        "extra": change.extra,
    }
    try:
        if _record_once(deployment, f"airflow/change/{change.key}", run, data, actor=change.actor):
            task = f" {_task_name(change.task_id, change.map_index)}" if change.task_id else ""
            sentence = f"{change.actor}: {change.event}{task} at {change.when}"
            yield _finding(Found.CHANGE, run, sentence)
    except InvalidInputError as error:
        yield _finding(Found.UNRECORDABLE, run, f"{change.actor}: {change.event}: {error}")


def _record_once(
    deployment: Deployment, key: str, run: _Run, data: dict[str, Any], *, actor: str = SYSTEM
) -> bool:
    if deployment.find(key) is not None:
        return False
    deployment.record(
        Kind.AIRFLOW_CHANGED,
        key,
        actor=actor,
        release_id=run.release_id,
        workload=run.workload,
        version=run.version,
        data=data,
    )
    return True


def _finding(found: Found, run: _Run, sentence: str) -> Finding:
    where = " ".join(part for part in (run.dag_id, run.run_id) if part) or "Airflow"
    return Finding(found=found, release_id=run.release_id, sentence=clean(f"{where}: {sentence}"))


def _task_name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1_000_000, tz=UTC).isoformat()
