"""How far two distributions lie apart. Definitions are those of Evidently 0.7.23 and SciPy.

Counts come as integer arrays over the same bins. What depends on the order of values is in ``ordered``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]

FILL = 1e-4
"""The share Evidently gives to an empty bin."""

_LEAST_SCALE = 0.001
"""Evidently divides the Wasserstein distance by at least this; see its wasserstein_distance_norm.py."""

_EXPECTED = 5
"""Values that must be expected in a bin: Cochran's rule."""

_MANY_RARE = 20
_DRAWS = 100
_SEED = 20_240_603

_BLOCK = 1 << 16
"""Values handled at once, so that they stay in the processor's cache."""


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


def deviation(values: Floats, middle: float) -> float:
    """Standard deviation (``ddof`` 0) of values around their median, in one pass, in blocks.

    The median is never further from the mean than one standard deviation: the difference of squares at the
    end loses no digits.
    """
    import numpy as np

    n, total, squares, block = len(values), 0.0, 0.0, np.empty(_BLOCK)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, n, _BLOCK):
            some = values[start : start + _BLOCK]
            gap = np.subtract(some, middle, out=block[: len(some)])
            total += float(gap.sum())
            squares += float(np.einsum("i,i->", gap, gap))  # np.dot wakes other threads for each block
    variance = squares / n - (total / n) * (total / n)
    return math.sqrt(0.0 if variance < 0 else variance)


def normed(distance: float, scale: float) -> float | None:
    """The Wasserstein distance in standard deviations of the reference, at least 0.001, as Evidently.

    ``None`` where the values are so large that their squares are no numbers, or the distance is none.
    """
    found = distance / max(scale, _LEAST_SCALE)
    return found if math.isfinite(scale) and math.isfinite(found) else None
