"""How far the columns of two sources lie apart, from all rows, one column at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airlock.profiles import distances
from airlock.profiles.distances import FEW_VALUES, Weighted
from airlock.profiles.source import Numbers, Source, Texts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Counts = npt.NDArray[np.int64]

Bins = Literal["equal width", "values", "none"]
NUMERIC = ("number", "time", "duration")

_MANY_REPEATS = 16
"""Where values occur this often on average they are counted before they are compared."""

_FAR_APART = 8
"""Every so many rows are looked at first."""

DECILES = 10


@dataclass(frozen=True)
class Table:
    """Counts of reference and current data in the same bins.

    ``labels`` are the values, or the edges of equal-width bins, one more than there are bins.
    """

    reference: Counts
    current: Counts
    labels: list[str] | list[float]


@dataclass(frozen=True)
class Comparison:
    """One column of two sources, measured; ``None`` is what has no meaning for it.

    Attributes:
        column: its name.
        bins: equal-width bins by Sturges' rule, or each value a bin.
        rows: rows of reference and current data.
        n: of these, rows with a finite value or a text.
        psi: population stability index over the bins, as Evidently has it.
        jensenshannon: Jensen-Shannon distance over the bins, in nats.
        ks: two-sample Kolmogorov-Smirnov statistic of numbers.
        wasserstein: first Wasserstein distance in standard deviations of the reference.
        psi_deciles: PSI over ten bins that hold a tenth of the reference each; for values, ``psi``.
        chi_square: statistic, degrees of freedom and p-value of Pearson's test over these same bins.
        missing_psi: PSI of rows without against rows with a value.
        missing_chi_square: Pearson's test on the same.
        whole_bin: the largest share of all rows that one of the bins of ``psi`` holds.
        table: the counts behind ``psi``.
    """

    column: str
    bins: Bins
    rows: tuple[int, int]
    n: tuple[int, int]
    psi: float | None = None
    jensenshannon: float | None = None
    ks: float | None = None
    wasserstein: float | None = None
    psi_deciles: float | None = None
    chi_square: tuple[float, int, float] | None = None
    missing_psi: float | None = None
    missing_chi_square: tuple[float, int, float] | None = None
    whole_bin: float | None = None
    table: Table | None = field(default=None, compare=False, repr=False)

    @property
    def missing(self) -> tuple[float, float]:
        """Shares of rows without a usable value, in reference and current data."""
        shares = [1 - n / rows if rows else 0.0 for n, rows in zip(self.n, self.rows, strict=True)]
        return shares[0], shares[1]


def compare(
    reference: Source, current: Source, columns: Iterable[str], *, threads: int | None = None
) -> list[Comparison]:
    """Compare columns that both sources have; answers come in the order of ``columns``.

    Both sides as numbers when both are numbers, times or durations of the same kind; else both as texts.
    Every thread holds one column of each source, 16 bytes for each row.

    Raises:
        NotFoundError: a column is missing on one side.
        InvalidInputError: a file cannot be read.
    """
    names = list(columns)
    workers = threads or min(2, os.cpu_count() or 1)
    if workers == 1 or len(names) == 1:
        return [compare_column(reference, current, name) for name in names]
    reference.columns(), current.columns()  # what is looked up once is looked up before the threads start
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda name: compare_column(reference, current, name), names))


def compare_column(reference: Source, current: Source, column: str) -> Comparison:
    """Compare one column."""
    kinds = {source.columns()[column].kind for source in (reference, current) if column in source.columns()}
    if len(kinds) == 1 and kinds <= set(NUMERIC):
        return of_numbers(column, reference.numbers(column), current.numbers(column))
    return of_texts(column, reference.texts(column), current.texts(column))


def of_texts(column: str, reference: Texts, current: Texts) -> Comparison:
    """Compare two columns of texts, each text a bin; bins are sorted, so order changes nothing."""
    import numpy as np

    values = sorted({*reference.counts, *current.counts})
    before, now = (
        np.array([side.counts.get(value, 0) for value in values], dtype=np.int64)
        for side in (reference, current)
    )
    sizes = (reference.rows, current.rows), (int(before.sum()), int(now.sum()))
    return measured(column, *sizes, bins="values", table=Table(before, now, values))


def of_numbers(column: str, reference: Numbers, current: Numbers) -> Comparison:
    """Compare two columns of sorted numbers."""
    sizes = (reference.rows, current.rows), (len(reference.values), len(current.values))
    if not all(sizes[1]):
        return measured(column, *sizes, bins="none", table=None)
    before, now = _weighted(reference.values), _weighted(current.values)
    table, bins = _sturges(reference, current, before), "equal width"
    if table is None:
        table, bins = _by_value(before, now, reference, current), "values"
    scale = distances.deviation(reference.values)
    if before is not None and now is not None:
        ks, distance = distances.weighted_distances(before, now)
    else:
        ks = distances.kolmogorov_smirnov(reference.values, current.values)
        distance = distances.wasserstein(reference.values, current.values)
    return measured(
        column,
        *sizes,
        bins="values" if bins == "values" else "equal width",
        table=table,
        deciles=None if bins == "values" else _deciles(reference, current),
        ks=ks,
        wasserstein=distances.normed(distance, scale),
    )


def measured(
    column: str,
    rows: tuple[int, int],
    n: tuple[int, int],
    *,
    bins: Bins,
    table: Table | None,
    deciles: Table | None = None,
    **known: Any,
) -> Comparison:
    """What follows from counts: PSI, Jensen-Shannon and the tests; ``known`` is what was measured already."""
    import numpy as np

    if table is not None and all(n):
        judged = deciles or table
        together = table.reference + table.current
        psi = distances.psi(table.reference, table.current)
        known |= {
            "psi": psi,
            "jensenshannon": distances.jensen_shannon(table.reference, table.current),
            "psi_deciles": psi if deciles is None else distances.psi(deciles.reference, deciles.current),
            "chi_square": distances.chi_square(judged.reference, judged.current),
            "whole_bin": float(together.max() / together.sum()),
            "table": table,
        }
    if n != rows and all(rows):
        halves = [np.array([a - b, b], dtype=np.int64) for a, b in zip(rows, n, strict=True)]
        known |= {
            "missing_psi": distances.psi(halves[0], halves[1]),
            "missing_chi_square": distances.chi_square(halves[0], halves[1]),
        }
    return Comparison(column=column, bins=bins if known.get("table") else "none", rows=rows, n=n, **known)


def _weighted(values: Any) -> Weighted | None:
    """Sorted values with their counts, where they repeat so often that it pays."""
    import numpy as np

    if len(values) > _FAR_APART * _MANY_REPEATS * FEW_VALUES:  # some rows tell of most columns that it is not
        seen = values[::_FAR_APART]
        if (int(np.count_nonzero(seen[1:] != seen[:-1])) + 1) * _MANY_REPEATS > len(values):
            return None
    change = values[1:] != values[:-1]
    distinct = int(np.count_nonzero(change)) + 1
    if distinct * _MANY_REPEATS > len(values) and distinct > FEW_VALUES:
        return None
    first = np.concatenate([[0], np.flatnonzero(change) + 1])
    return Weighted(values[first], np.diff(np.append(first, len(values))).astype(np.int64))


def _sturges(reference: Numbers, current: Numbers, before: Weighted | None) -> Table | None:
    """Counts in Evidently's equal-width bins; ``None`` where it counts by value."""
    if before is not None and len(before.values) <= FEW_VALUES:
        return None
    low = min(reference.values[0], current.values[0])
    high = max(reference.values[-1], current.values[-1])
    n = len(reference.values) + len(current.values)
    try:
        edges = distances.sturges_edges(low, high, n, whole=reference.whole and current.whole)
    except ValueError:  # the range is too wide or too narrow for equal widths
        return None
    before_, now = (distances.counts_between(side.values, edges) for side in (reference, current))
    return Table(before_, now, edges.tolist())


