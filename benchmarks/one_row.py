"""One row at inference: the drift and policy check of 25 columns, p50 to p99; the field promises 50 ms.

    python -m benchmarks.one_row

Policy here is the limits of ``RowLimits`` and one rule in CEL over what the check found, compiled once, as a
model server would hold it. Times are CPU time of this thread, row by row, so that other programs do not
count; the garbage collector runs as always.
"""

from __future__ import annotations

import resource
import time

ROWS = 20_000
GOAL_MS = 5.0
RULE = 'problems == 0 || (problems <= 2 && reasons.all(r, r == "unknown value"))'


def main() -> None:
    """Print the figures."""
    import numpy as np
    import pandas as pd

    from airlock.adapters.cel_engine import CelEngine
    from airlock.profiles.one_row import RowChecker, RowLimits
    from airlock.profiles.profile import profile
    from airlock.profiles.source import FrameSource

    rng = np.random.default_rng(1)
    columns = {f"x{i}": rng.normal(0, 1, 50_000) for i in range(20)}
    columns |= {f"c{i}": rng.choice([f"code {k}" for k in range(40)], 50_000) for i in range(5)}
    frame = pd.DataFrame(columns)
    checker = RowChecker(
        profile(FrameSource(frame)), RowLimits(margin=0.1, missing_share=0.01, rare_share=0.0)
    )
    rows = frame.head(ROWS).to_dict("records")
    for index in range(0, ROWS, 10):
        rows[index]["x3"] = 99.0
    engine, seconds, stopped = CelEngine(), [], 0
    for row in rows:
        start = time.thread_time()
        problems = checker.check(row)
        facts = {"problems": len(problems), "reasons": [one.reason for one in problems]}
        stopped += not engine.evaluate(RULE, facts)
        seconds.append(1000 * (time.thread_time() - start))
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert stopped == ROWS // 10
    print(
        f"one row of 25 columns, {ROWS:,} times: p50 {p50:.3f} ms, p95 {p95:.3f} ms, p99 {p99:.3f} ms CPU "
        f"(goal {GOAL_MS:g}, the field promises 50); {stopped} rows stopped; peak {memory:.0f} MB"
    )


if __name__ == "__main__":
    main()
