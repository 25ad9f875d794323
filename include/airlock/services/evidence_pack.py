"""The evidence pack: one file with everything a release rests on, which anybody can verify (E-2, E-3).

The same state of the log gives the same bytes. A pack is verified before it gets its name, so there is
never half a pack, and none that does not verify.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import sqlalchemy as sa

from airlock import proof
from airlock.adapters.audit import Database, Log, SqlAuditStore
from airlock.adapters.audit.keys import public_path, read_public_key
from airlock.adapters.system import writing
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.canonical import canonical_json, sha256_hex
from airlock.core.decision import Decision
from airlock.core.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from airlock.core.evidence import Evidence
from airlock.core.manifest import Manifest
from airlock.core.policy import Policy
from airlock.core.workload import Workload
from airlock.ports import EvidenceStore
from airlock.proof import Checkpoint, LogEntry, Pack, PackReport, ProofError, PublicKey, Rotation, Story
from airlock.reporting.pack import IMAGE_TYPES, PackView, render_pack
from airlock.services.deployment import Deployment

MAX_BYTES = 2**32 - 2**26
"""Size of the largest pack: what an archive without extensions can hold, less its list of files."""

MAX_IMAGE_BYTES = 1_000_000
"""A larger image stays a file of the pack and is not shown in the page."""

_CHUNK = 1 << 20
_KEY_KINDS = [Kind.KEY_ROTATED, Kind.LOG_RESTARTED]
T = TypeVar("T")

README = """\
This is the evidence pack of one release of a model, exported by Airlock from its audit log.

index.html        the report; open it in a browser. Nothing signs its words, so verify the pack as well.
pack.json         every file with its SHA-256 and what it is, and what is not included.
events/           what happened, in the order of the log, each with its proof (c2sp.org/tlog-proof@v1).
checkpoint.txt    the signed checkpoint of the log that all proofs lead to (c2sp.org/tlog-checkpoint).
evidence/         what each gate found and the files it kept, named by their SHA-256.
manifest.json, workload.json, policy.json, suite.json, documentation.md, decision.json: by digest in events.
personal.json     what people wrote, with the salts of the commitments in the events.
key-changes/, erasures/: events of the log that name new keys, or texts that were erased.

To verify: python verify.py pack.zip --public-key FILE    (Python 3.11 and the package cryptography)
Take verify.py and the key from somewhere else than this pack: public-key.txt proves nothing about itself.
It holds texts that people wrote, some of which may have to be erased later: keep it where that can be done.
Exit code 0 is verified, 3 is not, 2 is a wrong call. The last line says which key signed, or what is wrong.
"""


def export_pack(deployment: Deployment, release_id: str, target: Path) -> Path:
    """Write the evidence pack of a release and return where it is.

    Texts of people are in it, so only its owner may read the file. A file of the same name is replaced.

    Raises:
        NotFoundError: no release of this id was submitted here.
        UnavailableError: events of it are not in the signed log yet, or the file cannot be written.
        IntegrityError: evidence is missing or damaged, or what was recorded does not verify.
        InvalidInputError: it would be larger than 4 GiB.
    """
    database = deployment.log.database
    extract = database.read(
        lambda connection: _extract(deployment, _Snapshot(database, connection), release_id)
    )
    files = _Files(deployment.evidence, dict(extract.documents))
    story = _add_evidence(files, extract)
    files.documents["index.html"] = render_pack(_view(files, story, extract)).encode()
    files.documents["README.txt"] = README.encode()
    files.documents["verify.py"] = Path(proof.__file__).read_bytes()
    pack = Pack(files.read, files.listing())
    entries = story.entries
    files.documents["pack.json"] = canonical_json(
        _proved(lambda: pack.index(Checkpoint.parse(extract.note), entries), release_id)
    )
    _write(files, target, release_id)
    return target


def verify_pack(path: Path, public_key: Path | None = None) -> PackReport:
    """Verify a pack with the functions of its own verifier.

    Args:
        path: archive or unpacked folder.
        public_key: file with the key of the log, from outside the pack.

    Raises:
        NotFoundError: there is no such file.
        ConfigurationError: it cannot be read, or the key is none that could be pinned.
    """
    try:
        key = None if public_key is None else proof.read_key(public_key.read_text(encoding="utf-8"))
        return proof.verify_pack(path, key)
    except FileNotFoundError as error:
        raise NotFoundError("there is no such file", where=str(error.filename)) from error
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(error.filename)) from error
    except (UnicodeDecodeError, ProofError) as error:
        raise ConfigurationError(
            f"this key cannot be pinned: {error}",
            where=str(public_key),
            fix="get the key from whoever runs Airlock: the file beside the signing key that ends with .pub",
        ) from error


class _Snapshot(Database):
    """The database as one transaction sees it, so that log, events and texts are of one moment."""

    def __init__(self, database: Database, connection: sa.Connection) -> None:
        self.url = database.url
        self.engine = database.engine
        self._connection = connection

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run queries in the transaction that is open."""
        return work(self._connection)


