"""Judge a release from its evidence."""

from __future__ import annotations

from collections.abc import Sequence

from airlock.core.audit import Kind
from airlock.core.decision import Decision
from airlock.core.decision import decide as judge
from airlock.core.waiver import Waiver
from airlock.services.canary import try_canary
from airlock.services.deployment import Deployment
from airlock.services.releases import Case, open_case, read_decision, read_evidence
from airlock.services.waivers import in_force


def compute(deployment: Deployment, case: Case, waivers: Sequence[Waiver]) -> Decision:
    """The decision that follows from the evidence and these waivers; nothing is recorded."""
    return judge(
        manifest=case.manifest,
        workload=case.workload,
        policy=case.policy,
        evidence=read_evidence(deployment, case),
        engine=deployment.engine,
        as_of=case.release.submitted_on,
        waivers=waivers,
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
        if (event := case.release.first(Kind.RELEASE_DECIDED)) is not None:
            try_canary(deployment, case, event)  # a kill may have come between the two
        return earlier
    waivers = in_force(deployment, case)
    decision = compute(deployment, case, waivers)
    for waiver in waivers:
        if waiver.waiver_id in decision.waivers:
            deployment.evidence.put(waiver.to_bytes())
    digest = deployment.evidence.put(decision.to_bytes())
    recorded = deployment.record(
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
            "waivers": sorted(decision.waivers),
            "denied_by": [reason.rule for reason in decision.reasons if reason.denies],
            **({} if decision.risk is None else {"risk_score": decision.risk.score}),
            "expires_hours": case.policy.approval.expires_hours,
        },
    )
    try_canary(deployment, case, recorded.event)
    return decision
