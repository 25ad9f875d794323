"""The test cases of a policy's rules: what they are run on, and what came out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airlock.core.facts import FactType, fact_named
from airlock.core.policy import Policy, Rule
from airlock.core.rules import FactSet
from airlock.ports import PolicyEngine

Wanted = Literal["fires", "silent"]


@dataclass(frozen=True)
class CaseResult:
    """One case of one rule.

    Attributes:
        number: place of the case among those of its kind, from 0.
        patch: what it changes in the base case.
        problem: why the case is red, empty when it is green.
    """

    rule: str
    wanted: Wanted
    number: int
    patch: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class RuleCoverage:
    """Whether a rule was seen to fire and to stay silent, as its tests want."""

    rule: str
    fired: bool
    silent: bool

    @property
    def whole(self) -> bool:
        """Both were seen."""
        return self.fired and self.silent


def cases_of(rule: Rule) -> Iterator[tuple[Wanted, int, Mapping[str, Any]]]:
    """The cases of a rule: what is wanted, the case's number, and its patch."""
    yield from (("fires", number, patch) for number, patch in enumerate(rule.tests.fires))
    yield from (("silent", number, patch) for number, patch in enumerate(rule.tests.silent))


def facts_for(policy: Policy, patch: Mapping[str, Any]) -> FactSet:
    """The base case with the policy's limits and the changes of one case; ``None`` takes a fact away."""
    facts: dict[str, Any] = copy.deepcopy({**policy.base_case, "limits": policy.limit_values})
    for path, value in patch.items():
        *groups, name = path.split(".")
        group = facts
        for part in groups:
            inner = group.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = group[part] = {}
            group = inner
        if value is None:
            group.pop(name, None)
        else:
            group[name] = value
    return FactSet(facts)


def run_cases(policy: Policy, engine: PolicyEngine) -> list[CaseResult]:
    """Run every case of every rule in YAML."""
    results = []
    for rule in policy.rules:
        for wanted, number, patch in cases_of(rule):
            try:
                fired = engine.begin(policy, facts_for(policy, patch)).fires(rule)
                problem = (
                    "" if fired is (wanted == "fires") else f"it {'fired' if fired else 'stayed silent'}"
                )
            except Exception as error:  # noqa: BLE001  # whatever it raises would deny a release
                problem = f"it could not be evaluated: {error}"
            results.append(CaseResult(rule.id, wanted, number, patch, problem))
    return results


def coverage(policy: Policy, results: list[CaseResult]) -> list[RuleCoverage]:
    """For each rule in YAML, whether a green case saw it fire and one saw it stay silent."""
    seen = {(result.rule, result.wanted) for result in results if not result.problem}
    return [
        RuleCoverage(rule.id, (rule.id, "fires") in seen, (rule.id, "silent") in seen)
        for rule in policy.rules
    ]


def wrong_value(path: str, value: Any) -> str:
    """Why a fact cannot have this value, by the catalogue; empty when it can, or is unknown."""
    fact = fact_named(path)
    if fact is None or value is None:
        return ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fine = {
        FactType.TEXT: isinstance(value, str),
        FactType.BOOL: isinstance(value, bool),
        FactType.INTEGER: number and isinstance(value, int),
        FactType.NUMBER: number,
        FactType.TEXTS: isinstance(value, list) and all(isinstance(item, str) for item in value),
    }
    return "" if fine.get(fact.type, True) else f"fact {path} is {fact.type}, not {value!r}"
