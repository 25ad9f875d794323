"""What was in production, and how it got there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from airlock.core.audit import Event, Kind, Recorded
from airlock.core.errors import InvalidInputError
from airlock.services.deployment import Deployment
from airlock.services.moves import ENDS, STARTS, subject_of
from airlock.services.questions.reading import (
    RELEASES,
    UNDECIDED,
    Decided,
    find_case,
    newest,
    own,
    text,
    texts,
    unknown_workload,
)

NEXT = 50
"""Events after an interval that are looked at for the end of its last period."""

CLOCK_US = 60_000_000
"""A claimed time this far from the time of receipt is pointed out."""


@dataclass(frozen=True)
class Period:
    """A version in production from ``since_us`` until before ``until_us``.

    Attributes:
        since_us: ``None`` when it was in production before anything was recorded.
        until_us: ``None`` when nothing has replaced it.
        version: empty while nothing was in production.
        how: ``promoted``, ``adopted``, ``rolled back`` (to it), or ``before``: known only because a promotion
            found it there.
        approved_by: whose approval the promotion rested on, with their roles.
        notes: what makes the answer less than certain.
    """

    version: str
    since_us: int | None
    until_us: int | None
    how: str
    release_id: str = ""
    submitter: str = ""
    decided: Decided = UNDECIDED
    approved_by: tuple[tuple[str, str], ...] = ()
    user: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    event: int | None = None


@dataclass(frozen=True)
class Start:
    """A promotion or rollback that began; the alias may have moved."""

    version: str
    release_id: str
    at_us: int


@dataclass(frozen=True)
class Production:
    """What was in production, the newest first.

    Attributes:
        open_starts: promotions that neither ended nor were refused.
        cut: whether there were more periods than the answer shows.
    """

    workload: str
    periods: tuple[Period, ...]
    open_starts: tuple[Start, ...]
    cut: bool


MOVES = {
    Kind.PROMOTION_FINISHED: "promoted",
    Kind.CHAMPION_ADOPTED: "adopted",
    Kind.ROLLBACK_FINISHED: "rolled back",
}
"""Events after which another version is in production, and how it got there."""


def production(
    deployment: Deployment,
    workload: str,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    limit: int = RELEASES,
) -> Production:
    """What was in production at any moment of an interval, or ever.

    The order is that of the store, in which promotions of a workload follow one another; the times are
    those of the events that say so. The alias itself moves between ``promotion.started`` and
    ``promotion.finished``, likewise for a rollback, and right after ``champion.adopted``.

    Raises:
        InvalidInputError: the interval begins in the future.
        NotFoundError: nothing was ever promoted or adopted for such a workload.
        UnavailableError: the store does not answer.
    """
    if since_us is not None and since_us > deployment.clock.now_us():
        raise InvalidInputError("that moment lies in the future", fix="ask for one that has been")
    entries, cut = _moves(deployment, workload, until_us)
    periods = list(_periods([entry for entry in entries if entry.event.kind in MOVES], whole=not cut))
    starts = tuple(start for start in _open_starts(entries) if until_us is None or start.at_us < until_us)
    if not periods and not starts:
        raise unknown_workload(deployment, workload)
    wanted = [period for period in reversed(periods) if _overlaps(period, since_us, until_us)]
    return Production(
        workload=workload,
        periods=tuple(_explained(deployment, period, entries, until_us) for period in wanted[:limit]),
        open_starts=starts,
        cut=cut or len(wanted) > limit,
    )


def _moves(deployment: Deployment, workload: str, until_us: int | None) -> tuple[list[Recorded], bool]:
    """Moves of the champion and what belongs to them, up to a time and those that came next."""
    kinds = sorted({*MOVES, *STARTS, *ENDS, Kind.GUARD_ALIAS_MOVED})
    entries, cut = newest(deployment, workload=workload, kinds=kinds, until_us=until_us)
    if until_us is not None:
        later = deployment.audit.events(workload=workload, kinds=kinds, since_us=until_us, limit=NEXT)
        entries = sorted([*entries, *own(deployment, later)], key=lambda entry: entry.ingest_id or 0)
    return entries, cut


def _overlaps(period: Period, since_us: int | None, until_us: int | None) -> bool:
    starts_in_time = until_us is None or period.since_us is None or period.since_us < until_us
    ends_in_time = since_us is None or period.until_us is None or period.until_us > since_us
    return starts_in_time and ends_in_time


def _periods(moves: list[Recorded], *, whole: bool) -> Iterator[Period]:
    """One period for each move, and one before the first of all moves if it found a version there."""
    if not moves:
        return
    first = moves[0].event
    before = text(first, "previous") if whole and first.kind is not Kind.CHAMPION_ADOPTED else ""
    if before:
        note = "no event says since when: it was there when the first recorded promotion came"
        yield Period(before, None, first.occurred_us, "before", first.release_id, notes=(note,))
    leaves = _replaced_us(moves)
    for number, entry in enumerate(moves):
        event = entry.event
        earlier = _arrived(moves[number - 1].event) if number else before if whole else None
        back = event.kind is Kind.ROLLBACK_FINISHED
        yield Period(
            version=_arrived(event),
            since_us=event.occurred_us,
            until_us=leaves[number],
            how=MOVES[event.kind],
            release_id=text(event, "to_release") if back else event.release_id,
            user="" if event.kind is Kind.PROMOTION_FINISHED else event.actor,
            reason=text(event, "reason"),
            notes=tuple(_doubts(event, earlier)),
            event=entry.ingest_id,
        )


def _arrived(event: Event) -> str:
    """As ``moves.arrived``, of an event that somebody may have written by hand."""
    return text(event, "to") if event.kind is Kind.ROLLBACK_FINISHED else event.version


def _replaced_us(moves: list[Recorded]) -> list[int | None]:
    """For each move, when a later one took its place."""
    leaves: list[int | None] = []
    earliest: int | None = None
    for entry in reversed(moves):
        since = entry.event.occurred_us
        # A clock that went back cannot make a version leave before it came.
        leaves.append(None if earliest is None else max(since, earliest))
        earliest = since if earliest is None else min(since, earliest)
    return leaves[::-1]


def _doubts(event: Event, earlier: str | None) -> Iterator[str]:
    """Why the record of a move may not be the whole truth; ``earlier`` is what was there by the log."""
    if event.kind is Kind.CHAMPION_ADOPTED:
        yield "it was in production before that; since when was never recorded"
    elif earlier is not None and (found := text(event, "previous")) != earlier:
        mover = "rollback" if event.kind is Kind.ROLLBACK_FINISHED else "release"
        yield (
            f"its {mover} found {_version_words(found)} in production, where the log has "
            f"{_version_words(earlier)}: the alias was moved without Airlock"
        )
    off = abs(event.received_us - event.occurred_us) // 1_000_000
    if off * 1_000_000 >= CLOCK_US:
        yield f"the time it claims is {off:,} s away from the time the store received it"


def _version_words(version: str) -> str:
    return f"version {version}" if version else "no version"


def _open_starts(entries: list[Recorded]) -> list[Start]:
    running: dict[str, Event] = {}
    for entry in entries:
        event = entry.event
        if event.kind in STARTS:
            running[subject_of(event)] = event
        elif event.kind in ENDS:
            running.pop(subject_of(event), None)
    return [Start(_started(event), event.release_id, event.occurred_us) for event in running.values()]


def _started(event: Event) -> str:
    """The version that a start was to bring."""
    return event.version if event.kind is Kind.PROMOTION_STARTED else text(event, "to")


def _explained(
    deployment: Deployment, period: Period, entries: list[Recorded], until_us: int | None
) -> Period:
    """A period with the decision behind it, and whether its end is blurred where it was asked about."""
    notes = [*period.notes, *_foreign(period, entries), *_blur(period, entries, until_us)]
    if period.how == "rolled back":
        return replace(period, reason=_reason(period, entries), notes=tuple(notes))
    if period.how != "promoted":
        return replace(period, notes=tuple(notes))
    case = find_case(deployment, period.release_id)
    if case is None:
        notes.append("the release behind it was never submitted here")
        return replace(period, notes=tuple(notes))
    roles = {answer.event.actor: text(answer.event, "role") for answer in case.all(Kind.APPROVAL_RECORDED)}
    finished = case.last(Kind.PROMOTION_FINISHED)
    people = () if finished is None else texts(finished.event, "approved_by")
    return replace(
        period,
        submitter=case.submitted.event.actor,
        decided=case.decided,
        approved_by=tuple((user, roles.get(user, "")) for user in people),
        notes=tuple(notes),
    )


def _reason(period: Period, entries: list[Recorded]) -> str:
    """Why it was rolled back; that stands in the start alone, so that it is erased once for all."""
    finished = next((entry.event for entry in entries if entry.ingest_id == period.event), None)
    if finished is None:
        return ""
    starts = (entry.event for entry in entries if entry.event.kind is Kind.ROLLBACK_STARTED)
    return next((text(start, "reason") for start in starts if subject_of(start) == subject_of(finished)), "")


def _foreign(period: Period, entries: list[Recorded]) -> Iterator[str]:
    """That somebody moved the alias by hand meanwhile, as the guard found."""
    for entry in entries:
        event = entry.event
        if event.kind is not Kind.GUARD_ALIAS_MOVED or text(event, "problem") not in ("moved", "removed"):
            continue
        after = period.since_us is None or event.occurred_us >= period.since_us
        if after and (period.until_us is None or event.occurred_us < period.until_us):
            yield f"the guard found that the alias was moved to {_version_words(text(event, 'to'))} by hand"


def _blur(period: Period, entries: list[Recorded], until_us: int | None) -> Iterator[str]:
    """That the next version was on its way in already when the interval ends."""
    if until_us is None or period.until_us is None or until_us > period.until_us:
        return
    for entry in entries:
        event = entry.event
        if event.kind not in STARTS or not event.occurred_us < until_us:
            continue
        ends = (other.event for other in entries if subject_of(other.event) == subject_of(event))
        if any(end.kind in MOVES and end.occurred_us == period.until_us for end in ends):
            what = "promotion of" if event.kind is Kind.PROMOTION_STARTED else "rollback to"
            yield f"the {what} {_version_words(_started(event))} had begun; the alias moves before its end"
