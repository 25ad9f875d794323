"""The performance gate, against scikit-learn and against a bootstrap written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from airlock.core.evidence import Verdict
from airlock.gates.base import GateContext, Scores
from airlock.gates.performance import measure, weighted_metrics
from tests.support.gates import make_context, make_frame, make_manifest, make_scores, make_workload
from tests.support.judge import configuration, finding, judge, metric, table

pytestmark = pytest.mark.slow  # the libraries it asks take seconds

METRICS = ["accuracy", "precision", "recall", "f1", "roc_auc", "brier", "log_loss"]


def noisy(frame: pd.DataFrame, candidate: float, champion: float, *, alike: bool = True) -> Scores:
    """Scores that know the outcome, blurred by so much noise, the same for both models if alike."""
    rng = np.random.default_rng(11)
    blur = rng.normal(0, 1, len(frame))
    columns = {}
    for model, noise in (("candidate", candidate), ("champion", champion)):
        blur = blur if alike else rng.normal(0, 1, len(frame))
        score = 1 / (1 + np.exp(-(2 * frame["y"] - 1 + noise * blur)))
        columns |= {f"{model}_score": score, f"{model}_prediction": (score > 0.5).astype("int64")}
    return Scores(pd.DataFrame(columns), None, None, {})


def context(candidate: float, champion: float, rows: int = 400) -> GateContext:
    frame = make_frame(rows)
    return make_context(evaluation=frame, scores=noisy(frame, candidate, champion))


def by_sklearn(outcome: Any, score: Any, decision: Any, weight: Any = None) -> dict[str, float]:
    from sklearn import metrics

    return {
        "accuracy": metrics.accuracy_score(outcome, decision, sample_weight=weight),
        "precision": metrics.precision_score(outcome, decision, sample_weight=weight),
        "recall": metrics.recall_score(outcome, decision, sample_weight=weight),
        "f1": metrics.f1_score(outcome, decision, sample_weight=weight),
        "roc_auc": metrics.roc_auc_score(outcome, score, sample_weight=weight),
        "brier": metrics.brier_score_loss(outcome, score, sample_weight=weight),
        "log_loss": metrics.log_loss(outcome, score, sample_weight=weight),
    }


@pytest.mark.requirement("G-3")
def test_all_numbers_are_scikit_learns_for_both_models_on_the_same_rows() -> None:
    subject = context(1.0, 1.5)
    result, files = judge("performance", subject)
    scores, outcome = subject.scores().frame, subject.evaluation()["y"]
    for model, prefix in (("candidate", ""), ("champion", "champion.")):
        expected = by_sklearn(outcome, scores[f"{model}_score"], scores[f"{model}_prediction"])
        assert {name: metric(result, prefix + name).value for name in METRICS} == expected
        assert table(files, "performance.json")["metrics"][model] == expected
    assert metric(result, "roc_auc").engine.startswith("scikit-learn ")
    assert metric(result, "roc_auc").n == 400
    assert metric(result, "brier").direction == "lower"


@pytest.mark.parametrize("ties", [False, True])
def test_reweighted_metrics_are_scikit_learns(*, ties: bool) -> None:
    rng = np.random.default_rng(3)
    outcome = rng.integers(0, 2, 200).astype("float64")
    score = np.clip(outcome * 0.3 + rng.random(200) * 0.7, 0, 1)
    score = score.round(1) if ties else score
    decision = (score > 0.5).astype("float64")
    weights = rng.multinomial(200, np.full(200, 1 / 200), 25).astype("float64")
    ours = weighted_metrics(outcome, score, decision, weights)
    for index, weight in enumerate(weights):
        expected = by_sklearn(outcome, score, decision, weight)
        assert {name: ours[name][index] for name in METRICS} == pytest.approx(expected, rel=1e-9)


@pytest.mark.requirement("G-3")
def test_the_intervals_are_those_of_redrawn_rows() -> None:
    from sklearn.metrics import f1_score, roc_auc_score

    subject = context(1.0, 1.5, rows=300)
    result, _ = judge("performance", subject, bootstrap_replicates=2000, confidence=0.9)
    scores, outcome = subject.scores().frame, subject.evaluation()["y"].to_numpy()
    new, old, decision = (
        scores[name].to_numpy() for name in ("candidate_score", "champion_score", "candidate_prediction")
    )
    rng = np.random.default_rng(1)
    drawn: dict[str, list[float]] = {"roc_auc": [], "f1": [], "change": []}
    for rows in rng.integers(0, 300, (250, 300)):
        drawn["roc_auc"].append(roc_auc_score(outcome[rows], new[rows]))
        drawn["f1"].append(f1_score(outcome[rows], decision[rows]))
        drawn["change"].append(drawn["roc_auc"][-1] / roc_auc_score(outcome[rows], old[rows]) - 1)
    for name, where in (("roc_auc", ""), ("f1", ""), ("change", "roc_auc")):
        entry = metric(result, name, where)
        assert entry.confidence == 0.9
        assert entry.interval == pytest.approx(np.quantile(drawn[name], [0.05, 0.95]), abs=0.015)


def test_two_equal_models_differ_by_exactly_nothing() -> None:
    result, _ = judge("performance", make_context())
    change = metric(result, "change", "roc_auc")
    assert (change.value, change.interval) == (0, (0, 0))
    assert result.details["change"] == {"metric": "roc_auc", "relative": 0, "direction": "same"}
    assert result.verdict is Verdict.PASSED


@pytest.mark.requirement("G-3", "T-3")
@pytest.mark.parametrize(("candidate", "champion", "direction"), [(1.0, 2.0, "better"), (2.0, 1.0, "worse")])
@pytest.mark.parametrize("primary", ["roc_auc", "log_loss"])
def test_the_change_is_a_fact_for_the_policy(
    candidate: float, champion: float, direction: str, primary: str
) -> None:
    result, _ = judge("performance", context(candidate, champion), primary_metric=primary)
    new, old = metric(result, primary).value, metric(result, f"champion.{primary}").value
    assert new is not None
    assert old is not None
    change = result.details["change"]
    assert change["direction"] == direction
    assert change["relative"] == pytest.approx(abs(new - old) / old)
    assert change["relative"] > 0


@pytest.mark.requirement("G-3", "T-3")
def test_a_change_of_exactly_the_limit_is_exactly_that_number() -> None:
    """1 - 0.95 is 0.050000000000000044 to a computer, and a rule would call it above 0.05."""
    frame = make_frame(200)
    wrong = frame["y"].where(frame.index < 190, 1 - frame["y"])
    columns = {"candidate_prediction": wrong, "candidate_score": wrong * 1.0}
    columns |= {"champion_prediction": frame["y"], "champion_score": frame["y"] * 1.0}
    subject = make_context(evaluation=frame, scores=Scores(pd.DataFrame(columns), None, None, {}))
    result, _ = judge("performance", subject, primary_metric="accuracy")
    assert result.details["change"] == {"metric": "accuracy", "relative": 0.05, "direction": "worse"}
    assert result.verdict is Verdict.PASSED


@pytest.mark.requirement("G-3")
def test_a_candidate_much_worse_than_the_champion_fails() -> None:
    result, _ = judge("performance", context(2.5, 0.8))
    assert result.verdict is Verdict.FAILED
    found = finding(result, "worse_than_champion")
    assert "ROC AUC falls from" in found.message
    assert "limit 5.0 %" in found.message
    assert result.summary.startswith("ROC AUC falls from")
    assert found.fix


@pytest.mark.requirement("G-3")
def test_a_much_better_candidate_does_not_fail() -> None:
    result, _ = judge("performance", context(0.8, 2.5))
    assert result.verdict is Verdict.PASSED
    assert "better than the champion's" in result.summary


@pytest.mark.requirement("G-3")
def test_an_uncertain_change_informs_and_lets_a_small_refit_through() -> None:
    frame = make_frame(120)
    subject = make_context(evaluation=frame, scores=noisy(frame, 1.0, 1.0, alike=False))
    result, _ = judge("performance", subject)
    change = metric(result, "change", "roc_auc")
    assert change.interval is not None
    assert change.value is not None
    assert change.interval[0] < -0.05 <= change.value
    assert finding(result, "uncertain_change").verdict is Verdict.PASSED
    assert result.verdict is Verdict.PASSED


@pytest.mark.requirement("G-3")
def test_a_floor_that_is_missed_fails_and_names_both_numbers() -> None:
    result, _ = judge("performance", context(2.0, 2.0), floors={"accuracy": 0.9, "brier": 0.1})
    assert result.verdict is Verdict.FAILED
    messages = [found.message for found in result.findings if found.id == "floor"]
    assert any(
        text.startswith("accuracy is 0.") and text.endswith("below its floor of 0.9") for text in messages
    )
    assert any(
        text.startswith("Brier score is 0.") and text.endswith("above its limit of 0.1") for text in messages
    )
    assert metric(result, "accuracy").threshold == 0.9


def test_without_a_champion_only_the_floors_count() -> None:
    subject = make_context(manifest=make_manifest(make_workload(), champion=False))
    result, files = judge("performance", subject)
    assert result.verdict is Verdict.PASSED
    assert "change" not in result.details
    assert table(files, "performance.json")["change"] is None
    assert "no champion" in result.summary


def test_one_outcome_only_is_judged_by_what_is_still_defined() -> None:
    frame = make_frame().assign(y=1)
    subject = make_context(evaluation=frame, scores=make_scores(frame))
    result, _ = judge("performance", subject, primary_metric="accuracy", floors={"accuracy": 0.1})
    assert result.verdict.allows
    assert metric(result, "roc_auc").value is None
    assert metric(result, "roc_auc").interval is None
    undefined, _ = judge("performance", subject, primary_metric="accuracy", floors={"roc_auc": 0.1})
    assert undefined.verdict is Verdict.ERROR
    assert finding(undefined, "undefined").where == "roc_auc"


def test_metrics_that_need_an_event_are_undefined_without_it() -> None:
    zeros, half = np.zeros(10), np.full(10, 0.5)
    values = measure(zeros, half, zeros)
    assert {name for name, value in values.items() if value is None} == {
        "precision",
        "recall",
        "f1",
        "roc_auc",
    }
    assert measure(np.array([0.0, 1.0]), half[:2], zeros[:2])["f1"] == 0


@pytest.mark.requirement("G-3")
def test_every_protected_group_is_a_slice() -> None:
    subject = context(1.0, 1.5)
    subject.evaluation()["group"] = subject.evaluation()["group"].astype("float64")
    subject.evaluation().loc[:4, "group"] = np.nan
    result, files = judge("performance", subject)
    slices = table(files, "performance.json")["slices"]
    assert [entry["group"] for entry in slices] == ["group A", "group B", "missing"]
    assert sum(entry["n"] for entry in slices) == 400
    rows = subject.evaluation()["group"] == 1
    scores = subject.scores().frame[rows]
    expected = by_sklearn(
        subject.evaluation()["y"][rows], scores["candidate_score"], scores["candidate_prediction"]
    )
    assert metric(result, "slice.accuracy", "group: group B").value == expected["accuracy"]
    assert metric(result, "slice.roc_auc", "group: group B").value == expected["roc_auc"]
    assert metric(result, "slice.roc_auc", "group: group B").n == rows.sum()
    assert metric(result, "slice.roc_auc", "group: group B").threshold is None


@pytest.mark.parametrize(
    "change",
    [
        {"floors": {}},
        {"floors": {"luck": 1}},
        {"primary_metric": "luck"},
        {"bootstrap_replicates": 100, "confidence": 0.99},
        {"maximum_worsening": -0.1},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configuration("performance", **change)
