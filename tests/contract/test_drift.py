"""The drift gate, against Evidently, against scipy and against PSI by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airlock.core.evidence import GateResult, Verdict
from airlock.core.workload import ModelSpec
from airlock.profiles.compare import compare as measure
from airlock.profiles.effects import psi_interval
from airlock.profiles.source import FrameSource
from tests.support.gates import make_context, make_frame, make_manifest, make_scores, make_workload
from tests.support.judge import finding, judge, metric, table

pytestmark = pytest.mark.slow  # the libraries it asks take seconds


def compare(
    current: dict[str, Any], reference: dict[str, Any], **changes: Any
) -> tuple[GateResult, dict[str, Any]]:
    """Judge two data sets whose columns are the features."""
    now, before = pd.DataFrame(current), pd.DataFrame(reference)
    workload = make_workload(model=ModelSpec(registered_model="m", target="y", features=list(now.columns)))
    score = np.linspace(0.01, 0.99, len(now))
    scores = make_scores(make_frame(len(now)))
    scores.frame[["candidate_score", "champion_score"]] = np.column_stack([score, score])
    context = make_context(evaluation=now, training=before, workload=workload, scores=scores)
    result, files = judge("drift", context, **{"report_rows": 0, "classifier_rows": 0} | changes)
    return result, table(files, "drift.json")


def normal(rows: int, seed: int, shift: float = 0.0) -> Any:
    return np.random.default_rng(seed).normal(shift, 1, rows)


SAMPLES: dict[str, tuple[Any, Any]] = {
    "same": (normal(300, 1), normal(700, 2)),
    "shifted": (normal(300, 1, 1.0), normal(700, 2)),
    "far apart": (normal(300, 1, 9.0), normal(700, 2)),
    "heavy tail": (np.exp(3 * normal(300, 1)), np.exp(3 * normal(700, 2))),
    "counts": (np.arange(300.0) % 7, np.arange(700.0) % 5),
    "exactly 20 values": (np.arange(300.0) % 25, np.arange(700.0) % 20),
    "21 values": (np.arange(300.0) % 25, np.arange(700.0) % 21),
    "many rows": (np.r_[normal(15_000, 1), 50.0], normal(20_000, 2)),
}


def evidently(method: str, current: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """What Evidently says about each column, numbers as numbers."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    numeric = [name for name in current if current[name].dtype.kind in "iuf"]
    if method in ("ks", "wasserstein"):
        current, reference = current[numeric], reference[numeric]
    definition = DataDefinition(
        numerical_columns=numeric, categorical_columns=[name for name in current if name not in numeric]
    )
    report = Report([ValueDrift(column=name, method=method) for name in current], include_tests=False)
    sides = (Dataset.from_pandas(frame, data_definition=definition) for frame in (current, reference))
    measured = report.run(*sides).dict()["metrics"]
    return {entry["config"]["column"]: float(entry["value"]) for entry in measured}


