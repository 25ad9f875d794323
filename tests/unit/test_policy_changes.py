"""The differences of two policies, and who answers for them."""

from __future__ import annotations

from typing import Any

import pytest

from airlock.core.policy import Policy
from airlock.core.policy_changes import changes, common_owners, roles_asked
from tests.support.deployments import policy_data


def policy(**changed: Any) -> Policy:
    return Policy.model_validate(policy_data(**changed))


def said(new: Policy, old: Policy | None = None) -> list[tuple[str, list[str]]]:
    return [(change.sentence, change.owners) for change in changes(old or policy(), new)]


COMMON = ["governance-analyst", "risk-officer"]


def test_a_policy_does_not_differ_from_itself_nor_by_its_version() -> None:
    assert said(policy()) == []
    assert said(policy(version="2.0.0")) == []
    assert roles_asked([], policy()) == COMMON == common_owners(policy())


@pytest.mark.requirement("P-3")
def test_a_limit_says_how_far_it_moves_and_asks_its_owner() -> None:
    data = policy_data()
    data["limits"]["red_change"]["value"] = 0.1
    data["limits"]["green_change"]["owner"] = "data-governance"
    before = data["limits"]["red_change"]["owner"]
    found = dict(said(Policy.model_validate(data)))
    assert found["limit red_change falls from 15 % to 10 %"] == [before]
    passed = next(
        owners for text, owners in found.items() if text.startswith("limit green_change passes from")
    )
    assert passed == sorted({before, "data-governance"})


@pytest.mark.requirement("P-3")
def test_a_rule_that_changes_asks_its_old_and_its_new_owner() -> None:
    data = policy_data()
    rule = data["rules"][0]
    old_owner = rule["owner"]
    rule["owner"], rule["when"] = "risk-officer", "true"
    ((text, owners),) = said(Policy.model_validate(data))
    assert "when changes from workload.regulated to true" in text
    assert owners == sorted({old_owner, "risk-officer"})
    gone = policy_data()
    gone["rules"] = gone["rules"][1:]
    assert said(Policy.model_validate(gone)) == [("rule tier-regulated is removed", [old_owner])]
    assert said(policy(), Policy.model_validate(gone)) == [("rule tier-regulated is new", [old_owner])]


@pytest.mark.requirement("P-3")
def test_a_gate_asks_its_owner_and_what_nobody_owns_asks_the_heaviest_track() -> None:
    data = policy_data()
    data["gates"]["documentation"] = {**data["gates"]["documentation"], "minimum_words": 1}
    ((text, owners),) = said(Policy.model_validate(data))
    assert "gate documentation: minimum_words changes from" in text
    assert owners == ["governance-analyst"]
    ((text, owners),) = said(policy(description="Another."))
    assert (text, owners) == ("the description changes", COMMON)
    data = policy_data()
    data["approval"]["seats"]["red"] = data["approval"]["seats"]["red"][:1]
    ((text, owners),) = said(Policy.model_validate(data))
    assert text.startswith("approval: seats changes from")
    assert owners == COMMON, "who loses a seat is asked, so the old policy counts"
    data = policy_data()
    data["waivers"]["waivable"] = ["gate-performance"]
    assert [owners for _, owners in said(Policy.model_validate(data))] == [COMMON]
    del data["waivers"]
    assert said(Policy.model_validate(data))[0][0].startswith("waivers")


def test_sections_without_an_owner_are_compared_too() -> None:
    was = policy()
    for changed in (
        {"rego": {"extra.rego": "package airlock"}},
        {"base_case": {"release": {"first": True}}},
        {"sandbox": was.sandbox.model_copy(update={"seconds": 1.0})},
        {"waivers": None},
        {"rules": was.rules[::-1]},
        {"gates": dict(reversed(was.gates.items()))},
    ):
        ((_, owners),) = said(was.model_copy(update=changed))
        assert owners == COMMON
