"""Reads the whole log for verification, in ranges that several processes share.

Nothing of the database is believed: hashes are computed from the columns that questions are asked by, and
compared with what is stored.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from airlock.adapters.audit.bulk import hash_at_once
from airlock.adapters.audit.columns import COLUMNS, OF_EVENT, body_of
from airlock.adapters.audit.database import ReadOnlyDatabase
from airlock.core.canonical import canonical_json, parse_json
from airlock.core.errors import AirlockError
from airlock.core.merkle import TILE_WIDTH, complete_root
from airlock.proof import HASH_SIZE, hash_leaf

RANGE = 16 * TILE_WIDTH
"""Entries that are read at once."""

_ROWS = f"""
    SELECT {OF_EVENT} FROM leaf l LEFT JOIN event e ON e.ingest_id = l.ingest_id
    WHERE l.seq >= ? AND l.seq < ? ORDER BY l.seq
"""  # noqa: S608  # names of columns, all ours
_OCCURRED = COLUMNS.index("occurred_us")
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
    found = Scan(start)
    parts = []
    reader = _reader(url)
    for first in range(start, end, RANGE):
        last = min(first + RANGE, end)
        part = reader.read(first, last, strict=strict)
        parts.append(part.hashes)
        found.roots += part.roots
        found.suspects += part.suspects
        found.times += part.times
        if len(part.hashes) < (last - first) * HASH_SIZE:
            break
    found.hashes = b"".join(parts)
    return found


_READERS: dict[tuple[int, int, str], _Reader] = {}


def _reader(url: str) -> _Reader:
    """One for each process and thread that verifies."""
    key = os.getpid(), threading.get_ident(), url
    if key not in _READERS:
        database = ReadOnlyDatabase(url)
        pooled = database.engine.raw_connection()
        connection = cast("Any", pooled.driver_connection)
        pooled.detach()
        if not database.sqlite:
            connection.autocommit = True  # each question sees the log as it is then
        _READERS[key] = _Reader(connection, sqlite=database.sqlite)
    return _READERS[key]


def close_reader(url: str) -> None:
    """End the connection with which this thread has scanned; that of a process ends with it."""
    reader = _READERS.pop((os.getpid(), threading.get_ident(), url), None)
    if reader is not None:
        reader.connection.close()


class _Reader:
    """Reads ranges of entries: at once where all is well, row by row to say what is not."""

    def __init__(self, connection: Any, *, sqlite: bool) -> None:
        self.connection = connection
        self._cursor = connection.cursor()
        self._sqlite = sqlite

    def read(self, first: int, last: int, *, strict: bool) -> Scan:
        """Hash, compare and classify what stands at the places from ``first`` to ``last``."""
        # What is in no complete tile yet has nothing to be compared with, so it is read row by row.
        whole = last - (last - first) % TILE_WIDTH
        if self._sqlite or strict or whole == first:
            return self._read_closely(first, last, strict=strict)
        part = self._read_at_once(first, whole) or self._read_closely(first, whole, strict=strict)
        if whole < last and len(part.hashes) == (whole - first) * HASH_SIZE:
            rest = self._read_closely(whole, last, strict=strict)
            part.hashes += rest.hashes
            part.suspects += rest.suspects
            part.times += rest.times
        return part

    def _read_at_once(self, first: int, last: int) -> Scan | None:
        found = hash_at_once(self._cursor, first, last)
        if found is None:
            return None
        part = self._compared(first, found[0])
        part.times = array("q", found[1].tobytes())
        return None if part.suspects else part

    def _read_closely(self, first: int, last: int, *, strict: bool) -> Scan:
        rows = self._ask(_ROWS, (first, last))
        gap = self._gap(first, last) if len(rows) != last - first else None
        if gap is not None:
            rows = rows[: gap - first]
        suspects: list[Suspect] = []
        hashes = _hash_rows(rows, first, suspects, strict=strict)
        part = self._compared(first, hashes)
        part.suspects[:0] = suspects
        times = [row[_OCCURRED] for row in rows]
        part.times = array("q", [time if isinstance(time, int) else -1 for time in times])
        if gap is not None:
            part.suspects.append(Suspect(REMOVED, gap, f"the log has no entry {gap}"))
        return part

    def _ask(self, question: str, values: tuple[int, ...]) -> list[Any]:
        if self._sqlite:
            self._cursor.execute(question, values)
        else:
            self._cursor.execute(question.replace("?", "%s"), values, binary=True)
        rows: list[Any] = self._cursor.fetchall()
        return rows

    def _gap(self, first: int, last: int) -> int:
        rows = self._ask("SELECT seq FROM leaf WHERE seq >= ? AND seq < ?", (first, last))
        known = {row[0] for row in rows}
        return next(number for number in range(first, last) if number not in known)

    def _compared(self, first: int, hashes: list[bytes]) -> Scan:
        """Compare complete tiles with what is stored, and keep their computed roots."""
        index, count = first // TILE_WIDTH, len(hashes) // TILE_WIDTH
        stored = {
            row[0]: (bytes(row[1]), bytes(row[2])) for row in self._ask(_TILES, (0, index, index + count))
        }
        roots, suspects = compare_tiles(0, index, hashes, stored)
        return Scan(first, b"".join(hashes), roots, suspects)


def compare_tiles(
    level: int, first: int, hashes: Sequence[bytes], stored: Mapping[int, tuple[bytes, bytes]]
) -> tuple[list[bytes], list[Suspect]]:
    """Compute the roots of a level's complete tiles, and compare these with what is stored.

    Args:
        level: 0 is that of the leaves.
        first: index of the tile that begins with the first hash.
        hashes: computed hashes of the level.
        stored: root and hashes that the database has, by index of the tile.
    """
    roots, suspects = [], []
    for place in range(len(hashes) // TILE_WIDTH):
        row = hashes[place * TILE_WIDTH : (place + 1) * TILE_WIDTH]
        roots.append(complete_root(row))
        kept = stored.get(first + place)
        if kept != (roots[-1], b"".join(row)):
            suspects.append(_difference(level, first + place, row, kept))
    return roots, suspects


def _difference(level: int, index: int, row: Sequence[bytes], kept: tuple[bytes, bytes] | None) -> Suspect:
    seq = index * TILE_WIDTH ** (level + 1)
    where = f"of level {level} over the entries from {seq} on"
    if kept is None:
        return Suspect(TILE, seq, f"the tile {where} is missing")
    if kept[1] == b"".join(row):
        return Suspect(TILE, seq, f"the tile {where} has another root")
    return (
        Suspect(TILE, seq, f"the tile {where} is not what was signed")
        if level
        else classify(seq, row, kept[1])
    )


def _hash_rows(rows: list[Any], first: int, suspects: list[Suspect], *, strict: bool) -> list[bytes]:
    """Leaf hashes of rows; a missing event hashes to nothing."""
    hashes: list[bytes] = []
    for row in rows:
        seq = first + len(hashes)
        try:
            data = body_of(row)
        except (TypeError, UnicodeEncodeError):
            gone = all(value is None for value in row)
            text = f"entry {seq} has no event" if gone else f"entry {seq} holds a value of another type"
            suspects.append(Suspect(REMOVED if gone else MODIFIED, seq, text))
            hashes.append(bytes(HASH_SIZE))
            continue
        if strict:
            suspects.extend(_malformed(seq, data))
        hashes.append(hash_leaf(data))
    return hashes


def _malformed(seq: int, data: bytes) -> Iterator[Suspect]:
    try:
        if canonical_json(parse_json(data)) != data:
            yield Suspect(MALFORMED, seq, f"entry {seq} is not canonical JSON (RFC 8785)")
    except AirlockError as error:
        yield Suspect(MALFORMED, seq, f"entry {seq}: {error.what}")


def classify(start: int, computed: Sequence[bytes], stored: bytes) -> Suspect:
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
