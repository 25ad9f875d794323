"""Checks what the audit log claims. This file alone is the auditor's verifier.

It needs Python 3.11 and the package ``cryptography``, no network, no database and nothing else of
Airlock: a copy of it lies in every evidence pack as ``verify.py``. Airlock itself checks with the same
functions, so the two cannot differ. Run it as

    python verify.py pack.zip --public-key FILE

with a key that did not come with the pack; exit code 0 is verified, 3 is not, 2 is a wrong call.

The formats are public: the Merkle tree and its proofs are those of RFC 9162, sections 2.1.1 to 2.1.4;
signed notes, checkpoints, cosignatures and proofs those of https://c2sp.org (``signed-note``,
``tlog-checkpoint``, ``tlog-cosignature``, ``tlog-proof@v1``).
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import html
import json
import math
import os
import re
import stat
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, TypeVar

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of a tree without leaves (RFC 9162, section 2.1.1)."""

_NOTE_KEY, _COSIGNER_KEY = 1, 4
"""Signature types of C2SP signed notes: Ed25519, and Ed25519 over a timestamp and the note."""

_SIGNATURE_LINE = re.compile("^\N{EM DASH} ([^ +\\s]+) ([A-Za-z0-9+/=]+)$")
_DECIMAL = re.compile(r"^(0|[1-9][0-9]{0,18})$")
_MAX_PROOF = 64
"""Hashes in the longest proof; a longer one cannot belong to a tree of fewer than 2**63 leaves."""


Signer = Callable[[bytes], bytes]
"""Signs a message with a private key that stays where it is."""


class ProofError(ValueError):
    """What was claimed is not proved; the text says why."""


