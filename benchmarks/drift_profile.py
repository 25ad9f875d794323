"""Drift of 25 columns from Parquet: the four distances on all rows, against a pure read and Evidently.

    python -m benchmarks.drift_profile                     1, 5 and 10 million rows, Evidently at 1 million
    python -m benchmarks.drift_profile --rows 1000000      one size
    python -m benchmarks.drift_profile --preset 5000000    Evidently's preset too: minutes, 10 GB

The floor is DuckDB adding up the same columns of both files: no engine can know less about them. Ours and
the floor run in turns in one process; the figure is the ratio of their medians, in wall-clock time and in CPU
time, because other programs may be at work. Evidently runs after them in the same process, on frames that are
already in memory, so reading is part of our time and not of its; at the size of its cheapest form
every number of ours is held against its own, and the Kolmogorov-Smirnov statistic against SciPy's (Evidently
gives its p-value). Peak memory is that of a process that did nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airlock.profiles.compare import Comparison

NUMBERS, SKEWED, WHOLE, CODES = 13, 4, 4, 4
TURNS = 7
FLOOR_GOAL, LIMIT_MB = 1.8, 700
PEER_GOALS = {"cheapest": 10, "preset": 60}
DISTANCES = {"psi": 1e-9, "jensenshannon": 1e-9, "ks": 1e-9, "wasserstein": 1e-6}


def make(path: Path, rows: int, seed: int, shift: float) -> None:
    """25 columns: normal, log-normal, with gaps, whole numbers of many and few values, texts."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, size, writer = np.random.default_rng(seed), 1 << 20, None
    codes = np.array([f"code {i}" for i in range(40)])
    for start in range(0, rows, size):
        count = min(size, rows - start)
        columns = {f"n{i}": rng.normal(shift, 1, count) for i in range(NUMBERS)}
        columns |= {f"s{i}": np.exp(rng.normal(shift, 1, count)) for i in range(SKEWED)}
        columns |= {f"w{i}": rng.integers(0, 10 ** (i + 2), count) for i in range(WHOLE)}
        table = pa.table(
            {name: pa.array(values) for name, values in columns.items()}
            | {f"c{i}": pa.array(codes[rng.integers(0, 5 + 10 * i, count)]) for i in range(CODES)}
        )
        gaps = pa.array(rng.normal(0, 1, count), mask=rng.random(count) < 0.05)
        table = table.set_column(0, "n0", gaps)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=122_880)
    if writer is not None:
        writer.close()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def floor(files: list[Path]) -> None:
    """DuckDB adds up every column; texts are counted by their length, so that they are read too."""
    import duckdb

    with duckdb.connect(
        config={"threads": min(2, os.cpu_count() or 1), "memory_limit": "512MB"}
    ) as connection:
        for file in files:
            described = connection.execute(f"DESCRIBE FROM '{file}'").fetchall()
            sums = [f'sum({"strlen" if row[1] == "VARCHAR" else ""}("{row[0]}"))' for row in described]
            connection.sql(f"FROM '{file}'").aggregate(", ".join(sums)).fetchall()


def ours(files: list[Path]) -> list[Comparison]:
    """All columns of both files, compared."""
    from airlock.profiles.compare import compare
    from airlock.profiles.source import ParquetSource

    reference, current = (ParquetSource(file) for file in files)
    return compare(reference, current, list(reference.columns()))


def evidently(files: list[Path]) -> tuple[list[Any], list[str], list[str]]:
    """Both files as Evidently wants them, current first; names of numbers and of texts."""
    import pandas as pd
    from evidently import DataDefinition, Dataset

    reference, current = (pd.read_parquet(file) for file in files)
    texts = [name for name in reference if name.startswith("c")]
    numbers = [name for name in reference if name not in texts]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in (current, reference)]
    return sides, numbers, texts


def cheapest(files: list[Path]) -> dict[str, float]:
    """Seconds of Evidently's ValueDrift for each column and distance; how far our numbers are from its."""
    from evidently import Report
    from evidently.metrics import ValueDrift
    from scipy.stats import ks_2samp

    sides, numbers, texts = evidently(files)
    wanted = [
        ValueDrift(column=n, method=m) for n in numbers for m in ("psi", "jensenshannon", "ks", "wasserstein")
    ]
    wanted += [ValueDrift(column=n, method=m) for n in texts for m in ("psi", "jensenshannon")]
    answers: list[dict[str, Any]] = []
    wall, cpu = timed(lambda: answers.append(Report(wanted, include_tests=False).run(*sides).dict()))
    mine = {one.column: one for one in ours(files)}
    apart = dict.fromkeys(("psi", "jensenshannon", "wasserstein", "ks"), 0.0)
    for one in answers[0]["metrics"]:
        column, name = one["config"]["column"], one["config"]["method"]
        if name != "ks":
            apart[name] = max(apart[name], abs(getattr(mine[column], name) - float(one["value"])))
    now, before = (side.as_dataframe() for side in sides)
    for column in numbers:
        exact = ks_2samp(before[column].dropna(), now[column].dropna(), method="asymp").statistic
        apart["ks"] = max(apart["ks"], abs((mine[column].ks or 0.0) - float(exact)))
    return {"peer_wall": wall, "peer_cpu": cpu, **apart}


