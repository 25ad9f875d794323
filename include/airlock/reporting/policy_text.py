"""A policy bundle as Markdown, for people who must agree to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airlock.core.facts import FACTS
from airlock.core.policy import Policy, Rule

_PHASES = {
    "tier": ("Rules that set the risk tier", "They run first. The heaviest one that fires counts."),
    "track": ("Rules that set the track", "They may ask for the tier. The heaviest one that fires counts."),
    "deny": ("Rules that deny", "One is enough."),
    "warn": ("Rules that warn", "They are shown to everybody and change nothing."),
    "seats": ("Rules that ask for more people", "Their seats are added to those of the track."),
    "action": (
        "Rules that act on production",
        "They run on the signals of each window, not on releases. The heaviest one that fires counts.",
    ),
}


def policy_markdown(policy: Policy, *, only: str | None = None) -> str:
    """The whole bundle, or one rule of it, in Markdown."""
    if only is not None:
        return "\n".join(line for rule in policy.rules if rule.id == only for line in _rule(rule, "#"))
    lines = [
        f"# Policy {policy.version}, rule by rule",
        "",
        f"{policy.description}",
        "",
        *_limits(policy),
        *_roles(policy),
        *_seats(policy),
    ]
    for phase, (title, text) in _PHASES.items():
        rules = [rule for rule in policy.rules if rule.effect.phase == phase]
        if rules:
            lines += [f"## {title}", "", text, ""]
            lines += [line for rule in rules for line in _rule(rule, "###")]
    lines += [*_gates(policy), *_rego(policy)]
    return "\n".join(lines).rstrip() + "\n"


def facts_markdown() -> str:
    """Every fact that rules may ask for."""
    lines = ["## Facts", "", "| fact | type | meaning | from | absent |", "|---|---|---|---|---|"]
    for fact in FACTS.values():
        cells = (f"`{fact.name}`", str(fact.type), fact.meaning, fact.source, fact.absent or "never")
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _limits(policy: Policy) -> Iterator[str]:
    yield from ("## Limits", "", "| limit | value | owner | why |", "|---|---|---|---|")
    for name, limit in policy.limits.items():
        yield f"| `{name}` | {limit.text} | {limit.owner} | {_cell(limit.why)} |"
    yield ""


def _roles(policy: Policy) -> Iterator[str]:
    yield from ("## Roles", "", "| role | title | answers for | owns the gates |", "|---|---|---|---|")
    for name, role in policy.roles.items():
        gates = ", ".join(role.gates) or "none"
        yield f"| {name} | {_cell(role.title)} | {_cell(role.answers_for)} | {gates} |"
    yield ""


def _seats(policy: Policy) -> Iterator[str]:
    yield from ("## Seats of each track", "", "| track | who must approve |", "|---|---|")
    for track, seats in policy.approval.seats.items():
        text = "; ".join(f"{seat.role}: {seat.reason}" for seat in seats)
        yield f"| {track} | {_cell(text) or 'nobody: it goes to production by itself'} |"
    yield from (
        "",
        f"An unanswered request expires closed after {policy.approval.expires_hours:g} hours.",
        "",
    )


def _rule(rule: Rule, heading: str) -> Iterator[str]:
    yield from (f"{heading} {rule.id}", "", f"**{rule.title}** ({rule.effect.label})", "")
    yield from ("```cel", rule.when, "```", "")
    yield f"- Why it matters: {rule.why}"
    yield f"- How to fix it: {rule.fix}"
    yield f"- When it fires, people read: {rule.because}"
    yield f"- When it does not: {rule.otherwise}"
    for seat in rule.effect.seats or []:
        yield f"- Asks for: {seat.role}, {seat.reason}"
    yield f"- Owner: {rule.owner}. Severity: {rule.severity}. Expires: {rule.expires}."
    for name, cases in (("fires", rule.tests.fires), ("stays silent", rule.tests.silent)):
        for case in cases:
            yield f"- Example on which it {name}: {_case(case)}"
    yield ""


def _case(case: Mapping[str, Any]) -> str:
    if not case:
        return "the base case"
    return ", ".join(
        f"`{name}` {'absent' if value is None else f'= {value}'}" for name, value in case.items()
    )


def _gates(policy: Policy) -> Iterator[str]:
    yield from ("## Gates", "", "Every gate must answer, and none with FAILED or ERROR.", "")
    yield from ("| gate | setting | value |", "|---|---|---|")
    for gate, values in policy.gates.items():
        for name, value in values.items():
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"| {gate} | `{name}` | {_cell(text) or 'none'} |"
    yield ""


def _rego(policy: Policy) -> Iterator[str]:
    for name, text in policy.rego.items():
        yield from (f"## {name}", "", "```rego", text.rstrip(), "```", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
