"""What is known about releases, read from the audit store and the evidence alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from airlock.core.approvals import Panel, Quorum, QuorumState, tally
from airlock.core.audit import Kind, Recorded
from airlock.core.decision import Decision, Outcome
from airlock.core.errors import IntegrityError, NotFoundError
from airlock.core.evidence import Evidence
from airlock.core.manifest import Manifest
from airlock.core.policy import Policy
from airlock.core.release import Release, State
from airlock.core.rules import content_digest
from airlock.core.workload import Workload
from airlock.services.deployment import Deployment
from airlock.services.panel import SUBMITTED, panel_of


def find_release(deployment: Deployment, release_id: str) -> Release:
    """Read a release.

    Raises:
        NotFoundError: no release of this id was submitted here.
    """
    recorded = _own(deployment, deployment.audit.events(release_id=release_id))
    submitted = next((entry for entry in recorded if entry.event.kind is Kind.RELEASE_SUBMITTED), None)
    if submitted is None:
        raise NotFoundError(
            f"there is no release {release_id!r}", fix="list releases with `airlock release list`"
        )
    return _release(submitted, recorded)


def list_releases(deployment: Deployment, *, workload: str | None = None, limit: int = 50) -> list[Release]:
    """Releases, newest first."""
    submitted = deployment.audit.events(workload=workload, kinds=[Kind.RELEASE_SUBMITTED], newest_first=True)
    return [
        _release(entry, deployment.audit.events(release_id=entry.event.release_id))
        for entry in _own(deployment, submitted)[:limit]
    ]


def _own(deployment: Deployment, recorded: list[Recorded]) -> list[Recorded]:
    """Events of this deployment: others may share the store."""
    name = deployment.settings.deployment
    return [entry for entry in recorded if entry.event.deployment == name]


def _release(submitted: Recorded, recorded: list[Recorded]) -> Release:
    event = submitted.event
    return Release(
        release_id=event.release_id,
        workload=event.workload,
        version=event.version,
        submitter=event.actor,
        context=event.data["context"],
        dag_id=event.data["dag_id"],
        run_id=event.data["run_id"],
        batch=event.data["batch"],
        submitted_us=event.occurred_us,
        last_us=recorded[-1].event.occurred_us,
        events=[entry.event for entry in recorded],
    )


@dataclass(frozen=True)
class Case:
    """A frozen release with everything it is judged by, each part verified against its digest."""

    release: Release
    manifest: Manifest
    workload: Workload
    policy: Policy


def open_case(deployment: Deployment, release_id: str) -> Case:
    """Read what was frozen.

    Raises:
        NotFoundError: unknown release, or its manifest was never frozen.
        IntegrityError: evidence was changed since.
    """
    release = find_release(deployment, release_id)
    frozen = release.first(Kind.RELEASE_FROZEN)
    if frozen is None:
        raise NotFoundError(
            f"release {release_id} has no manifest",
            fix="look at the task `manifest` in Airflow; clear it once its cause is mended",
        )
    manifest = Manifest.from_bytes(deployment.evidence.get(frozen.data["manifest"]))
    policy = _policy(deployment.evidence.get(manifest.policy_digest))
    content_digest.know(manifest, frozen.data["manifest"])
    content_digest.know(policy, manifest.policy_digest)
    return Case(
        release=release,
        manifest=manifest,
        workload=_workload(deployment.evidence.get(manifest.workload_digest)),
        policy=policy,
    )


# Many releases share one policy, and a page reads it several times: the verified bytes are read each time,
# the values they stand for are made once.
@lru_cache(maxsize=32)
def _policy(content: bytes) -> Policy:
    return Policy.from_bytes(content)


@lru_cache(maxsize=256)
def _workload(content: bytes) -> Workload:
    return Workload.from_bytes(content)


def read_evidence(deployment: Deployment, case: Case) -> dict[str, Evidence]:
    """The evidence of a case by gate, read and verified.

    Raises:
        IntegrityError: evidence was changed, or belongs to another manifest.
    """
    records: dict[str, Evidence] = {}
    for line in case.release.gates:
        record = Evidence.from_bytes(deployment.evidence.get(line.digest))
        if record.manifest_digest != case.manifest.digest or record.gate != line.gate:
            raise IntegrityError(
                f"evidence {line.digest} does not belong to gate {line.gate} of this release",
                where=case.release.release_id,
            )
        content_digest.know(record, line.digest)
        records[line.gate] = record
    return records


def read_decision(deployment: Deployment, release: Release) -> Decision | None:
    """The recorded decision, or ``None`` before there is one."""
    decided = release.first(Kind.RELEASE_DECIDED)
    return None if decided is None else Decision.from_bytes(deployment.evidence.get(decided.data["decision"]))


def deadline_us(release: Release) -> int:
    """When an unanswered approval expires, microseconds since 1970.

    Raises:
        NotFoundError: nothing was decided yet.
    """
    decided = release.first(Kind.RELEASE_DECIDED)
    if decided is None:
        raise NotFoundError(f"release {release.release_id} is not decided yet")
    return decided.occurred_us + int(decided.data["expires_hours"] * 3600 * 1_000_000)


def quorum_of(deployment: Deployment, release: Release, decision: Decision) -> Quorum:
    """Count the audited answers, with the roles people hold now."""
    answers = release.answers
    panel = panel_for(deployment, release) if answers else Panel(deployment.config.people(), barred={})
    return tally(answers, decision=decision, panel=panel)


def panel_for(deployment: Deployment, release: Release) -> Panel:
    """Who may answer about a release as things stand now."""
    if release.first(Kind.RELEASE_DECIDED) is None or release.first(Kind.RELEASE_FROZEN) is None:
        # Nothing can be asked yet.
        return Panel(people=deployment.config.people(), barred={release.submitter: SUBMITTED})
    case = open_case(deployment, release.release_id)
    return panel_of(deployment, release, case.manifest, case.policy)


def filled_by(release: Release, quorum: Quorum) -> dict[int, str]:
    """Who fills each seat, and whom they act for, such as ``petra for omar``."""
    said = {(answer.seat, answer.user): answer.who for answer in release.answers}
    return {seat: said[seat, user] for seat, user in quorum.filled.items()}


def state_of(deployment: Deployment, release: Release) -> State:
    """Where a release stands; once its run is sealed, nothing is checked or waited for any more."""
    state = _state(deployment, release)
    return state if release.first(Kind.RELEASE_SEALED) is None else state.at_end


def _state(deployment: Deployment, release: Release) -> State:
    kinds = {event.kind for event in release.events}
    if Kind.ROLLBACK_FINISHED in kinds:
        return State.ROLLED_BACK
    if Kind.PROMOTION_FINISHED in kinds:
        return State.PROMOTED
    decision = read_decision(deployment, release)
    if decision is None:
        return State.CHECKING
    if decision.outcome is Outcome.DENY:
        return State.QUARANTINED if Kind.VERSION_QUARANTINED in kinds else State.DENIED
    if Kind.PROMOTION_REFUSED in kinds:
        return State.REFUSED
    return _approval_state(deployment, release, decision)


def _approval_state(deployment: Deployment, release: Release, decision: Decision) -> State:
    quorum = quorum_of(deployment, release, decision)
    if quorum.state is not QuorumState.OPEN:
        return State.READY if quorum.state is QuorumState.GRANTED else State.REJECTED
    return State.EXPIRED if deployment.clock.now_us() > deadline_us(release) else State.WAITING
