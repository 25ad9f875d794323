"""``airlock expectations``: a first suite from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.errors import ConflictError
from airlock.services.expectations import profile_suite, suite_text

app = typer.Typer(help="Suites of expectations that data must meet.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make it a group of commands, however many stand in this file."""


@app.command()
def profile(
    file: Annotated[Path, typer.Argument(help="Training data, Parquet or CSV.")],
    *,
    target: Annotated[Path, typer.Option("--output", "-o", help="Suite to write, such as suite.yaml.")],
    name: Annotated[str, typer.Option(help="Name of the suite; the file's when left out.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a suite that is there.")] = False,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Write a suite that this data meets. A person reads and corrects it before it counts as reviewed."""
    if target.exists() and not force:
        raise ConflictError(
            "there is a suite already", where=str(target), fix="choose another file, or --force to replace it"
        )
    suite = profile_suite(file, name or target.stem)
    target.write_text(suite_text(suite), encoding="utf-8")
    if output is Format.JSON:
        emit(suite.to_data())
        return
    rows = 0 if suite.profiled is None else suite.profiled.rows
    console.print(
        f"Wrote {len(suite.expectations)} expectations from {rows:,} rows to {safe(str(target))}.\n"
        "Read every line: codes and errors in this data are in it as if they were right. "
        "Then set reviewed: true under a new version."
    )
