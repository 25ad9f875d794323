"""Gates on plain files that need more than a prediction: attributions, the model itself, classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from airlock.core.columns import Columns
from airlock.core.evidence import GateResult, Verdict
from airlock.services.run_gate import run_gate
from tests.support.files import applications, config_file, saved
from tests.support.judge import finding, metric

pytestmark = pytest.mark.slow

LIMITS = {"minimum_rows": 50}


def judged(
    gate: str, folder: Path, frame: pd.DataFrame, *, reference: Path | None = None, **values: Any
) -> GateResult:
    config = config_file(folder, **values)
    current = saved(frame, folder / "current.parquet")
    return run_gate(gate, config, current=current, reference=reference).result


def attributed(frame: pd.DataFrame) -> pd.DataFrame:
    """The exact SHAP values of the linear model that made ``applications``."""
    parts = pd.DataFrame({"income": 0.15 * (frame["income"] - 50), "debt": -0.2 * (frame["debt"] - 20)})
    return parts.assign(expected=1.0)


# Explainability


@pytest.mark.requirement("G-6", "T-7")
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_attributions_in_a_file_are_judged(tmp_path: Path, suffix: str) -> None:
    frame = applications()
    saved(attributed(frame), tmp_path / f"shap.{suffix}")
    given = {"file": f"shap.{suffix}", "base": "expected"}
    result = judged("explainability", tmp_path, frame, attributions=given)
    assert result.verdict is not Verdict.ERROR, result.summary
    assert not [one for one in result.findings if one.verdict is Verdict.FAILED]
    assert set(result.details["top"]) == {"income", "debt"}


@pytest.mark.requirement("G-6", "T-7")
def test_attributions_that_do_not_add_up_are_no_explanation(tmp_path: Path) -> None:
    frame = applications()
    saved(attributed(frame).assign(income=0.1), tmp_path / "shap.parquet")
    result = judged(
        "explainability", tmp_path, frame, attributions={"file": "shap.parquet", "base": "expected"}
    )
    assert result.verdict is Verdict.ERROR
    assert "do not add up" in result.summary


@pytest.mark.requirement("G-6", "T-7")
def test_a_protected_column_among_the_attributions_fails(tmp_path: Path) -> None:
    frame = applications()
    shap = attributed(frame)
    shap["sex"], shap["income"] = shap["income"] / 2, shap["income"] / 2
    saved(shap, tmp_path / "shap.parquet")
    result = judged(
        "explainability", tmp_path, frame, attributions={"file": "shap.parquet", "base": "expected"}
    )
    assert finding(result, "forbidden_feature").where == "sex"


@pytest.mark.requirement("G-6", "T-7")
@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        (lambda shap: shap, {"base": "nowhere"}, "no column 'nowhere'"),
        (lambda shap: shap.head(10), {"base": "expected"}, "10 rows, the data 400"),
        (
            lambda shap: shap.assign(row=range(1000, 1400)),
            {"base": "expected"},
            "no score to compute it from",
        ),
        (lambda shap: shap.assign(income="much"), {"base": "expected"}, "no numbers"),
        (lambda shap: shap.assign(income=float("nan")), {"base": "expected"}, "no numbers"),
        (lambda shap: shap.assign(_margin=0.0), {"base": 1.0}, "do not add up"),
    ],
)
def test_attributions_that_cannot_be_used_say_why(
    tmp_path: Path, change: Any, given: Any, words: str
) -> None:
    frame = applications()
    saved(change(attributed(frame)), tmp_path / "shap.parquet")
    result = judged("explainability", tmp_path, frame, attributions={"file": "shap.parquet", **given})
    assert result.verdict is Verdict.ERROR
    assert words in json.dumps([one.message for one in result.findings])


@pytest.mark.requirement("G-6", "T-7")
def test_without_attributions_it_says_what_to_give(tmp_path: Path) -> None:
    result = judged("explainability", tmp_path, applications())
    assert result.verdict is Verdict.ERROR
    assert "attributions: {file:" in result.findings[0].fix
    assert "artifact: FOLDER" in result.findings[0].fix


@pytest.mark.requirement("G-6", "G-8", "T-7")
def test_a_model_in_a_safe_format_is_run_and_explained_in_the_sandbox(tmp_path: Path) -> None:
    import skops.io

    frame, training = applications(seed=3), applications(seed=4)
    model = LogisticRegression().fit(training[["income", "debt"]], training["outcome"] == "approved")
    model.classes_ = np.array([0, 1])
    (tmp_path / "model").mkdir()
    skops.io.dump(model, tmp_path / "model" / "model.skops")
    reference = saved(training, tmp_path / "training.csv")
    coded = frame.assign(outcome=(frame["outcome"] == "approved").astype(int), decision=1)
    result = judged("explainability", tmp_path, coded, reference=reference, artifact="model", positive=1)
    assert result.verdict is not Verdict.ERROR, result.summary
    assert result.details["explainer"]["explainer"] == "linear"
    assert set(result.details["top"]) == {"income", "debt"}


@pytest.mark.requirement("G-8", "T-7")
def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pkl").write_bytes(pickle.dumps(LogisticRegression()))
    (tmp_path / "model" / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}")
    reference = saved(applications(seed=4), tmp_path / "training.parquet")
    result = judged("explainability", tmp_path, applications(), reference=reference, artifact="model")
    assert result.verdict is Verdict.ERROR
    assert "skops" in result.summary


# Several classes


def grades(rows: int = 600, seed: int = 5) -> pd.DataFrame:
    """Three grades, their true probabilities, and the likeliest as the decision."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([2, 2, 2], rows)
    names = np.array(["a", "b", "c"])
    drawn = (shares.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return pd.DataFrame(
        {
            "grade": names[drawn],
            "given": names[shares.argmax(axis=1)],
            "p_a": shares[:, 0], "p_b": shares[:, 1], "p_c": shares[:, 2],
            "sex": rng.choice(["female", "male"], rows),
            "income": rng.normal(50, 10, rows),
        }
    )  # fmt: skip


SCORES = {"a": "p_a", "b": "p_b", "c": "p_c"}
NAMED: dict[str, Any] = {"label": "grade", "scores": SCORES, "sensitive": ["sex"], "features": ["income"]}


@pytest.mark.requirement("G-3", "T-7")
def test_probabilities_of_classes_are_scored_as_scikit_learn_scores_them(tmp_path: Path) -> None:
    frame = grades()
    result = judged("performance", tmp_path, frame, columns=NAMED, positive=None)
    assert result.verdict is not Verdict.ERROR, result.summary
    expected = log_loss(frame["grade"], frame[["p_a", "p_b", "p_c"]].to_numpy(), labels=["a", "b", "c"])
    assert metric(result, "log_loss").value == pytest.approx(expected)
    named = judged("performance", tmp_path, frame, columns={**NAMED, "prediction": "given"}, positive=None)
    assert metric(named, "accuracy").value == metric(result, "accuracy").value


@pytest.mark.requirement("G-5", "T-7")
def test_bias_of_classes_is_judged_with_their_probabilities(tmp_path: Path) -> None:
    result = judged("bias", tmp_path, grades(), columns=NAMED, positive="a")
    assert result.verdict is not Verdict.ERROR, result.summary


@pytest.mark.requirement("G-3", "T-7")
def test_a_champion_may_have_probabilities_of_classes_too(tmp_path: Path) -> None:
    frame = grades()
    for name in "abc":
        frame[f"old_{name}"] = frame[f"p_{name}"].to_numpy()[::-1]
    champion = {"scores": {name: f"old_{name}" for name in "abc"}}
    result = judged("performance", tmp_path, frame, columns=NAMED, positive=None, champion=champion)
    assert result.verdict is not Verdict.ERROR, result.summary
    assert result.details["change"]["direction"] == "better"


@pytest.mark.requirement("G-3", "T-7")
@pytest.mark.parametrize(
    ("columns", "task", "words"),
    [
        ({"scores": {"a": "p_a", "b": "p_b"}}, None, "class 'c' occurs"),
        ({}, "binary", "the task is binary"),
        ({"scores": {"a": "p_a", "b": "p_b", "c": "nowhere"}}, None, "no file has a column 'nowhere'"),
    ],
)
def test_classes_without_a_column_are_an_error_in_words(
    tmp_path: Path, columns: dict[str, Any], task: str | None, words: str
) -> None:
    named = {**NAMED, **columns}
    result = judged("performance", tmp_path, grades(), columns=named, positive=None, task=task)
    assert result.verdict is Verdict.ERROR
    assert words in json.dumps([one.message for one in result.findings])


@pytest.mark.requirement("G-3", "T-7")
@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.1])
def test_a_probability_that_is_none_is_never_passed(tmp_path: Path, bad: float) -> None:
    frame = grades()
    frame.loc[3, "p_b"] = bad
    assert judged("performance", tmp_path, frame, columns=NAMED, positive=None).verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"score": "s", "scores": {"a": "x", "b": "y"}}, "either score"),
        ({"scores": {"a": "x"}}, "one class only"),
        ({"scores": {"a": "x", "b": "x"}}, "twice"),
        ({"scores": {"a": "x", "b": "y"}, "features": ["x"]}, "'x' is named"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Columns.model_validate(values)


def test_classes_that_yaml_reads_as_numbers_are_texts() -> None:
    assert Columns.model_validate({"scores": {1: "x", 2.0: "y"}}).scores == {"1": "x", "2": "y"}
