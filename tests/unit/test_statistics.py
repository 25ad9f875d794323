"""The small statistics that gates share."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.evidence import Metric, Verdict
from airlock.core.judgement import judge, judged
from airlock.core.statistics import (
    Judge,
    Standing,
    exceeds,
    percent,
    settling_size,
    standing,
    wilson_interval,
)

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


NUMBERS = st.floats(-1e6, 1e6)
INTERVALS = st.tuples(NUMBERS, NUMBERS).map(lambda ends: (min(ends), max(ends)))


def judged_by(by: Judge, value: float, limit: float, interval: tuple[float, float], **words: Any) -> Standing:
    return standing(value, limit, interval, higher_is_better=True, by=by, **words)


@pytest.mark.parametrize(
    ("interval", "by_point", "by_bound", "by_significance"),
    [
        ((0.80, 0.95), Standing.RIGHT, Standing.RIGHT, Standing.RIGHT),  # touches its limit
        ((0.70, 1.10), Standing.RIGHT, Standing.UNSURE, Standing.UNSURE),
        ((0.60, 0.79), Standing.WRONG, Standing.WRONG, Standing.WRONG),
        ((0.60, 0.85), Standing.WRONG, Standing.UNSURE, Standing.WRONG),  # unequal beyond chance
        ((0.50, 1.05), Standing.WRONG, Standing.UNSURE, Standing.UNSURE),
    ],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_three_ways_to_judge_a_limit(
    interval: tuple[float, float],
    by_point: Standing,
    by_bound: Standing,
    by_significance: Standing,
    mirrored: bool,
) -> None:
    value = sum(interval) / 2
    sign = -1 if mirrored else 1
    ends = (sign * interval[0], sign * interval[1])
    asked = {
        by: standing(
            sign * value,
            sign * 0.8,
            (min(ends), max(ends)),
            higher_is_better=not mirrored,
            by=by,
            no_effect=sign * 1.0,
        )
        for by in Judge
    }
    assert asked == {Judge.POINT: by_point, Judge.BOUND: by_bound, Judge.SIGNIFICANT: by_significance}


@given(NUMBERS, NUMBERS, INTERVALS)
def test_a_sure_bound_agrees_with_the_point(
    value: float, limit: float, interval: tuple[float, float]
) -> None:
    value = min(max(value, interval[0]), interval[1])
    sure = judged_by(Judge.BOUND, value, limit, interval)
    if sure is not Standing.UNSURE:
        assert judged_by(Judge.POINT, value, limit, interval) is sure


@given(NUMBERS, NUMBERS, INTERVALS, st.floats(0, 1))
def test_a_narrower_interval_never_unsettles(
    value: float, limit: float, interval: tuple[float, float], share: float
) -> None:
    value = min(max(value, interval[0]), interval[1])
    narrow = tuple(value + share * (end - value) for end in interval)
    sure = judged_by(Judge.BOUND, value, limit, interval)
    if sure is not Standing.UNSURE:
        assert judged_by(Judge.BOUND, value, limit, (narrow[0], narrow[1])) is sure


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_undefined_however_it_is_judged(value: float | None) -> None:
    for by in Judge:
        assert standing(value, 0.5, (0.6, 0.7), higher_is_better=True, by=by) is Standing.UNDEFINED
    assert standing(0.6, 0.5, None, higher_is_better=True, by=Judge.BOUND) is Standing.UNDEFINED
    assert standing(0.6, 0.5, (math.nan, 1), higher_is_better=True, by=Judge.BOUND) is Standing.UNDEFINED
    assert standing(0.6, math.nan, (0.6, 0.7), higher_is_better=True, by=Judge.BOUND) is Standing.UNDEFINED


def test_the_settling_size_is_where_the_interval_touches_the_limit() -> None:
    """A share of 0.85 against 0.8: the normal interval of that many rows ends at the limit."""
    z, n, share, limit = 1.959964, 100, 0.85, 0.8
    half = z * math.sqrt(share * (1 - share) / n)
    needed = settling_size(n, share, (share - half, share + half), limit)
    assert needed is not None
    assert share - z * math.sqrt(share * (1 - share) / needed) == pytest.approx(limit, abs=1e-3)
    assert settling_size(n, 0.8, (0.7, 0.9), 0.8) is None


@given(st.integers(1, 10**6), st.floats(0.01, 1), st.floats(1.001, 100), st.floats(0.1, 1000))
def test_a_settling_size_is_larger_than_what_did_not_settle_it_in_any_unit(
    n: int, distance: float, ratio: float, unit: float
) -> None:
    half = distance * ratio
    needed = settling_size(n, distance, (distance - half, distance + half), 0.0)
    assert needed is not None
    assert needed > n
    scaled = settling_size(n, unit * distance, (unit * (distance - half), unit * (distance + half)), 0.0)
    assert scaled is not None
    assert scaled == pytest.approx(needed, rel=1e-6, abs=1)


def measured(value: float | None, **changes: Any) -> Metric:
    facts: dict[str, Any] = {
        "threshold": 0.8,
        "direction": "higher",
        "interval": (0.7, 0.95),
        "confidence": 0.95,
    }
    return Metric(name="accuracy", value=value, **{**facts, "n": 100, **changes})


def test_a_metric_becomes_at_most_one_finding() -> None:
    words = {"finding_id": "floor", "failed": "accuracy is 0.5, below 0.8", "fix": "train again"}
    assert judged(measured(0.9, interval=(0.85, 0.95)), Judge.BOUND, **words) == []
    (wrong,) = judged(measured(0.5, interval=(0.4, 0.6)), Judge.BOUND, **words)
    assert (wrong.id, wrong.verdict, wrong.message) == ("floor", Verdict.FAILED, "accuracy is 0.5, below 0.8")
    (unsure,) = judged(measured(0.85), Judge.BOUND, **words)
    assert (unsure.id, unsure.verdict) == ("cannot_tell.floor", Verdict.WARNED)
    assert "could be 0.7 to 0.95 at 95.0 % confidence; about 900 rows would settle it" in unsure.message
    assert judge(measured(0.85), Judge.BOUND).needed == 900
    (undefined,) = judged(measured(None), Judge.BOUND, **words)
    assert (undefined.id, undefined.verdict) == ("undefined.floor", Verdict.ERROR)
    assert judged(measured(0.85, interval=None), Judge.POINT, **words) == []


def test_an_interval_cut_off_at_zero_still_says_how_many_rows() -> None:
    """A difference of 0.11 with a half-width of 0.15 shows 0 to 0.26: it takes more rows to exclude 0."""
    cut = measured(0.11, threshold=0.1, direction="lower", interval=(0.0, 0.26))
    assert judge(cut, Judge.SIGNIFICANT, no_effect=0.0).needed == 186


def test_a_metric_with_nothing_to_be_judged_by_is_a_mistake_of_the_gate() -> None:
    with pytest.raises(ValueError, match="no threshold"):
        judge(measured(0.9, threshold=None), Judge.POINT)
