"""Waivers: asked for, answered, taken back, and looked after until they end (requirements T-9, A-8)."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.approvals import Panel
from airlock.core.audit import Event, Kind
from airlock.core.dates import DAY_US, end_of_day, last_day
from airlock.core.decision import Decision, usable
from airlock.core.errors import ConflictError, InvalidInputError, NotFoundError, RefusedError
from airlock.core.evidence import Evidence
from airlock.core.policy import Policy
from airlock.core.waiver import (
    SCOPE,
    Waiver,
    WaiverRequest,
    WaiverRules,
    WaiverState,
    in_range,
    read_waivers,
    request_digest,
    waive_gate,
)
from airlock.services.approve import DENIED, EXPIRED, GRANTED, OPEN, REJECTED, Standing
from airlock.services.deployment import Deployment
from airlock.services.describe import markdown
from airlock.services.moves import arrived, champions
from airlock.services.panel import request_panel
from airlock.services.releases import Case, open_case
from airlock.services.requests import (
    Question,
    answer_problem,
    eligible_people,
    refuse,
    words_problem,
)

KINDS = (Kind.WAIVER_REQUESTED, Kind.WAIVER_GRANTED, Kind.WAIVER_REJECTED, Kind.WAIVER_REVOKED)

ROLE_SEAT = 0
"""A waiver has one seat: its owner's."""


def list_waivers(deployment: Deployment, workload: str | None = None) -> list[WaiverRequest]:
    """Waivers of this deployment in the order they were asked for, whatever became of them."""
    recorded = deployment.audit.events(workload=workload, kinds=KINDS)
    name = deployment.settings.deployment
    return read_waivers(entry.event for entry in recorded if entry.event.deployment == name)


def find_waiver(deployment: Deployment, waiver_id: str) -> WaiverRequest:
    """One waiver.

    Raises:
        NotFoundError: nobody asked for it here.
    """
    found = {waiver.waiver_id: waiver for waiver in list_waivers(deployment)}
    if waiver_id not in found:
        raise NotFoundError(f"there is no waiver {waiver_id!r}", fix="list them with `airlock waiver list`")
    return found[waiver_id]


# Asking


def request_problem(
    deployment: Deployment, policy: Policy, *, rule: str, versions: str, until: str, reason: str
) -> str:
    """Why a waiver cannot be asked for like this, in a sentence; empty when it can."""
    rules = policy.waivers
    if rules is None:
        return f"policy {policy.version} knows no waivers"
    if not SCOPE.fullmatch(rule):
        return (
            f"{rule[:80]!r} is no rule; write RULE, gate-NAME, gate-NAME:FINDING or gate-NAME:FINDING:WHERE"
        )
    try:
        in_range(versions, "1")
        until_us = end_of_day(until)
    except InvalidInputError as error:
        return f"{error.what}; {error.fix}"
    return (
        _scope_problem(policy, rules, rule)
        or _time_problem(deployment, rules, until_us)
        or words_problem(reason, minimum=rules.minimum_reason, what="reason")
    )


def _scope_problem(policy: Policy, rules: WaiverRules, rule: str) -> str:
    if policy.owner_of(rule) is None:
        return f"policy {policy.version} has no denying rule or gate with an owner for {rule!r}"
    if policy.waiver_role(rule) is None:
        may = ", ".join(sorted(rules.waivable))
        return f"{rule} cannot be waived under policy {policy.version}; what can: {may}"
    return ""


def _time_problem(deployment: Deployment, rules: WaiverRules, until_us: int) -> str:
    now = deployment.clock.now_us()
    if until_us <= now:
        return "the waiver would be over before it begins"
    if until_us - now > (rules.maximum_days + 1) * DAY_US:
        return f"a waiver lasts at most {rules.maximum_days:g} days"
    return ""


