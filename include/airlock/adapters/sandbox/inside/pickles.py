"""Reads pickles without executing them: which names they would import, and whether they would call."""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from typing import BinaryIO

MAXIMUM_OPCODES = 2_000_000

_STRINGS = {
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "UNICODE",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
_NAME = re.compile(r"[A-Za-z_][\w.]*( [A-Za-z_][\w.<>]*)?")
_PROTOCOLS = range(2, 6)


@dataclass
class Pickle:
    """What a pickle would do.

    Attributes:
        names: ``module name`` pairs it imports, in order, each once; ``?`` where it is computed.
        calls: whether it calls anything or sets a state.
        complete: whether it could be read up to its end mark.
    """

    names: list[str] = field(default_factory=list)
    calls: bool = False
    complete: bool = False
    _marked: bool = False


def read_pickle(stream: BinaryIO) -> Pickle | None:
    """What a file would do when unpickled, or ``None`` when it is no pickle.

    A pickle acts while it is read, so one that breaks off after a call is as dangerous as a complete
    one. Protocols 0 and 1 are plain text and have no header: text counts as a pickle when it imports
    something that can be a Python name and calls it, or when it reads well to its end.
    """
    start = stream.read(2)
    stream.seek(0)
    result = _read(stream)
    if start[:1] == b"\x80" and start[-1] in _PROTOCOLS:
        return result
    if result.complete and (result.names or start[:1] in b"(]}"):
        return result
    acts = result.calls and any(_NAME.fullmatch(name) for name in result.names)
    return result if acts else None


def _read(stream: BinaryIO) -> Pickle:
    result, stack = Pickle(), _Strings()
    memo: dict[int, str | None] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            _follow(result, stack, memo, opcode.name, argument)
            if opcode.name == "STOP":
                result.complete = True
            if count > MAXIMUM_OPCODES:
                break
    except Exception:  # noqa: BLE001, S110 - genops raises whatever broken bytes make it raise
        pass
    return result


class _Strings(list["str | None"]):
    """The last things pushed: text, or ``None`` for anything else."""

    def push(self, value: str | None) -> None:
        self.append(value)
        del self[:-4]


def _follow(
    result: Pickle, stack: _Strings, memo: dict[int, str | None], name: str, argument: object
) -> None:
    """One opcode: enough of the pickle machine to know the two strings below a STACK_GLOBAL."""
    last = stack[-1] if stack else None
    if name in _STRINGS:
        stack.push(str(argument))
    elif name == "MEMOIZE":
        memo[len(memo)] = last
    elif name in _PUTS:
        memo[int(str(argument))] = last
    elif name in _GETS:
        stack.push(memo.get(int(str(argument))))
    elif name in {"GLOBAL", "INST"}:
        result.calls |= name == "INST" and result._marked  # noqa: SLF001
        _import(result, str(argument))
        stack.push(None)
    elif name == "STACK_GLOBAL":
        module, attribute = [*["?", "?"], *(text or "?" for text in stack)][-2:]
        _import(result, f"{module} {attribute}")
        stack.push(None)
    elif name in {"EXT1", "EXT2", "EXT4"}:
        _import(result, f"copyreg extension_{argument}")
    else:
        result._marked |= name == "MARK"  # noqa: SLF001
        result.calls |= name in _CALLS and bool(result.names)
        stack.push(None)


def _import(result: Pickle, name: str) -> None:
    if name not in result.names:
        result.names.append(name)
