"""The drift gate, against Evidently, against scipy and against PSI by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airlock.core.evidence import GateResult, Verdict
from airlock.core.workload import ModelSpec
from airlock.gates.drift import Config, bin_counts, evidently_psi, psi_noise, psi_of_counts
from tests.support.gates import make_context, make_frame, make_manifest, make_scores, make_workload
from tests.support.judge import configuration, finding, judge, metric, table

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
    result, files = judge("drift", context, **changes)
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


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize("name", SAMPLES)
def test_our_bins_are_evidentlys(name: str) -> None:
    current, reference = (pd.Series(values, dtype="float64") for values in SAMPLES[name])
    ours = float(psi_of_counts(*bin_counts(current, reference)))
    assert ours == pytest.approx(evidently_psi({"x": (current, reference)})["x"], rel=1e-12, abs=1e-15)


@pytest.mark.requirement("G-4")
def test_the_reported_numbers_are_what_evidently_says_about_the_frames() -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    current, training = make_frame(500, seed=1), make_frame(900, seed=2)
    result, _ = judge("drift", make_context(evaluation=current, training=training))
    definition = DataDefinition(numerical_columns=["income", "debt"])
    report = Report([ValueDrift(column=name, method="psi") for name in ("income", "debt")])
    snapshot = report.run(
        Dataset.from_pandas(current[["income", "debt"]], data_definition=definition),
        Dataset.from_pandas(training[["income", "debt"]], data_definition=definition),
    )
    expected = {entry["config"]["column"]: entry["value"] for entry in snapshot.dict()["metrics"]}
    assert {name: metric(result, "psi", name).value for name in expected} == expected
    assert metric(result, "psi", "income").engine.startswith("evidently ")


@pytest.mark.requirement("G-4")
def test_psi_by_hand() -> None:
    reference = [0.0] * 500 + [1.0] * 500
    current = [0.0] * 160 + [1.0] * 40
    result, _ = compare({"x": current}, {"x": reference})
    expected = (0.5 - 0.8) * math.log(0.5 / 0.8) + (0.5 - 0.2) * math.log(0.5 / 0.2)
    assert metric(result, "psi", "x").value == pytest.approx(expected, rel=1e-12)
    assert metric(result, "psi", "x").n == 200


def test_an_empty_bin_counts_as_one_in_ten_thousand() -> None:
    expected = (0.5 - 1e-4) * math.log(0.5 / 1e-4) + (0.5 - 1.0) * math.log(0.5 / 1.0)
    assert float(psi_of_counts(np.array([5, 5]), np.array([0, 7]))) == pytest.approx(expected)


@pytest.mark.requirement("G-4")
def test_the_ks_statistic_is_scipys_and_decides_nothing() -> None:
    from scipy.stats import ks_2samp

    current, reference = SAMPLES["shifted"]
    result, _ = compare({"x": current}, {"x": reference})
    entry = metric(result, "ks_statistic", "x")
    assert entry.value == pytest.approx(ks_2samp(current, reference).statistic, abs=1e-12)
    assert entry.threshold is None


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
            assert "chance alone gives up to" in finding(result, "drift_uncertain").message
    assert above >= 15
    assert alarms <= 4  # 5 % of 20 is expected


@pytest.mark.requirement("G-4")
def test_many_rows_of_the_same_population_do_not_drift() -> None:
    result, _ = compare({"x": normal(60_000, 1)}, {"x": normal(60_000, 2, 0.05)})
    assert result.verdict is Verdict.PASSED  # Kolmogorov and Smirnov would give p < 1e-12


def test_the_noise_is_that_of_shuffled_rows() -> None:
    rng = np.random.default_rng(5)
    current, reference = pd.Series(rng.normal(0, 1, 150)), pd.Series(rng.normal(0.2, 1, 350))
    config: Config = configuration("drift", permutations=4000, confidence=0.9)
    noise = psi_noise(*bin_counts(current, reference), config, rng)
    rows = np.concatenate([current, reference])
    shuffled = []
    for _ in range(2000):
        rng.shuffle(rows)
        shuffled.append(psi_of_counts(*bin_counts(pd.Series(rows[:150]), pd.Series(rows[150:]))))
    assert noise == pytest.approx(np.quantile(shuffled, 0.9), rel=0.06)


@pytest.mark.requirement("G-4")
def test_a_code_among_the_values_does_not_blind_it() -> None:
    """999999.4 in one row leaves all true values in one equal-width bin, where any shift is invisible."""
    current, reference = normal(400, 1, 1.0), normal(800, 2)
    current[0] = 999_999.4
    blind = evidently_psi({"x": (pd.Series(current), pd.Series(reference))})["x"]
    assert blind < 0.05
    result, attached = compare({"x": current}, {"x": reference})
    assert attached["features"][0]["bins"] == "training deciles"
    assert metric(result, "psi", "x").value > 0.5
    assert attached["drifted"] == ["x"]


@pytest.mark.requirement("G-4")
def test_values_that_disappear_are_drift() -> None:
    current, reference = normal(400, 1), normal(400, 2)
    current[:120] = np.nan
    result, attached = compare({"x": current}, {"x": reference})
    assert "x: missing values went from 0.0 % to 30.0 %" in finding(result, "drifted").message
    assert attached["features"][0]["missing"] == [0.3, 0]
    assert metric(result, "psi", "x").value < 0.1
    assert metric(result, "psi", "x").n == 280


def test_a_feature_with_too_few_values_is_not_judged() -> None:
    empty = np.full(400, np.nan)
    result, _ = compare({"x": empty, "z": normal(400, 1)}, {"x": empty, "z": normal(400, 2)})
    assert result.verdict is Verdict.WARNED
    assert "cannot tell for x" in finding(result, "feature_unmeasurable").message
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
    assert attached["features"][2]["missing"] == [0.005, 0]


def test_a_feature_that_turned_into_text_is_compared_as_text() -> None:
    result, _ = compare({"x": ["1", "2"] * 100}, {"x": [1, 2] * 100})
    assert metric(result, "psi", "x").value == 0


@pytest.mark.requirement("G-4")
def test_evidently_gets_a_fixed_sample_of_large_data() -> None:
    current, reference = {"x": normal(3000, 1)}, {"x": normal(5000, 2)}
    result, attached = compare(current, reference, report_rows=1000)
    again, _ = compare(current, reference, report_rows=1000)
    assert attached["compared"] == {"evaluation": 1000, "training": 1000}
    assert attached["rows"] == {"evaluation": 3000, "training": 5000}
    assert metric(result, "psi", "x").n == 1000
    assert result.to_bytes() == again.to_bytes()


@pytest.mark.requirement("G-4")
def test_the_scores_of_both_models_are_compared() -> None:
    frame = make_frame()
    scores = make_scores(frame)
    moved = scores.frame.assign(candidate_score=scores.frame["candidate_score"] ** 3)
    scores.frame.loc[:, "candidate_score"] = moved["candidate_score"]
    result, _ = judge("drift", make_context(evaluation=frame, scores=scores))
    expected = evidently_psi({"p": (moved["candidate_score"], moved["champion_score"])})["p"]
    assert metric(result, "prediction_psi").value == pytest.approx(expected, rel=1e-12)
    assert metric(result, "prediction_psi").threshold is None
    assert result.verdict is Verdict.PASSED


def test_without_a_champion_there_is_no_comparison_of_scores() -> None:
    context = make_context(manifest=make_manifest(make_workload(), champion=False))
    result, files = judge("drift", context)
    assert "prediction_psi" not in {entry.name for entry in result.metrics}
    assert table(files, "drift.json")["prediction_psi"] is None
