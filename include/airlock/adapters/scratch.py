"""Ports that forget: a rehearsal runs the real services and leaves nothing behind.

What was recorded before is read through; what is recorded now stays in memory or in a temporary folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from airlock.adapters.evidence import FileEvidenceStore
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.canonical import sha256_hex
from airlock.core.errors import AirlockError, NotFoundError, RefusedError
from airlock.ports import AuditStore, EvidenceStore, ModelVersion, Registry, RunFacts


class ScratchAudit:
    """An audit store over another one, which is only read.

    Attributes:
        missing: why the other store could not be read; empty while it could. Then nothing is known of the
            past: no history, no waivers.
    """

    def __init__(self, past: AuditStore) -> None:
        self._past = past
        self._own: list[Recorded] = []
        self.missing = ""

    def migrate(self) -> None:
        """Nothing: the other store is not changed."""

    def append(self, event: Event) -> Recorded:
        """Keep an event in memory; one key is kept once."""
        for known in self._own:
            if known.event.key == event.key:
                return known
        recorded = Recorded(ingest_id=None, event=event)
        self._own.append(recorded)
        return recorded

    def confirm(self, recorded: Recorded) -> None:
        """Nothing waits: nobody relies on a rehearsal."""

    def events(
        self,
        *,
        release_id: str | None = None,
        workload: str | None = None,
        version: str | None = None,
        actor: str | None = None,
        kinds: Sequence[Kind] = (),
        key: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """Events of the past, then those of the rehearsal."""
        wanted = {
            "release_id": release_id,
            "workload": workload,
            "version": version,
            "actor": actor,
            "key": key,
        }
        own = [
            recorded
            for recorded in self._own
            if all(value is None or getattr(recorded.event, name) == value for name, value in wanted.items())
            and (not kinds or recorded.event.kind in kinds)
            and (since_us is None or recorded.event.occurred_us >= since_us)
            and (until_us is None or recorded.event.occurred_us < until_us)
        ]
        past = self._read(
            release_id=release_id,
            workload=workload,
            version=version,
            actor=actor,
            kinds=kinds,
            key=key,
            since_us=since_us,
            until_us=until_us,
            limit=limit,
            newest_first=newest_first,
        )
        found = [*reversed(own), *past] if newest_first else [*past, *own]
        return found if limit is None else found[:limit]

    def _read(self, **narrowed: object) -> list[Recorded]:
        if self.missing:
            return []
        try:
            return self._past.events(**narrowed)  # type: ignore[arg-type]  # the very arguments of events()
        except AirlockError as error:
            self.missing = str(error)
            return []


class ScratchEvidence:
    """An evidence store over another one, which is only read; new content goes into a folder."""

    def __init__(self, past: EvidenceStore, folder: Path) -> None:
        self._past = past
        self._own = FileEvidenceStore(folder)

    def put(self, data: bytes) -> str:
        """Store bytes in the folder."""
        return self._own.put(data)

    def put_file(self, path: Path) -> str:
        """Store a file in the folder."""
        return self._own.put_file(path)

    def get(self, digest: str) -> bytes:
        """Read from the folder, else from the other store."""
        try:
            return self._own.get(digest)
        except NotFoundError:
            return self._past.get(digest)

    def path(self, digest: str) -> Path:
        """A local path, in the folder or in the other store."""
        try:
            return self._own.path(digest)
        except NotFoundError:
            return self._past.path(digest)


class ReadOnlyRegistry:
    """A registry that can be read and not changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def version(self, name: str, version: str) -> ModelVersion:
        """A version."""
        return self._registry.version(name, version)

    def champion(self, name: str) -> ModelVersion | None:
        """The version in production."""
        return self._registry.champion(name)

    def run(self, run_id: str) -> RunFacts:
        """What is known about a training run."""
        return self._registry.run(run_id)

    def download(self, name: str, version: str, target: Path) -> None:
        """The files of a version."""
        self._registry.download(name, version, target)

    def add_version(self, name: str, folder: Path, **_: object) -> str:
        """Refused.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(f"a rehearsal does not register {folder.name} as a version of {name}")

    def set_champion(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Refused.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(f"a rehearsal does not promote {name} {version} ({len(tags)} tags)")

    def quarantine(self, name: str, version: str, reason: str) -> None:
        """Refused.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(f"a rehearsal does not quarantine {name} {version}: {reason}")

    def tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Refused.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(f"a rehearsal does not tag {name} {version} ({len(tags)} tags)")

    def clear_champion(self, name: str, tags: Mapping[str, str]) -> None:
        """Refused.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(f"a rehearsal does not take the champion of {name} away ({len(tags)} tags)")


def scratch_id(workload: str, version: str) -> str:
    """The id of a rehearsed release, which no real release can have."""
    return f"preflight-{workload}-v{version}-{sha256_hex(version.encode())[:8]}"
