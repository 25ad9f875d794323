"""Past releases under another policy: what a gate would have said, and what would be different (P-4).

A gate is not run again. Where only its limits changed, its stored numbers can say what it would have said
now; where they cannot, the answer is "needs a re-run" and never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airlock.core.base import Value
from airlock.core.decision import Ruling
from airlock.core.evidence import Evidence, Metric, Verdict
from airlock.core.rules import Said, in_words


class Difference(Value):
    """One release under both policies.

    Attributes:
        before: outcome, track and seats as decided then; ``after``: under the other policy.
        why: rules whose effect differs, in words.
        unsure: gates whose answer under the other policy only a re-run can give.
    """

    release_id: str
    workload: str
    version: str
    decided_us: int
    before: dict[str, Any]
    after: dict[str, Any]
    why: list[str]
    unsure: list[str]

    @property
    def changed(self) -> list[str]:
        """Which of outcome, track and seats differ."""
        return [name for name in ("outcome", "track", "seats") if self.before[name] != self.after[name]]


def summary_of(ruling: Ruling) -> dict[str, Any]:
    """What people compare: outcome, track, and the roles asked."""
    return {
        "outcome": str(ruling.outcome),
        "track": None if ruling.track is None else str(ruling.track),
        "seats": sorted(seat.role for seat in ruling.seats),
    }


def why_different(before: Mapping[str, Any], after: Iterable[Said]) -> list[str]:
    """Rules that fire under one policy and not under the other, or with another effect.

    Args:
        before: the stored decision as data.
        after: what is said under the other policy.
    """
    was = {reason["rule"]: reason for reason in before["reasons"] if reason.get("fired", True)}
    now = {said.rule: in_words(said) for said in after if said.fired}
    said = []
    for rule in [*now, *(rule for rule in was if rule not in now)]:
        old, new = was.get(rule), now.get(rule)
        if old is None and new is not None:
            said.append(f"{rule} fires now ({new.effect}): {new.message}")
        elif new is None and old is not None:
            said.append(f"{rule} does not fire any more ({old['effect']})")
        elif old is not None and new is not None:
            lifted, waived = bool(old.get("waived_by")), bool(new.waived_by)
            if old["effect"] != new.effect:
                said.append(f"{rule} has the effect {new.effect} instead of {old['effect']}")
            elif lifted != waived:
                said.append(f"{rule} is {'waived now' if waived else 'not waived any more'}")
    return said


def rejudge(record: Evidence, config: Mapping[str, Any]) -> Verdict | None:
    """What a gate would have said under another configuration; ``None`` when only a re-run can tell.

    Laws: the same configuration gives the same verdict; a looser limit never turns a pass into a failure, a
    tighter one never a failure into a pass.
    """
    if record.verdict is Verdict.ERROR:
        return Verdict.ERROR  # it could not be measured then, and no limit changes that
    found = list(_changed(record.config, config))
    if not found:
        return record.verdict
    verdicts = {_after(record, name, old, new) for name, old, new in found}
    if None in verdicts:
        return None
    if Verdict.FAILED in verdicts:
        return Verdict.FAILED
    return record.verdict


def _changed(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _changed(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
    elif old != new:
        yield name, old, new


def _after(record: Evidence, name: str, old: Any, new: Any) -> Verdict | None:
    """The verdict when one limit moves: only metrics that are held against exactly this limit can tell."""
    metrics = [metric for metric in record.result.metrics if _held_against(metric, name, old)]
    directions = {metric.direction for metric in metrics}
    if not _number(new) or directions not in ({"higher"}, {"lower"}):
        return None
    looser = (new > old) if directions == {"lower"} else (new < old)
    if not record.verdict.allows:
        # It may pass a looser limit, but nobody knows whether it failed for this reason alone.
        return None if looser else record.verdict
    judged = {True} if looser else {_within(metric, float(new)) for metric in metrics}
    if judged == {True}:
        return record.verdict
    return Verdict.FAILED if False in judged and record.verdict is Verdict.PASSED else None


def _held_against(metric: Metric, name: str, limit: Any) -> bool:
    """Whether a metric's stored limit is the one called ``name``: same number, and the names agree."""
    if metric.value is None or not _number(limit) or metric.threshold != limit:
        return False
    last = name.rsplit(".", 1)[-1]
    return metric.name in (last, last.removeprefix("maximum_"), last.removeprefix("minimum_"))


def _within(metric: Metric, limit: float) -> bool | None:
    """Whether the whole measurement is within a limit; ``None`` when its interval crosses it."""
    low, high = metric.interval or (metric.value, metric.value)
    if low is None or high is None:
        return None
    if metric.direction == "lower":
        return True if high <= limit else False if low > limit else None
    return True if low >= limit else False if high < limit else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
