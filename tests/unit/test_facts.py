"""Facts: what rules may ask, and that nothing unmeasured is ever there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airlock.core.evidence import SCORE, Evidence, Verdict
from airlock.core.facts import FACTS, FactType, build_facts, fact_named
from airlock.core.manifest import Manifest
from tests.support.gates import ZERO, make_manifest, make_workload
from tests.unit.test_decision import GATES, MANIFEST, WORKLOAD, all_passed, make_evidence, make_policy

TYPES: dict[FactType, tuple[type, ...]] = {
    FactType.TEXT: (str,),
    FactType.BOOL: (bool,),
    FactType.INTEGER: (int,),
    FactType.NUMBER: (int, float),
    FactType.TEXTS: (list,),
}
MODEL = {
    "estimator": "sklearn.linear_model.LogisticRegression",
    "steps": ["LogisticRegression"],
    "features": ["income", "debt"],
    "threshold": 0.5,
    "format": "skops",
}
CHANGE = {
    "architecture": False,
    "from_estimator": "LogisticRegression",
    "to_estimator": "LogisticRegression",
    "new_features": [],
    "removed_features": [],
    "threshold": 0.0,
    "hyperparameters": ["C"],
}


def facts_of(evidence: Mapping[str, Evidence], manifest: Manifest = MANIFEST) -> dict[str, Any]:
    return build_facts(manifest=manifest, workload=WORKLOAD, policy=make_policy(), evidence=evidence)


def leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from leaves(item, f"{path}{name}.")
        else:
            yield f"{path}{name}", item


def measured() -> dict[str, Evidence]:
    score = make_evidence(SCORE, models={"candidate": MODEL, "champion": MODEL}, change=CHANGE)
    change = {"metric": "roc_auc", "relative": 0.1, "direction": "worse"}
    return all_passed(**{SCORE: score, "performance": make_evidence("performance", change=change)})


@pytest.mark.requirement("P-1")
def test_every_fact_is_in_the_catalogue_with_its_type() -> None:
    for name, value in leaves(facts_of(measured())):
        if name == "change.relative":
            continue
        fact = fact_named(name)
        assert fact is not None, name
        assert isinstance(value, TYPES[fact.type]), name
        assert isinstance(value, bool) is (fact.type is FactType.BOOL), name


def test_the_catalogue_promises_nothing_that_is_not_built() -> None:
    built = {name for name, _ in leaves(facts_of(measured()))} | {"risk.tier"}
    for name in FACTS:
        assert name in built or any(known.startswith(name.removesuffix("*")) for known in built), name


def test_an_unknown_fact_has_no_entry() -> None:
    assert fact_named("workload.colour") is None
    assert fact_named("limits.anything") is FACTS["limits.*"]
    assert fact_named("gates") is None


def test_facts_name_the_workload_its_risk_and_the_limits() -> None:
    facts = facts_of(all_passed())
    risk = WORKLOAD.risk.to_data()
    assert facts["workload"] == {"name": "test-model", "kind": "model", "owner": "team", **risk}
    assert facts["limits"] == {"change": 0.05}
    assert facts["gates"] == dict.fromkeys([*GATES, SCORE], "PASSED")
    assert facts["release"] == {"first": False}
    first = facts_of({}, make_manifest(make_workload(), champion=False))
    assert first["release"] == {"first": True}
    assert "champion" not in first


@pytest.mark.requirement("T-3")
def test_undeclared_training_data_is_a_new_source() -> None:
    assert facts_of({})["change"]["data_source"] is True
    for declared, new in ((ZERO, False), ("1" * 64, True)):
        candidate = MANIFEST.candidate.model_copy(update={"metadata": {"training_sha256": declared}})
        manifest = make_manifest(make_workload(), candidate=candidate)
        assert facts_of({}, manifest)["change"]["data_source"] is new


@pytest.mark.parametrize(
    ("verdict", "there"), [(Verdict.PASSED, True), (Verdict.FAILED, False), (Verdict.ERROR, False)]
)
def test_what_was_not_measured_is_absent(verdict: Verdict, *, there: bool) -> None:
    scored = make_evidence(SCORE, verdict, change={"architecture": True}, models={"candidate": MODEL})
    facts = facts_of({SCORE: scored})
    assert ("architecture" in facts["change"]) is there
    assert ("estimator" in facts["candidate"]) is there
    assert "performance" not in facts["candidate"]
    change = {"relative": 0.1}
    judged = make_evidence("performance", Verdict.FAILED, change=change)
    assert facts_of({"performance": judged})["candidate"]["performance"] == {"relative_change": 0.1}
