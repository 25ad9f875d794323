"""``airlock preflight``: what a release would be told, before there is one."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.settings import Settings, load_settings
from airlock.cli.output import console, emit, safe
from airlock.core.decision import Outcome
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.core.preflight import Level, Preflight
from airlock.reporting import preflight as formats
from airlock.services.preflight import Desk, check_files

_STYLES = {Level.ERROR: ("✘", "red"), Level.WARNING: ("!", "yellow"), Level.NOTE: ("·", "dim")}
_TRACKS = {"green": "green", "yellow": "yellow", "red": "red"}
FAILED = 3


class Output(StrEnum):
    """Who reads the answer."""

    PRETTY = "pretty"
    JSON = "json"
    JUNIT = "junit"
    GITHUB = "github"
    SARIF = "sarif"


class FailOn(StrEnum):
    """Which findings make the command fail."""

    ERROR = "error"
    WARNING = "warning"


def preflight(
    workloads: Annotated[
        list[str] | None, typer.Argument(help="Workloads, or their files; all if none is named.")
    ] = None,
    *,
    version: Annotated[
        str, typer.Option(help="Version in the MLflow registry; without one, the files alone are judged.")
    ] = "",
    full: Annotated[
        bool, typer.Option("--full/--quick", help="Also run the models in the sandbox, and every gate.")
    ] = False,
    batch: Annotated[str, typer.Option(help="Evaluation batch; the workload's default if not given.")] = "",
    context: Annotated[Path | None, typer.Option(help="Text file: why this release.")] = None,
    answers: Annotated[
        Path | None, typer.Option(help="YAML file with answers, as `airlock interview` writes it.")
    ] = None,
    submitter: Annotated[str, typer.Option(help="Who will submit; nobody approves their own release.")] = "",
    fail_on: Annotated[
        FailOn, typer.Option(help="Exit 3 on findings of this level; warnings pass unless asked.")
    ] = FailOn.ERROR,
    output: Annotated[Output, typer.Option("--format", help="pretty for people, others for programs.")] = (
        Output.PRETTY
    ),
) -> None:
    """Say what a release would be told: findings, track, who is asked; without Airflow, recording nothing."""
    settings = load_settings()
    config = ConfigFolder(settings.config_dir)
    names = [_name(given) for given in workloads or []] or [path.stem for path in config.workload_files()]
    if not names:
        raise ConfigurationError(
            "there is no workload",
            where=str(settings.config_dir / "workloads"),
            fix="empty is invalid: add one",
        )
    text = _read(context)
    if not version:
        desk = Desk(
            config=config,
            config_dir=settings.config_dir,
            data_root=settings.data_root,
            engine=CelEngine(),
            today=datetime.now(UTC).date(),
            context=text,
        )
        found = [check_files(desk, name) for name in dict.fromkeys(names)]
    elif len(names) == 1:
        wanted = {"workload": names[0], "version": version, "batch": batch, "context": text}
        found = [_rehearsed(settings, answers, **wanted, submitter=submitter, full=full)]
    else:
        raise InvalidInputError(
            "a version belongs to one workload", where="--version", fix="name the workload it is of"
        )
    level = Level(fail_on)
    _write(found, output, level)
    raise SystemExit(FAILED if any(answer.at_level(level) for answer in found) else 0)


def _rehearsed(settings: Settings, answers: Path | None, **wanted: Any) -> Preflight:
    # Imported here: the stores and what reads a registry take longer than a look at the files.
    from airlock.services.deployment import open_deployment
    from airlock.services.interview import read_file
    from airlock.services.rehearse import SUBMITTER, Rehearsal, rehearse

    given = None if answers is None else read_file(answers)
    wanted["submitter"] = wanted["submitter"] or SUBMITTER
    return rehearse(open_deployment(settings), Rehearsal(answers=given, **wanted))


def _name(given: str) -> str:
    """A workload by name, or by its file as pre-commit names it; its model card stands beside it."""
    path = Path(given)
    return path.stem if path.suffix in (".yaml", ".md") else given


def _read(path: Path | None) -> str:
    try:
        return "" if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"cannot be read: {error}", where=str(path), fix="give a UTF-8 text file"
        ) from error


def _write(found: list[Preflight], output: Output, fail_on: Level) -> None:
    if output is Output.JSON:
        emit([answer.to_data() for answer in found])
    elif output is Output.SARIF:
        emit(formats.sarif(found))
    elif output is Output.JUNIT:
        sys.stdout.write(formats.junit(found, fail_on))
    elif output is Output.GITHUB:
        sys.stdout.write(formats.github(found))
    else:
        for answer in found:
            _show(answer)


def _show(answer: Preflight) -> None:
    title = f"{answer.workload} version {answer.version}" if answer.version else answer.workload
    console.print(f"[bold]{safe(title)}[/]")
    for note in answer.at_level(Level.NOTE):
        mark, style = _STYLES[note.level]
        place = f"{note.file}:{note.line}" if note.line else note.file
        console.print(
            f"[{style}]{mark}[/] [{style}]{safe(note.rule)}[/] {safe(note.message)}"
            + (f" [dim]{safe(place)}[/]" if place else ""),
            soft_wrap=True,
        )
        if note.level is not Level.NOTE:
            for label, text in (("why", note.why), ("fix", note.fix)):
                if text:
                    console.print(f"    [dim]{label}[/] {safe(text)}", soft_wrap=True)
    console.print(_prediction(answer))
    for text in answer.unknown:
        console.print(f"[dim]Not known yet: {safe(text)}[/]", soft_wrap=True)


def _prediction(answer: Preflight) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    words = {Outcome.ALLOW: "goes to production with no human", Outcome.PENDING: "people are asked"}
    if answer.outcome is not None:
        table.add_row("outcome", words.get(answer.outcome, "[red]would be denied[/]"))
    if answer.track is not None:
        table.add_row("track", f"[{_TRACKS[answer.track]}]{answer.track}[/]")
    elif answer.outcome is not Outcome.DENY:
        table.add_row("track", f"at least [{_TRACKS[answer.at_least]}]{answer.at_least}[/]")
    if answer.tier is not None:
        table.add_row("tier", str(answer.tier))
    if answer.risk is not None:
        odd = ", unusual for this workload" if answer.risk.anomaly else ""
        table.add_row("risk score", f"{answer.risk.score:g} of 100{odd}")
    for seat in answer.seats:
        table.add_row("approval", safe(f"{seat.role}: {', '.join(seat.people) or 'nobody'} ({seat.reason})"))
    return table