def hash_leaf(data: bytes) -> bytes:
    """Hash of a leaf: SHA-256 over 0x00 and its bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256 over 0x01 and the hashes of its children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf stands at ``index`` of the tree with ``size`` leaves (RFC 9162, 2.1.3.2).

    Raises:
        ProofError: it is not proved.
    """
    if not 0 <= index < size:
        raise ProofError(f"entry {index} cannot be in a tree of {size} entries")
    node, last, found = index, size - 1, leaf_hash
    for sibling in _hashes(proof):
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            found = hash_node(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = hash_node(found, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofError("the inclusion proof is too short")
    if found != root:
        raise ProofError(f"entry {index} is not in the tree that the checkpoint signs")


def verify_consistency(
    size: int, root: bytes, later_size: int, later_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a later tree only appended to an earlier one (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: it is not proved.
    """
    if not 0 <= size <= later_size:
        raise ProofError(f"a tree of {later_size} entries does not continue one of {size}")
    if size in (0, later_size):
        if proof or root != (later_root if size else EMPTY_ROOT):
            raise ProofError(
                "two trees of the same size differ" if size else "an empty tree has another root"
            )
        return
    path = list(_hashes(proof))
    if size & (size - 1) == 0:
        path.insert(0, root)
    if not path:
        raise ProofError("the consistency proof is too short")
    if _both_roots(size, later_size, path) != (root, later_root):
        raise ProofError(f"the tree of {later_size} entries does not continue the signed one of {size}")


def _both_roots(size: int, later_size: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots of both trees that follow from a consistency proof (RFC 9162, 2.1.4.2, from step 4)."""
    node, last = size - 1, later_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    earlier = later = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            earlier, later = hash_node(sibling, earlier), hash_node(sibling, later)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            later = hash_node(later, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofError("the consistency proof is too short")
    return earlier, later


def _hashes(proof: Sequence[bytes]) -> Sequence[bytes]:
    if len(proof) > _MAX_PROOF or any(len(sibling) != HASH_SIZE for sibling in proof):
        raise ProofError("the proof holds something that is no hash")
    return proof


@dataclass(frozen=True)
class PublicKey:
    """A log's public key.

    Attributes:
        name: whose key; the origin of the log.
        raw: the 32 bytes of an Ed25519 public key (RFC 8032).
    """

    name: str
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read the one-line form ``name+keyid+base64`` of C2SP signed notes.

        Raises:
            ProofError: it is not such a line, or its key id does not belong to the key.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _decode(encoded)
        if not name or re.search(r"\s", name) or len(data) != 1 + HASH_SIZE or data[0] != _NOTE_KEY:
            raise ProofError("this is no Ed25519 public key of the form name+keyid+base64")
        key = cls(name, data[1:])
        if key.id != key_id:
            raise ProofError(f"the key id {key_id} does not belong to this key, whose id is {key.id}")
        return key

    def __str__(self) -> str:
        data = base64.b64encode(bytes([_NOTE_KEY]) + self.raw).decode()
        return f"{self.name}+{self.id}+{data}"

    @property
    def id(self) -> str:
        """Eight hex digits that name the key; people compare these."""
        return self.id_bytes(_NOTE_KEY).hex()

    def id_bytes(self, kind: int) -> bytes:
        """The key id of a signature type, as it stands in signature lines."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([kind]) + self.raw).digest()[:4]

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature over the message is of this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Note:
    """A signed text (C2SP ``signed-note``).

    Attributes:
        text: what was signed, ending with a newline.
        signatures: name, key id and signature bytes of each line.
    """

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    @classmethod
    def parse(cls, note: str) -> Note:
        """Read a note; nothing is verified yet.

        Raises:
            ProofError: it has not the form of a signed note.
        """
        head, separator, tail = note.rpartition("\n\n")
        if not separator or not head or not tail.endswith("\n") or not note.replace("\n", " ").isprintable():
            raise ProofError("this is no signed note")
        signatures = []
        for line in tail.removesuffix("\n").split("\n"):
            match = _SIGNATURE_LINE.match(line)
            data = _decode(match[2]) if match else b""
            if match is None or len(data) <= 4:  # noqa: PLR2004  # a key id has four bytes
                raise ProofError("this is no signed note: a signature line has another form")
            signatures.append((match[1], data[:4], data[4:]))
        return cls(head + "\n", tuple(signatures))

    def signed_by(self, key: PublicKey) -> bool:
        """Whether a signature line of this key stands under the note and is right."""
        message = self.text.encode()
        return any(key.verify(data, message) for data in self._lines(key, _NOTE_KEY))

    def signed_at(self, key: PublicKey) -> int | None:
        """When the key says that it signed, in seconds since 1970, or ``None`` (``cosignature/v1``)."""
        for data in self._lines(key, _COSIGNER_KEY):
            if len(data) != 8 + 64:
                continue
            (seconds,) = struct.unpack(">Q", data[:8])
            if key.verify(data[8:], cosigned(seconds, self.text)):
                return int(seconds)
        return None

    def _lines(self, key: PublicKey, kind: int) -> list[bytes]:
        wanted = key.name, key.id_bytes(kind)
        return [data for name, key_id, data in self.signatures if (name, key_id) == wanted]


def cosigned(seconds: int, text: str) -> bytes:
    """What a ``cosignature/v1`` signs: the time and the whole note."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def sign_note(text: str, key: PublicKey, sign: Signer, *, seconds: int) -> str:
    """A note with the key's signature and its timestamped cosignature."""
    lines = [
        (key.id_bytes(_NOTE_KEY), sign(text.encode())),
        (key.id_bytes(_COSIGNER_KEY), struct.pack(">Q", seconds) + sign(cosigned(seconds, text))),
    ]
    return f"{text}\n" + "".join(
        f"\N{EM DASH} {key.name} {base64.b64encode(key_id + data).decode()}\n" for key_id, data in lines
    )


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement about the whole log (C2SP ``tlog-checkpoint``).

    Attributes:
        origin: which log.
        size: number of entries.
        root: root of the Merkle tree over them.
        note: the text with its signatures.
    """

    origin: str
    size: int
    root: bytes
    note: Note

    @classmethod
    def parse(cls, note: str) -> Checkpoint:
        """Read a checkpoint; nothing is verified yet.

        Raises:
            ProofError: it has not the form of a checkpoint.
        """
        parsed = Note.parse(note)
        lines = parsed.text.split("\n")
        if len(lines) < 4 or not lines[0] or not _DECIMAL.match(lines[1]):  # noqa: PLR2004  # three and the end
            raise ProofError("this is no checkpoint")
        root = _decode(lines[2])
        if len(root) != HASH_SIZE:
            raise ProofError("this is no checkpoint: its root is no hash")
        return cls(lines[0], int(lines[1]), root, parsed)

    @staticmethod
    def text(origin: str, size: int, root: bytes) -> str:
        """What is signed."""
        return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


@dataclass(frozen=True)
class Rotation:
    """A statement by which a key names its successor; it stands in the log as an event."""

    old: PublicKey
    new: PublicKey

    HEADER = "airlock key rotation v1"

    @classmethod
    def parse(cls, statement: str) -> Rotation:
        """Read and verify a statement.

        Raises:
            ProofError: it is no such statement, or the old key did not sign it.
        """
        note = Note.parse(statement)
        lines = note.text.removesuffix("\n").split("\n")
        if len(lines) != 3 or lines[0] != cls.HEADER:  # noqa: PLR2004  # header, old key, new key
            raise ProofError("this is no statement about a new key")
        rotation = cls(PublicKey.parse(lines[1]), PublicKey.parse(lines[2]))
        if not note.signed_by(rotation.old):
            raise ProofError("the old key did not sign the statement about the new one")
        return rotation

    @classmethod
    def text(cls, old: PublicKey, new: PublicKey) -> str:
        """What the old key signs."""
        return f"{cls.HEADER}\n{old}\n{new}\n"


@dataclass(frozen=True)
class KeyChange:
    """A rotation that stands in the log.

    Attributes:
        size: the last size of the log that the old key signs.
        rotation: from which key to which.
    """

    size: int
    rotation: Rotation


def key_periods(pinned: PublicKey, changes: Sequence[KeyChange]) -> list[tuple[int, PublicKey]]:
    """Which key signs the log from which size on, as far as the pinned key vouches for it.

    A later key is vouched for by the signature of the key before it, an earlier one by the log that the
    later one signs. Changes that do not belong to this chain are left out.

    Returns:
        Pairs of the last size *not* signed by a key, and the key; the first pair begins at 0.
    """
    by_old = {change.rotation.old: change for change in changes}
    by_new = {change.rotation.new: change for change in changes}
    periods: list[tuple[int, PublicKey]] = []
    key = pinned
    while (change := by_new.get(key)) is not None and len(periods) <= len(changes):
        periods.insert(0, (change.size, key))
        key = change.rotation.old
    periods.insert(0, (0, key))
    key = pinned
    while (change := by_old.get(key)) is not None and len(periods) <= len(changes):
        key = change.rotation.new
        periods.append((change.size, key))
    return periods


def key_for(periods: Sequence[tuple[int, PublicKey]], size: int) -> PublicKey:
    """The key that signs the log at a size."""
    return [key for after, key in periods if size > after or after == 0][-1]


@dataclass(frozen=True)
class InclusionProof:
    """That one entry stands in a log, in the form of C2SP ``tlog-proof@v1``."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: str

    HEADER = "c2sp.org/tlog-proof@v1"

    @classmethod
    def parse(cls, text: str) -> InclusionProof:
        """Read a proof; nothing is verified yet.

        Raises:
            ProofError: it has not the form of a proof.
        """
        head, separator, note = text.partition("\n\n")
        header, _, rest = head.partition("\n")
        lines = rest.split("\n")
        index = lines[0].removeprefix("index ")
        if header != cls.HEADER or not separator or lines[0] == index or not _DECIMAL.match(index):
            raise ProofError(f"this is no proof of the form {cls.HEADER}")
        hashes = tuple(_decode(line) for line in lines[1:])
        return cls(int(index), hashes, Checkpoint.parse(note), note)

    def __str__(self) -> str:
        hashes = "".join(f"{base64.b64encode(sibling).decode()}\n" for sibling in self.hashes)
        return f"{self.HEADER}\nindex {self.index}\n{hashes}\n{self.note}"

    def verify(self, data: bytes) -> None:
        """Check that ``data`` is the entry; whose signature the checkpoint has is for the caller.

        Raises:
            ProofError: it is not proved.
        """
        verify_inclusion(hash_leaf(data), self.index, self.checkpoint.size, self.hashes, self.checkpoint.root)


def _decode(text: str) -> bytes:
    """Bytes of base64 text in its only form: unused bits are zero, or two texts would be one value."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProofError(f"{text[:40]!r} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise ProofError(f"{text[:40]!r} is not base64 in its canonical form")
    return data


def canonical(value: Any) -> bytes:
    """The one form of a JSON value (RFC 8785).

    Raises:
        ValueError: a text holds half a character, or a number is no number.
    """
    return _canonical(value).encode()


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_canonical(name)}:{_canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return _number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """A number as ECMAScript writes it, which RFC 8785 asks for (ECMA-262, Number::toString)."""
    _, parts, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits, point = "".join(map(str, parts)), len(parts) + int(exponent)
    sign = "-" if value < 0 else ""
    if value == 0:
        return "0"
    if len(digits) <= point <= _PLAIN_DIGITS:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= _PLAIN_DIGITS:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _SMALLEST_POINT < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


_PLAIN_DIGITS, _SMALLEST_POINT = 21, -6
_FIRST_UNSAFE = 2**53


def read_json(data: bytes) -> Any:
    """Read canonical JSON and nothing else: no key twice, no NaN, no other spelling of the same value.

    Raises:
        ProofError: it is no such text.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        again = canonical(value)
    except (ValueError, RecursionError) as error:
        raise ProofError(f"this is not strict JSON: {str(error)[:200]}") from error
    if again != data:
        raise ProofError("this JSON is not in its canonical form")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in an object twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _whole(text: str) -> int | float:
    value = int(text)
    return value if abs(value) < _FIRST_UNSAFE else _finite(text)


# --- evidence packs -----------------------------------------------------------------------------------

PACK_FORMAT = "airlock evidence pack v1"
OWN_KEY_MARK = "# This copy of the key came with an evidence pack."
ERASED = "[erased]"

READING = {
    "README.txt": "how to read and check this pack",
    "index.html": "the report, made from the other files for people to read; nothing signs its words",
    "verify.py": "the verifier; better one that you got elsewhere",
}
"""Files for people, with what they are. No event names their digests, so they prove nothing."""

REPORT_HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
)
"""How a report begins: it forbids the browser to run scripts or to load anything from elsewhere."""

_SOURCES = {
    "checkpoint.txt": "the signed checkpoint that every proof here leads to",
    "public-key.txt": "the key that signed the checkpoint; compare its id with one that you got elsewhere",
    "personal.json": "what people wrote, with the salts of the commitments in the events",
    "manifest.json": "what was released, by digest",
    "decision.json": "the decision and its reasons",
    "workload.json": "what is governed",
    "policy.json": "the policy it was judged by",
    "suite.json": "the expectations about its data",
    "documentation.md": "the model card",
}
_FROZEN = {
    "workload.json": "workload_digest",
    "policy.json": "policy_digest",
    "suite.json": "suite_digest",
    "documentation.md": "documentation_digest",
}
_EVENT_FIELDS: Mapping[str, type[Any]] = {
    "actor": str, "data": dict, "deployment": str, "key": str, "kind": str, "occurred_us": int,
    "received_us": int, "release_id": str, "schema_version": int, "version": str, "workload": str,
}  # fmt: skip
_ONCE = ("release.submitted", "release.frozen", "release.decided", "promotion.finished")
_KEY_KINDS = ("key.rotated", "log.restarted")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_EVENT_PATH = re.compile(r"(events|key-changes|erasures)/[0-9]{4,}\.json")
_FACT = re.compile(r'<bdi data-fact="([a-z.]+)">([^<]*)</bdi>')
_CHUNK = 1 << 20
_MAX_DOCUMENT = 32 << 20
"""Bytes of the largest file that is read as a whole; evidence files are only hashed."""

_MAX_FILES, _MAX_TOTAL = 0xFFFE, 1 << 32
_MAX_DIRECTORY = 16 << 20
_LATE_US = 5 * 60 * 1_000_000
"""A claimed time this far from the time of receipt is worth a look."""

T = TypeVar("T")


class PackError(ProofError):
    """A pack is not what its format says; ``looks_like`` says what kind of change does that."""

    def __init__(self, what: str, looks_like: str) -> None:
        super().__init__(what)
        self.looks_like = looks_like


_EDITED = "a file of the pack that was edited after the export, or damaged on its way"
_FORGED = "documents that were edited, or put together from several releases"
_LEFT_OUT = "a pack from which events were left out"
_NOT_IN_LOG = "an event that was edited, or that never stood in this log"
_REPACKED = "an archive that was damaged on its way, or written anew by another program"
_ADDED = "a file that somebody added after the export"
_OTHER_KEY = "a log that was made up and signed with another key"
_SHOWN = "a report that was edited to show something else"


# The archive has one possible form: uncompressed, in order, without dates, comments or gaps. So the same
# files are the same bytes, every byte of it is checked, and it cannot unpack into more than it is.

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_ZIP_VERSION, _UNIX, _FIRST_DAY = 20, 3, 0x21
_FILE_MODE = (stat.S_IFREG | 0o644) << 16


def zip_header(name: str, crc: int, size: int) -> bytes:
    """What stands before the bytes of a file in the archive (PKWARE's APPNOTE.TXT, 4.3.7)."""
    path = name.encode("ascii")
    return _LOCAL.pack(b"PK\3\4", _ZIP_VERSION, 0, 0, 0, _FIRST_DAY, crc, size, size, len(path), 0) + path


def zip_directory(files: Iterable[tuple[str, int, int]]) -> bytes:
    """What stands at the end of the archive: name, CRC-32 and size of each file, in order (4.3.12, 4.3.16).

    Raises:
        struct.error: the archive is larger than 4 GiB.
    """
    lines, offset = [], 0
    for name, crc, size in files:
        path = name.encode("ascii")
        lines.append(
            _CENTRAL.pack(
                b"PK\1\2", _UNIX << 8 | _ZIP_VERSION, _ZIP_VERSION, 0, 0, 0, _FIRST_DAY, crc, size, size,
                len(path), 0, 0, 0, 0, _FILE_MODE, offset,
            )
            + path
        )  # fmt: skip
        offset += _LOCAL.size + len(path) + size
    directory = b"".join(lines)
    return directory + _END.pack(b"PK\5\6", 0, 0, len(lines), len(lines), len(directory), offset, 0)


@dataclass(frozen=True)
class _Slice:
    """Where the bytes of one file of a pack are."""

    path: Path
    offset: int
    size: int
    crc: int | None

    def chunks(self) -> Iterator[bytes]:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(self.path, flags), "rb") as stream:
            stream.seek(self.offset)
            left, crc = self.size, 0
            while left and (chunk := stream.read(min(left, _CHUNK))):
                left, crc = left - len(chunk), zlib.crc32(chunk, crc)
                yield chunk
        if left or self.crc not in (None, crc):
            raise PackError(f"{self.path.name}: a file in it is cut off or damaged", _REPACKED)


def _open_zip(path: Path) -> dict[str, _Slice]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - _END.size))
        tail = stream.read(_END.size)
        if len(tail) != _END.size or not tail.startswith(b"PK\5\6"):
            raise PackError("this is no evidence pack, or its end is missing", _REPACKED)
        length, start = _END.unpack(tail)[5:7]
        if length > _MAX_DIRECTORY or start + length + _END.size != size:
            raise PackError("the archive has bytes that belong to no file, or lacks some", _REPACKED)
        stream.seek(start)
        directory = stream.read(length)
        listed = _listed(directory)
        if sum(count for _, _, count in listed) > start:
            raise PackError("the archive says that its files are larger than it is", _REPACKED)
        if zip_directory(listed) != directory + tail:
            raise PackError("the archive is not in the form that Airlock writes", _REPACKED)
        found, offset = {}, 0
        for name, crc, count in listed:
            stream.seek(offset)
            header = zip_header(name, crc, count)
            if stream.read(len(header)) != header:
                raise PackError(f"{name}: the archive says two things about this file", _REPACKED)
            found[name] = _Slice(path, offset + len(header), count, crc)
            offset += len(header) + count
    if offset != start or len(found) != len(listed) or [*found] != sorted(found):
        raise PackError("the archive holds a file twice, or its files in another order", _REPACKED)
    return found


def _listed(directory: bytes) -> list[tuple[str, int, int]]:
    """Name, CRC-32 and size of each file, as the archive says; what is fixed in it is not looked at."""
    found, place = [], 0
    while place < len(directory):
        if len(directory) - place < _CENTRAL.size:
            raise PackError("the list of files in the archive is cut off", _REPACKED)
        fields = _CENTRAL.unpack_from(directory, place)
        name = directory[place + _CENTRAL.size :][: fields[10]].decode("ascii", "replace")
        _refuse_name(name)
        found.append((name, fields[7], fields[9]))
        place += _CENTRAL.size + fields[10]
    return found


def _open_folder(root: Path) -> dict[str, _Slice]:
    found: dict[str, _Slice] = {}
    waiting, seen = [root], 0
    while waiting:
        with os.scandir(waiting.pop()) as items:
            for item in items:
                name = Path(item.path).relative_to(root).as_posix()
                seen += 1
                if item.is_symlink() or not (item.is_dir() or item.is_file()):
                    raise PackError(f"{_plain(name)} is a link or a special file", _ADDED)
                _refuse_name(name)
                if seen > _MAX_FILES:
                    raise PackError("there are more files than a pack can have", _ADDED)
                if item.is_dir():
                    waiting.append(Path(item.path))
                else:
                    found[name] = _Slice(Path(item.path), 0, item.stat().st_size, None)
    return found


def _refuse_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise PackError(f"the file name {_plain(name)!r} does not belong into a pack", _ADDED)


@dataclass(frozen=True)
class LogEntry:
    """An event of a pack, which its proof has shown to stand in the log.

    Attributes:
        path: its file in the pack.
        index: its place in the log.
        body: the event.
    """

    path: str
    index: int
    body: Mapping[str, Any]

    @classmethod
    def read(cls, path: str, body: bytes, proof: str, checkpoint: str) -> LogEntry:
        """Read an event and verify its proof against the checkpoint.

        Raises:
            ProofError: it is no event, or it is not proved.
        """
        event = _read(body, path)
        for name, kind in _EVENT_FIELDS.items():
            _get(event, name, kind, path)
        found = InclusionProof.parse(proof)
        if str(found) != proof or found.note != checkpoint:
            raise PackError(f"{path}: its proof leads to another checkpoint", _NOT_IN_LOG)
        try:
            found.verify(body)
        except ProofError as error:
            raise PackError(f"{path}: {error}", _NOT_IN_LOG) from error
        return cls(path, found.index, event)

    @property
    def kind(self) -> str:
        """What happened."""
        return str(self.body["kind"])

    @property
    def actor(self) -> str:
        """Who did it."""
        return str(self.body["actor"])

    @property
    def data(self) -> Mapping[str, Any]:
        """The facts of its kind."""
        found: Mapping[str, Any] = self.body["data"]
        return found

    def text(self, name: str) -> str:
        """A fact that is a text."""
        return _get(self.data, name, str, self.path)

    @property
    def sealed(self) -> dict[str, str]:
        """Fields that hold a commitment instead of what a person wrote."""
        found = {}
        for name in sorted(self.data):
            value = self.data[name]
            if isinstance(value, dict) and [*value] == ["sealed"] and isinstance(value["sealed"], str):
                found[name] = value["sealed"]
        return found


@dataclass(frozen=True)
class Answer:
    """An answer of a person, as the log holds it.

    Attributes:
        comment: what the person wrote, or ``[erased]``.
        acts_for: whose role it was, where the person answered under a delegation; else empty.
        condition: what the approval rests on, or ``[erased]``; empty where it rests on nothing.
    """

    entry: LogEntry
    seat: int
    user: str
    role: str
    choice: str
    comment: str
    acts_for: str = ""
    condition: str = ""


@dataclass(frozen=True)
class Story:
    """What the events of a release say, in the order of the log.

    Attributes:
        decision: the document that the event ``release.decided`` names, if there is one.
        texts: what people wrote, by file and field of the event; ``None`` where it was erased.
        signed_at: when the checkpoint was signed, seconds since 1970.
    """

    entries: Sequence[LogEntry]
    decision: Mapping[str, Any] | None
    texts: Mapping[tuple[str, str], str | None]
    signed_at: int

    def all(self, kind: str) -> list[LogEntry]:
        """Every event of a kind."""
        return [entry for entry in self.entries if entry.kind == kind]

    def first(self, kind: str) -> LogEntry | None:
        """The first event of a kind."""
        return next(iter(self.all(kind)), None)

    def text_of(self, entry: LogEntry, name: str) -> str:
        """What a person wrote into a field of an event."""
        if name in entry.sealed:
            found = self.texts.get((entry.path, name))
            return ERASED if found is None else found
        value = entry.data.get(name)
        return value if isinstance(value, str) else ""

    @property
    def answers(self) -> list[Answer]:
        """Recorded answers."""
        return [
            Answer(
                entry=entry,
                seat=_get(entry.data, "seat", int, entry.path),
                user=entry.text("user"),
                role=entry.text("role"),
                choice=entry.text("choice"),
                comment=self.text_of(entry, "comment"),
                acts_for=entry.text("acts_for") if "acts_for" in entry.data else "",
                condition=self.text_of(entry, "condition") if entry.data.get("condition_until_us") else "",
            )
            for entry in self.all("approval.recorded")
        ]

    @property
    def state(self) -> str:
        """Where the release stood when the checkpoint was signed, in Airlock's words."""
        if self.first("promotion.finished") is not None:
            return "promoted"
        if sealed := self.all("release.sealed"):
            return sealed[-1].text("state")
        if self.decision is None:
            return "checking"
        if self.decision["outcome"] == "DENY":
            return "denied" if self.first("version.quarantined") is None else "quarantined"
        if self.first("promotion.refused") is not None:
            return "promotion refused"
        return self._approval_state(self.decision)

    def _approval_state(self, decision: Mapping[str, Any]) -> str:
        answers = self.answers
        if any(answer.choice == "reject" for answer in answers):
            return "rejected"
        if {answer.seat for answer in answers} >= {*range(len(decision["seats"]))}:
            return "approved"
        return "expired" if self.signed_at * 1_000_000 > self.deadline_us else "waiting for approval"

    @property
    def deadline_us(self) -> int:
        """When an unanswered approval expires, microseconds since 1970; 0 before the decision."""
        decided = self.first("release.decided")
        if decided is None:
            return 0
        hours = decided.data.get("expires_hours")
        if not isinstance(hours, int | float) or not 0 <= hours < _FIRST_UNSAFE:
            raise PackError(f"{decided.path}: it says no time to answer", _FORGED)
        return int(decided.body["occurred_us"]) + int(hours * 3600 * 1_000_000)

    @property
    def submitted(self) -> LogEntry:
        """The event that opened the release.

        Raises:
            ProofError: it is missing.
        """
        found = self.first("release.submitted")
        if found is None:
            raise PackError("the submission of the release is missing", _LEFT_OUT)
        return found

    def facts(self) -> list[tuple[str, str]]:
        """What is proved about the release, as the report must show it, in its order."""
        submitted = self.submitted.body
        decision = self.decision or {}
        found = [
            ("release", str(submitted["release_id"])),
            ("workload", str(submitted["workload"])),
            ("version", str(submitted["version"])),
            ("submitter", str(submitted["actor"])),
            ("state", self.state),
            ("outcome", str(decision.get("outcome") or "not decided")),
            ("track", str(decision.get("track") or "not computed")),
            ("tier", str(decision.get("tier") or "not computed")),
        ]
        for entry in self.all("gate.evaluated"):
            found += [("gate", entry.text("gate")), ("verdict", entry.text("verdict"))]
        for answer in self.answers:
            found.append(("answer.user", answer.user))
            found += [("answer.for", answer.acts_for)] * bool(answer.acts_for)
            found += [
                ("answer.role", answer.role),
                ("answer.choice", answer.choice),
                ("answer.comment", answer.comment),
            ]
            found += [("answer.condition", answer.condition)] * bool(answer.condition)
        return found


def read_texts(personal: Any, entries: Iterable[LogEntry]) -> dict[tuple[str, str], str | None]:
    """What people wrote, checked against the commitments in the events; ``None`` where it was erased.

    Raises:
        ProofError: a text is not the one that was written, or the list is not complete.
    """
    waiting = [(entry.path, *item) for entry in entries for item in entry.sealed.items()]
    found: dict[tuple[str, str], str | None] = {}
    lines = _list(personal, "texts", dict, "personal.json")
    if [(line.get("event"), line.get("field"), line.get("commitment")) for line in lines] != waiting:
        raise PackError("personal.json does not list what the events seal", _FORGED)
    for line in lines:
        place = f"{line['event']}, {line['field']}"
        erased = line.get("erased") is True
        names = {"commitment", "event", "field", *(["erased"] if erased else ["salt", "text"])}
        if {*line} != names:
            raise PackError(f"personal.json: the entry of {place} has another form", _FORGED)
        found[line["event"], line["field"]] = None if erased else _opened(line, place)
    return found


def _opened(line: Mapping[str, Any], place: str) -> str:
    text, salt = _get(line, "text", str, place), _get(line, "salt", str, place)
    if not _DIGEST.fullmatch(salt) or not _DIGEST.fullmatch(line["commitment"]):
        raise PackError(f"{place}: salt or commitment has another form", _FORGED)
    if hashlib.sha256(bytes.fromhex(salt) + text.encode()).hexdigest() != line["commitment"]:
        raise PackError(
            f"personal.json: the text of {place} is not the one that was written",
            "a comment or context that was rewritten",
        )
    return text


@dataclass
class Pack:
    """The documents of a pack while they are read; Airlock builds packs from the same description.

    Attributes:
        read: gives the bytes of a file.
        listing: SHA-256 and size of every file but ``pack.json``.
    """

    read: Callable[[str], bytes]
    listing: Mapping[str, tuple[str, int]]

    def document(self, path: str) -> dict[str, Any]:
        """A file that holds one JSON object.

        Raises:
            ProofError: there is no such file, or it is none.
        """
        if path not in self.listing:
            raise PackError(f"{path} is missing", _LEFT_OUT)
        return _read(self.read(path), path)

    def digest(self, path: str) -> str:
        """SHA-256 of a file, or nothing where there is none."""
        return self.listing.get(path, ("", 0))[0]

    def index(self, checkpoint: Checkpoint, entries: Sequence[LogEntry]) -> dict[str, Any]:
        """What ``pack.json`` has to say.

        Raises:
            ProofError: a file is there that nothing explains, or one is missing.
        """
        roles = self._roles(entries)
        if extra := sorted({*self.listing} - {*roles}):
            raise PackError(f"{extra[0]}: no event leads to this file", _ADDED)
        if missing := sorted({*roles} - {*self.listing}):
            raise PackError(f"{missing[0]} is missing: {roles[missing[0]]}", _LEFT_OUT)
        return {
            "format": PACK_FORMAT,
            "release_id": entries[0].body["release_id"],
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "files": [
                {"path": path, "role": roles[path], "sha256": digest, "size": size}
                for path, (digest, size) in sorted(self.listing.items())
            ],
            "not_included": self._not_included(),
        }

    def _roles(self, entries: Sequence[LogEntry]) -> dict[str, str]:
        wanted = ["checkpoint.txt", "public-key.txt", "personal.json"]
        kinds = {entry.kind for entry in entries}
        wanted += ["manifest.json", *_FROZEN] if "release.frozen" in kinds else []
        wanted += ["decision.json"] if "release.decided" in kinds else []
        roles = READING | {path: _SOURCES[path] for path in wanted}
        for path in self.listing:
            if _EVENT_PATH.fullmatch(path):
                proof = path.removesuffix(".json") + ".tlog-proof"
                roles[path] = f"event {_get(self.document(path), 'kind', str, path)}"
                roles[proof] = f"proof that {path} stands in the log"
        for entry in entries:
            for path, role in self._evidence_roles(entry):
                roles[path] = f"{roles[path]}; {role}" if path in roles else role
        return roles

    def _evidence_roles(self, entry: LogEntry) -> Iterator[tuple[str, str]]:
        if entry.kind != "gate.evaluated":
            return
        gate, path = entry.text("gate"), f"evidence/{entry.text('evidence')}"
        yield path, f"evidence of gate {gate}"
        files = _get(_get(self.document(path), "result", dict, path), "files", dict, path)
        for name in sorted(files):
            yield f"evidence/{_get(files, name, str, path)}", f"{name} of gate {gate}"

    def _not_included(self) -> list[dict[str, Any]]:
        """What the release is about and the pack does not hold: model and data files."""
        if "manifest.json" not in self.listing:
            return []
        manifest = self.document("manifest.json")
        found = []
        for role in ("candidate", "champion"):
            if manifest.get(role) is None:
                continue
            artifact = _get(manifest, role, dict, "manifest.json")
            version = _get(artifact, "version", str, "manifest.json")
            for file in _list(artifact, "files", dict, "manifest.json"):
                what = f"model file {file.get('path')} of the {role}, version {version}"
                found.append({"what": what, "sha256": file.get("sha256")})
        for role in ("training", "evaluation"):
            data = _get(manifest, role, dict, "manifest.json")
            found.append({"what": f"{role} data {data.get('path')}", "sha256": data.get("sha256")})
        return found


@dataclass(frozen=True)
class Check:
    """One thing that was checked, and what came out."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class PackReport:
    """What the verification of a pack found.

    Attributes:
        checks: in order, up to the first that failed.
        looks_like: what kind of tampering does that; empty when everything passed.
        key: the key that signed the checkpoint, once it is known.
        pinned: whether a key from outside the pack vouches for it.
        facts: what is proved about the release.
        notes: what a reader should know about the verdict.
    """

    checks: tuple[Check, ...]
    looks_like: str
    key: PublicKey | None
    pinned: bool
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether everything was proved, as far as the key can be believed."""
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """The last line."""
        if not self.verified:
            failed = self.checks[-1]
            return f"NOT VERIFIED. {failed.name}: {failed.text}. This looks like {self.looks_like}."
        key = self.key.id if self.key else ""
        if self.pinned:
            return f"VERIFIED with the key {key} that you gave."
        return (
            f"VERIFIED, BUT THE KEY IS NOT PINNED: signed by key {key} ({self.key}). Whoever made up this "
            "pack could have made up that key. Compare it with one that you got elsewhere, or name that "
            "one with --public-key."
        )

    def lines(self) -> list[str]:
        """The report for people."""
        found = [f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.text}" for check in self.checks]
        if self.facts:
            found += ["", "Proved:", *(f"  {name}: {value}" for name, value in self.facts)]
        if self.notes:
            found += ["", *(f"note: {note}" for note in self.notes)]
        return [_plain(line) for line in [*found, "", f"VERDICT: {self.verdict}"]]

    def to_data(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "verified": self.verified,
            "pinned": self.pinned,
            "key": None if self.key is None else {"id": self.key.id, "key": str(self.key)},
            "verdict": self.verdict,
            "looks_like": self.looks_like,
            "checks": [
                {"name": check.name, "passed": check.passed, "text": check.text} for check in self.checks
            ],
            "facts": [{"name": name, "value": value} for name, value in self.facts],
            "notes": [*self.notes],
        }


def verify_pack(path: Path | str, pinned_key: PublicKey | None = None) -> PackReport:
    """Verify an evidence pack: an archive, or the folder it was unpacked into.

    Nothing is unpacked, loaded or believed; files are hashed in pieces and documents read up to a limit.

    Raises:
        OSError: the pack cannot be read.
    """
    reading = _Verification(Path(path), pinned_key)
    checks: list[Check] = []
    looks_like = ""
    for name, check in reading.checks():
        try:
            checks.append(Check(name, passed=True, text=check()))
        except ProofError as error:
            looks_like = error.looks_like if isinstance(error, PackError) else _FORGED
            checks.append(Check(name, passed=False, text=_plain(str(error))))
            break
    passed = not looks_like
    return PackReport(
        checks=tuple(checks),
        looks_like=looks_like,
        key=reading.key,
        pinned=passed and pinned_key is not None,
        facts=tuple(reading.facts) if passed else (),
        notes=tuple(reading.notes) if passed else (),
    )


@dataclass
class _Verification:
    """The state of a verification; each check relies on those before it."""

    path: Path
    pinned: PublicKey | None
    files: Mapping[str, _Slice] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    key: PublicKey | None = None
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def checks(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("archive", self._check_archive),
            ("files", self._check_files),
            ("checkpoint", self._check_checkpoint),
            ("key", self._check_key),
            ("events", self._check_events),
            ("manifest", self._check_manifest),
            ("gates", self._check_gates),
            ("decision", self._check_decision),
            ("texts", self._check_texts),
            ("approvals", self._check_approvals),
            ("promotion", self._check_promotion),
            ("ending", self._check_ending),
            ("index", self._check_index),
            ("report", self._check_report),
        ]

    def _read(self, path: str) -> bytes:
        place = self.files.get(path)
        if place is None:
            raise PackError(f"{path} is missing", "a file that was taken out of the pack")
        if place.size > _MAX_DOCUMENT:
            raise PackError(f"{path} has {place.size} bytes, more than such a file can have", _EDITED)
        data = b"".join(place.chunks())
        # Read a second time, it must still be what was hashed.
        if self.written and hashlib.sha256(data).hexdigest() != self.pack.digest(path):
            raise PackError(f"{path} changes while it is read", _EDITED)
        return data

    def _text(self, path: str) -> str:
        try:
            return self._read(path).decode()
        except UnicodeDecodeError as error:
            raise PackError(f"{path} is no text", _EDITED) from error

    def _check_archive(self) -> str:
        path = self.path.resolve(strict=True)
        self.files = _open_folder(path) if path.is_dir() else _open_zip(path)
        count = sum(place.size for place in self.files.values())
        if count >= _MAX_TOTAL:
            raise PackError(f"there are {count:,} bytes, more than a pack can hold", _ADDED)
        return f"{len(self.files)} files, {count:,} bytes"

    def _check_files(self) -> str:
        index = _read(self._read("pack.json"), "pack.json")
        if index.get("format") != PACK_FORMAT:
            raise PackError("pack.json: this verifier does not know the format of this pack", _EDITED)
        listing = {}
        for line in _list(index, "files", dict, "pack.json"):
            name = _get(line, "path", str, "pack.json")
            listing[name] = (_get(line, "sha256", str, name), _get(line, "size", int, name))
        present = {*self.files} - {"pack.json"}
        if extra := sorted(present - {*listing}):
            raise PackError(f"{extra[0]} is not listed in pack.json", _ADDED)
        if missing := sorted({*listing} - present):
            raise PackError(f"{_plain(missing[0])} is missing", "a file that was taken out of the pack")
        for name, (digest, _) in listing.items():
            hashed = hashlib.sha256()
            for chunk in self.files[name].chunks():
                hashed.update(chunk)
            if hashed.hexdigest() != digest:
                raise PackError(f"{name} is not what pack.json lists", _EDITED)
        sizes = {name: self.files[name].size for name in listing}
        self.pack = Pack(self._read, {name: (listing[name][0], sizes[name]) for name in listing})
        self.written = index
        return f"all {len(listing)} files have the listed digests, and no other is there"

    def _check_checkpoint(self) -> str:
        lines = self._text("public-key.txt").split("\n")
        self.note = self._text("checkpoint.txt")
        self.checkpoint = Checkpoint.parse(self.note)
        key = PublicKey.parse(lines[0])
        if lines != public_key_text(key).split("\n"):
            raise PackError("public-key.txt has another form", _EDITED)
        seconds = self.checkpoint.note.signed_at(key)
        if key.name != self.checkpoint.origin or not self.checkpoint.note.signed_by(key) or seconds is None:
            raise PackError("checkpoint.txt is not signed and dated by the key of the pack", _OTHER_KEY)
        if len(self.checkpoint.note.signatures) != 2:  # noqa: PLR2004  # signature and date
            raise PackError("checkpoint.txt has signatures that nobody can check", _EDITED)
        self.key, self.signed_at = key, seconds
        return f"{self.checkpoint.size} entries of {key.name}, signed at {_date(seconds)} by key {key.id}"

    def _check_key(self) -> str:
        changes = self._entries("key-changes")
        start = self.pinned or self.key
        key, followed = start, 0
        for entry in changes:
            change = self._key_change(entry)
            if change.rotation.old == key and self.checkpoint.size > change.size:
                key, followed = change.rotation.new, followed + 1
        if key != self.key:
            raise PackError(self._wrong_key(start, changes), _OTHER_KEY)
        if self.pinned is None:
            return f"no key from outside was given; {len(changes)} changes of key are in the log"
        return f"the pinned key {self.pinned.id} vouches for it, over {followed} changes of key"

    def _key_change(self, entry: LogEntry) -> KeyChange:
        if entry.kind not in _KEY_KINDS:
            raise PackError(f"{entry.path} is no change of key", _FORGED)
        size = entry.index + 1
        if entry.kind == "log.restarted":
            size = _get(entry.data, "size", int, entry.path)
            self.notes.append(
                f"the log was begun anew after {size} entries ({entry.path}); what stood behind them is lost"
            )
        return KeyChange(size, Rotation.parse(entry.text("statement")))

    def _wrong_key(self, start: PublicKey | None, changes: Sequence[LogEntry]) -> str:
        signer, given = (key.id if key else "" for key in (self.key, start))
        if self.pinned is None:
            return f"the checkpoint is signed with the key {signer}, which the log had replaced before"
        text = f"the checkpoint is signed with the key {signer}, for which the key {given} does not vouch"
        if any(self._key_change(entry).rotation.new == start for entry in changes):
            text += (
                "; that key signs only later checkpoints: have the pack exported again, or pin the older key"
            )
        return text

    def _entries(self, folder: str) -> list[LogEntry]:
        """Events of a folder, numbered without gaps and standing in the order of the log."""
        paths = sorted(
            path for path in self.files if path.startswith(f"{folder}/") and path.endswith(".json")
        )
        found: list[LogEntry] = []
        for number, path in enumerate(sorted(paths, key=lambda path: (len(path), path)), 1):
            if path != f"{folder}/{number:04}.json":
                raise PackError(f"{folder}/{number:04}.json is missing", _LEFT_OUT)
            proof = self._text(path.removesuffix(".json") + ".tlog-proof")
            found.append(LogEntry.read(path, self._read(path), proof, self.note))
            if len(found) > 1 and found[-2].index >= found[-1].index:
                raise PackError(f"{path} does not stand in the order of the log", _FORGED)
        return found

    def _check_events(self) -> str:
        entries = self.entries = self._entries("events")
        self.story = Story(entries, None, {}, self.signed_at)
        first = self.story.submitted.body
        for entry in entries:
            if entry.body["release_id"] != self.written.get("release_id"):
                raise PackError(f"{entry.path} belongs to another release", _FORGED)
            said = [entry.body[name] or first[name] for name in ("workload", "version", "deployment")]
            if said != [first["workload"], first["version"], first["deployment"]]:
                raise PackError(f"{entry.path} is about another workload or version", _FORGED)
        keys = [entry.body["key"] for entry in entries]
        gates = [entry.text("gate") for entry in self.story.all("gate.evaluated")]
        if len({*keys}) != len(keys) or len({*gates}) != len(gates):
            raise PackError("an event stands in the pack twice", _FORGED)
        for kind in _ONCE:
            if len(self.story.all(kind)) > 1:
                raise PackError(f"there are two events {kind}", _FORGED)
        return f"all {len(entries)} events stand in the log and belong to {first['release_id']}"

    def _check_manifest(self) -> str:
        frozen = self.story.first("release.frozen")
        if frozen is None:
            return "nothing was frozen"
        self._same("manifest.json", self.pack.digest("manifest.json"), frozen.text("manifest"), frozen.path)
        manifest = self.manifest = self.pack.document("manifest.json")
        body = frozen.body
        candidate = _get(manifest, "candidate", dict, "manifest.json")
        files = sorted(
            _list(candidate, "files", dict, "manifest.json"), key=lambda file: str(file.get("path"))
        )
        stated = {
            "release": (manifest.get("release_id"), body["release_id"]),
            "workload": (manifest.get("workload"), body["workload"]),
            "submitter": (manifest.get("submitter"), self.story.submitted.actor),
            "version": (candidate.get("version"), body["version"]),
            "model files": (candidate.get("sha256"), frozen.text("artifact")),
            "list of model files": (candidate.get("sha256"), hashlib.sha256(canonical(files)).hexdigest()),
            "policy version": (manifest.get("policy_version"), frozen.text("policy")),
        }
        for what, (said, known) in stated.items():
            self._same(f"manifest.json, {what}", said, known, "the events")
        for path, name in _FROZEN.items():
            self._same(path, self.pack.digest(path), manifest.get(name), "manifest.json")
        return "manifest, workload, policy, suite and model card are those that were frozen"

    def _same(self, what: str, found: object, known: object, where: str) -> None:
        if found != known:
            raise PackError(f"{what} is not what {where} names", _FORGED)

    def _check_gates(self) -> str:
        gates = self.story.all("gate.evaluated")
        count = 0
        for entry in gates:
            digest = entry.text("evidence")
            path = f"evidence/{digest}"
            self._same(path, self.pack.digest(path), digest, entry.path)
            record = self.pack.document(path)
            result = _get(record, "result", dict, path)
            self._same(f"{path}, release", record.get("release_id"), entry.body["release_id"], entry.path)
            self._same(f"{path}, gate", record.get("gate"), entry.text("gate"), entry.path)
            self._same(f"{path}, verdict", result.get("verdict"), entry.text("verdict"), entry.path)
            manifest = self.pack.digest("manifest.json")
            self._same(f"{path}, manifest", record.get("manifest_digest"), manifest, "manifest.json")
            if not _get(result, "summary", str, path).startswith(entry.text("summary")):
                raise PackError(f"{path} says something else than {entry.path}", _FORGED)
            for name, file in _get(result, "files", dict, path).items():
                self._same(
                    f"{name} of {entry.text('gate')}", self.pack.digest(f"evidence/{file}"), file, path
                )
                count += 1
        return f"{len(gates)} results and {count} files are those whose digests were recorded"

    def _check_decision(self) -> str:
        decided = self.story.first("release.decided")
        if decided is None:
            return "nothing was decided"
        digest = self.pack.digest("decision.json")
        self._same("decision.json", digest, decided.text("decision"), decided.path)
        decision = self.pack.document("decision.json")
        for name in ("outcome", "track", "tier"):
            self._same(f"decision.json, {name}", decision.get(name), decided.data.get(name), decided.path)
        self._same(
            "decision.json, release", decision.get("release_id"), decided.body["release_id"], "the event"
        )
        manifest = self.pack.digest("manifest.json")
        self._same("decision.json, manifest", decision.get("manifest_digest"), manifest, "manifest.json")
        policy = self.pack.digest("policy.json")
        self._same("decision.json, policy", decision.get("policy_digest"), policy, "manifest.json")
        recorded = {
            entry.text("gate"): entry.text("evidence")
            for entry in self.story.all("gate.evaluated")
            if entry.index < decided.index
        }
        for gate, known in _get(decision, "evidence", dict, "decision.json").items():
            self._same(f"decision.json, evidence of {gate}", recorded.get(gate), known, "an event before it")
        for seat in _list(decision, "seats", dict, "decision.json"):
            _get(seat, "role", str, "decision.json")
        _list(decision, "reasons", dict, "decision.json")
        self.story = Story(self.entries, decision, {}, self.signed_at)
        return f"{decision.get('outcome')} on track {decision.get('track')}, from the evidence in this pack"

    def _check_texts(self) -> str:
        texts = read_texts(self.pack.document("personal.json"), self.entries)
        self.story = Story(self.entries, self.story.decision, texts, self.signed_at)
        erasures = [*self._entries("erasures"), *self.story.all("personal.erased")]
        recorded = {
            commitment
            for entry in erasures
            for commitment in _list(entry.data, "commitments", str, entry.path)
        }
        if any(entry.kind != "personal.erased" for entry in erasures):
            raise PackError("an event among the erasures is none", _FORGED)
        for entry in self.entries:
            for name, commitment in entry.sealed.items():
                if texts[entry.path, name] is None and commitment not in recorded:
                    raise PackError(
                        f"{entry.path}: no event records the erasure of its {name}",
                        "a text that was withheld",
                    )
        erased = sum(text is None for text in texts.values())
        return f"{len(texts) - erased} texts are those that were written, {erased} were erased on record"

    def _check_approvals(self) -> str:
        decision = self.story.decision
        answers = self.story.answers
        decided = self.story.first("release.decided")
        if answers and (decision is None or decided is None):
            raise PackError("there are answers, but no decision that was asked about", _LEFT_OUT)
        if not answers or decision is None or decided is None:
            return "nobody was asked, or nobody answered"
        evidence = hashlib.sha256(canonical(decision["evidence"])).hexdigest()
        for answer in answers:
            entry, path = answer.entry, answer.entry.path
            roles = [seat["role"] for seat in decision["seats"]]
            role = roles[answer.seat] if 0 <= answer.seat < len(roles) else None
            stated = {
                "release": (entry.data.get("release_id"), entry.body["release_id"]),
                "user": (answer.user, entry.actor),
                "role": (answer.role, role),
                "manifest": (entry.data.get("manifest_digest"), decision["manifest_digest"]),
                "policy": (entry.data.get("policy_digest"), decision["policy_digest"]),
                "evidence": (entry.data.get("evidence_digest"), evidence),
            }
            for what, (said, known) in stated.items():
                self._same(f"{path}, {what}", said, known, "decision.json")
            if entry.index < decided.index or answer.choice not in ("approve", "reject"):
                raise PackError(f"{path} is no answer to the decision", _FORGED)
            if self.story.submitted.actor in (answer.user, answer.acts_for):
                raise PackError(f"{path}: the submitter answered", "an approval of one's own release")
        return f"{len(answers)} answers, each for exactly this manifest, evidence and policy"

    def _check_promotion(self) -> str:
        decision = self.story.decision
        finished = self.story.first("promotion.finished")
        starts = self.story.all("promotion.started")
        for start in starts:
            manifest = self.pack.digest("manifest.json")
            self._same(f"{start.path}, manifest", start.text("manifest"), manifest, "manifest.json")
            self._check_approvers(start)
        if finished is None:
            return "it was not promoted"
        if not starts or decision is None or starts[-1].index > finished.index:
            raise PackError("it was promoted without a decision or a start", _LEFT_OUT)
        digest = self.pack.digest("decision.json")
        self._same(f"{finished.path}, decision", finished.text("decision"), digest, "decision.json")
        approved = finished.data.get("approved_by")
        self._same(f"{finished.path}, approvers", approved, starts[-1].data.get("approved_by"), "its start")
        return f"promoted; approved by {', '.join(map(str, approved or [])) or 'nobody, as the track allows'}"

    def _check_approvers(self, start: LogEntry) -> None:
        """Whoever is named as an approver must have approved, each of them one seat."""
        decision = self.story.decision or {}
        users = _list(start.data, "approved_by", str, start.path)
        seats = decision.get("seats", []) if decision.get("outcome") == "PENDING" else []
        if decision.get("outcome") not in ("ALLOW", "PENDING") or len(users) != len(seats):
            raise PackError(f"{start.path}: the decision does not allow this promotion", _FORGED)
        given = {
            (answer.seat, answer.user)
            for answer in self.story.answers
            if answer.choice == "approve" and answer.entry.index < start.index
        }
        for seat, user in enumerate(users):
            if (seat, user) not in given or users.count(user) > 1:
                raise PackError(f"{start.path}: the approval of {_plain(user)} is not in the pack", _LEFT_OUT)

    def _check_ending(self) -> str:
        """What Airlock recorded at the end must rest on events that are here."""
        sealed = self.story.all("release.sealed")
        evidence = {entry.text("gate"): entry.text("evidence") for entry in self.story.all("gate.evaluated")}
        for entry in sealed:
            for name in ("manifest", "decision"):
                self._same(
                    f"{entry.path}, {name}",
                    entry.data.get(name) or "",
                    self.pack.digest(f"{name}.json"),
                    "the pack",
                )
            for gate, digest in _get(entry.data, "evidence", dict, entry.path).items():
                self._same(f"{entry.path}, evidence of {gate}", evidence.get(gate), digest, "the pack")
        state = self.story.state
        decision = self.story.decision or {}
        present = {
            "promoted": self.story.first("promotion.finished") is not None,
            "promotion refused": self.story.first("promotion.refused") is not None,
            "rejected": any(answer.choice == "reject" for answer in self.story.answers),
            "denied": decision.get("outcome") == "DENY",
            "quarantined": self.story.first("version.quarantined") is not None,
        }
        if not present.get(state, True):
            raise PackError(f"it ended as {_plain(state)}, but what led to that is not here", _LEFT_OUT)
        return f"{state}; " + ("its books are closed" if sealed else "its books are not closed yet")

    def _check_index(self) -> str:
        if self.pack.index(self.checkpoint, self.entries) != self.written:
            raise PackError("pack.json says something else than the files do", _EDITED)
        return "pack.json says what every file is, and events lead to each"

    def _check_report(self) -> str:
        page = self._text("index.html")
        facts = self.story.facts()
        if not page.startswith(REPORT_HEAD):
            raise PackError("index.html does not forbid scripts", _SHOWN)
        if [(name, html.unescape(text)) for name, text in _FACT.findall(page)] != facts:
            raise PackError("index.html shows another decision, verdict or approval than the events", _SHOWN)
        self.facts = facts
        self._note()
        return "index.html shows the decision, verdicts and answers of the events"

    def _note(self) -> None:
        own = Path(__file__)
        if own.resolve().is_relative_to(self.path.resolve()):
            self.notes.append("this verifier came with the pack; one that you got elsewhere is worth more")
        elif hashlib.sha256(own.read_bytes()).hexdigest() != self.pack.digest("verify.py"):
            self.notes.append(
                "verify.py in the pack is not this verifier: of another version of Airlock, or edited"
            )
        late = sum(
            abs(entry.body["occurred_us"] - entry.body["received_us"]) > _LATE_US for entry in self.entries
        )
        if late:
            self.notes.append(f"{late} events claim a time over five minutes from when they were received")
        self.notes.append(
            "proofs show that each event stands in the log, not that none was left out, and nothing signs "
            "the words of index.html: believe what is proved above"
        )


def public_key_text(key: PublicKey) -> str:
    """The file ``public-key.txt`` of a pack."""
    return (
        f"{key}\n{OWN_KEY_MARK}\n"
        f"# It proves nothing about itself. Compare the key id {key.id} with one that you got elsewhere:\n"
        "# from whoever runs Airlock, from the anchors of the log, or from an earlier pack.\n"
    )


def read_key(text: str) -> PublicKey:
    """Read the file of a public key that an auditor pins; lines with ``#`` are comments.

    Raises:
        ProofError: it is no key, or the copy that came with a pack.
    """
    if OWN_KEY_MARK in text:
        raise ProofError("this copy of the key came with a pack, so it proves nothing; get the key elsewhere")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise ProofError("this is no file with one public key")
    return PublicKey.parse(lines[0])


def _read(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = read_json(data)
    except ProofError as error:
        raise PackError(f"{where}: {error}", _EDITED) from error
    if not isinstance(value, dict):
        raise PackError(f"{where} is no JSON object", _EDITED)
    return value


def _get(data: Any, name: str, kind: type[T], where: str) -> T:
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, kind) or type(value) is not kind:
        raise PackError(f"{where}: {_plain(name)!r} is missing or of another type", _FORGED)
    return value


def _list(data: Any, name: str, kind: type[T], where: str) -> list[T]:
    values = _get(data, name, list, where)
    if any(type(value) is not kind for value in values):
        raise PackError(f"{where}: {_plain(name)!r} holds something of another type", _FORGED)
    return values


def _plain(text: str) -> str:
    """Text of other people on one line, made harmless for a terminal, and cut where it is endless."""
    cut = text if len(text) <= 2000 else f"{text[:2000]}…"  # noqa: PLR2004
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
        for character in cut
    )


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


VERIFIED, USAGE, NOT_VERIFIED = 0, 2, 3
"""Exit codes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a pack and say so; returns the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Verify an evidence pack of Airlock.")
    parser.add_argument("pack", nargs="?", type=Path, help="pack.zip, or the folder it was unpacked into")
    parser.add_argument("--public-key", type=Path, help="file with the log's key, from outside the pack")
    parser.add_argument("--format", choices=["pretty", "json"], default="pretty")
    options = parser.parse_args(arguments)
    pack = options.pack or Path(__file__).resolve().parent
    if options.pack is None and not (pack / "pack.json").is_file():
        parser.error("name the pack: there is none beside this file")
    try:
        key = None if options.public_key is None else read_key(options.public_key.read_text("utf-8"))
        report = verify_pack(pack, key)
    except (OSError, UnicodeDecodeError, ProofError) as error:
        parser.error(_plain(str(error)))
    except ImportError:
        parser.error("the package `cryptography` is needed: python -m pip install cryptography")
    as_json = options.format == "json"
    text = json.dumps(report.to_data(), indent=2) if as_json else "\n".join(report.lines())
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    return VERIFIED if report.verified else NOT_VERIFIED


if __name__ == "__main__":
    sys.exit(main())
