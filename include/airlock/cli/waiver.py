"""``airlock waiver``: ask for one, answer, take back, list."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from airlock.adapters.airflow_api import AirflowClient
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.release import UserOption, client_for
from airlock.core.dates import last_day
from airlock.core.errors import RefusedError
from airlock.core.task import REVOKE_DAG, WAIVER_DAG
from airlock.core.waiver import WaiverRequest, WaiverState
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.follow import answer_request, start_and_wait, start_request
from airlock.services.waivers import (
    find_waiver,
    list_waivers,
    reopened,
    request_problem,
    resting_releases,
)

app = typer.Typer(help="Permission to fail one rule, for a while.", no_args_is_help=True)

WaiverArgument = Annotated[str, typer.Argument(help="Waiver id, as `airlock waiver list` shows it.")]

STYLES = {
    WaiverState.ACTIVE: "green",
    WaiverState.EXPIRING: "yellow",
    WaiverState.ASKED: "yellow",
}


@app.command()
def request(
    workload: Annotated[str, typer.Argument(help="Name of a workload in config/workloads/.")],
    *,
    rule: Annotated[str, typer.Option(help="A denying rule, gate-NAME, or gate-NAME:FINDING.")],
    version_range: Annotated[str, typer.Option(help='Model versions it is for, such as ">=3,<5".')],
    until: Annotated[str, typer.Option(help="Last day it holds (UTC), such as 2026-03-31.")],
    reason: Annotated[str, typer.Option(help="Why the rule may fail, for its owner.")],
    user: UserOption = "",
    output: FormatOption = Format.PRETTY,
) -> None:
    """Ask the owner of a rule that it may fail for some versions of a workload, until a day."""
    deployment = open_deployment()
    policy = deployment.config.policy(deployment.config.workload(workload).policy)
    # Said at once; the run checks it again, because nobody has to come through this command.
    if problem := request_problem(
        deployment, policy, rule=rule, versions=version_range, until=until, reason=reason
    ):
        raise RefusedError(problem, where=workload, fix="see `waivers` in `airlock policy show`")
    client = client_for(deployment.settings, user)
    conf = {
        "workload": workload,
        "rule": rule,
        "versions": version_range,
        "until": until,
        "reason": reason,
    }
    waiver_id = start_request(deployment, client, "waiver", WAIVER_DAG, conf)
    found = find_waiver(deployment, waiver_id)
    console.print(f"Waiver [bold]{waiver_id}[/] is asked for; {found.role} has to answer.")
    if output is Format.JSON:
        emit(_as_json(deployment, found))


@app.command()
def approve(
    waiver: WaiverArgument,
    *,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    user: UserOption = "",
) -> None:
    """Grant a waiver as the owner of its rule."""
    _answer(waiver, "Approve", comment, user)


@app.command()
def reject(
    waiver: WaiverArgument,
    *,
    comment: Annotated[str, typer.Option(help="What has to change; required.")],
    user: UserOption = "",
) -> None:
    """Reject a waiver and say what has to change."""
    _answer(waiver, "Reject", comment, user)


def _answer(waiver_id: str, choice: str, comment: str, user: str) -> None:
    deployment = open_deployment()
    answer_waiver(
        deployment, client_for(deployment.settings, user), waiver_id, choice=choice, comment=comment
    )
    console.print(f"{choice} recorded for {safe(waiver_id)}.")


def answer_waiver(
    deployment: Deployment, client: AirflowClient, waiver_id: str, *, choice: str, comment: str
) -> None:
    """Answer as the client's user.

    Raises:
        RefusedError: the waiver does not wait, or the answer was refused.
    """
    found = find_waiver(deployment, waiver_id)
    state = found.state(deployment.clock.now_us())
    if state is not WaiverState.ASKED:
        raise RefusedError(f"waiver {waiver_id} does not wait for an answer: it is {state}", where=waiver_id)
    data = found.requested.data
    answer_request(
        deployment,
        client,
        waiver_id,
        0,
        run=(data["dag_id"], data["run_id"]),
        choice=choice,
        comment=comment,
        recorded=lambda: find_waiver(deployment, waiver_id).answer is not None,
    )


@app.command()
def revoke(
    waiver: WaiverArgument,
    *,
    reason: Annotated[str, typer.Option(help="Why it is taken back.")],
    user: UserOption = "",
) -> None:
    """Take a waiver back; what is in production by it is reopened."""
    deployment = open_deployment()
    find_waiver(deployment, waiver)
    client = client_for(deployment.settings, user)
    start_and_wait(
        deployment,
        client,
        REVOKE_DAG,
        {"waiver": waiver, "reason": reason},
        subject=waiver,
        recorded=lambda: find_waiver(deployment, waiver).revoked is not None,
    )
    console.print(f"{safe(waiver)} is revoked.")


@app.command("list")
def list_command(
    *,
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also rejected and unanswered ones.")] = False,
    output: FormatOption = Format.PRETTY,
) -> None:
    """List waivers, and what is in production without the one it rests on."""
    deployment = open_deployment()
    now = deployment.clock.now_us()
    hidden = () if everything else (WaiverState.REJECTED, WaiverState.UNANSWERED)
    found = [one for one in list_waivers(deployment, workload) if one.state(now) not in hidden]
    open_ones = [one for one in reopened(deployment) if workload in (None, one.workload)]
    if output is Format.JSON:
        emit(
            {
                "waivers": [_as_json(deployment, one) for one in found],
                "reopened": [{**vars(one), "state": str(one.state)} for one in open_ones],
            }
        )
        return
    if not found:
        console.print("No waivers. Ask for one with [bold]airlock waiver request WORKLOAD …[/].")
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("waiver", "workload", "rule", "versions", "until", "state", "by"):
        table.add_column(column, overflow="fold", no_wrap=column in ("waiver", "until"))
    for one in found:
        state = one.state(now)
        table.add_row(
            one.waiver_id,
            safe(one.workload),
            safe(one.rule),
            safe(one.versions),
            last_day(one.until_us),
            f"[{STYLES.get(state, 'red')}]{state}[/]",
            safe(one.requested.actor if one.answer is None else one.answer.who),
        )
    if found:
        console.print(table)
    for opened in open_ones:
        console.print(
            f"[bold red]reopened[/] {safe(opened.workload)} version {safe(opened.version)} is in production "
            f"and rests on {opened.waiver_id}, which is {opened.state}: renew it, or release another version"
        )


@app.command()
def show(waiver: WaiverArgument, *, output: FormatOption = Format.PRETTY) -> None:
    """Show one waiver: what it is for, who asked and answered, and what rests on it."""
    deployment = open_deployment()
    found = find_waiver(deployment, waiver)
    data = _as_json(deployment, found)
    if output is Format.JSON:
        emit(data)
        return
    console.print(f"[bold]{data['waiver']}[/]  {data['state']}")
    console.print(f"{safe(data['rule'])} may fail for {safe(data['workload'])} {safe(data['versions'])}")
    console.print(f"until {data['until']} (UTC, that day included)")
    console.print(f"asked by {safe(data['requester'])} on {data['requested']}: {safe(data['reason'])}")
    if found.answer is not None:
        verb = "rejected" if found.granted is None else "granted"
        said = safe(str(found.answer.data["comment"])) or "no comment"
        console.print(f"{verb} by {safe(found.answer.who)} ({found.role}): {said}")
    else:
        console.print(f"{found.role} has to answer by {_when(found.answer_until_us)}")
    if found.revoked is not None:
        why = safe(str(found.revoked.data["reason"]))
        console.print(f"revoked by {safe(found.revoked.actor)} on {_when(found.revoked.occurred_us)}: {why}")
    for release in data["in_production"]:
        console.print(f"in production by it: {safe(release)}")


def _as_json(deployment: Deployment, one: WaiverRequest) -> dict[str, Any]:
    return {
        "waiver": one.waiver_id,
        "workload": one.workload,
        "rule": one.rule,
        "versions": one.versions,
        "until": last_day(one.until_us),
        "state": str(one.state(deployment.clock.now_us())),
        "requester": one.requested.actor,
        "requested": _when(one.requested.occurred_us),
        "reason": one.requested.data["reason"],
        "role": one.role,
        "answered_by": None if one.answer is None else one.answer.who,
        "revoked_by": None if one.revoked is None else one.revoked.actor,
        "in_production": [
            event.release_id
            for event, waiver in resting_releases(deployment)
            if waiver.waiver_id == one.waiver_id
        ],
    }


def _when(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M")
