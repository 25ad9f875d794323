"""Promotion: the only place where the champion changes.

Nothing here asks Airflow how its tasks went. The decision is computed again from the evidence, the
answers are counted again with the roles people hold now, and the artifact is hashed again.
"""

from __future__ import annotations

from typing import NoReturn

from airlock.core.approvals import Quorum, QuorumState
from airlock.core.audit import Event, Kind
from airlock.core.canonical import digest_of
from airlock.core.decision import Decision, Outcome
from airlock.core.errors import ConflictError, IntegrityError, RefusedError
from airlock.core.release import Release
from airlock.services.decide import compute
from airlock.services.deployment import Deployment
from airlock.services.moves import moves_of, number_key
from airlock.services.publish import is_published
from airlock.services.releases import Case, find_release, open_case, quorum_of, read_decision
from airlock.services.submit import snapshot
from airlock.services.waivers import ended_since, resting_on


def promote(deployment: Deployment, release_id: str) -> Event:
    """Make the release's version the champion and return the recorded event.

    Repeating it, also after a kill at any point, gives the same champion and one record.

    Raises:
        RefusedError: a condition does not hold; recorded with all reasons, nothing was changed.
        ConflictError: another release of the workload is being promoted.
        UnavailableError: the registry or a store does not answer.
    """
    case = open_case(deployment, release_id)
    if (finished := case.release.first(Kind.PROMOTION_FINISHED)) is not None:
        return finished
    decision = read_decision(deployment, case.release)
    if decision is None:
        _refuse(deployment, case.release, ["no decision was recorded"])
    # Counted before the champion is looked at: if another release finishes in between, its promotion
    # has taken this number and ours conflicts, instead of overwriting a champion we never compared with.
    number = moves_of(deployment, case.workload.name).next_number
    started = _open_start(case.release)
    # Once the alias has moved it is in production, as it was checked when it started; what is left is to
    # say so. Until then everything is checked again.
    moved = started is not None and _has_moved(deployment, case)
    if not moved and (problems := _problems(deployment, case, decision)):
        _refuse(deployment, case.release, problems)
    if started is None:
        started = _start(deployment, case, number, quorum_of(deployment, case.release, decision))
    return _finish(deployment, case, decision, started)


def _open_start(release: Release) -> Event | None:
    """The start of a promotion that has neither ended nor been refused since."""
    started = None
    for event in release.events:
        if event.kind is Kind.PROMOTION_STARTED:
            started = event
        elif event.kind is Kind.PROMOTION_REFUSED:
            started = None
    return started


def _has_moved(deployment: Deployment, case: Case) -> bool:
    champion = deployment.registry.champion(case.workload.model.registered_model)
    return champion is not None and champion.version == case.manifest.candidate.version


def _problems(deployment: Deployment, case: Case, decision: Decision) -> list[str]:
    return [
        *_decision_problems(deployment, case, decision),
        *_content_problems(deployment, case),
        *_champion_problems(deployment, case),
    ]


def _decision_problems(deployment: Deployment, case: Case, decision: Decision) -> list[str]:
    """The decision must follow from the evidence, and enough people must have agreed to it."""
    workload = case.workload.name
    problems = ended_since(deployment, decision, workload)
    if compute(deployment, case, resting_on(deployment, decision, workload)).digest != decision.digest:
        problems.append("the recorded decision does not follow from the evidence")
    if decision.outcome is Outcome.DENY:
        problems.append(f"the decision is DENY: {decision.sentence}")
        return problems
    quorum = quorum_of(deployment, case.release, decision)
    if quorum.state is QuorumState.REJECTED:
        problems.append(f"rejected by {quorum.rejected_by}")
    elif quorum.state is not QuorumState.GRANTED:
        roles = ", ".join(decision.seats[seat].role for seat in quorum.open_seats)
        problems.append(f"the audit store holds no approval by {roles}")
        problems += quorum.problems
    return problems


def _content_problems(deployment: Deployment, case: Case) -> list[str]:
    """What was judged must be what is there now (requirement A-7)."""
    problems = []
    manifest = case.manifest
    model = case.workload.model.registered_model
    now = snapshot(deployment, model, manifest.candidate.version)
    if now.sha256 != manifest.candidate.sha256:
        problems.append("the model files changed after the release was frozen")
    if (
        deployment.registry.version(model, manifest.candidate.version).tags.get("airlock.state")
        == "quarantined"
    ):
        problems.append("the version is quarantined")
    if deployment.config.workload(manifest.workload).digest != manifest.workload_digest:
        problems.append("the workload file changed after the release was frozen")
    # The release is judged by what it was pinned to, whatever stands in the folder now; but a published
    # folder that was edited is an attack or a mistake, and nothing goes into production beside one.
    if deployment.config.policy(manifest.policy_version).digest != manifest.policy_digest:
        problems.append(f"policy {manifest.policy_version} was edited after the release was frozen")
    if not is_published(deployment, case.policy):
        problems.append(f"policy {manifest.policy_version} is not the one that was published")
    return problems


