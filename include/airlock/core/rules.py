"""Rules over facts: what an engine does, and the reasons that come of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, Protocol, TypeVar, get_args

from airlock.core.base import Value, trusted
from airlock.core.errors import ConfigurationError
from airlock.core.facts import FACTS, FactType
from airlock.core.policy import Phase, Policy, Rule, Severity
from airlock.core.sentences import facts_in, formats_in, render

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
    calls a number is one here, whatever it was read as. ``asked`` has the flat facts that the rules of a
    phase were asked over, which is what their reasons show.
    """

    nested: dict[str, Any]
    flat: dict[str, Any] = field(init=False)
    asked: dict[Phase, Mapping[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.flat, self.asked = {}, {}
        _flatten(self.nested, "", self.flat)

    def learn(self, group: str, values: Mapping[str, Any]) -> None:
        """Add facts that are only known now, such as the tier. Earlier answers keep the facts they had."""
        self.nested[group] = {**self.nested.get(group, {}), **values}
        self.flat = {**self.flat, **{f"{group}.{name}": value for name, value in values.items()}}

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
        kind = type(value)
        if kind is dict:
            _flatten(value, f"{prefix}{key}.", into)
        elif kind is int and prefix + key in _NUMBERS:
            into[prefix + key] = float(value)
        else:
            into[prefix + key] = value


class Session(Protocol):
    """The rules of one policy over the facts of one release."""

    def fires(self, rule: Rule) -> bool:
        """Whether a rule's condition holds. Whatever it raises makes the rule an ERROR, which denies."""

    def answers(self, phase: Phase) -> Sequence[bool | Exception]:
        """``fires`` for each rule of a phase in the order of the policy, or what it raises."""

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
        return self.know(value, self._make(value))

    def know(self, value: Key, made: Made) -> Made:
        """Keep what somebody computed already, for this very object."""
        name = id(value)
        self._kept[name] = (weakref.ref(value, lambda _: self._kept.pop(name, None)), made)
        return made


Checks = tuple[tuple[str, type], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rule says when it fires, or when it does not, before facts are put into its sentences.

    It is the same for every release, and made once: most answers nobody reads at once.

    Attributes:
        sentences: fields of the reason, and the sentence each is made of.
        same: the other fields.
        checks: facts whose format asks for a type, and that type; ``None`` when a sentence cannot be read.
    """

    rule: str
    effect: str
    fired: bool
    denies: bool
    source: Rule
    sentences: tuple[tuple[str, str], ...]
    same: dict[str, Any]
    checks: Checks | None
    waived_by: Sequence[str] = ()
    error: bool = False


def _answer(rule: Rule, *, fired: bool, **sentences: str) -> Answer:
    effect = rule.effect.label
    same = Reason(
        rule=rule.id,
        effect=effect,
        message="",
        fired=fired,
        title=rule.title,
        owner=rule.owner,
        severity=rule.severity,
        why=rule.why,
    ).__dict__
    try:
        checks: Checks | None = tuple({one: None for text in sentences.values() for one in formats_in(text)})
        plain = {name: text for name, text in sentences.items() if not facts_in(text)}
    except ConfigurationError:
        checks, plain = None, {}
    told = tuple((name, text) for name, text in sentences.items() if name not in plain)
    return Answer(rule.id, effect, fired, fired and effect == "deny", rule, told, {**same, **plain}, checks)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The rules of a phase with what they may say, and what can be looked at once for all of them.

    Attributes:
        answers: of each rule, when it does not fire and when it does.
        expires: day on which the first of them does.
        checks: those of all answers; ``None`` when one has a sentence that cannot be read.
    """

    rules: list[Rule]
    answers: list[tuple[Answer, Answer]]
    expires: date
    checks: Checks | None

    def is_plain(self, known: Mapping[str, Any], as_of: date) -> bool:
        """Whether no rule has expired, and every sentence can be written."""
        return self.expires >= as_of and _can_be_told(self.checks, known)


def _by_phase(policy: Policy) -> dict[Phase, _Asked]:
    phases = get_args(Phase)
    return {phase: _asked([rule for rule in policy.rules if rule.effect.phase == phase]) for phase in phases}


def _asked(rules: list[Rule]) -> _Asked:
    answers = [
        (
            _answer(rule, fired=False, message=rule.otherwise),
            _answer(rule, fired=True, message=rule.because, fix=rule.fix),
        )
        for rule in rules
    ]
    expires = min((rule.expires for rule in rules if rule.expires != "never"), default=date.max)
    checks: dict[tuple[str, type], None] | None = {}
    for one in (one for both in answers for one in both):
        checks = None if checks is None or one.checks is None else checks | dict.fromkeys(one.checks)
    return _Asked(rules, answers, expires, None if checks is None else tuple(checks))


def _can_be_told(checks: Checks | None, known: Mapping[str, Any]) -> bool:
    """Whether each fact that is there is of the type that its format is made for."""
    if checks is None:
        return False
    for name, kind in checks:  # noqa: SIM110
        if name in known and type(known[name]) is not kind:
            return False
    return True


_ready: PerValue[Policy, dict[Phase, _Asked]] = PerValue(_by_phase)
content_digest: PerValue[Value, str] = PerValue(lambda value: value.digest)
"""The digest of a value; whoever read it from its verified bytes makes it known without computing it."""

_FIELDS = set(Reason.model_fields)
"""Shared by all reasons of rules: they are frozen, and a copy takes a copy of it."""


Said = Reason | Answer
"""What a rule says, in words or not yet."""


def in_words(said: Said, *, facts: FactSet, session: Session) -> Reason:
    """The reason that people read and the decision keeps.

    Law: it never fails on what ``ask_phase`` gave; a rule whose sentence cannot be written is an error there.
    """
    if isinstance(said, Reason):
        return said
    known = facts.asked[said.source.effect.phase]
    fields = dict(said.same)
    for name, sentence in said.sentences:
        fields[name] = render(sentence, known)
    fields["facts"] = {name: known[name] for name in session.reads(said.source) if name in known}
    # Not validated again: that took a third of a decision.
    return trusted(Reason, fields, _FIELDS)


def evaluate_phase(
    phase: Phase, *, policy: Policy, session: Session, facts: FactSet, as_of: date
) -> list[Reason]:
    """The reasons of all rules of a phase, fired or not, in the order of the policy."""
    said = ask_phase(phase, policy=policy, session=session, facts=facts, as_of=as_of)
    return [in_words(one, facts=facts, session=session) for one in said]


def ask_phase(phase: Phase, *, policy: Policy, session: Session, facts: FactSet, as_of: date) -> list[Said]:
    """What all rules of a phase say, fired or not, in the order of the policy."""
    asked = _ready(policy)[phase]
    if not asked.rules:
        return []
    known = facts.asked[phase] = facts.flat
    answers = session.answers(phase)
    if set(map(type, answers)) == _YES_OR_NO and asked.is_plain(known, as_of):
        return [both[fired] for both, fired in zip(asked.answers, answers, strict=True)]  # type: ignore[index]
    found: list[Said] = []
    for rule, both, fired in zip(asked.rules, asked.answers, answers, strict=True):
        if rule.expires != "never" and rule.expires < as_of:
            found.append(_expired(rule))
        elif fired is not True and fired is not False:
            found.append(_failed(rule, fired))
        else:
            one = both[fired]
            sure = _can_be_told(one.checks, known)
            found.append(one if sure else _tried(one, facts=facts, session=session))
    return found


_YES_OR_NO = {bool}


def _tried(answer: Answer, *, facts: FactSet, session: Session) -> Said:
    """The answer, tried out: a fact is not of the type that its format is made for."""
    try:
        in_words(answer, facts=facts, session=session)
    except Exception as error:  # noqa: BLE001  # a rule that cannot be evaluated denies, whatever the reason
        return _failed(answer.source, error)
    return answer


def _expired(rule: Rule) -> Reason:
    return rule_error(
        rule,
        f"rule {rule.id} expired on {rule.expires}, and nobody answers for it any more",
        f"its owner ({rule.owner}) renews it or takes it out, in a new version of the policy",
    )


def _failed(rule: Rule, error: Exception) -> Reason:
    return rule_error(
        rule,
        f"rule {rule.id} could not be evaluated: {error}",
        "see which gate did not measure the missing fact, and fix that first",
    )


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
