"""The files behind a release: which there are, how they are opened, and that they were (requirement E-6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airlock.core.audit import Kind
from airlock.core.errors import NotFoundError
from airlock.core.evidence import Evidence
from airlock.core.release import Release
from airlock.services.deployment import Deployment
from airlock.services.questions.access import record_access

SHOWN = {
    "report.html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Endings of files that a browser may show, with their type: reports that Airlock rendered, and images."""

DOWNLOAD = "application/octet-stream"

_JSON = "application/json"
_DOCUMENTS = (
    ("manifest", "manifest.json", _JSON),
    ("decision", "decision.json", _JSON),
)


@dataclass(frozen=True)
class EvidenceFile:
    """One file behind a release.

    Attributes:
        gate: whose it is; empty for the documents of the release itself.
        name: as the gate wrote it.
        digest: SHA-256 of the content, which is its place in the evidence store.
        media_type: what a browser is told; never what the content claims to be.
        shown: whether it may be shown in a page. All else is downloaded, and that it was read is recorded:
            it can hold rows about people.
    """

    gate: str
    name: str
    digest: str
    media_type: str
    shown: bool


def list_files(deployment: Deployment, release: Release) -> list[EvidenceFile]:
    """Every file of a release: manifest, decision, each gate's evidence and what the gate kept.

    Raises:
        IntegrityError: evidence was changed.
    """
    return list(_files(deployment, release))


def _files(deployment: Deployment, release: Release) -> Iterator[EvidenceFile]:
    events = {
        "manifest": release.first(Kind.RELEASE_FROZEN),
        "decision": release.first(Kind.RELEASE_DECIDED),
    }
    for document, name, media_type in _DOCUMENTS:
        if (event := events[document]) is not None:
            yield EvidenceFile("", name, str(event.data[document]), media_type, shown=False)
    for line in release.gates:
        record = Evidence.from_bytes(deployment.evidence.get(line.digest))
        yield from gate_files(record, line.digest)


def gate_files(record: Evidence, digest: str) -> Iterator[EvidenceFile]:
    """The files of one gate, its evidence first."""
    yield EvidenceFile(record.gate, "evidence.json", digest, _JSON, shown=False)
    for name, content in sorted(record.result.files.items()):
        shown = next((kind for ending, kind in SHOWN.items() if name.endswith(ending)), "")
        yield EvidenceFile(record.gate, name, content, shown or _type_of(name), shown=bool(shown))


def _type_of(name: str) -> str:
    return _JSON if name.endswith(".json") else DOWNLOAD


def open_file(
    deployment: Deployment, release: Release, digest: str, *, reader: str
) -> tuple[EvidenceFile, bytes]:
    """A file of exactly this release, verified, and the record that ``reader`` took it where it is not shown.

    Raises:
        NotFoundError: the release has no such file, whatever else the evidence store holds.
        IntegrityError: its content was changed.
        UnavailableError: that it is read cannot be recorded, so it is not given.
    """
    found = next((file for file in _files(deployment, release) if file.digest == digest), None)
    if found is None:
        raise NotFoundError(
            f"release {release.release_id} has no file {digest[:80]!r}",
            fix="open the release; its files are listed under each gate",
        )
    content = deployment.evidence.get(found.digest)
    if not found.shown:
        asked = {"release": release.release_id, "gate": found.gate, "file": found.name, "digest": digest}
        record_access(deployment, "evidence-file", asked, asker=reader)
    return found, content