def mixture(rows: int, seed: int) -> pd.DataFrame:
    """Numbers, whole numbers, codes, texts and gaps."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "normal": rng.normal(0.01 * seed, 1, rows),
            "skewed": np.exp(rng.normal(0, 1, rows)),
            "gaps": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(0, 1, rows)),
            "whole": rng.integers(0, 60, rows),
            "narrow": rng.integers(0, 24, rows),
            "whole with gaps": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(0, 24, rows)),
            "few": rng.integers(0, 5, rows).astype("float64"),
            "text": rng.choice(["a", "b", "ü", "d"], rows, p=[0.4, 0.3, 0.2, 0.1]),
            "infinite": np.where(rng.random(rows) < 0.01, np.inf, rng.normal(0, 1, rows)),
        }
    )


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize(("rows", "others"), [(300, 700), (5000, 3000), (150_000, 150_000)])
def test_the_numbers_are_evidentlys(rows: int, others: int) -> None:
    current, reference = mixture(rows, 1), mixture(others, 2)
    ours = {
        one.column: one
        for one in measure(FrameSource(reference), FrameSource(current), list(current.columns))
    }
    for method, digits in (("psi", 1e-9), ("jensenshannon", 1e-9), ("wasserstein", 1e-6)):
        for name, value in evidently(method, current, reference).items():
            assert getattr(ours[name], method) == pytest.approx(value, abs=digits), (method, name)


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize("name", SAMPLES)
def test_psi_is_evidentlys_for_samples_of_many_shapes(name: str) -> None:
    current, reference = (pd.DataFrame({"x": pd.Series(values, dtype="float64")}) for values in SAMPLES[name])
    ours = measure(FrameSource(reference), FrameSource(current), ["x"])[0].psi
    assert ours == pytest.approx(evidently("psi", current, reference)["x"], abs=1e-12)


@pytest.mark.requirement("G-4")
def test_psi_by_hand() -> None:
    reference = [0.0] * 500 + [1.0] * 500
    current = [0.0] * 160 + [1.0] * 40
    result, _ = compare({"x": current}, {"x": reference})
    expected = (0.5 - 0.8) * math.log(0.5 / 0.8) + (0.5 - 0.2) * math.log(0.5 / 0.2)
    assert metric(result, "psi", "x").value == pytest.approx(expected, rel=1e-12)
    assert metric(result, "psi", "x").n == 200


@pytest.mark.requirement("G-4")
def test_the_ks_statistic_is_scipys_and_decides_nothing_by_default() -> None:
    from scipy.stats import ks_2samp

    current, reference = SAMPLES["shifted"]
    result, _ = compare({"x": current}, {"x": reference})
    entry = metric(result, "ks", "x")
    assert entry.value == pytest.approx(ks_2samp(current, reference).statistic, abs=1e-12)
    assert entry.threshold is None


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize(("name", "limit"), [("ks", 0.1), ("wasserstein", 0.2), ("jensenshannon", 0.08)])
def test_any_effect_can_have_a_limit(name: str, limit: float) -> None:
    data = {"x": normal(5000, 1, 0.3)}, {"x": normal(5000, 2)}
    assert compare(*data)[0].verdict is Verdict.PASSED
    result, _ = compare(*data, **{name: limit})
    assert result.verdict is Verdict.FAILED
    assert metric(result, name, "x").threshold == limit


@pytest.mark.requirement("G-4")
def test_a_single_drifted_feature_warns_and_too_many_fail() -> None:
    current = {"a": normal(500, 1, 2.0), "b": normal(500, 2), "c": normal(500, 3)}
    reference = {"a": normal(500, 4), "b": normal(500, 5), "c": normal(500, 6)}
    warned, _ = compare(current, reference, maximum_drift_share=0.34)
    assert warned.verdict is Verdict.WARNED
    assert finding(warned, "drifted").where == "a"
    failed, _ = compare(current, reference, maximum_drift_share=0.33)
    assert failed.verdict is Verdict.FAILED
    assert failed.details["drifted"] == ["a"]
    assert (
        "1 of 3 features no longer look like the training data (33.3 %, limit 33.0 %): a." in failed.summary
    )


@pytest.mark.requirement("G-4")
def test_few_rows_of_the_same_population_do_not_drift() -> None:
    """A fixed PSI limit alone would call this drift: with 20 values and 100 rows chance gives 0.4."""
    reference = {"x": np.random.default_rng(1).integers(0, 20, 100)}
    above = alarms = 0
    for seed in range(20):
        current = {"x": np.random.default_rng(100 + seed).integers(0, 20, 100)}
        result, _ = compare(current, reference, psi=0.2)
        above += metric(result, "psi", "x").value > 0.2
        alarms += result.verdict is Verdict.FAILED
        if result.verdict is Verdict.WARNED:
            unsure = finding(result, "cannot_tell.drifted")
            assert "cannot tell for x" in unsure.message
            assert "evaluate on about " in unsure.fix
    assert above >= 15
    assert alarms <= 4  # 5 % of 20 is expected


@pytest.mark.requirement("G-4")
def test_many_rows_of_the_same_population_do_not_drift() -> None:
    result, _ = compare({"x": normal(60_000, 1)}, {"x": normal(60_000, 2, 0.05)})
    assert result.verdict is Verdict.PASSED
    assert metric(result, "p_value", "x").value < 1e-9  # a test alone would have called it drift


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 0.6, 2.0])
def test_a_copy_of_all_rows_changes_no_verdict(shift: float) -> None:
    current, reference = normal(4000, 1, shift), normal(6000, 2)
    once, _ = compare({"x": current, "z": normal(4000, 3)}, {"x": reference, "z": normal(6000, 4)})
    twice, _ = compare(
        {"x": np.repeat(current, 2), "z": np.repeat(normal(4000, 3), 2)},
        {"x": np.repeat(reference, 2), "z": np.repeat(normal(6000, 4), 2)},
    )
    assert once.verdict is twice.verdict
    assert once.details == twice.details


@pytest.mark.requirement("G-4")
def test_of_many_features_that_did_not_move_none_is_called_drifted() -> None:
    reference = {f"x{i}": np.random.default_rng(i).integers(0, 12, 150) for i in range(60)}
    current = {f"x{i}": np.random.default_rng(1000 + i).integers(0, 12, 150) for i in range(60)}
    result, attached = compare(current, reference, psi=0.05)
    alone = [one for one in attached["features"] if one["chi_square"][2] <= 0.05]
    assert alone  # three of 60 are expected
    assert attached["drifted"] == []
    assert result.verdict is Verdict.WARNED


def test_the_interval_of_psi_covers_the_truth() -> None:
    """Shares 0.5, 0.3, 0.2 against 0.4, 0.35, 0.25: the true PSI is known."""
    before, now = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.35, 0.25])
    truth = float(((before - now) * np.log(before / now)).sum())
    rng, covered = np.random.default_rng(3), 0
    for _ in range(400):
        counts = rng.multinomial(800, before), rng.multinomial(600, now)
        shares = [count / count.sum() for count in counts]
        value = float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())
        low, high = psi_interval(value, 2, (800, 600), 0.9)
        covered += low <= truth <= high
    assert 0.85 <= covered / 400 <= 0.95


@pytest.mark.requirement("G-4")
def test_a_code_among_the_values_does_not_blind_it() -> None:
    """999999.4 in one row leaves all true values in one equal-width bin, where any shift is invisible."""
    current, reference = normal(400, 1, 1.0), normal(800, 2)
    current[0] = 999_999.4
    result, attached = compare({"x": current}, {"x": reference})
    assert metric(result, "psi", "x").value < 0.05
    assert metric(result, "psi_deciles", "x").value > 0.5
    assert attached["drifted"] == ["x"]


@pytest.mark.requirement("G-4")
def test_values_that_disappear_are_drift() -> None:
    current, reference = normal(400, 1), normal(400, 2)
    current[:120] = np.nan
    result, attached = compare({"x": current}, {"x": reference})
    assert "x: missing values went from 0.0 % to 30.0 %" in finding(result, "drifted").message
    assert attached["features"][0]["missing"] == [0, pytest.approx(0.3)]
    assert metric(result, "missing_share", "x").value == pytest.approx(0.3)
    assert metric(result, "psi", "x").value < 0.1
    assert metric(result, "psi", "x").n == 280


def test_a_feature_with_too_few_values_is_not_judged() -> None:
    empty = np.full(400, np.nan)
    result, _ = compare({"x": empty, "z": normal(400, 1)}, {"x": empty, "z": normal(400, 2)})
    assert result.verdict is Verdict.WARNED
    assert "cannot tell for x" in finding(result, "cannot_tell.feature").message
    assert metric(result, "psi", "x").value is None
    assert metric(result, "drift_share").n == 1


def test_text_booleans_and_infinities_are_compared() -> None:
    current = {"t": ["a", "b"] * 100, "b": [True, False] * 100, "i": [math.inf, *normal(199, 1)]}
    reference = {"t": ["a", "a", "c", "b"] * 50, "b": [True, False] * 100, "i": normal(200, 2)}
    result, attached = compare(current, reference)
    shares = [(0.5, 0.5), (0.25, 0.5), (0.25, 1e-4)]
    expected = sum((before - now) * math.log(before / now) for before, now in shares)
    assert metric(result, "psi", "t").value == pytest.approx(expected)
    assert metric(result, "psi", "b").value == 0
    assert attached["features"][2]["missing"] == [0, pytest.approx(0.005)]


def test_a_feature_that_turned_into_text_is_compared_as_text() -> None:
    result, _ = compare({"x": ["1", "2"] * 100}, {"x": [1, 2] * 100})
    assert metric(result, "psi", "x").value == 0


@pytest.mark.requirement("G-4")
def test_features_that_move_together_only_are_drift_too() -> None:
    rng = np.random.default_rng(11)
    a, c = rng.normal(0, 1, 3000), rng.normal(0, 1, 3000)
    reference = {"a": a, "b": a + rng.normal(0, 0.3, 3000)}
    current = {"a": c, "b": rng.permutation(c + rng.normal(0, 0.3, 3000))}
    result, attached = compare(current, reference, classifier_rows=3000)
    assert attached["drifted"] == []
    assert result.verdict is Verdict.FAILED
    assert "an AUC of 0." in finding(result, "joint_drift").message
    entry = metric(result, "classifier_auc")
    assert entry.interval is not None
    assert entry.interval[0] > 0.65
    same, _ = compare(
        reference, {name: values[::-1] for name, values in reference.items()}, classifier_rows=3000
    )
    assert same.verdict is Verdict.PASSED


@pytest.mark.requirement("G-4")
def test_evidentlys_report_is_drawn_on_a_fixed_sample() -> None:
    def run() -> tuple[GateResult, dict[str, bytes]]:
        current, reference = mixture(3000, 1), mixture(5000, 2)
        workload = make_workload(
            model=ModelSpec(registered_model="m", target="y", features=list(current.columns))
        )
        scores = make_scores(make_frame(3000))
        context = make_context(evaluation=current, training=reference, workload=workload, scores=scores)
        return judge("drift", context, report_rows=1000)

    result, files = run()
    again, same = run()
    page = files["evidently.html"]
    assert b"<html" in page
    assert page == same["evidently.html"]
    assert result.to_bytes() == again.to_bytes()
    assert metric(result, "psi", "normal").n == 3000  # the numbers come from all rows


@pytest.mark.requirement("G-4")
def test_the_report_is_the_page_of_evidentlys_preset() -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    from airlock.profiles import evidently_report

    frames = [mixture(400, seed)[["normal", "few", "text"]] for seed in (1, 2)]
    definition = DataDefinition(numerical_columns=["normal", "few"], categorical_columns=["text"])
    preset = DataDriftPreset(num_method="psi", cat_method="psi", num_threshold=0.2, cat_threshold=0.2)
    sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
    page = Report([preset], include_tests=False).run(*sides).get_html_str(as_iframe=False).encode()
    ours = evidently_report.drift_report(frames[1], frames[0], 0.2)
    assert b"DATA DRIFT" in ours.upper()
    assert ours == evidently_report.same_identifiers(page)


@pytest.mark.requirement("G-4")
def test_the_scores_of_both_models_are_compared() -> None:
    frame = make_frame()
    scores = make_scores(frame)
    moved = scores.frame.assign(candidate_score=scores.frame["candidate_score"] ** 3)
    scores.frame.loc[:, "candidate_score"] = moved["candidate_score"]
    result, _ = judge("drift", make_context(evaluation=frame, scores=scores), report_rows=0)
    sides = [pd.DataFrame({"p": moved[f"{model}_score"]}) for model in ("candidate", "champion")]
    entry = metric(result, "prediction_psi", "champion to candidate")
    assert entry.value == pytest.approx(evidently("psi", *sides)["p"], rel=1e-9)
    assert entry.threshold is None
    assert result.verdict is Verdict.PASSED


def test_without_a_champion_there_is_no_comparison_of_scores() -> None:
    context = make_context(manifest=make_manifest(make_workload(), champion=False))
    result, files = judge("drift", context, report_rows=0)
    assert "prediction_psi" not in {entry.name for entry in result.metrics}
    assert table(files, "drift.json")["prediction_psi"] is None


LOANAPP = pd.read_csv("data/loanapp.csv")


@pytest.mark.requirement("G-4")
def test_the_shift_between_counties_is_found() -> None:
    """KS of the loan-to-price ratio is 0.225 between the counties, as measured with SciPy."""
    named = ["loanprc", "price", "loanamt"]
    inside, outside = (LOANAPP[LOANAPP["suffolk"] == side][named] for side in (1, 0))
    result, _ = compare(inside.to_dict("list"), outside.to_dict("list"), ks=0.1)
    assert metric(result, "ks", "loanprc").value == pytest.approx(0.225, abs=5e-4)
    assert metric(result, "ks", "price").value == pytest.approx(0.216, abs=5e-4)
    assert result.details["drifted"] == named
    assert result.verdict is Verdict.FAILED


HOSTILE: dict[str, Callable[[], Any]] = {
    "constant": lambda: np.ones(400),
    "hundred thousand categories": lambda: [f"c{i}" for i in range(100_000)],
    "negative zero": lambda: np.where(np.arange(400) % 2, 0.0, -0.0),
    "huge": lambda: np.arange(-200.0, 200.0) * 8e305,
    "dates with zones": lambda: pd.date_range("2026-01-01", periods=400, tz="Asia/Tokyo"),
    "mixed": lambda: ["1", 2, None, 2.5] * 100,
    "lists": lambda: [[1, 2], [3]] * 200,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_strange_columns_give_an_answer(name: str) -> None:
    values = HOSTILE[name]()
    rows = len(values)
    text = {'größe"; DROP TABLE x; --': values}
    try:
        result, _ = compare(text, text)
    except Exception as error:  # noqa: BLE001  # only our own words are allowed
        pytest.fail(f"{type(error).__name__}: {error}")
    assert result.verdict is Verdict.PASSED, (rows, result.summary)
    shifted, _ = compare({"x": values}, {"x": ["other"] * rows})
    assert shifted.verdict is Verdict.FAILED
