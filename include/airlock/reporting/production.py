"""A workload in production: as a page (no scripts, nothing loaded, light and dark) and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from airlock.core.signals import MonitoringEvidence
from airlock.reporting.templating import html_templates
from airlock.reporting.terminal import clean

STYLES = {"calm": "green", "raised": "bold red", "unsure": "yellow", "error": "bold magenta", "off": "dim"}
_TONES = {"calm": "good", "raised": "bad", "unsure": "warn", "error": "bad"}
_ACTIONS = {"none": "good", "alert": "warn", "shadow": "warn"}


def render_history(found: Mapping[str, Any], changes: Sequence[str]) -> str:
    """The page of a history; ``changes`` are its decision-change reports, which are HTML already."""
    # What people and models wrote is in it, so everything else is escaped.
    environment = html_templates()
    return environment.get_template("production.html.j2").render(
        **found,
        reports=[Markup(one) for one in changes],  # noqa: S704  # our own fragments, escaped when they were made
        tone=lambda reading: _TONES.get(reading, ""),
        weight=lambda action: _ACTIONS.get(action, "bad" if action else ""),
    )


def signal_table(evidence: MonitoringEvidence, *, calm: bool = True) -> Table:
    """Every signal of a window and what was found; without ``calm`` those alone that say something."""
    title = f"{evidence.workload} version {evidence.version}, {evidence.window.text}"
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in ("signal", "", "what was found"):
        table.add_column(column, overflow="fold", no_wrap=column != "what was found")
    for signal in evidence.signals:
        if not calm and signal.reading in ("calm", "off"):
            continue
        text = Text(clean(signal.text))
        if signal.estimated:
            text.append(" (estimate)", style="dim")
        if signal.fix and signal.reading != "calm":
            text.append(f"\n→ {clean(signal.fix)}", style="cyan")
        reading = Text(str(signal.reading), style=STYLES[signal.reading])
        table.add_row(signal.name.replace("_", " "), reading, text)
    return table
