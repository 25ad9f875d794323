"""Releases in the terminal, as rich tables."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from airlock.core.decision import Decision
from airlock.core.evidence import Verdict
from airlock.core.release import Release, State

_VERDICT_STYLES = {
    Verdict.PASSED: ("✔", "green"),
    Verdict.WARNED: ("!", "yellow"),
    Verdict.FAILED: ("✘", "red"),
    Verdict.ERROR: ("✘", "bold red"),
}
STATE_STYLES = {
    State.PROMOTED: "green",
    State.ROLLED_BACK: "magenta",
    State.READY: "green",
    State.CHECKING: "cyan",
    State.WAITING: "yellow",
    State.DENIED: "red",
    State.QUARANTINED: "magenta",
    State.REJECTED: "red",
    State.EXPIRED: "red",
    State.REFUSED: "red",
    State.FAILED: "bold red",
}


def clean(text: str, *, lines: bool = False) -> str:
    """Text of other people, made harmless for a terminal; one line unless ``lines`` may stay.

    Control characters could rewrite the screen, marks could turn the direction of reading, and a line
    break could fake a line of ours: the first two become U+FFFD, the last a space.
    """
    kept = "\n" if lines else ""
    return "".join(
        character
        if character.isprintable() or character in kept
        else " "
        if character.isspace()
        else "\N{REPLACEMENT CHARACTER}"
        for character in text.replace("\r\n", "\n")
    )


def gate_table(release: Release, waiting: list[str]) -> Table:
    """The gates of a release, answered ones first."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(width=2)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for line in release.gates:
        mark, style = _VERDICT_STYLES[line.verdict]
        summary = Text(clean(line.summary), style="" if line.verdict.allows else style)
        table.add_row(Text(mark, style=style), line.gate.replace("_", " "), f"{line.seconds:.1f} s", summary)
    for gate in waiting:
        table.add_row(Text("·", style="dim"), gate.replace("_", " "), "", Text("…", style="dim"))
    return table


def reason_table(decision: Decision) -> Table:
    """Every reason: rules that fired, then those that did not."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(width=2)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for reason in sorted(decision.reasons, key=lambda reason: not reason.fired):
        denies = reason.denies
        style = "red" if denies else "yellow" if reason.fired else "dim"
        text = Text(clean(reason.message), style=style)
        if reason.waived_by:
            text.append(f"\n  waived by {', '.join(reason.waived_by)}", style="default")
        if reason.fired and reason.fix:
            text.append(f"\n→ {clean(reason.fix)}", style="default")
        table.add_row(Text("▸" if reason.fired else "·", style=style), reason.rule, text)
    return table
