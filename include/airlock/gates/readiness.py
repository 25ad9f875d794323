"""Readiness: who watches the model, and how it is taken back, is settled before it is released.

Why it matters: most harm of a model is done after its release, while nobody looks, or while people look for
the person who can switch it off. A plan that is written down during the incident is written too late.

What good looks like: somebody is on call; a monitoring plan names the signals that are watched, how often,
and where alerts go; a rollback plan names what answers meanwhile, takes minutes and was rehearsed; the
version to go back to exists; and every experiment on live traffic has enough cases to end with an answer.

How to fix it: write `readiness` into the workload file: on_call, monitoring (signals, every_hours, alerts),
rollback (fallback, minutes, rehearsed); experiments stand under `experiments`. Rehearse the rollback once and
write down the day. Helpful tools: a runbook beside the model card, the on-call schedule of PagerDuty or
Grafana, statsmodels for the size of an experiment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from airlock.core.base import Value
from airlock.core.declarations import ReadinessSpec, Signal
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.experiments import check_plans
from airlock.core.held import HeldLimit
from airlock.core.statistics import exceeds
from airlock.gates.base import GateContext, Stage

STAGE = Stage.BEFORE_SCORING
NEEDS = ()
EXAMPLE = """\
readiness:
  on_call: credit-models on PagerDuty
  monitoring: {signals: [data, performance, fairness], every_hours: 24, alerts: "#credit-models"}
  rollback: {fallback: the version before, minutes: 2, rehearsed: "2026-01-15"}
"""


class Config(Value):
    """What a plan must hold."""

    required_signals: Annotated[
        list[Signal], Field(min_length=1, description="signals that every monitoring plan watches")
    ]
    maximum_hours_between_checks: Annotated[float, Field(gt=0, description="longest pause of monitoring")]
    maximum_rollback_minutes: Annotated[
        float, Field(gt=0, description="longest time until the fallback answers")
    ]
    require_rehearsal: Annotated[bool, Field(description="whether a rollback never tried is a warning")]


HELD = (
    HeldLimit(
        "maximum_hours_between_checks",
        "monitoring.pause",
        metric="monitoring_pause_hours",
        may_be_absent=True,
    ),
    HeldLimit("maximum_rollback_minutes", "rollback.time", metric="rollback_minutes", may_be_absent=True),
)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Check the plans for the time after the release."""
    spec = context.declared.readiness
    findings = [
        *_people(spec),
        *_monitoring(spec, config),
        *_rollback(spec, config, has_champion=context.has_champion),
        *check_plans(context.declared.experiments),
    ]
    bad = [finding.message for finding in findings if finding.verdict is not Verdict.PASSED]
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=f"Not ready: {'; '.join(bad)}." if bad else "On call, monitoring and rollback are planned.",
        findings=findings,
        metrics=list(_metrics(spec, config)),
        details={"experiments": len(context.declared.experiments)},
    )


def _failed(what: str, message: str, fix: str, verdict: Verdict = Verdict.FAILED) -> Finding:
    return Finding(
        id=what,
        verdict=verdict,
        message=message,
        where=f"readiness.{what.split('.', maxsplit=1)[0]}",
        fix=fix,
    )


def _people(spec: ReadinessSpec) -> Iterator[Finding]:
    if spec.on_call is None or not spec.on_call.strip():
        yield _failed("on_call", "nobody is named as on call", "name a team or schedule in readiness.on_call")


def _monitoring(spec: ReadinessSpec, config: Config) -> Iterator[Finding]:
    plan = spec.monitoring
    if plan is None:
        yield _failed(
            "monitoring",
            "there is no monitoring plan",
            "add readiness.monitoring: signals, every_hours, alerts",
        )
        return
    if missing := [signal for signal in config.required_signals if signal not in plan.signals]:
        yield _failed(
            "monitoring.signals",
            f"nobody watches {', '.join(missing)}",
            "add them to readiness.monitoring.signals",
        )
    if exceeds(plan.every_hours, config.maximum_hours_between_checks):
        yield _failed(
            "monitoring.pause",
            f"it is looked at every {plan.every_hours:g} hours, "
            f"at most {config.maximum_hours_between_checks:g} are allowed",
            "check more often",
        )


def _rollback(spec: ReadinessSpec, config: Config, *, has_champion: bool) -> Iterator[Finding]:
    plan = spec.rollback
    if plan is None:
        yield _failed(
            "rollback", "there is no rollback plan", "add readiness.rollback: fallback, minutes, rehearsed"
        )
        return
    if exceeds(plan.minutes, config.maximum_rollback_minutes):
        yield _failed(
            "rollback.time",
            f"a rollback takes {plan.minutes:g} minutes, "
            f"at most {config.maximum_rollback_minutes:g} are allowed",
            "keep the version before deployed, or name a fallback that answers at once",
        )
    if config.require_rehearsal and plan.rehearsed is None:
        yield _failed(
            "rollback.rehearsed",
            "the rollback was never rehearsed",
            "try it once and write the day into readiness.rollback.rehearsed",
            Verdict.WARNED,
        )
    if not has_champion:
        yield _failed(
            "rollback.version",
            f"there is no version to go back to; until there is one, {plan.fallback} answers",
            "nothing, if that is what is meant",
            Verdict.PASSED,
        )


def _metrics(spec: ReadinessSpec, config: Config) -> Iterator[Metric]:
    if spec.rollback is not None:
        yield Metric(
            name="rollback_minutes",
            value=spec.rollback.minutes,
            threshold=config.maximum_rollback_minutes,
            direction="lower",
            unit="min",
        )
    if spec.monitoring is not None:
        yield Metric(
            name="monitoring_pause_hours",
            value=spec.monitoring.every_hours,
            threshold=config.maximum_hours_between_checks,
            direction="lower",
            unit="h",
        )
