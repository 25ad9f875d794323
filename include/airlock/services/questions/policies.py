"""Which releases were judged under a policy version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from airlock.core.audit import Kind, Recorded
from airlock.core.canonical import parse_json
from airlock.core.errors import NotFoundError
from airlock.services.deployment import Deployment
from airlock.services.questions.reading import (
    RELEASES,
    UNDECIDED,
    Decided,
    EvidenceReader,
    find_case,
    newest,
    text,
)


@dataclass(frozen=True)
class Judged:
    """A release that was frozen under a policy version, and what became of it."""

    release_id: str
    workload: str
    version: str
    frozen_us: int
    policy_digest: str
    state: str
    decided: Decided
    event: int | None


@dataclass(frozen=True)
class PolicyUse:
    """Releases under a policy version.

    Attributes:
        digests: how many of its releases were judged by which content; more than one content means that
            a published version was edited.
        total: releases under this version among those looked at.
        releases: the newest of them.
        unknown: releases whose policy digest could not be read, with the first reason.
        cut: whether there are older releases that were not looked at.
    """

    version: str
    digests: Mapping[str, int]
    total: int
    releases: tuple[Judged, ...]
    unknown: int
    missing: tuple[str, ...]
    cut: bool

    @property
    def was_edited(self) -> bool:
        """Whether the same version stood for different rules."""
        return len(self.digests) > 1


def policy_use(
    deployment: Deployment,
    version: str,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    limit: int = RELEASES,
) -> PolicyUse:
    """Releases that were frozen under a policy version, the newest first.

    Raises:
        NotFoundError: no release was judged under it; names the versions there are.
        UnavailableError: the store does not answer.
    """
    frozen, cut = newest(deployment, kinds=[Kind.RELEASE_FROZEN], since_us=since_us, until_us=until_us)
    under = [entry for entry in frozen[::-1] if text(entry.event, "policy") == version]
    if not under:
        known = sorted({text(entry.event, "policy") for entry in frozen})
        raise NotFoundError(
            f"no release is recorded under policy {version!r}",
            fix=f"versions with releases: {', '.join(known) or 'none'}",
        )
    reader = EvidenceReader(deployment)
    digests = [_policy_digest(reader, entry) for entry in under]
    return PolicyUse(
        version=version,
        digests=dict(Counter(digest for digest in digests if digest)),
        total=len(under),
        releases=tuple(
            _judged(deployment, entry, digest)
            for entry, digest in zip(under[:limit], digests[:limit], strict=True)
        ),
        unknown=digests.count(""),
        missing=tuple(reader.missing[:1]),
        cut=cut,
    )


def _policy_digest(reader: EvidenceReader, frozen: Recorded) -> str:
    return reader.read("a manifest", text(frozen.event, "manifest"), _digest_in) or ""


def _digest_in(manifest: bytes) -> str:
    # Only this field of what may be thousands; the content itself was verified by its digest.
    digest = parse_json(manifest)["policy_digest"]
    if not isinstance(digest, str):
        raise TypeError("a digest is a string")
    return digest


def _judged(deployment: Deployment, frozen: Recorded, digest: str) -> Judged:
    event = frozen.event
    case = find_case(deployment, event.release_id)
    return Judged(
        release_id=event.release_id,
        workload=event.workload,
        version=event.version,
        frozen_us=event.occurred_us,
        policy_digest=digest,
        state="" if case is None else case.state,
        decided=UNDECIDED if case is None else case.decided,
        event=frozen.ingest_id,
    )
