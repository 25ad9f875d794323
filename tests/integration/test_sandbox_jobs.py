"""The two jobs of the sandbox: what the scan finds, and what scoring writes or refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from airlock.adapters.sandbox import ProcessSandbox
from airlock.adapters.sandbox.inside import scan, score
from airlock.adapters.sandbox.inside.trees import check_trees
from airlock.core.errors import SandboxError
from airlock.ports import SandboxRequest
from tests.support import artifacts
from tests.support.artifacts import FEATURES, make_data, make_pipeline_for, write_artifact

pytestmark = [pytest.mark.requirement("G-8"), pytest.mark.slow]

LIMITS: dict[str, Any] = {
    "seconds": 120,
    "memory_mb": 4096,
    "output_mb": 64,
    "require_network_isolation": False,
}


# --- scan


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The scan, in the sandbox, of one artifact with every hostile file there is; by path."""
    folder = tmp_path_factory.mktemp("hostile")
    marker = folder / "marker"
    artifact = write_artifact(folder / "artifact", make_pipeline_for().fit(make_data(), make_data()["y"]))
    artifacts.add_hostile_files(artifact, marker)
    artifacts.add_safe_files(artifact)
    whole = (artifact / "model.skops").read_bytes()
    (artifact / "half.skops").write_bytes(whole[: len(whole) // 2])
    (artifact / "flipped.skops").write_bytes(whole.replace(b"LogisticRegression", b"LogisticRegressiox"))
    (artifact / "function.skops").write_bytes(artifacts.skops_with(FunctionTransformer(func=len)))
    (artifact / "schema.skops").write_bytes(b"")
    artifacts.write_zip(artifact / "schema.skops", {"schema.json": b'{"protocol": 2, "__loader__": "?"}'})
    artifacts.write_zip(artifact / "climbs.skops", {"schema.json": b"{}", "../../etc/cron.d/x": b"x"})
    request = SandboxRequest(
        job={"kind": "scan", "artifact": "model"}, inputs={"model": str(artifact)}, **LIMITS
    )
    output = folder / "output"
    ran = ProcessSandbox().run(request, output)
    assert ran.attempts == []
    assert not marker.exists()
    report = json.loads((output / "scan.json").read_text())
    assert [file["path"] for file in report["files"]] == sorted(file["path"] for file in report["files"])
    return {file["path"]: file for file in report["files"]}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("model.pkl", "posix system"),
        ("model.txt", "posix system"),
        ("no-end.txt", "posix system"),
        ("profile.bin", "cProfile run"),
        ("looks-like.skops", "posix system"),
        ("zlib.joblib", "posix system"),
        ("packed.gz", "posix system"),
        ("packed.bz2", "posix system"),
        ("packed.xz", "posix system"),
        ("objects.npy", "posix system"),
        ("torch.pt", "posix system"),
    ],
)
def test_scan_knows_a_pickle_by_its_content(hostile: dict[str, Any], path: str, name: str) -> None:
    assert hostile[path]["format"] == "pickle"
    assert name in hostile[path]["pickle_globals"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("packed.lz4", "compressed with lz4"),
        ("bomb.skops", "unpacks to"),
        ("deflated-bomb.bin", "compressed file of no known kind"),
        ("half.skops", "broken or truncated archive"),
        ("flipped.skops", "damaged"),
        ("schema.skops", "cannot be read by skops"),
        ("climbs.skops", "path that leaves it"),
        ("objects.yaml", "asks Python to build objects"),
        ("binary.json", "not UTF-8"),
        ("controls.md", "control characters"),
        ("link.yaml", "symbolic link"),
        ("pipe.yaml", "no regular file"),
    ],
)
def test_scan_names_the_problem(hostile: dict[str, Any], path: str, problem: str) -> None:
    assert problem in hostile[path]["problem"]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("model.skops", "skops"),
        ("m.safetensors", "safetensors"),
        ("m.ubj", "ubj"),
        ("m.lgb", "lightgbm-text"),
        ("m.onnx", "onnx"),
        ("numbers.npy", "numpy"),
        ("flow.py", "python"),
        ("weights.bin", "unknown"),
        ("MLmodel", "text"),
        ("conda.yaml", "text"),
        ("python_env.yaml", "text"),
        ("requirements.txt", "text"),
        ("registered_model_meta", "text"),
        ("input_example.json", "text"),
        ("serving_input_example.json", "text"),
    ],
)
def test_scan_knows_the_format(hostile: dict[str, Any], path: str, form: str) -> None:
    assert hostile[path]["format"] == form
    assert "problem" not in hostile[path]


