"""The decision-change report on 100,000 cases, against the floor of counting changed decisions alone.

    python -m benchmarks.decision_changes

Twelve features, four protected attributes, both models' predictions of every case and SHAP values of the
first 500, as a release keeps them. Measured is everything after the scores are there: which decisions change,
by group and kind of case, the reasons, the examples, the JSON and the page. The floor reads the same Parquet
and counts what differs, by group, with pandas. Wall clock, CPU seconds and peak memory; exit code 1 above
``--limit``.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airlock.adapters.config_files import ConfigFolder
from airlock.core.canonical import canonical_json, parse_json
from airlock.core.workload import Workload
from airlock.demo import models
from airlock.reporting.decision_changes import fragment
from airlock.services.decision_changes import Scored, compared

ROOT = Path(__file__).parents[1]
RUNS = 5
EXPLAINED = 500


def data(folder: Path, workload: Workload, rows: int) -> None:
    """Cases and scores as Parquet files: the newer model turns down some of the highest debts."""
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(11)
    features = workload.model.features
    frame = pd.DataFrame({name: np.round(draw.gamma(2.0, 15.0, rows), 3) for name in features})
    for attribute, names in workload.data.sensitive.items():
        frame[attribute] = draw.choice(sorted(names), rows)
    frame[workload.model.target] = draw.integers(0, 2, rows)
    frame.to_parquet(folder / "cases.parquet", index=False)
    score = 1 / (1 + np.exp((frame[features[0]] - 40) / 20))
    other = 1 / (1 + np.exp((frame[features[0]] + 0.3 * frame[features[1]] - 45) / 20))
    pd.DataFrame(
        {
            "champion_score": score,
            "champion_prediction": (score >= 0.5).astype("int64"),
            "candidate_score": other,
            "candidate_prediction": (other >= 0.5).astype("int64"),
        }
    ).to_parquet(folder / "scores.parquet", index=False)
    for name in ("champion", "candidate"):
        table = pd.DataFrame(draw.normal(0, 0.1, (EXPLAINED, len(features))), columns=features)
        table.index.name = "row"
        table.assign(_base=0.5, _margin=0.0).to_parquet(folder / f"{name}_shap.parquet")


def report(folder: Path, workload: Workload) -> int:
    """Everything that is done once the scores are there; returns how many decisions change."""
    import pandas as pd

    scored = Scored(
        name="evaluation batch",
        frame=pd.read_parquet(folder / "cases.parquet"),
        scores=pd.read_parquet(folder / "scores.parquet"),
        explained=(
            pd.read_parquet(folder / "champion_shap.parquet"),
            pd.read_parquet(folder / "candidate_shap.parquet"),
        ),
        target=workload.model.target,
    )
    whole: dict[str, Any] = {
        "workload": workload.name, "kind": "promotion", "from": "1", "to": "2", "problem": "",
        "data": [compared(workload, scored)],
    }  # fmt: skip
    stored = canonical_json(whole)
    assert fragment(parse_json(stored))
    found = whole["data"][0]
    assert found["examples"]
    assert found["reasons"]
    return int(found["flips"]["changed"])


def floor(folder: Path, workload: Workload) -> int:
    """Count changed decisions, by group."""
    import pandas as pd

    frame = pd.read_parquet(folder / "cases.parquet")
    scores = pd.read_parquet(folder / "scores.parquet")
    changed = scores["champion_prediction"] != scores["candidate_prediction"]
    for attribute in workload.data.sensitive:
        changed.groupby(frame[attribute]).sum()
    return int(changed.sum())


def timed(work: Callable[[], int]) -> tuple[float, float, int]:
    """Median wall clock and CPU seconds of some runs, and the answer."""
    walls, cpus = [], []
    work()  # imports, and the page cache
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus), found


def main() -> int:
    """Measure and print; 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--limit", type=float, default=10.0)
    options = parser.parse_args()
    workload = ConfigFolder(ROOT / "config").workload(models.APPROVAL)
    with tempfile.TemporaryDirectory(prefix="airlock-benchmark-") as name:
        folder = Path(name)
        data(folder, workload, options.rows)
        base, _, counted = timed(lambda: floor(folder, workload))
        wall, cpu, changed = timed(lambda: report(folder, workload))
    assert changed == counted > 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.rows:,} cases, {changed:,} decided differently")
    print(f"report   {wall:6.2f} s, {cpu:6.2f} s CPU, limit {options.limit:g} s")
    print(f"floor    {base:6.2f} s: read, compare and count by group")
    print(f"ratio    {wall / base:6.1f}; peak memory of this process {peak:.0f} MB")
    return int(wall > options.limit)


if __name__ == "__main__":
    sys.exit(main())
