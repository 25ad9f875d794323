"""``airlock audit query``, ``data``, ``approvals``, ``production``, ``person`` and ``policy``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.store import StoreOption, deployment_for, note_access
from airlock.core.audit import Event, Kind
from airlock.reporting.terminal import clean
from airlock.services import questions
from airlock.services.deployment import Deployment

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_FACTS = 300
"""Characters of an event's facts in a table; ``--format json`` has all of them."""

_TIMES = "ISO date or date-time, UTC unless it has an offset"
WorkloadArgument = Annotated[str, typer.Argument(help="Workload.")]
VersionArgument = Annotated[str, typer.Argument(help="Version in the MLflow registry.")]
SinceOption = Annotated[str, typer.Option(help=f"Not before: {_TIMES}.")]
UntilOption = Annotated[str, typer.Option(help=f"Before: {_TIMES}. A date includes that day.")]


def register(app: typer.Typer) -> None:
    """Add the questions to a group of commands."""
    for command in (query, data, approvals, production, person, policy, waivers):
        app.command()(command)


# Asking


def _ask(
    store: str | None, question: str, arguments: dict[str, object], work: Callable[[Deployment], T]
) -> T:
    """Answer a question and record that it was asked, also when there is no answer."""
    deployment = deployment_for(store)
    try:
        return work(deployment)
    finally:
        note_access(deployment, f"audit {question}", arguments)


def moment(text: str, option: str, *, end: bool = False) -> int | None:
    """Microseconds since 1970 of an ISO date or date-time; ``None`` for none.

    ``end`` gives the end of the day when ``text`` is a date alone.

    Raises:
        BadParameter: the text is no time.
    """
    if not text:
        return None
    try:
        return _microseconds(text, end=end)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{clean(text[:60])!r} is no time; give one such as 2026-01-31, 2026-01-31T18:00 or "
            "2026-01-31T18:00:00+01:00",
            param_hint=option,
        ) from error


def _microseconds(text: str, *, end: bool) -> int:
    found = datetime.fromisoformat(text)
    if end and _is_date(text):
        found += _DAY
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (found - _EPOCH) // timedelta(microseconds=1)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


# Commands


