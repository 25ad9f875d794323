"""Calibration of the drift gate: false alarms where nothing moved, and how often it sees what did.

    python -m benchmarks.calibration_drift [--trials 400]

Each trial draws a reference and a current data set of 20 features (normal, log-normal, whole numbers, texts,
gaps) from known distributions and asks the rule of the gate. Seeds are fixed, so a run can be repeated.

- test level: with limits that anything exceeds, so that the corrected chi-square test alone decides, some
  feature is called drifted in at most 5 % of the trials in which nothing moved (the stated level);
- false alarm: the same under the shipped limits;
- power: the share of trials in which a shifted feature is called drifted, by size of shift and rows;
- the classifier that sees features move together, under the shipped limit of its AUC;
- the chi-square test of a text with 3,000 values, most of them rare, where one side is much smaller.
"""

from __future__ import annotations

import argparse
import math
import resource
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LEVEL = 0.05
SHIPPED = {"psi": 0.2, "psi_deciles": 0.2, "missing_psi": 0.2}
CLASSIFIER = 0.65
ANYTHING = dict.fromkeys(SHIPPED, 1e-12)


def draw(count: int, move: float, rng: np.random.Generator) -> pd.DataFrame:
    """Twenty features; only ``x0`` is shifted, in standard deviations."""
    import numpy as np
    import pandas as pd

    columns: dict[str, object] = {f"x{i}": rng.normal(move * (i == 0), 1, count) for i in range(8)}
    columns |= {f"s{i}": np.exp(rng.normal(0, 1, count)) for i in range(4)}
    columns |= {f"w{i}": rng.integers(0, 5 + 10 * i, count) for i in range(3)}
    columns |= {f"t{i}": rng.choice(list("abcdefgh")[: 3 + i], count) for i in range(3)}
    columns |= {f"g{i}": np.where(rng.random(count) < 0.1, np.nan, rng.normal(0, 1, count)) for i in range(2)}
    return pd.DataFrame(columns)


def answers(rows: tuple[int, int], shift: float, seed: int) -> dict[str, dict[str, str]]:
    """What the rule says of each feature, under limits that anything exceeds and under the shipped ones."""
    import numpy as np

    from airlock.profiles.compare import compare
    from airlock.profiles.effects import Limits, effects_of
    from airlock.profiles.source import FrameSource

    rng = np.random.default_rng(seed)
    reference, current = draw(rows[0], 0.0, rng), draw(rows[1], shift, rng)
    compared = compare(FrameSource(reference), FrameSource(current), list(reference.columns), threads=1)
    rules = {"test level": ANYTHING, "false alarm": SHIPPED}
    limits = {
        name: Limits(effects=effects, significance=LEVEL, confidence=0.95, minimum_rows=100)
        for name, effects in rules.items()
    }
    return {name: {one.name: str(one.moved) for one in effects_of(compared, limits[name])} for name in limits}


def classifier(rows: tuple[int, int], seed: int, *, together: bool) -> bool:
    """Whether the classifier is above its limit; ``together``: what joins two features turned around."""
    import numpy as np

    from airlock.profiles.joint import separability

    rng = np.random.default_rng(seed)
    reference, current = draw(rows[0], 0.0, rng), draw(rows[1], 0.0, rng)
    if together:
        for frame, sign in ((reference, 1), (current, -1)):
            frame["x1"] = 0.5 * sign * frame["x0"] + 0.75**0.5 * frame["x1"]
    found = separability(reference, current, confidence=0.95, seed=seed)
    return found.interval[0] > CLASSIFIER


def many_values(seed: int, factor: float) -> bool:
    """Whether chi-square sees that every other of 3,000 values became so many times as frequent."""
    import numpy as np

    from airlock.profiles.distances import chi_square

    rng, shares = np.random.default_rng(seed), 1 / np.arange(1, 3001)
    now = shares * np.where(np.arange(3000) % 2, 1.0, factor)
    sides = rng.multinomial(50_000, shares / shares.sum()), rng.multinomial(2000, now / now.sum())
    seen = sides[0] + sides[1] > 0
    return chi_square(sides[0][seen], sides[1][seen])[2] <= LEVEL


def share(hits: list[bool]) -> str:
    """A share with its 95 % interval by Wilson."""
    from airlock.core.statistics import wilson_interval

    low, high = wilson_interval(sum(hits), len(hits), 0.95)
    return f"{100 * sum(hits) / len(hits):5.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def report(trials: int) -> Iterator[str]:
    """The lines of the table."""
    for rows in ((200, 150), (1000, 500), (20_000, 5000)):
        title = f"{rows[0]:>6,} reference and {rows[1]:>5,} current rows"
        said = [answers(rows, 0.0, seed) for seed in range(trials)]
        for name in ("test level", "false alarm"):
            alarms = ["far" in one[name].values() for one in said]
            yield f"{title}: {name:<11} {share(alarms)} of {trials} trials; stated at most {LEVEL:.0%}"
        for shift in (0.3, 0.5, 0.7, 1.0):
            seen = [
                answers(rows, shift, 10_000 + seed)["false alarm"]["x0"]
                for seed in range(max(1, trials // 4))
            ]
            unsure = [answer == "unsure" for answer in seen]
            # Two normal distributions a shift d apart have a PSI of d².
            yield (
                f"{title}: shift {shift:.1f} sd (PSI {math.pow(shift, 2):.2f}): drifted "
                f"{share([answer == 'far' for answer in seen])}, "
                f"cannot tell {100 * sum(unsure) / len(unsure):.0f} %"
            )
    few = range(max(1, trials // 4))
    for rows in ((1000, 500), (5000, 5000)):
        title = f"{rows[0]:>6,} reference and {rows[1]:>5,} current rows: classifier"
        for name, together in (("nothing moved", False), ("a correlation of 0.5 turned around", True)):
            yield f"{title}, {name}: {share([classifier(rows, seed, together=together) for seed in few])}"
    for factor, name in ((1.0, "nothing moved"), (1.5, "every other 1.5 times as frequent")):
        yield f"50,000 reference and 2,000 current rows: 3,000 values, {name}: " + share(
            [many_values(seed, factor) for seed in range(trials)]
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
