"""Profiles that merge, suites made from them, and one row held against them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from airlock.cli import app
from airlock.core.errors import ConflictError, InvalidInputError
from airlock.core.suite import Suite
from airlock.profiles import profile as profiles
from airlock.profiles.batch import open_batch
from airlock.profiles.expectations import run_suite
from airlock.profiles.one_row import RowChecker, RowLimits
from airlock.profiles.profile import Grid, TableProfile, ks_bounds, profile
from airlock.profiles.source import FrameSource, ParquetSource
from airlock.services.expectations import profile_suite, suite_text

LIMITS = RowLimits(margin=0.1, missing_share=0.01, rare_share=0.0)
GRIDS = {"x": Grid(low=-100, high=100), "i": Grid(low=0, high=50)}
ROWS = st.lists(
    st.tuples(
        st.one_of(st.floats(-200, 200), st.just(math.nan), st.just(math.inf)),
        st.integers(0, 60),
        st.one_of(st.none(), st.sampled_from(["a", "ü", "", "'; --"])),
    ),
    min_size=1,
    max_size=40,
)


def table(rows: list[Any]) -> TableProfile:
    frame = pd.DataFrame(rows, columns=["x", "i", "t"])
    frame = frame.astype({"x": "float64", "i": "int64", "t": "string"})
    return profile(FrameSource(frame), grids=GRIDS)


def same(one: TableProfile, other: TableProfile) -> bool:
    """Equal in every count, and in sums as far as floats add the same in any order."""
    for name, column in one.columns.items():
        mine, its = column.to_data(), other.columns[name].to_data()
        for key in ("total", "squares"):
            assert mine.pop(key) == pytest.approx(its.pop(key), rel=1e-9, abs=1e-6)
        assert mine == its
    return one.rows == other.rows


@pytest.mark.requirement("G-4")
@settings(deadline=None)
@given(ROWS, ROWS, ROWS)
def test_merging_is_associative_and_equals_one_pass(a: list[Any], b: list[Any], c: list[Any]) -> None:
    one, two, three = table(a), table(b), table(c)
    whole = table(a + b + c)
    assert same(one.merge(two).merge(three), whole)
    assert same(one.merge(two.merge(three)), whole)
    assert same(two.merge(one), table(a + b))


def test_a_profile_survives_json_and_is_small() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({f"x{i}": rng.normal(0, 1, 20_000) for i in range(25)})
    measured = profile(FrameSource(frame))
    data = measured.to_bytes()
    assert TableProfile.from_bytes(data) == measured
    assert len(data) < 200_000


def test_what_does_not_fit_does_not_merge() -> None:
    one = profile(FrameSource(pd.DataFrame({"x": [1.0, 2.0]})))
    for other in ({"x": [1.0, 3.0]}, {"x": ["a"]}, {"y": [1.0]}):
        with pytest.raises(InvalidInputError):
            one.merge(profile(FrameSource(pd.DataFrame(other))))


def test_too_many_categories_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "CATEGORIES", 3)
    parts = [profile(FrameSource(pd.DataFrame({"t": list(text)}))) for text in ("ab", "cd")]
    assert parts[0].columns["t"].categories == {"a": 1, "b": 1}
    assert parts[0].merge(parts[1]).columns["t"].categories is None


@given(st.floats(0, 3), st.integers(20, 400))
@settings(deadline=None)
def test_ks_lies_between_its_bounds(shift: float, rows: int) -> None:
    from scipy.stats import ks_2samp

    rng, grid = np.random.default_rng(rows), {"x": Grid(low=-4, high=4)}
    one, two = rng.normal(0, 1, rows), rng.normal(shift, 1, rows + 7)
    sides = [
        profile(FrameSource(pd.DataFrame({"x": v})), grids=grid).columns["x"].histogram for v in (one, two)
    ]
    assert sides[0] is not None
    assert sides[1] is not None
    low, high = ks_bounds(sides[0], sides[1])
    assert low - 1e-12 <= ks_2samp(one, two).statistic <= high + 1e-12


DATA = pd.DataFrame(
    {
        "income": np.random.default_rng(2).normal(50, 10, 500),
        "age": np.random.default_rng(3).integers(18, 80, 500),
        "flag": np.random.default_rng(4).integers(0, 2, 500),
        "region": np.random.default_rng(5).choice(["north", "süd", "it's"], 500),
        "gaps": np.where(np.arange(500) % 10, 1.5 * np.arange(500), math.nan),
        "never": np.full(500, math.nan),
        'od"d': np.ones(500),
    }
)


@pytest.mark.requirement("G-1")
def test_data_meets_the_suite_that_was_profiled_from_it(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    DATA.to_parquet(path)
    suite = profile_suite(path, "mortgage")
    assert not suite.reviewed
    assert suite.profiled is not None
    assert suite.profiled.rows == 500
    assert Suite.model_validate(yaml.safe_load(suite_text(suite))) == suite
    with open_batch(ParquetSource(path)) as batch:
        assert all(outcome.data["success"] for outcome in run_suite(suite, batch))
    assert {column for line in suite.expectations for column in line.columns} == set(DATA) - {"never"}


@pytest.mark.requirement("G-1")
@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"flag": 666}, "flag"),
        ({"income": 999_999.4}, "income"),
        ({"region": "mars"}, "region"),
        ({"age": -1}, "age"),
    ],
)
def test_a_profiled_suite_finds_what_the_data_did_not_have(
    change: dict[str, Any], column: str, tmp_path: Path
) -> None:
    DATA.to_parquet(tmp_path / "train.parquet")
    suite = profile_suite(tmp_path / "train.parquet", "s")
    DATA.assign(**change).to_parquet(tmp_path / "now.parquet")
    with open_batch(ParquetSource(tmp_path / "now.parquet")) as batch:
        outcomes = run_suite(suite, batch)
    failed = [line for line, one in zip(suite.expectations, outcomes, strict=True) if not one.data["success"]]
    assert [line.columns for line in failed] == [[column]]


@pytest.mark.requirement("G-1")
def test_the_command_writes_a_suite_and_replaces_none(tmp_path: Path) -> None:
    DATA.to_csv(tmp_path / "train.csv", index=False)
    arguments = ["expectations", "profile", str(tmp_path / "train.csv"), "-o", str(tmp_path / "suite.yaml")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    suite = Suite.model_validate(yaml.safe_load((tmp_path / "suite.yaml").read_text(encoding="utf-8")))
    assert (suite.name, suite.reviewed) == ("suite", False)
    assert isinstance(CliRunner().invoke(app, arguments).exception, ConflictError)
    assert CliRunner().invoke(app, [*arguments, "--force", "--format", "json"]).exit_code == 0


@pytest.mark.parametrize("content", ["", "a,b\n"])
def test_data_without_rows_makes_no_suite(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InvalidInputError):
        profile_suite(tmp_path / "x.csv", "s")


ROW: dict[str, object] = {
    "income": 50.0, "age": 30, "flag": 1, "region": "north", "gaps": None, "never": None, 'od"d': 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def checker() -> RowChecker:
    return RowChecker(profile(FrameSource(DATA)), LIMITS)


@pytest.mark.requirement("G-10")
def test_a_row_like_the_training_data_has_no_problem(checker: RowChecker) -> None:
    assert checker.check(ROW) == []
    assert checker.check({**ROW, "something else": "x"}) == []
    assert checker.check({**ROW, "age": np.int64(30), "income": np.float32(50)}) == []


@pytest.mark.requirement("G-10")
@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("income", 999_999.4, "out of range"),
        ("income", None, "missing"),
        ("income", math.nan, "missing"),
        ("income", math.inf, "not finite"),
        ("income", "50", "wrong type"),
        ("income", [50], "wrong type"),
        ("income", True, "wrong type"),
        ("income", 10**400, "wrong type"),
        ("region", "mars", "unknown value"),
        ("region", "", "unknown value"),
        ("region", 3, "unknown value"),
        ("flag", 666, "out of range"),
    ],
)
def test_a_row_that_is_not_says_why(checker: RowChecker, column: str, value: object, reason: str) -> None:
    problems = checker.check({**ROW, column: value})
    assert [(one.column, one.reason) for one in problems] == [(column, reason)]
    assert problems[0].text.startswith(f"{column}: {reason}; the training data")
    assert "999999" not in problems[0].text


def test_a_row_without_a_column_and_an_empty_profile_never_pass(checker: RowChecker) -> None:
    assert {one.reason for one in checker.check({})} == {"no such column"}
    with pytest.raises(InvalidInputError, match="accept anything"):
        RowChecker(TableProfile(rows=5, columns={}), LIMITS)
    with pytest.raises(InvalidInputError, match="accept anything"):
        RowChecker(profile(FrameSource(DATA.head(0))), LIMITS)
