"""What a waiver does to a decision, and what it can never do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.approvals import Panel, tally
from airlock.core.decision import SCORE, Decision, Outcome, decide
from airlock.core.evidence import Evidence, Verdict
from airlock.core.people import People
from airlock.core.policy import Effect, Policy, Role, Rule, Track
from airlock.core.waiver import DAY_US, Waiver, WaiverRules
from tests.support.engines import TODAY, FunctionEngine
from tests.unit.test_decision import (
    GATES,
    MANIFEST,
    WORKLOAD,
    all_passed,
    evaluate,
    make_evidence,
    make_policy,
    make_rule,
)
from tests.unit.test_waiver import RULES

WAIVABLE = ["gate-privacy", "gate-bias:x"]


def policy(*rules: Rule, **changes: Any) -> Policy:
    waivable = [*WAIVABLE, *(rule.id for rule in rules if rule.effect.deny)]
    section = WaiverRules.model_validate({**RULES, "waivable": waivable, **changes})
    owners = {"data-governance": ["privacy"], "risk": ["bias", "performance"], "engineer": [], "analyst": []}
    roles = {name: Role(title=name, answers_for="a test", gates=gates) for name, gates in owners.items()}
    return make_policy(*rules, waivers=section, roles=roles)


def waiver(rule: str = "gate-privacy", role: str = "data-governance", **changes: Any) -> Waiver:
    values: dict[str, Any] = {
        "waiver_id": f"waiver-{rule}",
        "workload": MANIFEST.workload,
        "rule": rule,
        "versions": MANIFEST.candidate.version,
        "until_us": DAY_US,
        "requester": "dana",
        "role": role,
        "granted_by": "gita",
        "granted_us": 1,
    }
    return Waiver(**{**values, **changes})


def judge(evidence: dict[str, Evidence], *waivers: Waiver, under: Policy | None = None) -> Decision:
    return decide(
        manifest=MANIFEST,
        workload=WORKLOAD,
        policy=under or policy(),
        evidence=evidence,
        engine=FunctionEngine(evaluate),
        as_of=TODAY,
        waivers=waivers,
    )


def failing(gate: str = "privacy", verdict: Verdict = Verdict.FAILED) -> dict[str, Evidence]:
    return all_passed(**{gate: make_evidence(gate, verdict)})


@pytest.mark.requirement("T-9", "A-8")
def test_a_waived_failure_asks_a_person_instead_of_denying() -> None:
    assert judge(failing()).outcome is Outcome.DENY
    allowed = waiver()
    decision = judge(failing(), allowed)
    assert (decision.outcome, decision.track) == (Outcome.PENDING, Track.YELLOW)
    assert decision.waivers == {allowed.waiver_id: allowed.digest}
    reason = next(reason for reason in decision.reasons if reason.rule == "gate-privacy")
    assert (reason.fired, reason.effect, reason.waived_by) == (True, "deny", [allowed.waiver_id])
    assert decision.sentence.startswith(f"it rests on waiver {allowed.waiver_id} of gita (data-governance)")


def test_the_policy_says_how_heavy_a_waived_release_is_and_nothing_makes_it_lighter() -> None:
    assert judge(failing(), waiver(), under=policy(at_least="red")).track is Track.RED
    red = make_rule("red", "true", Effect(track=Track.RED))
    assert judge(failing(), waiver(), under=policy(red)).track is Track.RED


@pytest.mark.requirement("A-8")
@pytest.mark.parametrize(
    "useless",
    [
        waiver("gate-bias:x", "risk"),
        waiver(versions=">90"),
        waiver(workload="another"),
        waiver(granted_by=MANIFEST.submitter),
        waiver(role="risk"),
        waiver("gate-performance"),
    ],
    ids=["other gate", "other version", "other workload", "own grant", "other role", "not waivable"],
)
def test_a_waiver_for_something_else_changes_not_a_byte(useless: Waiver) -> None:
    assert judge(failing(), useless).to_bytes() == judge(failing()).to_bytes()


def test_a_policy_without_waivers_takes_none() -> None:
    assert judge(failing(), waiver(), under=make_policy()).outcome is Outcome.DENY


@pytest.mark.requirement("T-9", "A-8")
def test_an_error_or_missing_evidence_is_never_waived() -> None:
    for gate in GATES:
        everything = policy(waivable=[f"gate-{name}" for name in GATES])
        owners = {name: everything.owner_of_gate(name) or "" for name in GATES}
        waivers = [waiver(f"gate-{name}", owner) for name, owner in owners.items()]
        assert judge(failing(gate, Verdict.ERROR), *waivers, under=everything).outcome is Outcome.DENY
        gone = {name: record for name, record in all_passed().items() if name != gate}
        assert judge(gone, *waivers, under=everything).outcome is Outcome.DENY
    assert judge(failing(SCORE), waiver()).outcome is Outcome.DENY


@pytest.mark.requirement("A-8")
def test_a_denying_rule_is_waived_when_it_fires_and_not_when_it_breaks() -> None:
    allowed = waiver("no-fridays", "risk")
    fires = policy(make_rule("no-fridays", "true", Effect(deny=True)))
    assert judge(all_passed(), allowed, under=fires).outcome is Outcome.PENDING
    breaks = policy(make_rule("no-fridays", "nobody.measured.this", Effect(deny=True)))
    assert judge(all_passed(), allowed, under=breaks).outcome is Outcome.DENY
    silent = policy(make_rule("no-fridays", "false", Effect(deny=True)))
    assert judge(all_passed(), allowed, under=silent).outcome is Outcome.ALLOW


def test_a_second_failure_still_denies() -> None:
    evidence = failing() | {"bias": make_evidence("bias", Verdict.FAILED)}
    decision = judge(evidence, waiver())
    assert decision.outcome is Outcome.DENY
    assert decision.sentence == "bias says FAILED"
    assert judge(evidence, waiver(), waiver("gate-bias:x", "risk")).outcome is Outcome.PENDING


@given(st.permutations([waiver(), waiver(waiver_id="waiver-b"), waiver("gate-bias:x", "risk")]))
def test_the_waivers_it_rests_on_give_the_same_decision_as_all(waivers: list[Waiver]) -> None:
    decision = judge(failing(), *waivers)
    used = [found for found in waivers if found.waiver_id in decision.waivers]
    assert len(used) == 1
    assert judge(failing(), *used).to_bytes() == decision.to_bytes()


@pytest.mark.requirement("A-7", "A-8")
def test_an_approval_binds_to_the_waivers_too() -> None:
    with_waiver = judge(failing(), waiver())
    other = judge(failing(), waiver(until_us=2 * DAY_US))
    assert with_waiver.evidence == other.evidence
    assert with_waiver.evidence_digest != other.evidence_digest
    people = People.model_validate({"people": [{"user": "eve", "name": "Eve", "roles": ["engineer"]}]})
    panel = Panel(people=people, barred={"dana": "submitted it"})
    assert tally([], decision=with_waiver, panel=panel).open_seats == [0]
