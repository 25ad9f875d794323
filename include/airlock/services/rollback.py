"""Rollback: the champion goes back to the last version that is fit, or to the fallback (R-3, R-5).

Like promotion it believes no task and no earlier word: what is fit is computed anew, from the log, the
evidence, the registry and a trial. It takes a number of the workload's moves before it touches anything, so a
release and a rollback never move the champion at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airlock.core.audit import Event, Kind
from airlock.core.canonical import digest_of, sha256_hex, storable
from airlock.core.errors import ConflictError, IntegrityError, NotFoundError, RefusedError
from airlock.core.incident import incident_id_for
from airlock.core.policy import Policy
from airlock.core.workload import Workload
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.incidents import open_incident
from airlock.services.moves import Moves, moves_of, number_key
from airlock.services.panel import request_panel
from airlock.services.promote import promote
from airlock.services.publish import require_published
from airlock.services.requests import answer_problem, words_problem
from airlock.services.rollback_checks import Desk, Plan, early_trial, make_plan

WAIT_SECONDS = 20.0
"""How long another move may take before a rollback believes that whoever made it is gone."""

POLL_SECONDS = 0.2
MINIMUM_REASON = 5

SEVERITY = "high"
"""Of the incident a rollback opens when nobody opened one before."""


def _quiet(sentence: str) -> None:
    del sentence


def rollback(
    deployment: Deployment,
    workload_name: str,
    *,
    to: str | None = None,
    actor: str,
    reason: str,
    incident_id: str = "",
    leaving: str = "",
    quarantine: bool = False,
    wait_seconds: float = WAIT_SECONDS,
    progress: Callable[[str], None] = _quiet,
) -> Event:
    """Take the champion out of production and return the event that says what took over.

    Repeating it, also after a kill at any point, gives one champion and one record. Two people who see the
    same fire go back one version, not two: within the policy's ``settle_minutes`` a rollback without a
    version of its own returns the one before.

    Args:
        deployment: where.
        workload_name: the workload.
        to: the version to go back to; the last one that is fit if not given.
        actor: who, as authenticated; ``system`` for an action of the policy, which names its incident.
        reason: why; kept encrypted, and can be erased.
        incident_id: the incident it belongs to; one is opened if not given.
        leaving: the version to leave; when another one is in production there is nothing to do.
        quarantine: whether the version that is left is quarantined.
        wait_seconds: how long to wait for another move of the champion.
        progress: told what is being done, a sentence each.

    Raises:
        RefusedError: this user may not, the reason is missing, or the version named is not fit; recorded.
        ConflictError: another move of the champion began in the same moment; nothing was changed.
        UnavailableError: the registry, a store or the sandbox does not answer. What began is finished by the
            next call.
    """
    wish = Wish(actor, reason, incident_id, quarantine=quarantine)
    workload = deployment.config.workload(workload_name)
    policy = deployment.config.policy(workload.policy)
    problem, acting = _problem(deployment, policy, wish)
    if problem:
        raise _refused(deployment, workload, wish, [problem])
    require_published(deployment, policy)
    moves, resumed = _settled_moves(deployment, workload, wait_seconds)
    if resumed is not None:
        return resumed
    desk = Desk(deployment, workload, policy, moves)
    with early_trial(desk, to):
        now = _champion(deployment, desk.model)
        if (earlier := _done_before(desk, wish, now=now, to=to, leaving=leaving)) is not None:
            return earlier
        if problem := _pointless(now, to, leaving):
            raise _refused(deployment, workload, wish, [problem])
        plan = make_plan(desk, now, to, progress=progress)
    if to is not None and plan.how == "quarantine":
        raise _refused(deployment, workload, wish, plan.considered[-1].problems, plan)
    started = _start(deployment, plan, moves.next_number, wish, acting)
    progress(plan.sentence)
    return finish(deployment, started)


@dataclass(frozen=True)
class Wish:
    """Who wants a rollback, and why."""

    actor: str
    reason: str
    incident_id: str
    quarantine: bool


def dry_run(
    deployment: Deployment,
    workload_name: str,
    *,
    to: str | None = None,
    progress: Callable[[str], None] = _quiet,
) -> Plan:
    """What a rollback would do now, with every check; nothing is changed and nothing is recorded.

    Raises:
        UnavailableError: the registry, a store or the sandbox does not answer.
    """
    workload = deployment.config.workload(workload_name)
    policy = deployment.config.policy(workload.policy)
    desk = Desk(deployment, workload, policy, moves_of(deployment, workload_name))
    return make_plan(desk, _champion(deployment, desk.model), to, progress=progress)


def may_roll_back(deployment: Deployment, workload_name: str, user: str) -> str:
    """Why a user may not roll a workload back, in a sentence; empty when they may."""
    policy = deployment.config.policy(deployment.config.workload(workload_name).policy)
    return _person_problem(deployment, policy, user)[0]


def _champion(deployment: Deployment, model: str) -> str:
    """The version in production by the registry; empty for none."""
    champion = deployment.registry.champion(model)
    return "" if champion is None else champion.version


def _problem(deployment: Deployment, policy: Policy, wish: Wish) -> tuple[str, dict[str, str]]:
    """Why it may not be, and what to record of whom its actor acts for."""
    if problem := words_problem(wish.reason, minimum=MINIMUM_REASON, what="reason"):
        return problem, {}
    if wish.actor != SYSTEM:
        return _person_problem(deployment, policy, wish.actor)
    if not policy.operations.rollback.automatic:
        return "the policy lets nobody but a person roll back (operations.rollback.automatic)", {}
    return "" if wish.incident_id else "a rollback without a person names the incident that asks for it", {}


def _person_problem(deployment: Deployment, policy: Policy, user: str) -> tuple[str, dict[str, str]]:
    roles, panel = (
        policy.operations.rollback.roles,
        request_panel(deployment, {}, policy.approval.delegate_days),
    )
    found = [answer_problem(panel, user, role) for role in roles]
    if fit := [acting for problem, acting in found if not problem]:
        return "", min(fit, key=len)  # a role of their own before one of somebody else
    person = deployment.config.people().active(user)
    held = [] if person is None else person.roles
    return (
        f"{user or 'nobody'} may not roll back: it takes the role {' or '.join(roles)}; "
        f"roles held: {', '.join(held) or 'none'}"
    ), {}


def _pointless(now: str, to: str | None, leaving: str) -> str:
    if leaving and now != leaving:
        return f"version {leaving} is not in production: {f'version {now}' if now else 'no version'} is"
    if to is not None and to == now:
        return f"version {to} is in production already"
    return ""


def _settled_moves(deployment: Deployment, workload: Workload, seconds: float) -> tuple[Moves, Event | None]:
    """The moves once none is running; and the rollback that was finished on the way, if one was.

    A move that is still open after a while lost whoever made it. A rollback or an undo is finished from what
    it recorded; so is a promotion whose alias has moved. One that has moved nothing is ended.

    Raises:
        ConflictError: another version went into production meanwhile, which nobody has looked at yet.
    """
    moves = moves_of(deployment, workload.name)
    running = moves.running_number()
    if running is None:
        return moves, None
    if running.kind is Kind.ROLLBACK_STARTED:
        # Two who roll back in the same moment want the same; and after a kill it is what is left to do.
        finished = _finish_or_end(deployment, running)
        return (moves if finished else moves_of(deployment, workload.name)), finished
    model = workload.model.registered_model
    before = _champion(deployment, model)
    until = time.monotonic() + seconds
    while (running := moves.running_number()) is not None and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        moves = moves_of(deployment, workload.name)
    if running is not None:
        _end_orphan(deployment, running)
        moves = moves_of(deployment, workload.name)
    if (now := _champion(deployment, model)) != before:
        raise ConflictError(
            f"version {now} went into production meanwhile, where version {before or 'none'} was",
            where=workload.name,
            fix="look whether that one has to be rolled back too, and say so",
        )
    return moves, None


def _finish_or_end(deployment: Deployment, running: Event) -> Event | None:
    """Finish a rollback; one whose version is gone is ended, so that others can go on."""
    try:
        return finish(deployment, running)
    except NotFoundError as error:
        data = {"move": running.data["move"], "problems": [storable(str(error))[:2000]], "reason": ""}
        deployment.record(
            Kind.ROLLBACK_REFUSED,
            f"rollback/{running.workload}/{running.data['move']}/ended",
            release_id=running.release_id,
            workload=running.workload,
            version=running.version,
            data=data,
        )
        return None


def _end_orphan(deployment: Deployment, running: Event) -> None:
    if running.kind is Kind.GUARD_UNDO_STARTED:
        from airlock.services.guard import finish_undo

        finish_undo(deployment, running)
        return
    model = deployment.config.workload(running.workload).model.registered_model
    champion = deployment.registry.champion(model)
    if champion is not None and champion.version == running.version:
        promote(deployment, running.release_id)
        return
    problems = ["a rollback took over: whoever promoted was gone, and the alias had not moved"]
    deployment.record(
        Kind.PROMOTION_REFUSED,
        f"release/{running.release_id}/promotion/overtaken/{sha256_hex(running.key.encode())[:16]}",
        release_id=running.release_id,
        workload=running.workload,
        version=running.version,
        data={"problems": problems},
    )


def _done_before(desk: Desk, wish: Wish, *, now: str, to: str | None, leaving: str) -> Event | None:
    """The rollback that has done already what is asked for, and still holds."""
    last = desk.moves.last
    if last is None or last.kind is not Kind.ROLLBACK_FINISHED or last.data["to"] != now:
        return None
    if to is not None:
        return last if to == now and leaving in ("", last.version) else None
    if leaving:
        return last if leaving == last.version else None
    if wish.incident_id and last.data["incident"] == wish.incident_id:
        return last
    age = desk.deployment.clock.now_us() - last.occurred_us
    return last if age < desk.policy.operations.rollback.settle_minutes * 60_000_000 else None


def _start(deployment: Deployment, plan: Plan, number: int, wish: Wish, acting: dict[str, str]) -> Event:
    """Take the next number of the workload's moves; whoever is second gets a conflict."""
    workload = plan.workload
    name = deployment.settings.deployment
    incident = wish.incident_id or incident_id_for(name, workload, _cause(workload, number), 0)
    try:
        return deployment.record(
            Kind.ROLLBACK_STARTED,
            number_key(workload, number),
            actor=wish.actor,
            release_id=plan.leaving_release,
            workload=workload,
            version=plan.leaving,
            data={
                "move": number,
                "model": plan.model,
                "how": plan.how,
                "from": plan.leaving,
                "to": plan.to,
                "to_release": plan.to_release,
                "constant": plan.constant,
                "policy": plan.policy,
                "plan": deployment.evidence.put(plan.to_bytes()),
                "reason": wish.reason.strip(),
                "incident": incident,
                "quarantine": wish.quarantine or plan.how == "quarantine",
                **acting,
            },
        ).event
    except ConflictError as error:
        first = deployment.find(number_key(workload, number))
        raise ConflictError(
            f"the champion of {workload} is being moved by {'another' if first is None else first.kind}",
            where=workload,
            fix="try again in a moment; what is in production may be another version by then",
        ) from error