def preset(files: list[Path]) -> dict[str, float]:
    """Seconds of Evidently's preset."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    sides, _, _ = evidently(files)
    wall, cpu = timed(lambda: Report([DataDriftPreset()]).run(*sides).dict())
    return {"peer_wall": wall, "peer_cpu": cpu}


def turns(files: list[Path]) -> dict[str, float]:
    """Medians of ours and the floor, run in turns; the first turn of each is not counted."""
    ours(files), floor(files)
    pairs = [(timed(lambda: ours(files)), timed(lambda: floor(files))) for _ in range(TURNS)]
    values = {
        "ours_wall": [pair[0][0] for pair in pairs],
        "ours_cpu": [pair[0][1] for pair in pairs],
        "floor_wall": [pair[1][0] for pair in pairs],
        "floor_cpu": [pair[1][1] for pair in pairs],
    }
    return {name: statistics.median(seconds) for name, seconds in values.items()}


def alone(files: list[Path]) -> dict[str, float]:
    """Ours once, in a process that did nothing else: peak memory in megabytes."""
    ours(files)
    return peak()


def peak() -> dict[str, float]:
    """Peak memory of this process.

    Linux counts what the parent held when it started this process in ``ru_maxrss``, but not in ``VmHWM``.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
        return {"peak_mb": int(lines["VmHWM"].split()[0]) / 1024}
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


MEASURED: dict[str, Callable[[list[Path]], dict[str, float]]] = {
    "alone": alone,
    "turns": turns,
    "cheapest": lambda files: cheapest(files) | peak(),
    "preset": lambda files: preset(files) | peak(),
}


def child(what: str, files: list[Path], seconds: float | None = None) -> dict[str, float]:
    """Run one of the measurements in a process of its own, which is ended after ``seconds``.

    Raises:
        subprocess.TimeoutExpired: it was.
    """
    command = [sys.executable, "-m", "benchmarks.drift_profile", "--child", what, *map(str, files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 5_000_000, 10_000_000])
    parser.add_argument("--cheapest", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--preset", type=int, nargs="*", default=[])
    parser.add_argument("--patience", type=float, default=1800, help="seconds after which a peer is ended")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, *names = options.child
        print(json.dumps(MEASURED[what]([Path(name) for name in names])))
        return
    for rows in sorted({*options.rows, *options.preset}):
        with tempfile.TemporaryDirectory(prefix="airlock-bench-") as folder:
            files = [Path(folder) / "reference.parquet", Path(folder) / "current.parquet"]
            make(files[0], rows, 1, 0.0)
            make(files[1], rows, 2, 0.02)
            peers = [name for name in PEER_GOALS if rows in getattr(options, name)]
            report(rows, files, peers, options.patience)


def report(rows: int, files: list[Path], peers: list[str], patience: float) -> None:
    """Measure at one size and print."""
    memory = child("alone", files)["peak_mb"]
    result = child("turns", files)
    wall = result["ours_wall"] / result["floor_wall"]
    cpu = result["ours_cpu"] / result["floor_cpu"]
    print(
        f"{rows:>11,} rows x 25 columns: {result['ours_wall']:.2f} s ({result['ours_cpu']:.2f} s CPU), "
        f"pure read {result['floor_wall']:.2f} s ({result['floor_cpu']:.2f} s CPU): "
        f"{wall:.2f} x wall, {cpu:.2f} x CPU (goal {FLOOR_GOAL}); peak {memory:.0f} MB (goal {LIMIT_MB})"
    )
    for name in peers:
        try:
            one = child(name, files, patience)
        except subprocess.TimeoutExpired:
            least = patience / result["ours_wall"]
            print(
                f"{'':>11} Evidently's {name}: ended after {patience:.0f} s, unfinished: "
                f"more than {least:.0f} x our time (goal {PEER_GOALS[name]})"
            )
            continue
        print(
            f"{'':>11} Evidently's {name}: {one['peer_wall']:.1f} s ({one['peer_cpu']:.1f} s CPU), "
            f"{one['peak_mb']:.0f} MB: {one['peer_wall'] / result['ours_wall']:.1f} x our time, "
            f"{one['peer_cpu'] / result['ours_cpu']:.1f} x our CPU time (goal {PEER_GOALS[name]})"
        )
        for distance, most in DISTANCES.items():
            if distance in one:
                print(f"{'':>11} {distance}: at most {one[distance]:.1e} apart (goal {most:.0e})")


if __name__ == "__main__":
    main()
