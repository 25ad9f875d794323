"""What the questions have in common: bounded reading of events and evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from airlock.core.audit import Event, Kind, Recorded
from airlock.core.errors import AirlockError, IntegrityError, InvalidInputError, NotFoundError
from airlock.core.release import State
from airlock.services.deployment import Deployment

RELEASES = 20
"""Releases that one answer goes into, the newest ones."""

SEEN = 5000
"""Events of one kind that a question looks at, the newest ones."""

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """An event, its number in the store, and its place in the signed log, ``None`` while it has none."""

    event: Event
    ingest_id: int | None
    seq: int | None


def lines_of(deployment: Deployment, entries: list[Recorded]) -> tuple[Line, ...]:
    """Events with their places in the signed log."""
    seqs = deployment.log.seqs([entry.ingest_id for entry in entries if entry.ingest_id is not None])
    return tuple(Line(entry.event, entry.ingest_id, seqs.get(entry.ingest_id or 0)) for entry in entries)


@dataclass(frozen=True)
class GateSaid:
    """What a gate had said."""

    gate: str
    verdict: str
    summary: str
    evidence: str


@dataclass(frozen=True)
class Decided:
    """How a release was decided, in the words of that moment; empty before that."""

    outcome: str = ""
    track: str = ""
    tier: str = ""
    sentence: str = ""
    seats: tuple[str, ...] = ()
    decision: str = ""
    at_us: int | None = None


UNDECIDED = Decided()


@dataclass(frozen=True)
class Adoption:
    """A version that became champion without a release, because it was in production before Airlock."""

    user: str
    at_us: int
    reason: str
    event: int | None


_OF_A_CASE = (
    Kind.RELEASE_SUBMITTED,
    Kind.RELEASE_FROZEN,
    Kind.GATE_EVALUATED,
    Kind.RELEASE_DECIDED,
    Kind.APPROVAL_RECORDED,
    Kind.APPROVAL_REFUSED,
    Kind.PROMOTION_STARTED,
    Kind.PROMOTION_FINISHED,
    Kind.PROMOTION_REFUSED,
    Kind.VERSION_QUARANTINED,
    Kind.RELEASE_SEALED,
)


@dataclass(frozen=True)
class Case:
    """The events of a release that say how it went; nothing in them is believed to be well-formed."""

    submitted: Recorded
    entries: tuple[Recorded, ...]

    def all(self, kind: Kind) -> list[Recorded]:
        """Every event of a kind, in order."""
        return [entry for entry in self.entries if entry.event.kind is kind]

    def last(self, kind: Kind) -> Recorded | None:
        """The newest event of a kind."""
        return next(iter(self.all(kind)[::-1]), None)

    @property
    def gates(self) -> tuple[GateSaid, ...]:
        """What the gates said, in the order of their answers."""
        return tuple(_gate(entry.event) for entry in self.all(Kind.GATE_EVALUATED))

    def gates_before(self, answer: Recorded) -> tuple[GateSaid, ...]:
        """What the gates had said when ``answer`` was recorded."""
        before = self.entries[: self.entries.index(answer)]
        return tuple(_gate(entry.event) for entry in before if entry.event.kind is Kind.GATE_EVALUATED)

    @property
    def decided(self) -> Decided:
        """The decision in the words of its event."""
        entry = self.last(Kind.RELEASE_DECIDED)
        if entry is None:
            return UNDECIDED
        event = entry.event
        words = {name: text(event, name) for name in ("outcome", "track", "tier", "sentence", "decision")}
        return Decided(**words, seats=texts(event, "seats"), at_us=event.occurred_us)

    @property
    def state(self) -> str:
        """How it ended; while it has not, how far it came."""
        if self.last(Kind.PROMOTION_FINISHED) is not None:
            return State.PROMOTED
        sealed = self.last(Kind.RELEASE_SEALED)
        if sealed is not None:
            return text(sealed.event, "state")
        if self.last(Kind.PROMOTION_REFUSED) is not None:
            return State.REFUSED
        return "not ended" if self.last(Kind.RELEASE_DECIDED) is None else "decided, not ended"


def _gate(event: Event) -> GateSaid:
    return GateSaid(*(text(event, name) for name in ("gate", "verdict", "summary", "evidence")))


def find_case(deployment: Deployment, release_id: str) -> Case | None:
    """A release of this deployment, or ``None`` when it was never submitted."""
    entries, _ = newest(deployment, kinds=_OF_A_CASE, release_id=release_id)
    submitted = next((entry for entry in entries if entry.event.kind is Kind.RELEASE_SUBMITTED), None)
    return None if submitted is None else Case(submitted, tuple(entries))


def find_cases(deployment: Deployment, workload: str, version: str) -> tuple[list[Case], bool]:
    """The newest releases of a version, and whether there are older ones."""
    found, cut = newest(deployment, kinds=[Kind.RELEASE_SUBMITTED], workload=workload, version=version)
    cases = [find_case(deployment, entry.event.release_id) for entry in found[::-1][:RELEASES]]
    return [case for case in cases if case is not None], cut or len(found) > RELEASES


def newest(deployment: Deployment, **conditions: Any) -> tuple[list[Recorded], bool]:
    """The newest events of this deployment, oldest first, and whether there are older ones.

    Others may share the store.
    """
    found = deployment.audit.events(limit=SEEN + 1, newest_first=True, **conditions)
    return own(deployment, found[:SEEN][::-1]), len(found) > SEEN


def own(deployment: Deployment, entries: list[Recorded]) -> list[Recorded]:
    """Those events that this deployment wrote."""
    return [entry for entry in entries if entry.event.deployment == deployment.settings.deployment]


def unknown_version(deployment: Deployment, workload: str, version: str) -> NotFoundError:
    """The error that names the versions there are."""
    kinds = [Kind.RELEASE_SUBMITTED, Kind.CHAMPION_ADOPTED]
    known, _ = newest(deployment, kinds=kinds, workload=workload)
    if not known:
        return unknown_workload(deployment, workload)
    versions = list(dict.fromkeys(entry.event.version for entry in known[::-1]))[:RELEASES]
    return NotFoundError(
        f"nothing is recorded about version {version!r} of {workload}",
        fix=f"its newest versions: {', '.join(versions)}",
    )


def unknown_workload(deployment: Deployment, workload: str) -> NotFoundError:
    """The error that says where to look instead."""
    name = deployment.settings.deployment
    some = deployment.audit.events(workload=workload, limit=RELEASES, newest_first=True)
    others = {entry.event.deployment for entry in some}
    if others - {name}:
        fix = f"the store has it for deployment {', '.join(sorted(others - {name}))}: set AIRLOCK_DEPLOYMENT"
    elif others:
        fix = "none of its releases got that far; see `airlock audit query --workload`"
    else:
        fix = "the names are those of the files in config/workloads/; see `airlock workload list`"
    return NotFoundError(f"nothing of that kind is recorded for {workload!r} in deployment {name}", fix=fix)


class EvidenceReader:
    """Reads evidence; what is not here or was changed becomes a sentence instead of an end."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.missing: list[str] = []

    def read(self, what: str, digest: str, parse: Callable[[bytes], T]) -> T | None:
        """Read and parse, or note in ``missing`` why not."""
        try:
            return self._parsed(digest, parse)
        except AirlockError as error:
            self.missing.append(f"{what}: {error}")
            return None

    def _parsed(self, digest: str, parse: Callable[[bytes], T]) -> T:
        content = self._deployment.evidence.get(digest)
        try:
            return parse(content)
        except (InvalidInputError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise IntegrityError(
                f"evidence {digest} is not what the event says it is", fix="look at who wrote that event"
            ) from error


def text(event: Event, name: str) -> str:
    """A text of an event; whoever may write can leave it out, or put something else there."""
    value = event.data.get(name)
    return "" if value is None else value if isinstance(value, str) else str(value)


def texts(event: Event, name: str) -> tuple[str, ...]:
    """A list of texts of an event, with the same caution."""
    value = event.data.get(name)
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def number(event: Event, name: str) -> int:
    """A whole number of an event; -1 where there is none."""
    value = event.data.get(name)
    return value if type(value) is int else -1


def find_adoption(deployment: Deployment, workload: str, version: str) -> Adoption | None:
    """How a version was adopted, if it was."""
    found, _ = newest(deployment, kinds=[Kind.CHAMPION_ADOPTED], workload=workload, version=version)
    for entry in found:
        event = entry.event
        return Adoption(event.actor, event.occurred_us, text(event, "reason"), entry.ingest_id)
    return None
