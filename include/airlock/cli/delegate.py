"""``airlock delegate``: let somebody answer in your place, take that back, list."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.release import UserOption, client_for
from airlock.core.dates import last_day
from airlock.core.delegation import Delegation
from airlock.core.errors import RefusedError
from airlock.core.task import DELEGATE_DAG, END_DELEGATION_DAG
from airlock.services.delegations import delegate_problem, find_delegation
from airlock.services.deployment import open_deployment
from airlock.services.follow import start_and_wait, start_request
from airlock.services.panel import list_delegations

app = typer.Typer(help="Let somebody answer in your place, for some days.", no_args_is_help=True)


@app.command()
def give(
    to: Annotated[str, typer.Argument(help="Airflow user who may answer in your place.")],
    *,
    role: Annotated[list[str], typer.Option(help="A role of yours; may be given several times.")],
    until: Annotated[str, typer.Option(help="Last day (UTC), such as 2026-03-31.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    start: Annotated[str, typer.Option("--from", help="First day (UTC); today if not given.")] = "",
    user: UserOption = "",
) -> None:
    """Let somebody answer in your roles, for some days; on record."""
    deployment = open_deployment()
    first = start or datetime.fromtimestamp(deployment.clock.now_us() / 1e6, tz=UTC).strftime("%Y-%m-%d")
    # Said at once; the run checks it again, because nobody has to come through this command.
    if problem := delegate_problem(
        deployment, giver=user, to=to, roles=role, start=first, until=until, reason=reason
    ):
        raise RefusedError(problem, where=to, fix="see docs/approver.md")
    conf = {"to": to, "roles": ",".join(role), "start": first, "until": until, "reason": reason}
    client = client_for(deployment.settings, user)
    found = find_delegation(deployment, start_request(deployment, client, "delegation", DELEGATE_DAG, conf))
    console.print(f"[bold]{found.delegation_id}[/]: {safe(to)} answers for {safe(user)} until {safe(until)}.")


@app.command()
def end(
    delegation: Annotated[str, typer.Argument(help="Its id, as `airlock delegate list` shows it.")],
    *,
    reason: Annotated[str, typer.Option(help="Why it is taken back.")],
    user: UserOption = "",
) -> None:
    """Take a delegation back; what was answered under it counts no more."""
    deployment = open_deployment()
    find_delegation(deployment, delegation)
    client = client_for(deployment.settings, user)
    start_and_wait(
        deployment,
        client,
        END_DELEGATION_DAG,
        {"delegation": delegation, "reason": reason},
        subject=delegation,
        recorded=lambda: find_delegation(deployment, delegation).ended_us is not None,
    )
    console.print(f"{safe(delegation)} is taken back.")


@app.command("list")
def list_command(*, output: FormatOption = Format.PRETTY) -> None:
    """List who answers for whom, also what is over."""
    deployment = open_deployment()
    now, found = deployment.clock.now_us(), list_delegations(deployment)
    if output is Format.JSON:
        emit([_as_json(one, now) for one in found])
        return
    if not found:
        console.print("Nobody has delegated anything.")
        return
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("delegation", "from", "to", "roles", "days", "state"):
        table.add_column(column, overflow="fold", no_wrap=column == "delegation")
    for one in found:
        data = _as_json(one, now)
        table.add_row(
            one.delegation_id,
            safe(one.giver),
            safe(one.to),
            safe(", ".join(one.roles)),
            f"{data['start']} to {data['until']}",
            one.state(now),
        )
    console.print(table)


def _as_json(one: Delegation, now_us: int) -> dict[str, Any]:
    return {
        "delegation": one.delegation_id,
        "giver": one.giver,
        "to": one.to,
        "roles": one.roles,
        "start": last_day(one.from_us + 1_000_000),
        "until": last_day(one.until_us),
        "reason": one.reason,
        "state": one.state(now_us),
    }
