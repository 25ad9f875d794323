"""``airlock retrain``: ask that a workload is trained again, or list what became of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.release import UserOption, client_for
from airlock.core.audit import Kind
from airlock.core.errors import ConfigurationError
from airlock.core.retraining import Retraining
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.retrain import ask_as, list_retrainings


def retrain(
    workload: Annotated[str, typer.Argument(help="Name of a workload in config/workloads/.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; those who are asked about the release read it.")] = "",
    start: Annotated[
        str, typer.Option("--from", help="First day or time of the production log, such as 2026-01-05.")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="Day or time after the last; not included.")] = "",
    file: Annotated[
        str, typer.Option(help="Parquet file inside the data directory, instead of the log.")
    ] = "",
    show: Annotated[bool, typer.Option("--list", help="Ask for nothing; list earlier retrainings.")] = False,
    user: UserOption = "",
    output: FormatOption = Format.PRETTY,
) -> None:
    """Train a workload again; what is better than the champion is submitted as a release.

    Without dates and file it is trained on the pinned training data.
    """
    deployment = open_deployment()
    spec = deployment.config.workload(workload)
    if show:
        _list(deployment, spec.name, output)
        return
    if not reason:
        raise ConfigurationError("no reason is given", where="--reason", fix="say why, in a sentence")
    client = client_for(deployment.settings, user)
    retrain_id, run_id = ask_as(deployment, client, spec, reason=reason, start=start, end=end, file=file)
    if output is Format.JSON:
        emit({"retraining": retrain_id, "dag_id": f"retrain__{spec.name}", "run_id": run_id})
        return
    console.print(f"Retraining [bold]{retrain_id}[/] is asked for.")
    console.print(f"[dim]See how it goes: airlock retrain {safe(spec.name)} --list[/]")


def _list(deployment: Deployment, workload: str, output: Format) -> None:
    found = list_retrainings(deployment, workload)
    if output is Format.JSON:
        emit([_data(one) for one in found])
        return
    if not found:
        console.print("No retrainings yet. Ask for one with [bold]airlock retrain WORKLOAD --reason …[/].")
        return
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("retraining", "asked by", "data", "state", "how it ended"):
        table.add_column(column, overflow="fold", no_wrap=column in ("retraining", "state"))
    for one in found:
        row = _data(one)
        table.add_row(
            *(safe(str(row[key])) for key in ("retraining", "actor", "source", "state", "sentence"))
        )
    console.print(table)


def _data(one: Retraining) -> dict[str, object]:
    first = one.events[0]
    frozen = one.data(Kind.RETRAIN_FROZEN) or {}
    return {
        "retraining": first.data["retrain"],
        "workload": first.workload,
        "actor": first.actor,
        "incident": first.data.get("incident", ""),
        "source": frozen.get("source", ""),
        "state": str(one.state),
        "sentence": one.sentence,
    }
