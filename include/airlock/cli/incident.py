"""``airlock incident``: list, show, acknowledge, resolve."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from airlock.adapters.yaml_files import load_model
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.release import UserOption, client_for
from airlock.core.audit import Event
from airlock.core.incident import Incident, IncidentState, PostMortem
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.incidents import (
    acknowledge,
    figures,
    find_incident,
    list_incidents,
    resolve,
    timeline,
)

app = typer.Typer(help="What went wrong, who is on it, and what was learned.", no_args_is_help=True)

IncidentArgument = Annotated[str, typer.Argument(help="Incident id, as `airlock incident list` shows it.")]

_STYLES = {
    IncidentState.OPEN: "red",
    IncidentState.ACKNOWLEDGED: "yellow",
    IncidentState.RESOLVED: "green",
}


@app.command("list")
def list_command(
    *,
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    output: FormatOption = Format.PRETTY,
) -> None:
    """List open incidents, the newest first."""
    deployment = open_deployment()
    found = list_incidents(deployment, workload=workload, only_open=not everything)[::-1]
    if output is Format.JSON:
        emit([one.to_data() for one in found])
        return
    if not found:
        console.print("No incident is open.")
        return
    now = deployment.clock.now_us()
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("incident", "severity", "state", "resolve by", "role", "what"):
        table.add_column(column, overflow="fold", no_wrap=column == "incident")
    for one in found:
        late = " [bold red]late[/]" if one.overdue(now) else ""
        table.add_row(
            safe(one.incident_id),
            str(one.severity),
            f"[{_STYLES[one.state]}]{one.state}[/]{late}",
            _when(one.deadline_us),
            safe(one.role),
            safe(one.summary),
        )
    console.print(table)


@app.command("show")
def show(incident: IncidentArgument, *, output: FormatOption = Format.PRETTY) -> None:
    """Show one incident with its timeline, from the audit log alone."""
    deployment = open_deployment()
    found = find_incident(deployment, incident)
    events = timeline(deployment, incident)
    if output is Format.JSON:
        emit({**found.to_data(), "timeline": [_event_json(event) for event in events]})
        return
    _print(deployment, found)
    console.print("\n[bold]Timeline[/]")
    table = Table(box=None, show_header=False, padding=(0, 1))
    for event in events:
        version = f"version {safe(event.version)}" if event.version else ""
        table.add_row(_when(event.occurred_us, seconds=True), str(event.kind), version, safe(event.actor))
    console.print(table)


@app.command("ack")
def ack(
    incident: IncidentArgument,
    *,
    comment: Annotated[str, typer.Option(help="What you do about it.")] = "",
    user: UserOption = "",
) -> None:
    """Say that you are on it."""
    deployment = open_deployment()
    client_for(deployment.settings, user).log_in()
    acknowledge(deployment, incident, actor=user, comment=comment)
    console.print(f"{safe(incident)} is acknowledged by {safe(user)}.")


@app.command("resolve")
def resolve_command(
    incident: IncidentArgument,
    *,
    post_mortem: Annotated[
        Path, typer.Option(help="YAML file with happened, why, changes and, if one follows, a proposal.")
    ],
    user: UserOption = "",
) -> None:
    """Close an incident with its post-mortem."""
    deployment = open_deployment()
    words = load_model(post_mortem, PostMortem)
    client_for(deployment.settings, user).log_in()
    resolve(deployment, incident, actor=user, post_mortem=words)
    console.print(f"{safe(incident)} is resolved.")
    if words.proposal is not None:
        console.print(
            f"It proposes that limit {safe(words.proposal.limit)} becomes {words.proposal.value:g}. Put it "
            "into a new version of the policy and publish that; airlock policy replay shows what it changes.",
            soft_wrap=True,
        )


@app.command("figures")
def figures_command(
    *,
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """How many incidents there were, and how long they took."""
    found = figures(open_deployment(), workload=workload)
    if output is Format.JSON:
        emit(found.__dict__)
        return
    console.print(f"{found.total} incidents, {found.open} open, {found.overdue} past their deadline.")
    for name, seconds in (
        ("detect", found.detect_seconds),
        ("acknowledge", found.acknowledge_seconds),
        ("resolve", found.resolve_seconds),
    ):
        if seconds is not None:
            console.print(f"Median time to {name}: {_span(seconds)}")


def _print(deployment: Deployment, found: Incident) -> None:
    console.print(f"[bold]{safe(found.incident_id)}[/]  [{_STYLES[found.state]}]{found.state}[/]")
    console.print(safe(found.summary), soft_wrap=True)
    late = " [bold red]late[/]" if found.overdue(deployment.clock.now_us()) else ""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    facts = {
        "severity": str(found.severity),
        "action": safe(found.action),
        "owner": safe(found.owner),
        "asked to act": safe(found.role),
        "detected": _when(found.detected_us),
        "resolve by": _when(found.deadline_us) + late,
        "escalated to": safe(found.escalate_to) if found.escalated else "",
        "on it": safe(found.acknowledged.actor) if found.acknowledged else "",
        "resolved by": safe(found.resolved.actor) if found.resolved else "",
    }
    if found.resolved is not None:
        facts |= {
            name: safe(str(found.resolved.data.get(name, ""))) for name in ("happened", "why", "changes")
        }
        if (proposal := found.resolved.data.get("proposal")) is not None:
            facts["proposes"] = safe(
                f"limit {proposal['limit']} from {proposal['now']:g} to {proposal['value']:g}: "
                f"{proposal['why']}"
            )
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    console.print(table)


def _event_json(event: Event) -> dict[str, Any]:
    return {
        "at_us": event.occurred_us,
        "kind": str(event.kind),
        "version": event.version,
        "actor": event.actor,
        "release": event.release_id,
    }


def _when(microseconds: int, *, seconds: bool = False) -> str:
    moment = datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def _span(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004  # two minutes: below that people count seconds
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004
