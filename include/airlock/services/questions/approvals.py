"""Who approved or rejected a release, and what they saw."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.audit import Kind, Recorded
from airlock.core.errors import NotFoundError
from airlock.services.deployment import Deployment
from airlock.services.questions.reading import (
    Adoption,
    Case,
    Decided,
    GateSaid,
    find_adoption,
    find_case,
    find_cases,
    number,
    text,
    texts,
    unknown_version,
)


@dataclass(frozen=True)
class Given:
    """An answer that was recorded, and what the person was shown.

    Attributes:
        bound: whether it was given for the manifest that the release was frozen with.
        gates: verdicts that were recorded before the answer.
    """

    user: str
    role: str
    choice: str
    comment: str
    seat: int
    at_us: int
    manifest: str
    evidence: str
    policy: str
    bound: bool
    gates: tuple[GateSaid, ...]
    event: int | None


@dataclass(frozen=True)
class Refused:
    """An attempt to answer that did not count, and why."""

    user: str
    seat: int
    choice: str
    problem: str
    at_us: int
    event: int | None


@dataclass(frozen=True)
class Approval:
    """Who answered for a release, and whose approval its promotion rested on."""

    release_id: str
    workload: str
    version: str
    submitter: str
    state: str
    manifest: str
    policy_version: str
    decided: Decided
    answers: tuple[Given, ...]
    refused: tuple[Refused, ...]
    approved_by: tuple[str, ...]
    event: int | None


@dataclass(frozen=True)
class Approvals:
    """Approvals of a version's releases, the newest first."""

    releases: tuple[Approval, ...]
    adopted: Adoption | None
    cut: bool


def approvals_of(
    deployment: Deployment, workload: str = "", version: str = "", *, release_id: str = ""
) -> Approvals:
    """Who approved or rejected a version, or one release, in which role, and what they saw.

    Raises:
        NotFoundError: nothing is recorded about such a version or release.
        UnavailableError: the store does not answer.
    """
    if release_id:
        case = find_case(deployment, release_id)
        if case is None:
            raise NotFoundError(
                f"no release {release_id!r} is recorded for deployment {deployment.settings.deployment}",
                fix="list releases with `airlock release list`, or those of other deployments with "
                "`airlock audit query --kind release.submitted`",
            )
        return Approvals((_approval(case),), None, cut=False)
    cases, cut = find_cases(deployment, workload, version)
    adopted = find_adoption(deployment, workload, version)
    if not cases and adopted is None:
        raise unknown_version(deployment, workload, version)
    return Approvals(tuple(_approval(case) for case in cases), adopted, cut)


def _approval(case: Case) -> Approval:
    frozen = case.last(Kind.RELEASE_FROZEN)
    manifest = "" if frozen is None else text(frozen.event, "manifest")
    started = case.last(Kind.PROMOTION_STARTED)
    event = case.submitted.event
    return Approval(
        release_id=event.release_id,
        workload=event.workload,
        version=event.version,
        submitter=event.actor,
        state=case.state,
        manifest=manifest,
        policy_version="" if frozen is None else text(frozen.event, "policy"),
        decided=case.decided,
        answers=tuple(_given(case, entry, manifest) for entry in case.all(Kind.APPROVAL_RECORDED)),
        refused=tuple(_refused(entry) for entry in case.all(Kind.APPROVAL_REFUSED)),
        approved_by=() if started is None else texts(started.event, "approved_by"),
        event=case.submitted.ingest_id,
    )


def _given(case: Case, entry: Recorded, manifest: str) -> Given:
    event = entry.event
    return Given(
        user=event.actor,
        role=text(event, "role"),
        choice=text(event, "choice"),
        comment=text(event, "comment"),
        seat=number(event, "seat"),
        at_us=event.occurred_us,
        manifest=text(event, "manifest_digest"),
        evidence=text(event, "evidence_digest"),
        policy=text(event, "policy_digest"),
        bound=bool(manifest) and text(event, "manifest_digest") == manifest,
        gates=case.gates_before(entry),
        event=entry.ingest_id,
    )


def _refused(entry: Recorded) -> Refused:
    event = entry.event
    return Refused(
        user=event.actor,
        seat=number(event, "seat"),
        choice=text(event, "choice"),
        problem=text(event, "problem"),
        at_us=event.occurred_us,
        event=entry.ingest_id,
    )
