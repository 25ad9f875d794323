"""Whether the types of a condition fit, before it ever meets a release.

Facts have the types of the catalogue (``core/facts.py``). CEL compares whole numbers with fractions, but adds
only like with like; comparing text with a number is never true there, and always a mistake here.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from airlock.core.cel_nodes import (
    Call,
    Choice,
    Condition,
    Has,
    Index,
    Items,
    Literal,
    Loop,
    Name,
    Node,
    path_of,
)
from airlock.core.facts import FACTS, fact_named
from airlock.core.signals import SIGNALS

ANY = "dyn"
GROUP = "map"
NUMBERS = ("int", "double")
_COMPARED = ("<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a condition, and at which character (from 1)."""

    what: str
    at: int


def mistakes(condition: Condition, *, limits: Collection[str], gates: Collection[str]) -> list[Mistake]:
    """Unknown facts and types that do not fit; a condition must give true or false.

    Args:
        condition: what was parsed.
        limits: names of the policy's limits.
        gates: names of its gates.
    """
    checker = _Checker(limits, gates)
    result = checker.type_of(condition.root, {})
    if result not in ("bool", ANY):
        checker.found.append(Mistake(f"the condition gives {result}, not true or false", 1))
    return checker.found


def unknown_fact(path: str, *, limits: Collection[str], gates: Collection[str]) -> str:
    """What is wrong with a name that a rule asks for, and what was probably meant; empty for a fact."""
    group, _, rest = path.partition(".")
    own = {"limits": limits, "gates": gates, "signals": SIGNALS}.get(group)
    known = [name for name in FACTS if not name.endswith(".*")]
    known += [f"limits.{name}" for name in limits] + [f"gates.{name}" for name in gates]
    known += [f"signals.{name}" for name in SIGNALS]
    if own is not None and rest:
        fine = rest in own
    else:
        fine = fact_named(path) is not None or any(name.startswith(f"{path}.") for name in FACTS)
    if fine:
        return ""
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    return f"there is no fact {path!r}" + (f"; did you mean {near[0]!r}?" if near else "")