def test_scan_lists_what_skops_does_not_trust(hostile: dict[str, Any]) -> None:
    assert hostile["function.skops"]["untrusted_types"] == ["builtins.len"]
    assert hostile["model.skops"]["untrusted_types"] == ["numpy.dtype"]


def test_scan_escapes_file_names(tmp_path: Path) -> None:
    artifact = tmp_path / "inputs" / "model"
    artifact.mkdir(parents=True)
    (artifact / "a\x1b[2J.txt").write_text("x")
    scan.run({"artifact": "model"}, tmp_path / "inputs", tmp_path)
    (file,) = json.loads((tmp_path / "scan.json").read_text())["files"]
    assert file["path"] == "a\\x1b[2J.txt"
    assert "control characters" in file["problem"]


@pytest.mark.parametrize(
    "text", ["cloudpickle\nnumpy\n", "ipython\nnumpy\n", "channels:\n- conda-forge\n", ".", "("]
)
def test_scan_takes_no_plain_text_for_a_pickle(tmp_path: Path, text: str) -> None:
    artifact = tmp_path / "inputs" / "model"
    artifact.mkdir(parents=True)
    (artifact / "requirements.txt").write_text(text)
    scan.run({"artifact": "model"}, tmp_path / "inputs", tmp_path)
    assert json.loads((tmp_path / "scan.json").read_text())["files"][0]["format"] == "text"


# --- score


class Job:
    """A scoring job over files in a folder; run in this process, or in the sandbox."""

    def __init__(self, folder: Path) -> None:
        self.inputs, self.output = folder / "inputs", folder / "output"
        self.inputs.mkdir()
        self.output.mkdir()
        self.data = make_data()
        self.job: dict[str, Any] = {
            "kind": "score",
            "champion": None,
            "evaluation": "evaluation",
            "background": "background",
            "features": FEATURES,
            "task": "classification",
            "shap_rows": 40,
            "background_rows": 50,
            "seed": 1,
        }
        self.data.to_parquet(self.inputs / "evaluation")
        make_data(seed=2).to_parquet(self.inputs / "background")

    def add(self, role: str, model: Any, threshold: float = 0.5) -> Any:
        write_artifact(self.inputs / role, model)
        entry = {"artifact": role, "model_path": "model.skops", "format": "skops", "threshold": threshold}
        self.job[role] = {**entry, "trusted": artifacts.REVIEWED}
        return model

    def run(self) -> dict[str, Any]:
        score.run(self.job, self.inputs, self.output)
        report: dict[str, Any] = json.loads((self.output / "report.json").read_text())
        return report

    def refused(self) -> str:
        with pytest.raises(score.JobError) as raised:
            self.run()
        assert "How to fix it: " in str(raised.value)
        return str(raised.value)

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.output / name)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def fit(final: Any = None, columns: list[str] = FEATURES) -> Any:
    data = make_data(seed=2)
    model = make_pipeline_for(final) if columns == FEATURES else make_pipeline(SimpleImputer(), final)
    return model.fit(data[columns], data["y"])


def test_scores_in_the_sandbox_as_outside(job: Job, tmp_path: Path) -> None:
    candidate = job.add("candidate", fit(HistGradientBoostingClassifier(max_iter=20)), threshold=0.6)
    champion = job.add("champion", fit())
    inputs = {name: str(job.inputs / name) for name in ("candidate", "champion", "evaluation", "background")}
    ran = ProcessSandbox().run(SandboxRequest(job=job.job, inputs=inputs, **LIMITS), job.output)
    assert ran.attempts == []  # an honest model asks for nothing that is refused
    scores, report = job.table("scores.parquet"), json.loads((job.output / "report.json").read_text())
    expected = candidate.predict_proba(job.data[FEATURES])[:, 1]
    np.testing.assert_allclose(scores["candidate_score"], expected, rtol=0, atol=1e-12)
    assert (scores["candidate_prediction"] == (expected >= 0.6)).all()
    assert (scores["champion_prediction"] == champion.predict(job.data[FEATURES])).all()
    assert str(scores.dtypes["candidate_prediction"]) == "int64"
    assert report["rows"] == len(scores) == len(job.data)
    assert report["shap"]["explainer"] == "tree"
    assert report["shap"]["champion_explainer"] == "linear"
    assert max(report["shap"]["additivity_error"], report["shap"]["champion_additivity_error"]) < 1e-9
    described = report["models"]["candidate"]
    assert described["estimator"].endswith(".HistGradientBoostingClassifier")
    assert described["steps"] == ["ColumnTransformer", "HistGradientBoostingClassifier"]
    assert described["hyperparameters"]["max_iter"] == "20"
    assert described["features"] == FEATURES
    assert set(report["timings"]["champion"]) == {"batch_seconds", "p50_ms", "p95_ms", "p99_ms"}


