"""``airlock policy replay``, ``canary`` and ``zombies``: what a policy would do, does, and does not do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from airlock.adapters.evidence import write_durably
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.errors import InvalidInputError
from airlock.core.replay import Difference
from airlock.services.deployment import open_deployment
from airlock.services.policies import Bundles

SHOWN = 20
"""Releases listed in a terminal; JSON and the page have all."""

SinceOption = Annotated[
    str, typer.Option("--since", help="Releases decided from this day (UTC), such as 2026-01-31.")
]


def _since(day: str) -> int | None:
    if not day:
        return None
    try:
        return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1_000_000)
    except ValueError as error:
        raise InvalidInputError(f"{day[:40]!r} is no date", fix="write it as 2026-01-31") from error


def replay(
    policy: Annotated[str, typer.Argument(help="A version, or the path of a bundle's folder.")],
    *,
    since: SinceOption = "",
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    page: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a page that opens in a browser.")
    ] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Decide past releases again under another policy: whose decision would change, and why."""
    from airlock.services.replay import replay as run

    other = Bundles().files(policy).policy()
    deployment = open_deployment()
    report = run(deployment, other, since_us=_since(since), workload=workload)
    if page is not None:
        from airlock.reporting.replay import render_replay

        text = render_replay(
            version=other.version,
            digest=other.digest,
            description=other.description,
            total=report.total,
            changed=report.changed,
            unsure=report.unsure,
            failed=report.failed,
            since=f"since {since}" if since else "since the beginning",
        )
        write_durably(page, text.encode())
        console.print(f"Written to {safe(str(page))}", soft_wrap=True)
    if output is Format.JSON:
        emit(report.to_data())
        return
    console.print(
        f"[bold]{report.total}[/] releases under policy {safe(other.version)}: "
        f"[bold]{len(report.changed)}[/] decided differently, {len(report.unsure)} need a re-run to be sure, "
        f"{len(report.failed)} cannot be read"
    )
    if report.changed:
        console.print(_table(report.changed[:SHOWN]))
    if len(report.changed) > SHOWN:
        console.print(f"… and {len(report.changed) - SHOWN} more; see --format json or --output PAGE")
    for release, problem in list(report.failed.items())[:SHOWN]:
        console.print(f"[red]✘[/] {safe(release)}: {safe(problem)}", soft_wrap=True)


def _table(changed: list[Difference]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("release", "was", "would be", "why"):
        table.add_column(column, overflow="fold", no_wrap=column == "release")
    for one in changed:
        why = [*one.why, *([f"re-run {', '.join(one.unsure)} to be sure"] if one.unsure else [])]
        table.add_row(
            safe(one.release_id),
            _side(one.before),
            _side(one.after),
            safe("\n".join(why), lines=True),
        )
    return table


def _side(summary: dict[str, Any]) -> str:
    seats = ", ".join(summary["seats"]) or "nobody"
    return f"{summary['outcome']} {summary['track'] or '-'}\n[dim]{safe(seats)}[/]"


def canary(
    policy: Annotated[
        str | None, typer.Argument(help="A version; the newest that was tried if not given.")
    ] = None,
    *,
    since: SinceOption = "",
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say how a candidate policy agreed with the binding one on the releases it was tried on."""
    from airlock.services.canary import canary_report

    report = canary_report(open_deployment(), policy, since_us=_since(since))
    if output is Format.JSON:
        emit(report.to_data())
        return
    console.print(
        f"Policy [bold]{safe(report.policy)}[/] was tried on {report.total} releases: {report.agreed} agree, "
        f"{len(report.disagreements)} disagree, {len(report.problems)} could not be evaluated; "
        f"{report.unsure} need a re-run to be sure"
    )
    for event in report.disagreements[-SHOWN:]:
        before, after = event.data["before"], event.data["after"]
        console.print(
            f"[yellow]≠[/] {safe(event.release_id)}: {before['outcome']} {before['track'] or '-'} → "
            f"{after['outcome']} {after['track'] or '-'}"
        )
        for sentence in event.data["why"]:
            console.print(f"    {safe(sentence)}", soft_wrap=True)
    for event in report.problems[-SHOWN:]:
        console.print(f"[red]✘[/] {safe(event.release_id)}: {safe(event.data['problem'])}", soft_wrap=True)


def zombies(
    policy: Annotated[str | None, typer.Argument(help="A version; the newest if not given.")] = None,
    *,
    since: SinceOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Also the rules that are alive.")] = False,
    output: FormatOption = Format.PRETTY,
) -> None:
    """List rules that never fire, always fire, are expired or always waived, and what rules cost."""
    from airlock.services.zombies import rule_use

    deployment = open_deployment()
    version = policy or deployment.config.policy_versions()[-1]
    today = datetime.fromtimestamp(deployment.clock.now_us() / 1_000_000, tz=UTC).date()
    bundle = Bundles().files(version).policy()
    report = rule_use(deployment, bundle, today=today, since_us=_since(since))
    if output is Format.JSON:
        emit(
            {
                "policy": report.policy,
                "releases": report.releases,
                "rules": [vars(one) for one in report.rules],
                "gates": report.gates,
            }
        )
        return
    dead = [one for one in report.rules if one.verdict]
    console.print(
        f"{len(dead)} of {len(report.rules)} rules of policy {safe(report.policy)} did nothing, or nothing "
        f"else, in {report.releases} releases"
    )
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("rule", "verdict", "fired", "asked", "waived", "median µs", "p99 µs", "owner"):
        table.add_column(column, overflow="fold")
    for one in report.rules if everything else dead:
        numbers = [one.fired, one.evaluated, one.waived]
        times = ["-" if value is None else f"{value:.1f}" for value in (one.median_us, one.p99_us)]
        table.add_row(safe(one.rule), one.verdict or "alive", *map(str, numbers), *times, safe(one.owner))
    console.print(table)
    for gate, count in report.gates.items():
        console.print(f"[dim]{safe(gate)} fired {count} times[/]")
