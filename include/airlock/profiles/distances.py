"""How far two distributions lie apart. Definitions are those of Evidently 0.7.23 and SciPy.

Counts come as integer arrays over the same bins; samples come as sorted arrays of finite floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]

FILL = 1e-4
"""The share Evidently gives to an empty bin."""

FEW_VALUES = 20
"""Evidently counts numeric columns with at most so many distinct reference values by value."""

_LEAST_SCALE = 0.001
"""Evidently divides the Wasserstein distance by at least this; see its wasserstein_distance_norm.py."""

_STEPS = (64, 8)
"""Rows between two probes of a search that becomes finer where it has to."""

_EXPECTED = 5
"""Values that must be expected in a bin: Cochran's rule."""

_MANY_RARE = 20
_DRAWS = 100
_SEED = 20_240_603

_BLOCK = 1 << 16
"""Values handled at once, so that they stay in the processor's cache."""

_STRETCHES = 1 << 12
"""Stretches of rows looked at value by value at once."""


def sturges_edges(low: float, high: float, n: int, *, whole: bool) -> Floats:
    """Edges of the equal-width bins that ``numpy.histogram_bin_edges(values, "sturges")`` makes.

    Args:
        low: smallest value.
        high: largest value.
        n: number of values.
        whole: whether all are of an integer type; NumPy makes no bin narrower than 1 for those.

    Returns:
        At least two edges, ascending.

    Raises:
        ValueError: the range is too narrow or too wide for floating point.
    """
    import numpy as np

    if not math.isfinite(float(high) - float(low)):
        raise ValueError("the range is too wide")
    width = (high - low) / (np.log2(n) + 1.0)
    if whole and 0 < width < 1:
        width = 1.0
    bins = int(np.ceil((high - low) / width)) if width else 1
    ends = np.array([low, high], dtype=np.int64 if whole and max(abs(low), abs(high)) < 2**53 else np.float64)
    with np.errstate(all="ignore"):
        edges = np.histogram_bin_edges(ends, bins=bins).astype(np.float64)
    if not np.isfinite(edges).all():
        raise ValueError("the range is too wide")
    return edges


def counts_between(ordered: Floats, edges: Floats) -> Counts:
    """Counts of sorted values in bins, the last one closed on both sides, as ``numpy.histogram``."""
    import numpy as np

    below = np.searchsorted(ordered, edges, side="left")
    below[-1] = np.searchsorted(ordered, edges[-1], side="right")
    return np.diff(below).astype(np.int64)


def shares(counts: Counts, *, fill: bool) -> Floats:
    """Shares along the last axis.

    With ``fill`` an empty bin counts as 1e-4, or as a millionth of the smallest share where that is
    1e-4 or less, as Evidently has it.
    """
    import numpy as np

    share: Floats = counts / counts.sum(axis=-1, keepdims=True)
    if fill:
        smallest = np.where(share > 0, share, np.inf).min(axis=-1, keepdims=True)
        share = np.where(share > 0, share, np.where(smallest <= FILL, smallest / 1e6, FILL))
    return share