class _Checker:
    def __init__(self, limits: Collection[str], gates: Collection[str]) -> None:
        self.limits = limits
        self.gates = gates
        self.found: list[Mistake] = []

    def type_of(self, node: Node, bound: dict[str, str]) -> str:  # noqa: PLR0911  # a line for each kind of node
        path = path_of(node)
        if path is not None:
            return self._fact(path, node, bound)
        match node:
            case Literal():
                return _type_of_value(node.value)
            case Has():
                self.type_of(node.of, bound)
                return "bool"
            case Index():
                return self._index(node, bound)
            case Call():
                return self._call(node, bound)
            case Choice():
                return self._choice(node, bound)
            case Items():
                types = [self.type_of(item, bound) for item in node.items]
                return GROUP if node.mapping else f"list({_common(types)})"
            case Loop():
                return self._loop(node, bound)
        return ANY

    def _fact(self, path: str, node: Node, bound: dict[str, str]) -> str:
        first = path.split(".", maxsplit=1)[0]
        if first in bound:
            return bound[first] if isinstance(node, Name) else ANY
        if problem := unknown_fact(path, limits=self.limits, gates=self.gates):
            self.found.append(Mistake(problem, node.start + 1))
            return ANY
        fact = fact_named(path)
        return GROUP if fact is None else str(fact.type)

    def _index(self, node: Index, bound: dict[str, str]) -> str:
        of, key = self.type_of(node.of, bound), self.type_of(node.key, bound)
        if of.startswith("list("):
            self._want(key, ("int",), node.key, "a place in a list")
            return of[5:-1]
        entry = FACTS.get(f"{path_of(node.of)}.*")
        return ANY if entry is None else str(entry.type)

    def _call(self, node: Call, bound: dict[str, str]) -> str:  # noqa: PLR0911  # a line for each operator
        types = [self.type_of(arg, bound) for arg in node.args]
        if node.of is not None:
            of = self.type_of(node.of, bound)
            if node.name == "size":
                return self._size(of, node.of)
            for kind, part in ((of, node.of), (types[0], node.args[0])):
                self._want(kind, ("string",), part, node.name)
            return "bool"
        if node.name in ("&&", "||", "!_"):
            for kind, arg in zip(types, node.args, strict=True):
                self._want(kind, ("bool",), arg, node.name.strip("_"))
            return "bool"
        if node.name in ("==", "!=", "in", *_COMPARED):
            return self._comparison(node, types)
        if node.name == "size":
            return self._size(types[0], node.args[0])
        if node.name == "()":
            return types[0]
        return node.name if node.name in ("int", "double", "string", "bool") else self._sum(node, types)

    def _size(self, kind: str, node: Node) -> str:
        if kind in ("bool", "int", "double", "null"):
            self.found.append(Mistake(f"size needs a list or text, not {kind}", node.start + 1))
        return "int"

    def _comparison(self, node: Call, types: list[str]) -> str:
        left, right = types
        if node.name == "in":
            if right not in (GROUP, ANY) and not right.startswith("list("):
                self.found.append(Mistake(f"`in` needs a list, not {right}", node.args[1].start + 1))
            elif right.startswith("list(") and not _alike(left, right[5:-1]):
                self.found.append(Mistake(f"looks for {left} in a {right}", node.start + 1))
        elif not _alike(left, right):
            self.found.append(Mistake(f"compares {left} with {right}", node.start + 1))
        elif node.name in _COMPARED:
            for kind, arg in zip(types, node.args, strict=True):
                self._want(kind, (*NUMBERS, "string"), arg, node.name)
        return "bool"

    def _sum(self, node: Call, types: list[str]) -> str:
        fine = (*NUMBERS, "string") if node.name == "+" else ("int",) if node.name == "%" else NUMBERS
        for kind, arg in zip(types, node.args, strict=True):
            if not (node.name == "+" and kind.startswith("list(")):
                self._want(kind, fine, arg, node.name.strip("_"))
        known = [kind for kind in types if kind != ANY]
        if len(set(known)) > 1 and all(kind in NUMBERS for kind in known):
            self.found.append(
                Mistake(f"{node.name} of int and double: write 1.0, or double(…)", node.start + 1)
            )
        elif len(set(known)) > 1:
            self.found.append(Mistake(f"{node.name} of {' and '.join(known)}", node.start + 1))
        return known[0] if known else ANY

    def _choice(self, node: Choice, bound: dict[str, str]) -> str:
        self._want(self.type_of(node.condition, bound), ("bool",), node.condition, "?")
        return _common([self.type_of(node.this, bound), self.type_of(node.that, bound)])

    def _loop(self, node: Loop, bound: dict[str, str]) -> str:
        over = self.type_of(node.over, bound)
        item = over[5:-1] if over.startswith("list(") else "string" if over == GROUP else ANY
        if over not in (GROUP, ANY) and not over.startswith("list("):
            self.found.append(Mistake(f"{node.kind} needs a list, not {over}", node.over.start + 1))
        types = [self.type_of(body, {**bound, node.variable: item}) for body in node.bodies]
        if node.kind == "map":
            return f"list({types[-1]})"
        self._want(types[0], ("bool",), node.bodies[0], node.kind)
        return over if node.kind == "filter" else "bool"

    def _want(self, kind: str, fine: Collection[str], node: Node, by: str) -> None:
        if kind != ANY and kind not in fine:
            self.found.append(Mistake(f"{by} needs {' or '.join(fine)}, not {kind}", node.start + 1))


def _type_of_value(value: object) -> str:
    names = {bool: "bool", int: "int", float: "double", str: "string", type(None): "null"}
    return names.get(type(value), ANY)


def _alike(one: str, two: str) -> bool:
    return one == two or ANY in (one, two) or "dyn" in one + two or {one, two} <= set(NUMBERS)


def _common(types: Iterable[str]) -> str:
    found = set(types)
    return found.pop() if len(found) == 1 else ANY
