"""Production logs for tests: written by the recorder itself, read from a folder of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airlock.core.production import DAY_US, Window, microseconds
from airlock.core.workload import Workload
from airlock.record import Recorder
from tests.support.deployments import workload_data

MONDAY_US = microseconds("2026-03-02")
WEEK = Window(start_us=MONDAY_US, end_us=MONDAY_US + 7 * DAY_US)
NOW_US = WEEK.end_us + 6 * 3_600_000_000


def logged_workload(**monitoring: Any) -> Workload:
    """The small workload, logged in ``log``."""
    return Workload.model_validate(
        workload_data(monitoring={"log": {"parquet": "log"}, "minimum_rows": 20, **monitoring})
    )


def write_log(
    folder: Path, rows: Iterable[Mapping[str, Any]], labels: Iterable[tuple[str, Any, int]] = ()
) -> Recorder:
    """Record rows and outcomes, and wait until they are on the disk."""
    recorder = Recorder(folder, version="1", policy="1.0.0", flush_seconds=0.05)
    for row in rows:
        recorder.record(**row)
    for name, value, when in labels:
        recorder.label(name, value, time_us=when)
    assert recorder.close(20)
    return recorder


def rows_of_week(n: int = 70, **changes: Any) -> list[dict[str, Any]]:
    """Rows spread over the week, a tenth of a day apart."""
    return [
        {
            "features": {"income": 10.0 + i % 7, "debt": float(i % 5)},
            "attributes": {"group": i % 2},
            "score": (i % 10) / 10,
            "decision": int(i % 10 >= 5),
            "prediction_id": f"p{i}",
            "latency_ms": 3.0,
            "cost_usd": 0.001,
            "caller": "branch",
            "unit": "retail",
            "time_us": MONDAY_US + i * DAY_US // 10,
            **changes,
        }
        for i in range(n)
    ]
