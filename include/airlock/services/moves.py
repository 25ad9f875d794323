"""Moves of the champion: promotions, rollbacks, adoptions and what the guard undoes, as the log has them.

Everything that moves a champion takes the next number of its workload before it touches the registry, and
keeps it until it has ended. Two movers never hold the same number, so moves of a workload follow one another
whoever makes them: a release, a person, a monitor or the guard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from airlock.core.audit import Event, Kind
from airlock.services.deployment import Deployment

STARTS = frozenset({Kind.PROMOTION_STARTED, Kind.ROLLBACK_STARTED, Kind.GUARD_UNDO_STARTED})
"""After these the alias may move, until the end of the same move."""

ENDS = frozenset(
    {
        Kind.PROMOTION_FINISHED,
        Kind.PROMOTION_REFUSED,
        Kind.ROLLBACK_FINISHED,
        Kind.ROLLBACK_REFUSED,
        Kind.GUARD_UNDO_FINISHED,
    }
)

ARRIVALS = frozenset({Kind.PROMOTION_FINISHED, Kind.CHAMPION_ADOPTED, Kind.ROLLBACK_FINISHED})
"""After these another version, or none, is in production."""

KINDS = (*sorted(STARTS | ENDS), Kind.CHAMPION_ADOPTED)


@dataclass(frozen=True)
class Moves:
    """The moves of one workload's champion, in the order of the log.

    Attributes:
        ended: how many numbered moves have ended.
        running: starts without an end; at most one, unless somebody wrote into the log by hand.
        arrivals: moves after which another version was in production.
        events: all of them.
    """

    ended: int
    running: tuple[Event, ...]
    arrivals: tuple[Event, ...]
    events: tuple[Event, ...]

    @property
    def next_number(self) -> int:
        """The number of the next move; the running one holds it."""
        return self.ended + 1

    @property
    def last(self) -> Event | None:
        """The move that made what should be in production now; ``None`` before the first."""
        return self.arrivals[-1] if self.arrivals else None

    @property
    def champion(self) -> str | None:
        """The version that should be in production by the log; ``None`` when none should."""
        return None if self.last is None else arrived(self.last) or None

    def running_number(self) -> Event | None:
        """The move that holds the next number, or ``None``."""
        return self.running[0] if self.running else None

    @property
    def left(self) -> frozenset[str]:
        """Versions that were rolled back and have not come back since."""
        found: set[str] = set()
        for event in self.arrivals:
            if event.kind is Kind.ROLLBACK_FINISHED and event.version:
                found.add(event.version)
            found.discard(arrived(event))
        return frozenset(found)

    def release_of(self, version: str) -> str:
        """The newest release that brought a version into production; empty when it was adopted."""
        for event in reversed(self.arrivals):
            if event.kind is Kind.PROMOTION_FINISHED and event.version == version:
                return event.release_id
        return ""

    def earlier(self) -> list[str]:
        """Versions that were in production before, the newest first, each once; without the present one."""
        versions = [arrived(event) for event in reversed(self.arrivals)]
        return [one for one in dict.fromkeys(versions) if one and one != self.champion]


def arrived(event: Event) -> str:
    """The version that is in production after a move; empty for none.

    A rollback is about the version it leaves, so where it went stands in its data.
    """
    return str(event.data["to"] or "") if event.kind is Kind.ROLLBACK_FINISHED else event.version


def subject_of(event: Event) -> str:
    """What ties the start of a move to its end."""
    move = event.data.get("move")
    return event.release_id if move is None else f"#{move}"


def fold(events: Iterable[Event]) -> Moves:
    """Moves from the events of one workload."""
    kept = tuple(events)
    running: dict[str, Event] = {}
    ended = 0
    for event in kept:
        subject = subject_of(event)
        if event.kind in STARTS:
            running[subject] = event
        elif event.kind in ENDS and running.pop(subject, None) is not None:
            ended += 1
    arrivals = tuple(event for event in kept if event.kind in ARRIVALS)
    return Moves(ended, tuple(running.values()), arrivals, kept)


def moves_of(deployment: Deployment, workload: str) -> Moves:
    """The moves of a workload's champion.

    Raises:
        UnavailableError: the audit store does not answer.
    """
    name = deployment.settings.deployment
    recorded = deployment.audit.events(workload=workload, kinds=KINDS)
    return fold(entry.event for entry in recorded if entry.event.deployment == name)


def champions(deployment: Deployment) -> dict[str, Event]:
    """For each workload the move that made what is in production now."""
    name = deployment.settings.deployment
    recorded = deployment.audit.events(kinds=sorted(ARRIVALS))
    return {entry.event.workload: entry.event for entry in recorded if entry.event.deployment == name}


def number_key(workload: str, number: int) -> str:
    """The key under which a move takes its number; whoever is second gets a conflict."""
    return f"promotion/{workload}/{number}"