def psi(reference: Counts, current: Counts) -> float:
    """Population stability index: Σ (r - c) ln(r / c) over shares; 0 when equal, no upper bound."""
    import numpy as np

    before, now = shares(reference, fill=True), shares(current, fill=True)
    return float(np.sum((before - now) * np.log(before / now)))


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Jensen-Shannon distance, the root of the divergence in nats: 0 when equal, at most 0.8326."""
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(shares(reference, fill=False), shares(current, fill=False)))


def chi_square(reference: Counts, current: Counts) -> tuple[float, int, float]:
    """Pearson's test that both samples come from one distribution.

    Bins in which fewer than five values are expected are put together first (Cochran, Biometrics 10,
    1954), so that the statistic follows its distribution. Where that are more than twenty bins, they would
    be most there is to see: then two tests look at them, and the smaller p-value counts twice (Bonferroni).

    - All bins one by one, against random splits of the rows: sees rare values that come or go.
    - Frequent bins one by one, rare ones in classes by how many rows of both samples they hold (1, 2 to 3,
      4 to 7 …): sees what moved among the others, which the first cannot where one sample is much smaller.
      Classes follow from both samples together, so without drift their table is a random split too.

    Returns:
        Statistic, degrees of freedom, p-value; 0, 0 and 1 where only one bin is left.
    """
    import numpy as np

    together = reference + current
    smaller = min(int(reference.sum()), int(current.sum())) / int(together.sum())
    rare = together * smaller < _EXPECTED
    table = np.stack([reference, current])
    if int(rare.sum()) <= _MANY_RARE:
        return _pearson(_enough(table, np.where(rare, -1, np.arange(len(rare))), smaller))
    statistic, freedom, p_value = _sparse_chi_square(reference, current)
    classes = np.log2(np.maximum(together, 1)).astype(np.int64)
    in_classes = _pearson(_enough(table, np.where(rare, classes, np.arange(len(rare)) + 64), smaller))
    return statistic, freedom, min(1.0, 2 * min(p_value, in_classes[2]))


def _enough(table: Counts, kinds: Counts, smaller: float) -> Counts:
    """Bins of one kind put together, in ascending order; with the next where too few are expected still."""
    import numpy as np

    kinds = np.unique(kinds, return_inverse=True)[1]
    summed = np.zeros((int(kinds.max()) + 1, 2), dtype=np.int64)
    np.add.at(summed, kinds, table.T)
    bins, rest = [], np.zeros(2, dtype=np.int64)
    for one in summed:
        rest = rest + one
        if rest.sum() * smaller >= _EXPECTED:
            bins.append(rest)
            rest = np.zeros(2, dtype=np.int64)
    if rest.sum():
        bins = [*bins[:-1], bins[-1] + rest] if bins else [rest]
    return np.array(bins, dtype=np.int64).T


def _pearson(table: Counts) -> tuple[float, int, float]:
    from scipy.special import gammaincc

    freedom = table.shape[1] - 1
    if freedom < 1:
        return 0.0, 0, 1.0
    expected = table.sum(axis=1, keepdims=True) * (table.sum(axis=0, keepdims=True) / table.sum())
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, freedom, float(gammaincc(freedom / 2, statistic / 2))


def _sparse_chi_square(reference: Counts, current: Counts) -> tuple[float, int, float]:
    """Pearson's statistic of many rare values, against its mean and spread over random splits of the rows.

    A split at random is a hypergeometric draw of the counts. The statistic is a sum over many values, hence
    close to normal whatever each of them is; a hundred draws give its mean and spread.
    """
    import numpy as np

    together, wanted = reference + current, int(current.sum())
    share = wanted / int(together.sum())
    expected = together * share
    scale = 1 / (expected * (1 - share))  # both rows of the table deviate by the same amount

    def statistic(drawn: Counts) -> float:
        return float(((drawn - expected) ** 2 * scale).sum())

    rng = np.random.default_rng(_SEED)
    drawn = [
        statistic(rng.multivariate_hypergeometric(together, wanted, method="marginals"))
        for _ in range(_DRAWS)
    ]
    observed, spread = statistic(current), float(np.std(drawn, ddof=1))
    freedom = len(together) - 1
    if spread <= 0:  # every split is alike
        return observed, freedom, 1.0
    distance = (observed - float(np.mean(drawn))) / spread
    return observed, freedom, 0.5 * math.erfc(distance / math.sqrt(2))


def kolmogorov_smirnov(reference: Floats, current: Floats) -> float:
    """Largest distance between the two distribution functions of sorted samples; exact.

    The distance is measured at every 64th value of the reference first. Between two probes it can only be
    larger by what both functions rise there, so only stretches where that could beat the best probe are
    looked at again, at every 8th value, and of those again only some value by value.
    """
    import numpy as np

    n, m = len(reference), len(current)
    if n == m and _alike(reference, current):
        return 0.0
    best = int(np.searchsorted(current, reference[0], side="left")) / m
    first, last = np.array([0]), np.array([n])
    for step in _STEPS:
        rows = ragged(first, last, step)
        ends = np.minimum(rows + step, np.repeat(last, -(-(last - first) // step)))
        probes = reference[rows]
        low = np.searchsorted(current, probes, side="right")
        high = np.searchsorted(current, reference[np.minimum(ends, n - 1)], side="right")
        high[ends == n] = m
        alone = reference[np.minimum(rows + 1, n - 1)] != probes  # then (row + 1)/n is the function's value
        best = max(best, float(np.abs((rows + 1) / n - low / m)[alone].max(initial=0.0)))
        open_ = np.maximum(ends / n - low / m, high / m - (rows + 1) / n) > best
        first, last, low, high = rows[open_], ends[open_], low[open_], high[open_]
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        values = np.concatenate(
            [reference[ragged(first[part], last[part])], current[ragged(low[part], high[part])]]
        )
        values.sort()
        gap = np.searchsorted(reference, values, side="right") / n
        gap -= np.searchsorted(current, values, side="right") / m
        best = max(best, float(np.abs(gap).max(initial=0.0)))
    return best


def _alike(reference: Floats, current: Floats) -> bool:
    """Whether samples of the same length are the same; mostly told by their first values."""
    blocks = range(0, len(reference), _BLOCK)
    return all((reference[i : i + _BLOCK] == current[i : i + _BLOCK]).all() for i in blocks)


def ragged(first: Counts, last: Counts, step: int = 1) -> Counts:
    """``range(a, b, step)`` for each pair of ``first`` and ``last``, one after the other."""
    import numpy as np

    lengths = -(-(last - first) // step)
    ends = np.cumsum(lengths)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    result: Counts = np.repeat(first, lengths) + within * step
    return result


def wasserstein(reference: Floats, current: Floats) -> float:
    """First Wasserstein distance of sorted samples: the mean distance between equal quantiles; exact.

    Both quantile functions are steps. Where one stays above the other over 64 rows of the reference, their
    sums over these rows are enough; only where they may cross is every step looked at.
    """
    import numpy as np

    n, m = len(reference), len(current)
    if n == m:
        total = 0.0
        for start in range(0, n, _BLOCK):
            gap = reference[start : start + _BLOCK] - current[start : start + _BLOCK]
            total += float(np.abs(gap, out=gap).sum())
        return total / n
    common = math.gcd(n, m)
    step_n, step_m = m // common, n // common  # i/n and j/m as whole numbers of n·m/gcd steps
    if n * step_n >= 2**62:
        raise ValueError("samples are too long for this distance")
    rows = np.arange(0, n, _STEPS[0], dtype=np.int64)
    ends = np.minimum(rows + _STEPS[0], n)
    low, part_low = np.divmod(rows * step_n, step_m)
    high, part_high = np.divmod(ends * step_n, step_m)
    # The last value of the current data that a stretch touches.
    touched = np.minimum(np.where(part_high > 0, high, high - 1), m - 1)
    mine = np.add.reduceat(reference, rows)
    theirs = np.where(high > low, np.add.reduceat(current, low), 0.0)
    theirs += (part_high * current[np.minimum(high, m - 1)] - part_low * current[low]) / step_m
    above = reference[rows] >= current[touched]
    below = reference[ends - 1] <= current[low]
    apart = above | below
    total = float(np.abs(mine / n - theirs / m)[apart].sum())
    crossing = np.flatnonzero(~apart)
    for start in range(0, len(crossing), _STRETCHES):
        chosen = crossing[start : start + _STRETCHES]
        total += _stepwise(reference, current, (rows[chosen], ends[chosen]), (step_n, step_m))
    return total


def _stepwise(
    reference: Floats, current: Floats, rows: tuple[Counts, Counts], steps: tuple[int, int]
) -> float:
    """The part of the Wasserstein distance that lies in some rows of the reference, step by step."""
    import numpy as np

    (first, last), (step_n, step_m) = rows, steps
    begin, end = first * step_n, last * step_n
    own = ragged(first, last) * step_n
    their = ragged(begin // step_m + 1, -(-end // step_m)) * step_m
    points = np.concatenate([own, end, their])
    points.sort()
    starts, lengths = points[:-1], np.diff(points)
    # Between two stretches that are no neighbours lies a gap, which belongs to neither.
    inside = starts < end[np.searchsorted(begin, starts, side="right") - 1]
    starts, lengths = starts[inside], lengths[inside]
    gap = np.abs(reference[starts // step_n] - current[starts // step_m])
    return float((gap * lengths).sum()) / (len(reference) * step_n)


def deviation(values: Floats) -> float:
    """Standard deviation (``ddof`` 0) of sorted values, in one pass, in blocks.

    Deviations are taken from the median, which is never further from the mean than one standard deviation:
    the difference of squares at the end loses no digits.
    """
    import numpy as np

    n, middle, total, squares = len(values), float(values[len(values) // 2]), 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, n, _BLOCK):
            gap = values[start : start + _BLOCK] - middle
            total += float(gap.sum())
            squares += float(np.einsum("i,i->", gap, gap))  # np.dot wakes other threads for each block
    variance = squares / n - (total / n) * (total / n)
    return math.sqrt(0.0 if variance < 0 else variance)


def normed(distance: float, scale: float) -> float | None:
    """The Wasserstein distance in standard deviations of the reference, at least 0.001, as Evidently.

    ``None`` where the values are so large that their squares are no numbers.
    """
    return distance / max(scale, _LEAST_SCALE) if math.isfinite(scale + distance) else None


@dataclass(frozen=True)
class Weighted:
    """Sorted values that occur many times: each once, with how often."""

    values: Floats
    counts: Counts

    @property
    def n(self) -> int:
        """How many values there are, repeats counted."""
        return int(self.counts.sum())


def weighted_distances(reference: Weighted, current: Weighted) -> tuple[float, float]:
    """Kolmogorov-Smirnov and Wasserstein distance of samples with few distinct values; exact."""
    import numpy as np

    values = np.union1d(reference.values, current.values)

    def function(sample: Weighted) -> Floats:
        below = np.concatenate([[0], np.cumsum(sample.counts)])
        result: Floats = below[np.searchsorted(sample.values, values, side="right")] / sample.n
        return result

    gap = np.abs(function(reference) - function(current))
    return float(gap.max()), float((gap[:-1] * np.diff(values)).sum())