def request_waiver(
    deployment: Deployment,
    *,
    waiver_id: str,
    workload_name: str,
    rule: str,
    versions: str,
    until: str,
    reason: str,
    requester: str,
    dag_id: str,
    run_id: str,
) -> WaiverRequest:
    """Ask for a waiver. Repeating it for the same DAG run changes nothing.

    Args:
        deployment: where.
        waiver_id: id that follows from the run.
        workload_name: the workload it is for.
        rule: what may fail.
        versions: model versions it is for, such as ``>=3,<5``.
        until: last day it holds, UTC.
        reason: why; kept encrypted, and can be erased.
        requester: who asks, as authenticated by Airflow.
        dag_id: the DAG that was started.
        run_id: the run of it.

    Raises:
        RefusedError: it cannot be asked for like this; recorded.
        NotFoundError: unknown workload.
    """
    earlier = [one for one in list_waivers(deployment) if one.waiver_id == waiver_id]
    if earlier:
        return earlier[0]
    workload = deployment.config.workload(workload_name)
    policy = deployment.config.policy(workload.policy)
    problem = "" if requester else "nobody is known as the requester; start the DAG as a logged-in user"
    problem = problem or request_problem(
        deployment, policy, rule=rule, versions=versions, until=until, reason=reason
    )
    rules, role = policy.waivers, policy.waiver_role(rule)
    if problem or rules is None or role is None:
        raise refuse(
            deployment,
            waiver_id,
            problem,
            user=requester,
            what="request",
            when=run_id,
            workload=workload_name,
        )
    event = deployment.record(
        Kind.WAIVER_REQUESTED,
        f"waiver/{waiver_id}/requested",
        actor=requester,
        workload=workload.name,
        data={
            "waiver": waiver_id,
            "rule": rule,
            "versions": versions,
            "until_us": end_of_day(until),
            "role": role,
            "reason": reason.strip(),
            "policy": policy.version,
            "warn_days": rules.warn_days,
            "answer_hours": rules.answer_hours,
            "dag_id": dag_id,
            "run_id": run_id,
        },
    ).event
    return WaiverRequest(event)


# Answering


def barred(deployment: Deployment, request: WaiverRequest) -> dict[str, str]:
    """Who may not answer: who asked, and who submitted a release that it is for."""
    submitted = deployment.audit.events(workload=request.workload, kinds=[Kind.RELEASE_SUBMITTED])
    concerned = {
        entry.event.actor: "submitted a release that this waiver is for"
        for entry in submitted
        if in_range(request.versions, entry.event.version)
    }
    return {**concerned, request.requested.actor: "asked for this waiver"}


def question(deployment: Deployment, waiver_id: str, index: int) -> Question:
    """What the owner of the rule is asked.

    Raises:
        NotFoundError: unknown waiver or seat.
        RefusedError: nobody may answer, or the time is over.
    """
    request = find_waiver(deployment, waiver_id)
    if index != ROLE_SEAT:
        raise NotFoundError(f"waiver {waiver_id} has no seat {index + 1}")
    people = eligible_people(_panel(deployment, request), request.role, waiver_id)
    left = (request.answer_until_us - deployment.clock.now_us()) / 1_000_000
    if left <= 0:
        raise RefusedError("the time to answer is over", where=waiver_id, fix="ask for the waiver again")
    workload = deployment.config.workload(request.workload)
    parts = [
        (
            f"**{markdown(request.requested.actor)}** asks that `{request.rule}` may fail for versions "
            f"**{markdown(request.versions)}** of **{markdown(workload.title)}** until "
            f"**{last_day(request.until_us)}** (UTC, that day included)."
        ),
        f"**Why:** {markdown(str(request.requested.data['reason']))}",
        (
            f"**Why your role:** {request.role} owns this rule. Anyone of: "
            f"{markdown(', '.join(person.name for person in people))}."
        ),
        (
            "The gate goes on saying what it measures; releases show the waiver, and a person approves each "
            "of them. You can take it back at any time with `airlock waiver revoke`."
        ),
        "To reject, say in the comment what has to change. Unanswered, it is closed; silence grants nothing.",
        f"Waiver `{waiver_id}`, policy {request.requested.data['policy']}",
    ]
    subject = f"{workload.title}: waive {request.rule} as {request.role}?"
    return Question(subject, "\n\n".join(parts), people, left)


def answer(
    deployment: Deployment, waiver_id: str, index: int, *, user: str, choice: str, comment: str, when: str
) -> WaiverRequest:
    """Record the owner's answer; it counts once it is anchored outside the database.

    Args:
        deployment: where.
        waiver_id: which waiver.
        index: its seat, 0.
        user: who, as authenticated by Airflow.
        choice: ``approve`` or ``reject``.
        comment: why; a rejection must explain itself.
        when: when the person answered; tells apart repeated refused attempts.

    Raises:
        RefusedError: the answer must not count; the refusal is recorded.
        NotFoundError: unknown waiver.
    """
    request = find_waiver(deployment, waiver_id)
    grants = choice == "approve"
    person, acting = answer_problem(_panel(deployment, request), user, request.role)
    problem = _answer_problem(deployment, request, index, user=user, grants=grants, comment=comment) or person
    if problem:
        raise refuse(
            deployment, waiver_id, problem, user=user, what=choice, when=when, workload=request.workload
        )
    kind = Kind.WAIVER_GRANTED if grants else Kind.WAIVER_REJECTED
    data = {
        "waiver": waiver_id,
        "role": request.role,
        "comment": comment,
        "request": request_digest(request),
        **acting,
    }
    try:
        deployment.record(
            kind, f"waiver/{waiver_id}/answer", actor=user, workload=request.workload, data=data
        )
    except ConflictError as error:
        raise refuse(
            deployment, waiver_id, "it was answered in this moment by someone else", user=user, what=choice,
            when=when, workload=request.workload,
        ) from error  # fmt: skip
    return find_waiver(deployment, waiver_id)


