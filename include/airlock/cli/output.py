"""What people and programs read: people in colour on stderr, programs JSON on stdout."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from airlock.core.decision import Decision
from airlock.core.errors import AirlockError
from airlock.core.release import Release, State
from airlock.reporting.terminal import clean

# ":smile:" in a comment is what somebody wrote, not what they meant.
console = Console(stderr=True, highlight=False, emoji=False)

_UNSAFE = re.compile(r"[^\x20-\x7e\n]")


class Format(StrEnum):
    """Who reads the output."""

    PRETTY = "pretty"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="pretty for people, json for programs.")]

EXIT_CODES = {
    State.PROMOTED: 0,
    State.ROLLED_BACK: 3,
    State.FAILED: 1,
    State.DENIED: 3,
    State.QUARANTINED: 3,
    State.REJECTED: 3,
    State.EXPIRED: 3,
    State.REFUSED: 3,
    State.WAITING: 4,
}
"""Exit code of a command that waited for a release; a state that is not listed is an error."""


def emit(data: Any) -> None:
    """Write JSON for programs; what could steer a terminal is escaped, as JSON allows."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    sys.stdout.write(_UNSAFE.sub(_escaped, text) + "\n")


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def safe(text: str, *, lines: bool = False) -> str:
    """Text of other people for ``console.print``: neither markup nor control characters act."""
    return escape(clean(text, lines=lines))


def fail(error: AirlockError, *, as_json: bool) -> NoReturn:
    """Say what is wrong, where, and how to fix it; leave with the error's exit code."""
    if as_json:
        emit({"error": {"what": error.what, "where": error.where, "fix": error.fix}})
    console.print(f"[bold red]Error:[/] {safe(error.what, lines=True)}", soft_wrap=True)
    if error.where:
        console.print(f"  [dim]where[/]  {safe(error.where)}", soft_wrap=True)
    if error.fix:
        console.print(f"  [dim]fix  [/]  {safe(error.fix, lines=True)}", soft_wrap=True)
    raise SystemExit(error.exit_code)


def release_json(release: Release, state: State, decision: Decision | None) -> dict[str, Any]:
    """A release for programs."""
    return {
        "release": release.release_id,
        "workload": release.workload,
        "version": release.version,
        "submitter": release.submitter,
        "context": release.context,
        "state": str(state),
        "dag_id": release.dag_id,
        "run_id": release.run_id,
        "submitted_us": release.submitted_us,
        "gates": [
            {
                "gate": line.gate,
                "verdict": str(line.verdict),
                "summary": line.summary,
                "evidence": line.digest,
            }
            for line in release.gates
        ],
        "answers": [answer.to_data() for answer in release.answers],
        "decision": None if decision is None else decision.to_data(),
    }
