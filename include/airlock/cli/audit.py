"""``airlock audit``: the audit log, its keys, its anchors and its verification."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from airlock.cli import privacy, questions
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.store import StoreOption, deployment_for, note_access
from airlock.core.audit import Kind
from airlock.core.errors import AirlockError, ConfigurationError, NotFoundError
from airlock.services.deployment import Deployment, anchors_of, open_deployment

app = typer.Typer(help="The signed record of everything that happened.", no_args_is_help=True)

_UPKEEP = "Upkeep"
_PRIVACY = "Personal data"

ReasonOption = Annotated[str, typer.Option(help="Why; it stands in the log.")]
NOT_VERIFIED = 3
"""Exit code of a verification that found something."""


@app.command(rich_help_panel=_UPKEEP)
def migrate() -> None:
    """Create or upgrade the schema of the audit log, and the key for personal data. Safe to repeat."""
    open_deployment().audit.migrate()
    console.print("The audit log's schema is up to date.")


@app.command(rich_help_panel=_UPKEEP)
def roles(
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Create them; needs a superuser.")] = False,
) -> None:
    """Show or create the PostgreSQL roles with the least rights each process needs."""
    from airlock.adapters.audit.roles import ROLES, apply_roles

    if apply:
        apply_roles(open_deployment().log.database)
    for name, purpose in ROLES.items():
        console.print(f"[bold]{name}[/]  {purpose}")
    if apply:
        console.print("The roles are there. Give each process a user that is a member of one of them.")


@app.command(rich_help_panel=_UPKEEP)
def create_key() -> None:
    """Create the key that signs the log. Never overwrites one."""
    from airlock.services import keys

    deployment = open_deployment()
    _say_key(deployment, keys.create_key(deployment), "The signing key is created.")


@app.command(rich_help_panel=_UPKEEP)
def rotate_key(*, reason: ReasonOption) -> None:
    """Let the signing key name its successor. The sequencer has to run."""
    from airlock.services import keys

    deployment = open_deployment()
    key = keys.rotate_key(deployment, actor=getpass.getuser(), reason=reason)
    _say_key(deployment, key, "The log names the new key; from now on it signs.")


@app.command(rich_help_panel=_UPKEEP)
def restart_log(*, reason: ReasonOption) -> None:
    """Begin a new log that names the old one, after a restore from an old backup lost its end."""
    from airlock.services import keys

    deployment = open_deployment()
    key = keys.restart_log(deployment, actor=getpass.getuser(), reason=reason)
    _say_key(deployment, key, f"The new log is {safe(key.name)}. Start the sequencer now.")


def _say_key(deployment: Deployment, key: object, text: str) -> None:
    from airlock.adapters.audit.keys import public_path

    console.print(text)
    console.print(f"Public key, for auditors: [bold]{safe(str(key))}[/]", soft_wrap=True)
    console.print(f"It is in {public_path(deployment.settings.signing_key)}", soft_wrap=True)


@app.command()
def tail(
    *,
    release: Annotated[str | None, typer.Option(help="Only this release.")] = None,
    workload: Annotated[str | None, typer.Option(help="Only this workload.")] = None,
    kind: Annotated[list[Kind] | None, typer.Option(help="Only events of this kind; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Show the latest events, oldest first."""
    deployment = deployment_for(store)
    found = deployment.audit.events(
        release_id=release, workload=workload, kinds=kind or [], limit=limit, newest_first=True
    )
    note_access(deployment, "audit tail", {"release": release, "workload": workload, "limit": limit})
    if output is Format.JSON:
        emit([{"ingest_id": entry.ingest_id, **entry.event.to_data()} for entry in reversed(found)])
        return
    if not found:
        console.print("No events.")
    for entry in reversed(found):
        event = entry.event
        facts = " ".join(
            f"{key}={value}" for key, value in event.data.items() if value not in ("", None, [], {})
        )
        who = f"{safe(event.actor)} {safe(event.release_id)}"
        head = f"[dim]{entry.ingest_id:>6} {_time(event.occurred_us)}[/] [bold]{event.kind}[/] {who}"
        console.print(f"{head} [dim]{safe(facts[:300])}[/]", soft_wrap=True)


