"""The risk score: a documented formula, and a comparison that one odd release does not upset."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation

from airlock.adapters.config_files import ConfigFolder
from airlock.core.decision import Decision, decide
from airlock.core.evidence import SCORE, Evidence, Finding, Metric, Verdict
from airlock.core.policy import Effect
from airlock.core.risk import RiskScore, risk_score, strain_of
from tests.support.engines import TODAY, FunctionEngine
from tests.support.gates import make_manifest, make_workload
from tests.unit.test_decision import (
    MANIFEST,
    all_passed,
    evaluate,
    judge,
    make_evidence,
    make_policy,
    make_rule,
)
from tests.unit.test_facts import MODEL, RISK

SCORED = {SCORE: make_evidence(SCORE, models={"candidate": MODEL})}


def score(
    evidence: dict[str, Evidence] | None = None,
    tier: str = "low",
    unanswered: float = 0.0,
    history: list[float] | None = None,
) -> RiskScore:
    return risk_score(RISK, tier=tier, unanswered=unanswered, evidence=evidence or {}, history=history or [])


def with_result(gate: str, **changes: Any) -> Evidence:
    record = make_evidence(gate)
    return record.model_copy(update={"result": record.result.model_copy(update=changes)})


@pytest.mark.requirement("T-6")
def test_the_score_is_the_weighted_mean_of_its_components() -> None:
    data = {gate: make_evidence(gate) for gate in ("data_quality", "drift")}
    low = score(data | SCORED)
    # LogisticRegression counts 0.1, and 2 of 100 features.
    assert low.components == {"data_quality": 0, "complexity": 0.06, "business": 0, "findings": 0}
    assert low.score == pytest.approx(100 * 0.06 / 4)
    worst = score(tier="high", unanswered=1.0)
    assert worst.components == {"data_quality": 1, "complexity": 1, "business": 1, "findings": 0}
    assert worst.score == 75


@pytest.mark.requirement("T-6")
def test_each_component_by_hand() -> None:
    near = Metric(name="psi", value=0.1, threshold=0.2, direction="lower")
    data = {
        "drift": with_result("drift", metrics=[near], verdict=Verdict.WARNED),
        "data_quality": make_evidence("data_quality", Verdict.FAILED),
    }
    found = score(data, tier="medium", unanswered=0.5).components
    assert found["data_quality"] == pytest.approx(((0.5 * 0.5 + 0.5 * 0.5) + 0.5) / 2)
    assert found["business"] == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)
    warnings = [Finding(id="x", verdict=verdict, message="x") for verdict in Verdict]
    assert score({"bias": with_result("bias", findings=warnings)}).components["findings"] == pytest.approx(
        1 - math.exp(-7 / 5), abs=1e-4
    )


@pytest.mark.parametrize(
    ("value", "limit", "direction", "strain"),
    [(0.1, 0.2, "lower", 0.5), (0.4, 0.2, "lower", 1), (0, 0, "lower", 0), (1, 0, "lower", 1),
     (0.9, 0.45, "higher", 0.5), (0, 0.5, "higher", 1), (0.5, 0.5, "higher", 1), (-1, 0.2, "lower", 0),
     (None, 0.2, "lower", None), (1, None, "lower", None), (1, 2, "none", None)],
)  # fmt: skip
def test_strain_is_the_share_of_a_limit_that_is_used_up(
    value: float | None, limit: float | None, direction: Any, strain: float | None
) -> None:
    assert strain_of(Metric(name="x", value=value, threshold=limit, direction=direction)) == strain


VERDICTS = st.sampled_from(list(Verdict))
ORDER = list(Verdict)


@given(VERDICTS, VERDICTS, st.sampled_from(["data_quality", "drift"]))
def test_a_worse_verdict_or_no_answer_never_lowers_the_score(one: Verdict, two: Verdict, gate: str) -> None:
    better, worse = sorted((one, two), key=ORDER.index)
    rest = {name: make_evidence(name) for name in ("data_quality", "drift")} | SCORED
    first = score(rest | {gate: make_evidence(gate, better)}).score
    assert score(rest | {gate: make_evidence(gate, worse)}).score >= first
    del rest[gate]
    assert score(rest).score >= first - 100  # a missing gate has no findings of its own
    assert (
        score(rest).components["data_quality"]
        >= score(rest | {gate: make_evidence(gate, worse)}).components["data_quality"]
    )


@given(st.lists(VERDICTS, max_size=5), VERDICTS)
def test_one_more_finding_never_lowers_the_score(some: list[Verdict], one: Verdict) -> None:
    def with_findings(verdicts: list[Verdict]) -> float:
        found = [Finding(id="x", verdict=verdict, message="x") for verdict in verdicts]
        return score({"bias": with_result("bias", findings=found)}).score

    assert with_findings([*some, one]) >= with_findings(some)


# History

HISTORY = st.lists(st.integers(0, 1000).map(lambda tenth: tenth / 10), max_size=30)


@pytest.mark.requirement("T-6")
@given(HISTORY)
def test_the_comparison_is_that_of_scipy(history: list[float]) -> None:
    found = score(history=history)
    assert found.score == score().score
    if len(history) < RISK.minimum_history:
        assert (found.median, found.z, found.anomaly) == (None, None, False)
        return
    middle, spread = float(np.median(history)), float(median_abs_deviation(history, scale=0.6745))
    assert found.median == pytest.approx(middle)
    far = abs(found.score - middle) >= RISK.minimum_distance
    if spread < 1e-9:
        assert found.anomaly is far
    elif found.z is not None:
        assert found.z == pytest.approx((found.score - middle) / spread, abs=0.006)
        assert found.anomaly is (far and abs(found.z) > RISK.anomaly_z)


@pytest.mark.requirement("T-6")
def test_one_odd_release_in_the_past_hides_nothing() -> None:
    usual = [49.0, 50.0, 51.0, 50.0, 49.5]
    assert score().score == 50
    assert not score(history=usual).anomaly
    assert not score(history=[*usual, 99.0]).anomaly
    assert score(history=[20.0, 21.0, 19.0, 20.5, 99.0]).anomaly
    assert score(history=[20.0] * 5).anomaly
    assert score(history=[20.0] * 5).z is None


# In a decision


@pytest.mark.requirement("T-6")
def test_the_score_is_kept_with_the_decision_and_repeated_from_the_manifest() -> None:
    policy = make_policy(risk=RISK)
    manifest = make_manifest(make_workload(), risk_history=[1.0, 1.0, 1.0])
    evidence = {name: make_evidence(name, manifest=manifest) for name in all_passed()}
    decisions = [judge(evidence, manifest=manifest, policy=policy) for _ in range(2)]
    assert decisions[0].to_bytes() == decisions[1].to_bytes()
    assert decisions[0].risk is not None
    assert decisions[0].risk.anomaly
    assert Decision.from_bytes(decisions[0].to_bytes()) == decisions[0]


@pytest.mark.requirement("T-6")
def test_rules_may_ask_for_the_score() -> None:
    def by_score(condition: str, facts: Any) -> bool:
        return bool(facts["risk"]["score"] > 10) if condition == "high" else evaluate(condition, facts)

    policy = make_policy(
        make_rule(
            "asks", "high", Effect.model_validate({"seats": [{"role": "risk", "reason": "high score"}]})
        ),
        risk=RISK,
    )
    decision = decide(
        manifest=MANIFEST,
        workload=make_workload(),
        policy=policy,
        evidence=all_passed(),
        engine=FunctionEngine(by_score),
        as_of=TODAY,
    )
    assert [(seat.role, seat.rules) for seat in decision.seats] == [("risk", ["asks"])]


def test_a_policy_without_the_section_has_no_score_and_keeps_its_digest() -> None:
    assert "risk" not in make_policy().to_data()
    decision = judge(all_passed())
    assert decision.risk is None
    assert "risk" not in decision.to_data()


def test_the_shipped_weights_are_written_for_people() -> None:
    rules = ConfigFolder(Path(__file__).parents[2] / "config").policy("1.0.0").risk
    assert rules is not None
    assert sum(rules.weights.values()) == 100
