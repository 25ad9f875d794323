"""What people did in Airflow by hand, read from the rows of Airflow's event log.

The log has no row for changes of several task instances in one request and for deleted task instances,
and its API shows none whose DAG is gone or was not named (``~``). Those requests stand in the audit store
all the same: each one to a release DAG is recorded as it comes (``api.attempt``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airlock.core.canonical import storable
from airlock.core.task import is_own_dag

BY_AIRFLOW = (
    "running", "success", "failed", "skipped", "up_for_retry", "up_for_reschedule", "deferred", "queued",
    "upstream_failed", "removed", "restarting", "scheduled", "awaiting_input",
)  # fmt: skip
"""Events Airflow logs about tasks by itself: most of its log, so they need not even be fetched."""

EXTRA_LENGTH = 2000
"""Characters kept of what Airflow noted about a change."""

_HARMLESS = frozenset(
    {
        # Requests that change nothing, though Airflow logs them as if they did.
        "generate_token", "get_task_instances_batch", "favorite_dag", "unfavorite_dag", "reparse_dag_file",
        "enqueue_connection_test",
        # Commands that start a service or only read.
        "cli_scheduler", "cli_api_server", "cli_triggerer", "cli_dag_processor", "cli_worker", "cli_flower",
        "cli_kerberos", "cli_migratedb", "cli_check", "cli_list_workers", "cli_export_archived",
        "cli_task_failed_deps", "cli_task_state", "cli_task_list", "cli_task_states_for_dag_run",
        "cli_task_render", "cli_dag_state", "cli_dag_next_execution", "cli_dag_list_dags", "cli_dag_details",
        "cli_dag_list_import_errors", "cli_dag_report", "cli_dag_list_jobs", "cli_dag_list_dag_runs",
        "cli_asset_list", "cli_asset_details", "cli_team_list",
    }
)  # fmt: skip
"""What people do that changes nothing; whatever is not named here counts as a change."""

_PUBLIC = frozenset(
    {
        "method", "new_state", "state", "is_paused", "map_index", "task_id", "task_ids", "xcom_key", "key",
        "include_upstream", "include_downstream", "include_future", "include_past", "only_failed",
        "only_running", "only_new", "reset_dag_runs", "run_on_latest_version", "update_mask", "group_id",
        "chosen_options", "dag_id", "dag_run_id", "dag_runs", "dag_id_pattern", "dag_id_prefix_pattern",
        "tags", "owners", "backfill_id", "variable_key", "connection_id", "pool_name", "actions", "action",
        "entities", "action_on_existence", "action_on_non_existence", "host_name", "dry_run",
    }
)  # fmt: skip
"""Notes that say what was done to what. The value of any other may be a secret or somebody's words."""

_DEPTH = 6
"""Deepest nesting of a request that Airflow accepts, and some; people can send any."""

_UNREADABLE = {"method": "?"}
_INDEX = re.compile(r"-1|[0-9]{1,9}")


@dataclass(frozen=True)
class Change:
    """One change by hand.

    Attributes:
        key: names the row for ever. Numbers start anew with a new Airflow database, so the time is in it.
        actor: the user as Airflow names it; of a command, the user of the operating system.
        dag_id: empty, or ``~``, for a change that is not about one DAG.
        when: as Airflow says, ISO 8601.
        extra: what Airflow noted, as JSON without values that may be secret, cut to a limit.
    """

    key: str
    event: str
    actor: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    when: str
    extra: str


def is_change(row: dict[str, Any]) -> bool:
    """Whether a row says that a person changed something that concerns us.

    A row without a DAG concerns everybody: variables, connections, pools, several DAGs at once.
    """
    dag_id = row["dag_id"] or "~"
    if dag_id != "~" and not is_own_dag(dag_id):
        return False
    # Airflow notes the method of each request and marks commands; its own events have neither.
    by_person = row["event"].startswith("cli_") or "method" in _note(row)
    return by_person and row["event"] not in _HARMLESS


def read_change(row: dict[str, Any]) -> Change:
    """The change a row is about, in a form that can be recorded whatever somebody sent."""
    note = _note(row)
    index = str(note.get("map_index", -1) if row["map_index"] is None else row["map_index"])
    extra = json.dumps(_public(note, _DEPTH), ensure_ascii=False)
    return Change(
        key=f"{row['event_log_id']}/{_microseconds(row['when'])}",
        event=row["event"],
        actor=storable(row["owner"] or "")[:200] or "unknown",
        dag_id=storable(row["dag_id"] or ""),
        run_id=storable(row["run_id"] or ""),
        task_id=storable(row["task_id"] or ""),
        map_index=int(index) if _INDEX.fullmatch(index) else -1,
        when=row["when"],
        extra=storable(extra)[:EXTRA_LENGTH],
    )


def _note(row: dict[str, Any]) -> dict[str, Any]:
    text = row["extra"] or ""
    try:
        note = json.loads(text)
    except (ValueError, RecursionError):
        # Airflow notes requests as JSON and its own events as text. What looks like JSON and cannot be
        # read was made so by whoever sent it: no reason to overlook it.
        return _UNREADABLE if text.startswith("{") else {}
    return note if isinstance(note, dict) else {}


def _public(value: Any, depth: int) -> Any:
    if isinstance(value, dict) and depth:
        return {name: _public(item, depth - 1) if name in _PUBLIC else "***" for name, item in value.items()}
    if isinstance(value, list) and depth:
        return [_public(item, depth - 1) for item in value]
    return "***" if isinstance(value, dict | list) else value


def _microseconds(when: str) -> int:
    return (datetime.fromisoformat(when) - datetime.fromtimestamp(0, tz=UTC)) // timedelta(microseconds=1)