def _answer_problem(
    deployment: Deployment, request: WaiverRequest, index: int, *, user: str, grants: bool, comment: str
) -> str:
    if index != ROLE_SEAT:
        return f"seat {index + 1} does not exist"
    given = request.answer
    if given is not None and given.actor != user:
        return f"{given.actor} has already answered"
    if given is None and deployment.clock.now_us() >= request.answer_until_us:
        return "the time to answer is over; ask for the waiver again"
    minimum = 0 if grants else _policy(deployment, request).approval.minimum_comment
    return words_problem(comment, minimum=minimum, what="comment")


def _panel(deployment: Deployment, request: WaiverRequest) -> Panel:
    """Who may answer a request now."""
    days = _policy(deployment, request).approval.delegate_days
    return request_panel(deployment, barred(deployment, request), days)


def _policy(deployment: Deployment, request: WaiverRequest) -> Policy:
    return deployment.config.policy(deployment.config.workload(request.workload).policy)


def standing(deployment: Deployment, waiver_id: str) -> Standing:
    """Where the request stands, from audited answers alone."""
    request = find_waiver(deployment, waiver_id)
    state = request.state(deployment.clock.now_us())
    if state is WaiverState.ASKED:
        return Standing(OPEN, f"waiting for {request.role}")
    if state is WaiverState.UNANSWERED:
        return Standing(EXPIRED, "nobody answered in time, so the request is closed")
    who = "" if request.answer is None else request.answer.who
    if state is WaiverState.REJECTED:
        return Standing(
            REJECTED, f"rejected by {who}", str((request.answer or request.requested).data["comment"])
        )
    if state.in_force:
        return Standing(GRANTED, f"granted by {who} until {last_day(request.until_us)}")
    return Standing(DENIED, f"the waiver is {state}")


def revoke(deployment: Deployment, waiver_id: str, *, user: str, reason: str, when: str) -> WaiverRequest:
    """Take a waiver back: its requester and everybody who holds its owner's role may.

    Raises:
        RefusedError: this user may not, it is not in force, or no reason is given; recorded.
        NotFoundError: unknown waiver.
    """
    request = find_waiver(deployment, waiver_id)
    if request.revoked is not None:
        return request
    state = request.state(deployment.clock.now_us())
    minimum = _policy(deployment, request).approval.minimum_comment
    problem = words_problem(reason, minimum=minimum, what="reason")
    if not state.in_force:
        problem = f"waiver {waiver_id} is not in force: {state}"
    elif user != request.requested.actor:
        days = _policy(deployment, request).approval.delegate_days
        problem = problem or answer_problem(request_panel(deployment, {}, days), user, request.role)[0]
    if problem:
        raise refuse(
            deployment, waiver_id, problem, user=user, what="revoke", when=when, workload=request.workload
        )
    deployment.record(
        Kind.WAIVER_REVOKED,
        f"waiver/{waiver_id}/revoked",
        actor=user,
        workload=request.workload,
        data={"waiver": waiver_id, "reason": reason.strip()},
    )
    return find_waiver(deployment, waiver_id)


# Resting on them


def in_force(deployment: Deployment, case: Case) -> list[Waiver]:
    """The waivers a release may rest on now."""
    now = deployment.clock.now_us()
    found = [one for one in list_waivers(deployment, case.workload.name) if one.state(now).in_force]
    granted = [one.granted for one in found]
    return [one for one in granted if one is not None]


def waived(deployment: Deployment, case: Case, record: Evidence) -> list[Waiver]:
    """The waivers in force that let a gate of a release fail; empty when its verdict stands as it is."""
    return waive_gate(record, usable(in_force(deployment, case), case.manifest, case.policy))


def waivers_for(deployment: Deployment, record: Evidence) -> list[str]:
    """In words, the waivers that let a gate fail; empty when it allows, or when its failure stands."""
    if record.verdict.allows:
        return []
    found = waived(deployment, open_case(deployment, record.release_id), record)
    return [
        f"waiver {one.waiver_id} of {one.granted_by} until {last_day(one.until_us)} lets {one.rule} fail"
        for one in found
    ]


def resting_on(deployment: Deployment, decision: Decision, workload: str) -> list[Waiver]:
    """The waivers that a recorded decision rests on, computed again from their events.

    One that was never granted like that is not among them, so that the decision does not follow any more.
    """
    if not decision.waivers:
        return []
    granted = [one.granted for one in list_waivers(deployment, workload)]
    return [one for one in granted if one is not None and decision.waivers.get(one.waiver_id) == one.digest]


