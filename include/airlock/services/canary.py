"""Try a policy beside the binding one: evaluated, recorded and compared, never binding (requirement P-4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airlock.core.audit import Event, Kind
from airlock.core.errors import AirlockError, NotFoundError
from airlock.services.deployment import Deployment
from airlock.services.releases import Case
from airlock.services.replay import Again, Past, held_waivers

REASONS = 10
"""Reasons kept in an event."""


def try_canary(deployment: Deployment, case: Case, decided: Event) -> Event | None:
    """Evaluate the candidate policy on a decided release, if it is among those it is tried on.

    Nothing of this can stop or change a release: what goes wrong is recorded as what the canary said, and
    when even that cannot be recorded the release goes on without it. Safe to repeat.
    """
    try:
        canary = deployment.config.canary()
        if canary is None or not canary.takes(decided.release_id, decided.workload):
            return None
        key = f"release/{decided.release_id}/canary/{canary.policy}"
        if (earlier := deployment.find(key)) is not None:
            return earlier
        data: dict[str, Any] = {"policy": canary.policy, "binding": case.policy.version}
        try:
            policy = deployment.config.policy(canary.policy)
            again = Again(deployment.evidence, deployment.engine, policy, held_waivers(deployment))
            found = again.one(Past.of(decided))
        except AirlockError as error:
            found = str(error)
        if isinstance(found, str):
            data |= {"problem": found[:1000], "agrees": None}
        else:
            data |= {
                "digest": policy.digest,
                "before": found.before,
                "after": found.after,
                "changed": found.changed,
                "agrees": not found.changed,
                "why": [sentence[:300] for sentence in found.why[:REASONS]],
                "unsure": found.unsure,
            }
        return deployment.record(
            Kind.CANARY_EVALUATED,
            key,
            release_id=decided.release_id,
            workload=decided.workload,
            version=decided.version,
            data=data,
        ).event
    except AirlockError:
        return None


@dataclass
class CanaryReport:
    """How a candidate policy agreed with the binding one.

    Attributes:
        unsure: among both, releases where a gate would have to run under the candidate.
        problems: releases on which the candidate could not be evaluated.
    """

    policy: str
    agreed: int = 0
    disagreements: list[Event] = field(default_factory=list)
    unsure: int = 0
    problems: list[Event] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Releases it was tried on."""
        return self.agreed + len(self.disagreements) + len(self.problems)

    def to_data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "policy": self.policy,
            "total": self.total,
            "agreed": self.agreed,
            "unsure": self.unsure,
            "disagreements": [
                {"release_id": event.release_id, "workload": event.workload, **event.data}
                for event in self.disagreements
            ],
            "problems": {event.release_id: event.data["problem"] for event in self.problems},
        }


def canary_report(
    deployment: Deployment, policy: str | None = None, *, since_us: int | None = None
) -> CanaryReport:
    """What the canary said so far.

    Raises:
        NotFoundError: no canary was ever tried, or none of this version.
    """
    name = deployment.settings.deployment
    events = [
        entry.event
        for entry in deployment.audit.events(kinds=[Kind.CANARY_EVALUATED], since_us=since_us)
        if entry.event.deployment == name
    ]
    version = policy or (str(events[-1].data["policy"]) if events else "")
    report = CanaryReport(version)
    for event in events:
        if event.data["policy"] != version:
            continue
        report.unsure += bool(event.data.get("unsure"))
        if event.data["agrees"] is None:
            report.problems.append(event)
        elif event.data["agrees"]:
            report.agreed += 1
        else:
            report.disagreements.append(event)
    if not report.total:
        raise NotFoundError(
            f"no release was tried under {f'policy {policy}' if policy else 'a canary'}",
            fix="name a policy and a share in config/canary.yaml; releases decided from then on are tried",
        )
    return report
