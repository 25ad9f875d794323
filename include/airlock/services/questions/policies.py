"""Who published a policy version, and which releases were judged under it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from airlock.core.audit import Event, Kind, Recorded
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
    texts,
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
class Published:
    """That a version was published: from then on it counted, with this content alone.

    Attributes:
        digest: of the content.
        first: whether it was there when the deployment began, so that nobody was asked.
        request, requested_by: what asked for it, and who.
        approved_by: who approved it, by role.
        predecessor: the version it was compared with.
        sentences: what it changed, in words.
        event: number of the publication in the store.
    """

    digest: str
    at_us: int
    first: bool
    request: str
    requested_by: str
    approved_by: Mapping[str, str]
    predecessor: str
    sentences: tuple[str, ...]
    event: int | None


@dataclass(frozen=True)
class PolicyUse:
    """A policy version and the releases under it.

    Attributes:
        published: its publication, ``None`` if none is recorded.
        digests: how many of its releases were judged by which content; more than one content means that
            a published version was edited.
        total: releases under this version among those looked at.
        releases: the newest of them.
        unknown: releases whose policy digest could not be read, with the first reason.
        cut: whether there are older releases that were not looked at.
    """

    version: str
    published: Published | None
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
    """Who published a policy version, and the releases that were frozen under it, the newest first.

    Raises:
        NotFoundError: it was neither published nor used; names the versions there are.
        UnavailableError: the store does not answer.
    """
    frozen, cut = newest(deployment, kinds=[Kind.RELEASE_FROZEN], since_us=since_us, until_us=until_us)
    under = [entry for entry in frozen[::-1] if text(entry.event, "policy") == version]
    published = _published(deployment)
    if not under and version not in published:
        used = sorted({text(entry.event, "policy") for entry in frozen})
        raise NotFoundError(
            f"no release is recorded under policy {version!r}, and it was never published",
            fix=f"versions with releases: {', '.join(used) or 'none'}; "
            f"published: {', '.join(sorted(published)) or 'none'}",
        )
    reader = EvidenceReader(deployment)
    digests = [_policy_digest(reader, entry) for entry in under]
    return PolicyUse(
        version=version,
        published=published.get(version),
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


def _published(deployment: Deployment) -> dict[str, Published]:
    """Publications by version; the first of a version is the one that counts."""
    found: dict[str, Published] = {}
    for entry in newest(deployment, kinds=[Kind.POLICY_PUBLISHED])[0]:
        event = entry.event
        for version, digest in _pairs(event, "policies").items():
            made = Published(
                digest=digest,
                at_us=event.occurred_us,
                first=event.data.get("first") is True,
                request=text(event, "request"),
                requested_by=text(event, "requested_by"),
                approved_by=_pairs(event, "approved_by"),
                predecessor=text(event, "predecessor"),
                sentences=texts(event, "sentences"),
                event=entry.ingest_id,
            )
            found.setdefault(version, made)
    return found


def _pairs(event: Event, name: str) -> dict[str, str]:
    """Texts by name; whoever may write can put something else there."""
    value = event.data.get(name)
    return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else {}


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
