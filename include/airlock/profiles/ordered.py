"""What order tells of two samples, exactly, without sorting most of their values.

Both samples are counted in the same narrow buckets. At the bounds of buckets both distribution functions are
known; inside a bucket they can differ by no more than it holds. So only the buckets in which an answer may
lie are opened, and only their values are sorted. Samples that repeat few values are counted by value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]
    Signs = npt.NDArray[np.int8]

Edge = Literal["left", "right"]

FEW_VALUES = 20
"""Evidently counts numeric columns with at most so many distinct reference values by value."""

_MANY_REPEATS = 16
"""Where values occur this often on average they are counted before they are compared."""

_WHOLE_RANGE = 1 << 20
"""Whole numbers in a range of at most so many are counted without being sorted."""

_SAMPLE = 4096
"""Values looked at first, evenly spread over the rows."""

_BLOCK = 1 << 17
"""Values handled at once, so that they stay in the processor's cache."""

_BUCKETS = 1 << 18
_IN_A_BUCKET = 32
"""Values that a bucket should hold before there are more buckets."""

_TOO_FAR = 1e150
"""Places of values beyond it would be no numbers when they are added up."""


class Ordered(Protocol):
    """A sample of which ranks are known."""

    @property
    def n(self) -> int:
        """How many values there are."""

    def rank(self, values: Floats, edge: Edge) -> Counts:
        """How many values of the sample are below each of these; with ``right``, below or equal."""

    def at(self, positions: Counts) -> Floats:
        """The values at these positions, counted from 0, if the sample were sorted."""


@dataclass(frozen=True)
class Counted:
    """A sample of few values: each once, ascending, with how often it occurs."""

    values: Floats
    counts: Counts

    @cached_property
    def below(self) -> Counts:
        """How many values of the sample lie below each, and how many there are."""
        return _before(self.counts)

    @property
    def n(self) -> int:
        """How many values there are, repeats counted."""
        return int(self.below[-1])

    def rank(self, values: Floats, edge: Edge) -> Counts:
        """How many values of the sample are below each of these; with ``right``, below or equal."""
        import numpy as np

        ranks: Counts = self.below[np.searchsorted(self.values, values, side=edge)]
        return ranks

    def at(self, positions: Counts) -> Floats:
        """The values at these positions, counted from 0, if the sample were sorted."""
        import numpy as np

        found: Floats = self.values[np.searchsorted(self.below, positions, side="right") - 1]
        return found


def _before(counts: Counts) -> Counts:
    """How many there are before each of the counted, and how many there are."""
    import numpy as np

    return np.concatenate([[0], np.cumsum(counts)])


def counted(values: Floats, ends: tuple[float, float]) -> Counted | None:
    """A sample that lies between ``ends`` by value, where its values repeat so often that it pays.

    A sample that is not counted has more than ``FEW_VALUES`` distinct values. It may be sorted in place.
    """
    import numpy as np

    n, low, reach, some = len(values), ends[0], ends[1] - ends[0], np.sort(_some(values))
    if reach < _WHOLE_RANGE and reach * _MANY_REPEATS < n and (np.rint(some) == some).all():
        counts = _of_whole_numbers(values, low, int(reach) + 1)
        if counts is not None:
            there = np.flatnonzero(counts)
            return Counted((there + low).astype(np.float64), counts[there])
    if len(some) < n and 2 * _distinct(some) > len(some):
        return None
    values.sort()
    if (distinct := _distinct(values)) * _MANY_REPEATS > n and distinct > FEW_VALUES:
        return None
    first = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return Counted(values[first], np.diff(np.append(first, n)).astype(np.int64))


