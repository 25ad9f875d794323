"""Laws of decisions under the shipped policy: what must hold whatever a release looks like."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock.adapters.cel_engine import CelEngine
from airlock.core.decision import Outcome, asked_seats, decide, heaviest
from airlock.core.evidence import SCORE, Evidence, GateResult, Verdict
from airlock.core.manifest import Manifest
from airlock.core.policy import Phase, Policy, Tier, Track
from airlock.core.rules import Reason, evaluate_phase
from airlock.core.workload import Workload
from airlock.services.rule_tests import facts_for
from tests.support.deployments import shipped_policy
from tests.support.engines import TODAY
from tests.support.gates import make_manifest, make_workload

POLICY = shipped_policy()
ENGINE = CelEngine()
LAWS = settings(deadline=None, max_examples=60)

WORSE: dict[str, list[Any]] = {
    # Facts and their values from harmless to worst.
    "workload.automated_decision": [False, True],
    "workload.protected_class_data": [False, True],
    "workload.regulated": [False, True],
    "workload.human_review": [True, False],
    "workload.exposure": ["internal", "customer"],
    "workload.loss_per_error_usd": [0.0, 100.0, 10_000.0, 10_001.0, 1e9],
    "workload.rollback": ["easy", "hard"],
    "workload.traffic_share": [0.0, 0.01, 0.5, 1.0],
    "candidate.performance.relative_change": [0.0, 0.049, 0.05, 0.15, 0.1501, 9.0],
    "change.architecture": [False, True],
    "change.data_source": [False, True],
    "change.threshold": [0.0, 0.001, 0.05, 0.2, 1.0],
    "change.new_features": [[], ["x"]],
    "change.unapproved_features": [[], ["x"]],
    "change.removed_features": [[], ["x"]],
    "change.hyperparameters": [[], ["C"]],
    "declared.contradictions": [[], ["protected_class_data"]],
    "risk.score": [0.0, 30.0, 60.0, 100.0],
    "risk.anomaly": [False, True],
}
PLACES = st.fixed_dictionaries({name: st.integers(0, len(values) - 1) for name, values in WORSE.items()})


def outcome_of(facts: Mapping[str, Any], policy: Policy = POLICY) -> tuple[Tier, Track, list[Reason]]:
    """Tier, track and reasons that follow from facts alone, as a decision takes them."""
    known = facts_for(policy, facts)
    session = ENGINE.begin(policy, known)
    found: dict[str, list[Reason]] = {}
    for phase in get_args(Phase):
        found[phase] = evaluate_phase(phase, policy=policy, session=session, facts=known, as_of=TODAY)
        if phase == "tier":
            known.learn("risk", {"tier": str(heaviest(found["tier"], Tier))})
    reasons = [reason for some in found.values() for reason in some]
    return heaviest(found["tier"], Tier), heaviest(found["track"], Track), reasons


def weight(facts: Mapping[str, Any]) -> tuple[int, int, bool]:
    tier, track, reasons = outcome_of(facts)
    return list(Tier).index(tier), list(Track).index(track), any(reason.denies for reason in reasons)


def values_at(places: Mapping[str, int]) -> dict[str, Any]:
    return {name: WORSE[name][place] for name, place in places.items()}


@pytest.mark.requirement("T-2", "T-3", "T-4")
@LAWS
@given(PLACES, st.sampled_from(sorted(WORSE)))
def test_a_worse_fact_never_lightens_tier_track_or_outcome(places: dict[str, int], name: str) -> None:
    before = weight(values_at(places))
    for place in range(places[name] + 1, len(WORSE[name])):
        after = weight(values_at({**places, name: place}))
        assert all(new >= old for new, old in zip(after, before, strict=True)), (name, WORSE[name][place])
        before = after


@pytest.mark.requirement("T-3")
@LAWS
@given(PLACES, st.sampled_from(sorted(WORSE)))
def test_a_worse_fact_never_takes_a_seat_away(places: dict[str, int], name: str) -> None:
    def roles(facts: Mapping[str, Any]) -> set[str]:
        _, track, reasons = outcome_of(facts)
        heavier = [Track.RED] if track is Track.RED else [track]
        return {seat.role for level in heavier for seat in asked_seats(POLICY, level, reasons)}

    def added(facts: Mapping[str, Any]) -> set[str]:
        _, _, reasons = outcome_of(facts)
        return {reason.rule for reason in reasons if reason.fired and reason.effect == "seats"}

    worst = {**places, name: len(WORSE[name]) - 1}
    assert added(values_at(places)) <= added(values_at(worst))
    assert bool(roles(values_at(worst))) >= bool(roles(values_at(places)))


@pytest.mark.requirement("T-3")
def test_every_fact_of_these_laws_is_read_by_the_shipped_policy_or_harmless() -> None:
    base = outcome_of({})
    assert (base[0], base[1]) == (Tier.LOW, Track.GREEN)
    assert not any(reason.fired for reason in base[2]), "the base case is an ordinary release"


# Whole decisions

WORKLOAD: Workload = make_workload()
MANIFEST: Manifest = make_manifest(WORKLOAD)
MODEL = {
    "estimator": "tree",
    "steps": ["a"],
    "features": ["income", "debt"],
    "threshold": 0.5,
    "hyperparameters": {},
}
CHANGE = {
    "architecture": False,
    "from_estimator": "a",
    "to_estimator": "a",
    "new_features": [],
    "removed_features": [],
    "hyperparameters": [],
    "threshold": 0.0,
}
DETAILS: dict[str, dict[str, Any]] = {
    SCORE: {"models": {"candidate": MODEL, "champion": MODEL}, "change": CHANGE},
    "performance": {"change": {"relative": 0.01, "direction": "better", "metric": "roc_auc"}},
}
GATES = [*POLICY.gates, SCORE]


def record(gate: str, verdict: Verdict) -> Evidence:
    result = GateResult(verdict=verdict, summary=f"{gate} says {verdict}", details=DETAILS.get(gate, {}))
    return Evidence(
        release_id=MANIFEST.release_id,
        manifest_digest=MANIFEST.digest,
        gate=gate,
        config={},
        result=result,
    )


EVIDENCE = st.dictionaries(st.sampled_from(GATES), st.sampled_from(list(Verdict))).map(
    lambda verdicts: {gate: record(gate, verdict) for gate, verdict in verdicts.items()}
)
ALL = {gate: record(gate, Verdict.PASSED) for gate in GATES}


def judged(evidence: Mapping[str, Evidence], policy: Policy = POLICY) -> Any:
    return decide(
        manifest=MANIFEST, workload=WORKLOAD, policy=policy, evidence=evidence, engine=ENGINE, as_of=TODAY
    )


def test_the_whole_evidence_is_enough_for_a_decision() -> None:
    decision = judged(ALL)
    assert decision.outcome is not Outcome.DENY, [r.message for r in decision.reasons if r.denies]


@pytest.mark.requirement("P-1")
@LAWS
@given(EVIDENCE, st.data())
def test_removing_evidence_never_turns_a_denial_into_anything_else(
    evidence: dict[str, Evidence], data: st.DataObject
) -> None:
    if judged(evidence).outcome is Outcome.DENY and evidence:
        removed = data.draw(st.sampled_from(sorted(evidence)))
        less = {gate: one for gate, one in evidence.items() if gate != removed}
        assert judged(less).outcome is Outcome.DENY


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize("gate", GATES)
def test_removing_any_evidence_denies(gate: str) -> None:
    assert judged({name: one for name, one in ALL.items() if name != gate}).outcome is Outcome.DENY


def shuffled(value: Any, source: random.Random) -> Any:
    """The same data with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = list(value)
        source.shuffle(keys)
        return {key: shuffled(value[key], source) for key in keys}
    return [shuffled(item, source) for item in value] if isinstance(value, list) else value


