"""``airlock gate``: list, describe, run. A gate alone, on plain files."""

from __future__ import annotations

import io
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from airlock.cli.output import Format, FormatOption, console, emit
from airlock.core.errors import UnavailableError
from airlock.core.evidence import Verdict
from airlock.reporting.gate_report import page
from airlock.reporting.gate_terminal import gate_answer
from airlock.reporting.terminal import clean
from airlock.services.describe_gate import GateDescription, describe_gate, list_gates
from airlock.services.evaluate import gate_view
from airlock.services.run_gate import GateRun, run_gate

app = typer.Typer(help="Gates: checks with a verdict, alone or as part of a release.", no_args_is_help=True)

_EXIT = {Verdict.PASSED: 0, Verdict.WARNED: 0, Verdict.FAILED: 3, Verdict.ERROR: 1}


class ReportFormat(StrEnum):
    """Who reads the answer."""

    PRETTY = "pretty"
    JSON = "json"
    HTML = "html"


@app.command("list")
def list_command(*, output: FormatOption = Format.PRETTY) -> None:
    """List the gates there are, built in and installed."""
    gates = list_gates()
    if output is Format.JSON:
        emit(gates)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for gate in gates:
        note = "" if gate["source"] == "airlock" else f"  (from {gate['source']})"
        table.add_row(gate["gate"], Text(clean(gate["title"] + note)))
    console.print(table)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="Gate, as `airlock gate list` shows it.")],
    *,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say why a gate matters, what good looks like, how to fix it, and how to configure it."""
    description = describe_gate(name)
    if output is Format.JSON:
        emit(description.to_data())
        return
    _show(description)


def _show(description: GateDescription) -> None:
    text = description.text
    console.print(Text(clean(text.title), style="bold"))
    for title, words in (
        ("Why it matters", text.why),
        ("What good looks like", text.good),
        ("How to fix it", text.fix),
    ):
        console.print(Text.assemble(f"\n{title}: ", clean(words)))
    console.print(Text("\nLimits"), style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("name", "type", "shipped", "meaning"):
        table.add_column(column, overflow="fold")
    for field in description.fields:
        shipped = "" if field.shipped is None else json.dumps(field.shipped, ensure_ascii=False)
        table.add_row(*(Text(clean(cell)) for cell in (field.name, field.type, shipped, field.text)))
    console.print(table)
    console.print(Text(f"\nExample: {description.name}.yaml", style="bold"))
    console.print(Text(clean(description.example, lines=True)))
    console.print(Text(clean(description.command)), soft_wrap=True)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="Gate, as `airlock gate list` shows it.")],
    *,
    config: Annotated[Path, typer.Option(help="YAML: columns, positive, limits.")],
    current: Annotated[Path | None, typer.Option(help="Data to judge, Parquet or CSV.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Data to compare with, such as training.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Predictions, row for row with --current, or all columns at once.")
    ] = None,
    output: Annotated[
        ReportFormat, typer.Option("--format", help="pretty for people, json for programs, html for a page.")
    ] = ReportFormat.PRETTY,
    target: Annotated[Path | None, typer.Option("-o", "--output", help="Write it into this file.")] = None,
) -> None:
    """Judge Parquet or CSV files with one gate, without Airflow. Exits 0, or 3 failed, 1 not judged."""
    ran = run_gate(name, config, current=current, reference=reference, predictions=predictions)
    if output is ReportFormat.PRETTY and target is None:
        console.print(gate_answer(name, ran.result, ran.seconds))
    elif output is ReportFormat.JSON and target is None:
        emit(ran.to_data())
    else:
        _write(_text(ran, output, [path for path in (current, reference, predictions) if path]), target)
    raise SystemExit(_EXIT[ran.result.verdict])


def _text(ran: GateRun, output: ReportFormat, files: list[Path]) -> str:
    if output is ReportFormat.JSON:
        return json.dumps(ran.to_data(), indent=2, ensure_ascii=False) + "\n"
    if output is ReportFormat.HTML:
        subject = ", ".join(path.name for path in files)
        return page(gate_view(ran.gate, ran.result, ran.limits, subject))
    text = io.StringIO()
    Console(file=text, width=120, no_color=True).print(gate_answer(ran.gate, ran.result, ran.seconds))
    return text.getvalue()


def _write(text: str, target: Path | None) -> None:
    if target is None:
        typer.echo(text, nl=False)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnavailableError(
            f"the report cannot be written: {error.strerror}", where=str(target), fix="choose another file"
        ) from error
    console.print(Text(f"Wrote {clean(str(target))}"), soft_wrap=True)
