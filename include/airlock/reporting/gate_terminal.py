"""A gate's answer in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from airlock.core.evidence import GateResult, Verdict
from airlock.reporting.gate_plot import number_text
from airlock.reporting.terminal import clean

_ROWS = 40
"""Metrics that are shown; JSON and HTML have more."""

_MARKS = {
    Verdict.PASSED: ("✔", "green"),
    Verdict.WARNED: ("!", "yellow"),
    Verdict.FAILED: ("✘", "red"),
    Verdict.ERROR: ("✘", "bold red"),
}


def gate_answer(gate: str, result: GateResult, seconds: float) -> Group:
    """Verdict, metrics and findings, the most important last, where the eye is."""
    mark, style = _MARKS[result.verdict]
    head = Text.assemble(
        (f"{mark} {result.verdict}", style),
        "  ",
        (gate.replace("_", " "), "bold"),
        (f"  {seconds:.2f} s", "dim"),
    )
    parts: list[RenderableType] = [head, Text(clean(result.summary)), *_metrics(result), *_findings(result)]
    return Group(*parts)


def _metrics(result: GateResult) -> Iterator[RenderableType]:
    if not result.metrics:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("metric", "slice"):
        table.add_column(name, overflow="fold")
    for name in ("value", "interval", "limit", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric in islice(result.metrics, _ROWS):
        interval = " to ".join(map(number_text, metric.interval)) if metric.interval else ""
        table.add_row(
            Text(clean(metric.name)),
            Text(clean(metric.where)),
            number_text(metric.value),
            interval,
            "" if metric.threshold is None else number_text(metric.threshold),
            "" if metric.n is None else number_text(metric.n),
        )
    yield Text()
    yield table
    if (more := len(result.metrics) - _ROWS) > 0:
        yield Text(f"{more} more with --format json or html", style="dim")


def _findings(result: GateResult) -> Iterator[RenderableType]:
    for finding in result.findings:
        mark, style = _MARKS[finding.verdict]
        text = Text.assemble((f"{mark} ", style), clean(finding.message))
        if finding.where:
            text.append(f"  [{clean(finding.where)}]", style="dim")
        if finding.fix:
            text.append(f"\n  → {clean(finding.fix)}", style="dim")
        yield Text()
        yield text