def ended_since(deployment: Deployment, decision: Decision, workload: str) -> list[str]:
    """Why a decision may not be acted on any more: waivers it rests on that have ended."""
    if not decision.waivers:
        return []
    now = deployment.clock.now_us()
    known = {one.waiver_id: one for one in list_waivers(deployment, workload)}
    problems = []
    for waiver_id in decision.waivers:
        state = known[waiver_id].state(now) if waiver_id in known else None
        if state is None or not state.in_force:
            problems.append(f"waiver {waiver_id} is {state or 'unknown'}, and the decision rests on it")
    return problems


# Looking after them


@dataclass(frozen=True)
class Reopened:
    """A release in production that rests on a waiver that ended: somebody has to act."""

    release_id: str
    workload: str
    version: str
    waiver_id: str
    rule: str
    state: WaiverState


def resting_releases(deployment: Deployment) -> list[tuple[Event, WaiverRequest]]:
    """Releases in production with each waiver they rest on: their promotion and the waiver."""
    waivers = {one.waiver_id: one for one in list_waivers(deployment)}
    if not waivers:
        return []
    name = deployment.settings.deployment
    decided = {
        entry.event.release_id: entry.event.data.get("waivers", [])
        for entry in deployment.audit.events(kinds=[Kind.RELEASE_DECIDED])
        if entry.event.deployment == name
    }
    return [
        (event, waivers[waiver_id])
        for event in in_production(deployment)
        for waiver_id in decided.get(event.release_id, [])
        if waiver_id in waivers
    ]


def in_production(deployment: Deployment) -> list[Event]:
    """The promotion behind each version that is in production now, also where a rollback brought it back."""
    found = []
    for workload, last in champions(deployment).items():
        version = arrived(last)
        promoted = deployment.audit.events(
            workload=workload, version=version, kinds=[Kind.PROMOTION_FINISHED], newest_first=True
        )
        own = [entry.event for entry in promoted if entry.event.deployment == deployment.settings.deployment]
        if version and own and last.kind is not Kind.CHAMPION_ADOPTED:
            found.append(own[0])
    return found


def reopened(deployment: Deployment) -> list[Reopened]:
    """What is in production without its waiver now, unless another one has taken its place."""
    now = deployment.clock.now_us()
    active = [one.granted for one in list_waivers(deployment) if one.state(now).in_force]
    found = []
    for event, waiver in resting_releases(deployment):
        state = waiver.state(now)
        renewed = any(
            one is not None
            and one.workload == event.workload
            and one.rule == waiver.rule
            and in_range(one.versions, event.version)
            for one in active
        )
        if not state.in_force and not renewed:
            found.append(
                Reopened(
                    event.release_id, event.workload, event.version, waiver.waiver_id, waiver.rule, state
                )
            )
    return found


def review(deployment: Deployment) -> list[str]:
    """Say once of each waiver that it is about to end, that it ended, and what that reopens.

    Safe to repeat: what was said is recorded, and said again only when something new is the case.
    """
    now = deployment.clock.now_us()
    said = [
        sentence
        for waiver in list_waivers(deployment)
        if (sentence := _notice(deployment, waiver, waiver.state(now)))
    ]
    for one in reopened(deployment):
        key = f"release/{one.release_id}/reopened/{one.waiver_id}"
        sentence = (
            f"{one.workload} version {one.version} is in production and rests on waiver {one.waiver_id} of "
            f"{one.rule}, which is {one.state}: renew the waiver, or release a version without it"
        )
        if deployment.find(key) is None:
            data = {"waiver": one.waiver_id, "rule": one.rule, "state": str(one.state), "sentence": sentence}
            deployment.record(
                Kind.RELEASE_REOPENED,
                key,
                release_id=one.release_id,
                workload=one.workload,
                version=one.version,
                data=data,
            )
            said.append(sentence)
    return said


def _notice(deployment: Deployment, waiver: WaiverRequest, state: WaiverState) -> str:
    if waiver.granted is None or state is WaiverState.ACTIVE:
        return ""
    kind = Kind.WAIVER_EXPIRING if state is WaiverState.EXPIRING else Kind.WAIVER_ENDED
    key = f"waiver/{waiver.waiver_id}/{'expiring' if kind is Kind.WAIVER_EXPIRING else 'ended'}"
    if deployment.find(key) is not None:
        return ""
    verb = "ends on" if kind is Kind.WAIVER_EXPIRING else f"is {state}; its last day was to be"
    sentence = (
        f"waiver {waiver.waiver_id} of {waiver.rule} for {waiver.workload} {verb} "
        f"{last_day(waiver.until_us)}; asked for by {waiver.requested.actor}, owned by {waiver.role}"
    )
    deployment.record(
        kind,
        key,
        workload=waiver.workload,
        data={"waiver": waiver.waiver_id, "state": str(state), "sentence": sentence},
    )
    return sentence
