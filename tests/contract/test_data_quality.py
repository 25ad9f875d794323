"""The data quality gate, and the traps of Great Expectations it must not fall into."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airlock.core.evidence import GateResult, Verdict
from airlock.core.workload import ModelSpec
from airlock.gates.base import GateContext
from airlock.gates.data_quality import Suite, run_suite
from tests.support.gates import make_context, make_frame, make_workload
from tests.support.judge import finding, judge, metric, table

pytestmark = pytest.mark.slow  # the libraries it asks take seconds

HOLDS = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "y"}, "why": "the outcome"}


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "why": "it is so"}


def suite(*expectations: dict[str, Any]) -> dict[str, Any]:
    return {"name": "s", "version": "1.0.0", "description": "d", "expectations": list(expectations)}


def check(
    *expectations: dict[str, Any],
    frame: pd.DataFrame | None = None,
    training: pd.DataFrame | None = None,
    **changes: Any,
) -> GateResult:
    """Judge a batch, by default the good one, with these expectations."""
    given = suite(*(expectations or [HOLDS]))
    result, _ = judge(
        "data_quality", make_context(evaluation=frame, training=training, suite=given), **changes
    )
    return result


def frame(rows: int = 400, **columns: Any) -> pd.DataFrame:
    return make_frame(rows).assign(**columns)


def without(column: str) -> pd.DataFrame:
    return make_frame().drop(columns=column)


def spoilt(column: str, *values: object) -> pd.DataFrame:
    """The good batch with the first values of a column replaced."""
    data = make_frame()
    data[column] = data[column].astype("float64")
    for row, value in enumerate(values):
        data.loc[row, column] = value
    return data


def message(result: GateResult, finding_id: str) -> str:
    return finding(result, finding_id).message


@pytest.mark.requirement("G-1")
def test_values_outside_a_set_are_named_and_counted() -> None:
    result = check(
        expect("column_values_to_be_in_set", column="y", value_set=[0, 1]), frame=spoilt("y", 666, 666)
    )
    assert result.verdict is Verdict.FAILED
    assert message(result, "column_values_to_be_in_set") == "y: 2 of 400 values outside {0, 1}: 666 (2 rows)"
    assert finding(result, "column_values_to_be_in_set").where == "y"
    assert "it is so" in finding(result, "column_values_to_be_in_set").fix


@pytest.mark.requirement("G-1")
@pytest.mark.parametrize(
    ("values", "bounds", "expected"),
    [
        ((999_999.375,), {"max_value": 480}, "income: 1 of 400 values above 480: 999999.4"),
        ((-5,), {"min_value": 0, "max_value": 480}, "income: 1 of 400 values below 0: -5"),
        ((-5, 500), {"min_value": 0, "max_value": 480}, "income: 2 of 400 values outside 0 to 480: -5, 500"),
        ((np.nan, 500), {"max_value": 480}, "income: 1 of 399 values above 480: 500"),
        ((1e3, 2e3, 3e3, 4e3), {"max_value": 480}, "income: 4 of 400 values above 480: 1000, 2000, 3000, …"),
        ((math.inf,), {"max_value": 480}, "income: 1 of 400 values above 480: inf"),
    ],
)
def test_values_out_of_range_are_named_and_counted(
    values: tuple[float, ...], bounds: dict[str, float], expected: str
) -> None:
    result = check(
        expect("column_values_to_be_between", column="income", **bounds), frame=spoilt("income", *values)
    )
    assert message(result, "column_values_to_be_between") == expected


@pytest.mark.requirement("G-1")
@pytest.mark.parametrize(
    ("expectation", "expected"),
    [
        (
            expect("column_mean_to_be_between", column="income", min_value=100),
            r"income: mean is (48|49)\.\d+, expected at least 100",
        ),
        (
            expect("table_row_count_to_be_between", min_value=500, max_value=900),
            "table: row count is 400, expected at least 500 and at most 900",
        ),
        (
            expect("column_values_to_not_be_null", column="debt", mostly=0.99),
            r"debt: 10 of 400 values missing \(at least 99.0 % must be right\)",
        ),
        (
            expect("column_values_to_be_of_type", column="debt", type_="int64"),
            r"debt: expected values to be of type \(type int64\); observed float64",
        ),
        (
            expect("table_columns_to_match_set", column_set=["income", "x"]),
            r"table: expected columns to match set .*; missing \[x\]; unexpected \[debt, group, y\]",
        ),
        (
            expect("column_pair_values_a_to_be_greater_than_b", column_A="debt", column_B="income"),
            r"debt, income: \d+ of \d+ rows break 'column pair values a to be greater than b': \[",
        ),
        (
            expect("compound_columns_to_be_unique", column_list=["group", "y"]),
            r"group, y: 400 of 400 rows break 'compound columns to be unique': \[group \d, y \d\]",
        ),
        (
            expect("column_values_to_not_be_in_set", column="group", value_set=[0, 666]),
            r"group: \d+ of 400 values among the forbidden \{0, 666\}: 0 \(\d+ rows\)",
        ),
        (expect("column_values_to_be_unique", column="group"), r"group: 400 of 400 values not unique: \d \("),
    ],
)
def test_every_kind_of_expectation_says_what_was_observed(expectation: dict[str, Any], expected: str) -> None:
    result = check(expectation, frame=spoilt("debt", *[np.nan] * 10))
    assert result.verdict is Verdict.FAILED
    assert re.match(expected, message(result, expectation["type"].removeprefix("expect_")))


@pytest.mark.requirement("G-1")
def test_a_suite_may_warn() -> None:
    broken = expect("column_values_to_be_between", column="income", max_value=1)
    assert check({**broken, "severity": "warn"}).verdict is Verdict.WARNED
    assert check(broken).verdict is Verdict.FAILED


@pytest.mark.requirement("G-1")
def test_an_unknown_expectation_is_an_error_and_named() -> None:
    """Great Expectations drops it and calls what remains a success."""
    result = check(HOLDS, expect("column_values_to_be_lovely", column="y"))
    assert result.verdict is Verdict.ERROR
    assert "expect_column_values_to_be_lovely" in result.summary


@pytest.mark.requirement("G-1")
@pytest.mark.parametrize(
    ("expectation", "expected"),
    [
        (expect("column_values_to_be_between", column="income"), "accepts anything"),
        (expect("table_row_count_to_be_between"), "accepts anything"),
        (expect("column_values_to_be_between", column="income", max_value=0, mostly=0), "accepts anything"),
        (expect("column_values_to_be_between", column="income", max_valu=0), "max_valu"),
        (expect("column_values_to_not_be_null", column="y", catch_exceptions=False), "catch_exceptions"),
        (expect("column_values_to_not_be_null", column="y", result_format="BASIC"), "result_format"),
        ({"type": "lovely", "kwargs": {}, "why": "x"}, "expectations.1.type"),
        ({"type": "expect_x", "kwargs": {}}, "expectations.1.why"),
    ],
)
def test_a_suite_that_checks_nothing_is_refused(expectation: dict[str, Any], expected: str) -> None:
    result = check(HOLDS, expectation)
    assert result.verdict is Verdict.ERROR
    assert expected in result.summary


def test_great_expectations_dropping_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import great_expectations as gx

    whole = gx.ExpectationSuite
    monkeypatch.setattr(
        gx, "ExpectationSuite", lambda name, expectations: whole(name=name, expectations=expectations[1:])
    )
    result = check(HOLDS, expect("column_values_to_be_between", column="y", min_value=0))
    assert result.verdict is Verdict.ERROR
    assert "only 1 of 2 expectations were evaluated" in result.summary


@pytest.mark.requirement("G-1")
def test_a_column_without_values_does_not_pass_by_having_nothing_wrong() -> None:
    workload = make_workload(model=ModelSpec(registered_model="m", target="y", features=["debt"]))
    data = frame(income=np.nan)
    given = suite(expect("column_values_to_be_between", column="income", min_value=0))
    subject = make_context(evaluation=data, training=data, workload=workload, suite=given)
    result, _ = judge("data_quality", subject)
    assert result.verdict is Verdict.ERROR
    assert (
        message(result, "column_values_to_be_between")
        == "income: could not be checked: the column has no values"
    )


@pytest.mark.requirement("G-1")
def test_outcomes_are_great_expectations_own() -> None:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    data = make_frame()
    ours = run_suite(
        Suite.model_validate(
            suite(
                expect("column_values_to_be_between", column="income", min_value=45, max_value=60),
                expect("column_mean_to_be_between", column="debt", min_value=0, max_value=30),
            )
        ),
        data,
    )
    batch = (
        gx.get_context(mode="ephemeral").data_sources.add_pandas("p").add_dataframe_asset("a")
        .add_batch_definition_whole_dataframe("b").get_batch({"dataframe": data})
    )  # fmt: skip
    between = batch.validate(gxe.ExpectColumnValuesToBeBetween(column="income", min_value=45, max_value=60))
    mean = batch.validate(gxe.ExpectColumnMeanToBeBetween(column="debt", min_value=0, max_value=30))
    assert [outcome["success"] for outcome in ours] == [between.success, mean.success] == [False, True]
    assert ours[0]["result"]["unexpected_count"] == between.result["unexpected_count"]
    assert ours[1]["result"]["observed_value"] == mean.result["observed_value"]


@pytest.mark.requirement("G-1")
def test_a_missing_column_fails_the_contract_and_what_needs_it_is_an_error() -> None:
    data = without("debt")
    contract = check(frame=data)
    assert contract.verdict is Verdict.FAILED
    assert message(contract, "schema") == "column debt is missing from the evaluation batch"
    needed = check(expect("column_values_to_be_between", column="debt", min_value=0), frame=data)
    assert needed.verdict is Verdict.ERROR
    assert (
        message(needed, "column_values_to_be_between") == "debt: could not be checked: column debt is missing"
    )


@pytest.mark.requirement("G-1")
@pytest.mark.parametrize(
    ("data", "training", "verdict", "expected"),
    [
        (frame(debt="high"), None, Verdict.FAILED, "column debt holds text, in the training data number"),
        (frame(group=True), None, Verdict.FAILED, "column group holds boolean, in the training data number"),
        (make_frame(), frame(note="x"), Verdict.FAILED, "column note is missing from the evaluation batch"),
        (without("group"), None, Verdict.FAILED, "column group is missing from the evaluation batch"),
        (make_frame(), without("debt"), Verdict.ERROR, "column debt is missing from the training data"),
    ],
)
def test_a_schema_change_never_passes_silently(
    data: pd.DataFrame, training: pd.DataFrame | None, verdict: Verdict, expected: str
) -> None:
    result = check(frame=data, training=training)
    assert result.verdict is verdict
    assert message(result, "schema") == expected


@pytest.mark.requirement("G-1")
def test_a_new_column_warns() -> None:
    result = check(frame=frame(note="x"))
    assert result.verdict is Verdict.WARNED
    assert message(result, "schema.new_column") == "column note is new: the training data does not have it"


def test_whole_numbers_and_decimals_are_the_same_kind_and_protected_attributes_may_be_new() -> None:
    training = without("group")
    assert (
        check(frame=frame(y=make_frame()["y"].astype("float64")), training=training).verdict is Verdict.PASSED
    )


@pytest.mark.requirement("G-1")
def test_missing_values_beyond_the_limit_fail_and_say_how_many() -> None:
    result = check(frame=spoilt("income", *[np.nan] * 20, math.inf))
    assert result.verdict is Verdict.FAILED
    assert message(result, "nulls") == "income: 21 of 400 values are missing or infinite (5.2 %, limit 5.0 %)"
    share = metric(result, "null_share", "income")
    assert (share.value, share.threshold, share.n) == (21 / 400, 0.05, 400)
    allowed = check(frame=spoilt("income", *[np.nan] * 200), nullable_columns=["income"])
    assert allowed.verdict is Verdict.PASSED
    assert metric(allowed, "null_share", "income").threshold is None


@pytest.mark.requirement("G-1")
def test_repeated_rows_are_reported() -> None:
    data = make_frame()
    result = check(frame=pd.concat([data, data.head(3)], ignore_index=True))
    assert result.verdict is Verdict.PASSED
    assert metric(result, "duplicate_rows").value == 3
    assert message(result, "rows.duplicated").startswith("3 of 403 rows repeat")


def with_identifier() -> GateContext:
    data = frame(applicant=[f"person {index % 399}" for index in range(400)])
    spec = make_workload().data.model_copy(update={"identifiers": ["applicant"]})
    given = suite(expect("column_values_to_be_unique", column="applicant"))
    return make_context(evaluation=data, training=data, workload=make_workload(data=spec), suite=given)


@pytest.mark.requirement("G-1")
def test_values_of_identifiers_stay_out_of_the_evidence() -> None:
    result, files = judge("data_quality", with_identifier())
    assert message(result, "column_values_to_be_unique") == "applicant: 2 of 400 values not unique"
    assert b"person" not in result.to_bytes() + files["expectations.json"]


@pytest.mark.requirement("G-1")
def test_the_table_keeps_every_expectation_in_order_and_nothing_of_the_run() -> None:
    given = suite(
        expect("column_values_to_be_between", column="nowhere", min_value=0),
        expect("column_values_to_be_between", column="income", max_value=55),
        HOLDS,
    )
    _, files = judge("data_quality", make_context(evaluation=spoilt("income", math.inf), suite=given))
    attached = table(files, "expectations.json")
    assert attached["suite"] == {"name": "s", "version": "1.0.0"}
    assert [entry["success"] for entry in attached["expectations"]] == [False, False, True]
    assert attached["expectations"][0]["error"]
    assert attached["expectations"][1]["result"]["partial_unexpected_list"][0] == "inf"
    text = files["expectations.json"].decode()
    assert not any(word in text for word in ("run_id", "batch_id", "_time", "Traceback", "0x"))


@pytest.mark.requirement("G-1")
def test_the_summary_counts_what_is_wrong() -> None:
    result = check(
        expect("column_values_to_be_between", column="income", max_value=1),
        expect("column_values_to_be_between", column="debt", max_value=1),
    )
    assert result.summary.startswith("2 things are wrong with the evaluation data: income: ")
    assert "; debt: " in result.summary
    assert check().summary.startswith("All expectations (1) hold on 400 rows")
    assert metric(result, "expectations_met").value == 0
