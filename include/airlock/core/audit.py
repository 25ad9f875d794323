"""Audit events: what is written, once, and never changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import sha256_hex

MAX_BODY_BYTES = 65536
"""Largest event; bigger things belong into the evidence store, and their digest here."""


class Kind(StrEnum):
    """Every kind of event there is."""

    RELEASE_SUBMITTED = "release.submitted"
    RELEASE_FROZEN = "release.frozen"
    GATE_EVALUATED = "gate.evaluated"
    RELEASE_DECIDED = "release.decided"
    APPROVAL_RECORDED = "approval.recorded"
    APPROVAL_REFUSED = "approval.refused"
    PROMOTION_STARTED = "promotion.started"
    PROMOTION_FINISHED = "promotion.finished"
    PROMOTION_REFUSED = "promotion.refused"
    VERSION_QUARANTINED = "version.quarantined"
    CHAMPION_ADOPTED = "champion.adopted"
    RELEASE_ANNOUNCED = "release.announced"
    RELEASE_SEALED = "release.sealed"
    TASK_STARTED = "task.started"
    TASK_OUTCOME = "task.outcome"
    API_ATTEMPT = "api.attempt"
    CONFLICT = "conflict"


class Event(Value):
    """One fact about what happened.

    Attributes:
        key: idempotency key; the same key with the same content is recorded once, with other
            content it is answered with a ``conflict`` event.
        occurred_us: claimed time, microseconds since 1970 UTC (nanoseconds would not fit JSON).
        actor: user id, or ``system`` when no person acted.
    """

    schema_version: Literal[1] = 1
    key: Annotated[str, Field(min_length=1, max_length=1000)]
    kind: Kind
    occurred_us: Annotated[int, Field(ge=0, lt=2**53)]
    actor: Annotated[str, Field(min_length=1, max_length=200)]
    deployment: str
    release_id: str = ""
    workload: str = ""
    version: str = ""
    data: dict[str, Any] = {}

    @property
    def leaf_hash(self) -> bytes:
        """RFC 9162 leaf hash: SHA-256 over 0x00 and the canonical bytes."""
        return bytes.fromhex(sha256_hex(b"\x00" + self.to_bytes()))


class Recorded(Value):
    """An event as it stands in the store, with its position and the time it was received."""

    ingest_id: int
    received_us: int
    event: Event