@dataclass(frozen=True)
class _Extract:
    """What the audit store says about a release at one moment.

    Attributes:
        documents: files of the pack that come from the log.
        entries: events of the release, proved.
        texts: what people wrote, by file and field; ``None`` where it was erased.
        note: the checkpoint that all proofs lead to.
        key: the key that signed it.
    """

    documents: Mapping[str, bytes]
    entries: list[LogEntry]
    texts: Mapping[tuple[str, str], str | None]
    note: str
    key: PublicKey


def _extract(deployment: Deployment, snapshot: Database, release_id: str) -> _Extract:
    # Without the vault: an event is needed as it stands in the log, with commitments and not with texts.
    store, log = SqlAuditStore(snapshot, deployment.clock), Log(snapshot)
    recorded = _own(deployment, store.events(release_id=release_id))
    if not any(entry.event.kind is Kind.RELEASE_SUBMITTED for entry in recorded):
        raise NotFoundError(
            f"there is no release {release_id!r}", fix="list releases with `airlock release list`"
        )
    _refuse_waiting(deployment, log, release_id, recorded)
    documents: dict[str, bytes] = {}
    note = log.head().note
    entries = _add_events(documents, log, "events", recorded)
    changes = _add_events(documents, log, "key-changes", _in_log(log, store.events(kinds=_KEY_KINDS)))
    key = _signer(deployment, note, changes)
    erasures = _in_log(log, store.events(kinds=[Kind.PERSONAL_ERASED]))
    texts = _add_texts(deployment, store, documents, entries, erasures)
    sealed = {commitment for entry in entries for commitment in entry.sealed.values()}
    about = [
        entry for entry in erasures if entry.event.release_id != release_id and sealed & {*_erased([entry])}
    ]
    _add_events(documents, log, "erasures", about)
    documents["checkpoint.txt"] = note.encode()
    documents["public-key.txt"] = proof.public_key_text(key).encode()
    return _Extract(documents, entries, texts, note, key)


def _own(deployment: Deployment, recorded: Iterable[Recorded]) -> list[Recorded]:
    """Events of this deployment: others may share the store."""
    name = deployment.settings.deployment
    return [entry for entry in recorded if entry.event.deployment == name]


def _in_log(log: Log, recorded: list[Recorded]) -> list[Recorded]:
    places = log.seqs([entry.ingest_id for entry in recorded if entry.ingest_id is not None])
    return [entry for entry in recorded if entry.ingest_id in places]


def _refuse_waiting(deployment: Deployment, log: Log, release_id: str, recorded: list[Recorded]) -> None:
    """A pack that leaves events out would tell half the story, and nobody could see that."""
    known = {entry.event.key for entry in recorded}
    spooled = [
        event for event in _spooled(deployment) if event.release_id == release_id and event.key not in known
    ]
    waiting = len(recorded) - len(_in_log(log, recorded))
    if waiting or spooled:
        raise UnavailableError(
            f"{waiting + len(spooled)} events of this release are not in the signed log yet "
            f"({waiting} wait for the sequencer, {len(spooled)} in the spool of this machine)",
            where=release_id,
            fix="see with `airlock status` that the sequencer runs, start it with `airlock sequencer` if it "
            "does not, and export again",
        )


def _spooled(deployment: Deployment) -> Iterator[Event]:
    for path in deployment.spool.waiting():
        try:
            yield deployment.spool.read(path)
        except FileNotFoundError:
            continue  # it has just been put into the store


def _add_events(
    documents: dict[str, bytes], log: Log, folder: str, recorded: list[Recorded]
) -> list[LogEntry]:
    """Put events with their proofs into a folder, in the order of the log."""
    known = [log.entry_of(entry.ingest_id) for entry in recorded if entry.ingest_id is not None]
    found = sorted(known, key=lambda entry: entry.seq)
    proofs = log.prove_all([entry.seq for entry in found])
    entries = []
    for number, (entry, inclusion) in enumerate(zip(found, proofs, strict=True), 1):
        path = f"{folder}/{number:04}"
        documents[f"{path}.json"], documents[f"{path}.tlog-proof"] = entry.body, str(inclusion).encode()
        entries.append(
            _proved(
                lambda path=path, entry=entry, inclusion=inclusion: LogEntry.read(  # type: ignore[misc]
                    f"{path}.json", entry.body, str(inclusion), inclusion.note
                ),
                path,
            )
        )
    return entries


