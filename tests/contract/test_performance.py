"""The performance gate, against scikit-learn and against a bootstrap written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from airlock.core.columns import Task
from airlock.core.evidence import Verdict
from airlock.gates._measures import Uncertainty, _counted, delong, influence, measure
from airlock.gates._predictions import Predictions
from airlock.gates.base import GateContext, Scores
from tests.support.gates import make_context, make_frame, make_manifest, make_scores, make_workload
from tests.support.judge import configuration, finding, judge, metric, table

pytestmark = pytest.mark.slow  # the libraries it asks take seconds

METRICS = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "brier_score", "log_loss"]


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
        "balanced_accuracy": metrics.balanced_accuracy_score(outcome, decision, sample_weight=weight),
        "precision": metrics.precision_score(outcome, decision, sample_weight=weight),
        "recall": metrics.recall_score(outcome, decision, sample_weight=weight),
        "f1": metrics.f1_score(outcome, decision, sample_weight=weight),
        "roc_auc": metrics.roc_auc_score(outcome, score, sample_weight=weight),
        "brier_score": metrics.brier_score_loss(outcome, score, sample_weight=weight),
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
    assert metric(result, "brier_score").direction == "lower"


def predictions(
    outcome: Any, decision: Any, score: Any = None, task: Task = Task.BINARY, classes: list[str] | None = None
) -> Predictions:
    values = [
        None if part is None else np.asarray(part, dtype="float64") for part in (outcome, decision, score)
    ]
    return Predictions("candidate", task, values[0], values[1], values[2], classes or [])  # type: ignore[arg-type]


def test_counted_metrics_of_weighted_cells_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    outcome, decision = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    weights = rng.multinomial(200, np.full(200, 1 / 200), 25).astype("float64")
    ours = _counted(outcome, decision, weights, 2)
    for index, weight in enumerate(weights):
        expected = by_sklearn(outcome, decision * 0.5, decision, weight)
        for name in METRICS[:5]:
            assert ours[name][index] == pytest.approx(expected[name], rel=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_delongs_variance_is_the_sum_over_all_pairs(*, ties: bool) -> None:
    rng = np.random.default_rng(4)
    outcome = (rng.random(90) < 0.3).astype("float64")
    scores = [np.clip(outcome * 0.2 + rng.random(90) * 0.8, 0, 1) for _ in range(2)]
    scores = [score.round(1) for score in scores] if ties else scores
    areas, covariance = delong(outcome, scores)
    pairs = [
        (score[outcome == 1][:, None] > score[outcome == 0])
        + 0.5 * (score[outcome == 1][:, None] == score[outcome == 0])
        for score in scores
    ]
    assert areas == pytest.approx([one.mean() for one in pairs], rel=1e-12)
    above = np.cov([one.mean(axis=1) for one in pairs]) / pairs[0].shape[0]
    below = np.cov([one.mean(axis=0) for one in pairs]) / pairs[0].shape[1]
    assert np.allclose(covariance, above + below, rtol=1e-10)


@pytest.mark.parametrize("name", ["brier_score", "log_loss", "rmse", "mae", "r2"])
def test_the_influence_of_rows_gives_the_error_of_redrawn_rows(name: str) -> None:
    rng = np.random.default_rng(5)
    score = rng.uniform(0.05, 0.95, 500)
    outcome = (rng.random(500) < score).astype("float64")
    task = Task.BINARY if name in ("brier_score", "log_loss") else Task.REGRESSION
    decision = outcome if task is Task.BINARY else score
    subject = predictions(outcome, decision, score, task)
    effect = influence(subject, name)
    assert effect.mean() == pytest.approx(0, abs=1e-12)
    drawn = [measure(subject.where(rows))[name] for rows in rng.integers(0, 500, (300, 500))]
    assert np.std(np.array(drawn, dtype="float64")) == pytest.approx(
        np.sqrt((effect**2).mean() / 500), rel=0.15
    )


@pytest.mark.requirement("G-3")
def test_the_intervals_are_those_of_redrawn_rows() -> None:
    from sklearn.metrics import f1_score, roc_auc_score

    subject = context(1.0, 1.5, rows=300)
    result, _ = judge(
        "performance", subject, bootstrap_replicates=2000, confidence=0.9, floors={"brier_score": 0.5}
    )
    scores, outcome = subject.scores().frame, subject.evaluation()["y"].to_numpy()
    new, old, decision = (
        scores[name].to_numpy() for name in ("candidate_score", "champion_score", "candidate_prediction")
    )
    rng = np.random.default_rng(1)
    drawn: dict[str, list[float]] = {"roc_auc": [], "f1": [], "change": []}
    for rows in rng.integers(0, 300, (400, 300)):
        drawn["roc_auc"].append(roc_auc_score(outcome[rows], new[rows]))
        drawn["f1"].append(f1_score(outcome[rows], decision[rows]))
        drawn["change"].append(drawn["roc_auc"][-1] / roc_auc_score(outcome[rows], old[rows]) - 1)
    for name, where in (("roc_auc", ""), ("f1", ""), ("change", "roc_auc")):
        entry = metric(result, name, where)
        assert entry.confidence == 0.9
        assert entry.interval == pytest.approx(
            np.quantile(drawn[name], [0.025, 0.975]), abs=0.02
        )  # two limits


@pytest.mark.requirement("G-3")
def test_the_paired_tests_are_the_textbooks() -> None:
    from scipy.stats import norm
    from statsmodels.stats.contingency_tables import mcnemar

    rng = np.random.default_rng(9)
    outcome = rng.integers(0, 2, 300)
    right = rng.random((2, 300)) < np.array([[0.8], [0.75]])
    said = [np.where(one, outcome, 1 - outcome) for one in right]
    models = [predictions(outcome, one, one * 0.8 + rng.random(300) * 0.2) for one in said]
    spread = Uncertainty(models, [measure(model) for model in models], 0.95, 1000)
    counts = [
        [int((right[0] == a).astype(int) @ (right[1] == b)) for b in (True, False)] for a in (True, False)
    ]
    tested = spread.paired_test("accuracy")
    assert tested is not None
    assert tested[0] == pytest.approx(mcnemar(counts, exact=True).pvalue)
    areas, covariance = delong(models[0].outcome, [models[0].score, models[1].score])  # type: ignore[arg-type, list-item]
    z = (areas[0] - areas[1]) / np.sqrt(covariance[0][0] + covariance[1][1] - 2 * covariance[0][1])
    area = spread.paired_test("roc_auc")
    assert area is not None
    assert area[0] == pytest.approx(2 * norm.sf(abs(z)))


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
    assert result.verdict is Verdict.WARNED  # on its limit: the interval is on both sides
    point, _ = judge("performance", subject, primary_metric="accuracy", judge="point")
    assert "worse_than_champion" not in {found.id for found in point.findings}


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
    result, _ = judge("performance", context(0.8, 2.5), maximum_calibration_error=None)
    assert result.verdict is Verdict.PASSED
    assert "better than the champion's" in result.summary


@pytest.mark.requirement("G-3")
def test_a_change_nobody_can_tell_warns_and_says_how_many_rows_would_settle_it() -> None:
    frame = make_frame(120)
    subject = make_context(evaluation=frame, scores=noisy(frame, 1.0, 1.0, alike=False))
    result, _ = judge("performance", subject)
    change = metric(result, "change", "roc_auc")
    assert change.interval is not None
    assert change.value is not None
    assert change.interval[0] < -0.05 <= change.value
    found = finding(result, "cannot_tell.worse_than_champion")
    assert found.verdict is Verdict.WARNED
    assert "rows would settle it" in found.message
    point, _ = judge("performance", subject, judge="point")
    assert "worse_than_champion" not in {one.id for one in point.findings}


@pytest.mark.requirement("G-3")
def test_a_floor_that_is_missed_fails_and_names_both_numbers() -> None:
    result, _ = judge("performance", context(2.0, 2.0), floors={"accuracy": 0.9, "brier_score": 0.1})
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
    values = measure(predictions(zeros, zeros, half))
    assert {name for name, value in values.items() if value is None} == {
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
        "roc_auc",
    }
    assert measure(predictions([0, 1], zeros[:2], half[:2]))["f1"] == 0


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


def tabular(task: Task, outcome: Any, decision: Any, champion: Any = None, **scores: Any) -> GateContext:
    """Outcomes and decisions of any task, without scores unless they are given."""
    frame = make_frame(len(outcome)).assign(y=outcome)
    columns = {"candidate_prediction": decision, **scores}
    if champion is not None:
        columns["champion_prediction"] = champion
    subject = make_context(
        evaluation=frame,
        scores=Scores(pd.DataFrame(columns), None, None, {}),
        manifest=make_manifest(make_workload(), champion=champion is not None),
    )
    subject.task = task
    return subject


@pytest.mark.requirement("G-3")
def test_several_classes_are_judged_by_their_own_metrics() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(1)
    outcome = rng.choice(["cat", "dog", "eel"], 600, p=[0.5, 0.3, 0.2])
    chosen = np.where(rng.random(600) < 0.8, outcome, rng.choice(["cat", "dog", "eel"], 600))
    shares = rng.dirichlet([1, 1, 1], 600)
    columns = {
        f"candidate_score:{name}": shares[:, index] for index, name in enumerate(["cat", "dog", "eel"])
    }
    result, _ = judge("performance", tabular(Task.MULTICLASS, outcome, chosen, outcome, **columns))
    assert metric(result, "f1_macro").value == metrics.f1_score(outcome, chosen, average="macro")
    assert metric(result, "balanced_accuracy").value == pytest.approx(
        metrics.balanced_accuracy_score(outcome, chosen), rel=1e-12
    )
    assert metric(result, "log_loss").value == metrics.log_loss(outcome, shares)
    assert metric(result, "change", "f1_macro").value == pytest.approx(metric(result, "f1_macro").value - 1)  # type: ignore[operator]
    assert result.verdict is Verdict.FAILED
    assert "roc_auc" in finding(result, "not_applicable").message


@pytest.mark.requirement("G-3")
def test_a_regression_is_judged_by_its_errors() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(2)
    outcome = rng.normal(10, 3, 500)
    guess, worse = outcome + rng.normal(0, 1, 500), outcome + rng.normal(0, 2, 500)
    limits = {"primary_metric": "rmse", "floors": {"rmse": 1.5, "r2": 0.5}}
    result, _ = judge("performance", tabular(Task.REGRESSION, outcome, guess, worse), **limits)
    assert metric(result, "rmse").value == metrics.root_mean_squared_error(outcome, guess)
    assert metric(result, "r2").value == metrics.r2_score(outcome, guess)
    assert result.verdict.allows
    assert result.details["change"]["direction"] == "better"
    failed, _ = judge("performance", tabular(Task.REGRESSION, outcome, worse, guess), **limits)
    assert {"floor", "worse_than_champion"} <= {one.id for one in failed.findings}


def test_a_limit_that_no_metric_of_the_task_has_is_an_error_and_not_a_pass() -> None:
    subject = tabular(Task.REGRESSION, [1.0, 2.0] * 60, [1.0, 2.0] * 60)
    result, _ = judge("performance", subject, floors={"accuracy": 0.5})
    assert result.verdict is Verdict.ERROR
    assert "none of the floors (accuracy) is a metric of a regression model" in result.summary


def test_without_scores_only_decisions_are_judged_and_the_rest_is_told() -> None:
    subject = tabular(Task.BINARY, [0, 1] * 100, [0, 1] * 100)
    result, _ = judge("performance", subject, floors={"accuracy": 0.5})
    assert result.verdict is Verdict.PASSED
    assert "because no score is given" in finding(result, "no_scores").message
    result, _ = judge("performance", subject, floors={"roc_auc": 0.5})
    assert result.verdict is Verdict.ERROR
    assert "no score is given for it" in finding(result, "undefined").message


@pytest.mark.requirement("G-3")
def test_swapped_labels_fail() -> None:
    frame = make_frame(800)
    scores = make_scores(frame, champion=False)
    swapped = make_context(
        evaluation=frame.assign(y=1 - frame["y"]),
        scores=scores,
        manifest=make_manifest(make_workload(), champion=False),
    )
    result, _ = judge("performance", swapped)
    assert result.verdict is Verdict.FAILED
    assert metric(result, "roc_auc").value < 0.4  # type: ignore[operator]


@pytest.mark.requirement("G-3")
def test_probabilities_that_mean_something_else_warn() -> None:
    rng = np.random.default_rng(3)
    chance = rng.uniform(0.1, 0.9, 4000)
    outcome = (rng.random(4000) < chance).astype("int64")
    bold = chance**4
    for score, verdict in ((chance, Verdict.PASSED), (bold, Verdict.WARNED)):
        subject = tabular(Task.BINARY, outcome, (chance > 0.5) * 1, candidate_score=score)
        result, _ = judge("performance", subject, floors={"accuracy": 0.5})
        assert result.verdict is verdict
    assert "probabilities are off by 0." in finding(result, "calibration").message


@pytest.mark.requirement("G-3")
def test_a_slice_far_behind_warns_and_a_small_one_is_told() -> None:
    rng = np.random.default_rng(4)
    outcome = rng.integers(0, 2, 1040)
    group = np.repeat([0, 1, 2], [500, 500, 40])
    right = rng.random(1040) < np.where(group == 1, 0.6, 0.95)
    subject = tabular(Task.BINARY, outcome, np.where(right, outcome, 1 - outcome))
    subject.evaluation()["group"] = group
    result, _ = judge("performance", subject, primary_metric="accuracy", floors={"accuracy": 0.5})
    assert finding(result, "slice").where == "group: group B"
    assert finding(result, "cannot_tell.slice", "group: 2").message.endswith(
        "40 rows of the 50 that are needed"
    )


@pytest.mark.requirement("G-3")
def test_the_effect_of_a_moved_threshold_is_told() -> None:
    frame = make_frame(400)
    result, files = judge(
        "performance", make_context(evaluation=frame, scores=make_scores(frame, threshold=0.7))
    )
    effect = table(files, "performance.json")["threshold"]
    score = make_scores(frame).frame["candidate_score"]
    assert effect["decided_differently"] == pytest.approx(((score >= 0.5) != (score >= 0.7)).mean())
    assert "moves from 0.5 to 0.7" in finding(result, "threshold_change").message


def test_neither_the_order_of_rows_nor_a_copy_of_them_changes_a_value() -> None:
    subject = context(1.0, 1.5)
    order = np.random.default_rng(1).permutation(400)

    def values(rows: Any) -> dict[tuple[str, str], float]:
        other = make_context(
            evaluation=subject.evaluation().iloc[rows].reset_index(drop=True),
            scores=Scores(subject.scores().frame.iloc[rows].reset_index(drop=True), None, None, {}),
        )
        result, _ = judge("performance", other, floors={"accuracy": 0.5})
        return {
            (m.name, m.where): m.value for m in result.metrics if m.value is not None and m.name != "p_value"
        }

    plain = values(np.arange(400))
    assert values(order) == pytest.approx(plain, rel=1e-12)
    assert values(np.tile(np.arange(400), 2)) == pytest.approx(plain, rel=1e-12)
