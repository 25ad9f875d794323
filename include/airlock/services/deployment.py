"""One deployment of Airlock: its ports, wired to the real things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from airlock.adapters.anchors import open_anchors
from airlock.adapters.audit import Log, Spool, SqlAuditStore, Vault
from airlock.adapters.audit.database import open_database
from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.engines import open_engine
from airlock.adapters.evidence import FileEvidenceStore
from airlock.adapters.mlflow_registry import MlflowRegistry
from airlock.adapters.sandbox import ProcessSandbox
from airlock.adapters.settings import Settings, load_settings
from airlock.adapters.system import SystemClock
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.ports import Anchor, AuditStore, Clock, EvidenceStore, PolicyEngine, Registry, Sandbox

SYSTEM = "system"
"""Actor of events in which no person acted."""


@dataclass(frozen=True)
class Deployment:
    """Everything a use case needs; tests replace single ports."""

    settings: Settings
    clock: Clock
    audit: AuditStore
    log: Log
    vault: Vault
    spool: Spool
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
            UnavailableError: the store does not answer, or a critical event is not anchored yet.
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
        recorded = self.audit.append(event)
        if kind.critical:
            self.audit.confirm(recorded)
        return recorded

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
    database = open_database(settings.audit_url.get_secret_value())
    vault, spool = Vault(settings.personal_key_path), Spool(settings.spool_root)
    return Deployment(
        settings=settings,
        clock=clock,
        audit=SqlAuditStore(
            database,
            clock,
            vault,
            spool=spool,
            anchors=immediate(anchors_of(settings)),
            wait_seconds=settings.anchor_wait_seconds,
        ),
        log=Log(database),
        vault=vault,
        spool=spool,
        evidence=FileEvidenceStore(settings.evidence_root),
        registry=MlflowRegistry(settings.mlflow_uri),
        sandbox=ProcessSandbox(hidden=[settings.home, settings.evidence_root, settings.data_root]),
        engine=open_engine(settings),
        config=ConfigFolder(settings.config_dir),
    )


def anchors_of(settings: Settings) -> list[Anchor]:
    """The anchors of a deployment; nothing is contacted yet.

    Raises:
        ConfigurationError: a URL cannot be used, or no anchor takes each checkpoint.
    """
    cache = settings.home / "anchor-cache"
    anchors = open_anchors(settings.audit_anchors, cache=cache, tracking_uri=settings.mlflow_uri)
    if not immediate(anchors):
        raise ConfigurationError(
            "no anchor takes each checkpoint, so approvals and promotions could never count",
            where="AIRLOCK_AUDIT_ANCHORS",
            fix="add every=0 to the quickest of them, such as file:///path?every=0",
        )
    return anchors


def immediate(anchors: Sequence[Anchor]) -> list[str]:
    """Names of the anchors that take each checkpoint, which critical events wait for."""
    return [anchor.name for anchor in anchors if anchor.every_seconds == 0]
