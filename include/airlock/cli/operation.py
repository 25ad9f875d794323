"""``airlock rollback`` and ``airlock guard``: what happens to a champion after its release."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.release import UserOption, client_for
from airlock.core.audit import Event
from airlock.core.errors import AirlockError, ConfigurationError, NotFoundError, UnavailableError
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.rollback import dry_run
from airlock.services.rollback import rollback as roll_back
from airlock.services.rollback_checks import Plan

guard_app = typer.Typer(help="Find champions that were moved without Airlock.", no_args_is_help=True)

AMISS = 3
"""Exit code when the guard found something, or a rollback would leave nothing in production."""


def rollback(
    workload: Annotated[str, typer.Argument(help="Name of a workload in config/workloads/.")],
    *,
    to: Annotated[
        str, typer.Option(help="Version to go back to; the last one that is fit if not given.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why; kept encrypted.")] = "",
    leaving: Annotated[
        str, typer.Option(help="Version to leave; nothing happens when another one is in production.")
    ] = "",
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Quarantine the version that is left.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen, with every check; change nothing.")
    ] = False,
    incident: Annotated[str, typer.Option(help="Incident it belongs to; one is opened if not given.")] = "",
    report: Annotated[
        bool, typer.Option("--changes/--no-changes", help="Say afterwards which decisions change.")
    ] = True,
    without_airflow: Annotated[
        bool, typer.Option("--without-airflow", help="When Airflow is down: nobody checks who you are.")
    ] = False,
    user: UserOption = "",
    output: FormatOption = Format.PRETTY,
) -> None:
    """Take the champion out of production: back to the last version that is fit, or to the fallback."""
    deployment = open_deployment()
    if dry_run:
        _show_plan(_planned(deployment, workload, to), output)
        return
    if not reason.strip():
        raise ConfigurationError("no reason is given", where="--reason", fix="say why; it stands in the log")
    reason = _identified(deployment, user, reason, trusted=without_airflow)
    event = roll_back(
        deployment,
        workload,
        to=to or None,
        actor=user,
        reason=reason,
        incident_id=incident,
        leaving=leaving,
        quarantine=quarantine,
        progress=lambda sentence: console.print(f"  [dim]{safe(sentence)}[/]"),
    )
    if output is Format.JSON:
        emit({"workload": workload, "actor": event.actor, **event.data})
        return
    data = event.data
    console.print(
        f"[bold]{_version(data['to'])}[/] of {safe(workload)} is in production, "
        f"{_version(data['from'])} is not any more.",
        soft_wrap=True,
    )
    if data["how"] == "constant":
        console.print(
            f"Every request is answered with {safe(data['constant'])} until a release says otherwise."
        )
    incident_id = safe(data["incident"])
    console.print(f"Incident [bold]{incident_id}[/]: airlock incident show {incident_id}")
    if report:
        _say_changes(deployment, event)


def _say_changes(deployment: Deployment, event: Event) -> None:
    """Which decisions change; the rollback is done, so that it cannot be told is no failure of it."""
    from airlock.services.decision_changes import after_rollback

    try:
        compared = after_rollback(deployment, event)
    except AirlockError as error:
        console.print(f"[yellow]Which decisions change could not be told:[/] {safe(str(error))}")
        return
    console.print(safe(compared.data["sentence"]), soft_wrap=True)


def _planned(deployment: Deployment, workload: str, to: str) -> Plan:
    return dry_run(deployment, workload, to=to or None)


def _identified(deployment: Deployment, user: str, reason: str, *, trusted: bool) -> str:
    """Make sure that the user is who they say; without Airflow the reason says that nobody did."""
    if not user:
        raise ConfigurationError(
            "no user is named", where="--user", fix="give --user NAME or set AIRLOCK_USER"
        )
    if trusted:
        return f"{reason} [Airflow was not asked who {user} is; the account is {getpass.getuser()}]"
    try:
        client_for(deployment.settings, user).log_in()
    except UnavailableError as error:
        raise UnavailableError(
            error.what, where=error.where, fix="give --without-airflow if this cannot wait"
        ) from error
    return reason


def _version(version: str) -> str:
    return f"version {safe(version)}" if version else "no version"


def _show_plan(plan: Plan, output: Format) -> None:
    if output is Format.JSON:
        emit({**plan.to_data(), "sentence": plan.sentence})
    else:
        for one in plan.considered:
            mark = "[green]fit[/]" if one.fit else "[red]not fit[/]"
            console.print(f"[bold]version {safe(one.version)}[/]  {mark}  [dim]{safe(one.release_id)}[/]")
            table = Table(box=None, show_header=False, padding=(0, 1))
            for check in one.checks:
                table.add_row("[green]✓[/]" if check.ok else "[red]✗[/]", check.name, safe(check.sentence))
            console.print(table)
        console.print(f"\nA rollback now: [bold]{safe(plan.sentence)}[/].", soft_wrap=True)
    if plan.how == "quarantine":
        raise SystemExit(AMISS)


def changes(
    workload: Annotated[str, typer.Argument(help="Name of a workload in config/workloads/.")],
    *,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page into this file.")] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Which decisions the newest promotion or rollback changed, and why."""
    from airlock.services.decision_changes import compared_events, report_of

    deployment = open_deployment()
    event = next(compared_events(deployment, workload), None)
    if event is None:
        raise NotFoundError(
            f"nothing was compared for {workload}",
            fix="it is after each promotion and rollback; see its task",
        )
    report = report_of(deployment, event)
    if html is not None:
        html.write_bytes(deployment.evidence.get(str(event.data["page"])))
    if output is Format.JSON:
        emit(report)
        return
    console.print(f"[bold]{safe(event.data['sentence'])}[/]", soft_wrap=True)
    for data in report["data"]:
        _print_changes(data)


