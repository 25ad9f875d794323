"""Judge a release from its evidence."""

from __future__ import annotations

from airlock.core.audit import Kind
from airlock.core.decision import Decision
from airlock.core.decision import decide as judge
from airlock.services.deployment import Deployment
from airlock.services.releases import Case, open_case, read_decision, read_evidence


def compute(deployment: Deployment, case: Case) -> Decision:
    """The decision that follows from the evidence; nothing is recorded."""
    return judge(
        manifest=case.manifest,
        workload=case.workload,
        policy=case.policy,
        evidence=read_evidence(deployment, case),
        evaluate=deployment.engine.evaluate,
    )


def decide(deployment: Deployment, release_id: str) -> Decision:
    """Decide once; asked again, the recorded decision is returned.

    Raises:
        NotFoundError: unknown release or no manifest.
        IntegrityError: evidence was changed.
        UnavailableError: a store does not answer.
    """
    case = open_case(deployment, release_id)
    earlier = read_decision(deployment, case.release)
    if earlier is not None:
        return earlier
    decision = compute(deployment, case)
    digest = deployment.evidence.put(decision.to_bytes())
    deployment.record(
        Kind.RELEASE_DECIDED,
        f"release/{release_id}/decided",
        release_id=release_id,
        workload=case.workload.name,
        version=case.release.version,
        data={
            "decision": digest,
            "outcome": str(decision.outcome),
            "track": None if decision.track is None else str(decision.track),
            "tier": str(decision.tier),
            "sentence": decision.sentence[:1000],
            "seats": [seat.role for seat in decision.seats],
            "expires_hours": case.policy.approval.expires_hours,
        },
    )
    return decision
