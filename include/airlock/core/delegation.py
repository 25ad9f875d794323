"""Delegation: somebody who holds a role lets another person answer in it, for some days (requirement A-6).

A delegation gives what its giver holds in ``people.yaml`` and nothing else: who acts for somebody cannot pass
that on. Whether an answer under it counts is decided when it is given and once more at promotion.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from airlock.core.audit import Event, Kind
from airlock.core.base import Value
from airlock.core.dates import DAY_US
from airlock.core.workload import Name


class Delegation(Value):
    """One delegation, as its events tell it.

    Attributes:
        giver: who holds the roles.
        to: who may answer in the giver's place.
        from_us: first moment, microseconds since 1970.
        until_us: the moment it is over.
        reason: why, in the giver's words.
        ended_us: when it was taken back, or ``None``. What was answered under it counts no more, unless the
            release was promoted before.
    """

    delegation_id: str
    giver: str
    to: str
    roles: Annotated[list[Name], Field(min_length=1)]
    from_us: int
    until_us: int
    reason: str
    ended_us: int | None = None

    @property
    def days(self) -> float:
        """How long it lasts."""
        return (self.until_us - self.from_us) / DAY_US

    def covers(self, at_us: int) -> bool:
        """Whether it holds at a moment, had it not been taken back."""
        return self.from_us <= at_us < self.until_us

    def state(self, now_us: int) -> str:
        """In a word: ``in force``, ``to come``, ``over`` or ``taken back``."""
        if self.ended_us is not None:
            return "taken back"
        if self.covers(now_us):
            return "in force"
        return "to come" if now_us < self.from_us else "over"


def read_delegations(events: Iterable[Event]) -> list[Delegation]:
    """Delegations in the order they were given."""
    found: dict[str, Delegation] = {}
    for event in events:
        name = str(event.data["delegation"])
        if event.kind is Kind.DELEGATION_GIVEN:
            found.setdefault(
                name,
                Delegation(
                    delegation_id=name,
                    giver=event.actor,
                    to=event.data["to"],
                    roles=event.data["roles"],
                    from_us=event.data["from_us"],
                    until_us=event.data["until_us"],
                    reason=event.data["reason"],
                ),
            )
        elif event.kind is Kind.DELEGATION_ENDED and name in found and found[name].ended_us is None:
            found[name] = found[name].model_copy(update={"ended_us": event.occurred_us})
    return list(found.values())
