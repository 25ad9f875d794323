"""Adopt the model that is already in production when Airlock arrives."""

from __future__ import annotations

from airlock.core.audit import Kind
from airlock.core.errors import RefusedError
from airlock.services.deployment import Deployment
from airlock.services.moves import arrived, moves_of


def adopt(deployment: Deployment, workload_name: str, version: str, *, actor: str, reason: str) -> None:
    """Make a version the first champion without judging it, and say so in the audit store.

    Works only while the workload has no champion; afterwards there is no way but a release.

    Raises:
        NotFoundError: unknown workload or version.
        RefusedError: there is a champion already, the version is quarantined, or no reason is given.
    """
    workload = deployment.config.workload(workload_name)
    model = workload.model.registered_model
    found = deployment.registry.version(model, version)
    if found.tags.get("airlock.state") == "quarantined":
        raise RefusedError(
            f"version {version} of {model} is quarantined", where=workload_name, fix="adopt another version"
        )
    champion = deployment.registry.champion(model)
    if champion is not None:
        raise RefusedError(
            f"{model} already has a champion: version {champion.version}",
            where=workload_name,
            fix="submit the version as a release",
        )
    moves = moves_of(deployment, workload_name)
    if any(arrived(event) != version or event.kind is not Kind.CHAMPION_ADOPTED for event in moves.arrivals):
        # Where a rollback left nothing in production, adopting would be a way around every gate.
        raise RefusedError(
            f"{workload_name} has had a champion under Airlock before",
            where=workload_name,
            fix="submit the version as a release, or roll back to one that was in production",
        )
    if not reason.strip():
        raise RefusedError("no reason is given", where=workload_name, fix="say why with --reason")
    deployment.record(
        Kind.CHAMPION_ADOPTED,
        f"adopted/{workload_name}",
        actor=actor,
        workload=workload_name,
        version=version,
        data={"model": model, "reason": reason[:1000]},
    )
    deployment.registry.set_champion(model, version, {"state": "adopted"})
