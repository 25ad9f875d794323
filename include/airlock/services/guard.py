"""The guard: finds a champion that was moved without Airlock, says so, and puts it back (requirement R-1).

What should be in production stands in the log: the last promotion, rollback or adoption that ended. A move
that is on its way is never touched, and undoing takes a number of its own, so the guard and a promotion
cannot both move the champion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from airlock.core.audit import Event, Kind
from airlock.core.errors import AirlockError, ConflictError, IntegrityError, NotFoundError
from airlock.core.incident import incident_id_for
from airlock.core.workload import Workload
from airlock.ports import ModelVersion
from airlock.services.deployment import Deployment
from airlock.services.incidents import list_incidents, open_incident
from airlock.services.moves import Moves, arrived, moves_of, number_key

Problem = Literal["moved", "removed", "ungoverned", "untagged", "quarantined", "stuck"]

STUCK_US = 3_600_000_000
"""A move that is on its way for longer than this lost whoever made it, and hides what others do meanwhile."""

_WORDS: dict[Problem, str] = {
    "moved": "the champion alias was moved without Airlock",
    "removed": "the champion alias was taken away without Airlock",
    "ungoverned": "a version is champion though nothing was ever promoted or adopted",
    "untagged": "the champion has lost the tags that say who let it into production",
    "quarantined": "the champion is quarantined",
    "stuck": "a promotion or rollback began and did not end, so the champion cannot be watched",
}

GOVERNED = frozenset({"champion", "adopted", "fallback"})
"""States that a champion's tag may say."""


@dataclass(frozen=True)
class Finding:
    """What the guard found about one workload.

    Attributes:
        expected: the version that should be in production by the log; empty for none.
        found: the version the alias is at; empty for none.
        undone: whether the governed champion is back.
    """

    workload: str
    problem: Problem
    expected: str
    found: str
    incident_id: str
    undone: bool

    @property
    def sentence(self) -> str:
        """What was found and what became of it."""
        was = f"version {self.expected}" if self.expected else "no version"
        now = f"version {self.found}" if self.found else "no version"
        end = "it was put back" if self.undone else "somebody has to look at it"
        return f"{self.workload}: {_WORDS[self.problem]} (from {was} to {now}); {end}: {self.incident_id}"


@dataclass(frozen=True)
class Report:
    """What one look at all workloads found, and those that could not be looked at."""

    findings: list[Finding]
    failed: dict[str, str]
    looked_at: int


def check_all(deployment: Deployment) -> Report:
    """Look at every workload; one that cannot be looked at does not hide the others."""
    findings, failed, count = [], {}, 0
    for path in deployment.config.workload_files():
        count += 1
        try:
            found = check(deployment, path.stem)
        except AirlockError as error:
            failed[path.stem] = str(error)
            continue
        if found is not None:
            findings.append(found)
    return Report(findings, failed, count)


def check(deployment: Deployment, workload_name: str) -> Finding | None:
    """Look at one workload; record, tell and undo what is amiss. Safe to repeat and beside any promotion.

    Raises:
        NotFoundError: there is no such workload.
        UnavailableError: the registry or a store does not answer.
        IntegrityError: the champion does not stay where it is put.
    """
    workload = deployment.config.workload(workload_name)
    model = workload.model.registered_model
    before = moves_of(deployment, workload_name)
    if (running := before.running_number()) is not None and running.kind is Kind.GUARD_UNDO_STARTED:
        finish_undo(deployment, running)  # a look that was killed on its way
        before = moves_of(deployment, workload_name)
    champion = _champion(deployment, model)
    if (running := before.running_number()) is not None:
        # A move on its way is never touched; one that does not end is for people.
        stuck = deployment.clock.now_us() - running.occurred_us > STUCK_US
        return _act(deployment, workload, before, champion, "stuck") if stuck else None
    if (problem := _problem(before, champion)) is None:
        return None
    # Every legitimate move is in the log before it touches the alias. So if the log says the same before and
    # after the alias was read, nobody but an outsider can have moved it.
    after = moves_of(deployment, workload_name)
    again = _champion(deployment, model)
    if after.running or after.last != before.last or _version(again) != _version(champion):
        return None
    return _act(deployment, workload, after, again, problem)


def _champion(deployment: Deployment, model: str) -> ModelVersion | None:
    try:
        champion = deployment.registry.champion(model)
        return None if champion is None else deployment.registry.version(model, champion.version)
    except NotFoundError:
        return None  # a model that nobody has registered yet has no champion


def _version(champion: ModelVersion | None) -> str:
    return "" if champion is None else champion.version


def _problem(moves: Moves, champion: ModelVersion | None) -> Problem | None:
    expected, found = moves.champion or "", _version(champion)
    if moves.last is None:
        return "ungoverned" if found else None
    if found != expected:
        return "moved" if found else "removed"
    if champion is None:
        return None
    state = champion.tags.get("airlock.state", "")
    if state == "quarantined":
        return "quarantined"
    return None if state in GOVERNED else "untagged"


def _act(
    deployment: Deployment, workload: Workload, moves: Moves, champion: ModelVersion | None, problem: Problem
) -> Finding:
    expected, found = moves.champion or "", _version(champion)
    rules = deployment.config.policy(workload.policy).operations.guard
    # What was never governed is told and left alone: there is nothing to put in its place. A quarantined
    # champion needs a rollback, which has checks of its own.
    undo = rules.moved == "restore" and problem in ("moved", "removed", "untagged")
    incident = _record(deployment, workload, moves, problem, found)
    finding = Finding(workload.name, problem, expected, found, incident, undone=False)
    undo = undo and _undone(moves, incident) is not False
    return replace(finding, undone=undo and _undo(deployment, workload, moves, finding))