def _proved(work: Callable[[], T], where: str) -> T:
    try:
        return work()
    except ProofError as error:
        raise IntegrityError(
            f"what is recorded does not verify: {error}",
            where=where,
            fix="run `airlock audit verify`, which says what was changed",
        ) from error


def _signer(deployment: Deployment, note: str, changes: list[LogEntry]) -> PublicKey:
    """The key that signed the newest checkpoint: the deployment's, or one that the log names."""
    path = public_path(deployment.settings.signing_key)
    keys = [read_public_key(path)]
    for entry in changes:
        rotation = _proved(lambda entry=entry: Rotation.parse(entry.text("statement")), entry.path)  # type: ignore[misc]
        keys += [rotation.new, rotation.old]
    signed = Checkpoint.parse(note).note
    for key in keys:
        if signed.signed_by(key):
            return key
    raise IntegrityError(
        f"the newest checkpoint is not signed by the log's key {keys[0].id}",
        where=str(path),
        fix="put the public key of this log there; `airlock audit verify` says whether the log is in order",
    )


def _add_texts(
    deployment: Deployment,
    store: SqlAuditStore,
    documents: dict[str, bytes],
    entries: list[LogEntry],
    erasures: list[Recorded],
) -> dict[tuple[str, str], str | None]:
    """List what people wrote with its salts, so that anybody can compare it with the commitments."""
    erased = {*_erased(erasures)}
    wanted = [(entry.path, *item) for entry in entries for item in entry.sealed.items()]
    rows = {row.commitment.hex(): row for row in store.personal(bytes.fromhex(item[2]) for item in wanted)}
    texts = []
    for path, field, commitment in wanted:
        line: dict[str, Any] = {"event": path, "field": field, "commitment": commitment}
        if commitment in erased:
            line["erased"] = True
        elif commitment in rows:
            salt, text = deployment.vault.open_with_salt(rows[commitment])
            line |= {"salt": salt.hex(), "text": text}
        else:
            raise IntegrityError(
                f"the {field} of {path} is gone, and no event records that it was erased",
                where=commitment,
                fix="restore the table `personal` from its backup; `airlock audit verify` lists what is gone",
            )
        texts.append(line)
    documents["personal.json"] = canonical_json({"texts": texts})
    return _proved(lambda: proof.read_texts({"texts": texts}, entries), "personal.json")


def _erased(erasures: Iterable[Recorded]) -> Iterator[str]:
    for entry in erasures:
        yield from map(str, entry.event.data.get("commitments", []))


class _Files:
    """The files of a pack before they are written: documents in memory, evidence where it is stored."""

    def __init__(self, evidence: EvidenceStore, documents: dict[str, bytes]) -> None:
        self._evidence = evidence
        self.documents = documents
        self.stored: dict[str, Path] = {}
        self.problems: list[str] = []

    def add(self, digest: str, path: str) -> bytes:
        """Take a document from the evidence store; what is missing is noted and empty."""
        try:
            self.documents[path] = self._evidence.get(digest)
        except (IntegrityError, NotFoundError) as error:
            self.problems.append(f"{path}: {error.what}")
            return b""
        return self.documents[path]

    def add_file(self, digest: str, name: str) -> None:
        """Take a file from the evidence store without reading it into memory."""
        path = f"evidence/{digest}"
        try:
            if path not in self.documents:
                self.stored[path] = self._evidence.path(digest)
        except (IntegrityError, NotFoundError) as error:
            self.problems.append(f"{name}: {error.what}")

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        return self.documents[path] if path in self.documents else self.stored[path].read_bytes()

    def listing(self) -> dict[str, tuple[str, int]]:
        """SHA-256 and size of each file."""
        found = {path: (sha256_hex(data), len(data)) for path, data in self.documents.items()}
        stored = {
            path: (path.removeprefix("evidence/"), place.stat().st_size)
            for path, place in self.stored.items()
        }
        return found | stored

    def refuse_missing(self, release_id: str) -> None:
        """A pack without its evidence would prove less than it seems to.

        Raises:
            IntegrityError: evidence is missing or damaged; names all of it.
        """
        if self.problems:
            listed = "; ".join(self.problems[:20])
            raise IntegrityError(
                f"{len(self.problems)} pieces of evidence are missing or damaged: {listed}",
                where=release_id,
                fix="restore the evidence folder from its backup and export again; damage is an incident to "
                "investigate",
            )


