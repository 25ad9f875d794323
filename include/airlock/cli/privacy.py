"""``airlock audit personal``, ``erase``, ``hold``, ``lift``, ``holds``: what people wrote, and its end."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from airlock.adapters.audit.store import Text
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.store import note_access
from airlock.core.errors import ConfigurationError, RefusedError
from airlock.core.retention import Hold
from airlock.services import privacy
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.privacy import Erasure, Kept, Standing

ReasonOption = Annotated[
    str, typer.Option(help="Why; stays in the log for ever, so name a case and no person.")
]
_SHOWN = 20


def personal(
    *,
    subject: Annotated[str | None, typer.Option(help="Only this user, text by text.")] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Show what is kept of what people wrote: counts, releases and dates, never the texts."""
    deployment = open_deployment()
    found = privacy.overview(deployment, subject=subject)
    note_access(deployment, "audit personal", {"subject": subject})
    if output is Format.JSON:
        emit([_kept_json(kept, each=subject is not None) for kept in found])
        return
    if not found:
        console.print("Nobody has written anything yet.")
    for kept in found:
        row = _kept_json(kept, each=False)
        gone = f", {kept.missing} gone without a record" if kept.missing else ""
        since = f", since {_date(row['oldest_us'])}" if kept.standings else ""
        console.print(
            f"[bold]{safe(kept.subject)}[/]  {_many(row['texts'], 'text')} about "
            f"{_many(row['releases'], 'release')}{since}; "
            f"{row['erasable']} may be erased; {kept.erased} were erased{gone}",
            soft_wrap=True,
        )
        for standing in kept.standings if subject is not None else []:
            _print_text(standing)