def _record(deployment: Deployment, workload: Workload, moves: Moves, problem: Problem, found: str) -> str:
    """Record what was found, once while it lasts, and open its incident; returns the incident's id."""
    expected = moves.champion or ""
    cause = f"guard/{workload.name}/{problem}/{expected or 'none'}/{found or 'none'}"
    same = [one for one in list_incidents(deployment, workload=workload.name) if one.cause == cause]
    standing = next((one for one in same if one.is_open), None)
    if standing is not None and not _undone(moves, standing.incident_id):
        return standing.incident_id
    number = sum(event.kind is Kind.GUARD_UNDO_FINISHED for event in moves.events)
    incident = incident_id_for(deployment.settings.deployment, workload.name, cause, len(same))
    incident = standing.incident_id if standing is not None else incident
    deployment.record(
        Kind.GUARD_ALIAS_MOVED,
        f"guard/{workload.name}/{incident}/{number}",
        workload=workload.name,
        version=found,
        data={
            "model": workload.model.registered_model,
            "problem": problem,
            "from": expected,
            "to": found,
            "incident": incident,
            "sentence": f"{workload.name}: {_WORDS[problem]}",
        },
    )
    return open_incident(
        deployment,
        workload=workload.name,
        version=found,
        action="guard",
        severity="critical" if problem in ("moved", "removed", "quarantined") else "high",
        summary=f"{workload.name}: {_WORDS[problem]}: from version {expected or 'none'} to {found or 'none'}",
        cause=cause,
        detected_us=deployment.clock.now_us(),
    )


def _undone(moves: Moves, incident: str) -> bool | None:
    """Whether an incident's move was put back last time; ``None`` when nobody has tried.

    What was put back and moved again is another event of the same incident; what could not be put back is
    not tried every few minutes.
    """
    tried = [event for event in moves.events if event.kind is Kind.GUARD_UNDO_FINISHED]
    return next(
        (bool(event.data["undone"]) for event in reversed(tried) if event.data["incident"] == incident), None
    )


def _undo(deployment: Deployment, workload: Workload, moves: Moves, finding: Finding) -> bool:
    last = moves.last
    if last is None:
        return False
    number = moves.next_number
    try:
        started = deployment.record(
            Kind.GUARD_UNDO_STARTED,
            number_key(workload.name, number),
            workload=workload.name,
            version=moves.champion or "",
            data={
                "move": number,
                "model": workload.model.registered_model,
                "problem": finding.problem,
                "from": finding.found,
                "to": arrived(last),
                "tags": _tags(deployment, last),
                "incident": finding.incident_id,
            },
        ).event
    except ConflictError:
        return False  # a promotion or a rollback began in this moment; it decides what comes next
    return finish_undo(deployment, started)


def _tags(deployment: Deployment, last: Event) -> dict[str, str]:
    """The governance tags of what the last move brought into production."""
    if last.kind is Kind.CHAMPION_ADOPTED:
        return {"state": "adopted"}
    if last.kind is Kind.ROLLBACK_FINISHED:
        state = "fallback" if last.data["how"] == "fallback" else "champion"
        where = deployment.settings.deployment
        return {"state": state, "rollback": f"rollback/{last.workload}/{last.data['move']}@{where}"}
    return {"state": "champion", "release": last.release_id, "decision": str(last.data["decision"])}


def finish_undo(deployment: Deployment, started: Event) -> bool:
    """Do what a started undo said it would do, and whether it could; safe to repeat, and for two at once.

    Raises:
        UnavailableError: the registry or the store does not answer; the next look goes on.
        IntegrityError: the champion does not stay where it is put.
    """
    data = started.data
    key = f"guard/{started.workload}/undo/{data['move']}"
    if (ended := deployment.find(key)) is not None:
        return bool(ended.data["undone"])
    undone = _put_back(deployment, started)
    kept = {name: data[name] for name in ("move", "model", "problem", "from", "to", "incident")}
    deployment.record(
        Kind.GUARD_UNDO_FINISHED,
        key,
        workload=started.workload,
        version=started.version,
        data={**kept, "undone": undone},
    )
    return undone


def _put_back(deployment: Deployment, started: Event) -> bool:
    """Move the alias to what the log says; ``False`` when the registry has lost that version."""
    data = started.data
    model, wanted = data["model"], data["to"]
    if data["from"] and data["from"] != wanted:
        _mark_foreign(deployment, model, data["from"], data["incident"])
    if wanted:
        try:
            deployment.registry.set_champion(model, wanted, data["tags"])
        except NotFoundError:
            return False  # the incident stays open, and a rollback can bring another version
    else:
        deployment.registry.clear_champion(model, {})
    champion = deployment.registry.champion(model)
    if (found := _version(champion)) != wanted:
        raise IntegrityError(
            f"the champion alias of {model} is at {found or 'no version'} again, not at {wanted or 'none'}",
            fix="find out who else writes to this registry, and take the right away",
        )
    return True


def _mark_foreign(deployment: Deployment, model: str, version: str, incident: str) -> None:
    """Leave word on the version that somebody made champion by hand; one that is gone needs none."""
    try:
        deployment.registry.tag(model, version, {"guard": f"moved back; see {incident}"})
    except NotFoundError:
        return
