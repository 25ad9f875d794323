"""Who may answer about a release or a request: people, what bars them, delegations (requirement A-2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from airlock.core.approvals import Panel
from airlock.core.audit import Kind
from airlock.core.dates import DAY_US
from airlock.core.delegation import Delegation, read_delegations
from airlock.core.manifest import Manifest
from airlock.core.policy import Policy
from airlock.core.release import Release
from airlock.services.deployment import Deployment

SUBMITTED = "submitted this release"


def list_delegations(deployment: Deployment) -> list[Delegation]:
    """Everything that was delegated here, in the order it was given."""
    recorded = deployment.audit.events(kinds=[Kind.DELEGATION_GIVEN, Kind.DELEGATION_ENDED])
    name = deployment.settings.deployment
    return read_delegations(entry.event for entry in recorded if entry.event.deployment == name)


def request_panel(deployment: Deployment, barred: Mapping[str, str], delegate_days: float | None) -> Panel:
    """Who may answer a request as things stand now.

    Args:
        deployment: where.
        barred: users who may not, whatever they hold, and what they did, such as "asked for this waiver".
        delegate_days: longest delegation that the policy takes; ``None`` takes none.
    """
    return Panel(
        people=deployment.config.people(),
        barred=barred,
        now_us=deployment.clock.now_us(),
        delegations=list_delegations(deployment),
        delegate_days=delegate_days,
    )


def panel_of(deployment: Deployment, release: Release, manifest: Manifest, policy: Policy) -> Panel:
    """Who may answer about a release as things stand now."""
    met = {(int(event.data["seat"]), str(event.data["user"])) for event in release.all(Kind.CONDITION_MET)}
    revoked = {
        (int(event.data["seat"]), str(event.data["user"])) for event in release.all(Kind.APPROVAL_REVOKED)
    }
    asked = request_panel(
        deployment, barred(deployment, release, manifest, policy), policy.approval.delegate_days
    )
    return replace(asked, met=frozenset(met), revoked=frozenset(revoked))


def barred(deployment: Deployment, release: Release, manifest: Manifest, policy: Policy) -> dict[str, str]:
    """People who may not answer whatever they hold, and what they did: nobody judges their own work."""
    return {
        **policy_people(deployment, manifest, policy.approval.policy_author_days, release.submitted_us),
        **manifest.authors,
        release.submitter: SUBMITTED,
    }


def policy_people(
    deployment: Deployment, manifest: Manifest, days: float | None, submitted_us: int
) -> dict[str, str]:
    """Who asked for the version of the policy that a release is judged by, and who approved it.

    Args:
        deployment: where.
        manifest: names the version and its digest.
        days: how long after publication they are barred; ``None`` for as long as the version is in use.
        submitted_us: when the release was submitted.
    """
    version, name = manifest.policy_version, deployment.settings.deployment
    published = next(
        (
            entry.event
            for entry in deployment.audit.events(kinds=[Kind.POLICY_PUBLISHED])
            if entry.event.deployment == name and version in entry.event.data["policies"]
        ),
        None,
    )
    if published is None or (days is not None and submitted_us >= published.occurred_us + days * DAY_US):
        return {}
    approved = (published.data.get("approved_by") or {}).values()
    said = f"policy {version}, by which this release is judged,"
    found = {str(user): f"approved {said}" for user in approved}
    if requester := published.data.get("requested_by"):
        found[str(requester)] = f"changed {said}"
    return found
