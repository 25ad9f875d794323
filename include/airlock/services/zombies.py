"""Rules that do nothing any more, and what rules cost (requirement P-5)."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median
from typing import Any

from airlock.core.errors import AirlockError
from airlock.core.facts import build_facts
from airlock.core.policy import Policy, Rule
from airlock.core.rules import FactSet
from airlock.core.workload import Workload
from airlock.services.deployment import Deployment
from airlock.services.replay import Past, past_releases
from airlock.services.stored import stored_evidence, stored_manifest

SAMPLE = 50
"""Newest releases whose facts are used to measure how long a rule takes."""

ROUNDS = 5


@dataclass(frozen=True)
class RuleUse:
    """What became of one rule.

    Attributes:
        evaluated: decisions in which it gave an answer; ``fired`` and ``waived`` are among them.
        verdict: ``never fires``, ``always fires``, ``always waived``, ``expired``, ``never asked``, or empty
            when it is alive.
        median_us: time of one evaluation, microseconds; ``None`` where there were no facts to measure with.
        p99_us: the same for the slowest in a hundred.
    """

    rule: str
    title: str
    owner: str
    evaluated: int
    fired: int
    waived: int
    verdict: str
    median_us: float | None
    p99_us: float | None


@dataclass(frozen=True)
class UseReport:
    """All rules of a policy over the releases since a day.

    Attributes:
        gates: how often each gate or built-in rule denied.
    """

    policy: str
    releases: int
    rules: list[RuleUse]
    gates: dict[str, int]


def rule_use(
    deployment: Deployment, policy: Policy, *, today: date, since_us: int | None = None
) -> UseReport:
    """Count what each rule of a policy did in the decisions under any version that had it.

    Raises:
        UnavailableError: a store does not answer.
    """
    past = past_releases(deployment, since_us=since_us)
    asked: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    waived: Counter[str] = Counter()
    decisions = [json.loads(deployment.evidence.get(one.decision)) for one in past]
    for decision in decisions:
        for reason in decision["reasons"]:
            rule = reason["rule"]
            asked[rule] += 1
            fired[rule] += bool(reason.get("fired", True))
            waived[rule] += bool(reason.get("waived_by"))
    known = {rule.id for rule in policy.rules}
    cost = _Cost(deployment, policy, past[-SAMPLE:], decisions[-SAMPLE:])
    rules = [
        RuleUse(
            rule=rule.id,
            title=rule.title,
            owner=rule.owner,
            evaluated=asked[rule.id],
            fired=fired[rule.id],
            waived=waived[rule.id],
            verdict=_verdict(rule, asked[rule.id], fired[rule.id], waived[rule.id], today),
            **cost.of(rule),
        )
        for rule in policy.rules
    ]
    gates = {rule: count for rule, count in sorted(fired.items()) if rule not in known and count}
    return UseReport(policy.version, len(past), rules, gates)


def _verdict(rule: Rule, asked: int, fired: int, waived: int, today: date) -> str:
    if isinstance(rule.expires, date) and rule.expires < today:
        return "expired"
    if not asked:
        return "never asked"
    if not fired:
        return "never fires"
    if waived == fired:
        return "always waived"
    return "always fires" if fired == asked else ""


class _Cost:
    """Times single conditions over the facts of past releases."""

    def __init__(
        self, deployment: Deployment, policy: Policy, past: Sequence[Past], decisions: Iterable[Any]
    ) -> None:
        self._engine = deployment.engine
        self._facts: list[dict[str, Any]] = []
        for _, decision in zip(past, decisions, strict=True):
            try:
                self._facts.append(_facts(deployment, policy, decision))
            except (AirlockError, KeyError, ValueError):
                continue  # what cannot be read cannot be measured with

    def of(self, rule: Rule) -> dict[str, float | None]:
        times = sorted(taken for facts in self._facts for taken in self._times(rule, facts))
        if not times:
            return {"median_us": None, "p99_us": None}
        slow = times[min(len(times) - 1, int(0.99 * len(times)))]
        return {"median_us": round(median(times), 2), "p99_us": round(slow, 2)}

    def _times(self, rule: Rule, facts: dict[str, Any]) -> list[float]:
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            try:
                self._engine.evaluate(rule.when, facts)
            except AirlockError:
                return []  # a fact this release did not have
            taken.append((time.perf_counter() - started) * 1e6)
        return taken[1:]  # the first one may compile


def _facts(deployment: Deployment, policy: Policy, decision: Any) -> dict[str, Any]:
    store = deployment.evidence
    manifest = stored_manifest(store, decision["manifest_digest"])
    workload = Workload.from_bytes(store.get(manifest.workload_digest))
    evidence = {name: stored_evidence(store, digest) for name, digest in decision["evidence"].items()}
    facts = FactSet(build_facts(manifest=manifest, workload=workload, policy=policy, evidence=evidence))
    facts.learn("risk", {"tier": decision["tier"]})
    return facts.nested
