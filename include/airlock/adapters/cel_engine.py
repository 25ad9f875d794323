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
from typing import Any, get_args

from airlock.adapters.cel_library import load_cel
from airlock.core.cel import parse
from airlock.core.cel_nodes import Condition
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.core.policy import Phase, Policy, Rule
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
    text: str
    program: Any
    place: int
    reads: tuple[str, ...]
    error: ConfigurationError | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """Rules that run over the same facts: those that compute the tier, those that watch, and the rest.

    ``values`` and ``presences`` are pairs of a short name and the fact it stands for, or whose presence.
    """

    rules: Mapping[str, _Compiled]
    values: Sequence[tuple[str, str]]
    presences: Sequence[tuple[str, str]]


def _compile(rules: Sequence[Rule], place: int, known: Mapping[str, float]) -> _Group:
    """Rewrite the conditions so that each fact is one variable or a known number, and compile them."""
    short: dict[tuple[str, bool], str] = {}
    compiled: dict[str, _Compiled] = {}
    for rule in rules:
        try:
            condition = _condition(rule.when)
            for read in condition.reads:
                if read.optional or read.path not in known:
                    short.setdefault((read.path, read.optional), f"__f{len(short)}")
            text = _rewritten(condition, short, known)
            compiled[rule.id] = _Compiled(condition, text, _program(text), place, condition.facts)
        except ConfigurationError as error:
            compiled[rule.id] = _Compiled(_condition("false"), "false", None, place, (), error)
    return _Group(
        compiled,
        [(name, path) for (path, optional), name in short.items() if not optional],
        [(name, path) for (path, optional), name in short.items() if optional],
    )


def _rewritten(
    condition: Condition, short: Mapping[tuple[str, bool], str], known: Mapping[str, float]
) -> str:
    parts, at = [], 0
    for read in sorted(condition.reads, key=lambda read: read.start):
        name = short.get((read.path, read.optional))
        parts += [condition.text[at : read.start], f"({known[read.path]!r})" if name is None else name]
        at = read.end
    return "".join([*parts, condition.text[at:]])


@dataclass(frozen=True, slots=True)
class _Batch:
    """The rules of a phase, and one program that answers most of them at once with a list.

    A call of the library costs as much as five conditions. What is not in ``together`` runs alone: rules that
    cannot be used, and those whose lists are measured first.
    """

    rules: Sequence[Rule]
    place: int
    together: frozenset[str]
    program: Any


@dataclass(frozen=True, slots=True)
class _Ready:
    """All rules of a policy, and the groups of facts they run over."""

    limits: Mapping[str, float]
    rules: Mapping[str, _Compiled]
    groups: Sequence[_Group]
    phases: Mapping[Phase, _Batch]


def _prepare(policy: Policy) -> _Ready:
    return _prepare_with(policy, policy.limit_values)


def _prepare_open(policy: Policy) -> _Ready:
    return _prepare_with(policy, {})


def _prepare_with(policy: Policy, limits: Mapping[str, float]) -> _Ready:
    """The rules with these limits in their text: a tenth of the facts need not be converted each time."""
    known = {f"limits.{name}": value for name, value in limits.items()}
    by_phase: dict[Phase, list[Rule]] = {phase: [] for phase in get_args(Phase)}
    by_place: list[list[Rule]] = [[] for _ in range(_PLACES)]
    for rule in policy.rules:
        phase = rule.effect.phase
        by_phase[phase].append(rule)
        by_place[_place(phase)].append(rule)
    groups = [_compile(rules, place, known) for place, rules in enumerate(by_place)]
    phases = {phase: _batch(rules, groups[_place(phase)], _place(phase)) for phase, rules in by_phase.items()}
    compiled = {name: one for group in groups for name, one in group.rules.items()}
    return _Ready(limits, compiled, groups, phases)


_PLACES = 3


def _place(phase: Phase) -> int:
    """The group of facts a phase runs over: what the tier is computed from, the rest, and what is watched."""
    return {"tier": 0, "action": 2}.get(phase, 1)


def _batch(rules: Sequence[Rule], group: _Group, place: int) -> _Batch:
    compiled = {rule.id: group.rules[rule.id] for rule in rules}
    usable = {
        name: one for name, one in compiled.items() if one.error is None and not one.condition.nested_loops
    }
    # On lines of their own: a condition may end in a comment.
    text = "[" + ",".join(f"(\n{one.text}\n)" for one in usable.values()) + "]"
    try:
        program = _program(text) if usable else None
    except ConfigurationError:
        program = None  # each is answered alone
    return _Batch(rules, place, frozenset(usable), program)


_ready: PerValue[Policy, _Ready] = PerValue(_prepare)
_ready_open: PerValue[Policy, _Ready] = PerValue(_prepare_open)
"""For facts that bring limits of their own, such as those of a rule's test."""


class CelEngine:
    """Evaluates conditions; anything but true or false is an error. Other languages are handed on."""

    def __init__(self, foreign: Foreign | None = None) -> None:
        self._foreign = foreign

    def begin(self, policy: Policy, facts: FactSet) -> CelSession:
        """Start with the facts of a release."""
        foreign = None if self._foreign is None else partial(self._foreign, policy)
        ready = _ready(policy)
        if facts.nested.get("limits") != ready.limits:
            ready = _ready_open(policy)
        return CelSession(ready, facts, foreign)

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
        self._contexts: list[Any] = [None] * _PLACES

    def fires(self, rule: Rule) -> bool:
        """Whether a rule's condition holds.

        Raises:
            ConfigurationError: the condition cannot be used.
            InvalidInputError: a missing fact, a type error, or a result that is not a boolean.
        """
        compiled = self._ready.rules[rule.id]
        if compiled.error is not None:
            raise compiled.error
        if compiled.condition.nested_loops:
            _check_sizes(compiled.condition, self._facts)
        return _run(compiled.program, self._context(compiled.place), compiled.condition, self._facts)

    def answers(self, phase: Phase) -> Sequence[bool | Exception]:
        """Whether each rule of a phase holds, or the error of ``fires``, in the order of the policy."""
        batch = self._ready.phases[phase]
        found = self._together(batch)
        if len(found) == len(batch.rules):
            return found
        at_once = iter(found)
        return [
            next(at_once) if found and rule.id in batch.together else self._alone(rule)
            for rule in batch.rules
        ]

    def _together(self, batch: _Batch) -> list[bool]:
        """The answers of all rules that can be asked at once; none when one of them is an error."""
        if batch.program is None:
            return []
        try:
            found = batch.program.execute(self._context(batch.place))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:  # noqa: BLE001  # which rule it was is found out one by one
            return []
        sure = len(found) == len(batch.together) and all(type(one) is bool for one in found)
        return found if sure else []

    def _alone(self, rule: Rule) -> bool | Exception:
        try:
            return self.fires(rule)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this rule's answer
            return error

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

    def _context(self, place: int) -> Any:
        """The facts of a group as the library keeps them, converted when the first rule asks."""
        if self._contexts[place] is not None:
            return self._contexts[place]
        cel, group = load_cel(), self._ready.groups[place]
        flat, variables = self._facts.flat, {}
        for name, path in group.values:
            if path in flat:
                variables[name] = flat[path]
            elif _has(self._facts, path):
                variables[name] = self._facts.find(path)
        variables |= {name: _has(self._facts, path) for name, path in group.presences}
        context = self._contexts[place] = cel.Context(variables=variables)
        return context


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
