"""The data quality gate, and the traps of Great Expectations it must not fall into."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airlock.core.evidence import GateResult, Verdict
from airlock.core.suite import Suite
from airlock.core.workload import ModelSpec
from airlock.gates.base import GateContext
from airlock.profiles.batch import open_batch
from airlock.profiles.expectations import great_expectations, run_suite
from airlock.profiles.source import ParquetSource
from tests.support.gates import NOW_US, make_context, make_frame, make_workload
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
    median = expect("column_median_to_be_between", column="y", min_value=0)
    result = check(HOLDS, median, median)
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


ORACLE = pd.DataFrame(
    {
        "x": [1.5, math.nan, -2.0, 0.0, -0.0, 7.25, 7.25, 1e12, 3.0, 4.0] * 30,
        "i": list(range(300)),
        "t": ["a", "b", None, "ü", "it's", "a", "", "b", "c", "a"] * 30,
        'q"; DROP TABLE rows; --': [0, 1, 2] * 100,
        "empty": [math.nan] * 300,
        "inf": [math.inf, -math.inf, 1.0] * 100,
    }
)
NATIVE = [
    expect("column_values_to_be_between", column="x", min_value=0, max_value=8),
    expect(
        "column_values_to_be_between",
        column="x",
        min_value=0,
        strict_min=True,
        max_value=7.25,
        strict_max=True,
    ),
    expect("column_values_to_be_between", column="x", min_value=-2.5, mostly=0.9),
    expect("column_values_to_be_between", column="x", max_value=-1, mostly=0.1),
    expect("column_values_to_be_between", column="inf", min_value=0),
    expect("column_values_to_be_between", column="i", min_value=0, max_value=299),
    expect("column_values_to_be_in_set", column="x", value_set=[1.5, -2, 0, 7.25]),
    expect("column_values_to_be_in_set", column="t", value_set=["a", "b", "ü", "it's", "", "c"]),
    expect("column_values_to_be_in_set", column="t", value_set=["a"], mostly=0.3),
    expect("column_values_to_be_in_set", column='q"; DROP TABLE rows; --', value_set=[0, 1]),
    expect("column_values_to_not_be_in_set", column="t", value_set=["it's", "x"]),
    expect("column_values_to_not_be_in_set", column="i", value_set=[666]),
    expect("column_values_to_not_be_null", column="x"),
    expect("column_values_to_not_be_null", column="x", mostly=0.9),
    expect("column_values_to_not_be_null", column="empty"),
    expect("column_mean_to_be_between", column="i", min_value=149.5, max_value=149.5),
    expect("column_sum_to_be_between", column="i", max_value=10),
    expect("column_stdev_to_be_between", column="i", min_value=86.7, max_value=86.8),
    expect("column_min_to_be_between", column="x", min_value=-2, strict_min=True),
    expect("column_max_to_be_between", column="x", max_value=1e12),
    expect("column_unique_value_count_to_be_between", column="x", min_value=7, max_value=7),
    expect("table_row_count_to_be_between", min_value=300, max_value=300),
]


@pytest.mark.requirement("G-1")
def test_outcomes_are_great_expectations_own(tmp_path: Path) -> None:
    """Every expectation that DuckDB judges, judged by Great Expectations too."""
    given = Suite.model_validate(suite(*NATIVE))
    ORACLE.to_parquet(tmp_path / "x.parquet")
    with open_batch(ParquetSource(tmp_path / "x.parquet")) as batch:
        ours = run_suite(given, batch)
    theirs = great_expectations("s", dict(enumerate(given.expectations)), ORACLE)
    for index, (expectation, mine) in enumerate(zip(given.expectations, ours, strict=True)):
        assert mine.engine == "duckdb", expectation
        other = theirs[index]
        assert mine.data["success"] == other["success"], (expectation, mine, other)
        result = other["result"]
        for key in ("element_count", "missing_count", "unexpected_count"):
            assert mine.data["result"].get(key) == result.get(key), (expectation, key)
        if isinstance(result.get("observed_value"), int | float):
            assert mine.data["result"]["observed_value"] == pytest.approx(result["observed_value"])
        shown = mine.data["result"].get("partial_unexpected_list", [])
        assert set(shown) >= set(result.get("partial_unexpected_list", [])) - {None}


@pytest.mark.requirement("G-1")
def test_names_that_differ_in_case_are_two_columns() -> None:
    """Great Expectations and SQL take them for one."""
    data = frame(CASE=1, case=2)
    lines = [
        expect("column_values_to_be_in_set", column=n, value_set=[v]) for n, v in (("CASE", 1), ("case", 2))
    ]
    assert check(*lines, frame=data, training=data).verdict is Verdict.PASSED


@pytest.mark.requirement("G-1")
def test_columns_without_values_are_an_error_in_both_engines() -> None:
    data = frame(empty=math.nan)
    for kind in ("column_mean_to_be_between", "column_values_to_be_between", "column_median_to_be_between"):
        result = check(expect(kind, column="empty", min_value=0), frame=data, training=data)
        assert "empty: could not be checked" in message(result, kind), kind
        assert result.verdict is Verdict.ERROR


@pytest.mark.requirement("G-1")
@pytest.mark.parametrize(
    ("age_hours", "verdict", "expected"),
    [
        (5, Verdict.PASSED, ""),
        (24, Verdict.PASSED, ""),
        (30, Verdict.FAILED, "seen: the newest row is 30.0 hours old, limit 24 hours"),
        (-3, Verdict.FAILED, "seen: the newest row is 3.0 hours in the future, limit 24 hours"),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_a_stale_file_fails(age_hours: float, verdict: Verdict, expected: str, zone: str | None) -> None:
    newest = pd.Timestamp(NOW_US, unit="us", tz="UTC") - pd.Timedelta(hours=age_hours)
    times = pd.Series(newest - pd.to_timedelta(range(400), unit="h"))
    data = frame(seen=times.dt.tz_convert(zone) if zone else times.dt.tz_localize(None))
    given = {**suite(HOLDS), "freshness": {"column": "seen", "maximum_age_hours": 24}}
    result, _ = judge("data_quality", make_context(evaluation=data, training=data, suite=given))
    assert result.verdict is verdict, result.summary
    if expected:
        assert message(result, "freshness") == expected


@pytest.mark.requirement("G-1")
@pytest.mark.parametrize(
    ("column", "expected"),
    [("nope", "column nope is missing"), ("income", "holds number, not times"), ("never", "has no values")],
)
def test_freshness_that_cannot_be_checked_is_an_error(column: str, expected: str) -> None:
    data = frame(never=pd.Series(pd.NaT, index=range(400), dtype="datetime64[us]"))
    given = {**suite(HOLDS), "freshness": {"column": column, "maximum_age_hours": 24}}
    result, _ = judge("data_quality", make_context(evaluation=data, training=data, suite=given))
    assert result.verdict is Verdict.ERROR
    assert expected in message(result, "freshness")


@pytest.mark.requirement("G-1")
def test_a_suite_nobody_has_reviewed_warns() -> None:
    given = {**suite(HOLDS), "reviewed": False}
    result, _ = judge("data_quality", make_context(suite=given))
    assert result.verdict is Verdict.WARNED
    assert "nobody has reviewed suite s 1.0.0" in message(result, "suite.unreviewed")


@pytest.mark.requirement("G-1")
def test_a_time_that_lost_its_zone_is_another_type() -> None:
    zoned = frame(seen=pd.date_range("2026-01-01", periods=400, tz="UTC"))
    result = check(frame=zoned.assign(seen=zoned["seen"].dt.tz_localize(None)), training=zoned)
    assert message(result, "schema") == "column seen holds time, in the training data time with a zone"


@pytest.mark.requirement("G-1")
def test_the_order_of_columns_is_no_part_of_the_contract() -> None:
    data = make_frame()
    assert check(frame=data[data.columns[::-1]], training=data).verdict is Verdict.PASSED


@pytest.mark.requirement("G-1")
def test_the_codes_in_the_mortgage_data_are_found() -> None:
    """666 stands for a missing guideline, 999999.4 for unknown months, 1,000,000 for unknown assets."""
    from airlock.adapters.yaml_files import load_yaml

    root = Path(__file__).parents[2]
    data = pd.read_csv(root / "data/loanapp.csv")
    given = load_yaml(root / "config/expectations/loanapp.yaml")
    features = ["term", "gdlin", "liq"]
    workload = make_workload(model=ModelSpec(registered_model="m", target="approve", features=features))
    context = make_context(evaluation=data, training=data, workload=workload, suite=given)
    result, _ = judge("data_quality", context)
    assert result.verdict is Verdict.FAILED
    texts = " ".join(finding.message for finding in result.findings)
    for code in ("666", "999999.4", "1000000"):
        assert code in texts


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