@pytest.mark.requirement("P-1")
@LAWS
@given(EVIDENCE, st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_nothing(evidence: dict[str, Evidence], source: random.Random) -> None:
    other = {
        gate: Evidence.model_validate(shuffled(one.to_data(), source))
        for gate, one in shuffled(evidence, source).items()
    }
    assert judged(other).to_bytes() == judged(evidence).to_bytes()


@pytest.mark.requirement("P-1")
@LAWS
@given(EVIDENCE, st.randoms(use_true_random=False))
def test_the_order_of_gates_and_rules_changes_no_outcome(
    evidence: dict[str, Evidence], source: random.Random
) -> None:
    gates, rules = list(POLICY.gates.items()), list(POLICY.rules)
    source.shuffle(gates)
    source.shuffle(rules)
    one = judged(evidence)
    two = judged(evidence, POLICY.model_copy(update={"gates": dict(gates), "rules": rules}))
    assert (one.outcome, one.track, one.tier) == (two.outcome, two.track, two.tier)
    assert {seat.role for seat in one.seats} == {seat.role for seat in two.seats}
    named = [
        {(reason.rule, reason.effect, reason.fired) for reason in decision.reasons} for decision in (one, two)
    ]
    assert named[0] == named[1]


@pytest.mark.requirement("P-2")
@LAWS
@given(EVIDENCE)
def test_a_decision_from_stored_bytes_is_the_same_to_the_byte(evidence: dict[str, Evidence]) -> None:
    stored = {gate: one.to_bytes() for gate, one in evidence.items()}
    again = decide(
        manifest=Manifest.from_bytes(MANIFEST.to_bytes()),
        workload=Workload.from_bytes(WORKLOAD.to_bytes()),
        policy=Policy.from_bytes(POLICY.to_bytes()),
        evidence={gate: Evidence.from_bytes(data) for gate, data in stored.items()},
        engine=CelEngine(),
        as_of=TODAY,
    )
    first = judged(evidence)
    assert again.to_bytes() == first.to_bytes()
    assert type(first).from_bytes(first.to_bytes()) == first
