"""Past releases under another policy, and what would be different (P-4).

A gate is not run again. Where only its limits changed, its stored numbers can say what it would have said
now (``core/held.py``); where they cannot, the answer is "needs a re-run" and never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airlock.core.base import Value
from airlock.core.decision import Ruling
from airlock.core.rules import Reason


class Difference(Value):
    """One release under both policies.

    Attributes:
        before: outcome, track and seats as decided then; ``after``: under the other policy.
        why: rules whose effect differs, in words.
        unsure: gates whose answer under the other policy only a re-run can give.
    """

    release_id: str
    workload: str
    version: str
    decided_us: int
    before: dict[str, Any]
    after: dict[str, Any]
    why: list[str]
    unsure: list[str]

    @property
    def changed(self) -> list[str]:
        """Which of outcome, track and seats differ."""
        return [name for name in ("outcome", "track", "seats") if self.before[name] != self.after[name]]


def summary_of(ruling: Ruling) -> dict[str, Any]:
    """What people compare: outcome, track, and the roles asked."""
    return {
        "outcome": str(ruling.outcome),
        "track": None if ruling.track is None else str(ruling.track),
        "seats": sorted(seat.role for seat in ruling.seats),
    }


def why_different(before: Mapping[str, Any], after: Iterable[Reason]) -> list[str]:
    """Rules that fire under one policy and not under the other, or with another effect.

    Args:
        before: the stored decision as data.
        after: what fires under the other policy.
    """
    was = {reason["rule"]: reason for reason in before["reasons"] if reason.get("fired", True)}
    now = {reason.rule: reason for reason in after}
    said = []
    for rule in [*now, *(rule for rule in was if rule not in now)]:
        old, new = was.get(rule), now.get(rule)
        if old is None and new is not None:
            said.append(f"{rule} fires now ({new.effect}): {new.message}")
        elif new is None and old is not None:
            said.append(f"{rule} does not fire any more ({old['effect']})")
        elif old is not None and new is not None:
            lifted, waived = bool(old.get("waived_by")), bool(new.waived_by)
            if old["effect"] != new.effect:
                said.append(f"{rule} has the effect {new.effect} instead of {old['effect']}")
            elif lifted != waived:
                said.append(f"{rule} is {'waived now' if waived else 'not waived any more'}")
    return said
