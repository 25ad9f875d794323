"""The syntax of rule conditions: a parser for the part of CEL that a policy may use.

The engine evaluates conditions; this module reads them, so that a condition can be judged before it ever
runs: which facts it asks for, whether its types fit, and how much work it can be at most. CEL always ends,
but the end can be far away: two nested loops over long lists, or a regular expression of a megabyte. Such
conditions are refused, and so are functions outside a short list. There is none that reads a clock, a file
or the network.

Grammar: https://github.com/google/cel-spec/blob/master/doc/langdef.md, without message and byte literals,
uint, timestamps, optional syntax and custom functions.
"""

from __future__ import annotations

import difflib
import re
from typing import NoReturn

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
    Select,
    nesting,
    reads_of,
    sizes_of,
    walk,
)
from airlock.core.errors import ConfigurationError

MAX_LENGTH = 2_000
"""Characters of a condition; longer ones are data, not a rule that somebody can agree to."""

MAX_DEPTH = 40
"""Nesting; also what keeps this parser and that of the engine far from the end of the stack."""

MAX_NESTED_LOOPS = 2
"""``all``, ``exists``, ``map`` … inside each other: the work grows with the power of the lists' length."""

MAX_LOOPS = 4
MAX_PATTERN = 200
"""Characters of a regular expression, which must be a literal."""

MAX_REPEAT = 100
"""Largest ``{n}`` in a regular expression: repetitions inside each other multiply."""

