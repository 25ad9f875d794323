"""Writes which tests prove which requirement into the third column of docs/requirements.md.

A test says what it proves with ``@pytest.mark.requirement("T-2")``. The marks are read from the
source, so nothing is imported and the table is ready in a fraction of a second.

    python scripts/trace.py            rewrite the table
    python scripts/trace.py --check    change nothing; exit 1 when the table is out of date

Either way it exits 1 when a mark names an unknown requirement or stands where pytest never looks.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOWN = 3
GAP = "**gap**"
_ROW = re.compile(r"^\| (?P<id>[A-Z]-\d+) \| (?P<text>[^|]*[^| ]) \|(?: (?P<proof>[^|]*) \|)?$")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class TraceError(Exception):
    """A mark or the table is wrong; the text says where and what to do."""


@dataclass(frozen=True)
class Mark:
    """One ``requirement`` mark on one test."""

    requirement: str
    test: str
    where: str


def collect(tests: Path, root: Path) -> list[Mark]:
    """All marks below ``tests``, in the order of files and lines."""
    files = sorted({*tests.rglob("test_*.py"), *tests.rglob("*_test.py")})
    return [mark for file in files for mark in _marks_of(file, file.relative_to(root).as_posix())]


def _marks_of(file: Path, name: str) -> Iterator[Mark]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=name)
    except SyntaxError as error:
        raise TraceError(f"{name}:{error.lineno}: not Python: {error.msg}") from error
    yield from _marks_in(tree.body, name, name, _pytestmark(tree.body, name))


def _marks_in(body: list[ast.stmt], name: str, prefix: str, inherited: list[str]) -> Iterator[Mark]:
    for node in body:
        if isinstance(node, _Function | ast.ClassDef):
            own = [found for item in node.decorator_list for found in _ids(item, name)]
            where = f"{name}:{node.lineno}"
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                ids = [*inherited, *own, *_pytestmark(node.body, name)]
                yield from _marks_in(node.body, name, f"{prefix}::{node.name}", ids)
            elif isinstance(node, _Function) and node.name.startswith("test"):
                for requirement in dict.fromkeys([*inherited, *own]):
                    yield Mark(requirement, f"{prefix}::{node.name}", where)
            elif own:
                raise TraceError(f"{where}: {node.name} carries a requirement mark, but is no test")


def _pytestmark(body: list[ast.stmt], name: str) -> list[str]:
    values = [
        node.value
        for node in body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
    ]
    items = [
        item
        for value in values
        for item in (value.elts if isinstance(value, ast.List | ast.Tuple) else [value])
    ]
    return [found for item in items for found in _ids(item, name)]


def _ids(node: ast.expr, name: str) -> list[str]:
    """The ids in ``pytest.mark.requirement("T-2", …)``; nothing for another decorator."""
    called = node.func if isinstance(node, ast.Call) else node
    if not (isinstance(called, ast.Attribute) and called.attr == "requirement"):
        return []
    ids = [
        argument.value
        for argument in (node.args if isinstance(node, ast.Call) else [])
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    if not isinstance(node, ast.Call) or node.keywords or not ids or len(ids) != len(node.args):
        raise TraceError(f'{name}:{node.lineno}: write the ids out: @pytest.mark.requirement("T-2")')
    return ids


def render(document: str, marks: list[Mark]) -> str:
    """``document`` with the third column of every table written anew."""
    proofs: dict[str, list[str]] = {}
    for mark in marks:
        proofs.setdefault(mark.requirement, []).append(mark.test)
    known: set[str] = set()
    lines = []
    for line in document.splitlines():
        if row := _ROW.match(line):
            requirement = row["id"]
            if requirement in known:
                raise TraceError(f"requirement {requirement} stands in the table twice")
            known.add(requirement)
            lines.append(f"| {requirement} | {row['text']} | {_proof(proofs.get(requirement, []))} |")
        elif re.match(r"^\| *[A-Z]-\d", line):
            raise TraceError(f"this row cannot be read; write | id | text | proof |: {line}")
        else:
            lines.append(line)
    if unknown := [mark for mark in marks if mark.requirement not in known]:
        raise TraceError(
            "\n".join(f"{mark.where}: there is no requirement {mark.requirement!r}" for mark in unknown)
        )
    return "\n".join(lines) + "\n"


def _proof(tests: list[str]) -> str:
    if not tests:
        return GAP
    shown = [f"`{test}`" for test in tests[:SHOWN]]
    more = [f"+{len(tests) - SHOWN} more"] if len(tests) > SHOWN else []
    return "<br>".join([*shown, *more])


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Requirement → tests, in docs/requirements.md.")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when out of date")
    options = parser.parse_args(arguments)
    path = root / "docs" / "requirements.md"
    before = path.read_text(encoding="utf-8")
    try:
        after = render(before, collect(root / "tests", root))
    except TraceError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check and after != before:
        print("docs/requirements.md is out of date; run `make trace`", file=sys.stderr)
        return 1
    if not options.check:
        path.write_text(after, encoding="utf-8")
    gaps = after.count(f"| {GAP} |")
    total = sum(1 for line in after.splitlines() if _ROW.match(line))
    print(f"{total - gaps} of {total} requirements are proved by a test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
