"""Distances and sources, against SciPy, NumPy and each other. Evidently is asked in the contract tests."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from airlock.core.errors import InvalidInputError, NotFoundError
from airlock.profiles import distances, ordered
from airlock.profiles.compare import Comparison, compare
from airlock.profiles.ordered import Pair
from airlock.profiles.profile import profile
from airlock.profiles.source import FrameSource, Numbers, ParquetSource, open_source

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)
FEW = st.integers(-3, 3).map(float)
SAMPLES = st.one_of(
    hnp.arrays(np.float64, st.integers(1, 400), elements=FINITE),
    hnp.arrays(np.float64, st.integers(1, 400), elements=FEW),
    hnp.arrays(np.float64, st.integers(1, 3000), elements=FINITE, fill=FEW),
)


def measured(reference: Any, current: Any, **options: Any) -> Comparison:
    """Compare two lists of values."""
    before, now = (FrameSource(pd.DataFrame({"x": values})) for values in (reference, current))
    return compare(before, now, ["x"], **options)[0]


NONE = np.zeros(0, dtype=np.int64)


def far_apart(before: Any, now: Any, edges: Any = NONE, positions: Any = NONE) -> Pair:
    """Compare two samples through buckets, whatever their values."""
    ends = min(before.min(), now.min()), max(before.max(), now.max())
    return ordered.pair(before.copy(), now.copy(), ends, edges, positions)


@pytest.mark.requirement("G-4")
@given(SAMPLES, SAMPLES)
def test_ks_and_wasserstein_are_scipys(reference: Any, current: Any) -> None:
    pair, result = far_apart(reference, current), measured(reference, current)
    exact = ks_2samp(reference, current, method="asymp").statistic
    assert pair.kolmogorov_smirnov == pytest.approx(exact, abs=1e-12)
    assert result.ks == pytest.approx(exact, abs=1e-12)
    distance = wasserstein_distance(reference, current)
    assert pair.wasserstein == pytest.approx(distance, rel=1e-9, abs=1e-9)
    scale = max(0.001, np.std(reference))
    assert result.wasserstein == pytest.approx(distance / scale, rel=1e-7, abs=1e-7)


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize("shift", [0.0, 0.02, 0.5, 20.0])
@pytest.mark.parametrize(
    "rows",
    [(50_000, 50_000), (50_000, 49_999), (1, 50_000), (50_000, 3), (20_000, 60_000), (300_000, 200_000)],
)
def test_many_rows_are_exact_though_few_are_sorted(shift: float, rows: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    before, now = rng.normal(0, 1, rows[0]), rng.normal(shift, 1, rows[1])
    pair = far_apart(before, now)
    assert pair.kolmogorov_smirnov == pytest.approx(
        ks_2samp(before, now, method="asymp").statistic, abs=1e-12
    )
    assert pair.wasserstein == pytest.approx(wasserstein_distance(before, now), abs=1e-10)


def outliers(rng: Any, n: int) -> Any:
    values = rng.normal(5, 1, n)
    values[rng.integers(0, n, n // 5000 + 2)] = rng.choice([-1e150, 99999.0, 1e12, 1e300], n // 5000 + 2)
    return values


SHAPES: dict[str, Any] = {
    "outliers": outliers,
    "half zeros": lambda rng, n: np.where(rng.random(n) < 0.5, 0.0, rng.normal(0, 1, n)),
    "nearly all zeros": lambda rng, n: np.where(rng.random(n) < 0.97, 0.0, rng.normal(0, 1, n)),
    "whole numbers": lambda rng, n: rng.poisson(30, n).astype(float),
    "many whole numbers": lambda rng, n: rng.integers(-50_000, 50_000, n).astype(float),
    "prices": lambda rng, n: np.round(np.exp(rng.normal(3, 1, n)), 2),
    "few fractions": lambda rng, n: rng.integers(0, 7, n) / 10,
    "times": lambda rng, n: 1.7e9 + rng.normal(0, 1e5, n),
    "close together": lambda rng, n: 1e15 + rng.integers(0, 9, n) * 0.125,
    "heavy tails": lambda rng, n: rng.standard_cauchy(n) ** 3,
    "tiny": lambda rng, n: rng.normal(0, 1e-300, n),
    "one value and another far away": lambda rng, n: np.where(rng.random(n) < 0.999, 1.0, 1e9),
}


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize("moved", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_column_is_exact(shape: str, moved: float) -> None:
    """KS as SciPy has it, bins as NumPy has them, the area as SciPy has it as far as its sums are exact."""
    rng = np.random.default_rng(11)
    before, now = SHAPES[shape](rng, 90_000), SHAPES[shape](rng, 70_000)
    now = np.where(rng.random(len(now)) < moved, now * 1.01, now)
    result, ends = measured(before, now), (min(before.min(), now.min()), max(before.max(), now.max()))
    assert result.ks == pytest.approx(ks_2samp(before, now, method="asymp").statistic, abs=1e-12)
    assert result.table is not None
    if result.bins == "equal width":
        edges = distances.sturges_edges(*ends, len(before) + len(now), whole=False)
        assert result.table.labels == edges.tolist()
        assert result.table.reference.tolist() == np.histogram(before, edges)[0].tolist()
        assert result.table.current.tolist() == np.histogram(now, edges)[0].tolist()
    else:
        values, counts = np.unique(before, return_counts=True)
        assert result.table.reference[result.table.reference > 0].tolist() == counts.tolist()
        assert set(values) <= set(result.table.labels)
    pair = far_apart(before, now)
    assert pair.kolmogorov_smirnov == result.ks
    assert pair.wasserstein == pytest.approx(wasserstein_distance(before, now), rel=1e-6)
    deciles = np.quantile(before, np.arange(1, 10) / 10, method="inverted_cdf")
    positions = np.array([-(-len(before) * tenth // 10) - 1 for tenth in range(1, 10)])
    both = far_apart(before, now, positions=positions)
    assert both.reference.at(positions).tolist() == deciles.tolist()
    ranks = [both.reference.rank(deciles, "right"), both.current.rank(deciles, "left")]
    assert ranks[0].tolist() == np.searchsorted(np.sort(before), deciles, side="right").tolist()
    assert ranks[1].tolist() == np.searchsorted(np.sort(now), deciles, side="left").tolist()


@given(SAMPLES)
def test_a_sample_is_no_distance_from_itself(values: Any) -> None:
    pair = far_apart(values, values)
    assert (pair.kolmogorov_smirnov, pair.wasserstein) == (0, 0)
    assert (measured(values, values).ks, measured(values, values).wasserstein) == (0, 0)


def test_many_rows_in_another_order_are_no_distance_away() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, 300_000)
    pair = far_apart(values, rng.permutation(values))
    assert pair.kolmogorov_smirnov == 0
    assert pair.wasserstein == pytest.approx(0, abs=1e-12)


def test_a_value_beside_a_whole_number_is_not_taken_for_it() -> None:
    """Its distance from the smallest is rounded to a whole number, and a sample of rows does not show it."""
    now = np.resize([-1.0, 0.0], 200_000)
    before, rows = now.copy(), np.arange(len(now))
    now[(now == 0) & (rows % (len(now) // 4096) != 0)] = 1e-17
    assert measured(before, now).ks == pytest.approx(ks_2samp(before, now, method="asymp").statistic)


def test_a_range_narrower_than_its_cells_is_profiled() -> None:
    narrow = [5.025e-321, 5.0246e-320]
    histogram = profile(FrameSource(pd.DataFrame({"x": narrow}))).columns["x"].histogram
    assert histogram is not None
    assert (histogram.below, sum(histogram.cells), histogram.above) == (0, 2, 0)


def test_a_distance_that_is_no_number_of_deviations_is_none() -> None:
    assert measured(np.zeros(500), np.r_[np.zeros(400), np.full(100, 1e306)]).wasserstein is None
    assert measured([-1.7e308] * 9, [1.7e308] * 9).wasserstein is None


@given(hnp.arrays(np.float64, st.integers(1, 300), elements=FINITE), st.integers(2, 300))
def test_bins_are_numpys(values: Any, n: int) -> None:
    values = np.resize(values, max(n, len(values)))
    try:
        expected = np.histogram_bin_edges(values, bins="sturges")
    except ValueError:
        return  # too narrow a range for NumPy is too narrow for us
    edges = distances.sturges_edges(values.min(), values.max(), len(values), whole=False)
    assert edges.tolist() == expected.tolist()
    pair, expected = far_apart(values, values, edges), np.histogram(values, edges)[0]
    below = np.append(pair.reference.rank(edges[:-1], "left"), pair.reference.rank(edges[-1:], "right"))
    assert np.diff(below).tolist() == expected.tolist()
    table = measured(values, values).table
    assert table is not None
    if table.labels == edges.tolist():
        assert table.reference.tolist() == table.current.tolist() == expected.tolist()


@given(hnp.arrays(np.int64, st.integers(2, 300), elements=st.integers(-40, 40)))
def test_bins_of_whole_numbers_are_numpys(values: Any) -> None:
    edges = distances.sturges_edges(values.min(), values.max(), len(values), whole=True)
    assert edges.tolist() == np.histogram_bin_edges(values, bins="sturges").tolist()


COUNTS = hnp.arrays(np.int64, 6, elements=st.integers(5, 10_000))


@given(COUNTS, COUNTS)
def test_chi_square_is_scipys_where_no_bin_is_rare(reference: Any, current: Any) -> None:
    statistic, freedom, p = distances.chi_square(reference, current)
    table = np.stack([reference, current])
    expected = chi2_contingency(table, correction=False)
    if expected.expected_freq.min() >= 5:
        assert (statistic, freedom) == (pytest.approx(expected.statistic, abs=1e-9), 5)
        assert p == pytest.approx(expected.pvalue, abs=1e-12)
    else:
        assert freedom < 5
        assert 0 <= p <= 1


def test_without_two_bins_there_is_nothing_to_test() -> None:
    assert distances.chi_square(np.array([7, 0]), np.array([9, 0])) == (0.0, 0, 1.0)
    assert distances.chi_square(np.array([1, 1, 1]), np.array([1, 1, 0])) == (0.0, 0, 1.0)


@pytest.mark.requirement("G-4")
def test_many_rare_values_are_tested_too() -> None:
    """Put together they would be one bin, and nothing could ever be told about them."""
    rng = np.random.default_rng(4)
    same = [np.bincount(rng.integers(0, 2000, 900), minlength=2000).astype(np.int64) for _ in range(60)]
    used = [(a, b) for a, b in zip(same[::2], same[1::2], strict=True)]
    p_values = [distances.chi_square(a[a + b > 0], b[a + b > 0])[2] for a, b in used]
    assert sum(p <= 0.05 for p in p_values) <= 5
    unique = np.repeat([1, 0], 300).astype(np.int64)
    assert distances.chi_square(unique, unique[::-1])[2] == 1  # a number of its own for each row says nothing
    halves = np.repeat([3, 0], 300).astype(np.int64)
    assert distances.chi_square(halves, halves[::-1])[2] < 1e-9
    alone = np.r_[np.zeros(5000, dtype=np.int64), 167, 167, 166]
    assert distances.chi_square(alone, np.r_[np.full(5000, 20), 0, 0, 0])[2] < 1e-9


def of_many_values(current: Any, seed: int) -> tuple[Any, Any]:
    """50,000 rows of reference and 2,000 of current data; the reference has Zipf's shares of 3,000 values."""
    rng, shares = np.random.default_rng(seed), 1 / np.arange(1, 3001)
    before = rng.multinomial(50_000, shares / shares.sum())
    now = rng.multinomial(2000, current / current.sum())
    seen = before + now > 0
    return before[seen], now[seen]


