"""Which rule was waived, by whom, why and until when, and which releases rested on it."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.audit import Event, Kind
from airlock.core.waiver import WaiverRequest, holds, read_waivers
from airlock.services.deployment import Deployment
from airlock.services.questions.reading import newest, text, texts
from airlock.services.waivers import KINDS


@dataclass(frozen=True)
class Use:
    """A release that was decided with the help of a waiver."""

    release_id: str
    version: str
    outcome: str
    at_us: int
    event: int | None


@dataclass(frozen=True)
class WaivedRule:
    """A waiver from its request to its end.

    Attributes:
        rule: what it lets fail.
        state: where it stands now, in words.
        asked_by, reason: who asked for it, and why; the reason can be erased.
        answered_by, choice, comment: who answered as ``role``, and what; empty while nobody did.
        revoked_by: who took it back; empty when nobody did.
        uses: releases whose decision rests on it, the newest first.
        event: number of the request in the store.
    """

    waiver_id: str
    workload: str
    rule: str
    versions: str
    state: str
    asked_by: str
    asked_us: int
    reason: str
    until_us: int
    role: str
    answered_by: str
    choice: str
    answered_us: int | None
    comment: str
    revoked_by: str
    uses: tuple[Use, ...]
    event: int | None


@dataclass(frozen=True)
class Waived:
    """Waivers, the newest first; ``cut`` says that there are older ones that were not looked at."""

    waivers: tuple[WaivedRule, ...]
    cut: bool


def waived(
    deployment: Deployment,
    *,
    workload: str | None = None,
    rule: str | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
) -> Waived:
    """Waivers that were asked for in a time; a ``rule`` finds those for it and for parts of it.

    Raises:
        UnavailableError: the store does not answer.
    """
    entries, cut = newest(deployment, kinds=KINDS, workload=workload)
    numbers = {str(entry.event.data.get("waiver")): entry.ingest_id for entry in entries[::-1]}
    found = [
        request
        for request in read_waivers(entry.event for entry in entries)[::-1]
        if (since_us is None or request.requested.occurred_us >= since_us)
        and (until_us is None or request.requested.occurred_us < until_us)
        and (rule is None or holds(rule, request.rule))
    ]
    uses = _uses(deployment, {request.workload for request in found})
    now_us = deployment.clock.now_us()
    return Waived(
        tuple(
            _waived_rule(request, str(request.state(now_us)), uses, numbers.get(request.waiver_id))
            for request in found
        ),
        cut,
    )


def _waived_rule(
    request: WaiverRequest, state: str, uses: dict[str, list[Use]], number: int | None
) -> WaivedRule:
    answer = request.answer
    return WaivedRule(
        waiver_id=request.waiver_id,
        workload=request.workload,
        rule=request.rule,
        versions=request.versions,
        state=state,
        asked_by=request.requested.actor,
        asked_us=request.requested.occurred_us,
        reason=text(request.requested, "reason"),
        until_us=request.until_us,
        role=request.role,
        answered_by=answer.actor if answer else "",
        choice=_choice(answer),
        answered_us=answer.occurred_us if answer else None,
        comment=text(answer, "comment") if answer else "",
        revoked_by=request.revoked.actor if request.revoked else "",
        uses=tuple(uses.get(request.waiver_id, [])),
        event=number,
    )


def _choice(answer: Event | None) -> str:
    if answer is None:
        return ""
    return "granted" if answer.kind is Kind.WAIVER_GRANTED else "rejected"


def _uses(deployment: Deployment, workloads: set[str]) -> dict[str, list[Use]]:
    """Decisions that rest on waivers, by waiver, the newest first."""
    found: dict[str, list[Use]] = {}
    for workload in sorted(workloads):
        decided, _ = newest(deployment, kinds=[Kind.RELEASE_DECIDED], workload=workload)
        for entry in decided[::-1]:
            for waiver_id in texts(entry.event, "waivers"):
                found.setdefault(waiver_id, []).append(
                    Use(
                        release_id=entry.event.release_id,
                        version=entry.event.version,
                        outcome=text(entry.event, "outcome"),
                        at_us=entry.event.occurred_us,
                        event=entry.ingest_id,
                    )
                )
    return found
