"""The answers of signals, and how several windows and actions come together: pure rules and their laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airlock.core.monitoring import (
    Action,
    ActionLimits,
    Hysteresis,
    Taken,
    heaviest_action,
    restraint,
)
from airlock.core.production import DAY_US
from airlock.core.signals import Reading, judged, lasting, sentence_of
from tests.support.deployments import shipped_policy

pytestmark = pytest.mark.requirement("M-2")

NUMBERS = st.floats(-10, 10)


def answer(value: float, low: float, high: float, limit: float = 1.0, no_effect: float = 0.0) -> Reading:
    return judged(
        "latency",
        value=value,
        limit=limit,
        direction="lower",
        interval=(low, high),
        no_effect=no_effect,
        text="a test",
        fix="nothing",
    ).reading


@pytest.mark.parametrize(
    ("value", "low", "high", "reading"),
    [
        (0.5, 0.2, 0.8, Reading.CALM),
        (0.5, -0.5, 1.5, Reading.CALM),
        (0.5, 0.1, 1.5, Reading.UNSURE),
        (1.5, 0.5, 2.5, Reading.RAISED),
        (1.5, -0.5, 3.5, Reading.UNSURE),
        (1.5, 1.2, 1.8, Reading.RAISED),
        (1.0, 0.9, 1.1, Reading.UNSURE),
        (float("nan"), 0.0, 1.0, Reading.ERROR),
        (float("inf"), 0.0, 1.0, Reading.ERROR),
        (0.5, float("-inf"), 1.0, Reading.ERROR),
    ],
)
def test_a_number_is_raised_only_beyond_its_limit_and_beyond_chance(
    value: float, low: float, high: float, reading: Reading
) -> None:
    assert answer(value, low, high) is reading


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_within_its_limit_nothing_is_ever_raised(
    value: float, first: float, second: float, limit: float, no_effect: float
) -> None:
    low, high = min(first, second, value), max(first, second, value)
    reading = answer(value, low, high, limit, no_effect)
    assert reading in (Reading.CALM, Reading.RAISED, Reading.UNSURE)
    if value <= limit:
        assert reading is not Reading.RAISED


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=3), max_size=6), st.integers(1, 4), st.integers(1, 4)
)
def test_what_lasts_is_raised_now_and_often_enough(windows: list[list[str]], raised: int, of: int) -> None:
    found = lasting(windows, raised=raised, of=of)
    for name in "abc":
        count = sum(name in one for one in windows[-of:])
        assert (name in found) == bool(windows and name in windows[-1] and count >= raised)


def test_one_window_of_noise_does_not_last() -> None:
    assert lasting([["a"], [], ["b"]], raised=2, of=3) == []
    assert lasting([["a"], [], ["a"]], raised=2, of=3) == ["a"]
    assert lasting([["a"], [], [], ["a"]], raised=2, of=3) == []


def test_a_hysteresis_that_could_never_be_reached_is_refused() -> None:
    with pytest.raises(ValidationError, match="no signal could ever last"):
        Hysteresis(raised=4, windows=3)


def rules(**changes: object) -> ActionLimits:
    shipped = shipped_policy().monitoring
    assert shipped is not None
    return ActionLimits.model_validate(shipped.actions.to_data() | changes)


def taken(action: Action, days_ago: float, *, automatic: bool = True) -> Taken:
    return Taken(action=action, at_us=int((100 - days_ago) * DAY_US), automatic=automatic)


NOW = 100 * DAY_US


@pytest.mark.parametrize(
    ("action", "tier", "done", "paused", "kind"),
    [
        (Action.RETRAIN, "low", [], False, "go"),
        (Action.RETRAIN, "low", [taken(Action.RETRAIN, 13.9)], False, "cool-down"),
        (Action.RETRAIN, "low", [taken(Action.RETRAIN, 14)], False, "go"),
        (Action.RETRAIN, "low", [taken(Action.RETRAIN, 1, automatic=False)], False, "cool-down"),
        (Action.ROLLBACK, "low", [taken(Action.RETRAIN, 1)], False, "go"),
        (Action.ROLLBACK, "high", [], False, "ask"),
        (Action.ROLLBACK, "low", [], True, "paused"),
        (Action.ROLLBACK, "high", [], True, "ask"),
        (Action.ALERT, "high", [taken(Action.ALERT, 0)], True, "go"),
        (Action.QUARANTINE, "low", [taken(Action.ROLLBACK, n) for n in (8, 15, 22)], False, "cap"),
        (Action.QUARANTINE, "low", [taken(Action.ROLLBACK, n) for n in (8, 15, 31)], False, "go"),
    ],
)
def test_what_holds_an_action_back(
    action: Action, tier: str, done: list[Taken], paused: bool, kind: str
) -> None:
    found = restraint(action, rules(), tier=tier, taken=done, paused=paused, now_us=NOW)
    assert found.kind == kind
    assert found.sentence


ACTIONS = st.builds(taken, st.sampled_from([a for a in Action if a.acts]), st.floats(0, 60))


@given(
    st.sampled_from(list(Action)), st.lists(ACTIONS, max_size=6), ACTIONS, st.sampled_from(["low", "high"])
)
def test_more_actions_never_let_one_go_that_was_held_back(
    action: Action, done: list[Taken], more: Taken, tier: str
) -> None:
    def goes(known: list[Taken]) -> bool:
        found = restraint(action, rules(), tier=tier, taken=known, paused=False, now_us=NOW)
        return found.kind in ("go", "ask")

    if not goes(done):
        assert not goes([*done, more])


def test_actions_are_ordered_and_none_is_the_least() -> None:
    assert heaviest_action([]) is Action.NONE
    assert heaviest_action([Action.ALERT, Action.ROLLBACK, Action.RETRAIN]) is Action.ROLLBACK
    assert [action for action in Action if not action.acts] == [Action.NONE, Action.ALERT]


@pytest.mark.parametrize("section", ["cool_down_days", "silence"])
def test_each_action_needs_a_cool_down_and_a_safe_side(section: str) -> None:
    with pytest.raises(ValidationError, match="must name rollback"):
        rules(
            **{
                section: {"shadow": 1, "retrain": 1}
                if section == "cool_down_days"
                else {"shadow": "take", "retrain": "take"}
            }
        )


def test_a_window_in_a_sentence_names_the_worst_first() -> None:
    readings = {
        "cost": "calm",
        "latency": "raised",
        "volume": "error",
        "performance": "unsure",
        "business": "off",
    }
    text = sentence_of(readings)
    assert text == (
        "could not be measured: volume; raised: latency; cannot tell: performance; 1 signals are calm"
    )
    assert sentence_of({"cost": "calm"}) == "all 1 signals are calm"
