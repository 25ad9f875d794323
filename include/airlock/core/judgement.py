"""From a metric with its uncertainty to a finding: the one way in which gates hold numbers against limits.

A gate measures a `Metric` (value, interval, n), policy says whether the point or the bound is judged, and
``judge`` answers. "Cannot tell" is an answer of its own: a warning that says how many observations would
settle it, never a pass and never a failure.
"""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.evidence import Finding, Metric, Verdict
from airlock.core.statistics import Judge, Standing, percent, settling_size, standing

CANNOT_TELL = "cannot_tell"
"""Begins the id of every finding that says so: ``cannot_tell``, ``cannot_tell.four_fifths`` …"""

_VERDICTS = {
    Standing.RIGHT: Verdict.PASSED,
    Standing.WRONG: Verdict.FAILED,
    Standing.UNSURE: Verdict.WARNED,
    Standing.UNDEFINED: Verdict.ERROR,
}


@dataclass(frozen=True)
class Judgement:
    """What a metric says about its limit.

    Attributes:
        standing: right, wrong, unsure or undefined.
        needed: observations that would settle an unsure answer; ``None`` where none would, or the answer
            is sure.
    """

    standing: Standing
    needed: int | None = None

    @property
    def verdict(self) -> Verdict:
        """``PASSED``, ``FAILED``, ``WARNED`` for "cannot tell", ``ERROR`` for undefined."""
        return _VERDICTS[self.standing]


def judge(metric: Metric, by: Judge, *, no_effect: float | None = None) -> Judgement:
    """Hold a metric against its own threshold in its own direction.

    ``no_effect`` is the value of "nothing happened", which ``Judge.SIGNIFICANT`` needs.

    Raises:
        ValueError: the metric has no threshold or no direction: a gate asked for nothing.
    """
    if metric.threshold is None or metric.direction == "none":
        raise ValueError(f"metric {metric.name!r} has no threshold or no direction to be judged by")
    where = standing(
        metric.value,
        metric.threshold,
        metric.interval,
        higher_is_better=metric.direction == "higher",
        by=by,
        no_effect=no_effect,
    )
    if where is not Standing.UNSURE or metric.value is None or metric.interval is None or not metric.n:
        return Judgement(where)
    limit, (low, high) = _deciding(metric, by, no_effect), metric.interval
    needed = settling_size(metric.n, metric.value, (low, high), limit)
    if needed is not None and needed <= metric.n:
        # The end was cut off where the metric itself ends, such as a difference at 0: the other one is whole.
        reach = max(high - metric.value, metric.value - low)
        whole = (metric.value - reach, metric.value + reach)
        needed = settling_size(metric.n, metric.value, whole, limit)
    return Judgement(where, None if needed is None else max(needed, metric.n + 1))


def _deciding(metric: Metric, by: Judge, no_effect: float | None) -> float:
    """The number that the interval has to clear first for a sure answer."""
    limit = metric.threshold or 0.0
    if by is not Judge.SIGNIFICANT or no_effect is None or metric.value is None:
        return limit
    beyond = metric.value < limit if metric.direction == "higher" else metric.value > limit
    return no_effect if beyond else limit


def judged(
    metric: Metric,
    by: Judge,
    *,
    finding_id: str,
    failed: str,
    fix: str,
    label: str = "",
    no_effect: float | None = None,
    verdict: Verdict = Verdict.FAILED,
) -> list[Finding]:
    """The finding that a metric asks for; none when it is on the right side of its limit.

    Args:
        metric: what was measured, with its threshold and direction.
        by: what policy judges, the point or the bound.
        finding_id: id of the finding when it is on the wrong side; ``cannot_tell.<id>`` when unsure and
            ``undefined.<id>`` when it has no value.
        failed: sentence (no full stop) that says what is wrong, with value and limit.
        fix: what to do about it.
        label: the metric in words, for the other two sentences; its name when empty.
        no_effect: see ``judge``.
        verdict: how serious the wrong side is; ``WARNED`` for limits that only warn.
    """
    answer, name = judge(metric, by, no_effect=no_effect), label or metric.name
    if answer.standing is Standing.RIGHT:
        return []
    if answer.standing is Standing.WRONG:
        return [Finding(id=finding_id, verdict=verdict, message=failed, where=metric.where, fix=fix)]
    if answer.standing is Standing.UNSURE:
        return [
            Finding(
                id=f"{CANNOT_TELL}.{finding_id}",
                verdict=Verdict.WARNED,
                message=cannot_tell(metric, name, answer.needed),
                where=metric.where,
                fix=f"evaluate on {'more' if answer.needed is None else f'about {answer.needed:,}'} rows; "
                "until then a person decides with this uncertainty in view",
            )
        ]
    return [
        Finding(
            id=f"undefined.{finding_id}",
            verdict=Verdict.ERROR,
            message=f"{name} cannot be judged: "
            + (
                "it is undefined on this data"
                if metric.value is None
                else "its uncertainty could not be computed"
            ),
            where=metric.where,
            fix="evaluate on data with more rows, on which it is defined",
        )
    ]


def cannot_tell(metric: Metric, label: str, needed: int | None) -> str:
    """Why nobody can tell, and what would settle it."""
    low, high = metric.interval or (metric.value, metric.value)
    confidence = f" at {percent(metric.confidence)} confidence" if metric.confidence else ""
    rows = f" on {metric.n:,} rows" if metric.n else ""
    settle = "no number of rows would settle it while the value lies on the limit"
    if needed is not None:
        settle = f"about {needed:,} rows would settle it if the value stays (n x (half-width / distance)²)"
    return (
        f"cannot tell whether {label} keeps its limit of {metric.threshold:.4g}: it is "
        f"{metric.value:.4g}{rows} and could be {low:.4g} to {high:.4g}{confidence}; {settle}"
    )
