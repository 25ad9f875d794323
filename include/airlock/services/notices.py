"""Which notices there should be about a release now: a function of the log and the time."""

from __future__ import annotations

from urllib.parse import quote

from airlock.core.audit import Kind
from airlock.core.decision import Decision, Outcome
from airlock.core.evidence import Evidence, most_urgent_first
from airlock.core.notices import GateLine, Notice, Topic
from airlock.core.policy import ApprovalRules
from airlock.core.release import Release, State
from airlock.services.announce import fixes, outcome_sentence
from airlock.services.deployment import Deployment
from airlock.services.releases import (
    deadline_us,
    open_case,
    panel_for,
    quorum_of,
    read_decision,
    read_evidence,
    state_of,
)

HOUR_US = 3_600_000_000

_TONES = {State.PROMOTED: "good", State.READY: "good", State.WAITING: "warn", State.CHECKING: "plain"}


def due_notices(deployment: Deployment, release: Release) -> list[Notice]:
    """Every notice about a release as it should stand now, parents before what belongs under them."""
    decision = read_decision(deployment, release)
    if decision is None:
        return []
    notices: list[Notice] = []
    if decision.outcome is Outcome.PENDING:
        notices += _seat_notices(deployment, release, decision)
    state, sentence = outcome_sentence(deployment, release)
    if state not in (State.WAITING, State.CHECKING, State.READY):
        notices.append(_outcome(deployment, release, decision, state, sentence))
    return notices


def wakes_us(deployment: Deployment, release: Release) -> list[int]:
    """Moments at which the notices of a waiting release change without anything being recorded."""
    decision = read_decision(deployment, release)
    if decision is None or state_of(deployment, release) is not State.WAITING:
        return []
    end = deadline_us(release)
    rules = open_case(deployment, release.release_id).policy.approval
    asked = _asked_us(release)
    moments = [asked + int(hours * HOUR_US) for hours in [*rules.remind_hours, rules.escalate_hours or 0]]
    return sorted(moment for moment in (*moments, end) if moment > deployment.clock.now_us())


def _asked_us(release: Release) -> int:
    decided = release.first(Kind.RELEASE_DECIDED)
    return 0 if decided is None else decided.occurred_us


def _common(release: Release) -> dict[str, str]:
    return {
        "release_id": release.release_id,
        "workload": release.workload,
        "version": release.version,
        "review": f"/airlock/releases/{quote(release.release_id, safe='')}",
        "run": f"/dags/{quote(release.dag_id, safe='')}/runs/{quote(release.run_id, safe='')}",
    }


def _seat_notices(deployment: Deployment, release: Release, decision: Decision) -> list[Notice]:
    case = open_case(deployment, release.release_id)
    evidence = read_evidence(deployment, case)
    quorum = quorum_of(deployment, release, decision)
    panel = panel_for(deployment, release)
    state = state_of(deployment, release)
    notices = []
    for index, seat in enumerate(decision.seats):
        filled = quorum.filled.get(index)
        said = next((answer for answer in release.answers if answer.seat == index), None)
        waits = state is State.WAITING and filled is None
        title = f"{case.workload.title} version {release.version}: approve as {seat.role}?"
        ended = _ended(filled, said.user if said and said.choice == "reject" else "", state)
        left = max(0, deadline_us(release) - deployment.clock.now_us()) if waits else 0
        notices.append(
            Notice(
                notice_id=f"{release.release_id}/seat/{index}",
                topic=Topic.SEAT,
                title=title if waits else f"{case.workload.title} version {release.version}: {ended}",
                text=f"{title} {decision.sentence}" if waits else ended,
                tone="warn" if waits else "good" if filled else "bad",
                lines=[
                    f"{release.submitter} asks to put version {release.version} into production.",
                    f"Track {decision.track}, risk {decision.tier}: {decision.sentence}.",
                    f"Why your role: {seat.reason}.",
                ],
                facts=[
                    *_numbers(evidence),
                    ("seats filled", f"{len(quorum.filled)} of {len(decision.seats)}"),
                    *([("closes in", f"{left / HOUR_US:.0f} hours")] if waits else []),
                ],
                gates=_gates(evidence),
                role=seat.role,
                people=[person.user for person in panel.eligible(seat.role)],
                seat=index,
                waits=waits,
                **_common(release),
            )
        )
        if waits:
            notices += _later(deployment, release, decision, index, case.policy.approval)
    return notices


