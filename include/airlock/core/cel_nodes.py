"""What a condition in CEL consists of, once it was read; ``core/cel.py`` reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a condition, and where it stands: offsets into the text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A value that stands in the text."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A name: the first part of a fact, or the variable of a loop."""

    name: str


@dataclass(frozen=True, slots=True)
class Select(Node):
    """``of.field``."""

    of: Node
    field: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    """``of[key]``."""

    of: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    """``name(args)``, or a method of ``of``; operators are calls of their sign."""

    name: str
    of: Node | None
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Has(Node):
    """``has(fact)``: whether there is such a fact."""

    of: Select


@dataclass(frozen=True, slots=True)
class Choice(Node):
    """``condition ? this : that``."""

    condition: Node
    this: Node
    that: Node


@dataclass(frozen=True, slots=True)
class Items(Node):
    """A list, or a map as keys and values in turn."""

    items: tuple[Node, ...]
    mapping: bool


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """``over.all(variable, body)`` and its kin."""

    kind: str
    over: Node
    variable: str
    bodies: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """A place where a condition asks for a fact.

    Attributes:
        path: dotted name; a part of it when the condition takes a whole group, such as all ``gates``.
        optional: it only asks whether there is such a fact.
    """

    path: str
    start: int
    end: int
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that can be run: what it says, and what it asks for.

    Attributes:
        sizes: places where only the size of a fact is asked for; what is asked there stands in ``reads`` too.
    """

    text: str
    root: Node
    reads: tuple[Read, ...]
    sizes: tuple[Read, ...]
    nested_loops: int

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of the facts it asks for, each once, in the order of the text."""
        return tuple(dict.fromkeys(read.path for read in self.reads))


def walk(node: Node) -> Iterator[Node]:
    """The node and everything in it."""
    yield node
    for child in children(node):
        yield from walk(child)


def children(node: Node) -> tuple[Node, ...]:
    """The parts of a node, in the order of the text."""
    found: tuple[Node | None, ...] = ()
    match node:
        case Select() | Has():
            found = (node.of,)
        case Index():
            found = (node.of, node.key)
        case Call():
            found = (node.of, *node.args)
        case Choice():
            found = (node.condition, node.this, node.that)
        case Items():
            found = node.items
        case Loop():
            found = (node.over, *node.bodies)
    return tuple(child for child in found if child is not None)


def path_of(node: Node) -> str | None:
    """The dotted name that a chain of selections stands for; ``None`` for anything else."""
    match node:
        case Name():
            return node.name
        case Select():
            inner = path_of(node.of)
            return None if inner is None else f"{inner}.{node.field}"
        case Index(key=Literal(value=str(key))) if re.fullmatch(r"\w+", key, re.ASCII):
            inner = path_of(node.of)
            return None if inner is None else f"{inner}.{key}"
    return None


def reads_of(node: Node, bound: frozenset[str] = frozenset()) -> Iterator[Read]:
    """Where facts are asked for; names that loops bind are none."""
    target = node.of if isinstance(node, Has) else node
    path = path_of(target)
    if path is not None:
        if path.split(".")[0] not in bound:
            yield Read(path, node.start, node.end, optional=isinstance(node, Has))
        return
    if isinstance(node, Loop):
        yield from reads_of(node.over, bound)
        for body in node.bodies:
            yield from reads_of(body, bound | {node.variable})
        return
    for child in children(node):
        yield from reads_of(child, bound)


def sizes_of(node: Node, bound: frozenset[str] = frozenset()) -> Iterator[Read]:
    """Where ``size(fact)`` or ``fact.size()`` stands; names that loops bind are no facts."""
    if isinstance(node, Call) and node.name == "size":
        path = path_of(node.of or node.args[0])
        if path is not None and path.split(".")[0] not in bound:
            yield Read(path, node.start, node.end)
            return
    inner = bound | {node.variable} if isinstance(node, Loop) else bound
    for child in children(node):
        yield from sizes_of(child, inner)


def nesting(node: Node) -> int:
    """How many loops stand inside each other; the list a loop runs over is outside of it, but made by it."""
    inner = max((nesting(child) for child in children(node)), default=0)
    return inner + isinstance(node, Loop)
