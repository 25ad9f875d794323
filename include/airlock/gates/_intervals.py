"""Intervals that several gates need, by NumPy: fast at any number of rows, the same for the same input."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Interval = tuple[float, float]

SEED = 20_240_602
OUTSIDE = 10
"""Replicates that must lie outside an interval, else its ends are single draws."""
_AT_ONCE = 4_000_000
"""Numbers held in memory at a time: 32 MB."""


def redraw(counts: Integers, replicates: int, seed: int = SEED) -> Integers:
    """Counts of the cells on ``replicates`` redraws of the rows, the first axis.

    Redrawing rows with replacement is exactly a multinomial draw over the cells they are counted in, so
    its cost does not grow with the number of rows (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 6).
    """
    import numpy as np

    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, replicates)
    return drawn.reshape(replicates, *counts.shape)


def percentile(draws: Floats, confidence: float) -> Interval | None:
    """Percentile interval; ``None`` when half of the draws are undefined."""
    import numpy as np

    defined = draws[np.isfinite(draws)]
    if len(defined) < len(draws) / 2:
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return round(float(low), 9), round(float(high), 9)


def largest_gap(centre: Floats, draws: Floats, confidence: float) -> Interval:
    """Interval of the largest difference between any two groups, which is never negative.

    The largest of many differences is too large by construction, so its own bootstrap distribution never
    comes near 0. Instead every pair of groups gets an interval, all of them at once by the
    studentised maximum (max-t) of the bootstrap: difference ± c · se, with c the ``confidence`` quantile
    of max |difference* - difference| / se over all pairs. When all pairs hold, so does the interval of the
    largest: from the largest lower to the largest upper end. Source: Romano and Wolf, Econometrica 73 (2005);
    Westfall and Young, Resampling-Based Multiple Testing (1993).

    Args:
        centre: the measured number of each group.
        draws: the same on redrawn rows, a row per replicate; finite.
        confidence: of the whole statement, whatever the number of groups.

    Laws: holds the measured largest difference; does not depend on the order of the groups; with groups
    that are alike it begins at 0 with at least the stated confidence.
    """
    import numpy as np

    left, right = np.triu_indices(len(centre), 1)
    spread = np.empty(len(left))
    highest = np.zeros(len(draws))
    chunk = max(1, _AT_ONCE // len(draws))
    for start in range(0, len(left), chunk):
        pairs = slice(start, start + chunk)
        difference = draws[:, left[pairs]] - draws[:, right[pairs]]
        difference -= difference.mean(axis=0)
        spread[pairs] = np.sqrt((difference * difference).sum(axis=0) / (len(draws) - 1))
        safe = np.where(spread[pairs] > 0, spread[pairs], np.inf)
        highest = np.maximum(highest, np.abs(difference / safe).max(axis=1))
    reach = float(np.quantile(highest, confidence)) * spread
    distance = np.abs(centre[left] - centre[right])
    return max(0.0, round(float((distance - reach).max()), 9)), round(float((distance + reach).max()), 9)


def normal_draws(means: Floats, errors: Floats, replicates: int, seed: int = SEED) -> Floats:
    """Draws of group means that have these standard errors, for ``largest_gap`` where rows have no cells."""
    import numpy as np

    result: Floats = means + np.random.default_rng(seed).normal(size=(replicates, len(means))) * errors
    return result
