"""The small statistics that gates share."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.statistics import exceeds, percent, wilson_interval

SHARES = st.floats(0, 1)


@given(SHARES)
def test_a_value_does_not_exceed_itself(value: float) -> None:
    assert not exceeds(value, value)


def test_rounding_of_the_computer_is_forgiven() -> None:
    assert 1 - 0.95 > 0.05
    assert not exceeds(1 - 0.95, 0.05)
    assert not exceeds(0.8, 0.4 / 0.5)
    assert exceeds(0.0500001, 0.05)


def test_nan_exceeds_every_limit_in_both_directions() -> None:
    assert exceeds(math.nan, 0.5)
    assert exceeds(0.5, math.nan)


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (10, 10, (0.7225, 1.0)), (60, 100, (0.5020, 0.6906))],
)
def test_wilsons_interval_is_the_textbooks(successes: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(successes, n, 0.95) == pytest.approx(expected, abs=1e-4)


@given(st.integers(1, 10_000), SHARES, st.floats(0.51, 0.999))
def test_wilsons_interval_holds_the_share_and_stays_inside(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    low, high = wilson_interval(successes, n, confidence)
    assert 0 <= low <= successes / n + 1e-9
    assert successes / n - 1e-9 <= high <= 1


def test_percent() -> None:
    assert percent(0.6123) == "61.2 %"