@pytest.mark.requirement("G-4")
def test_what_moves_among_frequent_values_is_seen_beside_many_rare_ones() -> None:
    """One test of all values at once finds this in one trial of ten: the rare ones drown it."""
    shares = 1 / np.arange(1, 3001)
    moved = shares * np.where(np.arange(3000) % 2, 1.0, 1.6)
    found = [distances.chi_square(*of_many_values(moved, seed))[2] <= 0.05 for seed in range(20)]
    false = [distances.chi_square(*of_many_values(shares, 100 + seed))[2] <= 0.05 for seed in range(40)]
    assert sum(found) >= 16
    assert sum(false) <= 5


@pytest.mark.requirement("G-4")
def test_values_that_were_never_seen_before_are_seen() -> None:
    before, now = of_many_values(1 / np.arange(1, 3001), 1)
    new = np.ones(100, dtype=np.int64)
    assert distances.chi_square(np.r_[before, 0 * new], np.r_[now, new])[2] < 1e-6


@pytest.mark.requirement("G-4")
def test_psi_by_hand() -> None:
    result = measured(["a"] * 50 + ["b"] * 50, ["a"] * 80 + ["b"] * 20)
    assert result.psi == pytest.approx((0.5 - 0.8) * math.log(0.5 / 0.8) + (0.5 - 0.2) * math.log(0.5 / 0.2))
    assert result.psi == result.psi_deciles
    assert result.ks is None


