"""The decision: a pure function of manifest, evidence and policy, and what it must never do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.decision import (
    Decision,
    Outcome,
    decide,
    gate_verdicts,
    required_gates,
)
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.core.evidence import SCORE, Evidence, Finding, GateResult, Verdict, worst
from airlock.core.manifest import Manifest
from airlock.core.policy import (
    ApprovalRules,
    Effect,
    Limit,
    Policy,
    Role,
    Rule,
    SandboxRules,
    Seat,
    Severity,
    Tier,
    Track,
)
from airlock.core.rules import FactSet
from airlock.core.sentences import render
from tests.support.engines import TODAY, FunctionEngine
from tests.support.gates import make_manifest, make_workload

WEIGHT = {Outcome.ALLOW: 0, Outcome.PENDING: 1, Outcome.DENY: 2}
GATES = ["privacy", "performance", "bias"]


def evaluate(condition: str, facts: Mapping[str, Any]) -> bool:
    """A tiny language: ``true``, ``false``, or a dotted fact that must be there and be a boolean."""
    if condition in ("true", "false"):
        return condition == "true"
    value: Any = facts
    for part in condition.split("."):
        value = value[part]
    if not isinstance(value, bool):
        raise InvalidInputError(f"{condition} is {value!r}")
    return value


def make_rule(name: str, when: str, effect: Effect, **changes: Any) -> Rule:
    values: dict[str, Any] = {
        "id": name,
        "title": name,
        "owner": "risk",
        "severity": Severity.MEDIUM,
        "why": "a test",
        "when": when,
        "effect": effect,
        "because": f"{name} fired",
        "otherwise": f"{name} did not fire",
        "fix": f"undo {name}",
        "expires": "never",
    }
    return Rule(**{**values, **changes})


SEATS = {
    Track.GREEN: [],
    Track.YELLOW: [Seat(role="engineer", reason="yellow")],
    Track.RED: [Seat(role="analyst", reason="red"), Seat(role="risk", reason="red")],
}


def make_policy(*rules: Rule, gates: list[str] | None = None, **changes: Any) -> Policy:
    values: dict[str, Any] = {
        "version": "1.0.0",
        "description": "for tests",
        "limits": {"change": Limit(value=0.05, unit="share", owner="risk", why="a test")},
        "roles": {
            name: Role(title=name, answers_for="a test")
            for name in ("risk", "engineer", "analyst", "data-governance")
        },
        "gates": {name: {} for name in (GATES if gates is None else gates)},
        "rules": list(rules) or [make_rule("never", "false", Effect(track=Track.RED))],
        "approval": ApprovalRules(seats=SEATS, expires_hours=1, minimum_comment=1),
        "sandbox": SandboxRules(
            seconds=1,
            memory_mb=1,
            output_mb=1,
            require_network_isolation=True,
            shap_rows=1,
            background_rows=1,
        ),
    }
    return Policy(**{**values, **changes})


WORKLOAD = make_workload()
"""Regulated, and reviewed by no human."""

MANIFEST = make_manifest(WORKLOAD)


def make_evidence(
    gate: str, verdict: Verdict = Verdict.PASSED, manifest: Manifest = MANIFEST, **details: Any
) -> Evidence:
    allowed = verdict in (Verdict.PASSED, Verdict.WARNED)
    findings = [] if allowed else [Finding(id="x", verdict=verdict, message="no", fix=f"fix {gate}")]
    result = GateResult(verdict=verdict, summary=f"{gate} says {verdict}", findings=findings, details=details)
    return Evidence(
        release_id=manifest.release_id, manifest_digest=manifest.digest, gate=gate, config={}, result=result
    )


def all_passed(**changes: Evidence) -> dict[str, Evidence]:
    return {name: make_evidence(name) for name in [*GATES, SCORE]} | changes


def judge(
    evidence: Mapping[str, Evidence],
    *rules: Rule,
    manifest: Manifest = MANIFEST,
    policy: Policy | None = None,
) -> Decision:
    return decide(
        manifest=manifest,
        workload=WORKLOAD,
        policy=policy or make_policy(*rules),
        evidence=evidence,
        engine=FunctionEngine(evaluate),
        as_of=TODAY,
    )


# Tracks and outcomes


@pytest.mark.requirement("T-2", "T-3")
@pytest.mark.parametrize(
    ("track", "outcome", "seats"),
    [(None, Outcome.ALLOW, 0), (Track.GREEN, Outcome.ALLOW, 0), (Track.YELLOW, Outcome.PENDING, 1),
     (Track.RED, Outcome.PENDING, 2)],
)  # fmt: skip
def test_the_track_says_who_must_approve(track: Track | None, outcome: Outcome, seats: int) -> None:
    rules = [make_rule("a-rule", "true", Effect(track=track))] if track else []
    decision = judge(all_passed(), *rules)
    assert (decision.outcome, decision.track, len(decision.seats)) == (outcome, track or Track.GREEN, seats)


@given(st.lists(st.sampled_from(list(Track)), max_size=5), st.lists(st.sampled_from(list(Track)), max_size=5))
def test_the_heaviest_rule_that_fires_counts(fired: list[Track], silent: list[Track]) -> None:
    rules = [make_rule(f"f{i}", "true", Effect(track=track)) for i, track in enumerate(fired)]
    rules += [make_rule(f"s{i}", "false", Effect(track=track)) for i, track in enumerate(silent)]
    order = list(Track)
    assert judge(all_passed(), *rules).track is max(fired, key=order.index, default=Track.GREEN)


@pytest.mark.requirement("T-4")
def test_track_rules_may_ask_for_the_tier() -> None:
    high = make_rule("high", "workload.regulated", Effect(tier=Tier.HIGH))
    asks = make_rule("asks", "risk_is_high", Effect(track=Track.RED), because="tier {risk.tier}")

    def with_tier(condition: str, facts: Mapping[str, Any]) -> bool:
        return facts["risk"]["tier"] == "high" if condition == "risk_is_high" else evaluate(condition, facts)

    decision = decide(
        manifest=MANIFEST,
        workload=WORKLOAD,
        policy=make_policy(asks, high),
        evidence=all_passed(),
        engine=FunctionEngine(with_tier),
        as_of=TODAY,
    )
    assert (decision.tier, decision.track) == (Tier.HIGH, Track.RED)
    assert decision.sentence == "tier high"


@pytest.mark.requirement("T-5")
def test_every_rule_gives_its_reason_fired_or_not() -> None:
    decision = judge(
        all_passed(),
        make_rule("yes", "true", Effect(track=Track.YELLOW)),
        make_rule("no", "false", Effect(track=Track.RED)),
    )
    assert [(r.rule, r.effect, r.message, r.fix, r.fired) for r in decision.reasons] == [
        ("yes", "track yellow", "yes fired", "undo yes", True),
        ("no", "track red", "no did not fire", "", False),
    ]
    assert decision.sentence == "yes fired"


def test_a_green_release_says_what_a_heavier_track_would_have_needed() -> None:
    rules = [
        make_rule("one", "false", Effect(track=Track.YELLOW)),
        make_rule("two", "false", Effect(track=Track.YELLOW)),
    ]
    assert judge(all_passed(), *rules).sentence == "one did not fire; two did not fire"
    assert judge(all_passed()).sentence == "no rule asks for people"


def test_a_deny_rule_denies_a_release_whose_gates_all_passed() -> None:
    decision = judge(all_passed(), make_rule("stop", "true", Effect(deny=True)))
    assert (decision.outcome, decision.seats) == (Outcome.DENY, [])
    assert decision.sentence == "stop fired"


# Gates


@pytest.mark.requirement("P-1")
def test_no_evidence_at_all_is_a_denial() -> None:
    decision = judge({})
    assert (decision.outcome, decision.track) == (Outcome.DENY, None)
    assert decision.sentence == "no evidence from bias, performance, privacy, score"


@pytest.mark.parametrize("missing", [*GATES, SCORE])
def test_a_single_missing_gate_is_a_denial(missing: str) -> None:
    evidence = all_passed()
    del evidence[missing]
    decision = judge(evidence)
    assert decision.outcome is Outcome.DENY
    assert decision.sentence == f"no evidence from {missing}"
    assert decision.reasons[0].fix


@pytest.mark.parametrize("gate", [*GATES, SCORE])
@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_gate_that_does_not_allow_denies_with_its_own_words(gate: str, verdict: Verdict) -> None:
    decision = judge(all_passed(**{gate: make_evidence(gate, verdict)}))
    assert (decision.outcome is Outcome.DENY) is (verdict in (Verdict.FAILED, Verdict.ERROR))
    if decision.outcome is Outcome.DENY:
        assert decision.sentence == f"{gate} says {verdict}"
        assert decision.reasons[0].fix == f"fix {gate}"


def test_a_track_is_unknown_when_a_gate_did_not_answer_unless_it_is_red_already() -> None:
    yellow = make_rule("yellow", "true", Effect(track=Track.YELLOW))
    red = make_rule("red", "workload.regulated", Effect(track=Track.RED))
    unmeasured = make_rule("unmeasured", "change.big", Effect(track=Track.RED))
    broken = all_passed(bias=make_evidence("bias", Verdict.ERROR))
    assert judge(broken, yellow, unmeasured).track is None
    decision = judge(broken, yellow, red, unmeasured)
    assert (decision.track, decision.outcome, decision.seats) == (Track.RED, Outcome.DENY, [])


def test_evidence_of_another_release_does_not_count() -> None:
    other = make_manifest(make_workload(), release_id="another")
    decision = judge(all_passed(bias=make_evidence("bias", manifest=other)))
    assert decision.sentence == "no evidence from bias"
    assert "bias" not in decision.evidence


def test_evidence_of_another_gate_does_not_count() -> None:
    decision = judge(all_passed(bias=make_evidence("privacy")))
    assert decision.sentence == "no evidence from bias"


def test_evidence_of_a_gate_nobody_asked_for_changes_nothing_but_is_kept() -> None:
    decision = judge(all_passed(extra=make_evidence("extra", Verdict.FAILED)))
    assert decision.outcome is Outcome.ALLOW
    assert "extra" in decision.evidence


# Rules in error


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize("effect", [Effect(tier=Tier.LOW), Effect(track=Track.GREEN), Effect(deny=True)])
@pytest.mark.parametrize("condition", ["change.unknown", "workload.name", "nothing"])
def test_a_rule_that_cannot_be_evaluated_denies(effect: Effect, condition: str) -> None:
    decision = judge(all_passed(), make_rule("broken", condition, effect))
    assert decision.outcome is Outcome.DENY
    assert decision.sentence.startswith("rule broken could not be evaluated")
    if effect.tier:
        assert decision.tier is Tier.HIGH
    if effect.track:
        assert decision.track is Track.RED


@pytest.mark.parametrize("because", ["{workload.name|percent}", "{workload.name|no}", "{release.first|list}"])
def test_a_reason_that_cannot_be_written_denies_and_does_not_crash(because: str) -> None:
    decision = judge(all_passed(), make_rule("broken", "true", Effect(track=Track.GREEN), because=because))
    assert decision.outcome is Outcome.DENY
    assert "broken" in decision.sentence


# Laws

VERDICTS = st.sampled_from(list(Verdict))
CONDITIONS = st.sampled_from(
    ["true", "false", "workload.regulated", "workload.human_review", "change.big", "nothing"]
)
EFFECTS = (
    st.builds(Effect, tier=st.sampled_from(list(Tier)))
    | st.builds(Effect, track=st.sampled_from(list(Track)))
    | st.just(Effect(deny=True))
)


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    return [make_rule(f"r{i}", draw(CONDITIONS), draw(EFFECTS)) for i in range(draw(st.integers(1, 5)))]


@st.composite
def evidences(draw: st.DrawFn) -> dict[str, Evidence]:
    present = draw(st.lists(st.sampled_from([*GATES, SCORE]), unique=True))
    big = draw(st.sampled_from([{}, {"change": {"big": True}}, {"change": {"big": False}}]))
    return {name: make_evidence(name, draw(VERDICTS), **(big if name == SCORE else {})) for name in present}


@given(
    evidences(), rules(), st.sampled_from([*GATES, SCORE]), st.sampled_from([Verdict.FAILED, Verdict.ERROR])
)
def test_a_failing_gate_never_makes_the_outcome_lighter(
    evidence: dict[str, Evidence], some_rules: list[Rule], gate: str, verdict: Verdict
) -> None:
    before = judge(evidence, *some_rules)
    after = judge({**evidence, gate: make_evidence(gate, verdict)}, *some_rules)
    assert after.outcome is Outcome.DENY
    assert WEIGHT[after.outcome] >= WEIGHT[before.outcome]


@given(evidences(), rules(), st.randoms(use_true_random=False))
def test_the_order_of_evidence_changes_nothing(
    evidence: dict[str, Evidence], some_rules: list[Rule], source: Any
) -> None:
    pairs = list(evidence.items())
    source.shuffle(pairs)
    assert judge(dict(pairs), *some_rules).to_bytes() == judge(evidence, *some_rules).to_bytes()


@given(evidences(), rules())
def test_only_a_release_all_gates_let_through_goes_on(
    evidence: dict[str, Evidence], some_rules: list[Rule]
) -> None:
    decision = judge(evidence, *some_rules)
    allowed = all(gate in evidence and evidence[gate].verdict.allows for gate in [*GATES, SCORE])
    assert allowed or decision.outcome is Outcome.DENY
    assert (decision.outcome is Outcome.PENDING) is bool(decision.seats)
    assert decision.sentence
    assert Decision.from_bytes(decision.to_bytes()) == decision
    assert decision.manifest_digest == MANIFEST.digest


@pytest.mark.requirement("A-7")
@given(st.sampled_from([*GATES, SCORE]), VERDICTS)
def test_approvals_bind_to_all_evidence(gate: str, verdict: Verdict) -> None:
    changed = all_passed(**{gate: make_evidence(gate, verdict, other=True)})
    assert judge(changed).evidence_digest != judge(all_passed()).evidence_digest


@given(rules())
def test_an_approval_binds_to_the_policy(some_rules: list[Rule]) -> None:
    policy = make_policy(*some_rules)
    assert judge({}, policy=policy).policy_digest == policy.digest


# Sentences


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("no fact", "no fact"),
        ("{a.b}", "0.1234"),
        ("{a.b|percent} of {a.c|number}", "12.3 % of 12,345.6"),
        ("{a.list|list}; {a.none|list}", "x, y; none"),
        ("{a.missing} {a.b.c} {nothing|percent}", "unknown unknown unknown"),
        ("{} { } {A} {a b}", "{} { } {A} {a b}"),
        ("{a.text}", "{a.b}"),
    ],
)
def test_facts_are_inserted(template: str, text: str) -> None:
    facts = {"a": {"b": 0.1234, "c": 12345.6, "list": ["x", "y"], "none": [], "text": "{a.b}"}}
    assert render(template, FactSet(facts).flat) == text


def test_an_unknown_format_is_a_fault_of_the_policy() -> None:
    with pytest.raises(ConfigurationError, match="shout"):
        render("{a|shout}", {"a": 1})


@given(st.text(), st.text())
def test_text_of_a_fact_is_never_a_template(template: str, value: str) -> None:
    assert render("{fact}", {"fact": value, "x": "secret"}) == value
    render(template, {})


# Small things


def test_required_gates_are_those_of_the_policy_and_the_scoring() -> None:
    policy = make_policy()
    assert required_gates(policy) == ["bias", "performance", "privacy", "score"]
    assert gate_verdicts(policy, {"bias": make_evidence("bias", Verdict.WARNED)}) == {
        "privacy": None,
        "performance": None,
        "bias": Verdict.WARNED,
        "score": None,
    }


@given(st.lists(VERDICTS))
def test_the_worst_verdict_of_none_is_an_error(verdicts: list[Verdict]) -> None:
    found = worst(verdicts)
    assert found is (Verdict.ERROR if not verdicts else max(verdicts, key=list(Verdict).index))
    assert found.allows is (bool(verdicts) and all(verdict.allows for verdict in verdicts))


@pytest.mark.parametrize("count", [0, 2, 3])
def test_an_effect_is_exactly_one_thing(count: int) -> None:
    given_effects = dict(list({"tier": Tier.LOW, "track": Track.RED, "deny": True}.items())[:count])
    with pytest.raises(ValueError, match="exactly one"):
        Effect(**given_effects)
