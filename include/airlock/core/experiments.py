"""A/B plans: do they collide, and can they show what they are meant to show (requirement T-10).

Experiments in one ``layer`` are assigned together: a case is in at most one of them, so their shares add
up to at most 1. Experiments in different layers are assigned independently of each other and may share
cases. Source: Tang, Agarwal, O'Brien and Meyer, Overlapping Experiment Infrastructure, KDD 2010.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import combinations
from math import ceil, sqrt
from statistics import NormalDist
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.evidence import Finding, Verdict
from airlock.core.statistics import exceeds

EVERYBODY: Final = "everybody"
"""The population that holds every other."""

_Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]


class Experiment(Value):
    """The plan of one A/B test.

    Attributes:
        population: named segment the cases come from; ``everybody`` holds all others.
        filters: further conditions, column → values; a case meets all of them.
        layer: experiments of one layer are assigned together; without a layer nothing is known about
            who else changes these cases.
        share: share of the population that takes part, treatment and control together.
        treatment_share: share of those who take part that gets the new version.
        end: last day.
        baseline: rate of the metric with the current version, between 0 and 1.
        minimum_detectable_effect: smallest difference from the baseline worth knowing, absolute.
        power: probability to see an effect of that size.
        alpha: probability to see an effect where there is none, both sides together.
        cases_per_day: expected cases of the population on a day.
        workload: whose plan it is; filled in from the workload file.
    """

    id: _Id
    population: _Id
    filters: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    layer: _Id | None = None
    share: Annotated[float, Field(gt=0, le=1)]
    treatment_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    start: date
    end: date
    metric: Annotated[str, Field(min_length=1)]
    baseline: Annotated[float, Field(gt=0, lt=1)]
    minimum_detectable_effect: Annotated[float, Field(gt=0, lt=1)]
    power: Annotated[float, Field(ge=0.5, lt=1)]
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    cases_per_day: Annotated[float, Field(gt=0)]
    workload: str = ""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end: {self.end} is before the start, {self.start}")
        if not _alternatives(self):
            raise ValueError(
                "minimum_detectable_effect: neither baseline plus nor minus it lies between 0 and 1"
            )
        return self

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.workload}/{self.id}" if self.workload else self.id

    @property
    def days(self) -> int:
        """How many days it runs."""
        return (self.end - self.start).days + 1


def _alternatives(plan: Experiment) -> list[float]:
    """The rates that are worth knowing: above and below the baseline, as far as they are rates."""
    effect = plan.minimum_detectable_effect
    return [rate for rate in (plan.baseline - effect, plan.baseline + effect) if 0 < rate < 1]


def sample_size(plan: Experiment) -> tuple[int, int]:
    """Cases that control and treatment need.

    Formula, for a two-sided z test of two proportions with k = treatment cases per control case:

        n = (z₁ √(p̄(1-p̄)(1 + 1/k)) + z₂ √(p₁(1-p₁) + p₂(1-p₂)/k))² / (p₂ - p₁)²,  p̄ = (p₁ + k·p₂)/(1 + k)

    with z₁ for 1 - alpha/2 and z₂ for the power; n cases in control and k·n in treatment. The effect is
    looked for on both sides of the baseline, and the side that needs more cases counts. Source: Fleiss,
    Levin and Paik, Statistical Methods for Rates and Proportions, 3rd edition (2003), equations 4.14
    and 4.17, without their correction for continuity.
    """
    normal = NormalDist()
    z_alpha, z_power = normal.inv_cdf(1 - plan.alpha / 2), normal.inv_cdf(plan.power)
    ratio = plan.treatment_share / (1 - plan.treatment_share)

    def cases(rate: float) -> float:
        base = plan.baseline
        pooled = (base + ratio * rate) / (1 + ratio)
        none = sqrt(pooled * (1 - pooled) * (1 + 1 / ratio))
        some = sqrt(base * (1 - base) + rate * (1 - rate) / ratio)
        return float(((z_alpha * none + z_power * some) / (rate - base)) ** 2)

    control = max(map(cases, _alternatives(plan)))
    # Rounded first, so that an exact number of cases is not one more for the last bit.
    return ceil(round(control, 6)), ceil(round(ratio * control, 6))


def check_plans(plans: Sequence[Experiment]) -> list[Finding]:
    """What is wrong with plans of all workloads together; empty when nothing is.

    Laws: the order of ``plans`` changes nothing; one more plan never removes a finding.
    """
    ordered = sorted(plans, key=lambda plan: (plan.name, plan.start, plan.to_bytes()))
    return [*_names(ordered), *_collisions(ordered), *_crowded(ordered), *_weak(ordered)]


def _names(plans: Sequence[Experiment]) -> Iterator[Finding]:
    names = [plan.name for plan in plans]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Finding(
            id="experiment_twice",
            verdict=Verdict.FAILED,
            message=f"two experiments are called {name}",
            where=name,
            fix="give each experiment an id of its own",
        )


def _collisions(plans: Sequence[Experiment]) -> Iterator[Finding]:
    """Plans that nobody assigns together: cases may be in both, and each spoils the other."""
    for one, two in combinations(plans, 2):
        known = one.layer is not None and two.layer is not None
        if known or not _meet(one, two):
            continue
        total = one.share + two.share
        certain = exceeds(total, 1)
        yield Finding(
            id="experiment_overlap",
            verdict=Verdict.FAILED if certain else Verdict.WARNED,
            message=f"experiments {one.name} and {two.name} run on the same population "
            f"({_narrower(one, two)}) from {max(one.start, two.start)} to {min(one.end, two.end)}, their "
            f"shares add up to {total:.4g}, and they are not in one layer",
            where=one.name,
            fix="put both into one layer, run one after the other, or choose populations that do not meet",
        )


def _crowded(plans: Sequence[Experiment]) -> Iterator[Finding]:
    """Layers in which more than everybody takes part on some day."""
    for plan in plans:
        if plan.layer is None:
            continue
        # Shares only rise on a day on which an experiment starts, so those days suffice.
        running = [
            other
            for other in plans
            if other.layer == plan.layer
            and other.start <= plan.start <= other.end
            and (other is plan or _meet(other, plan))
        ]
        total = sum(other.share for other in running)
        if exceeds(total, 1):
            names = ", ".join(other.name for other in running)
            yield Finding(
                id="experiment_layer_full",
                verdict=Verdict.FAILED,
                message=f"on {plan.start} the experiments {names} of layer {plan.layer} take {total:.4g} of "
                "one population, and there is only 1",
                where=plan.name,
                fix="make shares smaller, or run some of them later",
            )


def _meet(one: Experiment, two: Experiment) -> bool:
    """Whether some case could be in both on some day."""
    if one.start > two.end or two.start > one.end:
        return False
    if EVERYBODY not in (one.population, two.population) and one.population != two.population:
        return False
    shared = set(one.filters) & set(two.filters)
    return all(set(one.filters[column]) & set(two.filters[column]) for column in shared)


def _narrower(one: Experiment, two: Experiment) -> str:
    return two.population if one.population == EVERYBODY else one.population


def _weak(plans: Sequence[Experiment]) -> Iterator[Finding]:
    """Plans that end before they have seen enough cases."""
    for plan in plans:
        control, treatment = sample_size(plan)
        per_day = plan.cases_per_day * plan.share
        slowest = max(
            control / (per_day * (1 - plan.treatment_share)), treatment / (per_day * plan.treatment_share)
        )
        days = ceil(round(slowest, 6))
        seen = f"{per_day * plan.days:,.0f} cases in {plan.days} days"
        if days <= plan.days:
            continue
        yield Finding(
            id="experiment_underpowered",
            verdict=Verdict.FAILED,
            message=f"experiment {plan.name} sees about {seen}, "
            f"but needs {control + treatment:,} to find a change of {plan.metric} by "
            f"{plan.minimum_detectable_effect:g} from {plan.baseline:g} "
            f"(power {plan.power:g}, alpha {plan.alpha:g})",
            where=plan.name,
            fix=f"run it for {days} days, let a larger share take part, or look for a larger effect",
        )
