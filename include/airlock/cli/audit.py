"""``airlock audit``: the audit store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.audit import Kind
from airlock.services.deployment import open_deployment

app = typer.Typer(help="The append-only record of everything that happened.", no_args_is_help=True)


@app.command()
def migrate() -> None:
    """Create or upgrade the schema of the audit store. Safe to repeat."""
    open_deployment().audit.migrate()
    console.print("The audit store is up to date.")


@app.command()
def tail(
    *,
    release: Annotated[str | None, typer.Option(help="Only this release.")] = None,
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    kind: Annotated[list[Kind] | None, typer.Option(help="Only events of this kind; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Show the latest events, oldest first."""
    found = open_deployment().audit.events(
        release_id=release, workload=workload, kinds=kind or [], limit=limit, newest_first=True
    )
    if output is Format.JSON:
        emit(
            [
                {"ingest_id": entry.ingest_id, "received_us": entry.received_us, **entry.event.to_data()}
                for entry in reversed(found)
            ]
        )
        return
    if not found:
        console.print("No events.")
    for entry in reversed(found):
        event = entry.event
        when = datetime.fromtimestamp(event.occurred_us / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
        facts = " ".join(
            f"{key}={value}" for key, value in event.data.items() if value not in ("", None, [], {})
        )
        who = f"{safe(event.actor)} {safe(event.release_id)}"
        head = f"[dim]{entry.ingest_id:>6} {when}[/] [bold]{event.kind}[/] {who}"
        console.print(f"{head} [dim]{safe(facts[:300])}[/]", soft_wrap=True)
