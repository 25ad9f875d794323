"""Engines for tests of what is decided, whatever the language of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from airlock.core.policy import Phase, Policy, Rule
from airlock.core.rules import FactSet, Reason

TODAY = date(2026, 1, 1)
Evaluate = Callable[[str, Mapping[str, Any]], bool]


class FunctionEngine:
    """A language of rules that is one Python function."""

    def __init__(self, evaluate: Evaluate, foreign: Sequence[Reason] = ()) -> None:
        self._evaluate = evaluate
        self._foreign = foreign

    def begin(self, policy: Policy, facts: FactSet) -> _Session:
        return _Session(self._evaluate, policy, facts, self._foreign)


class _Session:
    def __init__(self, evaluate: Evaluate, policy: Policy, facts: FactSet, foreign: Sequence[Reason]) -> None:
        self._evaluate = evaluate
        self._policy = policy
        self._facts = facts
        self._foreign = foreign

    def fires(self, rule: Rule) -> bool:
        return self._evaluate(rule.when, self._facts.nested)

    def answers(self, phase: Phase) -> Sequence[bool | Exception]:
        return [self._answer(rule) for rule in self._policy.rules if rule.effect.phase == phase]

    def _answer(self, rule: Rule) -> bool | Exception:
        try:
            return self.fires(rule)
        except Exception as error:  # noqa: BLE001  # as the port says
            return error

    def reads(self, rule: Rule) -> Sequence[str]:
        return [rule.when] if rule.when in self._facts.flat else []

    def foreign(self) -> Sequence[Reason]:
        return self._foreign
