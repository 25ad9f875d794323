"""Calibration of the drift gate: false alarms where nothing moved, and how often it sees what did.

    python -m benchmarks.calibration_drift [--trials 400]

Each trial draws a reference and a current data set of 20 features (normal, log-normal, whole numbers, texts,
gaps) from known distributions and asks the rule of the gate. Seeds are fixed, so a run can be repeated.

- test level: with limits that anything exceeds, so that the corrected chi-square test alone decides, some
  feature is called drifted in at most 5 % of the trials in which nothing moved (the stated level);
- false alarm: the same under the shipped limits;
- power: the share of trials in which a shifted feature is called drifted, by size of shift and rows.
"""

from __future__ import annotations

import argparse
import math
import resource
from collections.abc import Iterator

LEVEL = 0.05
SHIPPED = {"psi": 0.2, "psi_deciles": 0.2, "missing_psi": 0.2}
ANYTHING = dict.fromkeys(SHIPPED, 1e-12)


def answers(rows: tuple[int, int], shift: float, seed: int, effects: dict[str, float]) -> dict[str, str]:
    """Feature → what the rule says; only feature ``x0`` is shifted, in standard deviations."""
    import numpy as np
    import pandas as pd

    from airlock.profiles.compare import compare
    from airlock.profiles.effects import Limits, effects_of
    from airlock.profiles.source import FrameSource

    def draw(count: int, move: float, rng: np.random.Generator) -> pd.DataFrame:
        columns: dict[str, object] = {f"x{i}": rng.normal(move * (i == 0), 1, count) for i in range(8)}
        columns |= {f"s{i}": np.exp(rng.normal(0, 1, count)) for i in range(4)}
        columns |= {f"w{i}": rng.integers(0, 5 + 10 * i, count) for i in range(3)}
        columns |= {f"t{i}": rng.choice(list("abcdefgh")[: 3 + i], count) for i in range(3)}
        columns |= {
            f"g{i}": np.where(rng.random(count) < 0.1, np.nan, rng.normal(0, 1, count)) for i in range(2)
        }
        return pd.DataFrame(columns)

    rng = np.random.default_rng(seed)
    reference, current = draw(rows[0], 0.0, rng), draw(rows[1], shift, rng)
    compared = compare(FrameSource(reference), FrameSource(current), list(reference.columns), threads=1)
    limits = Limits(effects=effects, significance=LEVEL, confidence=0.95, minimum_rows=100)
    return {one.name: str(one.moved) for one in effects_of(compared, limits)}


def share(hits: list[bool]) -> str:
    """A share with its 95 % interval by Wilson."""
    from airlock.core.statistics import wilson_interval

    low, high = wilson_interval(sum(hits), len(hits), 0.95)
    return f"{100 * sum(hits) / len(hits):5.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def report(trials: int) -> Iterator[str]:
    """The lines of the table."""
    for rows in ((200, 150), (1000, 500), (20_000, 5000)):
        title = f"{rows[0]:>6,} reference and {rows[1]:>5,} current rows"
        runs = trials if rows[0] < 20_000 else max(20, trials // 4)
        for name, effects in (("test level", ANYTHING), ("false alarm", SHIPPED)):
            alarms = ["far" in answers(rows, 0.0, seed, effects).values() for seed in range(runs)]
            yield f"{title}: {name:<11} {share(alarms)} of {runs} trials; stated at most {100 * LEVEL:.0f} %"
        for shift in (0.3, 0.5, 0.7, 1.0):
            seen = [answers(rows, shift, 10_000 + seed, SHIPPED)["x0"] for seed in range(runs // 4)]
            unsure = [answer == "unsure" for answer in seen]
            # Two normal distributions a shift d apart have a PSI of d².
            yield (
                f"{title}: shift {shift:.1f} sd (PSI {math.pow(shift, 2):.2f}): drifted "
                f"{share([answer == 'far' for answer in seen])}, "
                f"cannot tell {100 * sum(unsure) / len(unsure):.0f} %"
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    for line in report(parser.parse_args().trials):
        print(line, flush=True)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