@pytest.mark.parametrize(
    ("final", "explainer", "space"),
    [
        (LogisticRegression(), "linear", "log-odds"),
        (GradientBoostingClassifier(n_estimators=10), "tree", "log-odds"),
        (RandomForestClassifier(n_estimators=5, random_state=1), "tree", "probability"),
        (GaussianNB(), "permutation", "probability"),
        (make_pipeline(PCA(2), LogisticRegression()), "permutation", "probability"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_shap_values_add_up_in_original_features(job: Job, final: Any, explainer: str, space: str) -> None:
    job.job["shap_rows"] = 12
    model = job.add("candidate", fit(final))
    report = job.run()
    table = job.table("shap.parquet")
    assert (report["shap"]["explainer"], report["shap"]["space"]) == (explainer, space)
    assert list(table.columns) == [*FEATURES, "_base", "_margin"]
    assert (table.index.name, len(table)) == ("row", 12)
    frame = job.data.head(12)
    probability = model.predict_proba(frame[FEATURES])[:, 1]
    margin = np.log(probability / (1 - probability)) if space == "log-odds" else probability
    np.testing.assert_allclose(table[FEATURES].sum(axis=1) + table["_base"], margin, atol=1e-6)
    assert report["shap"]["additivity_error"] < 1e-6


def test_linear_shap_values_are_those_of_the_formula(job: Job) -> None:
    model = job.add("candidate", fit())
    job.job["background_rows"] = 10_000
    job.run()
    columns, final = model[:-1], model[-1]
    centred = columns.transform(job.data.head(40)[FEATURES]) - columns.transform(
        make_data(seed=2)[FEATURES]
    ).mean(axis=0)
    parts = np.asarray(centred) * final.coef_[0]
    expected = np.column_stack([parts[:, :3], parts[:, 3:].sum(axis=1)])  # the columns of `kind` together
    np.testing.assert_allclose(job.table("shap.parquet")[FEATURES], expected, atol=1e-9)


def test_wrong_values_of_shap_are_not_believed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from shap import TreeExplainer

    job.add("candidate", fit(GradientBoostingClassifier(n_estimators=10)))
    right = TreeExplainer.shap_values
    monkeypatch.setattr(TreeExplainer, "shap_values", lambda self, *a, **k: right(self, *a, **k) + 0.1)
    report = job.run()
    assert report["shap"]["explainer"] == "permutation"
    assert report["shap"]["rejected"] == ["tree: values miss the model's output by 0.6"]


@pytest.mark.requirement("G-3")
@pytest.mark.parametrize("final", [LinearRegression(), RandomForestRegressor(n_estimators=5, random_state=1)])
def test_a_regression_writes_numbers_and_their_explanation(job: Job, final: Any) -> None:
    data = make_data(seed=2)
    quantity = 1000 * data[FEATURES[0]].fillna(0) + 500
    model = job.add("candidate", make_pipeline_for(final).fit(data[FEATURES], quantity))
    job.job |= {"task": "regression", "shap_rows": 12}
    report = job.run()
    scores, table = job.table("scores.parquet"), job.table("shap.parquet")
    np.testing.assert_allclose(scores["candidate_prediction"], model.predict(job.data[FEATURES]))
    assert set(scores.columns) == {"candidate_score", "candidate_prediction"}
    assert report["shap"]["space"] == "prediction"
    np.testing.assert_allclose(
        table[FEATURES].sum(axis=1) + table["_base"], scores["candidate_score"][:12], rtol=1e-6
    )
    job.job["task"] = "classification"
    assert "gives no probabilities" in job.refused()


@pytest.mark.requirement("G-3")
@pytest.mark.parametrize(
    "final", [LogisticRegression(max_iter=500), RandomForestClassifier(n_estimators=5, random_state=1)]
)
@pytest.mark.parametrize("positive", [None, "full"])
def test_several_classes_are_scored_one_by_one_and_one_is_explained(
    job: Job, final: Any, positive: str | None
) -> None:
    data = make_data(seed=2)
    place = (data[FEATURES[0]].rank(pct=True) * 2.99).fillna(0).astype(int)
    kinds = np.array(["none", "part", "full"])[place]
    data.assign(kind_of=kinds).to_parquet(job.inputs / "background")
    model = job.add("candidate", make_pipeline_for(final).fit(data[FEATURES], kinds))
    job.job |= {"task": "multiclass", "positive": positive, "target": "kind_of", "shap_rows": 6}
    report = job.run()
    scores = job.table("scores.parquet")
    explained = positive or str(pd.Series(kinds).mode()[0])
    assert report["shap"]["explained_class"] == explained
    for index, name in enumerate(model.classes_):
        np.testing.assert_allclose(
            scores[f"candidate_score:{name}"], model.predict_proba(job.data[FEATURES])[:, index]
        )
    assert (scores["candidate_prediction"] == model.predict(job.data[FEATURES])).all()
    assert scores["candidate_score"].equals(scores[f"candidate_score:{explained}"].rename("candidate_score"))
    table = job.table("shap.parquet")
    parts = table[FEATURES].sum(axis=1) + table["_base"]
    np.testing.assert_allclose(parts, scores["candidate_score"][:6], atol=1e-6)
    job.job["positive"] = "nothing like it"
    assert "without the class 'nothing like it'" in job.refused()


@pytest.mark.requirement("G-6")
@pytest.mark.parametrize("final", [LogisticRegression(), GradientBoostingClassifier(n_estimators=10)])
def test_the_favourable_outcome_may_be_any_text(job: Job, final: Any) -> None:
    data = make_data(seed=2)
    words = np.where(data["y"] == 1, "approved", "denied")
    model = job.add("candidate", make_pipeline_for(final).fit(data[FEATURES], words))
    assert "it must know 0 and 1" in job.refused()
    job.job |= {"positive": "approved", "shap_rows": 10}  # the first of the two in the model's own order
    report = job.run()
    probability = model.predict_proba(job.data[FEATURES])[:, 0]
    scores, table = job.table("scores.parquet"), job.table("shap.parquet")
    np.testing.assert_allclose(scores["candidate_score"], probability)
    np.testing.assert_allclose(
        table[FEATURES].sum(axis=1) + table["_base"], np.log(probability / (1 - probability))[:10], atol=1e-6
    )
    assert report["shap"]["additivity_error"] < 1e-6


@pytest.mark.requirement("G-6")
def test_a_reason_is_taken_away_and_the_case_scored_again(job: Job) -> None:
    job.add("candidate", fit())
    job.job["reasons"] = {
        "map": {FEATURES[0]: "too little", FEATURES[1]: "too little"},
        "hidden": [],
        "cases": 9,
        "draws": 5,
    }
    job.run()
    tested, scores = job.table("reasons.parquet"), job.table("scores.parquet")
    assert 0 < len(tested) <= 9
    assert (scores["candidate_prediction"].to_numpy()[tested["row"]] == 0).all()
    np.testing.assert_allclose(tested["score"], scores["candidate_score"].to_numpy()[tested["row"]])
    assert set(tested["reason"]) <= {"too little", *FEATURES[2:]}
    assert (tested["contribution"] < 0).all()
    assert (tested["score_without"] > tested["score"]).mean() > 0.8
    job.job["reasons"]["hidden"] = FEATURES[:-1]
    job.run()
    assert set(job.table("reasons.parquet")["reason"]) <= {FEATURES[-1]}


@pytest.mark.requirement("G-6")
def test_what_the_black_box_costs_is_said_beforehand(job: Job) -> None:
    job.add("candidate", fit(GaussianNB()))
    job.job |= {"explain_seconds": 1e-6, "shap_rows": 12}
    report = job.run()
    assert "explaining 12 rows from outside would take about" in report["shap"]["refused"]
    assert not (job.output / "shap.parquet").exists()
    job.job |= {"explain_seconds": None}
    report = job.run()
    assert report["shap"]["explainer"] == "permutation"
    assert report["shap"]["estimated_seconds"] >= 0


def test_the_same_job_gives_the_same_bytes(job: Job) -> None:
    job.add("candidate", fit(RandomForestClassifier(n_estimators=5, random_state=1)))
    found = []
    for _ in range(2):
        job.run()
        found.append([(job.output / name).read_bytes() for name in ("scores.parquet", "shap.parquet")])
    assert found[0] == found[1]


def test_missing_columns_are_named(job: Job) -> None:
    job.add("candidate", fit())
    job.data.drop(columns=["debt", "kind"]).to_parquet(job.inputs / "evaluation")
    assert "columns that the evaluation batch does not have: debt, kind" in job.refused()


def test_an_empty_batch_is_refused(job: Job) -> None:
    job.add("candidate", fit())
    job.data.head(0).to_parquet(job.inputs / "evaluation")
    assert "no rows" in job.refused()


def test_a_model_of_one_class_is_refused(job: Job) -> None:
    data = make_data()
    model = make_pipeline(SimpleImputer(), GaussianNB()).fit(data[["income"]], np.ones(len(data), dtype=int))
    job.add("candidate", model)
    assert "knows the classes 1; it must know 0 and 1" in job.refused()


def test_a_model_without_probabilities_is_refused(job: Job) -> None:
    job.add("candidate", fit(RidgeClassifier()))
    assert "gives no probabilities" in job.refused()


def test_scores_that_are_no_probabilities_are_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.add("candidate", fit())
    monkeypatch.setattr(
        LogisticRegression, "predict_proba", lambda _, rows: np.full((rows.shape[0], 2), np.nan)
    )
    assert "300 of 300 rows a score that is no probability" in job.refused()


def test_types_that_nobody_reviewed_are_not_loaded(job: Job) -> None:
    job.add("candidate", fit(CalibratedClassifierCV(LogisticRegression())))
    assert "sklearn.calibration._CalibratedClassifier" in job.refused()


def test_other_formats_and_paths_are_refused(job: Job) -> None:
    job.add("candidate", fit())
    job.job["candidate"]["model_path"] = "../champion/model.skops"
    assert "has no file ../champion/model.skops" in job.refused()
    job.job["candidate"]["format"] = "pickle"
    assert "in format pickle" in job.refused()


def test_a_refusal_reaches_the_caller_in_its_own_words(job: Job) -> None:
    job.add("candidate", fit())
    job.data.drop(columns="debt").to_parquet(job.inputs / "evaluation")
    inputs = {name: str(job.inputs / name) for name in ("candidate", "evaluation", "background")}
    with pytest.raises(SandboxError, match=r"does not have: debt\. How to fix it: add them"):
        ProcessSandbox().run(SandboxRequest(job=job.job, inputs=inputs, **LIMITS), job.output)


# --- trees


def _point(array: str, index: int, value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        trees = model[-1].estimators_
        tree = (trees.ravel() if hasattr(trees, "ravel") else trees)[-1].tree_
        state = tree.__getstate__()
        nodes = state["nodes"].copy()
        nodes[array][index] = value
        tree.__setstate__({**state, "nodes": nodes})

    return change


@pytest.mark.parametrize(
    "final", [RandomForestClassifier(n_estimators=2), GradientBoostingClassifier(n_estimators=2)]
)
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_point("left_child", 0, 1 << 40), "points outside the tree"),
        (_point("right_child", 0, -5), "points outside the tree"),
        (_point("left_child", 0, 0), "or back"),
        (_point("feature", 0, 1 << 30), "feature that does not exist"),
        (_point("feature", 0, -7), "feature that does not exist"),
    ],
)
def test_a_tree_that_leaves_its_memory_is_never_walked(
    job: Job, final: Any, change: Callable[[Any], None], problem: str
) -> None:
    model = fit(final)
    change(model)
    job.add("candidate", model)
    assert problem in job.refused()


@pytest.mark.parametrize(
    ("array", "value", "problem"),
    [
        ("left", 1 << 30, "points outside the tree"),
        ("right", 0, "or back"),
        ("feature_idx", 1 << 20, "feature that does not exist"),
        ("is_categorical", 1, "splits a number as if it were a category"),
    ],
)
def test_a_boosted_tree_that_leaves_its_memory_is_never_walked(
    job: Job, array: str, value: int, problem: str
) -> None:
    model = fit(HistGradientBoostingClassifier(max_iter=3))
    nodes = model[-1]._predictors[-1][0].nodes
    nodes[array][0] = value
    job.add("candidate", model)
    assert problem in job.refused()


def test_every_tree_of_a_sound_model_is_checked() -> None:
    for final, trees in (
        (RandomForestClassifier(n_estimators=4), 4),
        (GradientBoostingClassifier(n_estimators=3), 3),
        (HistGradientBoostingClassifier(max_iter=5), 5),
        (LogisticRegression(), 0),
    ):
        model = skops.io.loads(artifacts.skops_with(fit(final)), trusted=artifacts.REVIEWED)
        assert check_trees(model, AssertionError) == trees


def test_categories_of_a_boosted_tree_stay_within_their_table() -> None:
    data = make_data()
    codes = data["kind"].map({"a": 0, "b": 1, "c": 2}).to_frame("kind").assign(debt=data["debt"])
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features=["kind"]).fit(codes, data["y"])
    assert check_trees(model, AssertionError) == 3
    nodes = [stage[0].nodes for stage in model._predictors]
    split = next(part for part in nodes if part["is_categorical"].any())
    split["bitset_idx"][np.flatnonzero(split["is_categorical"])[0]] = 1 << 20
    with pytest.raises(AssertionError, match="outside its categories"):
        check_trees(model, AssertionError)
