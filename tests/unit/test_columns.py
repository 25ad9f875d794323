"""Names of columns: a list will do for protected attributes, a column has one role."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from airlock.core.columns import Columns
from tests.support.gates import make_workload


def test_protected_attributes_can_be_a_list_or_have_words() -> None:
    assert Columns.model_validate({"sensitive": ["race", "sex"]}).sensitive == {"race": {}, "sex": {}}
    words = {"race": {"1": "Black"}}
    assert Columns.model_validate({"sensitive": words}).sensitive == words


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"sensitive": ["race", "race"]}, "twice"),
        ({"features": ["a", "a"]}, "twice"),
        ({"features": ["a"], "label": "a"}, "as label and as features"),
        ({"features": ["a"], "sensitive": ["a"]}, "as sensitive and as features"),
        ({"prediction": "a", "score": "a"}, "as prediction and as score"),
        ({"labels": "a"}, "Extra inputs"),
        ({"label": ""}, "at least 1 character"),
    ],
)
def test_what_contradicts_itself_is_refused(values: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Columns.model_validate(values)


def test_the_time_may_be_a_feature_too() -> None:
    columns = Columns(features=["day"], time="day", label="y")
    assert columns.all == ["y", "day"]


def test_a_workload_names_its_columns() -> None:
    columns = Columns.of(make_workload())
    assert columns.label == "y"
    assert columns.features == ["income", "debt"]
    assert columns.sensitive == {"group": {"0": "group A", "1": "group B"}}
    assert columns.all == ["y", "group", "income", "debt"]
    assert columns.prediction is None
