"""How long what people wrote has to be kept: retention regimes and legal holds (requirement E-5).

A regime is a law or rule with a period. A legal hold has no end until somebody lifts it; which holds
stand follows from their events alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from airlock.core.audit import Event, Kind
from airlock.core.base import Value
from airlock.core.workload import Name

DAY_US = 86_400_000_000


class Regime(Value):
    """A law or rule that says how long records are kept."""

    id: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=500, description="regulation and article")]
    keep_days: Annotated[
        int, Field(ge=1, le=36_525, description="days from the time of the event on, at most a century")
    ]
    note: Annotated[
        str,
        Field(max_length=2000, description="how the days were chosen, and where the law counts otherwise"),
    ] = ""

    def until_us(self, recorded_us: int) -> int:
        """When something recorded at ``recorded_us`` may be erased, microseconds since 1970."""
        return recorded_us + self.keep_days * DAY_US


class Retention(Value):
    """The regimes of a deployment, from ``config/retention.yaml``; workloads name those they are under."""

    regimes: Annotated[list[Regime], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = self.ids
        if len(set(ids)) != len(ids):
            raise ValueError("regimes: an id appears twice; a workload could not say which it means")
        return self

    @property
    def ids(self) -> list[str]:
        """Ids in the order of the file."""
        return [regime.id for regime in self.regimes]

    def find(self, regime_id: str) -> Regime | None:
        """The regime with this id, or ``None``."""
        return next((regime for regime in self.regimes if regime.id == regime_id), None)


@dataclass(frozen=True)
class Hold:
    """A legal hold: what one person wrote, or what was written about one release or one workload, stays.

    Attributes:
        id: how people name it.
        deployment: where it was placed.
        subject: user id; this, the release or the workload is given, the other two are empty.
        release_id: the release.
        workload: the workload.
        reason: why, without personal data.
        placed_by: user id.
        placed_us: when, microseconds since 1970.
        lifted_by: user id; empty while it stands.
        lifted_us: when; 0 while it stands.
        lift_reason: why it was lifted.
    """

    id: str
    deployment: str
    subject: str
    release_id: str
    workload: str
    reason: str
    placed_by: str
    placed_us: int
    lifted_by: str = ""
    lifted_us: int = 0
    lift_reason: str = ""

    @property
    def stands(self) -> bool:
        """Whether nobody has lifted it."""
        return not self.lifted_by

    @property
    def about(self) -> str:
        """What it is about, in words."""
        if self.subject:
            return f"what {self.subject} wrote"
        return f"release {self.release_id}" if self.release_id else f"workload {self.workload}"

    def is_like(self, other: Hold) -> bool:
        """Whether the same person asked for the same thing for the same reason."""
        return replace(self, id="", placed_us=0, lifted_by="", lifted_us=0, lift_reason="") == replace(
            other, id="", placed_us=0, lifted_by="", lifted_us=0, lift_reason=""
        )

    def covers(self, *, subject: str, release_id: str, workload: str) -> bool:
        """Whether a text by this person about this release and workload has to stay while it stands."""
        pairs = ((self.subject, subject), (self.release_id, release_id), (self.workload, workload))
        return any(mine and mine == theirs for mine, theirs in pairs)


def holds_of(events: Iterable[Event]) -> list[Hold]:
    """Every hold that the events tell of, in the order they were placed.

    Law: a hold that was lifted twice was lifted by the first; one that was never placed cannot be lifted;
    an event that names no hold says nothing.
    """
    found: dict[tuple[str, str], Hold] = {}
    for event in events:
        if event.kind not in (Kind.HOLD_PLACED, Kind.HOLD_LIFTED) or not event.data.get("hold"):
            continue
        place = (event.deployment, str(event.data["hold"]))
        if event.kind is Kind.HOLD_PLACED:
            found.setdefault(place, _placed(event))
        elif place in found and found[place].stands:
            found[place] = replace(
                found[place],
                lifted_by=event.actor,
                lifted_us=event.occurred_us,
                lift_reason=str(event.data.get("reason", "")),
            )
    return list(found.values())


def _placed(event: Event) -> Hold:
    return Hold(
        id=str(event.data["hold"]),
        deployment=event.deployment,
        subject=str(event.data.get("subject", "")),
        release_id=event.release_id,
        workload=event.workload,
        reason=str(event.data.get("reason", "")),
        placed_by=event.actor,
        placed_us=event.occurred_us,
    )
