"""Rule conditions in CEL, the Common Expression Language of Kubernetes admission policies.

It always terminates and has no I/O, so a rule can neither hang a release nor look elsewhere. How much work
a condition can be is bounded before it runs (``core/cel.py``), and by the size of the lists it runs over.

Facts are handed over under short names and only those that a policy's rules ask for: converting all facts
of a release as nested maps takes most of the time of a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from airlock.adapters.cel_library import load_cel
from airlock.core.cel import parse
from airlock.core.cel_nodes import Condition
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.core.policy import Policy, Rule
from airlock.core.rules import FactSet, PerValue, Reason

MAX_ITEMS = 100_000
"""Items of a fact that a condition reads; a release with a longer list is not judged by guessing."""

MAX_ITEMS_NESTED = 1_000
"""The same where a condition has loops inside each other."""


Foreign = Callable[[Policy, FactSet], Sequence[Reason]]
"""Evaluates what does not stand in YAML."""


@lru_cache(maxsize=4096)
def _condition(text: str) -> Condition:
    return parse(text)


@lru_cache(maxsize=4096)
def _program(text: str) -> Any:  # the library ships no types
    cel = load_cel()

    try:
        return cel.compile(text)
    except ValueError as error:
        raise ConfigurationError(
            f"not a CEL expression: {str(error).splitlines()[0]}",
            where=text,
            fix="correct the rule's `when`",
        ) from error


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A rule ready to run: its program over short names, and what it asks for."""

    condition: Condition
    program: Any
    place: int
    reads: tuple[str, ...]
    error: ConfigurationError | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """Rules that run over the same facts: those that compute the tier, and the rest.

    ``values`` and ``presences`` are pairs of a short name and the fact it stands for, or whose presence.
    """

    rules: Mapping[str, _Compiled]
    values: Sequence[tuple[str, str]]
    presences: Sequence[tuple[str, str]]


def _compile(rules: Sequence[Rule], place: int) -> _Group:
    """Rewrite the conditions so that each fact is one variable, and compile them."""
    short: dict[tuple[str, bool], str] = {}
    compiled: dict[str, _Compiled] = {}
    for rule in rules:
        try:
            condition = _condition(rule.when)
            for read in condition.reads:
                short.setdefault((read.path, read.optional), f"__f{len(short)}")
            program = _program(_rewritten(condition, short))
            compiled[rule.id] = _Compiled(condition, program, place, condition.facts)
        except ConfigurationError as error:
            compiled[rule.id] = _Compiled(_condition("false"), None, place, (), error)
    return _Group(
        compiled,
        [(name, path) for (path, optional), name in short.items() if not optional],
        [(name, path) for (path, optional), name in short.items() if optional],
    )


def _rewritten(condition: Condition, short: Mapping[tuple[str, bool], str]) -> str:
    parts, at = [], 0
    for read in sorted(condition.reads, key=lambda read: read.start):
        parts += [condition.text[at : read.start], short[read.path, read.optional]]
        at = read.end
    return "".join([*parts, condition.text[at:]])


@dataclass(frozen=True, slots=True)
class _Ready:
    """All rules of a policy, and the two groups of facts they run over."""

    rules: Mapping[str, _Compiled]
    groups: tuple[_Group, _Group]


def _prepare(policy: Policy) -> _Ready:
    tier = _compile([rule for rule in policy.rules if rule.effect.phase == "tier"], 0)
    rest = _compile([rule for rule in policy.rules if rule.effect.phase != "tier"], 1)
    return _Ready({**tier.rules, **rest.rules}, (tier, rest))


_ready: PerValue[Policy, _Ready] = PerValue(_prepare)


class CelEngine:
    """Evaluates conditions; anything but true or false is an error. Other languages are handed on."""

    def __init__(self, foreign: Foreign | None = None) -> None:
        self._foreign = foreign

    def begin(self, policy: Policy, facts: FactSet) -> CelSession:
        """Start with the facts of a release."""
        foreign = None if self._foreign is None else partial(self._foreign, policy)
        return CelSession(_ready(policy), facts, foreign)

    def evaluate(self, condition: str, facts: Mapping[str, Any]) -> bool:
        """One condition alone, such as whether a question must be asked.

        Raises:
            ConfigurationError: it is not CEL, or uses what a policy may not use.
            InvalidInputError: a missing fact, a type error, or a result that is not a boolean.
        """
        cel = load_cel()

        parsed = _condition(condition)
        fact_set = FactSet(dict(facts))
        _check_sizes(parsed, fact_set)
        return _run(_program(condition), cel.Context(variables=dict(facts)), parsed, fact_set)


class CelSession:
    """The rules of one policy over the facts of one release."""

    def __init__(
        self,
        ready: _Ready,
        facts: FactSet,
        foreign: Callable[[FactSet], Sequence[Reason]] | None = None,
    ) -> None:
        self._ready = ready
        self._foreign = foreign
        self._facts = facts
        self._contexts: list[Any] = [None, None]

    def fires(self, rule: Rule) -> bool:
        """Whether a rule's condition holds.

        Raises:
            ConfigurationError: the condition cannot be used.
            InvalidInputError: a missing fact, a type error, or a result that is not a boolean.
        """
        compiled = self._ready.rules[rule.id]
        if compiled.error is not None:
            raise compiled.error
        context = self._contexts[compiled.place]
        if context is None:
            context = self._contexts[compiled.place] = self._context(self._ready.groups[compiled.place])
        if compiled.condition.nested_loops:
            _check_sizes(compiled.condition, self._facts)
        return _run(compiled.program, context, compiled.condition, self._facts)

    def reads(self, rule: Rule) -> Sequence[str]:
        """Names of the facts a rule asks for."""
        return self._ready.rules[rule.id].reads

    def foreign(self) -> Sequence[Reason]:
        """Reasons of rules in another language.

        Raises:
            ConfigurationError: nobody here can evaluate them.
        """
        if self._foreign is None:
            raise ConfigurationError("rules in Rego are not evaluated here", fix="use open_engine")
        return self._foreign(self._facts)

    def _context(self, group: _Group) -> Any:
        cel = load_cel()

        flat, variables = self._facts.flat, {}
        for name, path in group.values:
            if path in flat:
                variables[name] = flat[path]
            elif _has(self._facts, path):
                variables[name] = self._facts.find(path)
        variables |= {name: _has(self._facts, path) for name, path in group.presences}
        return cel.Context(variables=variables)


def _run(program: Any, context: Any, condition: Condition, facts: FactSet) -> bool:
    try:
        result = program.execute(context)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # KeyError, TypeError and its own; a panic of Rust is no Exception
        missing = [read.path for read in condition.reads if not read.optional and not _has(facts, read.path)]
        what = f"not measured: {', '.join(missing)}" if missing else f"wrong type: {error}"
        raise InvalidInputError(what, where=condition.text) from error
    if not isinstance(result, bool):
        raise InvalidInputError(f"the condition gives {result!r}, not true or false", where=condition.text)
    return result


def _has(facts: FactSet, path: str) -> bool:
    try:
        facts.find(path)
    except KeyError:
        return False
    return True


def _check_sizes(condition: Condition, facts: FactSet) -> None:
    most = MAX_ITEMS if condition.nested_loops < 2 else MAX_ITEMS_NESTED  # noqa: PLR2004  # two loops in each other
    for read in condition.reads:
        value = facts.find(read.path) if _has(facts, read.path) else None
        if isinstance(value, list | Mapping) and len(value) > most:
            raise InvalidInputError(
                f"{read.path} has {len(value)} items, and the condition may loop over {most}",
                where=condition.text,
            )