@app.command()
def verify(
    *,
    public_key: Annotated[Path | None, typer.Option(help="The log's public key, kept elsewhere.")] = None,
    anchor: Annotated[list[str] | None, typer.Option(help="URL of an anchor; repeatable.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Also check the form of each event.")] = False,
    accept_restart: Annotated[
        bool, typer.Option("--accept-restart", help="The loss that the log names is known to you.")
    ] = False,
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Check the whole log against its key and its anchors; exit 3 when anything is off."""
    from airlock.adapters.anchors import open_anchors
    from airlock.adapters.audit.keys import public_path, read_public_key
    from airlock.services.verify import verify as check

    deployment = deployment_for(store)
    settings = deployment.settings
    if store is not None and public_key is None:
        raise ConfigurationError(
            "a copy is verified with a key from elsewhere", fix="name its file with --public-key"
        )
    pinned = read_public_key(public_key or public_path(settings.signing_key))
    if anchor:
        cache = settings.home / "anchor-cache"
        anchors = open_anchors(" ".join(anchor), cache=cache, tracking_uri=settings.mlflow_uri)
    else:
        anchors = [] if store is not None else anchors_of(settings)
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Reading the log", total=None)
        found = check(
            deployment.log.database,
            pinned,
            anchors,
            vault=deployment.vault if store is None else None,
            strict=strict,
            accept_restarts=accept_restart,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    note_access(deployment, "audit verify", {"entries": found.size, "verified": found.holds})
    if output is Format.JSON:
        emit(
            {
                "verified": found.holds,
                "origin": found.origin,
                "entries": found.size,
                "root": found.root,
                "key": found.key_id,
                "checkpoints": found.checkpoints,
                "anchors": found.anchors,
                "waiting": found.waiting,
                "suspects": [{"what": s.what, "entry": s.seq, "detail": s.detail} for s in found.suspects],
                "notices": found.notices,
            }
        )
    else:
        _print_verification(found, pinned_elsewhere=public_key is not None)
    if not found.holds:
        raise SystemExit(NOT_VERIFIED)


def _print_verification(found: Any, *, pinned_elsewhere: bool) -> None:
    console.print(f"Log [bold]{safe(found.origin)}[/], {found.size:,} entries, root {found.root[:16]}…")
    console.print(f"{found.checkpoints:,} checkpoints, pinned key {found.key_id}")
    for name, count in found.anchors.items():
        console.print(f"anchor {safe(name)}: {count:,} checkpoints", soft_wrap=True)
    if found.waiting:
        console.print(f"[yellow]{found.waiting:,} events wait for the sequencer and are not signed yet[/]")
    for notice in found.notices:
        console.print(f"[yellow]{safe(notice)}[/]", soft_wrap=True)
    if not pinned_elsewhere:
        console.print(
            "[yellow]The public key was read from this machine. An auditor brings it along: --public-key[/]"
        )
    for suspect in found.suspects[:50]:
        console.print(f"[red]✘ {suspect.what}:[/] {safe(suspect.detail)}", soft_wrap=True)
    if len(found.suspects) > 50:  # noqa: PLR2004  # as many as a person reads
        console.print(f"[red]… and {len(found.suspects) - 50:,} more; --format json lists all[/]")
    if found.holds:
        console.print("[green]✔ Everything is as it was signed.[/]")
    else:
        console.print("[bold red]NOT VERIFIED[/]: the first line names the first bad entry.")


@app.command()
def prove(
    event: Annotated[str, typer.Argument(help="Key of an event, or the number that `tail` shows.")],
    *,
    target: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the files.")] = None,
    store: StoreOption = None,
) -> None:
    """Prove that an event is in the signed log: its bytes, and a proof in the form of C2SP tlog-proof."""
    from airlock.adapters.evidence import write_durably

    deployment = deployment_for(store)
    log = deployment.log
    entry = log.entry_of(int(event) if event.isdecimal() else _ingest_id(deployment, event))
    proof = log.prove(entry.seq)
    proof.verify(entry.body)
    note_access(deployment, "audit prove", {"event": event})
    if target is None:
        emit({"entry": entry.seq, "event": entry.body.decode(), "proof": str(proof)})
        return
    write_durably(target / f"entry-{entry.seq}.json", entry.body)
    write_durably(target / f"entry-{entry.seq}.tlog-proof", str(proof).encode())
    console.print(f"Entry {entry.seq} and its proof are in {target}.", soft_wrap=True)


def _ingest_id(deployment: Deployment, key: str) -> int:
    for wanted in (key, f"{deployment.settings.deployment}/{key}"):
        for found in deployment.audit.events(key=wanted):
            if found.ingest_id is not None:
                return found.ingest_id
    raise NotFoundError(f"there is no event {key!r}", fix="find it with `airlock audit query`")


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="File to create.")], *, store: StoreOption = None
) -> None:
    """Copy the whole log into a SQLite file that an auditor can take away and verify."""
    from airlock.services.export_log import export_log

    deployment = deployment_for(store)
    size = export_log(deployment.log.database, target)
    note_access(deployment, "audit export", {"entries": size})
    command = f"airlock audit verify --store sqlite:///{target} --public-key FILE --anchor URL"
    console.print(f"{size:,} entries are in {target}. Verify them with `{command}`.", soft_wrap=True)


@app.command(rich_help_panel=_UPKEEP)
def replay() -> None:
    """Put routine events that waited on this machine's disk into the store."""
    from airlock.services.sequence import replay_spool

    deployment = open_deployment()
    done = replay_spool(deployment, anchors_of(deployment.settings))
    waiting = done.replayed - done.removed
    console.print(f"{done.replayed} events replayed; {waiting} stay here until an anchor covers them.")
    for path in done.damaged:
        console.print(f"[red]damaged, set aside: {safe(str(path))}[/]", soft_wrap=True)
    if done.damaged:
        raise SystemExit(1)


@app.command(rich_help_panel=_UPKEEP)
def reconcile(*, output: FormatOption = Format.PRETTY) -> None:
    """Compare Airflow's task states and changes by hand with the log, and append what is missing."""
    from airlock.adapters.airflow_api import service_client
    from airlock.services.reconcile import reconcile_all

    deployment = open_deployment()
    report = reconcile_all(deployment, service_client(deployment.settings))
    if output is Format.JSON:
        emit(report.to_data() | {"findings": [finding.sentence for finding in report.findings]})
        return
    console.print(f"{report.runs:,} runs of {report.releases:,} releases compared.")
    for finding in report.findings:
        console.print(f"  {safe(finding.sentence)}", soft_wrap=True)
    if not report.findings:
        console.print("Nothing was missing.")


@app.command(rich_help_panel=_UPKEEP)
def anchors(*, output: FormatOption = Format.PRETTY) -> None:
    """Show what each anchor holds; exit 1 when one does not answer or has fallen behind."""
    from airlock.proof import Checkpoint

    deployment = open_deployment()
    head = deployment.log.head()
    rows = []
    for anchor in anchors_of(deployment.settings):
        row: dict[str, Any] = {"anchor": anchor.name, "every_seconds": anchor.every_seconds}
        try:
            latest = anchor.latest()
            row["entries"] = Checkpoint.parse(latest).size if latest else 0
            row["problem"] = ""
            if anchor.every_seconds == 0 and row["entries"] < head.size:
                row["problem"] = "behind; is the sequencer running?"
        except AirlockError as error:
            row |= {"entries": None, "problem": str(error)}
        rows.append(row)
    if output is Format.JSON:
        emit({"entries": head.size, "anchors": rows})
    else:
        console.print(f"The log has {head.size:,} entries.")
        for row in rows:
            mark = "[red]✘[/]" if row["problem"] else "[green]✔[/]"
            pace = f"every {row['every_seconds']} s" if row["every_seconds"] else "each checkpoint"
            text = safe(row["problem"]) or f"{row['entries']:,} entries"
            console.print(f"{mark} {safe(row['anchor'])} ({pace}): {text}", soft_wrap=True)
    if any(row["problem"] for row in rows):
        raise SystemExit(1)


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


questions.register(app)
for command in (privacy.personal, privacy.erase, privacy.hold, privacy.lift, privacy.holds):
    app.command(rich_help_panel=_PRIVACY)(command)
