"""Waivers as values: scope, versions, state, and what a decision makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airlock.core.audit import Event, Kind
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import Evidence, Finding, GateResult, Verdict
from airlock.core.waiver import (
    DAY_US,
    Waiver,
    WaiverRules,
    WaiverState,
    covering,
    holds,
    in_range,
    read_waivers,
    request_digest,
    waive_gate,
)

RULES: dict[str, Any] = {
    "maximum_days": 90,
    "warn_days": 14,
    "answer_hours": 72,
    "minimum_reason": 20,
    "at_least": "yellow",
    "waivable": ["gate-privacy", "gate-bias:four_fifths"],
}


def waiver(rule: str = "gate-privacy", **changes: Any) -> Waiver:
    values: dict[str, Any] = {
        "waiver_id": "waiver-1",
        "workload": "loan-model",
        "rule": rule,
        "versions": ">=2,<5",
        "until_us": 100 * DAY_US,
        "requester": "dana",
        "role": "data-governance",
        "granted_by": "gita",
        "granted_us": 1,
    }
    return Waiver(**{**values, **changes})


def record(gate: str, verdict: Verdict, *findings: tuple[str, Verdict, str]) -> Evidence:
    said = [Finding(id=name, verdict=found, message=name, where=where) for name, found, where in findings]
    result = GateResult(verdict=verdict, summary="as told", findings=said)
    return Evidence(release_id="r", manifest_digest="0" * 64, gate=gate, config={}, result=result)


@pytest.mark.requirement("A-8")
@pytest.mark.parametrize(
    ("versions", "inside", "outside"),
    [
        (">=3,<5", "34", "1256"),
        ("3", "3", "245"),
        ("== 3", "3", "24"),
        (">2", "39", "12"),
        ("<=2", "12", "3"),
        (" >= 2 , <= 2 ", "2", "13"),
    ],
)
def test_a_version_range_holds_what_all_its_clauses_hold(versions: str, inside: str, outside: str) -> None:
    assert all(in_range(versions, version) for version in inside)
    assert not any(in_range(versions, version) for version in outside)


@pytest.mark.parametrize(
    "versions", ["", ",", "latest", "*", ">=", ">=3;<5", "3-5", "=>3", "!=3", "\uff13", "-1"]
)
def test_a_range_that_cannot_be_read_is_refused(versions: str) -> None:
    with pytest.raises(InvalidInputError, match="is no version range"):
        in_range(versions, "3")


@pytest.mark.parametrize("version", ["", "latest", "-3", "3.0", "³"])
def test_what_is_no_version_is_in_no_range(version: str) -> None:
    assert not in_range(">=0", version)


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_a_range_is_its_bounds(low: int, high: int, version: int) -> None:
    assert in_range(f">={low},<{high}", str(version)) is (low <= version < high)


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("gate-privacy", "gate-privacy", True),
        ("gate-privacy", "gate-privacy:proxy:zip", True),
        ("gate-privacy:proxy", "gate-privacy:proxy:zip", True),
        ("gate-privacy:proxy:zip", "gate-privacy:proxy", False),
        ("gate-privacy:proxy:a", "gate-privacy:proxy:a: b", False),
        ("gate-privacy", "gate-privacy-2", False),
        ("gate-privacy:pro", "gate-privacy:proxy", False),
    ],
)
def test_a_scope_holds_itself_and_its_parts_alone(outer: str, inner: str, expected: bool) -> None:
    assert holds(outer, inner) is expected


@pytest.mark.requirement("A-8")
def test_what_is_inside_a_waivable_scope_is_waivable_and_what_is_around_it_is_not() -> None:
    rules = WaiverRules.model_validate(RULES)
    for scope in ("gate-privacy", "gate-privacy:proxy", "gate-bias:four_fifths", "gate-bias:four_fifths:men"):
        assert rules.allows(scope)
    for scope in ("gate-bias", "gate-bias:gap", "gate-drift", "gate", "gate-privacy-2"):
        assert not rules.allows(scope)


@pytest.mark.requirement("G-8", "A-8")
@pytest.mark.parametrize(
    "scope",
    ["gate-security", "gate-security:opcode", "gate-score", "gates-complete", "gate privacy", "", ":x"],
)
def test_a_policy_cannot_make_everything_waivable(scope: str) -> None:
    with pytest.raises(ValidationError, match="waivable"):
        WaiverRules.model_validate({**RULES, "waivable": [scope]})


@pytest.mark.requirement("A-8")
def test_each_failed_finding_needs_a_waiver() -> None:
    failed = record(
        "privacy",
        Verdict.FAILED,
        ("proxy", Verdict.FAILED, "zip"),
        ("personal_data", Verdict.FAILED, "name"),
        ("note", Verdict.WARNED, ""),
    )
    proxy, personal = (
        waiver("gate-privacy:proxy:zip"),
        waiver("gate-privacy:personal_data", waiver_id="waiver-2"),
    )
    assert waive_gate(failed, []) == []
    assert waive_gate(failed, [proxy]) == []
    assert waive_gate(failed, [personal, proxy]) == [proxy, personal]
    whole = waiver("gate-privacy", waiver_id="waiver-3")
    assert waive_gate(failed, [personal, proxy, whole]) == [whole]
    assert waive_gate(failed, [waiver("gate-bias")]) == []


@pytest.mark.requirement("A-8")
@pytest.mark.parametrize(
    "evidence",
    [
        record("privacy", Verdict.ERROR, ("privacy-error", Verdict.ERROR, "")),
        record("privacy", Verdict.PASSED),
        record("security", Verdict.FAILED, ("opcode", Verdict.FAILED, "")),
        record("score", Verdict.FAILED, ("score", Verdict.FAILED, "")),
    ],
    ids=["error", "passed", "security", "score"],
)
def test_an_error_unsafe_files_and_a_missing_score_are_never_waived(evidence: Evidence) -> None:
    assert waive_gate(evidence, [waiver(f"gate-{evidence.gate}")]) == []


def test_one_finding_in_error_is_not_waived_with_the_others() -> None:
    mixed = record("privacy", Verdict.FAILED, ("a", Verdict.FAILED, ""), ("b", Verdict.ERROR, ""))
    assert waive_gate(mixed, [waiver("gate-privacy:a"), waiver("gate-privacy:b", waiver_id="w2")]) == []


def test_a_failure_without_findings_is_waived_as_a_whole_or_not() -> None:
    assert waive_gate(record("privacy", Verdict.FAILED), [waiver("gate-privacy:a")]) == []
    assert len(waive_gate(record("privacy", Verdict.FAILED), [waiver("gate-privacy")])) == 1


def test_the_choice_among_waivers_does_not_depend_on_their_order() -> None:
    several = [waiver(waiver_id=name) for name in ("waiver-c", "waiver-a", "waiver-b")]
    chosen = {covering(order, "gate-privacy") for order in (several, several[::-1])}
    assert [found and found.waiver_id for found in chosen] == ["waiver-a"]


@pytest.mark.requirement("A-2", "A-8")
def test_nobody_rests_on_a_waiver_that_they_granted() -> None:
    assert waiver().is_for(workload="loan-model", version="2", submitter="dana")
    assert not waiver().is_for(workload="loan-model", version="2", submitter="gita")
    assert not waiver().is_for(workload="loan-model", version="5", submitter="dana")
    assert not waiver().is_for(workload="other", version="2", submitter="dana")


# From events


def requested(actor: str = "dana", **changes: Any) -> Event:
    data = {
        "waiver": "waiver-1",
        "rule": "gate-privacy",
        "versions": ">=2,<5",
        "until_us": 30 * DAY_US,
        "role": "data-governance",
        "warn_days": 14.0,
        "answer_hours": 72.0,
        **changes,
    }
    return event(Kind.WAIVER_REQUESTED, actor, 0, data)


def event(kind: Kind, actor: str, at_us: int, data: dict[str, Any]) -> Event:
    values = {"key": f"{kind}/{actor}", "kind": kind, "occurred_us": at_us, "actor": actor}
    return Event(**values, deployment="test", workload="loan-model", data={"waiver": "waiver-1", **data})


def answered(kind: Kind = Kind.WAIVER_GRANTED, actor: str = "gita", **changes: Any) -> Event:
    (request,) = read_waivers([requested()])
    return event(
        kind, actor, DAY_US, {"role": "data-governance", "request": request_digest(request), **changes}
    )


@pytest.mark.requirement("A-8")
def test_a_waiver_goes_from_asked_to_expired() -> None:
    (asked,) = read_waivers([requested()])
    assert asked.granted is None
    assert asked.state(0) is WaiverState.ASKED
    assert asked.state(3 * DAY_US) is WaiverState.UNANSWERED
    (found,) = read_waivers([requested(), answered()])
    assert [found.state(day * DAY_US) for day in (1, 15, 16, 29, 30)] == [
        WaiverState.ACTIVE,
        WaiverState.ACTIVE,
        WaiverState.EXPIRING,
        WaiverState.EXPIRING,
        WaiverState.EXPIRED,
    ]
    assert found.granted is not None
    assert (found.granted.granted_by, found.granted.requester) == ("gita", "dana")
    (gone,) = read_waivers([requested(), answered(), event(Kind.WAIVER_REVOKED, "gita", 2 * DAY_US, {})])
    assert gone.state(2 * DAY_US) is WaiverState.REVOKED
    (no,) = read_waivers([requested(), answered(Kind.WAIVER_REJECTED), answered()])
    assert no.state(DAY_US) is WaiverState.REJECTED
    assert no.granted is None


@pytest.mark.requirement("A-2", "A-8")
@pytest.mark.parametrize(
    "forged",
    [
        answered(actor="dana"),
        answered(role="risk-officer"),
        answered(request="0" * 64),
        event(Kind.WAIVER_GRANTED, "gita", DAY_US, {}),
    ],
    ids=["by the requester", "in another role", "for another request", "for nothing"],
)
def test_an_answer_that_must_not_count_does_not(forged: Event) -> None:
    (found,) = read_waivers([requested(), forged])
    assert found.granted is None


def test_a_grant_without_a_request_is_nothing() -> None:
    assert read_waivers([answered()]) == []
