"""Twenty expectations on ten million rows: time and memory, against pandas under Great Expectations.

    python -m benchmarks.data_quality               10 million rows by DuckDB, against a pure read
    python -m benchmarks.data_quality --peer        Great Expectations on 1 million rows in memory too

Each side runs in a process of its own; peak memory is that process's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.drift_profile import floor, make, peak, timed

GOAL_SECONDS, GOAL_MB = 3, 700


def suite() -> dict[str, Any]:
    """Twenty expectations of the usual kinds, on numbers, whole numbers and texts."""
    between = {"min_value": -9, "max_value": 500}
    wide = {"min_value": -1e6, "max_value": 1e6}
    lines: list[tuple[str, dict[str, Any]]] = [
        ("table_row_count_to_be_between", {"min_value": 1}),
        *(
            ("column_values_to_be_between", {"column": name, **between})
            for name in ("n0", "n1", "n2", "n3", "s0", "s1")
        ),
        *(
            ("column_values_to_not_be_null", {"column": name, "mostly": 0.9})
            for name in ("n0", "n4", "w0", "c0")
        ),
        *(("column_mean_to_be_between", {"column": name, **wide}) for name in ("n1", "n5", "w1")),
    ]
    lines += [
        ("column_values_to_be_in_set", {"column": "c0", "value_set": [f"code {i}" for i in range(5)]}),
        ("column_values_to_be_in_set", {"column": "c1", "value_set": [f"code {i}" for i in range(15)]}),
        ("column_values_to_not_be_in_set", {"column": "w0", "value_set": [666]}),
        ("column_stdev_to_be_between", {"column": "n6", "min_value": 0.5, "max_value": 2}),
        ("column_min_to_be_between", {"column": "w2", "min_value": 0}),
        ("column_max_to_be_between", {"column": "w3", "max_value": 1e6}),
    ]
    expectations = [{"type": f"expect_{name}", "kwargs": kwargs, "why": "it is so"} for name, kwargs in lines]
    return {"name": "b", "version": "1.0.0", "description": "d", "expectations": expectations}


def ours(file: Path) -> dict[str, float]:
    """All expectations by DuckDB; then the pure read."""
    from airlock.core.suite import Suite
    from airlock.profiles.batch import open_batch
    from airlock.profiles.expectations import run_suite
    from airlock.profiles.source import ParquetSource

    def work() -> None:
        with open_batch(ParquetSource(file)) as batch:
            outcomes = run_suite(Suite.model_validate(suite()), batch)
        assert len(outcomes) == 20
        assert {outcome.engine for outcome in outcomes} == {"duckdb"}

    runs = [timed(work) for _ in range(3)]
    memory = peak()
    floors = [timed(lambda: floor([file])) for _ in range(3)]
    return {
        "wall": min(run[0] for run in runs),
        "cpu": min(run[1] for run in runs),
        "floor_wall": min(run[0] for run in floors),
        "floor_cpu": min(run[1] for run in floors),
        **memory,
    }


def peer(file: Path) -> dict[str, float]:
    """All expectations by Great Expectations on a frame in memory."""
    import pandas as pd

    from airlock.core.suite import Suite
    from airlock.profiles.expectations import great_expectations

    frame, given = pd.read_parquet(file), Suite.model_validate(suite())
    great_expectations("warm", dict(enumerate(given.expectations)), frame.head(1000))
    wall, cpu = timed(lambda: great_expectations("b", dict(enumerate(given.expectations)), frame))
    return {"wall": wall, "cpu": cpu, **peak()}


def child(what: str, file: Path) -> dict[str, float]:
    """One of the two in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_quality", "--child", what, str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"ours": ours, "peer": peer}[options.child[0]](Path(options.child[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="airlock-bench-") as folder:
        file = Path(folder) / "rows.parquet"
        make(file, options.rows, 1, 0.0)
        mine = child("ours", file)
        print(
            f"20 expectations on {options.rows:,} rows: {mine['wall']:.2f} s ({mine['cpu']:.2f} s CPU), goal "
            f"{GOAL_SECONDS}; pure read of all columns {mine['floor_wall']:.2f} s "
            f"({mine['floor_cpu']:.2f} s CPU); peak {mine['peak_mb']:.0f} MB, goal {GOAL_MB}"
        )
        if options.peer:
            make(file, 1_000_000, 1, 0.0)
            small, other = child("ours", file), child("peer", file)
            print(
                f"at 1,000,000 rows: {small['cpu']:.2f} s CPU, {small['peak_mb']:.0f} MB; Great Expectations "
                f"{other['cpu']:.2f} s CPU, {other['peak_mb']:.0f} MB: {other['cpu'] / small['cpu']:.1f} x"
            )


if __name__ == "__main__":
    main()
