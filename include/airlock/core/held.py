"""Limits that can move without running a gate again: which metric each is held against, and how (P-4).

A gate says so in its ``HELD``. When only such limits differ between two policies, the stored metrics are
judged again by the code the gate itself judges with. Nothing is believed about a gate: under the old limits
the stored findings must come out again exactly, else only a re-run can tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airlock.core.evidence import Evidence, Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.judgement import CANNOT_TELL, judged
from airlock.core.statistics import Judge

_ANY = "*"


@dataclass(frozen=True)
class HeldLimit:
    """One limit of a gate's configuration, and what is held against it.

    Attributes:
        limit: its dotted name; a last part ``*`` stands for the name of any metric.
        finding: id of the finding when a metric is on the wrong side.
        metric: name of the metric; that of the limit when empty.
        sign: ``-1`` where the metric's threshold is the limit with the other sign.
        no_effect: what "nothing happened" is, for ``Judge.SIGNIFICANT``.
        judge: how it is held, for a gate whose configuration does not say.
        only_sure: what nobody can tell is right.
        some_free: metrics of that name without a threshold are not judged; else such a gate has to run.
        verdict: how serious the wrong side is.
        failing: field of the configuration that lists findings which fail; the others warn.
        may_be_absent: without such a metric the gate does not ask about this limit at all.
        follow_ups: ids of findings that the gate adds when something failed, and takes away when nothing did,
            if the field ``follow_up_when`` of its configuration is ``failed``. They never decide a verdict
            that the failure has not decided.
    """

    limit: str
    finding: str
    metric: str = ""
    sign: int = 1
    no_effect: float | None = None
    judge: Judge | None = None
    only_sure: bool = False
    some_free: bool = False
    verdict: Verdict = Verdict.FAILED
    failing: str = ""
    may_be_absent: bool = False
    follow_ups: tuple[str, ...] = ()
    follow_up_when: str = ""

    def holds(self, path: str) -> bool:
        """Whether this is about the limit of that name."""
        prefix, _, last = path.rpartition(".")
        return path == self.limit or (bool(last) and self.limit == f"{prefix}.{_ANY}")

    def metric_of(self, path: str) -> str:
        """Name of the metric that is held against that limit."""
        return self.metric or path.rpartition(".")[2]


def rejudged(record: Evidence, config: Mapping[str, Any], held: Sequence[HeldLimit]) -> Evidence | None:
    """A gate's evidence as it would be under another configuration; ``None`` when only a re-run can tell.

    Args:
        record: what is stored.
        config: the other configuration, with every field.
        held: what the gate says about its limits.

    Laws: the same configuration gives the same evidence; an error stays for a re-run; a looser limit never
    makes a verdict worse, a tighter one never better.
    """
    changed = list(changes(record.config, config))
    if not changed:
        return record
    findings = record.result.findings
    # A verdict that is more than the worst finding was made by something that is not known here.
    if record.verdict is Verdict.ERROR or record.verdict is not passed_or_worst(findings):
        return None
    if not all(_number(old) and _number(new) and _about(path, held) for path, old, new in changed):
        return None
    names = {_about(path, held)[0].finding for path, _, _ in changed}
    family = {f"{kind}{name}" for name in names for kind in ("", f"{CANNOT_TELL}.", "undefined.")}
    before = _asked(record.result, record.config, held, names)
    after = _asked(record.result, {**record.config, **config}, held, names)
    # What a gate tells though it is right says nothing about limits.
    stored = [one for one in findings if one.id in family and one.verdict is not Verdict.PASSED]
    if before is None or after is None or _told(before) != _told(stored):
        return None
    metrics = list(record.result.metrics)
    if any(metrics[one.place].threshold != one.metric.threshold for one in before):
        return None
    new = [finding for metric in after for finding in metric.findings]
    kept = _without_follow_ups(
        [finding for finding in findings if finding.id not in family], new, config, held
    )
    limits = {metric.place: metric.metric for metric in after}
    result = record.result.model_copy(
        update={
            "findings": [*new, *kept],
            "verdict": passed_or_worst([*new, *kept]),
            "metrics": [limits.get(place, metric) for place, metric in enumerate(metrics)],
        }
    )
    return record.model_copy(update={"result": result, "config": {**record.config, **config}})


def _without_follow_ups(
    kept: list[Finding], new: list[Finding], config: Mapping[str, Any], held: Sequence[HeldLimit]
) -> list[Finding]:
    """The other findings; without those that only a failure brings, when nothing fails any more."""
    names = {
        name
        for one in held
        if one.follow_ups and config[one.follow_up_when] == "failed"
        for name in one.follow_ups
    }
    left = [finding for finding in kept if finding.id not in names]
    failing = any(finding.verdict is Verdict.FAILED for finding in [*new, *left])
    return kept if failing else left


def changes(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names of what differs, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from changes(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
    elif old != new:
        yield name, old, new


@dataclass(frozen=True)
class _Asked:
    """A metric under a limit, at its place among the gate's metrics, and what follows."""

    place: int
    metric: Metric
    findings: list[Finding]


def _asked(
    result: GateResult, config: Mapping[str, Any], held: Sequence[HeldLimit], names: set[str]
) -> list[_Asked] | None:
    """Every metric whose finding has one of these names; ``None`` where one of them is not stored."""
    found: list[_Asked] = []
    metrics = list(result.metrics)
    for path, limit in _leaves(config):
        for one in _about(path, held):
            if one.finding not in names or limit is None:
                continue
            places = [
                place
                for place, metric in enumerate(metrics)
                if metric.name == one.metric_of(path) and not (one.some_free and metric.threshold is None)
            ]
            if not places and one.may_be_absent:
                continue
            # More than one: they stand for parts of the data, and the gate may judge each in its own way.
            if (
                not places
                or not _number(limit)
                or any(metrics[place].direction == "none" for place in places)
            ):
                return None
            if len({metrics[place].threshold for place in places}) > 1:
                return None
            for place in places:
                metric = metrics[place].model_copy(update={"threshold": one.sign * limit})
                found.append(_Asked(place, metric, _judged(metric, one, config)))
    return found


def _judged(metric: Metric, held: HeldLimit, config: Mapping[str, Any]) -> list[Finding]:
    verdict = held.verdict
    if held.failing:
        verdict = Verdict.FAILED if held.finding in config[held.failing] else Verdict.WARNED
    found = judged(
        metric,
        held.judge or Judge(config.get("judge", Judge.POINT)),
        finding_id=held.finding,
        failed=f"{metric.name.replace('_', ' ')} is {metric.value}, its limit would be {metric.threshold}",
        fix="as the gate says about it, or keep the old limit",
        no_effect=held.no_effect,
        verdict=verdict,
    )
    return [one for one in found if not (held.only_sure and one.id.startswith(CANNOT_TELL))]


def _about(path: str, held: Sequence[HeldLimit]) -> list[HeldLimit]:
    return [one for one in held if one.holds(path)]


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _told(found: Iterable[Finding | _Asked]) -> Counter[tuple[str, Verdict]]:
    """What findings say, whatever their words and places."""
    flat = [one for some in found for one in (some.findings if isinstance(some, _Asked) else [some])]
    return Counter((finding.id, finding.verdict) for finding in flat)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
