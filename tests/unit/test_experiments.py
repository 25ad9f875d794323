"""A/B plans: collisions between workloads, and whether they see enough cases."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from statsmodels.stats.power import normal_sample_size_one_tail

from airlock.core.evidence import Verdict
from airlock.core.experiments import Experiment, check_plans, sample_size
from tests.support.gates import make_workload

DAY = date(2026, 3, 1)


def plan(name: str = "one", **changes: Any) -> Experiment:
    """A plan that sees enough cases."""
    values: dict[str, Any] = {
        "id": name,
        "population": "everybody",
        "share": 0.5,
        "start": DAY,
        "end": DAY + timedelta(days=13),
        "metric": "approval_rate",
        "baseline": 0.2,
        "minimum_detectable_effect": 0.02,
        "power": 0.8,
        "alpha": 0.05,
        "cases_per_day": 5000,
        "workload": f"w-{name}",
    }
    return Experiment(**{**values, **changes})


def ids(*plans: Experiment) -> list[str]:
    return [finding.id for finding in check_plans(plans)]


def test_one_plan_that_sees_enough_is_fine() -> None:
    assert ids(plan()) == []
    assert ids() == []


# Sample size


@pytest.mark.requirement("T-10")
@pytest.mark.parametrize("baseline", [0.01, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("effect", [0.005, 0.02])
@pytest.mark.parametrize("treatment", [0.5, 0.2])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.9, 0.01)])
def test_the_sample_size_is_that_of_statsmodels(
    baseline: float, effect: float, treatment: float, power: float, alpha: float
) -> None:
    ratio = treatment / (1 - treatment)
    needed = []
    for rate in (baseline - effect, baseline + effect):
        if not 0 < rate < 1:
            continue
        pooled = (baseline + ratio * rate) / (1 + ratio)
        null = (pooled * (1 - pooled) * (1 + 1 / ratio)) ** 0.5
        other = (baseline * (1 - baseline) + rate * (1 - rate) / ratio) ** 0.5
        needed.append(
            normal_sample_size_one_tail(
                rate - baseline, power, alpha / 2, std_null=null, std_alternative=other
            )
        )
    control, both = sample_size(
        plan(
            baseline=baseline,
            minimum_detectable_effect=effect,
            treatment_share=treatment,
            power=power,
            alpha=alpha,
        )
    )
    assert control == pytest.approx(max(needed), abs=1)
    assert both == pytest.approx(ratio * max(needed), abs=1)


def test_a_textbook_example() -> None:
    # Fleiss, Levin and Paik (2003): p1 = 0.6, p2 = 0.7, alpha 0.05, power 0.8 give 356 cases a
    # group before the correction for continuity (376 with it).
    found = sample_size(plan(baseline=0.6, minimum_detectable_effect=0.1))
    assert found[0] == found[1]
    assert 356 <= found[0] <= 389  # towards 0.5 the other side of the baseline needs a few more


@pytest.mark.requirement("T-10")
def test_a_plan_that_ends_too_early_is_told_how_long_it_would_take() -> None:
    control, treatment = sample_size(plan())
    per_day = (control + treatment) / 10
    enough = plan(share=1, cases_per_day=per_day, end=DAY + timedelta(days=9))
    assert ids(enough) == []
    (finding,) = check_plans([enough.model_copy(update={"end": DAY + timedelta(days=8)})])
    assert (finding.id, finding.verdict) == ("experiment_underpowered", Verdict.FAILED)
    assert "run it for 10 days" in finding.fix


@given(st.floats(0.01, 0.99), st.floats(0.001, 0.3), st.floats(0.05, 0.95))
def test_a_smaller_effect_never_needs_fewer_cases(baseline: float, effect: float, share: float) -> None:
    try:
        large = plan(baseline=baseline, minimum_detectable_effect=effect, treatment_share=share)
        small = plan(baseline=baseline, minimum_detectable_effect=effect / 2, treatment_share=share)
    except ValidationError:
        return  # neither side of the baseline is a rate
    if baseline - effect > 0 and baseline + effect < 1:
        assert sum(sample_size(small)) >= sum(sample_size(large))


# Collisions


@pytest.mark.requirement("T-10")
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"share": 0.6}, ["experiment_overlap"]),
        ({"start": DAY + timedelta(days=13), "end": DAY + timedelta(days=30)}, ["experiment_overlap"]),
        ({"start": DAY + timedelta(days=14), "end": DAY + timedelta(days=30)}, []),
        ({"population": "new-customers"}, ["experiment_overlap"]),
        ({"layer": "pricing"}, ["experiment_overlap"]),
    ],
)
def test_plans_that_nobody_assigns_together_collide(changes: dict[str, Any], found: list[str]) -> None:
    assert ids(plan(), plan("two", **changes)) == found


@pytest.mark.requirement("T-10")
def test_shares_above_one_are_certain_to_collide() -> None:
    verdicts = [check_plans([plan(), plan("two", share=share)])[0].verdict for share in (0.5, 0.51)]
    assert verdicts == [Verdict.WARNED, Verdict.FAILED]


def test_populations_that_do_not_meet_do_not_collide() -> None:
    new, old = (plan(name, population=name) for name in ("new-customers", "old-customers"))
    assert ids(new, old) == []
    north, south = (plan(name, filters={"region": [name], "age": ["30"]}) for name in ("north", "south"))
    assert ids(north, south) == []
    assert ids(north, plan("both", filters={"region": ["south", "north"]})) == ["experiment_overlap"]


@pytest.mark.requirement("T-10")
def test_a_layer_holds_as_many_as_fit() -> None:
    three = [plan(name, layer="scores", share=0.4) for name in ("a", "b", "c")]
    assert ids(*three[:2]) == []
    assert set(ids(*three)) == {"experiment_layer_full"}
    assert ids(three[0], three[1], plan("d", layer="prices", share=1)) == []
    later = plan("e", layer="scores", share=0.4, start=DAY + timedelta(days=5))
    assert ids(three[0], three[1], later) == ["experiment_layer_full"]


def test_a_name_used_twice_is_found() -> None:
    assert "experiment_twice" in ids(plan(layer="a", share=0.3), plan(layer="a", share=0.3))


PLANS = st.builds(
    lambda name, population, layer, share, start, days: plan(
        name, population=population, layer=layer, share=share, start=DAY + timedelta(days=start),
        end=DAY + timedelta(days=start + days),
    ),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["everybody", "new", "old"]),
    st.sampled_from([None, "x", "y"]),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.integers(0, 20),
    st.integers(0, 20),
)  # fmt: skip


@given(st.lists(PLANS, max_size=6), PLANS, st.randoms(use_true_random=False))
def test_order_changes_nothing_and_one_more_plan_removes_no_finding(
    plans: list[Experiment], more: Experiment, source: Any
) -> None:
    before = check_plans(plans)
    shuffled = list(plans)
    source.shuffle(shuffled)
    assert check_plans(shuffled) == before
    after = {(finding.id, finding.where) for finding in check_plans([*plans, more])}
    assert {(finding.id, finding.where) for finding in before} <= after


@pytest.mark.parametrize(
    "changes",
    [{"end": DAY - timedelta(days=1)}, {"share": 0}, {"share": 1.1}, {"baseline": 0}, {"power": 1},
     {"baseline": 0.5, "minimum_detectable_effect": 0.6}, {"alpha": 0.5}, {"cases_per_day": 0}],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plan(**changes)


def test_a_workload_names_its_plans() -> None:
    workload = make_workload(experiments=[plan(workload="")])
    assert [one.name for one in workload.plans] == ["test-model/one"]
