"""One deployment of Airlock: its ports, wired to the real things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from airlock.adapters.audit import SqlAuditStore
from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.evidence import FileEvidenceStore
from airlock.adapters.mlflow_registry import MlflowRegistry
from airlock.adapters.sandbox import ProcessSandbox
from airlock.adapters.settings import Settings, load_settings
from airlock.adapters.system import SystemClock
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.errors import InvalidInputError
from airlock.ports import AuditStore, Clock, EvidenceStore, PolicyEngine, Registry, Sandbox

SYSTEM = "system"
"""Actor of events in which no person acted."""


@dataclass(frozen=True)
class Deployment:
    """Everything a use case needs; tests replace single ports."""

    settings: Settings
    clock: Clock
    audit: AuditStore
    evidence: EvidenceStore
    registry: Registry
    sandbox: Sandbox
    engine: PolicyEngine
    config: ConfigFolder

    def record(
        self,
        kind: Kind,
        key: str,
        *,
        actor: str = SYSTEM,
        release_id: str = "",
        workload: str = "",
        version: str = "",
        data: dict[str, Any] | None = None,
    ) -> Recorded:
        """Write one audit event, stamped with this deployment and the time.

        ``key`` is prefixed with the deployment, so that two deployments can share one store.

        Raises:
            InvalidInputError: a part of the event is too long or no text.
        """
        try:
            event = Event(
                key=f"{self.settings.deployment}/{key}",
                kind=kind,
                occurred_us=self.clock.now_us(),
                actor=actor,
                deployment=self.settings.deployment,
                release_id=release_id,
                workload=workload,
                version=version,
                data=data or {},
            )
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise InvalidInputError(
                f"{field} of the event {kind} cannot be recorded: {problem['msg']}"
            ) from error
        return self.audit.append(event)

    def find(self, key: str) -> Event | None:
        """The event recorded under ``key``, or ``None``."""
        found = self.audit.events(key=f"{self.settings.deployment}/{key}")
        return found[0].event if found else None


def open_deployment(settings: Settings | None = None) -> Deployment:
    """Wire the deployment that the environment describes.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    settings = settings or load_settings()
    clock = SystemClock()
    return Deployment(
        settings=settings,
        clock=clock,
        audit=SqlAuditStore(settings.audit_url.get_secret_value(), clock),
        evidence=FileEvidenceStore(settings.evidence_root),
        registry=MlflowRegistry(settings.mlflow_uri),
        sandbox=ProcessSandbox(hidden=[settings.home, settings.evidence_root, settings.data_root]),
        engine=CelEngine(),
        config=ConfigFolder(settings.config_dir),
    )