def query(
    *,
    workload: Annotated[str, typer.Option(help="Only this workload.")] = "",
    version: Annotated[str, typer.Option(help="Only this version.")] = "",
    actor: Annotated[str, typer.Option(help="Only what this user did; `system` is nobody.")] = "",
    kind: Annotated[list[Kind] | None, typer.Option(help="Only events of this kind; repeatable.")] = None,
    since: SinceOption = "",
    until: UntilOption = "",
    release: Annotated[str, typer.Option(help="Only this release.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Find events: filters combine; the newest are kept, the oldest shown first."""
    since_us, until_us = moment(since, "--since"), moment(until, "--until", end=True)
    arguments: dict[str, object] = {
        "workload": workload, "version": version, "actor": actor, "kind": [str(name) for name in kind or []],
        "since": since, "until": until, "release": release, "limit": limit,
    }  # fmt: skip
    found = _ask(
        store, "query", arguments,
        lambda deployment: questions.query(
            deployment,
            workload=workload or None, version=version or None, actor=actor or None, kinds=kind or (),
            since_us=since_us, until_us=until_us, release_id=release or None, limit=limit,
        ),
    )  # fmt: skip
    if output is Format.JSON:
        emit(_plain(found))
        return
    if not found.lines:
        console.print("No event meets these conditions.")
        return
    console.print(_event_table(found.lines))
    if found.cut:
        console.print(
            f"[yellow]Cut:[/] these are the newest {found.limit:,} events; there are older ones. "
            "Narrow the question, or raise --limit."
        )


def data(
    workload: WorkloadArgument,
    version: VersionArgument,
    *,
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say which data trained and judged a version, under which suite, policy and environment."""
    answer = _ask(
        store, "data", {"workload": workload, "version": version},
        lambda deployment: questions.data_of(deployment, workload, version),
    )  # fmt: skip
    if output is Format.JSON:
        emit(_plain(answer))
        return
    for inputs in answer.releases:
        _print_inputs(inputs)
    _print_adoption(answer.adopted, "so nothing was recorded about the data it was trained on")
    _print_cut(cut=answer.cut)


def approvals(
    workload: Annotated[str, typer.Argument(help="Workload.")] = "",
    version: Annotated[str, typer.Argument(help="Version in the MLflow registry.")] = "",
    *,
    release: Annotated[str, typer.Option(help="One release, instead of workload and version.")] = "",
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say who approved or rejected a version, in which role, and what they saw."""
    if bool(release) == bool(workload or version) or bool(workload) != bool(version):
        raise typer.BadParameter("give WORKLOAD and VERSION, or --release alone", param_hint="--release")
    answer = _ask(
        store, "approvals", {"workload": workload, "version": version, "release": release},
        lambda deployment: questions.approvals_of(deployment, workload, version, release_id=release),
    )  # fmt: skip
    if output is Format.JSON:
        emit(_plain(answer))
        return
    for approval in answer.releases:
        _print_approval(approval)
    _print_adoption(answer.adopted, "so nobody was asked")
    _print_cut(cut=answer.cut)


def production(
    workload: WorkloadArgument,
    *,
    on: Annotated[str, typer.Option(help=f"At this time, or on this day: {_TIMES}.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200)] = questions.RELEASES,
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say what was in production on a day or at a moment, how it got there and who approved it."""
    since_us = moment(on, "--on")
    until_us = None if since_us is None else _end_of(on, since_us)
    answer = _ask(
        store, "production", {"workload": workload, "on": on},
        lambda deployment: questions.production(
            deployment, workload, since_us=since_us, until_us=until_us, limit=limit
        ),
    )  # fmt: skip
    if output is Format.JSON:
        emit(_plain(answer))
        return
    for period in answer.periods:
        _print_period(period)
    if not answer.periods and not answer.cut:
        console.print(f"By the log, no version of {safe(workload)} was in production {safe(f'on {on}')}.")
    for start in answer.open_starts:
        console.print(
            f"[yellow]The promotion of version {safe(start.version)}[/] by release {safe(start.release_id)} "
            f"began at {_when(start.at_us)} and neither ended nor was refused: the alias may have moved."
        )
    _print_cut(cut=answer.cut)


def _end_of(on: str, since_us: int) -> int:
    return since_us + (_DAY // timedelta(microseconds=1) if _is_date(on) else 1)


def person(
    user: Annotated[str, typer.Argument(help="User id: of Airflow, or of the operating system.")],
    *,
    since: SinceOption = "",
    until: UntilOption = "",
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Show everything a person did: releases, answers, refused attempts, changes by hand, reading."""
    since_us, until_us = moment(since, "--since"), moment(until, "--until", end=True)
    answer = _ask(
        store, "person", {"user": user, "since": since, "until": until},
        lambda deployment: questions.person(deployment, user, since_us=since_us, until_us=until_us),
    )  # fmt: skip
    if output is Format.JSON:
        emit(_plain(answer))
        return
    for doings in answer.doings:
        times = f"{doings.count:,}{' or more' if doings.more else ''}"
        console.print(f"[bold]{safe(answer.user)}[/] {doings.what}: {times}")
        console.print(_event_table(doings.latest))
        if doings.count > len(doings.latest):
            console.print("[dim]  the latest ones; all of them: airlock audit query --actor[/]")


def policy(
    version: Annotated[str, typer.Argument(help="Version of the policy.")],
    *,
    since: SinceOption = "",
    until: UntilOption = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = questions.RELEASES,
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say who published a policy version, which releases it judged, and whether it was edited meanwhile."""
    since_us, until_us = moment(since, "--since"), moment(until, "--until", end=True)
    answer = _ask(
        store, "policy", {"policy": version, "since": since, "until": until},
        lambda deployment: questions.policy_use(
            deployment, version, since_us=since_us, until_us=until_us, limit=limit
        ),
    )  # fmt: skip
    if output is Format.JSON:
        emit({**_plain(answer), "was_edited": answer.was_edited})
        return
    _print_published(version, answer.published)
    if answer.was_edited:
        console.print(
            f"[bold red]Policy {safe(version)} was edited:[/] its releases were judged under "
            f"{len(answer.digests)} different contents."
        )
    for digest, count in answer.digests.items():
        console.print(f"{_releases(count)} under content [dim]{safe(digest)}[/]")
    if answer.unknown:
        console.print(f"[yellow]{_releases(answer.unknown)}[/] whose manifest cannot be read here:")
        _print_notes(answer.missing)
    rows = (
        (
            release.release_id,
            _when(release.frozen_us),
            release.state,
            _decided_words(release.decided),
            release.policy_digest[:12] or "not here",
        )
        for release in answer.releases
    )
    console.print(_table(("release", "frozen", "state", "decision", "content"), rows))
    if answer.total > len(answer.releases):
        console.print(f"[dim]The newest {len(answer.releases):,} of {answer.total:,}; raise --limit.[/]")
    _print_cut(cut=answer.cut)


def waivers(
    workload: Annotated[str, typer.Argument(help="Workload; all of them if not given.")] = "",
    *,
    rule: Annotated[str, typer.Option(help="Only for this rule or gate, such as `gate-privacy`.")] = "",
    since: SinceOption = "",
    until: UntilOption = "",
    store: StoreOption = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say which rule was waived, by whom, why and until when, and which releases rested on it."""
    since_us, until_us = moment(since, "--since"), moment(until, "--until", end=True)
    answer = _ask(
        store, "waivers", {"workload": workload, "rule": rule, "since": since, "until": until},
        lambda deployment: questions.waived(
            deployment, workload=workload or None, rule=rule or None, since_us=since_us, until_us=until_us
        ),
    )  # fmt: skip
    if output is Format.JSON:
        emit(_plain(answer))
        return
    if not answer.waivers:
        console.print("No waiver was asked for.")
    for waiver in answer.waivers:
        _print_waiver(waiver)
    _print_cut(cut=answer.cut)


# Words


def _plain(value: Any) -> Any:
    """An answer as JSON data."""
    if isinstance(value, Event):
        return value.to_data()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _when(microseconds: int | None) -> str:
    """A time as people compare it; with its fraction of a second only where it has one."""
    if microseconds is None:
        return ""
    return (_EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None).isoformat(sep=" ")


def _releases(count: int) -> str:
    return f"{count:,} release{'' if count == 1 else 's'}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(safe(cell) for cell in row))
    return table


def _event_table(lines: Iterable[questions.Line]) -> Table:
    def row(line: questions.Line) -> tuple[str, ...]:
        event = line.event
        what = event.release_id or " ".join(part for part in (event.workload, event.version) if part)
        entry = "" if line.seq is None else str(line.seq)
        return _when(event.occurred_us), event.kind, event.actor, what, _facts(event), entry

    return _table(("time (UTC)", "kind", "actor", "about", "facts", "entry"), map(row, lines))


def _facts(event: Event) -> str:
    facts = (f"{name}={value}" for name, value in event.data.items() if value not in ("", None, [], {}))
    return " ".join(facts)[:_FACTS]


def _decided_words(decided: questions.Decided) -> str:
    if not decided.outcome:
        return "not decided"
    return f"{decided.outcome}, track {decided.track or 'not computed'}, risk {decided.tier}"


def _print_cut(*, cut: bool) -> None:
    if cut:
        console.print("[yellow]Cut:[/] there are older ones that this answer does not go into.")


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        console.print(f"  [yellow]![/] {safe(note)}", soft_wrap=True)


def _print_facts(facts: Mapping[str, str]) -> None:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, safe(value))
    console.print(table)


def _print_adoption(adopted: questions.Adoption | None, consequence: str) -> None:
    if adopted is not None:
        console.print(
            f"[yellow]Adopted without a release[/] by {safe(adopted.user)} on {_when(adopted.at_us)}, "
            f"{consequence}: it was in production before Airlock. Reason: {safe(adopted.reason)}",
            soft_wrap=True,
        )


def _print_published(version: str, published: questions.Published | None) -> None:
    if published is None:
        console.print(f"[yellow]No publication of policy {safe(version)} is recorded.[/]")
        return
    when = f"Policy {safe(version)} was published {_when(published.at_us)}"
    what = f"content [dim]{safe(published.digest)}[/], event {published.event}"
    if published.first:
        console.print(f"{when} as one of the first of this deployment, so nobody was asked: {what}")
        return
    people = ", ".join(f"{safe(user)} ({safe(role)})" for role, user in published.approved_by.items())
    console.print(
        f"{when} in place of {safe(published.predecessor)}: asked for by {safe(published.requested_by)}, "
        f"approved by {people or 'nobody'}: {what}"
    )
    for sentence in published.sentences:
        console.print(f"  {safe(sentence)}", soft_wrap=True)


def _print_inputs(inputs: questions.Inputs) -> None:
    console.print(
        f"[bold]{safe(inputs.release_id)}[/]  {safe(inputs.state)}, submitted by {safe(inputs.submitter)} "
        f"on {_when(inputs.submitted_us)}"
    )
    policy = f"{inputs.policy_version} {inputs.policy_digest}".strip()
    environment = ", ".join(f"{name} {version}" for name, version in (inputs.environment or {}).items())
    _print_facts(
        {
            "training": _data_words(inputs.training),
            "": "" if inputs.training is None else _declared_words(inputs),
            "evaluation": _data_words(inputs.evaluation),
            "suite": f"{inputs.suite} {inputs.suite_digest}".strip(),
            "policy": policy,
            "MLflow run": inputs.mlflow_run,
            "environment": environment,
            "model files": inputs.artifact,
            "manifest": inputs.manifest,
        }
    )
    _print_notes(inputs.missing)


def _data_words(found: questions.Data | None) -> str:
    if found is None:
        return ""
    rows = "" if found.rows is None else f"{found.rows:,} rows, "
    return f"{found.path}  {rows}{found.size:,} bytes, sha256 {found.sha256}"


def _declared_words(inputs: questions.Inputs) -> str:
    if inputs.training_is_declared:
        return "the model's own files name this training data"
    if inputs.declared:
        return f"the model's own files name other training data: sha256 {inputs.declared}"
    return "the model's own files name no training data; this is what its workload file pointed to"


def _print_approval(approval: questions.Approval) -> None:
    console.print(
        f"[bold]{safe(approval.release_id)}[/]  {safe(approval.state)}, "
        f"submitted by {safe(approval.submitter)}"
    )
    decided = approval.decided
    _print_facts(
        {
            "decision": _decided_words(decided),
            "because": decided.sentence,
            "decided": _when(decided.at_us),
            "seats": ", ".join(decided.seats),
            "policy": approval.policy_version,
            "manifest": approval.manifest,
            "promotion": f"rested on {', '.join(approval.approved_by)}" if approval.approved_by else "",
        }
    )
    for answer in approval.answers:
        _print_answer(answer)
    for attempt in approval.refused:
        console.print(
            f"[red]refused[/] {_when(attempt.at_us)} [bold]{safe(attempt.user)}[/] tried to "
            f"{safe(attempt.choice)} on seat {attempt.seat + 1}: {safe(attempt.problem)}",
            soft_wrap=True,
        )
    if not approval.answers and not approval.refused:
        console.print("  [dim]nobody answered[/]")


def _print_answer(answer: questions.Given) -> None:
    style = "green" if answer.choice == "approve" else "red"
    console.print(
        f"[{style}]{safe(answer.choice)}[/] {_when(answer.at_us)} [bold]{safe(answer.user)}[/] as "
        f"{safe(answer.role)}: {safe(answer.comment) or 'no comment'}",
        soft_wrap=True,
    )
    gates = ", ".join(f"{said.gate} {said.verdict}" for said in answer.gates)
    _print_facts(
        {
            "  saw": gates or "no gate",
            "  manifest": answer.manifest,
            "  evidence": answer.evidence,
            "  policy": answer.policy,
        }
    )
    if not answer.bound:
        _print_notes(["this answer was given for another manifest than the release was frozen with"])


def _print_period(period: questions.Period) -> None:
    since = _when(period.since_us) or "before anything was recorded"
    until = _when(period.until_us) or "now"
    version = f"version {safe(period.version)}" if period.version else "no version"
    console.print(f"[bold]{version}[/]  since {since}, until {until}")
    people = ", ".join(f"{user} ({role})" if role else user for user, role in period.approved_by)
    facts = {"by release": period.release_id}
    if period.how == "promoted":
        facts |= {
            "submitted by": period.submitter,
            "decided": _decided_words(period.decided),
            "because": period.decided.sentence,
            "approved by": people or "nobody: its track asks no one",
        }
    elif period.how == "adopted":
        facts = {"adopted by": period.user, "reason": period.reason}
    elif period.how == "rolled back":
        facts |= {"rolled back by": period.user, "reason": period.reason}
    else:
        facts = {"found by": period.release_id}
    _print_facts(facts)
    _print_notes(period.notes)


def _print_waiver(waiver: questions.WaivedRule) -> None:
    console.print(
        f"[bold]{safe(waiver.rule)}[/] of {safe(waiver.workload)} {safe(waiver.versions)}: "
        f"{safe(waiver.state)} until {_when(waiver.until_us)}  [dim]{safe(waiver.waiver_id)}[/]",
        soft_wrap=True,
    )
    answered = f"{waiver.answered_by} as {waiver.role} on {_when(waiver.answered_us)}: {waiver.comment}"
    _print_facts(
        {
            "asked by": f"{waiver.asked_by} on {_when(waiver.asked_us)}: {waiver.reason}",
            waiver.choice: answered if waiver.choice else "",
            "taken back by": waiver.revoked_by,
            "releases": ", ".join(f"{use.release_id} ({use.outcome})" for use in waiver.uses),
        }
    )