def _add_evidence(files: _Files, extract: _Extract) -> Story:
    """Collect everything that events name by digest."""
    story = Story(extract.entries, None, extract.texts, 0)
    release_id = str(story.submitted.body["release_id"])
    frozen, decided = story.first("release.frozen"), story.first("release.decided")
    if frozen is not None and (data := files.add(frozen.text("manifest"), "manifest.json")):
        manifest = Manifest.from_bytes(data)
        files.add(manifest.workload_digest, "workload.json")
        files.add(manifest.policy_digest, "policy.json")
        files.add(manifest.suite_digest, "suite.json")
        files.add(manifest.documentation_digest, "documentation.md")
    if decided is not None:
        files.add(decided.text("decision"), "decision.json")
    for entry in story.all("gate.evaluated"):
        digest = entry.text("evidence")
        if data := files.add(digest, f"evidence/{digest}"):
            for name, file in Evidence.from_bytes(data).result.files.items():
                files.add_file(file, f"{name} of gate {entry.text('gate')}")
    files.refuse_missing(release_id)
    decision = _proved(lambda: proof.read_json(files.read("decision.json")), release_id) if decided else None
    signed_at = Checkpoint.parse(extract.note).note.signed_at(extract.key)
    return Story(extract.entries, decision, extract.texts, signed_at or 0)


def _view(files: _Files, story: Story, extract: _Extract) -> PackView:
    frozen = "manifest.json" in files.documents
    evidence = [
        Evidence.from_bytes(files.read(f"evidence/{entry.text('evidence')}"))
        for entry in story.all("gate.evaluated")
    ]
    return PackView(
        story=story,
        key=extract.key,
        checkpoint=Checkpoint.parse(extract.note),
        manifest=Manifest.from_bytes(files.read("manifest.json")) if frozen else None,
        workload=Workload.from_bytes(files.read("workload.json")) if frozen else None,
        policy=Policy.from_bytes(files.read("policy.json")) if frozen else None,
        decision=Decision.from_bytes(files.read("decision.json")) if story.decision else None,
        evidence=evidence,
        images=dict(_images(files, evidence)),
    )


def _images(files: _Files, evidence: Iterable[Evidence]) -> Iterator[tuple[str, bytes]]:
    for record in evidence:
        for name, digest in record.result.files.items():
            place = files.stored.get(f"evidence/{digest}")
            if place and name.endswith(tuple(IMAGE_TYPES)) and place.stat().st_size <= MAX_IMAGE_BYTES:
                yield digest, place.read_bytes()


def _write(files: _Files, target: Path, release_id: str) -> None:
    """Write the archive beside its place, verify it there, and only then give it its name."""
    size = sum(size for _, size in files.listing().values())
    if size > MAX_BYTES:
        raise InvalidInputError(
            f"the evidence has {size:,} bytes, a pack can hold {MAX_BYTES:,}",
            where=release_id,
            fix="let gates keep smaller files",
        )
    folder = target.absolute().parent
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".writing-", suffix=".zip")
        made = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                _write_archive(files, stream)
                stream.flush()
                os.fsync(stream.fileno())
            _refuse_unverified(made, release_id)
            made.replace(target)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
        _sync_folder(folder)


def _write_archive(files: _Files, stream: BinaryIO) -> None:
    listed = []
    for path in sorted([*files.documents, *files.stored]):
        start = stream.tell()
        stream.write(proof.zip_header(path, 0, 0))
        crc, size = 0, 0
        for chunk in _chunks(files, path):
            stream.write(chunk)
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        end = stream.tell()
        stream.seek(start)
        stream.write(proof.zip_header(path, crc, size))
        stream.seek(end)
        listed.append((path, crc, size))
    stream.write(proof.zip_directory(listed))


def _chunks(files: _Files, path: str) -> Iterator[bytes]:
    if path in files.documents:
        yield files.documents[path]
        return
    hashed = hashlib.sha256()
    with files.stored[path].open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            hashed.update(chunk)
            yield chunk
    if f"evidence/{hashed.hexdigest()}" != path:
        raise IntegrityError("evidence changed while it was exported", where=str(files.stored[path]))


def _refuse_unverified(path: Path, release_id: str) -> None:
    report = proof.verify_pack(path)
    if not report.verified:
        raise IntegrityError(
            f"the pack would not verify: {report.verdict}",
            where=release_id,
            fix="run `airlock audit verify`, which says what was changed in the log",
        )


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
