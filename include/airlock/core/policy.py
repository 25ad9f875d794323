"""Policy: the versioned bundle of rules and limits that judges evidence (requirement P-1).

A rule's condition is a CEL expression over the facts of a release. Rules never compute a verdict of
a gate; gates do that with the configuration that stands here, so every limit has one place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.features import FeatureSource
from airlock.core.interview import Question
from airlock.core.monitoring import Action, MonitoringRules
from airlock.core.operations import Operations
from airlock.core.risk import RiskRules
from airlock.core.waiver import GATE, WaiverRules
from airlock.core.workload import Name

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""A name that can stand in a CEL expression."""


def _nothing(value: object) -> bool:
    """Whether an optional section is not there; then it has no place in the digest either."""
    return value is None or value == []


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


class Severity(StrEnum):
    """How much it matters that a rule fired, for people who read a list of findings."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Limit(Value):
    """A number that rules may use as ``limits.name``, with the role that answers for it.

    Attributes:
        unit: what it counts; ``share`` is shown in percent, ``1`` is a plain number.
        owner: role whose approval a change of the value needs (requirement P-3).
    """

    value: Annotated[float, Field(description="the number itself")]
    unit: Annotated[str, Field(min_length=1, max_length=30, description="share, USD, rows, days, 1 …")]
    owner: Annotated[Name, Field(description="role whose approval a change needs")]
    why: Annotated[str, Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _says_who_answers(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError(  # noqa: TRY004  # pydantic reports a ValueError with its place, not a TypeError
                f"a bare number says neither its unit nor who may change it; "
                f"write {{value: {value}, unit: share, owner: <role>, why: <sentence>}}"
            )
        return value

    @property
    def text(self) -> str:
        """The number for people, with its unit."""
        if self.unit == "share":
            return f"{100 * self.value:.10g} %"
        return f"{self.value:,.10g}" + ("" if self.unit == "1" else f" {self.unit}")


class Role(Value):
    """A role that answers for rules, limits, gates or seats; people hold roles in ``people.yaml``."""

    title: Annotated[str, Field(min_length=1)]
    answers_for: Annotated[str, Field(min_length=1)]
    gates: Annotated[list[Key], Field(description="gates this role owns")] = []


class Seat(Value):
    """One required approval by one role; a person fills at most one (requirement A-2)."""

    role: Name
    reason: Annotated[str, Field(min_length=1)]


Phase = Literal["tier", "track", "deny", "warn", "seats", "action"]


class Effect(Value):
    """What a rule does when its condition holds: exactly one of these."""

    tier: Tier | None = None
    track: Track | None = None
    deny: Literal[True] | None = None
    warn: Annotated[Literal[True] | None, Field(description="shown to everybody, changes nothing")] = None
    seats: Annotated[list[Seat] | None, Field(min_length=1, description="people asked in addition")] = None
    action: Annotated[
        Action | None,
        Field(exclude_if=lambda value: value is None, description="what monitoring does; not about releases"),
    ] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in self.__dict__.values()) != 1:
            raise ValueError("an effect names exactly one of tier, track, deny, warn, seats, action")
        return self

    @property
    def phase(self) -> Phase:
        """Rules run in phases, because track rules may ask for the tier."""
        return next(name for name in get_args(Phase) if getattr(self, name) is not None)

    @property
    def label(self) -> str:
        """The effect in a word or two: ``track red``, ``deny``, ``seats``."""
        level = self.tier or self.track or self.action
        return self.phase if level is None else f"{self.phase} {level}"


class RuleTests(Value):
    """Cases a rule must fire on and cases it must stay silent on.

    Each is a patch of the bundle's base case: a fact's dotted name and its value; ``null`` takes the fact
    away.
    """

    fires: list[dict[str, Any]] = []
    silent: list[dict[str, Any]] = []


class Rule(Value):
    """One rule, with everything a person needs to agree or to object.

    Attributes:
        owner: role that answers for it and may grant a waiver from it.
        severity: how much it matters that it fires.
        why: why it matters.
        fix: how to fix it: what would have to change for the rule not to fire.
        when: CEL expression over the facts; must be true or false, anything else is an ERROR.
        because: sentence for a release it fires on;
            ``{candidate.performance.relative_change|percent}`` inserts a fact.
        otherwise: sentence for a release it does not fire on, shown as a reason for a lighter track.
        expires: last day it holds, or ``never``. An expired rule is an ERROR, because nobody answers for
            it any more.
    """

    id: Name
    title: Annotated[str, Field(min_length=1)]
    owner: Name
    severity: Severity
    why: Annotated[str, Field(min_length=1)]
    fix: Annotated[str, Field(min_length=1)]
    when: Annotated[str, Field(min_length=1)]
    effect: Effect
    because: Annotated[str, Field(min_length=1)]
    otherwise: Annotated[str, Field(min_length=1)]
    expires: date | Literal["never"]
    tests: RuleTests = RuleTests()


class ApprovalRules(Value):
    """Who must approve each track, and how long they have before it expires closed."""

    seats: dict[Track, list[Seat]]
    expires_hours: Annotated[float, Field(gt=0, le=24 * 90)]
    minimum_comment: Annotated[int, Field(ge=0, description="characters a rejection must explain itself in")]
    remind_hours: Annotated[
        list[Annotated[float, Field(gt=0)]], Field(description="when people are reminded of an open seat")
    ] = []
    escalate_hours: Annotated[
        float | None, Field(gt=0, description="when somebody else is told that nobody answers")
    ] = None
    escalate_to: Annotated[Name | None, Field(description="role that is told; the seat's own without it")] = (
        None
    )
    delegate_days: Annotated[
        float | None,
        Field(
            gt=0, le=366, exclude_if=_nothing, description="longest delegation that counts; without it none"
        ),
    ] = None
    condition_days: Annotated[
        float | None,
        Field(
            gt=0,
            le=366,
            exclude_if=_nothing,
            description="latest day of a condition, counted from the approval; without it no condition",
        ),
    ] = None
    policy_author_days: Annotated[
        float | None,
        Field(
            ge=0,
            exclude_if=_nothing,
            description="days after publication in which who changed or approved the policy answers no seat",
        ),
    ] = None

    @model_validator(mode="after")
    def _heavier_needs_people(self) -> Self:
        missing = set(Track) - set(self.seats)
        if missing:
            raise ValueError(f"seats are missing for track {sorted(missing)}")
        for track in (Track.YELLOW, Track.RED):
            if not self.seats[track]:
                raise ValueError(f"track {track} has no seat: an unapproved {track} release must not exist")
        return self


IsolationLevel = Literal["none", "process", "filter", "namespace", "full"]
"""How far a sandbox isolates a job, from the weakest; each level holds everything of those before it.

