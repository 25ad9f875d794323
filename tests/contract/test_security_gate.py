"""The security gate: what it lets through, what it refuses, and whether its words help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from airlock.adapters.sandbox.inside import scan
from airlock.core.canonical import parse_json
from airlock.core.evidence import Verdict
from tests.support.deployments import shipped_policy
from tests.support.judge import configuration, finding, judge, metric
from tests.support.scans import scan_context, scanned

pytestmark = pytest.mark.requirement("G-8")

TREE = "sklearn.tree._tree.Tree"
METADATA = scanned("MLmodel", "text")


def refused(*files: dict[str, Any], finding_id: str, **changes: Any) -> str:
    """The message of the one thing the gate refuses."""
    result, _ = judge("security", scan_context(*files), **changes)
    assert result.verdict is Verdict.FAILED
    found = finding(result, finding_id)
    assert found.fix
    assert result.summary.startswith(found.message) or len(result.findings) > 1
    return found.message


def test_an_artifact_as_mlflow_writes_it_passes(tmp_path: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from tests.support.artifacts import make_data, make_pipeline_for, write_artifact

    data = make_data()
    model = make_pipeline_for(HistGradientBoostingClassifier(max_iter=3)).fit(data, data["y"])
    write_artifact(tmp_path / "inputs" / "model", model)
    scan.run({"artifact": "model"}, tmp_path / "inputs", tmp_path)
    files = json.loads((tmp_path / "scan.json").read_text())["files"]
    result, attached = judge("security", scan_context(*files))
    assert result.verdict is Verdict.PASSED, result.summary
    assert result.summary == "All 8 files are metadata or safe model formats (skops)."
    assert parse_json(attached["scan.json"])["files"] == files
    assert result.details["formats"] == {"skops": 1, "text": 7}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["builtins getattr", "posix system"], "is a pickle that calls builtins.getattr, posix.system"),
        (["numpy dtype", "cProfile run"], "is a pickle that calls cProfile.run"),
        (["sklearn.svm._classes SVC"], "is a pickle that loads sklearn.svm._classes.SVC"),
        ([f"m{n} f" for n in range(8)], "m0.f, m1.f, m2.f, m3.f, m4.f and 3 more"),
        ([], "is a pickle"),
    ],
)
def test_a_pickle_is_refused_by_what_it_calls(names: list[str], words: str) -> None:
    pickle = scanned("model.pkl", "pickle", pickle_globals=names)
    message = refused(METADATA, pickle, finding_id="pickle-in-artifact")
    assert message.startswith("model.pkl is a pickle")
    assert words in message


def test_the_way_out_is_skops() -> None:
    result, _ = judge("security", scan_context(scanned("model.pkl", "pickle")))
    assert "serialization_format='skops'" in finding(result, "pickle-in-artifact").fix


def test_a_pickle_cannot_be_allowed() -> None:
    with pytest.raises(ValidationError):
        configuration("security", allowed_formats=["skops", "pickle"])


@pytest.mark.parametrize(
    ("file", "finding_id", "words"),
    [
        (scanned("run.py", "python"), "code-in-artifact", "run.py is program code"),
        (scanned("blob", "unknown"), "unknown-format", "blob is in no format"),
        (scanned("w.npy", "numpy"), "format-not-allowed", "w.npy is numpy"),
        (scanned("x.skops", "unknown", problem="is broken"), "broken-file", "x.skops is broken"),
        (scanned("a.yaml", "text", problem="is YAML that"), "broken-file", "a.yaml is YAML that"),
        (
            scanned("link", "unknown", sha256="", problem="is a symbolic link"),
            "broken-file",
            "link is a symbolic link",
        ),
        (
            scanned("m.skops", untrusted_types=["builtins.eval", TREE]),
            "unreviewed-types",
            "m.skops holds types that nobody has reviewed: builtins.eval",
        ),
    ],
)
def test_what_is_not_plain_data_is_refused(file: dict[str, Any], finding_id: str, words: str) -> None:
    assert refused(scanned(), file, finding_id=finding_id).startswith(words)


@pytest.mark.parametrize("form", ["skops", "ubj", "lightgbm-text", "onnx", "safetensors"])
def test_every_allowed_format_passes_and_no_other(form: str) -> None:
    context = scan_context(METADATA, scanned("m", form))
    assert judge("security", context)[0].verdict is Verdict.PASSED
    others = [name for name in ("skops", "onnx") if name != form]
    result, _ = judge("security", context, allowed_formats=others)
    assert finding(result, "format-not-allowed").where == "m"


def test_reviewed_types_pass() -> None:
    result, _ = judge("security", scan_context(scanned(untrusted_types=[TREE, "numpy.dtype"])))
    assert result.verdict is Verdict.PASSED
    assert "unreviewed-types" in {
        one.id
        for one in judge("security", scan_context(scanned(untrusted_types=[TREE])), reviewed_types=[])[
            0
        ].findings
    }


def test_limits_hold_and_a_value_on_the_limit_passes() -> None:
    files = [scanned(f"{n}.skops", size=1 << 20) for n in range(3)]
    assert judge("security", scan_context(*files), maximum_mb=3, maximum_files=3)[0].verdict.allows
    assert "3.0 MB, more than 2.5 MB" in refused(*files, finding_id="artifact-too-large", maximum_mb=2.5)
    assert "3 files, more than 2" in refused(*files, finding_id="too-many-files", maximum_files=2)
    context = scan_context(scanned(size=10 << 30))
    context.scan = lambda: pytest.fail("an artifact that is too large is not copied for the scanner")
    result, _ = judge("security", context)
    assert result.verdict is Verdict.FAILED
    assert "nothing in it was looked at" in result.summary
    result, _ = judge("security", scan_context(*files))
    assert metric(result, "files").value == 3
    assert metric(result, "bytes").value == 3 << 20
    assert metric(result, "bytes").threshold == 512 << 20


def test_an_artifact_without_a_model_is_refused() -> None:
    assert refused(METADATA, finding_id="no-model-file") == "the artifact holds no model file"


def test_the_scanned_files_must_be_those_of_the_manifest() -> None:
    model, extra = scanned(), scanned("extra.onnx", "onnx")
    for found, named, words in (
        ([{**model, "sha256": "0" * 64}], [model], "model.skops is not the file that the manifest names"),
        ([model, extra], [model], "extra.onnx is not in the manifest"),
        ([model], [model, extra], "extra.onnx is in the manifest and was not found"),
    ):
        result, _ = judge("security", scan_context(*found, manifest=named))
        assert result.verdict is Verdict.ERROR
        assert finding(result, "digest-mismatch").message == words
        assert result.summary == f"{words}."


def test_a_mismatch_is_named_before_a_failure() -> None:
    result, _ = judge("security", scan_context(scanned("a.pkl", "pickle"), scanned(), manifest=[scanned()]))
    assert result.verdict is Verdict.ERROR
    assert result.summary.startswith("a.pkl is not in the manifest")
    assert result.summary.endswith("and 1 more findings.")


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"files": []},
        {"files": [{"path": "model.skops"}]},
        {"files": [scanned(form="new")]},
        {"files": [scanned(size=-1)]},
        {"files": "all"},
    ],
)
def test_a_scan_that_says_nothing_is_an_error(report: dict[str, Any]) -> None:
    context = scan_context(scanned())
    context.scan = lambda: report
    result, _ = judge("security", context)
    assert result.verdict is Verdict.ERROR
    assert finding(result, "scan-unusable").fix


@pytest.mark.parametrize(
    "changes",
    [
        {"allowed_formats": []},
        {"allowed_formats": ["joblib"]},
        {"reviewed_types": ["*"]},
        {"reviewed_types": ["eval"]},
        {"maximum_mb": 0},
        {"maximum_files": 0},
        {"signature": "required"},
        {"trusted_keys": {"x": "no key"}},
        {"fail_severity": "awful"},
        {"accepted_advisories": {"A": "ok"}},
    ],
)
def test_an_empty_or_careless_configuration_is_invalid(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configuration("security", **changes)


def test_the_shipped_policy_has_limits_for_the_sandbox_and_reviews_no_function() -> None:
    shipped = shipped_policy()
    assert shipped.sandbox.require_network_isolation is False
    assert shipped.sandbox.require_level == "process"
    import importlib

    for name in shipped.gates["security"]["reviewed_types"]:
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), attribute), type)
