"""False alarms and power of the gates with uncertain numbers, on simulated data whose truth is known.

    python -m benchmarks.calibration [--rounds 300]

Each line draws the same kind of data again and again and counts the verdicts of one gate as policy 1.0.0 sets
it. "No fault": groups (models) are alike, or the truth lies exactly on the limit, where every alarm is
false; the stated level is 1 - confidence. "Fault": the truth is beyond the limit; the share of alarms is the
power, and "cannot tell" is what the gate says instead. The last column is Wilson's interval of the share of
alarms at 95 %.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

import numpy as np  # noqa: TID253 - a benchmark parses no DAGs

from airlock.core.statistics import Judge, standing, wilson_interval

Draw = Callable[[np.random.Generator], str]


def bias(rates: list[float], rows: list[int], judge: Judge = Judge.SIGNIFICANT) -> Draw:
    """Groups with these true selection rates, judged by the four-fifths limit."""
    from airlock.gates._fairness import Sampling, measure
    from airlock.gates._predictions import Groups

    names, codes = [f"group {number}" for number in range(len(rows))], np.repeat(np.arange(len(rows)), rows)
    sampling = Sampling(minimum_group_rows=30, exclude_below=0.02, confidence=0.95, replicates=1000)

    def draw(rng: np.random.Generator) -> str:
        decision = (rng.random(len(codes)) < np.array(rates)[codes]).astype("float64")
        gap = measure("a", Groups(names, codes), None, decision, sampling).gaps["demographic_parity_ratio"]
        where = standing(gap.value, 0.8, gap.interval, higher_is_better=True, by=judge, no_effect=1.0)
        return str(where)

    return draw


def floor(metric: str, truth: float, limit: float, rows: int, judge: Judge = Judge.BOUND) -> Draw:
    """A model whose true accuracy or area under the curve is known, judged by a floor."""
    from statistics import NormalDist

    from airlock.core.columns import Task
    from airlock.gates._measures import Uncertainty, measure
    from airlock.gates._predictions import Predictions

    apart = 2**0.5 * NormalDist().inv_cdf(truth)  # distance of two normal scores with that area

    def draw(rng: np.random.Generator) -> str:
        outcome = rng.integers(0, 2, rows).astype("float64")
        right = rng.random(rows) < truth
        decision = np.where(right, outcome, 1 - outcome)
        score = 1 / (1 + np.exp(-(rng.normal(size=rows) + apart * outcome)))
        model = Predictions("candidate", Task.BINARY, outcome, decision, score, [])
        spread = Uncertainty([model], [measure(model)], 0.95, 1000)
        value = spread.values[0][metric]
        return str(standing(value, limit, spread.interval(metric), higher_is_better=True, by=judge))

    return draw


def change(loss: float, rows: int) -> Draw:
    """Two models on the same rows; the candidate's true accuracy is ``loss`` below the champion's."""
    from airlock.core.columns import Task
    from airlock.gates._measures import Uncertainty, measure
    from airlock.gates._predictions import Predictions

    def draw(rng: np.random.Generator) -> str:
        outcome = rng.integers(0, 2, rows).astype("float64")
        luck = rng.random(rows)
        own = np.where(rng.random(rows) < 0.7, luck, rng.random(rows))  # alike, as models are
        models = [
            Predictions(name, Task.BINARY, outcome, np.where(hit, outcome, 1 - outcome), None, [])
            for name, hit in (("candidate", own < 0.85 * (1 - loss)), ("champion", luck < 0.85))
        ]
        spread = Uncertainty(models, [measure(model) for model in models], 0.95, 1000)
        value, interval = spread.change("accuracy")
        return str(standing(value, -0.05, interval, higher_is_better=True, by=Judge.BOUND))

    return draw


def calibrated(bend: float, rows: int) -> Draw:
    """Probabilities that mean what they say to the power of ``bend``; the limit is an error of 0.1."""
    from airlock.gates._calibration import calibration

    def draw(rng: np.random.Generator) -> str:
        chance = rng.uniform(0.02, 0.98, rows)
        outcome = (rng.random(rows) < chance).astype("float64")
        found = calibration(outcome, chance**bend, bins=10, confidence=0.95, replicates=1000)
        return str(standing(found.error, 0.1, found.interval, higher_is_better=False, by=Judge.BOUND))

    return draw


def reason(truth: float, cases: int) -> Draw:
    """Reasons that move the decision in this share of the cases; the limit is 0.8."""

    def draw(rng: np.random.Generator) -> str:
        better = int(rng.binomial(cases, truth))
        interval = wilson_interval(better, cases, 0.95)
        return str(standing(better / cases, 0.8, interval, higher_is_better=True, by=Judge.BOUND))

    return draw


NO_FAULT: dict[str, Draw] = {
    "bias: 2 groups alike, 200 rows each": bias([0.6] * 2, [200] * 2),
    "bias: 2 groups alike, 40 rows each": bias([0.6] * 2, [40] * 2),
    "bias: 8 groups alike, 60 rows each": bias([0.6] * 8, [60] * 8),
    "bias: 24 groups alike, 100 rows each": bias([0.7] * 24, [100] * 24),
    "bias: ratio exactly 0.8, 500 rows each, judged by bound": bias([0.48, 0.6], [500] * 2, Judge.BOUND),
    "bias: 2 groups alike, 40 rows each, judged by the point": bias([0.6] * 2, [40] * 2, Judge.POINT),
    "performance: accuracy exactly on its floor, 500 rows": floor("accuracy", 0.85, 0.85, 500),
    "performance: ROC AUC exactly on its floor, 200 rows": floor("roc_auc", 0.75, 0.75, 200),
    "performance: ROC AUC exactly on its floor, judged by the point": floor(
        "roc_auc", 0.75, 0.75, 200, Judge.POINT
    ),
    "performance: loss against the champion exactly 5 %, 800 rows": change(0.05, 800),
    "performance: perfectly calibrated, 300 rows": calibrated(1.0, 300),
    "explainability: reasons move exactly 80 % of 50 cases": reason(0.8, 50),
}
FAULT: dict[str, Draw] = {
    "bias: ratio 0.7, 200 rows each": bias([0.49, 0.7], [200] * 2),
    "bias: ratio 0.7, 1,000 rows each": bias([0.49, 0.7], [1000] * 2),
    "bias: 1 of 8 groups at 0.6, 200 rows each": bias([0.42] + [0.7] * 7, [200] * 8),
    "performance: accuracy 0.05 below its floor, 500 rows": floor("accuracy", 0.8, 0.85, 500),
    "performance: ROC AUC 0.05 below its floor, 500 rows": floor("roc_auc", 0.7, 0.75, 500),
    "performance: loss of 10 % against the champion, 800 rows": change(0.1, 800),
    "performance: loss of 10 % against the champion, 4,000 rows": change(0.1, 4000),
    "performance: error of calibration 0.17, 1,000 rows": calibrated(2.0, 1000),
    "explainability: reasons move 50 % of 50 cases": reason(0.5, 50),
}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    started = time.process_time()
    for title, cases in (
        ("no fault: alarms are false, stated level 5 %", NO_FAULT),
        ("fault: alarms are power", FAULT),
    ):
        print(f"\n{title}\n{'':64}alarm  cannot tell  pass   interval of alarms")
        for name, draw in cases.items():
            rng = np.random.default_rng(len(name) + rounds)
            seen = Counter(draw(rng) for _ in range(rounds))
            share = {key: seen[key] / rounds for key in ("wrong", "unsure", "right")}
            low, high = wilson_interval(seen["wrong"], rounds, 0.95)
            shares = f"{share['wrong']:7.1%}{share['unsure']:12.1%}{share['right']:8.1%}"
            print(f"{name:64}{shares}   {low:.1%} to {high:.1%}")
    print(f"\n{rounds} rounds each, {time.process_time() - started:.0f} s CPU")


if __name__ == "__main__":
    main()
