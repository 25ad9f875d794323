"""Waivers: permission to fail one rule, with scope, owner, reason and expiry (requirements T-9, A-8).

Like an approval, a waiver is computed from audited events: who asked, who answered, who took it back. A
waiver never makes a verdict better. The gate goes on saying ``FAILED``; the decision says who allowed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from operator import eq, ge, gt, le, lt
from typing import Annotated

from pydantic import Field, model_validator

from airlock.core.audit import Event, Kind
from airlock.core.base import Value
from airlock.core.canonical import digest_of
from airlock.core.dates import DAY_US
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import Evidence, Verdict

NEVER = frozenset({"gate-security", "gate-score", "gates-complete"})
"""What no policy can make waivable: files that run code, models that could not be scored, missing evidence.

The first two decide whether anything may be loaded at all; the last is no answer, so there is nothing to
waive."""

GATE = "gate-"
"""Scopes of gates start with it: ``gate-bias``, ``gate-bias:FINDING``, ``gate-bias:FINDING:WHERE``."""

SCOPE = re.compile(r"[a-z][a-z0-9_-]{0,99}(:[a-zA-Z0-9_-]{1,100}(:.{1,200})?)?")

_CLAUSE = re.compile(r"\s*(>=|<=|==|>|<|)\s*([0-9]{1,9})\s*")
_COMPARE = {">=": ge, "<=": le, "==": eq, "": eq, ">": gt, "<": lt}


class WaiverRules(Value):
    """What the policy says about waivers; a policy without it allows none."""

    maximum_days: Annotated[float, Field(gt=0, le=366, description="longest time a waiver may last")]
    warn_days: Annotated[float, Field(gt=0, description="how long before its expiry it is warned about")]
    answer_hours: Annotated[float, Field(gt=0, le=24 * 90, description="time to answer a request")]
    minimum_reason: Annotated[int, Field(ge=1, description="characters of a reason, at least")]
    at_least: Annotated[
        str, Field(pattern="^(yellow|red)$", description="lightest track of a waived release")
    ]
    waivable: Annotated[
        list[str], Field(min_length=1, description="rules, gates and findings that may be waived at all")
    ]

    @model_validator(mode="after")
    def _some_things_are_never_waived(self) -> WaiverRules:
        for number, scope in enumerate(self.waivable):
            if not SCOPE.fullmatch(scope):
                raise ValueError(f"waivable.{number}: write RULE, gate-NAME, or gate-NAME:FINDING")
            if scope.split(":")[0] in NEVER:
                raise ValueError(f"waivable.{number}: {scope} can never be waived")
        return self

    def allows(self, scope: str) -> bool:
        """Whether this may be waived at all.

        Law: a scope inside a waivable one is waivable; one around it is not.
        """
        return any(holds(entry, scope) for entry in self.waivable)


def holds(outer: str, inner: str) -> bool:
    """Whether the scope ``inner`` is ``outer`` or a part of it. A place holds nothing but itself."""
    wanted, given = outer.split(":", 2), inner.split(":", 2)
    return given[: len(wanted)] == wanted


@lru_cache(maxsize=1024)
def _clauses(versions: str) -> tuple[tuple[str, int], ...]:
    found = [_CLAUSE.fullmatch(part) for part in versions.split(",")]
    if any(match is None for match in found):
        raise InvalidInputError(
            f"{versions[:80]!r} is no version range", fix='write clauses such as ">=3,<5" or "3"'
        )
    return tuple((match[1], int(match[2])) for match in found if match is not None)


def in_range(versions: str, version: str) -> bool:
    """Whether a model version is in a range such as ``>=3,<5``; all clauses must hold.

    Raises:
        InvalidInputError: the range cannot be read.
    """
    clauses = _clauses(versions)
    return (
        version.isascii()
        and version.isdecimal()
        and all(_COMPARE[sign](int(version), number) for sign, number in clauses)
    )


class Waiver(Value):
    """A granted waiver as a decision rests on it. Its reason is not here, because it can be erased.

    Attributes:
        rule: what may fail: a rule, a gate, or one finding of a gate, at one place.
        versions: model versions it is for.
        until_us: from then on it is over, microseconds since 1970 UTC.
        role: role of the owner who granted it.
        acts_for: whose role it is, where a deputy granted it; empty for their own.
    """

    waiver_id: str
    workload: str
    rule: str
    versions: str
    until_us: int
    requester: str
    role: str
    granted_by: str
    granted_us: int
    acts_for: Annotated[str, Field(exclude_if=lambda value: not value)] = ""

    def is_for(self, *, workload: str, version: str, submitter: str) -> bool:
        """Whether a release may rest on it; never on one that its own submitter granted, or a deputy did."""
        own = submitter in (self.granted_by, self.acts_for)
        return self.workload == workload and in_range(self.versions, version) and not own


def covering(waivers: Iterable[Waiver], scope: str) -> Waiver | None:
    """The waiver that lets ``scope`` fail: the widest, then the first by id, so that the choice is stable."""
    found = [waiver for waiver in waivers if holds(waiver.rule, scope)]
    return min(found, key=lambda waiver: (len(waiver.rule), waiver.waiver_id), default=None)


def waive_gate(record: Evidence, waivers: Sequence[Waiver]) -> list[Waiver]:
    """The waivers that together let a gate fail; empty when it stands as it is.

    Each failed finding needs one. An ``ERROR`` cannot be waived: nobody knows what would be allowed.

    Law: more findings never need fewer waivers.
    """
    scope = f"{GATE}{record.gate}"
    if record.verdict is not Verdict.FAILED or scope in NEVER:
        return []
    if whole := covering(waivers, scope):
        return [whole]
    bad = [finding for finding in record.result.findings if not finding.verdict.allows]
    found = [covering(waivers, ":".join((scope, f.id, *filter(None, [f.where])))) for f in bad]
    used = [waiver for waiver in found if waiver is not None]
    if not bad or len(used) < len(bad) or any(finding.verdict is Verdict.ERROR for finding in bad):
        return []
    return sorted({waiver.waiver_id: waiver for waiver in used}.values(), key=lambda w: w.waiver_id)


class WaiverState(StrEnum):
    """Where a waiver stands, in the words people read."""

    ASKED = "waiting for an answer"
    ACTIVE = "active"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REJECTED = "rejected"
    UNANSWERED = "closed without an answer"

    @property
    def in_force(self) -> bool:
        """Whether releases may rest on it."""
        return self in (WaiverState.ACTIVE, WaiverState.EXPIRING)


@dataclass(frozen=True)
class WaiverRequest:
    """A waiver as its events tell it.

    Attributes:
        requested: who asked for what.
        answer: the one answer that counts, ``None`` while there is none.
        revoked: who took it back, ``None`` when nobody did.
    """

    requested: Event
    answer: Event | None = None
    revoked: Event | None = None

    @property
    def waiver_id(self) -> str:
        """Its id."""
        return str(self.requested.data["waiver"])

    @property
    def workload(self) -> str:
        """The workload it is for."""
        return self.requested.workload

    @property
    def rule(self) -> str:
        """What it lets fail."""
        return str(self.requested.data["rule"])

    @property
    def versions(self) -> str:
        """The versions it is for."""
        return str(self.requested.data["versions"])

    @property
    def role(self) -> str:
        """Who may answer."""
        return str(self.requested.data["role"])

    @property
    def until_us(self) -> int:
        """When it is over."""
        return int(self.requested.data["until_us"])

    @property
    def warn_us(self) -> int:
        """From when on its end is warned about."""
        return self.until_us - int(self.requested.data["warn_days"] * DAY_US)

    @property
    def answer_until_us(self) -> int:
        """Until when it may be answered; it cannot outlast itself."""
        hours = int(self.requested.data["answer_hours"] * 3600 * 1_000_000)
        return min(self.until_us, self.requested.occurred_us + hours)

    def state(self, now_us: int) -> WaiverState:
        """Where it stands at ``now_us``."""
        if self.answer is None:
            return WaiverState.ASKED if now_us < self.answer_until_us else WaiverState.UNANSWERED
        if self.answer.kind is Kind.WAIVER_REJECTED:
            return WaiverState.REJECTED
        if self.revoked is not None:
            return WaiverState.REVOKED
        if now_us >= self.until_us:
            return WaiverState.EXPIRED
        return WaiverState.EXPIRING if now_us >= self.warn_us else WaiverState.ACTIVE

    @property
    def granted(self) -> Waiver | None:
        """The waiver that was granted, whether it is still in force or not."""
        if self.answer is None or self.answer.kind is not Kind.WAIVER_GRANTED:
            return None
        return Waiver(
            waiver_id=self.waiver_id,
            workload=self.workload,
            rule=self.rule,
            versions=self.versions,
            until_us=self.until_us,
            requester=self.requested.actor,
            role=self.role,
            granted_by=self.answer.actor,
            granted_us=self.answer.occurred_us,
            acts_for=str(self.answer.data.get("acts_for", "")),
        )


def read_waivers(events: Iterable[Event]) -> list[WaiverRequest]:
    """Waivers from their events, in the order they were asked for.

    The first answer counts, and only one by somebody else than who asked, in the role that was asked; the
    store is not trusted to have refused the others.
    """
    found: dict[str, WaiverRequest] = {}
    for event in events:
        waiver_id = str(event.data.get("waiver", ""))
        known = found.get(waiver_id)
        if event.kind is Kind.WAIVER_REQUESTED and known is None:
            found[waiver_id] = WaiverRequest(event)
        elif known is None:
            continue
        elif event.kind in (Kind.WAIVER_GRANTED, Kind.WAIVER_REJECTED):
            persons = (event.actor, event.data.get("acts_for"))
            rightful = known.requested.actor not in persons and event.data.get("role") == known.role
            if rightful and known.answer is None and event.data.get("request") == request_digest(known):
                found[waiver_id] = WaiverRequest(known.requested, event)
        elif event.kind is Kind.WAIVER_REVOKED and known.revoked is None:
            found[waiver_id] = WaiverRequest(known.requested, known.answer, event)
    return list(found.values())


def request_digest(request: WaiverRequest) -> str:
    """What an answer binds to: scope and time of the request, without the words that can be erased."""
    return digest_of({name: request.requested.data[name] for name in _BOUND})


_BOUND = ("waiver", "rule", "versions", "until_us", "role")
