"""Rules in Rego: ``deny``, ``warn`` and ``track`` of package ``airlock``, beside those in YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from airlock.adapters.rego.process import RegoProcess
from airlock.adapters.rego.reading import Objection, Reading, is_test, judge_reading, rules_of
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.core.facts import fact_named
from airlock.core.policy import Policy, Severity, Track
from airlock.core.rules import FactSet, PerValue, Reason

MAX_REASONS = 100
"""Reasons of one kind; more of them nobody reads."""

_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEXTS = ("fix", "title", "owner", "why")


class Evaluator(Protocol):
    """Gives the value of package ``airlock`` for the facts of a release."""

    def value(self, policy: Policy, facts: Mapping[str, Any]) -> Any:
        """Every rule of the package by name.

        Raises:
            AirlockError: it cannot be had.
        """


@lru_cache(maxsize=1)
def _process() -> RegoProcess:
    return RegoProcess()


class Regorus:
    """Regorus, in a child of this process."""

    def value(self, policy: Policy, facts: Mapping[str, Any]) -> Any:
        """Every rule of package ``airlock`` by name.

        Raises:
            ConfigurationError: the extra is not installed.
            InvalidInputError: the engine refused, took too long or died.
        """
        return _process().ask("judge", modules=rules_of(policy.rego), facts=facts)


def _read(policy: Policy) -> Reading:
    return judge_reading(_process().ask("read", modules=rules_of(policy.rego)), policy)


_reading: PerValue[Policy, Reading] = PerValue(_read)


class RegoRules:
    """Turns what Rego answers into reasons; whatever is not understood is an error, which denies."""

    def __init__(self, evaluator: Evaluator | None = None) -> None:
        self._evaluator = evaluator or Regorus()

    def objections(self, policy: Policy) -> Sequence[Objection]:
        """What the files may not do.

        Raises:
            ConfigurationError: the extra is not installed.
            InvalidInputError: they are not Rego.
        """
        return _reading(policy).objections

    def tests(self, policy: Policy) -> list[tuple[str, str, str]]:
        """File, name and problem of each ``test_*`` rule; the problem of a green one is empty.

        Raises:
            ConfigurationError: the extra is not installed.
            InvalidInputError: the files are not Rego.
        """
        results = _process().ask("test", modules=dict(policy.rego))
        return [
            (
                file,
                name,
                problem or _verdict(value),
            )
            for file, name, value, problem in results
            if is_test(file)
        ]

    def reasons(self, policy: Policy, facts: FactSet) -> list[Reason]:
        """The reasons of the rules that fired, sorted by kind and id.

        Raises:
            ConfigurationError: the files may not do what they do.
            InvalidInputError: a fact was not measured, or an answer is not understood.
            UnavailableError: the server does not answer.
        """
        reading = _reading(policy)
        for objection in reading.objections:
            raise ConfigurationError(
                objection.what, where=f"{objection.file}:{objection.line}", fix=objection.fix
            )
        if missing := [name for name in reading.facts if not _there(name, facts)]:
            raise InvalidInputError(f"not measured: {', '.join(missing)}", where="Rego")
        value = self._evaluator.value(policy, facts.nested)
        if not isinstance(value, dict):
            raise InvalidInputError("package airlock has no value", where="Rego")
        read = {name: facts.flat[name] for name in reading.facts if name in facts.flat}
        found = [
            _reason(kind, item, read)
            for kind in ("deny", "warn", "track")
            for item in _items(kind, value.get(kind))
        ]
        return sorted(found, key=lambda reason: (reason.effect, reason.rule, reason.message))


def _verdict(value: Any) -> str:
    return "" if value is True else "it has no value" if value is None else f"it is {value}"


def _there(name: str, facts: FactSet) -> bool:
    """Whether a fact is there, or cannot be: a first release has no champion to measure a change from."""
    try:
        facts.find(name)
    except KeyError:
        fact = fact_named(name)
        first = facts.flat.get("release.first") is True
        return first and fact is not None and fact.absent.startswith("first release")
    return True


def _items(kind: str, value: Any) -> Iterator[Any]:
    """One item for each reason: a rule may give a set, a list, one object, a text, or only true."""
    if value is None or value is False:
        return
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_REASONS:
        raise InvalidInputError(f"{kind} has {len(items)} reasons, the limit is {MAX_REASONS}", where="Rego")
    yield from items


def _reason(kind: str, item: Any, read: Mapping[str, Any]) -> Reason:
    given: dict[str, Any]
    if isinstance(item, dict):
        given = item
    elif kind == "track":
        given = {"track": item}
    else:
        given = {} if item is True else {"msg": item}
    fields = {"msg", "id", "severity", "facts", *_TEXTS} | ({"track"} if kind == "track" else set())
    unknown = set(given) - fields
    rule = given.get("id", f"rego-{kind}")
    texts = {name: given.get(name, "") for name in _TEXTS}
    message = given.get("msg", f"rule {rule} in Rego says so")
    facts = given.get("facts", dict(read))
    severity = given.get("severity")
    wrong = [
        *(f"unknown field {name!r}" for name in sorted(unknown)),
        *(f"{name} is no text" for name, text in {**texts, "msg": message}.items() if type(text) is not str),
    ]
    if not isinstance(rule, str) or not _ID.fullmatch(rule):
        wrong.append(f"id {rule!r} is not like my-rule")
    if not isinstance(facts, dict):
        wrong.append("facts is no object")
    if severity is not None and severity not in list(Severity):
        wrong.append(f"severity {severity!r} is none of {', '.join(Severity)}")
    if kind == "track" and given.get("track") not in list(Track):
        wrong.append(f"track {given.get('track')!r} is none of {', '.join(Track)}")
    if wrong:
        raise InvalidInputError(f"a reason of {kind} is not understood: {'; '.join(wrong)}", where="Rego")
    effect = f"track {given['track']}" if kind == "track" else kind
    return Reason(rule=rule, effect=effect, message=message or rule, facts=facts, severity=severity, **texts)