def _by_value(before: Weighted | None, now: Weighted | None, reference: Numbers, current: Numbers) -> Table:
    """Counts of each value, ascending."""
    import numpy as np

    sides = [
        (side.values, side.counts) if side else np.unique(numbers.values, return_counts=True)
        for side, numbers in ((before, reference), (now, current))
    ]
    values = np.union1d(sides[0][0], sides[1][0])
    counted = [np.zeros(len(values), dtype=np.int64) for _ in sides]
    for counts, (own, how_often) in zip(counted, sides, strict=True):
        counts[np.searchsorted(values, own)] = how_often
    return Table(counted[0], counted[1], values.tolist())


def _deciles(reference: Numbers, current: Numbers) -> Table:
    """Counts in bins that hold a tenth of the reference each.

    The edges are values of the reference (inverse distribution function), so writing every row twice
    moves none of them.
    """
    import numpy as np

    n = len(reference.values)
    positions = [-(-n * tenth // DECILES) - 1 for tenth in range(1, DECILES)]
    edges = np.unique(reference.values[positions])
    counts = []
    for side in (reference, current):
        below = np.concatenate([[0], np.searchsorted(side.values, edges, side="right"), [len(side.values)]])
        counts.append(np.diff(below).astype(np.int64))
    return Table(counts[0], counts[1], edges.tolist())