def _ended(filled: str | None, rejecter: str, state: State) -> str:
    if filled:
        return f"approved by {filled}"
    return f"rejected by {rejecter}" if rejecter else f"closed: the release is {state}"


def _later(
    deployment: Deployment, release: Release, decision: Decision, index: int, rules: ApprovalRules
) -> list[Notice]:
    """Reminders, and the escalation, that are due for an open seat."""
    waited = deployment.clock.now_us() - _asked_us(release)
    role, panel = decision.seats[index].role, panel_for(deployment, release)
    parent = f"{release.release_id}/seat/{index}"
    due = [hours for hours in rules.remind_hours if waited >= hours * HOUR_US]
    notices = [
        Notice(
            notice_id=f"{parent}/reminder/{hours:g}",
            topic=Topic.REMINDER,
            title=f"{release.workload} version {release.version} still waits for {role}",
            text=f"It has waited {hours:g} hours for {role}; unanswered it is closed, never approved.",
            tone="warn",
            role=role,
            people=[person.user for person in panel.eligible(role)],
            waits=True,
            thread=parent,
            **_common(release),
        )
        for hours in due
    ]
    if rules.escalate_hours is not None and waited >= rules.escalate_hours * HOUR_US:
        notices.append(
            Notice(
                notice_id=f"{parent}/escalation",
                topic=Topic.ESCALATION,
                title=f"Nobody answers as {role} for {release.workload} version {release.version}",
                text=f"It has waited {rules.escalate_hours:g} hours for {role}. "
                f"Find somebody of that role, or delegate it.",
                tone="bad",
                role=rules.escalate_to or role,
                people=[person.user for person in panel.people.holders(rules.escalate_to or role)],
                waits=True,
                thread=parent,
                **_common(release),
            )
        )
    return notices


def _outcome(
    deployment: Deployment, release: Release, decision: Decision, state: State, sentence: str
) -> Notice:
    evidence = read_evidence(deployment, open_case(deployment, release.release_id))
    stopped = state is not State.PROMOTED
    return Notice(
        notice_id=f"{release.release_id}/outcome",
        topic=Topic.OUTCOME,
        title=f"{release.workload} version {release.version}: {state}",
        text=f"{release.workload} version {release.version} is {state}. {sentence}",
        tone="bad" if stopped else "good",
        lines=[sentence, *(f"How to fix it: {fix}" for fix in (fixes(decision) if stopped else []))],
        gates=_gates(evidence) if stopped else [],
        people=[release.submitter],
        thread=f"{release.release_id}/seat/0" if decision.seats else "",
        **_common(release),
    )


def _gates(evidence: dict[str, Evidence]) -> list[GateLine]:
    return [
        GateLine(gate=record.gate, verdict=str(record.verdict), text=record.result.summary[:300])
        for record in most_urgent_first(evidence.values())
    ]


_MATTER = ("performance", "bias", "drift")


def _numbers(evidence: dict[str, Evidence]) -> list[tuple[str, str]]:
    """One number of each gate that matters most, the one nearest to its limit."""
    found = []
    for gate in _MATTER:
        limited = [
            metric
            for metric in (evidence[gate].result.metrics if gate in evidence else [])
            if metric.value is not None and metric.threshold is not None
        ]
        if limited:
            nearest = min(limited, key=lambda metric: abs((metric.value or 0) - (metric.threshold or 0)))
            place = f" {nearest.where}" if nearest.where else ""
            found.append(
                (
                    f"{nearest.name.replace('_', ' ')}{place}",
                    f"{nearest.value:.4g}, limit {nearest.threshold:.4g}",
                )
            )
    return found
