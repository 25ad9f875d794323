"""A gate's answer for people and programs: an HTML fragment, a whole page, JSON, and a plot.

Nothing here depends on the time or the machine: the same answer gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from airlock import __version__
from airlock.core.canonical import canonical_json
from airlock.core.evidence import GateResult, Metric, Verdict
from airlock.reporting.gate_plot import number_text, plot
from airlock.reporting.templating import html_templates

REPORT_HTML, REPORT_JSON, PLOT_SVG = "report.html", "report.json", "plot.svg"
"""Names of the files in the evidence."""

_TONES = {Verdict.PASSED: "good", Verdict.WARNED: "warn", Verdict.FAILED: "bad", Verdict.ERROR: "bad"}
_ORDER = [Verdict.ERROR, Verdict.FAILED, Verdict.WARNED, Verdict.PASSED]
_ROWS = 400
"""Metrics in the table of a report; report.json has them all."""


@dataclass(frozen=True)
class GateView:
    """What a report shows.

    Attributes:
        gate: its name.
        title: what it checks, in words.
        why: why it matters.
        good: what good looks like.
        fix: how to fix it.
        result: its answer.
        limits: its configuration.
        subject: what was judged, such as a release.
    """

    gate: str
    title: str
    why: str
    good: str
    fix: str
    result: GateResult
    limits: dict[str, Any] = field(default_factory=dict)
    subject: str = ""


def answer_data(gate: str, result: GateResult) -> dict[str, Any]:
    """A gate's answer for programs. These keys are fixed."""
    return {
        "gate": gate,
        "verdict": str(result.verdict),
        "metrics": [metric_data(metric) for metric in result.metrics],
        "findings": [finding.to_data() for finding in result.findings],
        "engine": engine_text(result),
    }


def metric_data(metric: Metric) -> dict[str, Any]:
    """A metric for programs; ``lower`` and ``upper`` are the ends of its interval, ``null`` without one."""
    lower, upper = metric.interval or (None, None)
    return {
        "name": metric.name,
        "value": metric.value,
        "lower": lower,
        "upper": upper,
        "n": metric.n,
        "threshold": metric.threshold,
        "slice": metric.where,
    }


def engine_text(result: GateResult) -> str:
    """What computed the numbers: libraries with their versions."""
    named = {f"{name} {version}" for name, version in result.engines.items()}
    named |= {metric.engine for metric in result.metrics if metric.engine}
    return ", ".join(sorted(named)) or f"airlock {__version__}"


def report_files(view: GateView) -> dict[str, bytes]:
    """The files that go with the evidence: fragment, JSON, and the plot where there is something to plot."""
    files = {
        REPORT_HTML: fragment(view).encode(),
        REPORT_JSON: canonical_json(answer_data(view.gate, view.result)),
    }
    if (picture := plot(view.result.metrics)) is not None:
        files[PLOT_SVG] = picture.encode()
    return files


def fragment(view: GateView) -> str:
    """The report as a piece of HTML, with its own style, for a page of somebody else."""
    return _environment().get_template("gate_fragment.html.j2").render(**_values(view))


def page(view: GateView) -> str:
    """The report as a page of its own: no scripts, nothing from elsewhere."""
    return _environment().get_template("gate_page.html.j2").render(**_values(view))


def _values(view: GateView) -> dict[str, Any]:
    findings = sorted(view.result.findings, key=lambda finding: _ORDER.index(finding.verdict))
    picture = plot(view.result.metrics)
    return {
        "view": view,
        "result": view.result,
        "findings": findings,
        "metrics": view.result.metrics[:_ROWS],
        "more": max(0, len(view.result.metrics) - _ROWS),
        "picture": None if picture is None else Markup(picture),  # noqa: S704  # its texts are escaped where it is drawn
        "limits": [(name, _limit(value)) for name, value in sorted(view.limits.items())],
        "engine": engine_text(view.result),
        "tone": _TONES.__getitem__,
        "number": number_text,
    }


def _limit(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_limit(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_limit(item)}" for name, item in sorted(value.items())) or "none"
    if isinstance(value, float):
        return number_text(value)
    return "none" if value is None else str(value)


@cache
def _environment() -> Environment:
    return html_templates(keep_trailing_newline=True)