def _print_changes(data: dict[str, Any]) -> None:
    from airlock.reporting.decision_changes import share, way

    flips, task = data["flips"], data["flips"]["task"]
    console.print(f"\n[bold]{safe(data['name'])}[/]")
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("group or kind", "cases", "changed", "share"):
        table.add_column(column, overflow="fold", justify="left" if column == "group or kind" else "right")
    for group in flips["groups"]:
        name = f"{group['attribute']}: {group['group']}"
        table.add_row(
            safe(name), f"{group['rows']:,}", f"{group['changed']:,}", share(group["changed"], group["rows"])
        )
    for kind in flips["kinds"]:
        name = f"{kind['feature']} {kind['cases']}"
        table.add_row(
            safe(name), f"{kind['rows']:,}", f"{kind['changed']:,}", share(kind["changed"], kind["rows"])
        )
    console.print(table)
    for reason in data["reasons"]:
        moved = ", ".join(f"{one['feature']} {one['shift']:+.3g}" for one in reason["features"])
        console.print(f"{way(task, reason['way'])}: {safe(moved)}", soft_wrap=True)
    for example in data["examples"]:
        where = ", ".join(f"{name} {words}" for name, words in example["where"].items())
        console.print(
            f"[dim]e.g.[/] {safe(where)}: {example['changed']} of {example['cases']} such cases are "
            f"{way(task, example['way'])}",
            soft_wrap=True,
        )


@guard_app.command()
def check(
    workload: Annotated[str, typer.Argument(help="Only this workload; all if not given.")] = "",
    *,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Compare champions with the log; what was moved by hand is recorded and, by policy, put back."""
    from airlock.services import guard

    deployment = open_deployment()
    if workload:
        found = guard.check(deployment, workload)
        report = guard.Report([] if found is None else [found], {}, 1)
    else:
        report = guard.check_all(deployment)
    if output is Format.JSON:
        emit(_report_json(report))
    else:
        for finding in report.findings:
            console.print(f"[red]{safe(finding.problem)}[/]  {safe(finding.sentence)}", soft_wrap=True)
        for name, problem in report.failed.items():
            console.print(f"[red]not looked at[/]  {safe(name)}: {safe(problem)}", soft_wrap=True)
        if not report.findings and not report.failed:
            console.print(f"{report.looked_at} champions are what the log says.")
    if report.failed:
        raise SystemExit(1)
    if report.findings:
        raise SystemExit(AMISS)


def _report_json(report: Any) -> dict[str, Any]:
    return {
        "looked_at": report.looked_at,
        "findings": [
            {
                "workload": one.workload,
                "problem": one.problem,
                "expected": one.expected,
                "found": one.found,
                "incident": one.incident_id,
                "undone": one.undone,
            }
            for one in report.findings
        ],
        "failed": report.failed,
    }
