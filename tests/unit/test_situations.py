"""The shipped policy, situation by situation: the table that whoever answers for risk can read."""

from __future__ import annotations

from typing import Any

import pytest

from airlock.core.decision import Outcome
from airlock.core.policy import Tier, Track
from tests.support.deployments import shipped_policy
from tests.support.situations import answer_of, decision_of, situations

ROWS = situations()


def _parameters() -> list[Any]:
    return [
        pytest.param(row, id=row["situation"], marks=pytest.mark.requirement(row["requirement"]))
        for row in ROWS
    ]


@pytest.mark.requirement("T-2", "T-5")
@pytest.mark.parametrize("row", _parameters())
def test_a_situation_is_decided_as_the_table_says(row: dict[str, Any]) -> None:
    assert answer_of(decision_of(row)) == row["expect"]


@pytest.mark.parametrize("row", _parameters())
def test_every_reason_can_be_acted_on(row: dict[str, Any]) -> None:
    for reason in decision_of(row).reasons:
        assert reason.message
        assert not reason.fired or "unknown" not in reason.message
        assert reason.fix or not reason.fired or reason.rule.startswith("gate")


@pytest.mark.requirement("T-3")
def test_the_table_is_large_and_reaches_everything() -> None:
    names = [row["situation"] for row in ROWS]
    assert len(names) == len(set(names)) >= 60
    expected = [row["expect"] for row in ROWS]
    assert {one["outcome"] for one in expected} == set(Outcome)
    assert {one["track"] for one in expected} == {*Track, None}
    assert {one["tier"] for one in expected} == set(Tier)


@pytest.mark.requirement("P-1")
def test_every_shipped_rule_fires_somewhere_in_the_table() -> None:
    """Rules of actions are about production, not about releases; their tests are in the bundle."""
    fired = {rule for row in ROWS for rule in row["expect"]["reasons"]}
    rules = [rule.id for rule in shipped_policy().rules if rule.effect.phase != "action"]
    assert len(rules) > 20
    assert [rule for rule in rules if rule not in fired] == []


@pytest.mark.requirement("T-2", "T-4")
@pytest.mark.parametrize("row", _parameters())
def test_one_more_risk_fact_never_lightens_anything(row: dict[str, Any]) -> None:
    before = decision_of(row)
    worse = {
        "regulated": True, "human_review": False, "automated_decision": True, "exposure": "customer",
        "loss_per_error_usd": 1e6, "rollback": "hard", "traffic_share": 1.0,
    }  # fmt: skip
    for name, value in worse.items():
        use = {**row.get("use", {}), name: value}
        if name == "automated_decision":
            use["human_review"] = False  # the two together contradict each other
        after = decision_of({**row, "use": use})
        assert list(Tier).index(after.tier) >= list(Tier).index(before.tier), name
        if before.track is not None and after.track is not None:
            assert list(Track).index(after.track) >= list(Track).index(before.track), name
