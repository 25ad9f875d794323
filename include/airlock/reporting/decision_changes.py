"""The decision-change report as a fragment of a page; the same report gives the same bytes."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment

from airlock.reporting.templating import html_templates

_WAYS = {
    "classification": {
        "up": "accepted now, declined before",
        "down": "declined now, accepted before",
    },
    "regression": {"up": "higher than before", "down": "lower than before"},
    "multiclass": {"changed": "decided differently"},
}


def fragment(report: dict[str, Any]) -> str:
    """HTML without scripts or styles of its own; every text of others is escaped."""
    return _environment().get_template("decision_changes.html.j2").render(report=report, ways=way)


def way(task: str, name: str) -> str:
    """In which direction decisions changed, in words."""
    return _WAYS[task].get(name, "decided differently")


def sentence(report: dict[str, Any]) -> str:
    """The whole in one sentence."""
    parts = []
    for one in report["data"]:
        rows, changed = one["flips"]["rows"], one["flips"]["changed"]
        parts.append(f"{changed:,} of {rows:,} cases ({share(changed, rows)}) of {one['name']}")
    left = f"version {report['from']}" if report["from"] else "no version"
    into = f"version {report['to']}" if report["to"] else "no version"
    if not parts:
        return f"{report['workload']}: from {left} to {into}; {report['problem']}"
    return f"{report['workload']}: {into} decides {' and '.join(parts)} differently than {left}"


def share(part: int, whole: int) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.1f} %" if whole else "none"


@cache
def _environment() -> Environment:
    environment = html_templates()
    environment.filters["share"] = lambda pair: share(*pair)
    return environment
