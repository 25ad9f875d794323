"""Reads the whole log for verification, in ranges that several processes share.

Nothing of the database is believed: hashes are computed from the bodies and compared with what is
stored, and so is each column that questions are asked by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airlock.adapters.audit.database import ReadOnlyDatabase
from airlock.core.canonical import canonical_json, parse_json
from airlock.core.errors import AirlockError
from airlock.core.merkle import TILE_WIDTH, complete_root

RANGE = 16 * TILE_WIDTH
"""Entries that are read at once."""

COLUMNS = ("kind", "release_id", "workload", "version", "actor", "occurred_us")
_ROWS = """
    SELECT e.body, e.kind, e.release_id, e.workload, e.version, e.actor, e.occurred_us
    FROM leaf l LEFT JOIN event e ON e.ingest_id = l.ingest_id
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
    """

    start: int
    hashes: bytes = b""
    roots: list[bytes] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)


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
        cursor = connection.connection.cursor()
        ask = _asker(cursor, sqlite=database.sqlite)
        for first in range(start, end, RANGE):
            last = min(first + RANGE, end)
            rows = ask(_ROWS, (first, last))
            gap = _gap(ask, first, last) if len(rows) != last - first else None
            if gap is not None:
                rows = rows[: gap - first]
            hashes = _hash_rows(rows, first, found.suspects, strict=strict)
            parts.append(b"".join(hashes))
            _check_tiles(ask, hashes, first, found)
            if gap is not None:
                found.suspects.append(Suspect(REMOVED, gap, f"the log has no entry {gap}"))
                break
    found.hashes = b"".join(parts)
    return found


def _asker(cursor: Any, *, sqlite: bool) -> Callable[[str, tuple[int, ...]], list[Any]]:
    def ask(question: str, values: tuple[int, ...]) -> list[Any]:
        cursor.execute(question if sqlite else question.replace("?", "%s"), values)
        rows: list[Any] = cursor.fetchall()
        return rows

    return ask


def _hash_rows(rows: list[Any], first: int, suspects: list[Suspect], *, strict: bool) -> list[bytes]:
    """Leaf hashes of rows; a missing event hashes to nothing."""
    sha256 = hashlib.sha256
    hashes: list[bytes] = []
    for body, kind, release_id, workload, version, actor, occurred in rows:
        if body is None:
            seq = first + len(hashes)
            suspects.append(Suspect(REMOVED, seq, f"entry {seq} has no event"))
            hashes.append(bytes(32))
            continue
        data = body.encode()
        # Canonical JSON sorts its keys, so the columns stand at known places; what holds escapes does
        # not match and is looked at more closely.
        place = body.rfind('"kind":"')
        if not (
            body.startswith(f'"kind":"{kind}","occurred_us":{occurred},"received_us":', place)
            and body.endswith(
                f',"release_id":"{release_id}","schema_version":1,"version":"{version}","workload":"{workload}"}}'
            )
            and body.startswith(f'{{"actor":"{actor}","data":{{')
        ):
            seq = first + len(hashes)
            suspects.extend(_compare(seq, body, (kind, release_id, workload, version, actor, occurred)))
        if strict:
            suspects.extend(_malformed(first + len(hashes), data))
        hashes.append(sha256(b"\x00" + data).digest())
    return hashes


def _compare(seq: int, body: str, columns: tuple[Any, ...]) -> Iterator[Suspect]:
    """Compare the columns of one event with its body."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        yield Suspect(MALFORMED, seq, f"entry {seq} is no JSON: {error}")
        return
    for name, value in zip(COLUMNS, columns, strict=True):
        said = event.get(name) if isinstance(event, dict) else None
        if said != value or type(said) is not type(value):
            yield Suspect(COLUMN, seq, f"column {name} of entry {seq} says {value!r}, the event {said!r}")


def _malformed(seq: int, data: bytes) -> Iterator[Suspect]:
    try:
        if canonical_json(parse_json(data)) != data:
            yield Suspect(MALFORMED, seq, f"entry {seq} is not canonical JSON (RFC 8785)")
    except AirlockError as error:
        yield Suspect(MALFORMED, seq, f"entry {seq}: {error.what}")


def _gap(ask: Callable[[str, tuple[int, ...]], list[Any]], first: int, last: int) -> int:
    known = {row[0] for row in ask("SELECT seq FROM leaf WHERE seq >= ? AND seq < ?", (first, last))}
    return next(number for number in range(first, last) if number not in known)


def _check_tiles(
    ask: Callable[[str, tuple[int, ...]], list[Any]], hashes: list[bytes], first: int, found: Scan
) -> None:
    """Compare complete tiles with what is stored, and keep their computed roots."""
    index = first // TILE_WIDTH
    count = len(hashes) // TILE_WIDTH
    stored = {row[0]: row for row in ask(_TILES, (0, index, index + count))}
    for place in range(count):
        row = hashes[place * TILE_WIDTH : (place + 1) * TILE_WIDTH]
        root = complete_root(row)
        found.roots.append(root)
        seq = (index + place) * TILE_WIDTH
        tile = stored.get(index + place)
        if tile is None:
            found.suspects.append(Suspect(TILE, seq, f"the tile over the entries from {seq} on is missing"))
        elif bytes(tile[2]) != b"".join(row):
            found.suspects.append(classify(seq, row, bytes(tile[2])))
        elif bytes(tile[1]) != root:
            found.suspects.append(Suspect(TILE, seq, f"the tile from entry {seq} on has another root"))


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
