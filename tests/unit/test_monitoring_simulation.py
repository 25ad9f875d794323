"""Real applications, replayed: a real shift is seen in its first window, and none is seen where none is."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import monitoring_simulation as simulation
from benchmarks.monitoring_simulation import POLICY, Simulation, make, plan, simulate

from airlock.core.signals import Reading
from airlock.demo import weeks

pytestmark = pytest.mark.requirement("M-1", "M-2")

REPLAYS = 50


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return Simulation(tmp_path_factory.mktemp("simulation"))


def raised(made: Simulation, number: int, fault: str) -> list[str]:
    made._rows.clear()
    answers = made.signals(make(made.pools, made.model, (number, fault, number), 31))
    return [one.name for one in answers if one.reading is Reading.RAISED]


@pytest.mark.parametrize("number", range(5))
def test_suffolk_raises_a_drift_signal_in_its_first_window(made: Simulation, number: int) -> None:
    assert "data_drift" in raised(made, number, "drift")


@pytest.mark.soak
def test_unshifted_weeks_raise_none_in_fifty_replays_at_the_stated_rate(
    made: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert POLICY.monitoring is not None
    assert POLICY.monitoring.limits.false_alarm_rate == 0.02
    others = ("volume", "data_quality", "unknown_values", "performance", "performance_estimate")
    outside = (*simulation.LEFT_OUT, *others)
    monkeypatch.setattr(simulation, "LEFT_OUT", outside)
    assert [(n, found) for n in range(100, 100 + REPLAYS) if (found := raised(made, n, "calm"))] == []


def test_outcomes_that_mean_something_else_are_seen_though_the_data_is_calm(made: Simulation) -> None:
    found = raised(made, 7, "concept")
    assert set(found) & {"performance", "concept_drift", "target_drift"}
    assert "data_drift" not in found


def test_nobody_from_suffolk_is_trained_on_and_nobody_is_replayed_who_was_evaluated_on() -> None:
    source = simulation.ROOT / "data" / "loanapp.csv"
    found = weeks.pools(source, training=0.06, evaluation=0.24, known=60)
    counties = [int(pool[weeks.COUNTY].sum()) for pool in (found.training, found.evaluation, found.calm)]
    assert counties == [0, 60, 0]
    parts = [set(pool.index) for pool in (found.training, found.evaluation, found.calm, found.moved)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1989
    week = weeks.week(found, 0.55, 2, 400)
    assert (len(week), int(week[weeks.COUNTY].sum())) == (400, 220)
    assert week.index.is_unique


def test_a_plan_has_every_kind_of_fault_and_is_the_same_for_its_seed() -> None:
    first = list(plan(300, 7))
    assert first == list(plan(300, 7))
    assert {fault for _, fault, _ in first} == {"calm", "drift", "concept", "noise", "outage", "no outcomes"}
    assert [number for number, _, _ in first] == list(range(len(first)))


@pytest.mark.soak
def test_a_short_simulation_misses_nothing_and_trains_on_no_noise(tmp_path: Path) -> None:
    weeks, (own, plain) = simulate(24, 3, evidently=False)
    fault = {one.number: one.fault for one in weeks}
    begun = {one.begins for one in weeks if one.fault in simulation.TRUE}
    ends = {one.begins for one in weeks if one.fault in simulation.TRUE and one.number in own.alarms}
    assert begun
    assert ends == begun
    calm = {number for number, kind in fault.items() if kind in ("calm", "no outcomes", "noise")}
    assert len(own.alarms & calm) <= len(plain.alarms & calm)
    needless = {number for number in own.retrains if fault[number] not in simulation.TRUE}
    assert needless == set()
    assert own.retrains
