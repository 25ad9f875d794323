"""``airlock condition``: what approvals rest on, and that it is met."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.release import ReleaseArgument, UserOption, client_for
from airlock.core.task import CONDITION_DAG
from airlock.services.conditions import MET, OPEN, conditions_of, list_conditions
from airlock.services.deployment import open_deployment
from airlock.services.follow import start_and_wait
from airlock.services.releases import find_release

app = typer.Typer(help="Conditions that approvals rest on.", no_args_is_help=True)

_STYLES = {OPEN: "yellow", MET: "green"}


@app.command("list")
def list_command(
    *,
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """List conditions, and which of them are met."""
    found = list_conditions(open_deployment(), workload)
    if output is Format.JSON:
        emit([{**asdict(one), "until": one.until, "seat": one.seat + 1} for one in found])
        return
    if not found:
        console.print("No approval rests on a condition.")
        return
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("release", "seat", "role", "approved by", "condition", "until", "state"):
        table.add_column(column, overflow="fold", no_wrap=column in ("release", "seat", "until", "state"))
    for one in found:
        table.add_row(
            safe(one.release_id),
            str(one.seat + 1),
            safe(one.role),
            safe(one.user),
            safe(one.text),
            one.until,
            f"[{_STYLES.get(one.state, 'red')}]{one.state}[/]",
        )
    console.print(table)


@app.command()
def met(
    release: ReleaseArgument,
    *,
    seat: Annotated[int, typer.Option(help="Number of the seat whose condition it is.", min=1)],
    comment: Annotated[str, typer.Option(help="How it was met.")],
    user: UserOption = "",
) -> None:
    """Confirm that a condition is met, as a holder of the seat's role."""
    deployment = open_deployment()
    client = client_for(deployment.settings, user)
    subject = f"{find_release(deployment, release).release_id}/condition/{seat - 1}"
    conf = {"release": release, "seat": str(seat), "comment": comment}

    def recorded() -> bool:
        found = conditions_of(find_release(deployment, release), deployment.clock.now_us())
        return any(one.seat == seat - 1 and one.state == MET for one in found)

    start_and_wait(deployment, client, CONDITION_DAG, conf, subject=subject, recorded=recorded)
    console.print(f"The condition of seat {seat} of {safe(release)} is met.")