LOOPS = ("all", "exists", "exists_one", "map", "filter")
FUNCTIONS = ("size", "int", "double", "string", "bool")
METHODS = ("size", "contains", "startsWith", "endsWith", "matches")

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<number>(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?|0x[0-9a-fA-F]+|\d+))(?![\w.])
    |(?P<string>[rR]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>\|\||&&|==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_WORDS = {"true": True, "false": False, "null": None}
_RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package"}
    | {"namespace", "return", "var", "void", "while"}
)
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "`": "`", "?": "?"}


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConfigurationError: it is not CEL, or uses what a policy may not use; says where in the text.
    """
    parser = _Parser(text)
    root = parser.parse()
    reads = tuple(reads_of(root))
    loops = [node for node in walk(root) if isinstance(node, Loop)]
    nested = nesting(root)
    if nested > MAX_NESTED_LOOPS or len(loops) > MAX_LOOPS:
        parser.refuse(
            f"{len(loops)} loops, {nested} of them inside each other; "
            f"at most {MAX_LOOPS} and {MAX_NESTED_LOOPS} are bounded well enough",
            loops[0].start,
        )
    return Condition(text, root, reads, tuple(sizes_of(root)), nested)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            self.refuse(f"the condition has {len(text)} characters, the limit is {MAX_LENGTH}", MAX_LENGTH)
        self.tokens = self._tokens()
        self.next = 0
        self.depth = 0

    def refuse(self, what: str, at: int) -> NoReturn:
        before = self.text[max(0, at - 30) : at]
        raise ConfigurationError(
            f"{what}, at character {at + 1}: {before}⟨here⟩{self.text[at : at + 30]}",
            fix="correct the rule's `when`; docs/policy.md lists what a condition may use",
        )

    def _tokens(self) -> list[tuple[str, str, int]]:
        found, at = [], 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                self.refuse("not a CEL expression", at)
            if match.lastgroup != "space":
                found.append((str(match.lastgroup), match[0], at))
            at = match.end()
        return [*found, ("end", "", len(self.text))]

    def parse(self) -> Node:
        if self.tokens[0][0] == "end":
            self.refuse("the condition is empty", 0)
        node = self._expression()
        kind, text, at = self.tokens[self.next]
        if kind != "end":
            self.refuse(f"{text!r} is not expected", at)
        return node

    def _peek(self, *signs: str) -> bool:
        kind, text, _ = self.tokens[self.next]
        return text in signs and (kind == "sign" or text == "in")

    def _take(self) -> tuple[str, str, int]:
        token = self.tokens[self.next]
        self.next += 1
        return token

    def _expect(self, sign: str) -> int:
        kind, text, at = self._take()
        if kind != "sign" or text != sign:
            self.refuse(f"{sign!r} is expected", at)
        return at + len(text)

    @property
    def _end(self) -> int:
        _, text, at = self.tokens[self.next - 1]
        return at + len(text)

    def _expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(f"nested deeper than {MAX_DEPTH}", self.tokens[self.next][2])
        node = self._binary(0)
        if self._peek("?"):
            self._take()
            this = self._binary(0)
            self._expect(":")
            that = self._expression()
            node = Choice(node.start, that.end, node, this, that)
        self.depth -= 1
        return node

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        chain = 0
        while self._peek(*_LEVELS[level]):
            chain += 1
            sign, at = self._take()[1:]
            if chain > 4 * MAX_DEPTH:
                self.refuse("too many operators in one chain", at)
            right = self._binary(level + 1)
            left = Call(left.start, right.end, sign, None, (left, right))
        return left

    def _unary(self) -> Node:
        if not self._peek("!", "-"):
            return self._member()
        _, sign, at = self._take()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(f"nested deeper than {MAX_DEPTH}", at)
        node = self._unary()
        self.depth -= 1
        return Call(at, node.end, f"{sign}_", None, (node,))

    def _member(self) -> Node:
        node = self._primary()
        chain = 0
        while self._peek(".", "["):
            chain += 1
            sign, at = self._take()[1:]
            if chain > MAX_DEPTH:
                self.refuse("too many selections in one chain", at)
            if sign == "[":
                key = self._expression()
                node = Index(node.start, self._expect("]"), node, key)
                continue
            kind, name, at = self._take()
            if kind != "name":
                self.refuse("a name is expected", at)
            node = (
                self._method(node, name, at) if self._peek("(") else Select(node.start, self._end, node, name)
            )
        return node

    def _method(self, of: Node, name: str, at: int) -> Node:
        if name in LOOPS:
            return self._loop(of, name, at)
        args = self._arguments(")")
        if name not in METHODS:
            self._unknown(name, (*METHODS, *LOOPS), at)
        if len(args) != (name != "size"):
            self.refuse(f"{name} takes {int(name != 'size')} argument", at)
        if name == "matches":
            self._check_pattern(args[0])
        return Call(of.start, self._end, name, of, args)

    def _loop(self, over: Node, kind: str, at: int) -> Node:
        args = self._arguments(")")
        if len(args) not in ((2, 3) if kind == "map" else (2,)) or not isinstance(args[0], Name):
            self.refuse(f"write {kind}(name, condition)", at)
        if args[0].name.startswith("__"):
            self.refuse("names that begin with __ are the engine's own", args[0].start)
        return Loop(over.start, self._end, kind, over, args[0].name, args[1:])

    def _arguments(self, close: str) -> tuple[Node, ...]:
        self._take()
        found: list[Node] = []
        while not self._peek(close):
            found.append(self._expression())
            if not self._peek(close):
                self._expect(",")
        self._take()
        return tuple(found)

    def _primary(self) -> Node:
        kind, text, at = self._take()
        if kind == "number":
            value = int(text, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", text) else float(text)
            return Literal(at, self._end, value)
        if kind == "string":
            return Literal(at, self._end, _unquoted(text))
        if kind == "name":
            return self._named(text, at)
        if text == "(":
            node = self._expression()
            return Call(at, self._expect(")"), "()", None, (node,))
        if text in ("[", "{"):
            return self._items(at, mapping=text == "{")
        return self.refuse(
            "the condition ends too early" if kind == "end" else f"{text!r} is not expected", at
        )

    def _items(self, at: int, *, mapping: bool) -> Node:
        close, found = "}" if mapping else "]", []
        while not self._peek(close):
            found.append(self._expression())
            if mapping:
                self._expect(":")
                found.append(self._expression())
            if not self._peek(close):
                self._expect(",")
        self._take()
        return Items(at, self._end, tuple(found), mapping)

    def _named(self, name: str, at: int) -> Node:
        if name in _WORDS:
            return Literal(at, self._end, _WORDS[name])
        if name in _RESERVED or name == "in":
            self.refuse(f"{name!r} is a word of the language", at)
        if not self._peek("("):
            return Name(at, self._end, name)
        args = self._arguments(")")
        if name == "has":
            if len(args) != 1 or not isinstance(args[0], Select):
                self.refuse("write has(group.fact)", at)
            return Has(at, self._end, args[0])
        if name not in FUNCTIONS:
            self._unknown(name, ("has", *FUNCTIONS), at)
        if len(args) != 1:
            self.refuse(f"{name} takes 1 argument", at)
        return Call(at, self._end, name, None, args)

    def _unknown(self, name: str, known: tuple[str, ...], at: int) -> NoReturn:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
        self.refuse(f"there is no function {name!r}{guess}", at)

    def _check_pattern(self, node: Node) -> None:
        if not isinstance(node, Literal) or not isinstance(node.value, str):
            self.refuse("a regular expression must be written out, so that it can be judged", node.start)
        if len(node.value) > MAX_PATTERN:
            self.refuse(f"a regular expression has at most {MAX_PATTERN} characters", node.start)
        counts = [int(count) for count in re.findall(r"\{(?:\d*,)?(\d+)", node.value)]
        if any(count > MAX_REPEAT for count in counts) or len(counts) > MAX_LOOPS:
            self.refuse(
                f"a regular expression repeats at most {MAX_LOOPS} times, each at most {MAX_REPEAT}-fold",
                node.start,
            )


def _unquoted(text: str) -> str:
    raw = text[0] in "rR"
    body = text[1:] if raw else text
    width = 3 if body[:3] in ('"""', "'''") else 1
    inside = body[width:-width]
    if raw:
        return inside
    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescaped, inside, flags=re.DOTALL)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, match[0])  # noqa: PLR2004  # u and 4 digits