@given(SAMPLES, SAMPLES)
def test_a_copy_of_all_rows_changes_no_effect_that_is_judged(reference: Any, current: Any) -> None:
    once = measured(reference, current)
    twice = measured(np.repeat(reference, 2), np.repeat(current, 2))
    for name in ("psi_deciles", "ks", "wasserstein"):
        assert getattr(twice, name) == pytest.approx(getattr(once, name), rel=1e-9, abs=1e-9)


@given(st.permutations(range(12)))
def test_the_order_of_rows_changes_nothing(order: list[int]) -> None:
    values: list[Any] = ["a", "b", None, "ü", "a", "", "b", "a", "c", "c", "d", "e"]
    other = values[:6] * 2
    assert measured(values, other) == measured([values[i] for i in order], other)


def test_names_and_order_of_columns_change_nothing() -> None:
    rng = np.random.default_rng(1)
    before, now = ({name: rng.normal(0, 1, 100) for name in "ab"} for _ in range(2))
    hostile = {"a": 'x"; DROP TABLE t; --', "b": "größe '\n"}
    plain = compare(FrameSource(pd.DataFrame(before)), FrameSource(pd.DataFrame(now)), ["a", "b"])
    frames = [pd.DataFrame({hostile[k]: values[k] for k in "ba"}) for values in (before, now)]
    other = compare(FrameSource(frames[0]), FrameSource(frames[1]), [hostile["a"], hostile["b"]])
    assert [vars(one) | {"column": "", "table": None} for one in plain] == [
        vars(one) | {"column": "", "table": None} for one in other
    ]


