"""Fairness of 24 crossed groups on a million rows: Airlock's cells against fairlearn on the rows.

    python -m benchmarks.bias [--rows 1000000]

Eight metrics with intervals of 1,000 replicates on one side; on the other the same eight functions of
fairlearn, which give values alone (its own bootstrap would take that time once more for each replicate).
Both start from the same data frame. Imports are outside. CPU time, because it does not depend on who else
uses the machine.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np  # noqa: TID253 - a benchmark parses no DAGs
import pandas as pd  # noqa: TID253

METRICS = [
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
    "accuracy_score_difference",
    "accuracy_score_ratio",
]
OURS = {"accuracy_score_difference": "accuracy_gap", "accuracy_score_ratio": "accuracy_ratio"}


def data(rows: int) -> pd.DataFrame:
    """Three attributes with 2, 3 and 4 values, an outcome and a decision."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "sex": np.array(["women", "men"])[rng.integers(0, 2, rows)],
            "age": np.array(["young", "middle", "old"])[rng.integers(0, 3, rows)],
            "region": np.array(["north", "east", "south", "west"])[rng.integers(0, 4, rows)],
            "y": rng.integers(0, 2, rows),
        }
    )
    chance = 0.2 + 0.4 * frame["y"] + 0.1 * (frame["sex"] == "men") + 0.05 * (frame["age"] == "old")
    return frame.assign(decision=(rng.random(rows) < chance).astype("int64"))


def ours(frame: pd.DataFrame) -> dict[str, float | None]:
    from airlock.gates._fairness import Sampling, measure
    from airlock.gates._predictions import groups_of

    groups = [groups_of(frame[name], {}) for name in ("age", "region", "sex")]
    crossed = groups[0].crossed(groups[1]).crossed(groups[2])
    sampling = Sampling(minimum_group_rows=30, exclude_below=0.02, confidence=0.95, replicates=1000)
    fairness = measure("all", crossed, frame["y"].to_numpy(), frame["decision"].to_numpy(), sampling)
    assert len(fairness.judged) == 24
    assert all(fairness.gaps[OURS.get(name, name)].interval for name in METRICS)
    return {name: fairness.gaps[OURS.get(name, name)].value for name in METRICS}


def fairlearns(frame: pd.DataFrame) -> dict[str, float | None]:
    from fairlearn import metrics

    sensitive = frame[["age", "region", "sex"]]
    return {
        name: float(getattr(metrics, name)(frame["y"], frame["decision"], sensitive_features=sensitive))
        for name in METRICS
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    small = data(10_000)
    ours(small)  # imports and first calls
    fairlearns(small)
    frame = data(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = []
    for _ in range(5):
        start = time.process_time()
        found = ours(frame)
        spent.append(time.process_time() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    expected = fairlearns(frame)
    peer = time.process_time() - start
    print(f"rows {rows:,}, groups 24, metrics {len(METRICS)}")
    print(f"Airlock, with intervals of 1,000 replicates: {min(spent):.3f} s CPU (best of {len(spent)})")
    print(
        f"fairlearn on the rows, without intervals: {peer:.2f} s CPU, {peer / min(spent):.0f} times as long"
    )
    print(f"values identical to the last bit: {found == expected}")
    print(f"memory above the data: {(memory - before) / 1024:.0f} MB, peak {memory / 1024:.0f} MB")


if __name__ == "__main__":
    main()
