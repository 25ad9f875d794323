"""Small pictures as numbers for SVG: the same values give the same picture. Templates draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airlock.core.evidence import Metric
    from airlock.services.past import Point

LINE = 120.0
"""Width of the line on which value, interval and limit stand."""

SPARK_WIDTH, SPARK_HEIGHT = 90.0, 22.0
_EDGE = 3.0
_LARGEST = 1e300
"""What lies beyond is drawn there, so that differences stay finite."""

Data = dict[str, Any]


def place_on_line(metric: Metric) -> Data | None:
    """Where value, interval and limit stand on a line of ``LINE`` units; ``None`` without value or limit."""
    if metric.value is None or metric.threshold is None:
        return None
    low, high = metric.interval or (metric.value, metric.value)
    at = _scale([metric.value, low, high, metric.threshold], LINE, share=0.15)
    return {"value": at(metric.value), "low": at(low), "high": at(high), "limit": at(metric.threshold)}


def spark(past: Sequence[Point], now: Metric) -> Data | None:
    """The way of a number through earlier releases to this one; ``None`` without a past.

    Returns:
        ``points`` for a polyline, the ``x`` and ``y`` of this release, the height of the ``limit`` or
        ``None``, and ``words`` for those who do not see it.
    """
    if not past or now.value is None:
        return None
    values = [*(point.value for point in past), now.value]
    limits = [] if now.threshold is None else [now.threshold]
    up = _scale([*values, *limits], SPARK_HEIGHT - 2 * _EDGE, share=0.0)
    step = (SPARK_WIDTH - 2 * _EDGE) / (len(values) - 1)

    def height(value: float) -> float:
        return round(SPARK_HEIGHT - _EDGE - up(value), 1)

    places = [(round(_EDGE + step * index, 1), height(value)) for index, value in enumerate(values)]
    said = ", ".join(f"version {point.version} {point.value:.4g}" for point in past)
    return {
        "points": " ".join(f"{x:g},{y:g}" for x, y in places),
        "x": places[-1][0],
        "y": places[-1][1],
        "limit": height(limits[0]) if limits else None,
        "words": f"{said}, now {now.value:.4g}",
    }


def bar(value: float, interval: tuple[float, float] | None) -> Data:
    """A bar from 0 to a share of 1, with its interval."""
    low, high = interval or (value, value)
    at = [round(LINE * min(1.0, max(0.0, end)), 1) for end in (value, low, high)]
    return {"value": at[0], "low": at[1], "high": at[2]}


def _scale(values: Sequence[float], width: float, *, share: float) -> Callable[[float], float]:
    kept = [min(_LARGEST, max(-_LARGEST, value)) for value in values]
    start, end = min(kept), max(kept)
    room = (end - start) * share or (0.0 if end > start else abs(end) * 0.1 or 1.0)
    start, end = start - room, end + room

    def at(value: float) -> float:
        kept_value = min(_LARGEST, max(-_LARGEST, value))
        return round(width * ((kept_value - start) / (end - start)), 1)

    return at