def finish(deployment: Deployment, started: Event) -> Event:
    """Do what a started rollback said it would do; safe to repeat, and for two at once.

    Raises:
        UnavailableError: the registry or a store does not answer.
        IntegrityError: the alias did not move; somebody else writes to this registry.
    """
    workload, data = started.workload, started.data
    key = f"rollback/{workload}/{data['move']}"
    if (finished := deployment.find(f"{key}/finished")) is not None:
        return finished
    mark = f"{key}@{deployment.settings.deployment}"
    _open_incident(deployment, started)
    if data["from"]:
        _leave(deployment, started, mark)
    # Looked at once more: another who rolled back may have finished this by now, and others have moved on.
    if (finished := deployment.find(f"{key}/finished")) is not None:
        return finished
    _arrive(deployment, started, mark)
    _verify(deployment, started)
    if data["from"] and data["quarantine"]:
        _record_quarantine(deployment, started, key)
    kept = {name: data[name] for name in _KEPT}
    return deployment.record(
        Kind.ROLLBACK_FINISHED,
        f"{key}/finished",
        actor=started.actor,
        release_id=started.release_id,
        workload=workload,
        version=started.version,
        data={**kept, "previous": data["from"]},
    ).event


_KEPT = (
    "move", "model", "how", "from", "to", "to_release", "constant", "policy", "plan", "incident",
    "quarantine",
)  # fmt: skip
"""What the end of a rollback repeats of its start; never the reason, which could not be erased twice."""