``process``: a process of its own with an empty environment and limits. ``filter``: no network, no new
processes and no files of others, by the kernel's filters. ``namespace``: the same by namespaces as well, in
which the job sees neither processes nor files nor network devices of the machine. ``full``: and not as root.
"""


class SandboxRules(Value):
    """Limits of the process in which untrusted models run."""

    seconds: Annotated[float, Field(gt=0)]
    memory_mb: Annotated[int, Field(gt=0)]
    output_mb: Annotated[int, Field(gt=0)]
    training_seconds: Annotated[
        float | None,
        Field(
            gt=0, exclude_if=_nothing, description="longest training of a model; sandbox.seconds without it"
        ),
    ] = None
    training_memory_mb: Annotated[
        int | None,
        Field(gt=0, exclude_if=_nothing, description="most memory of a training; memory_mb without it"),
    ] = None
    require_network_isolation: bool
    require_level: Annotated[
        IsolationLevel, Field(description="level of isolation below which nothing is scanned or scored")
    ] = "process"
    environment: Annotated[
        Literal["same", "own"],
        Field(description="packages of the worker for all, or each model with those it was made with"),
    ] = "same"
    shap_rows: Annotated[int, Field(gt=0)]
    background_rows: Annotated[int, Field(gt=0)]
    explain_seconds: Annotated[
        float | None,
        Field(gt=0, description="estimate beyond which a model is not explained from outside, row by row"),
    ] = None


def _as_shipped(value: object) -> bool:
    """Whether a section says what holds without it; then it has no place in the digest."""
    return bool(value == Operations())


class Policy(Value):
    """One published version of the policy; immutable once a release was judged by it (P-2, P-3).

    Its digest covers everything in the bundle's folder that can change a decision: rules, limits, gates,
    seats, tests and the text of every Rego file.

    Attributes:
        gates: a gate's name and its configuration, which the gate's own ``Config`` checks.
        base_case: facts of an ordinary release, which the tests of rules change.
        rego: name of each ``*.rego`` file in the bundle and its text; cannot be written in YAML.
    """

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    description: Annotated[str, Field(min_length=1)]
    limits: Annotated[dict[Key, Limit], Field(min_length=1)]
    roles: Annotated[dict[Name, Role], Field(min_length=1)]
    gates: Annotated[dict[Key, dict[str, Any]], Field(min_length=1)]
    rules: Annotated[list[Rule], Field(min_length=1)]
    approval: ApprovalRules
    sandbox: SandboxRules
    waivers: Annotated[
        WaiverRules | None, Field(description="what may be waived, by whom, how long; without it nothing")
    ] = None
    feature_sources: Annotated[
        list[FeatureSource],
        Field(exclude_if=_nothing, description="where features may be taken from without a review"),
    ] = []
    risk: Annotated[
        RiskRules | None, Field(exclude_if=_nothing, description="how the risk score is computed")
    ] = None
    interview: Annotated[
        list[Question], Field(exclude_if=_nothing, description="what a submitter is asked")
    ] = []
    monitoring: Annotated[
        MonitoringRules | None,
        Field(
            exclude_if=_nothing, description="limits of what is watched in production, and what may be done"
        ),
    ] = None
    operations: Annotated[
        Operations,
        Field(
            exclude_if=_as_shipped, description="rollback, the guard and incidents: who may, and until when"
        ),
    ] = Operations()
    base_case: dict[str, Any] = {}
    rego: dict[str, str] = {}

    @property
    def limit_values(self) -> dict[str, float]:
        """The limits as facts."""
        return {name: limit.value for name, limit in self.limits.items()}

    def owner_of_gate(self, gate: str) -> str | None:
        """The role that owns a gate, or ``None``."""
        return next((name for name, role in self.roles.items() if gate in role.gates), None)

    def owner_of(self, scope: str) -> str | None:
        """The role that owns a denying rule, a gate, or a part of a gate as a waiver names them."""
        head = scope.split(":", maxsplit=1)[0]
        gate = head.removeprefix(GATE)
        if head.startswith(GATE) and gate in self.gates:
            return self.owner_of_gate(gate)
        return next((rule.owner for rule in self.rules if rule.id == head and rule.effect.deny), None)

    def waiver_role(self, scope: str) -> str | None:
        """The role that may waive a scope: its owner; ``None`` where nobody may."""
        return self.owner_of(scope) if self.waivers is not None and self.waivers.allows(scope) else None

    @model_validator(mode="after")
    def _unique_rules(self) -> Self:
        ids = [rule.id for rule in self.rules]
        if twice := {rule_id for rule_id in ids if ids.count(rule_id) > 1}:
            raise ValueError(f"rules: ids must be unique; twice: {sorted(twice)}")
        return self

    @model_validator(mode="after")
    def _roles_exist(self) -> Self:
        for place, role in self._named_roles():
            if role not in self.roles:
                near = difflib.get_close_matches(role, self.roles, n=1)
                guess = (
                    f"; did you mean {near[0]!r}?" if near else f"; roles: {', '.join(sorted(self.roles))}"
                )
                raise ValueError(f"{place}: there is no role {role!r}{guess}")
        owned = [gate for role in self.roles.values() for gate in role.gates]
        if twice := {gate for gate in owned if owned.count(gate) > 1}:
            raise ValueError(f"roles: a gate has one owner; several own {sorted(twice)}")
        return self

    @model_validator(mode="after")
    def _unique_questions(self) -> Self:
        for section, names in (
            ("interview", [question.id for question in self.interview]),
            ("feature_sources", [source.name for source in self.feature_sources]),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{section}: names must be unique; twice: {sorted(twice)}")
        return self

    def _named_roles(self) -> Iterator[tuple[str, str]]:
        if self.monitoring is not None:
            yield from self.monitoring.named_roles()
        if "operations" in self.model_fields_set:
            yield from self.operations.named_roles()
        for number, source in enumerate(self.feature_sources):
            yield f"feature_sources.{number}.owner", source.owner
        yield from ((f"limits.{name}.owner", limit.owner) for name, limit in self.limits.items())
        for number, rule in enumerate(self.rules):
            yield f"rules.{number}.owner", rule.owner
            for index, seat in enumerate(rule.effect.seats or []):
                yield f"rules.{number}.effect.seats.{index}.role", seat.role
        for track, seats in self.approval.seats.items():
            yield from ((f"approval.seats.{track}.{i}.role", seat.role) for i, seat in enumerate(seats))
