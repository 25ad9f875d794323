"""A replay as one page: no scripts, nothing loaded, light and dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airlock.core.replay import Difference
from airlock.reporting.templating import html_templates

_TONES = {
    "ALLOW": "good", "green": "good", "PENDING": "warn", "yellow": "warn", "DENY": "bad", "red": "bad",
}  # fmt: skip


def render_replay(
    *,
    version: str,
    digest: str,
    description: str,
    total: int,
    changed: Sequence[Difference],
    unsure: Sequence[Difference],
    failed: Mapping[str, str],
    since: str,
) -> str:
    """The page for people who have to agree to a new policy."""
    # What people and models wrote is in it, so everything is escaped.
    environment = html_templates()
    template = environment.get_template("replay.html.j2")
    return template.render(
        version=version,
        digest=digest,
        description=description,
        total=total,
        changed=changed,
        unsure=unsure,
        failed=failed,
        since=since,
        moves=moves(changed),
        workloads=sorted({one.workload for one in changed}),
        tone=lambda value: _TONES.get(str(value), ""),
        day=_day,
        seats=lambda seats: ", ".join(seats) or "nobody",
    )


def moves(changed: Sequence[Difference]) -> list[tuple[str, str, int]]:
    """How many releases go from what to what, most first: outcome and track in two words."""
    found = Counter((_said(one.before), _said(one.after)) for one in changed)
    return [(before, after, count) for (before, after), count in found.most_common()]


def _said(summary: Mapping[str, Any]) -> str:
    return f"{summary['outcome']} {summary['track'] or 'no track'}"


def _day(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).strftime("%Y-%m-%d")
