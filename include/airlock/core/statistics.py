"""Small statistics that several gates share. Standard library only."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

_DECIMALS = 12
"""Differences beyond this decimal are rounding of the computer (1 - 0.95 > 0.05), not of the world."""


def exceeds(value: float, limit: float) -> bool:
    """Whether ``value`` lies above ``limit``; for a lower limit swap the two.

    Law: a value exactly on its limit does not exceed it, however it was computed; NaN always
    exceeds, in both directions, so that what is undefined never passes.
    """
    return not round(value - limit, _DECIMALS) <= 0


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