def _cause(workload: str, number: int) -> str:
    return f"rollback/{workload}/{number}"


def _open_incident(deployment: Deployment, started: Event) -> None:
    """Open the incident of a rollback that nobody opened before; its id was fixed when it started."""
    if deployment.find(f"incident/{started.data['incident']}/opened") is not None:
        return
    open_incident(
        deployment,
        workload=started.workload,
        version=started.version,
        action="rollback",
        severity=SEVERITY,
        summary=_sentence(started),
        cause=_cause(started.workload, started.data["move"]),
        detected_us=started.occurred_us,
        release_id=started.release_id,
    )


def _sentence(started: Event) -> str:
    data = started.data
    gone = f"version {data['from']}" if data["from"] else "no version"
    into = f"version {data['to']}" if data["to"] else "a fixed answer" if data["constant"] else "nothing"
    return f"{started.workload} goes back from {gone} to {into}, by {started.actor}"


def _leave(deployment: Deployment, started: Event, mark: str) -> None:
    """Tag the version that is left; tags come before the alias, so that no moment shows a champion amiss."""
    data, registry = started.data, deployment.registry
    try:
        if data["quarantine"]:
            registry.quarantine(data["model"], data["from"], f"rolled back: {data['incident']}")
        else:
            registry.tag(data["model"], data["from"], {"state": "rolled-back"})
        registry.tag(data["model"], data["from"], {"rollback": mark, "incident": data["incident"]})
    except NotFoundError:
        return  # somebody deleted it: it is out of production all the same