@pytest.mark.parametrize(
    ("values", "missing", "infinite"),
    [
        ([1.0, math.nan, 2.0], 1, 0),
        ([1.0, math.inf, -math.inf], 0, 2),
        ([None, None], 2, 0),
        ([-0.0, 0.0], 0, 0),
        ([1, 2, 3], 0, 0),
        ([], 0, 0),
        ([7.0], 0, 0),
    ],
)
def test_what_is_no_number_is_counted(values: list[Any], missing: int, infinite: int) -> None:
    source = FrameSource(pd.DataFrame({"x": pd.Series(values, dtype="float64")}))
    found = source.numbers("x")
    assert (found.rows, found.missing, found.infinite) == (len(values), missing, infinite)
    assert len(found.values) == len(values) - missing - infinite
    finite = sorted(value for value in values if value is not None and math.isfinite(value))
    assert sorted(found.values) == finite
    assert found.ends == ((finite[0], finite[-1]) if finite else None)


def test_negative_zero_is_zero() -> None:
    assert measured([0.0] * 30, [-0.0] * 30).psi == 0
    assert measured([0.0, 1.0] * 30, [-0.0, 1.0] * 30).ks == 0


def test_times_with_and_without_zone_are_compared_as_times() -> None:
    utc = pd.Series(pd.date_range("2026-01-01", periods=50, freq="h", tz="UTC"))
    berlin = utc.dt.tz_convert("Europe/Berlin")
    assert measured(utc, berlin).ks == 0
    assert measured([dt.date(2026, 1, 1)] * 9, [dt.date(2026, 1, 2)] * 9).ks == 1


def test_a_column_of_mixed_types_is_text() -> None:
    result = measured([1, "a", None, 2.0], [1.0, "a", "2", None])
    assert result.psi == 0
    assert result.missing == (0.25, 0.25)


def test_a_column_that_turned_into_text_is_compared_as_text() -> None:
    assert measured([1, 2] * 20, ["1", "2"] * 20).psi == 0
    assert measured([1.5, 2.0] * 20, ["1.5", "2"] * 20).psi == 0


@pytest.mark.parametrize("empty", [[], [None, None], [math.nan]])
def test_nothing_to_compare_gives_no_number(empty: list[Any]) -> None:
    column = pd.Series(empty, dtype="float64")
    result = measured(column, [1.0, 2.0])
    assert (result.psi, result.ks, result.bins) == (None, None, "none")
    assert measured([1.0, 2.0], column).psi is None


