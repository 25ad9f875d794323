"""Small statistics that several gates share. Standard library only."""

from __future__ import annotations

from enum import StrEnum
from math import ceil, isfinite, sqrt
from statistics import NormalDist

_DECIMALS = 12
"""Differences beyond this decimal are rounding of the computer (1 - 0.95 > 0.05), not of the world."""


def exceeds(value: float, limit: float) -> bool:
    """Whether ``value`` lies above ``limit``; for a lower limit swap the two.

    Law: a value exactly on its limit does not exceed it, however it was computed; NaN always
    exceeds, in both directions, so that what is undefined never passes.
    """
    return not round(value - limit, _DECIMALS) <= 0


class Judge(StrEnum):
    """What a limit is held against. Policy chooses it for each gate.

    - ``point``: the measured value alone. Simple, but near the limit a second sample of the same world
      turns the verdict over about every other time.
    - ``bound``: the whole interval. It fails only if every value in the interval is beyond the limit and
      passes only if none is; in between nobody can tell.
    - ``significant``: as ``bound``, but it also fails when the value is beyond the limit and the interval
      excludes "no effect at all" (groups are alike, the models are alike). This is how adverse impact is
      read: a ratio below four fifths that is more than chance (29 CFR 1607.4 D).
    """

    POINT = "point"
    BOUND = "bound"
    SIGNIFICANT = "significant"


class Standing(StrEnum):
    """On which side of its limit a measured value is, as far as the data can say."""

    RIGHT = "right"
    WRONG = "wrong"
    UNSURE = "unsure"
    UNDEFINED = "undefined"


def standing(
    value: float | None,
    limit: float,
    interval: tuple[float, float] | None,
    *,
    higher_is_better: bool,
    by: Judge,
    no_effect: float | None = None,
) -> Standing:
    """Where a value stands against its limit.

    ``no_effect`` is the value that means "nothing happened": 1 for a ratio of groups, 0 for a difference.
    Only ``Judge.SIGNIFICANT`` asks for it; without one it judges like ``Judge.BOUND``.

    Laws: a value (under ``bound``: an interval) that touches its limit is right, not wrong; what is not a
    finite number, and a bound that is asked for where there is no interval, is undefined; mirroring
    value, interval and limit at 0 and swapping the direction changes nothing; what ``bound`` calls right
    or wrong, ``point`` calls the same as long as the value lies in its own interval; a narrower
    interval never turns right or wrong into unsure.
    """
    if value is None or not isfinite(value) or not isfinite(limit):
        return Standing.UNDEFINED
    if not higher_is_better:
        value, limit = -value, -limit
        interval = None if interval is None else (-interval[1], -interval[0])
        no_effect = None if no_effect is None else -no_effect
    beyond = exceeds(limit, value)
    if by is Judge.POINT:
        return Standing.WRONG if beyond else Standing.RIGHT
    if interval is None or not all(map(isfinite, interval)):
        return Standing.UNDEFINED
    low, high = interval
    if not exceeds(limit, low):
        return Standing.RIGHT
    if exceeds(limit, high):
        return Standing.WRONG
    certain = by is Judge.SIGNIFICANT and no_effect is not None and exceeds(no_effect, high)
    return Standing.WRONG if beyond and certain else Standing.UNSURE


def settling_size(n: int, value: float, interval: tuple[float, float], limit: float) -> int | None:
    """How many observations would settle on which side of ``limit`` a value is, if it stays as it is.

    Formula: m = n · (h / d)², where h is the distance from the value to the end of its interval beyond
    the limit and d the distance from the value to the limit. Source: the half-width of an interval
    shrinks with 1/√n (Cochran, Sampling Techniques, 3rd edition, 1977, section 4.4), so this is the m
    at which the interval just touches the limit. It is an estimate: the value itself will move.

    ``None`` when no size would: the value lies on its limit, or outside of its own interval.

    Laws: more than ``n`` when the limit lies inside the interval; proportional to ``n``; unchanged by
    the unit of measurement.
    """
    low, high = interval
    distance, half = abs(value - limit), value - low if value > limit else high - value
    if not exceeds(distance, 0) or half <= 0 or not isfinite(half):
        return None
    return ceil(round(n * (half / distance) ** 2, 6))


def wilson_interval(successes: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Formula: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z·se it stays inside
    [0, 1] and holds its coverage for small groups and for shares near 0 and 1. Source: Wilson,
    Journal of the American Statistical Association 22 (1927); recommended by Brown, Cai and
    DasGupta, Statistical Science 16 (2001).
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return max(0.0, round(low, _DECIMALS)), min(1.0, round(high, _DECIMALS))


def percent(share: float) -> str:
    """``0.6123`` as ``61.2 %``."""
    return f"{100 * share:.1f} %"


def adjusted(p_values: list[float]) -> list[float]:
    """P-values corrected for being many, by Benjamini and Hochberg; in the order given.

    Calling everything at or below q "different" then makes at most a share q of these calls wrong on average,
    and at most one wrong call in 1/q families where nothing differs at all. Formula: with the p-values
    sorted, the smallest p(j) · m / j over all j from i on. Source: Benjamini and Hochberg, Journal of the
    Royal Statistical Society B 57 (1995); valid for independent and positively dependent tests
    (Benjamini and Yekutieli, Annals of Statistics 29, 2001).

    Laws: never below the p-value itself, never above 1; the order of the tests changes nothing.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__, reverse=True)
    corrected, least = [1.0] * len(p_values), 1.0
    for place, index in enumerate(order):
        least = min(least, p_values[index] * len(p_values) / (len(p_values) - place))
        corrected[index] = least
    return corrected