def _arrive(deployment: Deployment, started: Event, mark: str) -> None:
    data = started.data
    if data["to"]:
        state = "fallback" if data["how"] == "fallback" else "champion"
        deployment.registry.set_champion(data["model"], data["to"], {"state": state, "rollback": mark})
        return
    deployment.registry.clear_champion(data["model"], {"fallback": data["constant"] or "none"})


def _verify(deployment: Deployment, started: Event) -> None:
    model, wanted = started.data["model"], started.data["to"]
    champion = deployment.registry.champion(model)
    found = "" if champion is None else champion.version
    if found != wanted:
        raise IntegrityError(
            f"the champion alias of {model} is at {found or 'no version'}, not at {wanted or 'none'}",
            fix="look at who else writes to this registry, and roll back again: it goes on where it stopped",
        )


def _record_quarantine(deployment: Deployment, started: Event, key: str) -> None:
    data = started.data
    deployment.record(
        Kind.VERSION_QUARANTINED,
        f"{key}/quarantined",
        actor=started.actor,
        release_id=started.release_id,
        workload=started.workload,
        version=started.version,
        data={
            "model": data["model"],
            "reason": f"it was taken out of production; see {data['incident']}",
            "evidence": data["plan"],
            "incident": data["incident"],
        },
    )


def _refused(
    deployment: Deployment, workload: Workload, wish: Wish, problems: list[str], plan: Plan | None = None
) -> RefusedError:
    data: dict[str, Any] = {
        "problems": [storable(problem)[:2000] for problem in problems],
        "reason": storable(wish.reason.strip())[:4000],
    }
    if plan is not None:
        data |= {"to": plan.considered[-1].version, "plan": deployment.evidence.put(plan.to_bytes())}
    when = deployment.clock.now_us()
    deployment.record(
        Kind.ROLLBACK_REFUSED,
        f"rollback/{workload.name}/refused/{when}/{digest_of([wish.actor, *problems])[:16]}",
        actor=storable(wish.actor)[:200] or "nobody",
        workload=workload.name,
        data=data,
    )
    return RefusedError(
        "rollback refused: " + "; ".join(problems),
        where=workload.name,
        fix="nothing was changed; `airlock rollback --dry-run` shows every check",
    )