def erase(
    user: Annotated[str, typer.Argument(help="User id of the person whose texts are erased.")],
    *,
    reason: ReasonOption,
    release: Annotated[str | None, typer.Option(help="Only what was written about this release.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would happen.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Erase what a person wrote, as far as no law or legal hold keeps it; exit 3 when something is kept."""
    deployment = open_deployment()
    if not dry_run and not yes:
        _confirm(deployment, user, reason, release)
    found = privacy.erase(
        deployment, user, actor=getpass.getuser(), reason=reason, release_id=release, dry_run=dry_run
    )
    if output is Format.JSON:
        emit(_erasure_json(found, dry_run=dry_run))
    else:
        _print_erasure(found, dry_run=dry_run)
    if found.kept:
        raise SystemExit(RefusedError.exit_code)


def hold(
    *,
    subject: Annotated[str | None, typer.Option(help="Everything this user wrote.")] = None,
    release: Annotated[str | None, typer.Option(help="Everything written about this release.")] = None,
    workload: Annotated[str | None, typer.Option(help="Everything written about this workload.")] = None,
    reason: ReasonOption,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Place a legal hold: nothing it is about can be erased until somebody lifts it."""
    placed = privacy.place_hold(
        open_deployment(),
        subject=subject,
        release_id=release,
        workload=workload,
        reason=reason,
        actor=getpass.getuser(),
    )
    _show_hold(placed, output)


def lift(
    hold_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the hold, see `airlock audit holds`.")],
    *,
    reason: ReasonOption,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Lift a legal hold. The log keeps who placed and who lifted it."""
    lifted = privacy.lift_hold(open_deployment(), hold_id, reason=reason, actor=getpass.getuser())
    _show_hold(lifted, output)


def holds(
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that were lifted.")] = False,
    output: FormatOption = Format.PRETTY,
) -> None:
    """List the legal holds that stand."""
    found = [each for each in privacy.holds(open_deployment()) if every or each.stands]
    if output is Format.JSON:
        emit([_hold_json(each) for each in found])
        return
    if not found:
        console.print("No legal hold stands.")
    for each in found:
        _print_hold(each)


def _confirm(deployment: Deployment, user: str, reason: str, release: str | None) -> None:
    """Show what would happen and ask.

    Raises:
        ConfigurationError: nobody is there to answer.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "erasing asks before it does, and nobody is there to answer",
            where="airlock audit erase",
            fix="look at it with --dry-run, then say --yes",
        )
    plan = privacy.erase(
        deployment, user, actor=getpass.getuser(), reason=reason, release_id=release, dry_run=True
    )
    _print_erasure(plan, dry_run=True)
    if plan.erased:
        typer.confirm("Erase for good? Nobody can bring it back", abort=True, err=True)


def _print_erasure(found: Erasure, *, dry_run: bool) -> None:
    if not found.erased and not found.kept:
        console.print(f"Nothing is left of what {safe(found.subject)} wrote.")
    elif not found.erased:
        console.print(f"Nothing of what {safe(found.subject)} wrote may be erased.")
    else:
        texts, releases = _count(found.erased)
        word = "would be erased" if dry_run else "erased"
        about = f"{_many(texts, 'text')} of {safe(found.subject)} about {_many(releases, 'release')}"
        console.print(f"{about}: {word}.", soft_wrap=True)
    if found.kept:
        has = "has" if len(found.kept) == 1 else "have"
        console.print(f"[yellow]{_many(len(found.kept), 'text')} {has} to be kept:[/]")
    for standing in found.kept[:_SHOWN]:
        _print_text(standing)
    if len(found.kept) > _SHOWN:
        console.print(f"  … and {len(found.kept) - _SHOWN} more; --format json lists all")


def _print_text(standing: Standing) -> None:
    text = standing.text
    place = safe(text.release_id or f"workload {text.workload}")
    state = f"[yellow]kept:[/] {safe(standing.why)}" if standing.why else "may be erased"
    console.print(
        f"  {_date(text.recorded_us)} {text.kind} [dim]{text.field}[/] {place}: {state}", soft_wrap=True
    )


def _print_hold(each: Hold) -> None:
    end = "" if each.stands else f"; lifted {_date(each.lifted_us)} by {each.lifted_by}: {each.lift_reason}"
    console.print(
        f"[bold]{safe(each.id)}[/] {safe(each.about)}, placed {_date(each.placed_us)} by "
        f"{safe(each.placed_by)}: {safe(each.reason)}{safe(end)}",
        soft_wrap=True,
    )


def _show_hold(each: Hold, output: Format) -> None:
    if output is Format.JSON:
        emit(_hold_json(each))
    else:
        _print_hold(each)


def _count(texts: list[Text]) -> tuple[int, int]:
    return len(texts), len({text.release_id for text in texts if text.release_id})


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _kept_json(kept: Kept, *, each: bool) -> dict[str, Any]:
    texts, releases = _count([standing.text for standing in kept.standings])
    times = [standing.text.recorded_us for standing in kept.standings]
    row: dict[str, Any] = {
        "subject": kept.subject,
        "texts": texts,
        "releases": releases,
        "oldest_us": min(times, default=None),
        "newest_us": max(times, default=None),
        "erasable": sum(not standing.why for standing in kept.standings),
        "erased": kept.erased,
        "missing": kept.missing,
    }
    return row | ({"each": [_standing_json(standing) for standing in kept.standings]} if each else {})


def _erasure_json(found: Erasure, *, dry_run: bool) -> dict[str, Any]:
    return {
        "subject": found.subject,
        "dry_run": dry_run,
        "erased": [_text_json(text) for text in found.erased],
        "kept": [_standing_json(standing) for standing in found.kept],
    }


def _standing_json(standing: Standing) -> dict[str, Any]:
    return {**_text_json(standing.text), "why": standing.why, "until_us": standing.until_us}


def _text_json(text: Text) -> dict[str, Any]:
    return {
        "commitment": text.commitment.hex(),
        "kind": str(text.kind),
        "field": text.field,
        "release": text.release_id,
        "workload": text.workload,
        "recorded_us": text.recorded_us,
    }


def _hold_json(each: Hold) -> dict[str, Any]:
    return {
        "id": each.id,
        "subject": each.subject,
        "release": each.release_id,
        "workload": each.workload,
        "reason": each.reason,
        "placed_by": each.placed_by,
        "placed_us": each.placed_us,
        "stands": each.stands,
        "lifted_by": each.lifted_by,
        "lifted_us": each.lifted_us,
        "lift_reason": each.lift_reason,
    }


def _date(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).strftime("%Y-%m-%d")
