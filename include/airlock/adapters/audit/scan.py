"""Reads the whole log for verification, in ranges that several processes share.

Nothing of the database is believed: hashes are computed from the bodies and compared with what is
stored, and so is each column that questions are asked by.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from airlock.adapters.audit.bulk import hash_at_once
from airlock.adapters.audit.database import ReadOnlyDatabase
from airlock.adapters.audit.store import KEY_HASH_BYTES
from airlock.core.canonical import canonical_json, parse_json, sha256
from airlock.core.errors import AirlockError
from airlock.core.merkle import TILE_WIDTH, complete_root
from airlock.proof import HASH_SIZE, hash_leaf

RANGE = 16 * TILE_WIDTH
"""Entries that are read at once."""

COLUMNS = ("kind", "release_id", "workload", "version", "actor", "occurred_us")
_ROWS = """
    SELECT e.body, {columns} FROM leaf l LEFT JOIN event e ON e.ingest_id = l.ingest_id
    WHERE l.seq >= ? AND l.seq < ? ORDER BY l.seq
"""
_TILES = "SELECT idx, root, data FROM tile WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx"


@dataclass(frozen=True)
class Suspect:
    """Something that is not as it was signed.

    Attributes:
        what: which kind of tampering it looks like.
        seq: the entry it is about, or ``None`` when it is about no single one.
        detail: what was found.
    """

    what: str
    seq: int | None
    detail: str


MODIFIED = "an event was changed"
REMOVED = "an event was removed"
REORDERED = "events were exchanged"
INSERTED = "an event was inserted"
TILE = "a stored part of the tree was changed"
COLUMN = "a column says something else than its event"
MALFORMED = "an event is not in canonical form"


@dataclass
class Scan:
    """What a range of the log holds.

    Attributes:
        start: first entry.
        hashes: computed leaf hashes one after another, 32 bytes each.
        roots: computed roots of the complete tiles.
        suspects: what is wrong.
        times: which times the events claim, microseconds since 1970; -1 where one claims none.
    """

    start: int
    hashes: bytes = b""
    roots: list[bytes] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    times: array[int] = field(default_factory=lambda: array("q"))


def scan(url: str, start: int, end: int, *, strict: bool) -> Scan:
    """Read and hash the entries from ``start`` (a multiple of 256) up to ``end``.

    Args:
        url: the database, with its password.
        start: first entry.
        end: the one after the last.
        strict: also require each body to be canonical JSON, byte for byte.
    """
    database = ReadOnlyDatabase(url)
    found = Scan(start)
    parts = []
    with database.engine.connect() as connection:
        reader = _Reader(connection.connection.cursor(), sqlite=database.sqlite, strict=strict)
        for first in range(start, end, RANGE):
            last = min(first + RANGE, end)
            part = reader.read(first, last)
            parts.append(part.hashes)
            found.roots += part.roots
            found.suspects += part.suspects
            found.times += part.times
            if len(part.hashes) < (last - first) * HASH_SIZE:
                break
    found.hashes = b"".join(parts)
    return found


class _Reader:
    """Reads ranges of entries: at once where all is well, row by row to say what is not."""

    def __init__(self, cursor: Any, *, sqlite: bool, strict: bool) -> None:
        self._cursor = cursor
        self._sqlite = sqlite
        self._strict = strict
        # SQLite computes its columns itself, and finds keys by what the event says.
        columns = COLUMNS if sqlite else (*COLUMNS, "key_hash")
        self._rows = _ROWS.format(columns=", ".join(f"e.{name}" for name in columns))

    def read(self, first: int, last: int) -> Scan:
        """Hash, compare and classify what stands at the places from ``first`` to ``last``."""
        if not (self._sqlite or self._strict):
            times: list[int] = []
            hashes = hash_at_once(self._cursor, first, last, times)
            if hashes is not None:
                part = self._compared(first, hashes)
                part.times = array("q", times)
                if not part.suspects:
                    return part
        return self._read_closely(first, last)

    def _read_closely(self, first: int, last: int) -> Scan:
        rows = self._ask(self._rows, (first, last))
        gap = self._gap(first, last) if len(rows) != last - first else None
        if gap is not None:
            rows = rows[: gap - first]
        suspects: list[Suspect] = []
        hashes = _hash_rows(rows, first, suspects, strict=self._strict)
        part = self._compared(first, hashes)
        part.suspects[:0] = suspects
        times = [row[1 + COLUMNS.index("occurred_us")] for row in rows]
        part.times = array("q", [time if isinstance(time, int) else -1 for time in times])
        if gap is not None:
            part.suspects.append(Suspect(REMOVED, gap, f"the log has no entry {gap}"))
        return part

    def _ask(self, question: str, values: tuple[int, ...]) -> list[Any]:
        self._cursor.execute(question if self._sqlite else question.replace("?", "%s"), values)
        rows: list[Any] = self._cursor.fetchall()
        return rows

    def _gap(self, first: int, last: int) -> int:
        rows = self._ask("SELECT seq FROM leaf WHERE seq >= ? AND seq < ?", (first, last))
        known = {row[0] for row in rows}
        return next(number for number in range(first, last) if number not in known)

    def _compared(self, first: int, hashes: list[bytes]) -> Scan:
        """Compare complete tiles with what is stored, and keep their computed roots."""
        part = Scan(first, b"".join(hashes))
        index = first // TILE_WIDTH
        count = len(hashes) // TILE_WIDTH
        stored = {row[0]: row for row in self._ask(_TILES, (0, index, index + count))}
        for place in range(count):
            row = hashes[place * TILE_WIDTH : (place + 1) * TILE_WIDTH]
            root = complete_root(row)
            part.roots.append(root)
            seq = (index + place) * TILE_WIDTH
            tile = stored.get(index + place)
            if tile is None:
                part.suspects.append(
                    Suspect(TILE, seq, f"the tile over the entries from {seq} on is missing")
                )
            elif bytes(tile[2]) != b"".join(row):
                part.suspects.append(classify(seq, row, bytes(tile[2])))
            elif bytes(tile[1]) != root:
                part.suspects.append(Suspect(TILE, seq, f"the tile from entry {seq} on has another root"))
        return part


def _hash_rows(rows: list[Any], first: int, suspects: list[Suspect], *, strict: bool) -> list[bytes]:
    """Leaf hashes of rows; a missing event hashes to nothing."""
    hashes: list[bytes] = []
    for body, *columns in rows:
        seq = first + len(hashes)
        if body is None:
            suspects.append(Suspect(REMOVED, seq, f"entry {seq} has no event"))
            hashes.append(bytes(HASH_SIZE))
            continue
        data = body.encode()
        suspects.extend(_compare(seq, body, columns))
        if strict:
            suspects.extend(_malformed(seq, data))
        hashes.append(hash_leaf(data))
    return hashes


def _compare(seq: int, body: str, columns: list[Any]) -> Iterator[Suspect]:
    """Compare the columns of one event with its body."""
    # Canonical JSON sorts its keys, so the columns stand at known places; what holds escapes does not
    # match and is looked at more closely.
    kind, release_id, workload, version, actor, occurred, *key_hash = columns
    place = body.rfind('"kind":"')
    if (
        not key_hash
        and body.startswith(f'"kind":"{kind}","occurred_us":{occurred},"received_us":', place)
        and body.endswith(
            f',"release_id":"{release_id}","schema_version":1,"version":"{version}","workload":"{workload}"}}'
        )
        and body.startswith(f'{{"actor":"{actor}","data":{{')
    ):
        return
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        yield Suspect(MALFORMED, seq, f"entry {seq} is no JSON: {error}")
        return
    said = event if isinstance(event, dict) else {}
    for name, value in zip(COLUMNS, columns, strict=False):
        if said.get(name) != value or type(said.get(name)) is not type(value):
            text = f"column {name} of entry {seq} says {value!r}, the event {said.get(name)!r}"
            yield Suspect(COLUMN, seq, text)
    expected = sha256(str(said.get("key")).encode())[:KEY_HASH_BYTES]
    if key_hash and bytes(key_hash[0]) != expected:
        yield Suspect(COLUMN, seq, f"column key_hash of entry {seq} belongs to another key than the event's")


def _malformed(seq: int, data: bytes) -> Iterator[Suspect]:
    try:
        if canonical_json(parse_json(data)) != data:
            yield Suspect(MALFORMED, seq, f"entry {seq} is not canonical JSON (RFC 8785)")
    except AirlockError as error:
        yield Suspect(MALFORMED, seq, f"entry {seq}: {error.what}")


def classify(start: int, computed: list[bytes], stored: bytes) -> Suspect:
    """Say which kind of change makes the events of a tile differ from their stored hashes."""
    kept = [stored[place : place + 32] for place in range(0, len(stored), 32)]
    at = next(place for place, value in enumerate(kept) if value != computed[place])
    seq = start + at
    if sorted(kept) == sorted(computed):
        return Suspect(REORDERED, seq, f"entry {seq} stands at another place than it was signed at")
    if at + 1 < len(kept) and computed[at:-1] == kept[at + 1 :]:
        return Suspect(REMOVED, seq, f"entry {seq} is gone, and those after it moved up")
    if at + 1 < len(kept) and computed[at + 1 :] == kept[at:-1]:
        return Suspect(INSERTED, seq, f"entry {seq} was not there when the log was signed")
    return Suspect(MODIFIED, seq, f"entry {seq} is not what was signed")
