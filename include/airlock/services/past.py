"""Earlier releases of a workload beside the one that is looked at: how they ended, and how numbers moved.

The list comes from the overview, the numbers from the evidence itself, verified. People read them to see
whether a value is usual; nothing is decided by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airlock.core.audit import Kind
from airlock.core.canonical import parse_json
from airlock.core.errors import AirlockError
from airlock.services.overview import Row

if TYPE_CHECKING:
    from airlock.adapters.overview import Overview
    from airlock.core.release import Release
    from airlock.ports import EvidenceStore
    from airlock.services.deployment import Deployment

PAST = 10
"""Earlier releases that a trend goes back to."""

_COMMENTS = 50
"""Answers among which those about the earlier releases are looked for."""

Place = tuple[str, str, str]
"""Gate, name of the number, and the slice it is about."""


@dataclass(frozen=True)
class Point:
    """A number of an earlier release."""

    version: str
    release_id: str
    value: float


def earlier_releases(overview: Overview, release: Release) -> list[Row]:
    """The releases of the workload before this one, newest first."""
    return overview.query(
        "SELECT release_id, version, state, track, sentence, submitter, submitted_us FROM release "
        "WHERE workload = ? AND submitted_us < ? AND release_id <> ? ORDER BY submitted_us DESC LIMIT ?",
        [release.workload, release.submitted_us, release.release_id, PAST],
    )


def trends(deployment: Deployment, overview: Overview, rows: list[Row]) -> dict[Place, list[Point]]:
    """Numbers that have a limit, of earlier releases, oldest first.

    Evidence that cannot be read leaves a gap: it is no part of what is asked about this release.
    """
    found: dict[Place, list[Point]] = {}
    for row in reversed(rows):
        for line in overview.query(
            "SELECT gate, evidence FROM gate WHERE release_id = ?", [row["release_id"]]
        ):
            try:
                numbers = _limited(_Store(deployment.evidence), line["evidence"])
            except AirlockError:
                continue
            for (name, where), value in numbers.items():
                place = (line["gate"], name, where)
                found.setdefault(place, []).append(Point(row["version"], row["release_id"], value))
    return found


@dataclass(frozen=True, eq=False)
class _Store:
    """The evidence store as an argument of what is cached: content has one digest, wherever it lies."""

    evidence: EvidenceStore

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Store)


@lru_cache(maxsize=4096)
def _limited(store: _Store, digest: str) -> dict[tuple[str, str], float]:
    """Value of each number with a limit, by name and slice, of evidence that never changes."""
    record: dict[str, Any] = parse_json(store.evidence.get(digest))
    return {
        (metric["name"], metric.get("where", "")): metric["value"]
        for metric in record["result"].get("metrics", [])
        if metric.get("threshold") is not None and metric.get("value") is not None
    }


def comments_on(deployment: Deployment, workload: str, rows: list[Row]) -> dict[str, list[dict[str, str]]]:
    """What people wrote about the earlier releases of a workload, by release."""
    wanted = {row["release_id"] for row in rows}
    found: dict[str, list[dict[str, str]]] = {}
    if not wanted:
        return found
    oldest = min(row["submitted_us"] for row in rows)
    for entry in deployment.audit.events(
        workload=workload,
        kinds=[Kind.APPROVAL_RECORDED],
        since_us=oldest,
        newest_first=True,
        limit=_COMMENTS,
    ):
        event = entry.event
        if event.release_id in wanted and event.data["comment"]:
            said = {"user": event.actor, "role": event.data["role"], "choice": event.data["choice"]}
            found.setdefault(event.release_id, []).append({**said, "text": event.data["comment"]})
    return found
