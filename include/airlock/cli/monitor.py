"""``airlock monitor``: judge a window of production, see where things stand, let Airlock act again."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.errors import AirlockError, InvalidInputError
from airlock.core.production import Window, microseconds, moment
from airlock.services import actions
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.monitor import due_windows, evaluate_window, evaluated, read_window

app = typer.Typer(help="Production: what is watched, and what is done about it.", no_args_is_help=True)


@app.command()
def run(
    workload: Annotated[str, typer.Argument(help="Workload.")],
    *,
    window: Annotated[
        tuple[str, str] | None,
        typer.Option(help="First day and the day after the last, such as 2026-03-02 2026-03-09."),
    ] = None,
    act: Annotated[bool, typer.Option("--act", help="Also do what the policy asks for.")] = False,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Judge a window now: the newest one and all that were missed, or the one that is named."""
    from airlock.reporting.production import signal_table

    deployment = open_deployment()
    windows = _windows(deployment, workload, window)
    events = [evaluate_window(deployment, workload, one) for one in windows]
    proposal = actions.propose(deployment, events[-1])
    ended = actions.act(deployment, proposal) if act else None
    if output is Format.JSON:
        emit(
            {
                "windows": [event.data for event in events],
                "signals": [one.to_data() for one in read_window(deployment, events[-1]).signals],
                "proposal": proposal.data,
                "ended": None if ended is None else {"kind": str(ended.kind), **ended.data},
            }
        )
        return
    for event in events:
        console.print(signal_table(read_window(deployment, event)))
    console.print(f"[bold]{safe(actions.sentence_of(proposal))}[/]", soft_wrap=True)
    console.print(
        f"[dim]{safe(proposal.data['would'])}; {safe(proposal.data['why_held'])}[/]", soft_wrap=True
    )
    if ended is not None and "sentence" in ended.data:
        console.print(f"{ended.kind}: {safe(ended.data['sentence'])}", soft_wrap=True)


def _windows(deployment: Deployment, workload: str, named: tuple[str, str] | None) -> list[Window]:
    now_us = deployment.clock.now_us()
    if named is None:
        # Judging any window says in words why a workload is not watched.
        return due_windows(deployment, workload, now_us) or [Window(start_us=now_us - 1, end_us=now_us)]
    try:
        return [Window(start_us=microseconds(named[0]), end_us=microseconds(named[1]))]
    except ValueError as error:
        raise InvalidInputError(
            f"{named[0]} to {named[1]} is no window",
            where="--window",
            fix="name two days as 2026-03-02 2026-03-09, the first before the second",
        ) from error


@app.command()
def status(
    workload: Annotated[
        str | None, typer.Argument(help="Workload; all that are watched if left out.")
    ] = None,
    *,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Show the last window of each workload, what came of it, and whether Airlock has paused itself."""
    deployment = open_deployment()
    names = [workload] if workload else [path.stem for path in deployment.config.workload_files()]
    rows = [row for name in names if (row := _status(deployment, name)) is not None]
    if output is Format.JSON:
        emit(rows)
        return
    for row in rows:
        console.print(f"[bold]{safe(row['workload'])}[/]  {safe(row['sentence'])}", soft_wrap=True)
        if row["action"]:
            console.print(f"    {safe(row['action'])}", soft_wrap=True)
        if row["paused"]:
            console.print(f"    [bold yellow]Airlock paused itself:[/] {safe(row['paused'])}", soft_wrap=True)
            console.print(f"    airlock monitor resume {safe(row['workload'])} --reason …", soft_wrap=True)
    if not rows:
        console.print("No workload has a section `monitoring`; docs/monitoring.md says how to write one.")


def _status(deployment: Deployment, name: str) -> dict[str, Any] | None:
    try:
        spec = deployment.config.workload(name).monitoring
    except AirlockError as error:
        return {"workload": name, "sentence": error.what, "action": "", "paused": "", "window": ""}
    if spec is None:
        return None
    windows = evaluated(deployment, name)
    stopped = actions.paused(deployment, name)
    row = {"workload": name, "sentence": "no window was judged yet", "action": "", "window": ""}
    row["paused"] = "" if stopped is None else str(stopped.data["sentence"])
    if not windows:
        return row
    last = windows[-1]
    row |= {"sentence": f"{last.data['window']}: {last.data['sentence']}", "window": str(last.data["window"])}
    proposal = actions.proposal_of(deployment, last)
    if proposal is not None:
        ended = actions.ended(deployment, proposal)
        row["action"] = actions.sentence_of(proposal)
        if ended is not None:
            row["action"] += f" ({ended.kind}: {ended.data['sentence']})"
    late = deployment.clock.now_us() - int(last.data["end_us"]) - 2 * spec.window_us
    if late > 0:
        row["sentence"] += f"; nothing was judged since {moment(int(last.data['end_us'])):%Y-%m-%d}"
    return row


@app.command()
def history(
    workload: Annotated[str, typer.Argument(help="Workload.")],
    *,
    html: Annotated[Path | None, typer.Option(help="Write it as a page into this file.")] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Show every window that was judged, what was done about it, and which version was in production."""
    from airlock.services.production_history import history as read
    from airlock.services.production_history import page

    deployment = open_deployment()
    found = read(deployment, workload)
    if html is not None:
        html.write_text(page(deployment, found), encoding="utf-8")
    if output is Format.JSON:
        emit(found)
        return
    for one in found["windows"]:
        console.print(
            f"[bold]{safe(one['window'])}[/]  version {safe(one['version'])}: {safe(one['sentence'])}",
            soft_wrap=True,
        )
        if one["why"]:
            console.print(f"    {safe(one['why'])}", soft_wrap=True)
        if one["done"]:
            console.print(f"    [dim]{safe(one['done'])}[/]", soft_wrap=True)
    for one in found["champions"]:
        version = safe(one["version"]) or "no version"
        console.print(f"{one['when']}  {one['how']} [bold]{version}[/] by {safe(one['by'])}")
    if not found["windows"]:
        console.print("No window was judged yet; `airlock monitor run` judges the newest one.")


@app.command()
def resume(
    workload: Annotated[str, typer.Argument(help="Workload.")],
    *,
    reason: Annotated[str, typer.Option(help="Why it may act by itself again.")],
    user: Annotated[str, typer.Option(help="Who resumes it; a person of people.yaml.")] = "",
) -> None:
    """Let Airlock act by itself again after it has paused itself."""
    actions.resume(open_deployment(), workload, actor=user or getpass.getuser(), reason=reason)
    console.print(f"Airlock acts on {safe(workload)} again, within its limits.")
