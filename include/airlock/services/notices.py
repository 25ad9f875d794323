"""Which notices there should be about a release now: a function of the log and the time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airlock.core.approvals import Quorum
from airlock.core.audit import Kind
from airlock.core.dates import due_words
from airlock.core.decision import Decision, Outcome
from airlock.core.diff import diff_files
from airlock.core.evidence import SCORE, Evidence, most_urgent_first
from airlock.core.manifest import Manifest
from airlock.core.notices import GateLine, Notice, Tone, Topic
from airlock.core.policy import ApprovalRules
from airlock.core.release import Release, State
from airlock.services.announce import fixes, outcome_sentence
from airlock.services.ask import Question, questions_of
from airlock.services.conditions import MET, OPEN, Condition, conditions_of
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


def due_notices(deployment: Deployment, release: Release) -> list[Notice]:
    """Every notice about a release as it should stand now, parents before what belongs under them."""
    decision = read_decision(deployment, release)
    if decision is None:
        return []
    notices: list[Notice] = []
    if decision.outcome is Outcome.PENDING:
        notices += _seat_notices(deployment, release, decision)
        notices += [_question(release, question) for question in questions_of(release)]
        now = deployment.clock.now_us()
        notices += [_condition(deployment, release, one) for one in conditions_of(release, now)]
    state, sentence = outcome_sentence(deployment, release)
    if state not in (State.WAITING, State.CHECKING, State.READY):
        notices.append(_outcome(deployment, release, decision, state, sentence))
    return notices


def wakes_us(deployment: Deployment, release: Release) -> list[int]:
    """Moments at which the notices of a release change without anything being recorded."""
    now = deployment.clock.now_us()
    moments = [one.until_us for one in conditions_of(release, now) if one.state == OPEN]
    decision = read_decision(deployment, release)
    if decision is not None and state_of(deployment, release) is State.WAITING:
        rules = open_case(deployment, release.release_id).policy.approval
        asked = _asked_us(release)
        later = [*rules.remind_hours, rules.escalate_hours or 0]
        moments += [deadline_us(release), *(asked + int(hours * HOUR_US) for hours in later)]
    return sorted(moment for moment in moments if moment > now)


def _asked_us(release: Release) -> int:
    decided = release.first(Kind.RELEASE_DECIDED)
    return 0 if decided is None else decided.occurred_us


def _common(release: Release) -> dict[str, Any]:
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
    common = {
        "changed": changed_words(case.manifest, evidence),
        "gates": _gates(evidence),
        "conditional": case.policy.approval.condition_days is not None,
        **_common(release),
    }
    notices = []
    for index, seat in enumerate(decision.seats):
        filled = index in quorum.filled
        waits = state is State.WAITING and not filled
        what = f"{case.workload.title} version {release.version}"
        title = f"{what}: approve as {seat.role}?"
        ended, said = _ended(release, quorum, index, state)
        notices.append(
            Notice(
                notice_id=f"{release.release_id}/seat/{index}",
                topic=Topic.SEAT,
                title=title if waits else f"{what}: {ended}",
                text=f"{title} {decision.sentence}" if waits else f"{what}: {ended}",
                tone="warn" if waits else "good" if filled else "bad",
                lines=[
                    *said,
                    f"{release.submitter} asks to put version {release.version} into production.",
                    f"Track {decision.track}, risk {decision.tier}: {decision.sentence}.",
                    f"Why your role: {seat.reason}.",
                ],
                facts=[
                    *_numbers(evidence),
                    ("seats filled", f"{len(quorum.filled)} of {len(decision.seats)}"),
                ],
                role=seat.role,
                people=[person.user for person in panel.eligible(seat.role)],
                seat=index,
                waits=waits,
                until_us=deadline_us(release) if waits else 0,
                **common,
            )
        )
        if waits:
            notices += _later(deployment, release, decision, index, case.policy.approval)
    return notices


def _ended(release: Release, quorum: Quorum, index: int, state: State) -> tuple[str, list[str]]:
    """How a seat ended in a few words, and who said what when."""
    users = {quorum.filled.get(index, ""), quorum.rejected_by} - {""}
    given = next(
        (answer for answer in release.answers if answer.seat == index and answer.user in users), None
    )
    if given is None:
        late = next((one for one in release.answers if one.seat == index and one.condition), None)
        if late is not None:
            return f"the condition of {late.who}'s approval was missed", []
        return f"closed: the release is {state}", []
    verb = "approved" if given.choice == "approve" else "rejected"
    on_condition = f", on condition until {due_words(given.condition_until_us)}" if given.condition else ""
    when = datetime.fromtimestamp(given.given_us / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"{given.who} {verb} on {when}" + (f": {given.comment}" if given.comment else ".")]
    if given.condition:
        lines.append(f"On condition, until {due_words(given.condition_until_us)}: {given.condition}")
    return f"{verb} by {given.who}{on_condition}", lines


def _question(release: Release, question: Question) -> Notice:
    """A question in the thread of the seat it was asked for; the submitter has to answer it."""
    waits = not question.answers
    return Notice(
        notice_id=f"{release.release_id}/question/{question.question_id}",
        topic=Topic.QUESTION,
        title=f"{question.user} asks about {release.workload} version {release.version}",
        text=f"{question.user} asks about {release.workload} version {release.version}: {question.text}",
        tone="warn" if waits else "good",
        lines=[question.text, *(f"{user} answers: {text}" for user, text, _ in question.answers)],
        people=[release.submitter],
        seat=question.seat,
        question=question.question_id,
        waits=waits,
        thread=f"{release.release_id}/seat/{question.seat}",
        **_common(release),
    )


_CONDITION_TONES: dict[str, Tone] = {OPEN: "warn", MET: "good"}


def _condition(deployment: Deployment, release: Release, condition: Condition) -> Notice:
    """The condition of an approval in the thread of its seat, until it is met or missed."""
    waits = condition.state == OPEN
    what = f"{release.workload} version {release.version}"
    words = {
        OPEN: f"to be confirmed by {condition.role} until {condition.until}; else the approval is revoked",
        MET: f"met, confirmed by {condition.met_by}",
    }.get(condition.state, f"missed on {condition.until}; the approval of {condition.user} is revoked")
    people = panel_for(deployment, release).eligible(condition.role)
    return Notice(
        notice_id=f"{release.release_id}/condition/{condition.seat}",
        topic=Topic.CONDITION,
        title=f"Condition of {condition.user}'s approval of {what}: {words}",
        text=f"Condition of {condition.user}'s approval of {what}: {words}. {condition.text}",
        tone=_CONDITION_TONES.get(condition.state, "bad"),
        lines=[
            condition.text,
            *(
                [f"Confirm with: airlock condition met {release.release_id} --seat {condition.seat + 1}"]
                * waits
            ),
        ],
        role=condition.role,
        people=[person.user for person in people],
        waits=waits,
        until_us=condition.until_us if waits else 0,
        thread=f"{release.release_id}/seat/{condition.seat}",
        **_common(release),
    )


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
    # What becomes of it in production is a message of its own: that it was promoted stays true.
    later = "/rolled-back" if state is State.ROLLED_BACK else ""
    return Notice(
        notice_id=f"{release.release_id}/outcome{later}",
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


def changed_words(manifest: Manifest, evidence: dict[str, Evidence]) -> list[str]:
    """What is different from the champion, in a few words each; computed, never what a submitter says."""
    if manifest.champion is None:
        return ["the first release: there is no champion to compare with"]
    found = [f"compared with champion version {manifest.champion.version}"]
    record = evidence.get(SCORE)
    change = {} if record is None else record.result.details.get("change") or {}
    if change.get("architecture"):
        found.append(f"another kind of model: {change['from_estimator']} → {change['to_estimator']}")
    for name, words in (("new_features", "new features"), ("removed_features", "features gone")):
        if change.get(name):
            found.append(f"{words}: {', '.join(change[name][:5])}")
    if change.get("threshold"):
        found.append(f"decision threshold moves by {change['threshold']:.4g}")
    if change.get("values"):
        found.append(f"hyperparameters: {', '.join(change['values'][:3])}")
    files = diff_files(manifest)
    if files["data_source"]:
        found.append("another source of training data")
    elif files["training_data"]:
        found.append("other training data")
    found += [f"{len(files['environment'])} packages differ"] * bool(files["environment"])
    return found


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
