"""Policy: the versioned bundle of rules and limits that judges evidence (requirement P-1).

A rule's condition is a CEL expression over the facts of a release. Rules never compute a verdict of
a gate; gates do that with the configuration that stands here, so every limit has one place.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.waiver import WaiverRules
from airlock.core.workload import Name

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""A name that can stand in a CEL expression."""


class Track(StrEnum):
    """How much attention a release needs; ordered from light to heavy (requirement T-3)."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class Tier(StrEnum):
    """How much harm a wrong decision of the workload can do (requirement T-4)."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Effect(Value):
    """What a rule does when its condition holds: exactly one of the three."""

    tier: Tier | None = None
    track: Track | None = None
    deny: Literal[True] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.tier, self.track, self.deny)) != 1:
            raise ValueError("an effect names exactly one of tier, track, deny")
        return self

    @property
    def phase(self) -> Literal["tier", "track", "deny"]:
        """Rules run in phases, because track rules may ask for the tier."""
        if self.tier is not None:
            return "tier"
        return "track" if self.track is not None else "deny"


class Rule(Value):
    """One rule, with everything a person needs to agree or to object.

    Attributes:
        when: CEL expression over the facts; must be true or false, anything else is an ERROR.
        because: sentence for a release it fires on; ``{change.relative|percent}`` inserts a fact.
        otherwise: sentence for a release it does not fire on, shown as a reason for a lighter track.
        lighter: what would have to change for the rule not to fire.
    """

    id: Name
    title: Annotated[str, Field(min_length=1)]
    owner: Annotated[str, Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]
    when: Annotated[str, Field(min_length=1)]
    effect: Effect
    because: Annotated[str, Field(min_length=1)]
    otherwise: Annotated[str, Field(min_length=1)]
    lighter: Annotated[str, Field(min_length=1)]


class Seat(Value):
    """One required approval by one role; a person fills at most one (requirement A-2)."""

    role: Name
    reason: Annotated[str, Field(min_length=1)]


class ApprovalRules(Value):
    """Who must approve each track, and how long they have before it expires closed."""

    seats: dict[Track, list[Seat]]
    expires_hours: Annotated[float, Field(gt=0, le=24 * 90)]
    minimum_comment: Annotated[int, Field(ge=0, description="characters a rejection must explain itself in")]

    @model_validator(mode="after")
    def _heavier_needs_people(self) -> Self:
        missing = set(Track) - set(self.seats)
        if missing:
            raise ValueError(f"seats are missing for track {sorted(missing)}")
        for track in (Track.YELLOW, Track.RED):
            if not self.seats[track]:
                raise ValueError(f"track {track} has no seat: an unapproved {track} release must not exist")
        return self


class SandboxRules(Value):
    """Limits of the process in which untrusted models run."""

    seconds: Annotated[float, Field(gt=0)]
    memory_mb: Annotated[int, Field(gt=0)]
    output_mb: Annotated[int, Field(gt=0)]
    require_network_isolation: bool
    shap_rows: Annotated[int, Field(gt=0)]
    background_rows: Annotated[int, Field(gt=0)]


class Policy(Value):
    """One published version of the policy; immutable once a release was judged by it (P-2, P-3).

    ``gates`` maps a gate's name to its configuration, which the gate's own ``Config`` checks.
    """

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    description: Annotated[str, Field(min_length=1)]
    limits: Annotated[dict[Key, float], Field(min_length=1)]
    gates: Annotated[dict[Key, dict[str, Any]], Field(min_length=1)]
    rules: Annotated[list[Rule], Field(min_length=1)]
    approval: ApprovalRules
    sandbox: SandboxRules
    waivers: Annotated[
        WaiverRules | None, Field(description="what may be waived, by whom, how long; without it nothing")
    ] = None

    @model_validator(mode="after")
    def _unique_rules(self) -> Self:
        ids = [rule.id for rule in self.rules]
        if twice := {rule_id for rule_id in ids if ids.count(rule_id) > 1}:
            raise ValueError(f"rules: ids must be unique; twice: {sorted(twice)}")
        return self
