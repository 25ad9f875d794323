"""Differences between bundles in words, each with the role whose approval it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock.core.policy import Policy
from airlock.core.policy_diff import diff
from tests.support.deployments import edit, shipped_policy
from tests.support.policies import copy_bundle, read_bundle, rule_text


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copy_bundle(tmp_path)


@pytest.mark.requirement("P-3")
@pytest.mark.parametrize(
    ("file", "old", "new", "words", "owner"),
    [
        (
            "limits.yaml",
            "value: 0.15",
            "value: 0.1",
            "limit red_change falls from 15 % to 10 %: owner governance-analyst",
            "governance-analyst",
        ),
        (
            "limits.yaml",
            "value: 10000",
            "value: 20000",
            "limit loss_per_error_usd rises from 10,000 USD to 20,000 USD: owner risk-officer",
            "risk-officer",
        ),
        (
            "rules/20-track.yaml",
            "when: change.data_source",
            "when: change.data_source && release.first",
            "rule track-red-data-source: its condition `change.data_source` becomes",
            "data-governance",
        ),
        (
            "approval.yaml",
            "      - {role: risk-officer, reason: risk accepts what remains}\n",
            "",
            "track red asks for governance-analyst instead of governance-analyst, risk-officer",
            "",
        ),
        (
            "approval.yaml",
            "expires_hours: 72",
            "expires_hours: 48",
            "approval: expires_hours falls from 72.0 to 48.0",
            "",
        ),
        (
            "gates.yaml",
            "maximum_drift_share: 0.15",
            "maximum_drift_share: 0.3",
            "gate drift: maximum_drift_share rises from 0.15 to 0.3: owner ml-platform-engineer",
            "ml-platform-engineer",
        ),
        (
            "gates.yaml",
            "[skops, ubj,",
            "[skops, pickle, ubj,",
            "gate security: allowed_formats gains pickle: owner security",
            "security",
        ),
        (
            "sandbox.yaml",
            "shap_rows: 1000",
            "shap_rows: 500",
            "sandbox: shap_rows falls from 1000 to 500",
            "",
        ),
    ],
)
def test_a_change_is_told_in_words_with_its_owner(
    bundle: Path, *, file: str, old: str, new: str, words: str, owner: str
) -> None:
    edit(bundle / file, old, new)
    (change,) = diff(shipped_policy(), read_bundle(bundle))
    assert change.sentence.startswith(words)
    assert change.owner == owner


@pytest.mark.requirement("P-3")
def test_taking_over_a_limit_needs_the_approval_of_its_owner_before(bundle: Path) -> None:
    path = bundle / "limits.yaml"
    text = path.read_text()
    path.write_text(text.replace("owner: governance-analyst", "owner: security", 1))
    (change,) = diff(shipped_policy(), read_bundle(bundle))
    assert change.owner == "governance-analyst"
    assert "goes from owner governance-analyst to security" in change.sentence


def test_rules_that_come_and_go_are_told(bundle: Path) -> None:
    (bundle / "rules" / "90.yaml").write_text(rule_text())
    (new,) = diff(shipped_policy(), read_bundle(bundle))
    assert new.sentence == "rule extra is new: warn when workload.regulated: owner risk-officer"
    (gone,) = diff(read_bundle(bundle), shipped_policy())
    assert gone.sentence.startswith("rule extra is gone; it said: warn when workload.regulated")


def test_a_gate_that_is_gone_is_told(bundle: Path) -> None:
    policy = shipped_policy()
    gates = {name: values for name, values in policy.gates.items() if name != "bias"}
    (change,) = diff(policy, policy.model_copy(update={"gates": gates}))
    assert change.sentence == "gate bias is gone; nothing checks this any more: owner risk-officer"


SHARES = st.sampled_from([0.0, 0.05, 0.15, 1.0])


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    policy = shipped_policy()
    limits = {
        name: limit.model_copy(update={"value": draw(SHARES)}) if draw(st.booleans()) else limit
        for name, limit in policy.limits.items()
    }
    rules = [rule for rule in policy.rules if draw(st.integers(0, 5))] or policy.rules[:1]
    rego = draw(st.dictionaries(st.sampled_from(["a.rego", "b.rego"]), st.sampled_from(["x", "y"])))
    return policy.model_copy(update={"limits": limits, "rules": rules, "rego": rego})


@pytest.mark.requirement("P-3")
@settings(deadline=None, max_examples=40)
@given(policies(), policies())
def test_no_difference_is_told_exactly_when_there_is_none(one: Policy, two: Policy) -> None:
    assert (diff(one, two) == []) is (one.digest == two.digest)
    assert len(diff(one, two)) == len(diff(two, one))
