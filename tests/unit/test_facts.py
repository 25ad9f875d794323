"""Facts: what rules may ask, and that nothing unmeasured is ever there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airlock.core.decision import decide
from airlock.core.evidence import SCORE, Evidence, Verdict
from airlock.core.facts import FACTS, PRODUCTION, FactType, build_facts, fact_named
from airlock.core.interview import Question
from airlock.core.manifest import Manifest
from airlock.core.policy import Effect, Policy
from airlock.core.risk import RiskRules
from tests.support.engines import TODAY, FunctionEngine
from tests.support.gates import ZERO, make_manifest, make_workload
from tests.unit.test_decision import (
    GATES,
    MANIFEST,
    WORKLOAD,
    all_passed,
    make_evidence,
    make_policy,
    make_rule,
)

TYPES: dict[FactType, tuple[type, ...]] = {
    FactType.TEXT: (str,),
    FactType.BOOL: (bool,),
    FactType.INTEGER: (int,),
    FactType.NUMBER: (int, float),
    FactType.TEXTS: (list,),
    FactType.ANY: (bool, int, float, str),
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
    "values": ["C: 1.0 → 0.5"],
}


def facts_of(evidence: Mapping[str, Evidence], manifest: Manifest = MANIFEST) -> dict[str, Any]:
    return build_facts(manifest=manifest, workload=WORKLOAD, policy=make_policy(), evidence=evidence)


def leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from leaves(item, f"{path}{name}.")
        else:
            yield f"{path}{name}", item


def all_facts(evidence: Mapping[str, Evidence], manifest: Manifest, policy: Policy) -> dict[str, Any]:
    """The facts as the last rules see them."""
    seen: list[dict[str, Any]] = []

    def look(condition: str, facts: Mapping[str, Any]) -> bool:
        seen.append(dict(facts))
        return False

    decide(
        manifest=manifest,
        workload=WORKLOAD,
        policy=policy,
        evidence=evidence,
        engine=FunctionEngine(look),
        as_of=TODAY,
    )
    return seen[-1]


RISK = RiskRules(
    weights={"data_quality": 1, "complexity": 1, "business": 1, "findings": 1},
    families={"LogisticRegression": 0.1},
    other=1,
    many_features=100,
    many_findings=5,
    anomaly_z=3.5,
    minimum_history=3,
    minimum_distance=5,
    maximum_history=100,
)
QUESTION = Question(id="purpose", text="What is it for?", why="a test", type="text")


def measured(manifest: Manifest = MANIFEST) -> dict[str, Evidence]:
    models = {"candidate": MODEL, "champion": MODEL}
    change = {"metric": "roc_auc", "relative": 0.1, "direction": "worse"}
    details: dict[str, Any] = {
        SCORE: {"models": models, "change": CHANGE},
        "performance": {"change": change},
    }
    return {gate: make_evidence(gate, manifest=manifest, **details.get(gate, {})) for gate in [*GATES, SCORE]}


def every_fact() -> dict[str, Any]:
    """The facts of a release about which everything is known."""
    policy = make_policy(make_rule("stop", "stop", Effect(deny=True)), risk=RISK, interview=[QUESTION])
    manifest = make_manifest(
        WORKLOAD, answers={"purpose": "a test"}, asked=["purpose"], risk_history=[10.0, 11.0, 12.0]
    )
    return all_facts(measured(manifest), manifest, policy)


@pytest.mark.requirement("P-1")
def test_every_fact_is_in_the_catalogue_with_its_type() -> None:
    for name, value in leaves(every_fact()):
        fact = fact_named(name)
        assert fact is not None, name
        assert isinstance(value, TYPES[fact.type]), name
        if fact.type is not FactType.ANY:
            assert isinstance(value, bool) is (fact.type is FactType.BOOL), name


def test_the_catalogue_promises_nothing_that_is_not_built() -> None:
    built = {name for name, _ in leaves(every_fact())}
    # Facts about production are built from a window, and tested where that is: test_actions.
    for name in (name for name in FACTS if name.partition(".")[0] not in PRODUCTION):
        assert name in built or any(known.startswith(name.removesuffix("*")) for known in built), name


def test_an_unknown_fact_has_no_entry() -> None:
    assert fact_named("workload.colour") is None
    assert fact_named("limits.anything") is FACTS["limits.*"]
    assert fact_named("gates") is None


def test_facts_name_the_workload_its_risk_and_the_limits() -> None:
    facts = facts_of(all_passed())
    risk = WORKLOAD.risk.to_data()
    assert facts["workload"] == {
        "name": "test-model",
        "kind": "model",
        "owner": "team",
        **risk,
        "regimes": [],
    }
    assert facts["limits"] == {"change": 0.05}
    assert facts["gates"] == dict.fromkeys([*GATES, SCORE], "PASSED")
    assert facts["release"] == {"first": False, "answered": [], "unanswered": []}
    first = facts_of({}, make_manifest(make_workload(), champion=False))
    assert first["release"] == {"first": True, "answered": [], "unanswered": []}
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
