"""The difference of candidate and champion, from models and files, never from what somebody says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from airlock.core.contradictions import contradictions
from airlock.core.diff import diff_files, diff_models
from airlock.core.evidence import Finding, Verdict
from airlock.core.features import FeatureSource, unapproved
from airlock.core.manifest import ArtifactRef, DataRef, Manifest
from airlock.core.workload import DataSpec, RiskSpec
from airlock.services import model_files
from tests.support.gates import ZERO, make_manifest, make_workload
from tests.unit.test_decision import make_evidence

MODEL: dict[str, Any] = {
    "estimator": "sklearn.linear_model.LogisticRegression",
    "steps": ["StandardScaler", "LogisticRegression"],
    "features": ["income", "debt"],
    "threshold": 0.4,
    "hyperparameters": {"C": "1.0", "penalty": "l2"},
}


def diff(**changes: Any) -> dict[str, Any]:
    return diff_models({"champion": MODEL, "candidate": {**MODEL, **changes}})


@pytest.mark.requirement("T-2", "T-3")
def test_the_same_model_differs_in_nothing() -> None:
    assert diff() == {
        "architecture": False,
        "from_estimator": "LogisticRegression",
        "to_estimator": "LogisticRegression",
        "new_features": [],
        "removed_features": [],
        "threshold": 0.0,
        "hyperparameters": [],
        "values": [],
    }
    assert diff_models({"champion": None, "candidate": MODEL}) == {}


@pytest.mark.requirement("T-3")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"estimator": "sklearn.svm.SVC"}, {"architecture": True, "to_estimator": "SVC"}),
        ({"steps": ["LogisticRegression"]}, {"architecture": True}),
        ({"features": ["debt", "age"]}, {"new_features": ["age"], "removed_features": ["income"]}),
        ({"threshold": 0.3}, {"threshold": 0.1}),
        (
            {"hyperparameters": {"C": "0.5", "tol": "1"}},
            {
                "hyperparameters": ["C", "penalty", "tol"],
                "values": ["C: 1.0 → 0.5", "penalty: l2 → none", "tol: none → 1"],
            },
        ),
    ],
)
def test_each_difference_of_models_is_seen(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert diff(**changes) == {**diff(), **expected}


def manifest_of(candidate: dict[str, Any], champion: dict[str, Any] | None, **changes: Any) -> Manifest:
    artifact = {"version": "2", "sha256": ZERO, "files": [], "metadata": {"training_sha256": ZERO}}
    old = None if champion is None else ArtifactRef.model_validate({**artifact, **champion})
    new = ArtifactRef.model_validate({**artifact, **candidate})
    return make_manifest(make_workload()).model_copy(update={"candidate": new, "champion": old, **changes})


@pytest.mark.requirement("T-3", "G-1")
def test_each_difference_of_files_is_seen() -> None:
    change = diff_files(
        manifest_of(
            {"inputs": {"age": "long", "debt": "double"}, "packages": {"numpy": "2.0", "python": "3.11"}},
            {"inputs": {"age": "double"}, "outputs": {"0": "int"}, "packages": {"numpy": "1.9"}},
        )
    )
    assert change == {
        "data_source": False,
        "training_data": False,
        "signature": ["input age: double → long", "input debt: none → double", "output 0: int → none"],
        "environment": ["numpy: 1.9 → 2.0", "python: none → 3.11"],
    }
    assert diff_files(manifest_of({}, {}))["signature"] == []
    assert diff_files(manifest_of({}, None)) == {"data_source": False}


@pytest.mark.requirement("T-3")
def test_a_workload_that_names_another_source_is_seen_whatever_the_artifact_declares() -> None:
    before = DataRef(path="/data/old.parquet", sha256="1" * 64, size=1)
    same = DataRef(path="x.parquet", sha256="1" * 64, size=1)
    assert diff_files(manifest_of({}, {}, champion_training=before))["data_source"] is True
    assert diff_files(manifest_of({}, {}, champion_training=same))["data_source"] is False
    newer = diff_files(manifest_of({}, {"metadata": {"training_sha256": "1" * 64}}))
    assert (newer["data_source"], newer["training_data"]) == (False, True)


def test_manifests_that_say_nothing_new_keep_their_digests() -> None:
    data = make_manifest(make_workload()).to_data()
    assert not {"answers", "risk_history", "champion_training"} & set(data)
    assert not {"inputs", "outputs", "packages"} & set(data["candidate"])


# What the files of a model say


def test_signature_and_packages_are_what_mlflow_wrote(tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": [1.0, 2, 3, 4], "name": ["a", "b", "a", "b"]})
    model = LogisticRegression().fit(frame[["income"]], [0, 1, 0, 1])
    mlflow.sklearn.save_model(
        model,
        tmp_path / "m",
        serialization_format="skops",
        signature=infer_signature(frame, np.array([0, 1])),
        pip_requirements=["scikit-learn==1.2.3", "Some_Package[extra]>=2 ; python_version > '3'", "-e ."],
    )
    inputs, outputs = model_files.signature(tmp_path / "m")
    assert inputs["income"] == "double"
    assert set(inputs) == {"income", "name"}
    assert list(outputs) == ["0"]
    assert "int64" in outputs["0"]
    packages = model_files.packages(tmp_path / "m")
    assert packages["scikit-learn"] == "1.2.3"
    assert packages["some-package"] == ">=2"
    assert packages["python"].startswith("3.")


@pytest.mark.parametrize(
    "text",
    ["", "[", "signature: [1]", "signature: {inputs: '['}", "signature: {inputs: '{}'}",
     "signature: {inputs: 3}", "2026-13-01", "a: " + "[" * 5000, "\x00"],
)  # fmt: skip
def test_files_that_cannot_be_read_say_nothing(tmp_path: Path, text: str) -> None:
    for name in ("MLmodel", "requirements.txt", "python_env.yaml"):
        (tmp_path / name).write_text(text)
    assert model_files.signature(tmp_path) == ({}, {})
    assert model_files.declared(tmp_path) == {}
    assert model_files.packages(tmp_path).get("python") is None


@given(st.lists(st.dictionaries(st.sampled_from(["name", "type", "required", "x"]), st.text() | st.none())))
def test_any_signature_has_a_digest(columns: list[dict[str, Any]]) -> None:
    found = model_files._columns(json.dumps(columns))
    ArtifactRef(version="1", sha256=ZERO, files=[], inputs=found).to_bytes()


# Approved sources


SOURCE = FeatureSource(name="bureau", title="Bureau", owner="data-governance", features=["bureau_*", "age"])


@pytest.mark.requirement("T-3")
def test_a_feature_is_approved_by_name_or_pattern() -> None:
    assert unapproved(["bureau_score", "age", "Age", "ages"], [SOURCE]) == ["Age", "ages"]
    assert unapproved(["b", "a"], []) == ["a", "b"]


@given(st.lists(st.text(max_size=5)), st.lists(st.sampled_from(["*", "a*", "?", "b"]), min_size=1))
def test_one_more_source_never_disapproves(names: list[str], patterns: list[str]) -> None:
    more = FeatureSource(name="more", title="More", owner="x", features=patterns)
    assert set(unapproved(names, [SOURCE, more])) <= set(unapproved(names, [SOURCE]))


# Contradicted declarations


def risk(**changes: Any) -> RiskSpec:
    return make_workload().risk.model_copy(update=changes)


def data(**changes: Any) -> DataSpec:
    return make_workload().data.model_copy(update=changes)


@pytest.mark.requirement("T-4")
def test_what_the_workload_file_contradicts_itself() -> None:
    assert contradictions(make_workload(), {}) == []
    denies = make_workload(risk=risk(protected_class_data=False))
    assert contradictions(denies, {}) == [
        "risk.protected_class_data is false, but data.sensitive names group"
    ]
    free = make_workload(risk=risk(regulated=False), regimes=["ecoa"])
    assert contradictions(free, {}) == ["risk.regulated is false, but regimes names ecoa"]
    both = make_workload(risk=risk(human_review=True))
    assert len(contradictions(both, {})) == 1


@pytest.mark.requirement("T-4", "G-7")
def test_what_the_evidence_contradicts() -> None:
    workload = make_workload(risk=risk(protected_class_data=False), data=data(sensitive={}))
    assert contradictions(workload, {"privacy": make_evidence("privacy")}) == []
    seen = make_evidence(
        "privacy", protected={"columns_present": ["race"], "proxies": [{"feature": "zip"}, "street"]}
    )
    assert contradictions(workload, {"privacy": seen}) == [
        "risk.protected_class_data is false, but the data has race",
        "risk.protected_class_data is false, but a protected attribute can be told from street, zip",
    ]
    proxy = Finding(id="proxy", verdict=Verdict.WARNED, message="x", where="zip")
    record = make_evidence("privacy")
    result = record.result.model_copy(update={"findings": [proxy]})
    found = {"privacy": record.model_copy(update={"result": result})}
    assert "told from zip" in contradictions(workload, found)[0]
    assert contradictions(make_workload(), found) == []
