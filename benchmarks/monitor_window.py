# ruff: noqa: S608  # numbers and names of ours
"""One window of production: 5M rows by 25 columns from the log to every signal, and what a small one costs.

The floor is reading the same columns of the same files once with DuckDB. Nothing is explained here: that is
one sandboxed run on some hundred rows, whatever the size of the window. Fewer rows:
``python -m benchmarks.monitor_window 500000``.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import duckdb

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.production_log import ProductionLog
from airlock.core.production import DAY_US, Window, microseconds
from airlock.core.workload import Workload
from airlock.profiles.source import ParquetSource, connect
from airlock.services.monitor import _MEASURES
from airlock.services.signals.scene import Past, Scene, guarded

ROWS = 5_000_000
FEATURES = [f"f{i}" for i in range(20)]
START = microseconds("2026-03-02")
WEEK = Window(start_us=START, end_us=START + 7 * DAY_US)
POLICY = ConfigFolder(Path(__file__).parents[1] / "config").policy("1.0.0")


class Release:
    """What the champion was released with."""

    attributions = None

    def __init__(self, folder: Path) -> None:
        import numpy as np
        import pandas as pd

        rng = np.random.default_rng(1)
        frame = pd.DataFrame({name: rng.normal(size=50_000).astype("float32") for name in FEATURES})
        frame.to_parquet(folder / "training.parquet")
        self.training = ParquetSource(folder / "training.parquet")
        score = rng.random(20_000)
        label = (rng.random(20_000) < score).astype(float)
        self.scored = pd.DataFrame(
            {
                "score": score,
                "decision": (score > 0.5) * 1.0,
                "label": label,
                "group": rng.integers(0, 3, 20_000),
            }
        )


def write_log(folder: Path, rows: int) -> None:
    """A week in the recorder's layout, by DuckDB: the recorder itself is measured elsewhere."""
    features = ", ".join(f"(random() + random() + random() - 1.5)::FLOAT * 2 AS {name}" for name in FEATURES)
    when = f"make_timestamp({START} + i * {(7 * DAY_US) // rows})"
    facts = "'1' AS airlock_version, s AS airlock_score, (s > 0.5)::INT AS airlock_decision"
    made = (
        f"SELECT {when} AS airlock_time, 'p' || i AS airlock_id, {facts}, 3.0 AS airlock_latency_ms, "
        f"(i % 3)::INT AS \"group\", {features}, strftime({when}, '%Y-%m-%d') AS day "
        f"FROM (SELECT range AS i, random() AS s FROM range({rows}))"
    )
    with connect(folder, memory_mb=2000) as connection:
        for kind, query in {
            "predictions": made,
            "labels": f"SELECT 'p' || range AS airlock_id, (random() < 0.5)::INT AS airlock_label, "
            f"make_timestamp({WEEK.end_us - 1}) AS airlock_labelled, '2026-03-08' AS day FROM range({rows})",
        }.items():
            target = folder / "log" / kind
            target.mkdir(parents=True)
            connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, PARTITION_BY (day))")


def workload() -> Workload:
    return Workload.model_validate(
        {
            "name": "big", "title": "Big", "description": "A benchmark.", "owner": "team", "policy": "1.0.0",
            "model": {"registered_model": "big", "target": "y", "features": FEATURES},
            "data": {"training": "t", "evaluation": "e", "default_batch": "b", "expectations": "x",
                     "sensitive": {"group": {}}},
            "risk": {"automated_decision": False, "protected_class_data": False, "regulated": False,
                     "human_review": True, "exposure": "internal", "loss_per_error_usd": 1,
                     "rollback": "easy"},
            "documentation": "big.md", "monitoring": {"log": {"parquet": "log"}},
        }
    )  # fmt: skip


def judge(folder: Path, release: Release) -> dict[str, float]:
    """Seconds of each part."""
    spec, took = workload(), {}
    started = time.perf_counter()
    found = ProductionLog(spec, folder).read(WEEK, folder / "w.parquet", now_us=WEEK.end_us, numeric=FEATURES)
    took["read, join, check"] = time.perf_counter() - started
    assert POLICY.monitoring is not None
    assert spec.monitoring is not None
    own = ParquetSource(found.path)
    scene = Scene(
        workload=spec, spec=spec.monitoring, limits=POLICY.monitoring.limits, window=WEEK, logged=found,
        own=own, matured=own, release=release, governed=frozenset({"1"}), past=Past(),
        metric="roc_auc", bins=10,
        replicates=1000,
    )  # fmt: skip
    for name, measure in _MEASURES.items():
        started = time.perf_counter()
        (signal,) = guarded([name], lambda: measure(scene))  # noqa: B023  # called at once
        took[f"{name} ({signal.reading})"] = time.perf_counter() - started
    return took


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory(prefix="airlock-monitor-") as name:
        folder = Path(name)
        release = Release(folder)
        write_log(folder, 200)
        judge(folder, release)  # imports and first use of the libraries
        cpu = time.process_time()
        judge(folder, release)
        small = time.process_time() - cpu
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    share = 200 * small / 7200
    print(f"a window of 200 rows: {small:.2f} s of CPU; 200 workloads take {share:.1%} of two cores' hour")
    with tempfile.TemporaryDirectory(prefix="airlock-monitor-") as name:
        folder = Path(name)
        release = Release(folder)
        # In a process of its own: what it takes to make the log is not what it takes to judge it.
        making = get_context("spawn").Process(target=write_log, args=(folder, rows))
        making.start()
        making.join()
        assert making.exitcode == 0
        started = time.perf_counter()
        with duckdb.connect(config={"threads": 2, "memory_limit": "256MB"}) as connection:
            columns = ", ".join(f"sum({name})" for name in FEATURES)
            connection.execute(f"SELECT {columns} FROM '{folder}/log/predictions/*/*.parquet'").fetchall()
        floor = time.perf_counter() - started
        cpu, started = time.process_time(), time.perf_counter()
        took = judge(folder, release)
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    for part, seconds in took.items():
        print(f"  {part:40} {seconds:6.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{rows:,} rows x 25 columns: {wall:.1f} s, {cpu:.1f} s of CPU, {wall / floor:.1f} x the floor")
    print(f"peak memory {peak} MB, of it {before} MB before, with all libraries loaded")


if __name__ == "__main__":
    main()
