"""Rule conditions in CEL, the Common Expression Language of Kubernetes admission policies.

It always terminates and has no I/O, so a rule can neither hang a release nor look elsewhere. How much work
a condition can be is bounded before it runs (``core/cel.py``), and by the size of the lists it runs over.

Facts are handed over under short names and only those that a policy's rules ask for: converting all facts
of a release as nested maps takes most of the time of a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, get_args

from airlock.adapters.cel_library import load_cel
from airlock.core.cel import parse
from airlock.core.cel_nodes import Condition
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.core.facts import FactType, fact_named
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

    ``values``, ``sizes`` and ``presences`` are pairs of a short name and the fact it stands for, or the size
    or the presence of that fact. A number is handed over ten times as fast as a list.

    A call of the library costs as much as five conditions: ``together`` answers most of them at once with a
    list. What is not in it runs alone: rules that cannot be used, and those whose lists are measured first.
    """

    rules: Mapping[str, _Compiled]
    values: Sequence[tuple[str, str]]
    sizes: Sequence[tuple[str, str]]
    presences: Sequence[tuple[str, str]]
    together: Any


_VALUE, _SIZE, _PRESENCE = range(3)


def _compile(rules: Sequence[Rule], place: int, known: Mapping[str, float]) -> _Group:
    """Rewrite the conditions so that each fact is one variable or a known number, and compile them."""
    short: dict[tuple[str, int], str] = {}
    compiled: dict[str, _Compiled] = {}
    for rule in rules:
        try:
            condition = _condition(rule.when)
            text = _rewritten(condition, short, known)
            compiled[rule.id] = _Compiled(condition, text, _program(text), place, condition.facts)
        except ConfigurationError as error:
            compiled[rule.id] = _Compiled(_condition("false"), "false", None, place, (), error)
    values, sizes, presences = (
        [(name, path) for (path, kind), name in short.items() if kind == wanted]
        for wanted in (_VALUE, _SIZE, _PRESENCE)
    )
    return _Group(compiled, values, sizes, presences, _together(compiled.values()))


def _rewritten(condition: Condition, short: dict[tuple[str, int], str], known: Mapping[str, float]) -> str:
    sizes = {read.end: read for read in condition.sizes if _is_list(read.path)}
    asked = {read.start: (read, _PRESENCE if read.optional else _VALUE) for read in condition.reads}
    for size in sizes.values():
        asked = {at: one for at, one in asked.items() if not size.start <= at < size.end}
        asked[size.start] = (size, _SIZE)
    parts, at = [], 0
    for start, (read, kind) in sorted(asked.items()):
        parts.append(condition.text[at:start])
        if kind == _VALUE and read.path in known:
            parts.append(f"({known[read.path]!r})")
        else:
            parts.append(short.setdefault((read.path, kind), f"__f{len(short)}"))
        at = read.end
    return "".join([*parts, condition.text[at:]])


def _is_list(path: str) -> bool:
    fact = fact_named(path)
    return fact is not None and fact.type is FactType.TEXTS


def _runs_together(compiled: _Compiled) -> bool:
    return compiled.error is None and not compiled.condition.nested_loops


def _together(compiled: Iterable[_Compiled]) -> Any:
    """The program that answers them at once; ``None`` when each is answered alone."""
    # On lines of their own: a condition may end in a comment.
    text = ",".join(f"(\n{one.text}\n)" for one in compiled if _runs_together(one))
    try:
        return _program(f"[{text}]") if text else None
    except ConfigurationError:
        return None


@dataclass(frozen=True, slots=True)
class _Batch:
    """The rules of a phase: their group, and where in its list the answers of those stand that are in it."""

    rules: Sequence[Rule]
    place: int
    answers: slice
    together: frozenset[str]


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
    for rule in policy.rules:
        by_phase[rule.effect.phase].append(rule)
    by_place: list[list[Rule]] = [[] for _ in range(_PLACES)]
    for phase, rules in by_phase.items():
        by_place[_place(phase)] += rules
    groups = [_compile(rules, place, known) for place, rules in enumerate(by_place)]
    compiled = {name: one for group in groups for name, one in group.rules.items()}
    phases, used = {}, [0] * _PLACES
    for phase, rules in by_phase.items():
        place = _place(phase)
        together = frozenset(rule.id for rule in rules if _runs_together(compiled[rule.id]))
        start = used[place]
        used[place] += len(together)
        phases[phase] = _Batch(rules, place, slice(start, used[place]), together)
    return _Ready(limits, compiled, groups, phases)


_PLACES = 3


def _place(phase: Phase) -> int:
    """The group of facts a phase runs over: what the tier is computed from, the rest, and what is watched."""
    return {"tier": 0, "action": 2}.get(phase, 1)


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
        self._found: list[list[bool] | None] = [None] * _PLACES

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
        found = self._found[batch.place]
        if found is None:
            found = self._found[batch.place] = self._together(batch.place)
        found = found[batch.answers]
        if len(found) == len(batch.rules):
            return found
        at_once = iter(found)
        return [
            next(at_once) if found and rule.id in batch.together else self._alone(rule)
            for rule in batch.rules
        ]

    def _together(self, place: int) -> list[bool]:
        """The answers of all rules that can be asked at once; none when one of them is an error."""
        group = self._ready.groups[place]
        if group.together is None:
            return []
        try:
            found: list[bool] = group.together.execute(self._context(place))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:  # noqa: BLE001  # which rule it was is found out one by one
            return []
        return found if set(map(type, found)) == {bool} else []

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
        group, facts = self._ready.groups[place], self._facts
        flat = facts.flat
        variables = {name: flat[path] for name, path in group.values if path in flat}
        if len(variables) < len(group.values):  # what is no single fact may be a group of them
            variables |= {
                name: facts.find(path)
                for name, path in group.values
                if path not in flat and _has(facts, path)
            }
        for name, path in group.sizes:
            if type(value := flat.get(path)) is list:
                variables[name] = len(value)
        variables |= {name: _has(facts, path) for name, path in group.presences}
        context = self._contexts[place] = load_cel().Context(variables=variables)
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
