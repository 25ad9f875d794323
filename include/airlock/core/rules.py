"""Rules over facts: what an engine does, and the reasons that come of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, Protocol, TypeVar

from airlock.core.base import Value
from airlock.core.facts import FACTS, FactType
from airlock.core.policy import Phase, Policy, Rule, Severity
from airlock.core.sentences import render

Key = TypeVar("Key")
Made = TypeVar("Made")


class Reason(Value):
    """Why: a rule or a gate, in words, with what would make it lighter or right (requirement T-5).

    Attributes:
        rule: id of the rule; ``gate-NAME`` for a gate, ``waiver:ID`` for a waiver that was used.
        effect: ``tier high``, ``track red``, ``deny``, ``warn`` or ``seats``.
        fired: whether the rule's condition held; one that did not says why the release is lighter.
        waived_by: ids of the waivers that let a denying reason stand without denying.
        error: the rule could not be evaluated; that is never waived.
        why: why it matters.
        facts: what the rule read, by name: the measured values and the limits they were held against.
    """

    rule: str
    effect: str
    message: str
    fix: str = ""
    fired: bool = True
    waived_by: list[str] = []
    error: bool = False
    title: str = ""
    owner: str = ""
    severity: Severity | None = None
    why: str = ""
    facts: dict[str, Any] = {}

    @property
    def denies(self) -> bool:
        """Whether it denies the release."""
        return self.fired and self.effect == "deny" and not self.waived_by


@dataclass(slots=True)
class FactSet:
    """The facts of one release, nested by the parts of their names and by their whole names.

    Canonical JSON has one kind of number, so a share of 0.0 comes back as 0: a fact that the catalogue
    calls a number is one here, whatever it was read as.
    """

    nested: dict[str, Any]
    flat: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.flat = {}
        _flatten(self.nested, "", self.flat)

    def learn(self, group: str, name: str, value: Any) -> None:
        """Add a fact that is only known now, such as the tier."""
        self.nested[group] = {**self.nested.get(group, {}), name: value}
        self.flat[f"{group}.{name}"] = value

    def find(self, path: str) -> Any:
        """A fact or a whole group of them.

        Raises:
            KeyError: it was not measured.
        """
        if path in self.flat:
            return self.flat[path]
        value: Any = self.nested
        for part in path.split("."):
            if not isinstance(value, Mapping):
                raise KeyError(path)
            value = value[part]
        return value


_NUMBERS = frozenset(fact.name for fact in FACTS.values() if fact.type is FactType.NUMBER)


def _flatten(values: Mapping[str, Any], prefix: str, into: dict[str, Any]) -> None:
    for key, value in values.items():
        path = prefix + key
        if type(value) is dict:
            _flatten(value, path + ".", into)
        else:
            into[path] = float(value) if type(value) is int and path in _NUMBERS else value


class Session(Protocol):
    """The rules of one policy over the facts of one release."""

    def fires(self, rule: Rule) -> bool:
        """Whether a rule's condition holds. Whatever it raises makes the rule an ERROR, which denies."""

    def reads(self, rule: Rule) -> Sequence[str]:
        """Names of the facts a rule asks for."""

    def foreign(self) -> Sequence[Reason]:
        """Reasons of rules that do not stand in YAML, such as those in Rego; asked once the tier is known."""


class Engine(Protocol):
    """Evaluates the rules of a policy."""

    def begin(self, policy: Policy, facts: FactSet) -> Session:
        """Start with the facts of a release; facts may still be learned."""


class PerValue(Generic[Key, Made]):
    """Something that is computed once for a value and kept as long as the value lives."""

    def __init__(self, make: Callable[[Key], Made]) -> None:
        self._make = make
        self._kept: dict[int, tuple[weakref.ref[Any], Made]] = {}

    def __call__(self, value: Key) -> Made:
        """What was made of this very object, or is made of it now."""
        name = id(value)
        found = self._kept.get(name)
        if found is not None and found[0]() is value:
            return found[1]
        made = self._make(value)
        self._kept[name] = (weakref.ref(value, lambda _: self._kept.pop(name, None)), made)
        return made


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rule with what its reasons have in common."""

    rule: Rule
    same: dict[str, Any]


def _by_phase(policy: Policy) -> dict[Phase, list[_Ready]]:
    phases: dict[Phase, list[_Ready]] = {"tier": [], "track": [], "deny": [], "warn": [], "seats": []}
    for rule in policy.rules:
        same = Reason(
            rule=rule.id,
            effect=rule.effect.label,
            message="",
            title=rule.title,
            owner=rule.owner,
            severity=rule.severity,
            why=rule.why,
        )
        phases[rule.effect.phase].append(_Ready(rule, dict(same.__dict__)))
    return phases


_ready: PerValue[Policy, dict[Phase, list[_Ready]]] = PerValue(_by_phase)
policy_digest: PerValue[Policy, str] = PerValue(lambda policy: policy.digest)

_set = object.__setattr__
_FIELDS = set(Reason.model_fields)
"""Shared by all reasons of rules: they are frozen, and a copy takes a copy of it."""


def evaluate_phase(
    phase: Phase, *, policy: Policy, session: Session, facts: FactSet, as_of: date
) -> list[Reason]:
    """The reasons of all rules of a phase, fired or not, in the order of the policy."""
    return [_reason(ready, session, facts, as_of) for ready in _ready(policy)[phase]]


def _reason(ready: _Ready, session: Session, facts: FactSet, as_of: date) -> Reason:
    rule, known = ready.rule, facts.flat
    if rule.expires != "never" and rule.expires < as_of:
        return rule_error(
            rule,
            f"rule {rule.id} expired on {rule.expires}, and nobody answers for it any more",
            f"its owner ({rule.owner}) renews it or takes it out, in a new version of the policy",
        )
    try:
        fired = session.fires(rule)
        text = render(rule.because if fired else rule.otherwise, known)
        fix = render(rule.fix, known) if fired else ""
        read = {name: known[name] for name in session.reads(rule) if name in known}
    except Exception as error:  # noqa: BLE001  # a rule that cannot be evaluated denies, whatever the reason
        return rule_error(
            rule,
            f"rule {rule.id} could not be evaluated: {error}",
            "see which gate did not measure the missing fact, and fix that first",
        )
    # Made as pydantic makes it, without validating again what comes from valid values: validation took a
    # third of a decision.
    reason = Reason.__new__(Reason)
    _set(reason, "__dict__", {**ready.same, "message": text, "fix": fix, "fired": fired, "facts": read})
    _set(reason, "__pydantic_fields_set__", _FIELDS)
    _set(reason, "__pydantic_extra__", None)
    _set(reason, "__pydantic_private__", None)
    return reason


def rule_error(rule: Rule, message: str, fix: str) -> Reason:
    """A rule that has no answer: it denies."""
    return Reason(
        rule=rule.id,
        effect="deny",
        message=message,
        fix=fix,
        error=True,
        title=rule.title,
        owner=rule.owner,
        severity=rule.severity,
        why=rule.why,
    )
