"""Which decisions change: counted right, in every kind of task, and said about the right cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.profiles.flips import CANDIDATE, CHAMPION, flips

pytestmark = pytest.mark.requirement("A-4", "R-4")

SEX = {"sex": {"0": "women", "1": "men"}}


def compared(
    old: list[Any], new: list[Any], *, task: str = "classification", **columns: list[Any]
) -> dict[str, Any]:
    frame = pd.DataFrame(columns) if columns else pd.DataFrame({"x": range(len(old))})
    scores = pd.DataFrame({CHAMPION: old, CANDIDATE: new})
    features = [name for name in frame.columns if name not in ("y", "sex")]
    found = flips(frame, scores, task=task, features=features, target="y", sensitive=SEX)
    assert found is not None
    return found


def test_without_a_champion_there_is_nothing_to_compare() -> None:
    frame, scores = pd.DataFrame({"x": [1]}), pd.DataFrame({CANDIDATE: [1]})
    assert flips(frame, scores, task="classification", features=["x"], target="y", sensitive={}) is None


def test_directions_truth_and_groups_are_counted() -> None:
    found = compared(
        [0, 0, 1, 1, 1, 0], [1, 0, 0, 1, 0, 1], y=[1, 0, 0, 1, 1, None], sex=[0, 0, 0, 1, 1, 1.0]
    )
    assert (found["rows"], found["changed"], found["to_favourable"], found["to_unfavourable"]) == (6, 4, 2, 2)
    assert (found["now_right"], found["now_wrong"]) == (2, 1)  # of the fourth the outcome is not known
    women, men = found["groups"]
    assert women == {
        "attribute": "sex", "group": "women", "rows": 3, "changed": 2, "to_favourable": 1,
        "to_unfavourable": 1,
    }  # fmt: skip
    assert (men["rows"], men["changed"]) == (3, 2)


def test_the_kind_of_case_that_changes_is_named_first() -> None:
    income = list(range(400))
    old = [1] * 400
    new = [0 if value < 100 else 1 for value in income]
    found = compared(old, new, income=income, noise=[value % 2 for value in income])
    (kind,) = found["kinds"]
    assert kind == {"feature": "income", "cases": "0 to 99.75", "rows": 100, "changed": 100}


def test_a_category_and_a_missing_value_are_kinds_too() -> None:
    region = ["north"] * 100 + ["south"] * 100 + [None] * 100
    new = [0] * 100 + [0] * 100 + [1] * 90 + [0] * 10
    found = compared([0] * 300, new, region=region)
    assert [(kind["cases"], kind["changed"]) for kind in found["kinds"]] == [("missing", 90)]
    number = [1.5, 2.5, 3.5, 4.5, 5.5] * 40 + [None] * 100
    found = compared([0] * 300, new, number=number)
    assert [kind["cases"] for kind in found["kinds"]] == ["missing"]


def test_too_few_rows_are_no_kind() -> None:
    found = compared([0] * 119, [1] * 19 + [0] * 100, region=["a"] * 19 + ["b"] * 100)
    assert found["kinds"] == []


def test_classes_are_counted_by_move() -> None:
    found = compared(
        ["cat", "cat", "dog", "cow"],
        ["dog", "dog", "dog", "cat"],
        task="multiclass",
        y=["dog", "cat", "dog", "cat"],
    )
    assert found["moves"] == [{"from": "cat", "to": "dog", "n": 2}, {"from": "cow", "to": "cat", "n": 1}]
    assert (found["changed"], found["now_right"], found["now_wrong"]) == (3, 2, 1)
    assert "to_favourable" not in found


def test_a_number_has_changed_when_it_moved_visibly() -> None:
    old = [float(value) for value in range(101)]
    new = [value + (10 if place % 2 else 0.1) for place, value in enumerate(old)]
    found = compared(old, new, task="regression", y=[value + 10 for value in old])
    assert (found["changed"], found["up"], found["down"], found["now_right"]) == (50, 50, 0, 50)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_directions_and_the_groups_add_up(rows: list[tuple[bool, bool, bool]]) -> None:
    old, new, sex = ([int(row[place]) for row in rows] for place in range(3))
    found = compared(old, new, sex=sex, y=old)
    assert found["changed"] == sum(a != b for a, b in zip(old, new, strict=True))
    assert found["changed"] == found["to_favourable"] + found["to_unfavourable"]
    assert found["changed"] == sum(group["changed"] for group in found["groups"])
    assert found["now_wrong"] == found["changed"]
    assert found["now_right"] == 0


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=40))
def test_the_same_predictions_change_nothing(values: list[float]) -> None:
    found = compared(values, values, task="regression", x=[1.0] * len(values))
    assert (found["changed"], found["kinds"]) == (0, [])


def test_rows_in_another_order_say_the_same() -> None:
    random = np.random.default_rng(7)
    frame = pd.DataFrame({"a": random.normal(size=500), "b": random.integers(0, 9, 500), "sex": 0})
    scores = pd.DataFrame({CHAMPION: random.integers(0, 2, 500), CANDIDATE: random.integers(0, 2, 500)})
    order = random.permutation(500)
    said = [
        flips(
            one.reset_index(drop=True), other.reset_index(drop=True), task="classification",
            features=["a", "b"], target="y", sensitive=SEX,
        )
        for one, other in ((frame, scores), (frame.iloc[order], scores.iloc[order]))
    ]  # fmt: skip
    assert said[0] == said[1]
