"""Profiles: a table in a few kilobytes, mergeable, without any row of it.

Laws: merging is associative and commutative, and merging the profiles of parts gives the profile of the
whole: counts exactly, sums to the last digits that adding floats allows. Histograms merge when their grids
are equal, so a grid is fixed once, from the reference, and used for everything that is held against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from airlock.core.base import Value
from airlock.core.errors import InvalidInputError
from airlock.core.workload import ColumnName
from airlock.profiles.compare import NUMERIC
from airlock.profiles.source import Kind, Source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

CELLS = 1024
"""Cells of a fine histogram: a shift of a thousandth of the range is seen."""

CATEGORIES = 1000
"""Texts that are counted one by one; a column with more is known by their number alone."""


class Grid(Value):
    """Equal cells from ``low`` to ``high``; what lies outside is counted below and above."""

    low: float
    high: float

    def edges(self) -> Floats:
        """All edges, one more than there are cells."""
        import numpy as np

        # Where a cell is narrower than any number, steps are rounded up and would go beyond the end.
        return np.minimum(np.linspace(self.low, self.high, CELLS + 1), self.high)


class Histogram(Value):
    """Counts over a grid."""

    grid: Grid
    below: int
    cells: Annotated[list[int], Field(min_length=CELLS, max_length=CELLS)]
    above: int


class ColumnProfile(Value):
    """What is known of a column.

    Attributes:
        kind: what it holds, in words.
        whole: whether it is of an integer type.
        rows: all rows.
        missing: rows without a value.
        infinite: rows with an infinity.
        low: smallest finite value of numbers, times and durations (in seconds).
        high: largest one.
        total: sum of the finite values.
        squares: sum of their squares.
        histogram: fine histogram of the finite values.
        categories: text → rows, of texts and booleans; ``None`` where there are too many.
    """

    kind: Kind
    whole: bool = False
    rows: int
    missing: int
    infinite: int = 0
    low: float | None = None
    high: float | None = None
    total: float = 0.0
    squares: float = 0.0
    histogram: Histogram | None = None
    categories: dict[str, int] | None = None

    @property
    def n(self) -> int:
        """Rows with a usable value."""
        return self.rows - self.missing - self.infinite

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of the rows of both.

        Raises:
            InvalidInputError: they hold different things, or their grids differ.
        """
        if self.kind != other.kind:
            raise InvalidInputError(
                f"a column of {self.kind} does not merge with one of {other.kind}", fix="profile like columns"
            )
        lows = [value for value in (self.low, other.low) if value is not None]
        highs = [value for value in (self.high, other.high) if value is not None]
        return self.model_copy(
            update={
                "whole": self.whole and other.whole,
                "rows": self.rows + other.rows,
                "missing": self.missing + other.missing,
                "infinite": self.infinite + other.infinite,
                "low": min(lows, default=None),
                "high": max(highs, default=None),
                "total": self.total + other.total,
                "squares": self.squares + other.squares,
                "histogram": _merged(self.histogram, other.histogram),
                "categories": _merged_counts(self.categories, other.categories),
            }
        )


class TableProfile(Value):
    """Profiles of the columns of a table."""

    rows: int
    columns: dict[ColumnName, ColumnProfile]

    def merge(self, other: TableProfile) -> TableProfile:
        """The profile of the rows of both tables.

        Raises:
            InvalidInputError: their columns differ.
        """
        if set(self.columns) != set(other.columns):
            differing = sorted(set(self.columns) ^ set(other.columns))
            raise InvalidInputError(
                f"the tables do not have the same columns: {', '.join(differing)}", fix="profile like tables"
            )
        merged = {name: column.merge(other.columns[name]) for name, column in self.columns.items()}
        return TableProfile(rows=self.rows + other.rows, columns=merged)


