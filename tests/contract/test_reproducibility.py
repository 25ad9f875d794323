"""The reproducibility gate with a training command: the model is compared with itself, made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock.core.columns import Task
from airlock.core.declarations import TrainingSpec
from airlock.core.evidence import GateResult, Verdict
from airlock.gates.base import Retrained, Scores
from tests.support.gates import make_context, make_frame, make_manifest, make_scores, make_workload
from tests.support.judge import finding, judge, metric

pytestmark = pytest.mark.requirement("G-11")

COMMAND = ["python", "train.py", "{data}", "{model}"]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("scikit-learn==1.9.1\n")
    return tmp_path


def compare(
    artifact: Path,
    again: Retrained | None,
    *,
    scores: Scores | None = None,
    task: Task = Task.BINARY,
    spec: dict[str, Any] | None = None,
    **changes: Any,
) -> GateResult:
    workload = make_workload(training=TrainingSpec.model_validate({"command": COMMAND, **(spec or {})}))
    manifest = make_manifest(workload)
    candidate = manifest.candidate.model_copy(update={"metadata": {"seed": 0}})
    context = make_context(
        artifact=artifact,
        workload=workload,
        manifest=manifest.model_copy(update={"candidate": candidate}),
        scores=scores,
        retrained=again,
    )
    context.task = task
    return judge("reproducibility", context, **changes)[0]


def again(**columns: Any) -> Retrained:
    frame = make_scores(make_frame(), champion=False).frame
    return Retrained(frame.assign(**columns), {"seed": 0, "attempts": [], "code": "c" * 64})


def score() -> pd.Series[Any]:
    return make_scores(make_frame()).frame["candidate_score"]


def test_the_same_model_passes_and_the_numbers_are_told(artifact: Path) -> None:
    result = compare(artifact, again())
    assert result.verdict is Verdict.PASSED
    assert metric(result, "retrained_score_difference").value == 0
    assert metric(result, "retrained_decision_changes").value == 0
    assert metric(result, "retrained_decision_changes").n == 400
    assert "Trained again: of 400 rows 0.00% are decided differently" in result.summary
    assert result.details["retrained"]["code"] == "c" * 64


@pytest.mark.parametrize(("how", "verdict"), [("fail", Verdict.FAILED), ("warn", Verdict.WARNED)])
def test_another_model_is_told_with_its_distance(artifact: Path, how: str, verdict: Verdict) -> None:
    """A seed that was not fixed: scores move by some hundredths, and some decisions with them."""
    moved = (score() + np.random.default_rng(1).normal(0, 0.05, 400)).clip(0, 1)
    result = compare(
        artifact,
        again(candidate_score=moved, candidate_prediction=(moved >= 0.5).astype("int64")),
        other_model=how,
    )
    assert result.verdict is verdict
    assert "gives another model" in finding(result, "other-model").message
    largest = float((moved - score()).abs().max())
    assert metric(result, "retrained_score_difference").value == pytest.approx(largest)
    assert metric(result, "retrained_decision_changes").value == pytest.approx(
        ((moved >= 0.5) != (score() >= 0.5)).mean()
    )


def test_one_row_in_four_hundred_is_enough(artifact: Path) -> None:
    changed = score().copy()
    changed.iloc[7] += 0.01 if changed.iloc[7] < 0.5 else -0.01
    result = compare(artifact, again(candidate_score=changed))
    assert result.verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("promised", "verdict"), [(None, Verdict.PASSED), (0.02, Verdict.PASSED), (0.001, Verdict.FAILED)]
)
def test_the_workload_can_promise_more_than_the_policy_asks_and_never_less(
    artifact: Path, promised: float | None, verdict: Verdict
) -> None:
    moved = again(candidate_score=(score() + 0.01).clip(0, 1))
    result = compare(artifact, moved, spec={"tolerance": promised}, maximum_score_difference=0.02)
    assert result.verdict is verdict
    lax = compare(artifact, moved, spec={"tolerance": 0.5}, maximum_score_difference=0.001)
    assert lax.verdict is Verdict.FAILED


def test_a_command_that_failed_is_an_error_with_its_last_lines(artifact: Path) -> None:
    broken = Retrained(
        None, {}, problem="retrain could not be judged: it failed", fix="mend it\nepoch 1\nboom"
    )
    result = compare(artifact, broken)
    assert result.verdict is Verdict.ERROR
    assert "could not be trained again" in result.summary
    assert finding(result, "retraining").fix.endswith("boom")


def test_a_training_that_wanted_the_network_warns(artifact: Path) -> None:
    tried = Retrained(again().frame, {"attempts": ["connect to 10.0.0.1:443"]})
    result = compare(artifact, tried)
    assert result.verdict is Verdict.WARNED
    assert "connect to 10.0.0.1:443" in finding(result, "training-attempt").message


@pytest.mark.parametrize(
    ("rule", "verdict"), [("off", Verdict.PASSED), ("warn", Verdict.WARNED), ("fail", Verdict.FAILED)]
)
def test_policy_says_whether_a_command_must_be_given(artifact: Path, rule: str, verdict: Verdict) -> None:
    assert compare(artifact, None, without_command=rule).verdict is verdict


def test_classes_are_compared_by_their_names_and_all_their_probabilities(artifact: Path) -> None:
    rng = np.random.default_rng(2)
    shares = rng.dirichlet([1, 1, 1], 400)
    names = np.array(["a", "b", "c"], dtype=object)
    frame = pd.DataFrame({f"candidate_score:{name}": shares[:, i] for i, name in enumerate(names)})
    frame = frame.assign(candidate_score=shares[:, 0], candidate_prediction=names[shares.argmax(axis=1)])
    scores = Scores(frame, None, None, {})
    same = compare(artifact, Retrained(frame, {}), scores=scores, task=Task.MULTICLASS)
    assert same.verdict is Verdict.PASSED
    other = frame.assign(**{"candidate_score:c": shares[:, 2] + 0.1})
    result = compare(artifact, Retrained(other, {}), scores=scores, task=Task.MULTICLASS)
    assert metric(result, "retrained_score_difference").value == pytest.approx(0.1)
    assert result.verdict is Verdict.FAILED


def test_a_regression_is_compared_in_standard_deviations(artifact: Path) -> None:
    values = pd.Series(np.random.default_rng(3).normal(1000, 50, 400))
    frame = pd.DataFrame({"candidate_score": values, "candidate_prediction": values})
    scores = Scores(frame, None, None, {})
    for distance, verdict in ((0.0, Verdict.PASSED), (5.0, Verdict.FAILED)):
        moved = Retrained(frame + distance, {})
        result = compare(artifact, moved, scores=scores, task=Task.REGRESSION, maximum_score_difference=0.05)
        assert result.verdict is verdict
        found = metric(result, "retrained_score_difference").value
        assert found == pytest.approx(distance / values.std(ddof=0))
        assert not [one for one in result.metrics if one.name == "retrained_decision_changes"]


def test_a_regression_that_says_the_same_number_to_everybody_is_compared_too(artifact: Path) -> None:
    frame = pd.DataFrame({"candidate_score": [3.0] * 400, "candidate_prediction": [3.0] * 400})
    scores = Scores(frame, None, None, {})
    result = compare(artifact, Retrained(frame + 1, {}), scores=scores, task=Task.REGRESSION)
    assert result.verdict is Verdict.FAILED


@given(st.lists(st.integers(0, 399), max_size=30, unique=True), st.floats(0, 0.4))
@settings(max_examples=25, deadline=None)
def test_the_share_of_changed_decisions_is_counted_exactly(rows: list[int], limit: float) -> None:
    decided = make_scores(make_frame()).frame["candidate_prediction"].copy()
    decided.iloc[rows] = 1 - decided.iloc[rows]
    result = compare(Path("missing"), again(candidate_prediction=decided), maximum_decision_changes=limit)
    assert metric(result, "retrained_decision_changes").value == pytest.approx(len(rows) / 400)
    failed = any(one.verdict is Verdict.FAILED for one in result.findings)
    assert failed == (len(rows) / 400 > limit)
