"""From the signals of a window to what is done: proposed, held back, asked, taken or declined (M-2).

Each judged window has one proposal, ``action.proposed``, and it ends once: ``action.taken`` or
``action.declined``. Repeating any step, also after a kill, gives the same; what is taken is taken by services
that are safe to repeat for the same incident.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airlock.core.approvals import Panel
from airlock.core.audit import Event, Kind
from airlock.core.canonical import storable
from airlock.core.decision import tier_of
from airlock.core.errors import (
    AirlockError,
    ConflictError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from airlock.core.facts import workload_facts
from airlock.core.monitoring import (
    MEANS,
    Action,
    Taken,
    answer_deadline_us,
    heaviest_action,
    restraint,
)
from airlock.core.production import moment
from airlock.core.rules import FactSet, Reason, evaluate_phase
from airlock.core.signals import MonitoringEvidence, lasting
from airlock.services.approve import GRANTED, OPEN, Standing
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.incidents import open_incident
from airlock.services.monitor import Watched, evaluated, read_window, watched, window_of
from airlock.services.panel import request_panel
from airlock.services.requests import (
    Question,
    answer_problem,
    eligible_people,
    refuse,
    request_id_for,
    words_problem,
)
from airlock.services.retrain import request as request_retraining
from airlock.services.rollback import rollback

_SENTENCE = 1000


@dataclass(frozen=True)
class Facts:
    """What the rules about production read, and what came of it."""

    reasons: list[Reason]
    action: Action
    tier: str


def judge(deployment: Deployment, scene: Watched, event: Event) -> Facts:
    """Run the policy's rules about production over a judged window.

    A rule that cannot be evaluated counts as an alert: nothing is done on what nobody could judge, and it is
    not silent either.
    """
    evidence = read_window(deployment, event)
    facts = FactSet(workload_facts(scene.workload, scene.policy))
    as_of = moment(deployment.clock.now_us()).date()
    session = deployment.engine.begin(scene.policy, facts)
    tier = str(tier_of(scene.policy, facts, session, as_of))
    facts.learn("risk", {"tier": tier})
    for group, values in _production_facts(deployment, scene, event, evidence).items():
        facts.learn(group, values)
    reasons = evaluate_phase("action", policy=scene.policy, session=session, facts=facts, as_of=as_of)
    fired = [reason for reason in reasons if reason.fired]
    actions = [Action.ALERT if one.error else Action(one.effect.partition(" ")[2]) for one in fired]
    return Facts(fired, heaviest_action(actions), tier)


def _production_facts(
    deployment: Deployment, scene: Watched, event: Event, evidence: MonitoringEvidence
) -> dict[str, dict[str, Any]]:
    windows = evaluated(deployment, scene.workload.name)
    so_far = [one for one in windows if one.data["end_us"] <= event.data["end_us"]]
    so_far = [*(one for one in so_far if one.data["end_us"] < event.data["end_us"]), event]
    own = [one for one in so_far if one.version == event.version]
    rules = scene.rules.hysteresis
    return {
        "signals": {one.name: one.value for one in evidence.signals if one.value is not None},
        "monitor": {
            "raised": _named(event, "raised"),
            "lasting": lasting([_named(one, "raised") for one in own], raised=rules.raised, of=rules.windows),
            "unsure": _named(event, "unsure"),
            "errors": _named(event, "error"),
            "rows": float(evidence.rows),
            "labelled": float(evidence.labelled),
            "blind": _blind(so_far),
            "windows": len(own),
            "can_roll_back": bool(set(scene.moves.earlier()) - scene.moves.left),
        },
    }


def _named(event: Event, reading: str) -> list[str]:
    return [name for name, found in event.data["readings"].items() if found == reading]


def _blind(windows: list[Event]) -> int:
    """Windows in a row, up to the last one, in which something could not be measured."""
    count = 0
    for event in reversed(windows):
        if not _named(event, "error"):
            break
        count += 1
    return count


def proposal_of(deployment: Deployment, event: Event) -> Event | None:
    """The proposal after a judged window, if there is one."""
    return deployment.find(f"{_key(event)}/proposed")


def _key(event: Event) -> str:
    return f"action/{event.workload}/{window_of(event).key}/{event.data['revision']}"


def propose(deployment: Deployment, event: Event, *, subject: str = "") -> Event:
    """Say what policy asks for after a judged window, why, and what holds it back. Safe to repeat.

    ``subject`` names the proposal where people are asked, for whoever runs this in Airflow.

    Raises:
        NotFoundError: the workload is not there any more, or not in production.
        UnavailableError: a store does not answer.
    """
    if (earlier := proposal_of(deployment, event)) is not None:
        return earlier
    scene = watched(deployment, event.workload)
    found, limits = judge(deployment, scene, event), scene.rules.actions
    now_us = deployment.clock.now_us()
    held = restraint(
        found.action,
        limits,
        tier=found.tier,
        taken=taken(deployment, event.workload),
        paused=paused(deployment, event.workload) is not None,
        now_us=now_us,
    )
    subject = subject or request_id_for("action", deployment.settings.deployment, "direct", _key(event))
    data: dict[str, Any] = {
        "subject": subject,
        "window": event.data["window"],
        "start_us": event.data["start_us"],
        "end_us": event.data["end_us"],
        "revision": event.data["revision"],
        "evidence": event.data["evidence"],
        "action": str(found.action),
        "would": MEANS[found.action],
        "tier": found.tier,
        "restraint": held.kind,
        "why_held": held.sentence,
        "policy": scene.policy.version,
        "policy_digest": scene.policy.digest,
        "reasons": [
            {
                "rule": one.rule,
                "effect": one.effect,
                "message": one.message[:_SENTENCE],
                "fix": one.fix[:_SENTENCE],
                "severity": str(one.severity or "medium"),
            }
            for one in found.reasons
        ],
        "role": limits.role if held.kind == "ask" else "",
        "deadline_us": answer_deadline_us(limits, now_us) if held.kind == "ask" else 0,
        "silence": limits.when_silent(found.action) if held.kind == "ask" else "",
    }
    try:
        return deployment.record(
            Kind.ACTION_PROPOSED,
            f"{_key(event)}/proposed",
            workload=event.workload,
            version=event.version,
            data=data,
        ).event
    except ConflictError:  # another run proposed in the same moment: its people are asked, once
        if (first := proposal_of(deployment, event)) is None:
            raise
        return first


def sentence_of(proposal: Event) -> str:
    """A proposal in a sentence: what, and why."""
    why = "; ".join(one["message"] for one in _decisive(proposal))
    return f"{proposal.data['action']}: {why or 'no rule asks for anything'}"


def _decisive(proposal: Event) -> list[dict[str, str]]:
    """Reasons for exactly this action; all of them where none has it, such as rules in error."""
    wanted = f"action {proposal.data['action']}"
    reasons: list[dict[str, str]] = proposal.data["reasons"]
    return [one for one in reasons if one["effect"] == wanted] or reasons


def taken(deployment: Deployment, workload: str) -> list[Taken]:
    """Actions on a workload since a person last resumed it, oldest first."""
    since = _last(deployment, workload, Kind.MONITOR_RESUMED)
    events = _events(deployment, workload, Kind.ACTION_TAKEN)
    found = [
        Taken(
            action=Action(event.data["action"]),
            at_us=event.occurred_us,
            automatic=not event.data["by"] and (since is None or event.occurred_us >= since.occurred_us),
        )
        for event in events
    ]
    return [one for one in found if one.action.acts]


def paused(deployment: Deployment, workload: str) -> Event | None:
    """The event with which Airlock paused itself, while it stands."""
    stopped = _last(deployment, workload, Kind.MONITOR_PAUSED)
    resumed = _last(deployment, workload, Kind.MONITOR_RESUMED)
    if stopped is None or (resumed is not None and resumed.data["paused"] == stopped.key):
        return None
    return stopped


def resume(deployment: Deployment, workload: str, *, actor: str, reason: str) -> Event:
    """Let Airlock act by itself again.

    Raises:
        RefusedError: it is not paused, or this user may not; recorded where somebody tried.
    """
    stopped = paused(deployment, workload)
    if stopped is None:
        raise RefusedError(f"Airlock is not paused for {workload}", fix="see `airlock monitor status`")
    role = watched(deployment, workload).rules.actions.role
    problem, _ = answer_problem(_panel(deployment, workload), actor, role)
    problem = problem or words_problem(reason, minimum=10, what="reason")
    if problem:
        when = str(deployment.clock.now_us())
        raise refuse(
            deployment, f"resume-{workload}", problem, user=actor, what="resume", when=when, workload=workload
        )
    return deployment.record(
        Kind.MONITOR_RESUMED,
        f"{stopped.key.partition('/')[2]}/resumed",
        actor=actor,
        workload=workload,
        data={"paused": stopped.key, "reason": reason},
    ).event


def _events(deployment: Deployment, workload: str, kind: Kind) -> list[Event]:
    name = deployment.settings.deployment
    recorded = deployment.audit.events(workload=workload, kinds=[kind])
    return [entry.event for entry in recorded if entry.event.deployment == name]


def _last(deployment: Deployment, workload: str, kind: Kind) -> Event | None:
    found = _events(deployment, workload, kind)
    return found[-1] if found else None


def ended(deployment: Deployment, proposal: Event) -> Event | None:
    """How a proposal ended, if it did."""
    return deployment.find(_base(proposal) + "/ended")


def _base(proposal: Event) -> str:
    return proposal.key.partition("/")[2].removesuffix("/proposed")


def act(deployment: Deployment, proposal: Event) -> Event:
    """Do what was proposed, or record why not; returns the event that ended it, else the proposal itself.

    Raises:
        RefusedError: people are asked and may still answer.
        UnavailableError: a service does not answer; asking again goes on where it stopped.
    """
    if (earlier := ended(deployment, proposal)) is not None:
        return earlier
    action = Action(proposal.data["action"])
    if action is Action.NONE:
        return proposal
    by, refusal = _permission(deployment, proposal)
    incident = _incident(deployment, proposal)
    if refusal:
        return _end(deployment, proposal, Kind.ACTION_DECLINED, by=by, incident=incident, sentence=refusal)
    try:
        done = _DO[action](deployment, proposal, incident)
    except UnavailableError:
        raise
    except AirlockError as error:  # the service's own rules said no: that is how it ends, and people are told
        return _end(deployment, proposal, Kind.ACTION_DECLINED, by=by, incident=incident, sentence=str(error))
    return _end(deployment, proposal, Kind.ACTION_TAKEN, by=by, incident=incident, sentence=done)


def _permission(deployment: Deployment, proposal: Event) -> tuple[str, str]:
    """Who allowed it (empty for nobody) and why it may not be done (empty when it may)."""
    kind, held = proposal.data["restraint"], str(proposal.data["why_held"])
    if kind == "go":
        return "", ""
    if kind != "ask":
        if kind == "cap":
            _pause(deployment, proposal, held)
        return "", held
    answer = answered(deployment, str(proposal.data["subject"]))
    if answer is not None:
        agreed = answer.data["choice"] == "approve"
        return answer.actor, "" if agreed else f"{answer.actor} declined it"
    if deployment.clock.now_us() <= proposal.data["deadline_us"]:
        raise RefusedError(
            f"people are asked about this and may still answer: {proposal.data['role']}",
            where=str(proposal.data["subject"]),
            fix="answer under Required Actions in Airflow, or wait for the deadline",
        )
    if proposal.data["silence"] == "take":
        return "", ""
    return "", "nobody answered in time, and the safe side of this is not to do it"


def _pause(deployment: Deployment, proposal: Event, sentence: str) -> None:
    deployment.record(
        Kind.MONITOR_PAUSED,
        f"{_base(proposal)}/paused",
        workload=proposal.workload,
        version=proposal.version,
        data={"sentence": sentence, "action": proposal.data["action"], "proposal": proposal.key},
    )


def _incident(deployment: Deployment, proposal: Event) -> str:
    severities = ["info", "low", "medium", "high", "critical"]
    decisive = _decisive(proposal)
    cause = f"monitor/{proposal.workload}/{proposal.data['action']}"
    if Action(proposal.data["action"]).acts:  # each is one of its own; alerts about the same are one
        cause += f"/{window_of(proposal).key}"
    severity = max((one["severity"] for one in decisive), key=severities.index, default="medium")
    return open_incident(
        deployment,
        workload=proposal.workload,
        version=proposal.version,
        action=str(proposal.data["action"]),
        severity=severity,
        summary=sentence_of(proposal)[:_SENTENCE],
        cause=cause,
        detected_us=proposal.occurred_us,
        data={"window": proposal.data["window"], "evidence": proposal.data["evidence"]},
        began_us=int(proposal.data["start_us"]),
    )


def _end(
    deployment: Deployment, proposal: Event, kind: Kind, *, by: str, incident: str, sentence: str
) -> Event:
    return deployment.record(
        kind,
        f"{_base(proposal)}/ended",
        actor=by or SYSTEM,
        workload=proposal.workload,
        version=proposal.version,
        data={
            "action": proposal.data["action"],
            "by": by,
            "incident": incident,
            "sentence": storable(sentence)[:_SENTENCE],
            "subject": proposal.data["subject"],
            "evidence": proposal.data["evidence"],
        },
    ).event


def _alert(_deployment: Deployment, _proposal: Event, incident: str) -> str:
    return f"people are told by incident {incident}"


def _retrain(deployment: Deployment, proposal: Event, incident: str) -> str:
    name = request_retraining(
        deployment,
        proposal.workload,
        window=window_of(proposal),
        incident_id=incident,
        reason=sentence_of(proposal)[:_SENTENCE],
    )
    return f"retraining {name} is asked for; what it trains comes back as a release"


def _rollback(deployment: Deployment, proposal: Event, incident: str) -> str:
    event = rollback(
        deployment,
        proposal.workload,
        actor=SYSTEM,
        reason=sentence_of(proposal)[:_SENTENCE],
        incident_id=incident,
        leaving=proposal.version,
        quarantine=proposal.data["action"] == Action.QUARANTINE,
    )
    to = str(event.data.get("to") or "")
    return f"version {proposal.version} is out of production" + (f", version {to} is back" if to else "")


def _shadow(_deployment: Deployment, _proposal: Event, _incident: str) -> str:
    raise RefusedError(
        "nothing here can run a second model on live traffic, so this stays a proposal to people",
        fix="run the model beside the champion where it is served, then compare their logs",
    )


_DO: dict[Action, Callable[[Deployment, Event, str], str]] = {
    Action.ALERT: _alert,
    Action.SHADOW: _shadow,
    Action.RETRAIN: _retrain,
    Action.ROLLBACK: _rollback,
    Action.QUARANTINE: _rollback,
}


def find_proposal(deployment: Deployment, subject: str) -> Event | None:
    """The proposal that people are asked about under this name."""
    name = deployment.settings.deployment
    for entry in deployment.audit.events(kinds=[Kind.ACTION_PROPOSED], newest_first=True):
        if entry.event.deployment == name and entry.event.data["subject"] == subject:
            return entry.event
    return None


def answered(deployment: Deployment, subject: str) -> Event | None:
    """What people answered, if they did."""
    return deployment.find(f"action/{subject}/answered")


def _asked(deployment: Deployment, subject: str) -> Event:
    proposal = find_proposal(deployment, subject)
    if proposal is None:
        raise NotFoundError(f"nobody is asked about {subject!r}", fix="see `airlock monitor status`")
    return proposal


def _panel(deployment: Deployment, workload: str) -> Panel:
    """Who may answer about a workload in production now."""
    policy = deployment.config.policy(deployment.config.workload(workload).policy)
    return request_panel(deployment, {}, policy.approval.delegate_days)


def question(deployment: Deployment, subject: str, _index: int) -> Question:
    """What the people of the role are asked: why, what would be done, and what happens if nobody answers.

    Raises:
        NotFoundError: there is no such proposal.
        RefusedError: nobody holds the role, or the time is over.
    """
    proposal = _asked(deployment, subject)
    data = proposal.data
    left = (int(data["deadline_us"]) - deployment.clock.now_us()) / 1_000_000
    if left <= 0:
        raise RefusedError("the time to answer is over", where=subject)
    reasons = "\n".join(f"- **{one['rule']}**: {one['message']}" for one in data["reasons"])
    body = (
        f"**{proposal.workload}**, version {proposal.version}, {data['window']}\n\n"
        f"Policy {data['policy']} proposes **{data['action']}**: {data['would']}.\n\n{reasons}\n\n"
        f"Approve to do it, reject to leave things as they are. If nobody answers by "
        f"{moment(int(data['deadline_us'])):%Y-%m-%d %H:%M} UTC it is "
        f"{'done' if data['silence'] == 'take' else 'not done'}: that is the safe side.\n\n"
        f"Evidence: `{data['evidence']}`"
    )
    people = eligible_people(_panel(deployment, proposal.workload), str(data["role"]), subject)
    return Question(f"{data['action']} {proposal.workload}?", body, people, left)


def answer(
    deployment: Deployment, subject: str, _index: int, *, user: str, choice: str, comment: str, when: str
) -> None:
    """Record what a person answers; the first answer counts.

    Raises:
        RefusedError: this user may not answer, or the time is over; recorded.
    """
    proposal = _asked(deployment, subject)
    role = str(proposal.data["role"])
    problem, acting = answer_problem(_panel(deployment, proposal.workload), user, role)
    if not problem and deployment.clock.now_us() > proposal.data["deadline_us"]:
        problem = "the time to answer is over"
    if not problem and answered(deployment, subject) is not None:
        problem = "it is answered already"
    problem = problem or words_problem(comment, minimum=0, what="comment")
    if problem:
        raise refuse(
            deployment, subject, problem, user=user, what=choice, when=when, workload=proposal.workload
        )
    deployment.record(
        Kind.ACTION_ANSWERED,
        f"action/{subject}/answered",
        actor=user,
        workload=proposal.workload,
        version=proposal.version,
        data={"subject": subject, "choice": choice, "role": role, "comment": comment, **acting},
    )


def standing(deployment: Deployment, subject: str) -> Standing:
    """Whether people are still asked; whatever came of it, the next step reads the answer itself."""
    proposal = find_proposal(deployment, subject)
    if proposal is None or proposal.data["restraint"] != "ask":
        return Standing(GRANTED, "nobody has to be asked")
    if (given := answered(deployment, subject)) is not None:
        return Standing(GRANTED, f"{given.who} answered: {given.data['choice']}")
    if deployment.clock.now_us() > proposal.data["deadline_us"]:
        return Standing(GRANTED, f"nobody answered, so the safe side counts: {proposal.data['silence']}")
    return Standing(OPEN, f"waiting for {proposal.data['role']}")
