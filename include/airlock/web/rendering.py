"""Templates: strict about missing values, everything escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment

from airlock.reporting.pack import TONES
from airlock.reporting.templating import html_templates
from airlock.web.drawing import LINE, SPARK_HEIGHT, SPARK_WIDTH

_TONES = {
    **TONES,
    "checking": "plain",
    "steady": "good", "moving": "warn", "drifted": "bad", "unknown": "warn",
    "asked for": "warn", "active": "warn", "expiring": "bad",
    "critical": "bad", "open": "bad", "acknowledged": "warn", "resolved": "good",
}  # fmt: skip
"""As in the evidence pack; but a page is looked at while gates still run, and that is no warning."""


def render(template: str, **values: Any) -> str:
    """A page from a template; a value the template asks for and does not get is an error."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = html_templates("airlock.web")
    environment.globals |= {"link": link, "LINE": LINE, "SPARK": (SPARK_WIDTH, SPARK_HEIGHT)}
    environment.filters |= {
        "tone": lambda value: _TONES.get(str(value), "plain"),
        "moment": moment,
        "span": span,
        "number": number,
        "percent": lambda value: "\N{EN DASH}" if value is None else f"{100 * value:.1f} %",
        "money": lambda value: f"{value:,.0f} USD",
        "words": lambda value: str(value).replace("_", " "),
    }
    return environment


def link(*parts: object, **query: object) -> str:
    """A path of escaped parts and a query of what is set."""
    path = "/".join(quote(str(part), safe="") for part in parts)
    chosen = {name: value for name, value in query.items() if value not in ("", None, 0)}
    return f"/{path}" + (f"?{urlencode(chosen)}" if chosen else "")


def airflow_run(dag_id: str, run_id: str) -> str:
    """The run in Airflow's own pages; run ids hold ``+`` and ``:``."""
    return f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def moment(us: int | None) -> str:
    """A time for people, in UTC."""
    return "" if us is None else datetime.fromtimestamp(us / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M")


_UNITS = (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000))


def span(us: float) -> str:
    """A span of time in its largest fitting unit: ``2 days``, ``5 hours``."""
    for name, size in _UNITS:
        if us >= size or name == "second":
            n = int(us // size)
            return f"{n} {name}" + ("" if n == 1 else "s")
    raise AssertionError(us)


def number(value: float | None) -> str:
    """A measured number in at most four significant digits, or a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.4g}"  # noqa: PLR2004
