"""Whether probabilities mean what they say: reliability by bins, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airlock.gates._intervals import redraw

if TYPE_CHECKING:
    from airlock.gates._intervals import Floats, Interval


@dataclass(frozen=True)
class Calibration:
    """Reliability of one model's probabilities.

    Attributes:
        error: expected calibration error, ideal 0: mean |share of 1 - mean probability| over bins, weighted
            by their rows (Guo et al., ICML 2017), in bins of equal size.
        interval: by the basic bootstrap, which takes out the error's upward bias: with few rows even a
            perfectly calibrated model has an error above 0.
        bins: rows, mean probability and share of 1 in each.
    """

    error: float
    interval: Interval
    bins: list[dict[str, Any]]


def calibration(
    outcome: Floats, score: Floats, *, bins: int, confidence: float, replicates: int
) -> Calibration:
    """Sort rows into ``bins`` by their probability and compare it with what happened.

    Equal probabilities are never parted, so there may be fewer bins.
    """
    import numpy as np

    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, score, side="left")
    used, place = np.unique(place, return_inverse=True)
    counts = np.bincount(place * 2 + outcome.astype("int64"), minlength=2 * len(used)).reshape(-1, 2)
    means = np.bincount(place, score) / counts.sum(axis=1)

    def error_of(table: Any) -> Any:
        gaps = np.abs(table[..., 1] - means * table.sum(axis=-1))
        return gaps.sum(axis=-1) / table.sum(axis=(-1, -2))

    error = float(error_of(counts))
    low, high = np.quantile(
        error_of(redraw(counts, replicates)), [(1 - confidence) / 2, (1 + confidence) / 2]
    )
    interval = max(0.0, round(2 * error - float(high), 9)), max(0.0, round(2 * error - float(low), 9))
    table = [
        {"rows": int(row.sum()), "mean_score": float(mean), "share": float(row[1] / row.sum())}
        for row, mean in zip(counts, means, strict=True)
    ]
    return Calibration(error, interval, table)