def profile(
    source: Source, columns: Iterable[str] | None = None, *, grids: Mapping[str, Grid] | None = None
) -> TableProfile:
    """Measure columns of a source, one at a time.

    Args:
        source: where the rows are.
        columns: which ones; all when left out.
        grids: of histograms that shall be merged or compared; else each has the column's own range.

    Raises:
        NotFoundError: a column is missing.
        InvalidInputError: the data cannot be read.
    """
    names = list(source.columns()) if columns is None else list(columns)
    given = grids or {}
    return TableProfile(
        rows=source.rows(), columns={name: _column(source, name, given.get(name)) for name in names}
    )


def _column(source: Source, name: str, grid: Grid | None) -> ColumnProfile:
    import numpy as np

    known = source.columns().get(name)
    if known is None or known.kind not in NUMERIC:
        texts = source.texts(name)  # a missing column is named by this
        few = len(texts.counts) <= CATEGORIES
        return ColumnProfile(
            kind="other" if known is None else known.kind,
            rows=texts.rows,
            missing=texts.missing,
            categories=dict(sorted(texts.counts.items())) if few else None,
        )
    numbers = source.numbers(name)
    values = numbers.values
    sums = {}
    if numbers.ends is not None:
        with np.errstate(over="ignore"):
            total, squares = float(values.sum()), float(np.dot(values, values))
        finite = np.isfinite(total) and np.isfinite(squares)
        sums = {"low": numbers.ends[0], "high": numbers.ends[1]}
        sums |= {"total": total, "squares": squares} if finite else {}
    return ColumnProfile(
        kind=known.kind,
        whole=known.whole,
        rows=numbers.rows,
        missing=numbers.missing,
        infinite=numbers.infinite,
        histogram=_histogram(values, grid, numbers.ends),
        **sums,
    )


def _histogram(values: Floats, grid: Grid | None, ends: tuple[float, float] | None) -> Histogram | None:
    """Counts of values; ``None`` where there is no range to divide."""
    import numpy as np

    if grid is None:
        if ends is None or not ends[0] < ends[1] or not np.isfinite(ends[1] - ends[0]):
            return None
        grid = Grid(low=ends[0], high=ends[1])
    counts = np.histogram(values, grid.edges())[0]
    below = int(np.count_nonzero(values < grid.low))
    above = int(np.count_nonzero(values > grid.high))
    return Histogram(grid=grid, below=below, cells=counts.tolist(), above=above)


def _merged(one: Histogram | None, other: Histogram | None) -> Histogram | None:
    if one is None or other is None:
        return None
    if one.grid != other.grid:
        raise InvalidInputError(
            "histograms over different grids do not merge", fix="profile both with the grid of the reference"
        )
    cells = [a + b for a, b in zip(one.cells, other.cells, strict=True)]
    return Histogram(grid=one.grid, below=one.below + other.below, cells=cells, above=one.above + other.above)


def _merged_counts(one: dict[str, int] | None, other: dict[str, int] | None) -> dict[str, int] | None:
    """``None`` stands for too many, and too many with anything are too many."""
    if one is None or other is None:
        return None
    merged = {text: one.get(text, 0) + other.get(text, 0) for text in sorted({*one, *other})}
    return merged if len(merged) <= CATEGORIES else None


def ks_bounds(reference: Histogram, current: Histogram) -> tuple[float, float]:
    """Between which two numbers the Kolmogorov-Smirnov statistic lies, from histograms on one grid.

    At the edges both distribution functions are known; inside a cell they can differ by what both rise there.

    Raises:
        InvalidInputError: the grids differ, or one holds nothing.
    """
    import numpy as np

    if reference.grid != current.grid:
        raise InvalidInputError("the grids differ", fix="profile both with the grid of the reference")
    steps = [np.array([side.below, *side.cells, side.above], dtype=np.int64) for side in (reference, current)]
    if not all(int(step.sum()) for step in steps):
        raise InvalidInputError("there is nothing to compare", fix="profile data that has values")
    after = [np.cumsum(step) / step.sum() for step in steps]
    before = [np.concatenate([[0.0], function[:-1]]) for function in after]
    low = float(np.abs(after[0] - after[1]).max())
    high = float(np.maximum(after[0] - before[1], after[1] - before[0]).max())
    return low, max(low, high)
