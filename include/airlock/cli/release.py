"""``airlock submit``, ``approve``, ``reject``, ``release list`` and ``release show``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import RunState, local_passwords
from airlock.cli.output import (
    EXIT_CODES,
    Format,
    FormatOption,
    console,
    emit,
    release_json,
    safe,
)
from airlock.core.decision import Decision
from airlock.core.errors import AirlockError, ConfigurationError, InvalidInputError, NotFoundError
from airlock.core.release import Release, State
from airlock.reporting.terminal import STATE_STYLES, gate_table, reason_table
from airlock.services.announce import outcome_sentence
from airlock.services.ask import questions_of
from airlock.services.blocked import submit_again, why_blocked
from airlock.services.conditions import conditions_of
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.interview import given_answers
from airlock.services.releases import find_release, list_releases, quorum_of, read_decision
from airlock.services.watch import answer_release, pending_gates, start_release, wait_for

app = typer.Typer(help="Look at releases.", no_args_is_help=True)

UserOption = Annotated[
    str, typer.Option("--user", envvar="AIRLOCK_USER", help="Airflow user; the password is AIRLOCK_PASSWORD.")
]


def client_for(settings: Settings, user: str) -> AirflowClient:
    """Log in as ``user``: with AIRLOCK_PASSWORD, or as a user of the local Airflow of this deployment.

    Raises:
        ConfigurationError: no user is named.
        NotFoundError: the local Airflow has no such user.
    """
    if not user:
        raise ConfigurationError(
            "no user is named", where="--user", fix="give --user NAME or set AIRLOCK_USER"
        )
    running = RunState(settings.home).read()
    url = str(running["url"]) if running else settings.airflow_url
    password = os.environ.get("AIRLOCK_PASSWORD", "")
    if not password:
        known = local_passwords(settings).read()
        if user not in known:
            raise NotFoundError(
                f"the local Airflow has no user {user!r}", fix=f"use one of {', '.join(sorted(known))}"
            )
        password = known[user]
    return AirflowClient(url, user, password)


def submit(
    workload: Annotated[str, typer.Argument(help="Name of a workload in config/workloads/.")],
    *,
    version: Annotated[str, typer.Option(help="Version in the MLflow registry.")],
    batch: Annotated[str, typer.Option(help="Evaluation batch; the workload's default if not given.")] = "",
    context: Annotated[Path | None, typer.Option(help="Text file: why this release.")] = None,
    answers: Annotated[
        Path | None, typer.Option(help="YAML file with answers, as `airlock interview` writes it.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until it is decided; exit 4 if people are asked.")
    ] = False,
    user: UserOption = "",
    output: FormatOption = Format.PRETTY,
) -> None:
    """Ask to put a model version into production."""
    deployment = open_deployment()
    spec = deployment.config.workload(workload)
    deployment.registry.version(spec.model.registered_model, version)
    client = client_for(deployment.settings, user)
    release_id, run_id = start_release(
        deployment,
        client,
        spec.name,
        version=version,
        batch=batch or spec.data.default_batch,
        context=_read(context),
        answers=None if answers is None else given_answers(deployment, spec, answers),
    )
    console.print(f"Release [bold]{release_id}[/] is submitted.")
    if not wait:
        if output is Format.JSON:
            emit({"release": release_id, "dag_id": spec.dag_id, "run_id": run_id})
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        state = wait_for(
            deployment, client, spec.dag_id, run_id, release_id,
            on_change=lambda release: live.update(gate_table(release, pending_gates(deployment, release))),
        )  # fmt: skip
    show(release_id, output=output)
    raise SystemExit(EXIT_CODES.get(state, 1))


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"cannot be read: {error}", where=str(path), fix="give a UTF-8 text file"
        ) from error


ReleaseArgument = Annotated[str, typer.Argument(help="Release id, as `airlock release list` shows it.")]


def approve(
    release: ReleaseArgument,
    *,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    condition: Annotated[
        str, typer.Option(help="What has to be done; the approval is revoked if it is not.")
    ] = "",
    until: Annotated[str, typer.Option(help="Last day for it, or a moment (UTC): 2026-03-31T14:30.")] = "",
    seat: Annotated[
        int, typer.Option(help="Seat number; the first open one of your roles if not given.")
    ] = 0,
    user: UserOption = "",
) -> None:
    """Approve a release in your role, or in that of whom you act for."""
    _answer(release, "Approve", comment, seat, user, condition=condition, until=until)


def reject(
    release: ReleaseArgument,
    *,
    comment: Annotated[str, typer.Option(help="What has to change; required.")],
    seat: Annotated[
        int, typer.Option(help="Seat number; the first open one of your roles if not given.")
    ] = 0,
    user: UserOption = "",
) -> None:
    """Reject a release and say what has to change."""
    _answer(release, "Reject", comment, seat, user)


def _answer(
    release_id: str, choice: str, comment: str, seat: int, user: str, *, condition: str = "", until: str = ""
) -> None:
    deployment = open_deployment()
    client = client_for(deployment.settings, user)
    index = answer_release(
        deployment,
        client,
        release_id,
        user=user,
        choice=choice,
        comment=comment,
        seat=seat,
        condition=condition,
        until=until,
    )
    console.print(f"{choice} recorded for seat {index + 1} of {safe(release_id)}.")


@app.command("list")
def list_command(
    *,
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    output: FormatOption = Format.PRETTY,
) -> None:
    """List releases, newest first."""
    deployment = open_deployment()
    releases = list_releases(deployment, workload=workload, limit=limit)
    rows = [_row(deployment, release) for release in releases]
    if output is Format.JSON:
        emit(
            [{**release_json(release, state, decision), "why": why} for release, state, decision, why in rows]
        )
        return
    if not rows:
        console.print("No releases yet. Submit one with [bold]airlock submit WORKLOAD --version N[/].")
        return
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("release", "submitted", "by", "state", "why"):
        table.add_column(column, overflow="fold", no_wrap=column in ("release", "submitted", "state"))
    for release, state, _, why in rows:
        table.add_row(
            safe(release.release_id),
            _when(release.submitted_us),
            safe(release.submitter),
            f"[{STATE_STYLES[state]}]{state}[/]",
            safe(why),
        )
    console.print(table)


def _row(deployment: Deployment, release: Release) -> tuple[Release, State, Decision | None, str]:
    """One release; that its evidence cannot be read must not hide the others."""
    try:
        state, why = outcome_sentence(deployment, release)
        return release, state, read_decision(deployment, release), why
    except AirlockError as error:
        return release, State.FAILED, None, f"cannot be read: {error}"


@app.command("show")
def show(release: ReleaseArgument, *, output: FormatOption = Format.PRETTY) -> None:
    """Show one release: gates, decision, reasons, answers."""
    deployment = open_deployment()
    found = find_release(deployment, release)
    decision = read_decision(deployment, found)
    state, why = outcome_sentence(deployment, found)
    if output is Format.JSON:
        emit({**release_json(found, state, decision), "why": why})
        return
    console.print(f"[bold]{safe(found.release_id)}[/]  [{STATE_STYLES[state]}]{state}[/]")
    console.print(f"submitted by {safe(found.submitter)}, {_when(found.submitted_us)} UTC")
    console.print(safe(why), soft_wrap=True)
    console.print()
    console.print(gate_table(found, pending_gates(deployment, found)))
    if decision is None:
        return
    track = decision.track or "not computed"
    console.print(
        f"\n[bold]{decision.outcome}[/], track {track}, risk {decision.tier}, "
        f"policy {decision.policy_version}"
    )
    console.print(reason_table(decision))
    for answer in found.answers:
        comment = safe(answer.comment) or "no comment"
        console.print(f"{answer.choice} by [bold]{safe(answer.who)}[/] as {answer.role}: {comment}")
    for asked in questions_of(found):
        console.print(f"[bold]{safe(asked.user)}[/] asks: {safe(asked.text)}", soft_wrap=True)
        for who, said, _ in asked.answers:
            console.print(f"  {safe(who)} answers: {safe(said)}", soft_wrap=True)
    for condition in conditions_of(found, deployment.clock.now_us()):
        console.print(
            f"  on condition, until {condition.until}, {condition.state}: {safe(condition.text)}",
            soft_wrap=True,
        )
    quorum = quorum_of(deployment, found, decision)
    if state is State.WAITING:
        for index in quorum.open_seats:
            role = decision.seats[index].role
            console.print(
                f"[yellow]waiting[/] for {role}: airlock approve {safe(found.release_id)} --user NAME"
            )


@app.command("why")
def why(release: ReleaseArgument, *, output: FormatOption = Format.PRETTY) -> None:
    """Why was it blocked? What stopped a release, how to fix each part, and how to try again."""
    found = why_blocked(open_deployment(), release)
    if output is Format.JSON:
        emit(found.to_data())
        return
    console.print(f"[bold]{safe(found.release)}[/]  [{STATE_STYLES[State(found.state)]}]{found.state}[/]")
    console.print(safe(found.sentence), soft_wrap=True)
    for one in found.obstacles:
        owner = f" [dim]{safe(one.rule)}, {safe(one.owner) or 'no owner'}[/]" if one.rule else ""
        console.print(f"\n[bold red]{safe(one.title)}[/]{owner}", soft_wrap=True)
        console.print(f"  {safe(one.message)}", soft_wrap=True)
        for each in one.values:
            limit = f", limit {safe(each.limit)}" if each.limit else ""
            console.print(f"  [dim]{safe(each.name)}[/] {safe(each.value)}{limit}", soft_wrap=True)
        for fix in [finding.fix for finding in one.findings if finding.fix] or [one.fix]:
            if fix:
                console.print(f"  [green]fix[/] {safe(fix)}", soft_wrap=True)
        if one.waiver:
            console.print(f"  [dim]or[/]  {safe(one.waiver)}", soft_wrap=True)
    for said in found.feedback:
        console.print(f"\n[bold]{safe(said.user)}[/] ({said.role}) asks for: {safe(said.text, lines=True)}")
    for track in found.lighter:
        console.print(f"\nTrack [bold]{track.track}[/] would need:")
        for need in track.needs:
            console.print(f"  {safe(need.name)}: [green]{safe(need.value)}[/]", soft_wrap=True)
    console.print(f"\nTry again: [bold]airlock release again {safe(found.release)} --version N[/]")


@app.command("again")
def again(
    release: ReleaseArgument,
    *,
    version: Annotated[str, typer.Option(help="Version in the MLflow registry; the same if not given.")] = "",
    batch: Annotated[str, typer.Option(help="Evaluation batch; the same if not given.")] = "",
    context: Annotated[Path | None, typer.Option(help="Text file: what has changed.")] = None,
    user: UserOption = "",
) -> None:
    """Submit a release that was stopped again, with its context and answers."""
    deployment = open_deployment()
    client = client_for(deployment.settings, user)
    new, _ = submit_again(deployment, client, release, version=version, batch=batch, context=_read(context))
    console.print(f"Release [bold]{safe(new)}[/] is submitted.")


def _when(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M")