def _some(values: Floats) -> Floats:
    """Some thousand values, evenly spread over the rows."""
    return values[:: max(1, len(values) // _SAMPLE)]


def _distinct(values: Floats) -> int:
    """How many distinct values sorted values have."""
    import numpy as np

    return int(np.count_nonzero(values[1:] != values[:-1])) + 1


def _of_whole_numbers(values: Floats, low: float, number: int) -> Counts | None:
    """How often each of ``number`` whole numbers from ``low`` on occurs; ``None`` where others do."""
    import numpy as np

    counts = np.zeros(number, dtype=np.int64)
    for start in range(0, len(values), _BLOCK):
        some = values[start : start + _BLOCK]
        steps = (some - low).astype(np.intp)
        if not (steps + low == some).all():  # not the difference: that may have been rounded
            return None
        counts += np.bincount(steps, minlength=number)
    return counts


def counted_distances(reference: Counted, current: Counted) -> tuple[float, float]:
    """Kolmogorov-Smirnov statistic and first Wasserstein distance of samples of few values."""
    import numpy as np

    values = np.union1d(reference.values, current.values)
    gap = np.abs(reference.rank(values, "right") / reference.n - current.rank(values, "right") / current.n)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(gap.max()), float((gap[:-1] * np.diff(values)).sum())


@dataclass(frozen=True)
class Buckets:
    """``number`` buckets of equal width; the first and the last reach on to the ends of all numbers.

    Neither a value's place nor its bucket ever falls when the value rises, however both are rounded.
    """

    low: float
    scale: float
    number: int

    def places(self, values: Floats) -> Floats:
        """Where values lie: bucket k holds places from k to below k + 1."""
        places = values - self.low
        places *= self.scale
        return places

    def of(self, places: Floats) -> Counts:
        """The buckets of places."""
        import numpy as np

        inside: Counts = np.clip(places, 0, self.number - 1).astype(np.intp)
        return inside


def _buckets(samples: tuple[Floats, Floats], ends: tuple[float, float]) -> Buckets:
    """Buckets over which the values of both samples spread, outliers aside."""
    import numpy as np

    number = min(_BUCKETS, sum(map(len, samples)) // _IN_A_BUCKET)
    some = np.sort(np.concatenate([_some(values) for values in samples]))
    outside = len(some) // 1000
    low, high = some[outside], some[-1 - outside]
    with np.errstate(all="ignore"):
        scale = number / (high - low)
        farthest = max(low - ends[0], ends[1] - low) * scale
    if number <= 1 or not 0 < farthest < _TOO_FAR:  # one bucket, which is opened: all values are sorted
        return Buckets(0.0, 1.0, 1)
    return Buckets(float(low), float(scale), number)


class _Side:
    """One sample in buckets."""

    def __init__(self, values: Floats, buckets: Buckets) -> None:
        import numpy as np

        self.values, self.buckets, self.n = values, buckets, len(values)
        self.counts = np.zeros(buckets.number, dtype=np.int64)
        if buckets.number == 1:
            self.counts[0] = self.n
        else:
            for _, _, own in self._blocks():
                self.counts += np.bincount(own, minlength=buckets.number)
        self.below = _before(self.counts)

    def _blocks(self) -> Iterator[tuple[Floats, Floats, Counts]]:
        """Values, their places as far as they lie inside, and their buckets; memory is used again."""
        import numpy as np

        places, whole, own = np.empty(_BLOCK), np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.intp)
        for start in range(0, self.n, _BLOCK):
            values = self.values[start : start + _BLOCK]
            size = len(values)
            np.subtract(values, self.buckets.low, out=places[:size])
            places[:size] *= self.buckets.scale
            np.clip(places[:size], 0, self.buckets.number - 1, out=places[:size])
            np.copyto(whole[:size], places[:size], casting="unsafe")  # one instruction, unlike to 64 bits
            np.copyto(own[:size], whole[:size])
            yield values, places[:size], own[:size]

    def opened(self, signs: Signs) -> tuple[Opened, float]:
        """The sample with the buckets of sign 0 opened; the sum of all other places with their signs."""
        import numpy as np

        total = 0.0
        if self.buckets.number == 1:
            found = self.values
        else:
            parts = []
            for values, places, own in self._blocks():
                sign = signs[own]
                parts.append(values[sign == 0])
                total += float(np.multiply(places, sign, out=places).sum())
            found = np.concatenate(parts)
        found.sort()
        closed = _before(np.where(signs == 0, 0, self.counts))
        return Opened(found, self.n, self.buckets, self.below, closed), total


@dataclass(frozen=True)
class Opened:
    """A sample of which some buckets are opened: what lies in them is known one by one.

    Attributes:
        values: the values in open buckets, sorted.
        n: how many values there are in all buckets.
        buckets: where they lie.
        below: how many values lie below each bucket, and how many there are.
        closed: how many of these lie in closed buckets.
    """

    values: Floats
    n: int
    buckets: Buckets
    below: Counts
    closed: Counts

    def rank(self, values: Floats, edge: Edge) -> Counts:
        """How many values of the sample are below each of these; with ``right``, below or equal."""
        import numpy as np

        own = self.buckets.of(self.buckets.places(values))
        ranks: Counts = self.closed[own] + np.searchsorted(self.values, values, side=edge)
        return ranks

    def at(self, positions: Counts) -> Floats:
        """The values at these positions, counted from 0, if the sample were sorted."""
        import numpy as np

        own = np.searchsorted(self.below, positions, side="right") - 1
        found: Floats = self.values[positions - self.closed[own]]
        return found

    def last_places(self, chosen: Counts) -> Floats:
        """The place of the largest value in each of these open buckets, or where an empty one begins."""
        import numpy as np

        places = np.where(chosen > 0, chosen, -np.inf)
        there = self.below[chosen + 1] > self.below[chosen]
        largest = self.values[(self.below[chosen + 1] - self.closed[chosen] - 1)[there]]
        places[there] = self.buckets.places(largest)
        return places


@dataclass(frozen=True)
class Pair:
    """Two samples in the same buckets, and how far they lie apart.

    Attributes:
        reference: the one sample.
        current: the other.
        kolmogorov_smirnov: the largest distance between the two distribution functions.
        wasserstein: the area between them, which is the mean distance between equal quantiles.
    """

    reference: Opened
    current: Opened
    kolmogorov_smirnov: float
    wasserstein: float


def pair(
    reference: Floats, current: Floats, ends: tuple[float, float], edges: Floats, positions: Counts
) -> Pair:
    """Compare two samples.

    Args:
        reference: finite values, at least one; they may be sorted in place.
        current: the same.
        ends: the smallest and the largest value of both.
        edges: values whose ranks will be wanted, of both.
        positions: positions whose values will be wanted, of the reference; and the ranks of these, of both.
    """
    import numpy as np

    buckets = _buckets((reference, current), ends)
    alike = _alike(reference, current)
    before = _Side(reference, buckets)
    now = before if alike else _Side(current, buckets)
    gap = before.below / before.n - now.below / now.n  # at the bounds of buckets
    rise, fall = gap[:-1] + before.counts / before.n, gap[:-1] - now.counts / now.n
    farthest = float(np.abs(gap).max())
    both = (before.counts > 0) & (now.counts > 0)
    chosen = both & (np.maximum(rise, -fall) > farthest) | (rise > 0) & (fall < 0)
    if alike:
        chosen[:] = False
    chosen[[0, -1]] = True  # they reach to the ends of all numbers
    chosen[buckets.of(buckets.places(edges))] = True
    chosen[np.searchsorted(before.below, positions, side="right") - 1] = True
    signs = np.where(chosen, 0, np.where(rise > 0, 1, -1)).astype(np.int8)  # the gap has one in the others
    one, sum_one = before.opened(signs)
    if alike:
        return Pair(one, one, 0.0, 0.0)
    other, sum_other = now.opened(signs)
    upper = np.arange(1, buckets.number + 1)
    closed = signs * (gap[:-1] + upper * (before.counts / before.n - now.counts / now.n))
    area = float(closed.sum()) - sum_one / before.n + sum_other / now.n
    opened = np.flatnonzero(chosen[:-1])
    rest = opened + 1 - np.maximum(one.last_places(opened), other.last_places(opened))
    inside, between = _inside(one, other)
    area += between + float((np.abs(gap[opened + 1]) * rest).sum())
    return Pair(one, other, max(farthest, inside), area / buckets.scale)


def _inside(one: Opened, other: Opened) -> tuple[float, float]:
    """In open buckets: the largest distance just before a value, and the area up to each one's last value."""
    import numpy as np

    cuts = np.unique(np.concatenate([side.values[::_BLOCK] for side in (one, other)]))
    starts = [
        np.append(np.searchsorted(side.values, cuts), len(side.values)).tolist() for side in (one, other)
    ]
    largest, area, last = 0.0, 0.0, np.inf  # the first value lies in the first bucket, which is never empty
    for i in range(len(cuts)):
        parts = [
            side.values[start[i] : start[i + 1]] for side, start in zip((one, other), starts, strict=True)
        ]
        points = np.concatenate(parts)
        points.sort(kind="stable")  # two sorted halves are merged
        places = one.buckets.places(points)
        own = one.buckets.of(places)
        shares = [
            (side.closed[own] + start[i] + np.searchsorted(part, points)) / side.n
            for side, start, part in zip((one, other), starts, parts, strict=True)
        ]
        gap = np.abs(shares[0] - shares[1])
        begin = np.maximum(np.append(min(last, places[0]), places[:-1]), np.where(own > 0, own, -np.inf))
        largest, area = max(largest, float(gap.max())), area + float((gap * (places - begin)).sum())
        last = places[-1]
    return largest, area


def _alike(reference: Floats, current: Floats) -> bool:
    """Whether samples are the same, row by row; mostly told by their first values."""
    if len(reference) != len(current):
        return False
    blocks = range(0, len(reference), _BLOCK)
    return all((reference[i : i + _BLOCK] == current[i : i + _BLOCK]).all() for i in blocks)