def _champion_problems(deployment: Deployment, case: Case) -> list[str]:
    """The candidate was compared with one champion; if that changed, the comparison is void."""
    champion = deployment.registry.champion(case.workload.model.registered_model)
    now = None if champion is None else champion.version
    judged = None if case.manifest.champion is None else case.manifest.champion.version
    if now == judged:
        return []
    return [f"the champion is now version {now}, but the candidate was compared with version {judged}"]


def _refuse(deployment: Deployment, release: Release, problems: list[str]) -> NoReturn:
    # The same reasons after another start are another event: it is what ends that start.
    starts = len(release.all(Kind.PROMOTION_STARTED))
    deployment.record(
        Kind.PROMOTION_REFUSED,
        f"release/{release.release_id}/promotion/refused/{starts}/{digest_of(problems)[:16]}",
        release_id=release.release_id,
        workload=release.workload,
        version=release.version,
        data={"problems": problems},
    )
    raise RefusedError(
        "promotion refused: " + "; ".join(problems),
        where=release.release_id,
        fix="submit a new release once this is mended; nothing was changed",
    )


def _start(deployment: Deployment, case: Case, number: int, quorum: Quorum) -> Event:
    """Take promotion ``number`` of the workload; whoever is second gets a conflict."""
    workload = case.workload.name
    try:
        recorded = deployment.record(
            Kind.PROMOTION_STARTED,
            number_key(workload, number),
            release_id=case.release.release_id,
            workload=workload,
            version=case.release.version,
            data={
                "manifest": case.manifest.digest,
                "approved_by": [user for _, user in sorted(quorum.filled.items())],
            },
        )
    except ConflictError as error:
        raise _conflict(deployment, case, number) from error
    return recorded.event


def _conflict(deployment: Deployment, case: Case, number: int) -> ConflictError:
    first = deployment.find(number_key(case.workload.name, number))
    if first is not None and first.kind is not Kind.PROMOTION_STARTED:
        return ConflictError(
            f"the champion of {case.workload.name} is being moved: {first.kind} of version {first.version}",
            where=case.release.release_id,
            fix="submit a release again once that is done: this one was compared with another champion",
        )
    other = first.release_id if first else "unknown"
    return ConflictError(
        f"release {other} of the same workload is being promoted",
        where=case.release.release_id,
        fix=f"wait until it is done; if its task died, clear task `promote` of {other} in Airflow",
    )


def _refuse_overtaken(deployment: Deployment, case: Case, started: Event) -> None:
    """A rollback may have ended this promotion while its task was away; then it must not move anything."""
    holder = moves_of(deployment, case.workload.name).running_number()
    if holder is None or holder.key != started.key:
        raise ConflictError(
            "this promotion was ended while its task was away",
            where=case.release.release_id,
            fix="see the audit log of the workload; submit a new release",
        )


def _finish(deployment: Deployment, case: Case, decision: Decision, started: Event) -> Event:
    model, version = case.workload.model.registered_model, case.release.version
    if (
        finished := find_release(deployment, case.release.release_id).first(Kind.PROMOTION_FINISHED)
    ) is not None:
        return finished
    _refuse_overtaken(deployment, case, started)
    deployment.registry.set_champion(
        model,
        version,
        {
            "state": "champion",
            "release": case.release.release_id,
            "manifest": case.manifest.digest,
            "decision": decision.digest,
            "policy": decision.policy_version,
        },
    )
    champion = deployment.registry.champion(model)
    if champion is None or champion.version != version:
        raise IntegrityError(
            f"the champion alias of {model} did not move to version {version}",
            fix="look at who else writes to this registry; the task tries again",
        )
    recorded = deployment.record(
        Kind.PROMOTION_FINISHED,
        f"release/{case.release.release_id}/promotion/finished",
        release_id=case.release.release_id,
        workload=case.workload.name,
        version=version,
        data={
            "model": model,
            "previous": None if case.manifest.champion is None else case.manifest.champion.version,
            "decision": decision.digest,
            "approved_by": started.data["approved_by"],
        },
    )
    return recorded.event