def test_a_constant_has_a_distance_too() -> None:
    assert measured([5.0] * 40, [5.0] * 40).psi == 0
    apart = measured([5.0] * 40, [6.0] * 40)
    assert (apart.ks, apart.wasserstein) == (1, 1000)  # Evidently divides by at least 0.001
    assert measured(np.arange(40.0), [5.0] * 40).psi is not None


def test_huge_ranges_and_narrow_ones_are_counted_by_value() -> None:
    wide = np.arange(-15.0, 15.0) * 1e307
    assert measured(wide, wide).bins == "values"
    narrow = 1e15 + np.arange(30) * 0.125
    assert measured(narrow, narrow).psi == 0


@pytest.mark.slow
def test_a_hundred_thousand_categories_are_counted() -> None:
    names = [f"größe {i}" for i in range(100_000)]
    result = measured(names, names[::-1])
    assert (result.psi, result.n) == (0, (100_000, 100_000))


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    columns = {
        "f": rng.normal(0, 1, 1000),
        "gap": np.where(rng.random(1000) < 0.1, np.nan, 1.0),
        "i": rng.integers(0, 90, 1000),
        "t": rng.choice(["a", "b", "ü", ""], 1000),
        "b": rng.random(1000) < 0.5,
        "d": pd.date_range("2026-01-01", periods=1000, freq="min"),
        'q"; drop': np.arange(1000.0),
    }
    return pd.DataFrame(columns)


def test_parquet_csv_and_frames_are_the_same_source(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["t"] = frame["t"].replace("", "c")  # CSV has no word for an empty text
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=300)
    frame.to_csv(tmp_path / "x.csv", index=False)
    for name in ("x.parquet", "x.csv"):
        with open_source(tmp_path / name) as source:
            assert source.rows() == 1000
            assert list(source.columns()) == list(frame.columns)
            for one in compare(FrameSource(frame), source, list(frame.columns)):
                assert one.psi == 0, one
                assert one.ks in (0, None)
                assert one.rows == (1000, 1000)


def test_a_folder_is_one_source(frame: pd.DataFrame, tmp_path: Path) -> None:
    for part in range(4):
        frame.iloc[part * 250 : part * 250 + 250].to_parquet(tmp_path / f"{part}.parquet")
    source = ParquetSource(tmp_path)
    assert source.rows() == 1000
    assert all(one.psi == 0 for one in compare(FrameSource(frame), source, list(frame.columns)))
    drawn = source.sample(["i", "f"], 100, seed=1)
    assert drawn.shape == (100, 2)
    pd.testing.assert_frame_equal(
        drawn, FrameSource(frame).sample(["i", "f"], 100, seed=1), check_dtype=False
    )
    frame.drop(columns="i").to_parquet(tmp_path / "9.parquet")
    with pytest.raises(InvalidInputError, match="differ from those of the first file"):
        ParquetSource(tmp_path).columns()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("x.parquet", b"", InvalidInputError),
        ("x.parquet", b"PAR1 no", InvalidInputError),
        ("x.csv", b"", InvalidInputError),
        ("x.csv", b'a,b\n1,2\n"3', InvalidInputError),
        ("x.xlsx", b"", InvalidInputError),
        ("absent.csv", None, NotFoundError),
        ("absent.parquet", None, NotFoundError),
    ],
)
def test_a_file_that_cannot_be_read_says_so(
    name: str, content: bytes | None, error: type[Exception], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    def read() -> None:
        with open_source(tmp_path / name) as source:
            source.columns()

    with pytest.raises(error):
        read()


def test_a_missing_column_and_one_that_is_there_twice_are_errors(frame: pd.DataFrame) -> None:
    with pytest.raises(NotFoundError, match="no column 'nope'"):
        compare(FrameSource(frame), FrameSource(frame), ["nope"])
    twice = pd.concat([frame[["f"]], frame[["f"]]], axis=1)
    with pytest.raises(InvalidInputError, match="there twice"):
        FrameSource(twice).columns()


def test_a_csv_reaches_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "a'b.csv").write_text("x\n1\n2\n")
    with open_source(tmp_path / "a'b.csv") as source:
        assert isinstance(source.numbers("x"), Numbers)
        assert list(source.numbers("x").values) == [1, 2]
