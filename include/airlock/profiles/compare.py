"""How far the columns of two sources lie apart, from all rows, one column at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from airlock.profiles import distances, ordered
from airlock.profiles.ordered import FEW_VALUES, Counted, Ordered
from airlock.profiles.source import Numbers, Source, Texts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Counts = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Memory = tuple[Floats, Floats]

Bins = Literal["equal width", "values", "none"]
NUMERIC = ("number", "time", "duration")

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
    Every thread holds one column of each source, 16 bytes for each row, in memory that it uses again for the
    next one: to get and clear new memory takes as long as to count what is in it.

    Raises:
        NotFoundError: a column is missing on one side.
        InvalidInputError: a file cannot be read.
    """
    import numpy as np

    names = list(columns)
    workers = min(threads or min(2, os.cpu_count() or 1), max(1, len(names)))
    reference.columns(), current.columns()  # what is looked up once is looked up before the threads start
    free: SimpleQueue[Memory] = SimpleQueue()
    for _ in range(workers):
        free.put((np.empty(reference.rows()), np.empty(current.rows())))

    def one(name: str) -> Comparison:
        memory = free.get()
        try:
            return _compare_column(reference, current, name, memory)
        finally:
            free.put(memory)

    if workers == 1:
        return [one(name) for name in names]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, names))


def _compare_column(reference: Source, current: Source, column: str, memory: Memory) -> Comparison:
    kinds = {source.columns()[column].kind for source in (reference, current) if column in source.columns()}
    if len(kinds) == 1 and kinds <= set(NUMERIC):
        return of_numbers(
            column, reference.numbers(column, into=memory[0]), current.numbers(column, into=memory[1])
        )
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
    """Compare two columns of numbers."""
    sizes = (reference.rows, current.rows), (len(reference.values), len(current.values))
    if reference.ends is None or current.ends is None:
        return measured(column, *sizes, bins="none", table=None)
    ends = min(reference.ends[0], current.ends[0]), max(reference.ends[1], current.ends[1])
    before = ordered.counted(reference.values, reference.ends)
    now = ordered.counted(current.values, current.ends)
    edges = _sturges_edges(reference, current, before, ends)
    one: Ordered
    other: Ordered
    if before is not None and now is not None:
        ks, distance = ordered.counted_distances(before, now)
        one, other = before, now
    else:
        pair = ordered.pair(reference.values, current.values, ends, edges, _tenths(sizes[1][0]))
        ks, distance = pair.kolmogorov_smirnov, pair.wasserstein
        one, other = pair.reference, pair.current
    tenths = one.at(_tenths(one.n))
    scale = distances.deviation(reference.values, float(tenths[DECILES // 2 - 1]))
    return measured(
        column,
        *sizes,
        bins="equal width" if len(edges) else "values",
        table=_between(one, other, edges) if len(edges) else _by_value(before, now, reference, current),
        deciles=_deciles(one, other, tenths) if len(edges) else None,
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


def _sturges_edges(
    reference: Numbers, current: Numbers, before: Counted | None, ends: tuple[float, float]
) -> Floats:
    """Edges of Evidently's equal-width bins; none where it counts by value."""
    import numpy as np

    none = np.zeros(0)
    if before is not None and len(before.values) <= FEW_VALUES:
        return none
    n = len(reference.values) + len(current.values)
    try:
        return distances.sturges_edges(*ends, n, whole=reference.whole and current.whole)
    except ValueError:  # the range is too wide or too narrow for equal widths
        return none


def _between(reference: Ordered, current: Ordered, edges: Floats) -> Table:
    """Counts in bins between edges, the last one closed on both sides, as ``numpy.histogram`` has them."""
    import numpy as np

    counts = []
    for side in (reference, current):
        below = side.rank(edges, "left")
        below[-1] = side.rank(edges[-1:], "right")[0]
        counts.append(np.diff(below).astype(np.int64))
    return Table(counts[0], counts[1], edges.tolist())


def _by_value(before: Counted | None, now: Counted | None, reference: Numbers, current: Numbers) -> Table:
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


def _tenths(n: int) -> Counts:
    """Where the nine deciles stand among ``n`` sorted values.

    Deciles are values of the sample (inverse distribution function): writing every row twice moves none.
    """
    import numpy as np

    return np.array([-(-n * tenth // DECILES) - 1 for tenth in range(1, DECILES)])


def _deciles(reference: Ordered, current: Ordered, tenths: Floats) -> Table:
    """Counts in bins that hold a tenth of the reference each."""
    import numpy as np

    edges = np.unique(tenths)
    counts = []
    for side in (reference, current):
        below = np.concatenate([[0], side.rank(edges, "right"), [side.n]])
        counts.append(np.diff(below).astype(np.int64))
    return Table(counts[0], counts[1], edges.tolist())
