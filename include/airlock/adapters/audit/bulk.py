"""Reads and hashes a range of the log in one query, as long as everything in it is as it was signed.

A few long values travel ten times faster than thousands of short ones, and comparing text is faster than
parsing it. Whatever does not fit gives ``None`` here, and ``scan.py`` looks at it row by row.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from airlock.adapters.audit.store import KEY_HASH_BYTES
from airlock.core.merkle import TILE_WIDTH

# The numbers are computed from, or PostgreSQL would search its index of them from end to end; without their
# range it would look up each event. Events that say the same in their columns come in one row.
_ENTRIES = """
    SELECT e.kind, e.actor, e.release_id, e.version, e.workload, array_agg(l.seq), string_agg(key_hash, ''),
        string_agg(body, E'\\n'), string_agg(CAST(occurred_us AS text), E'\\n')
    FROM leaf l JOIN event e ON e.ingest_id = l.ingest_id
    WHERE l.seq >= %(first)s AND l.seq < %(last)s
    AND e.ingest_id >= (SELECT min(ingest_id + 0) FROM leaf WHERE seq >= %(first)s AND seq < %(last)s)
    AND e.ingest_id <= (SELECT max(ingest_id + 0) FROM leaf WHERE seq >= %(first)s AND seq < %(last)s)
    GROUP BY 1, 2, 3, 4, 5
"""
_AT_ONCE = 4 * TILE_WIDTH
_RECEIVED = len(',"received_us":') + 16
"""Microseconds since 1970 have 16 digits from the year 2001 to 2286."""


def hash_at_once(cursor: Any, start: int, end: int, times: list[int]) -> list[bytes] | None:
    """Leaf hashes of the entries from ``start`` to ``end``, if each is there and says what its columns say.

    Args:
        cursor: of psycopg.
        start: first entry.
        end: the one after the last.
        times: the times that the entries claim are added here.
    """
    hashes: list[bytes] = []
    for first in range(start, end, _AT_ONCE):
        found = _hash_part(cursor, first, min(first + _AT_ONCE, end), times)
        if found is None:
            return None
        hashes += found
    return hashes


def _hash_part(cursor: Any, first: int, last: int, times: list[int]) -> list[bytes] | None:
    result = cursor.execute(_ENTRIES, {"first": first, "last": last}, binary=True).pgresult
    sha256 = hashlib.sha256
    hashes: dict[int, bytes] = {}
    claims: dict[int, bytes] = {}
    for row in range(result.ntuples):
        *said, array, key_hashes, body, time = (result.get_value(row, column) for column in range(9))
        bodies, claimed = body.split(b"\n"), time.split(b"\n")
        places = _places(array, len(bodies))
        if places is None or not _agree(said, body, bodies, claimed, key_hashes):
            return None
        claims.update(zip(places, claimed, strict=True))
        hashes.update(zip(places, [sha256(b"\x00" + body).digest() for body in bodies], strict=True))
    if len(hashes) != last - first:
        return None
    times += [int(claims[place]) for place in range(first, last)]
    return [hashes[place] for place in range(first, last)]


def _places(array: bytes, count: int) -> list[int] | None:
    """The numbers of PostgreSQL's binary ``bigint[]``: five words, then a length and a value each."""
    if len(array) != _ARRAY_HEAD + count * _ARRAY_ITEM:
        return None
    return [value for _, value in struct.iter_unpack(">iq", array[_ARRAY_HEAD:])]


_ARRAY_HEAD, _ARRAY_ITEM = 20, 12


def _agree(
    said: list[bytes], lines: bytes, bodies: list[bytes], times: list[bytes], key_hashes: bytes
) -> bool:
    """Whether events say what their columns say; what holds escapes is not looked at here.

    Canonical JSON sorts its keys, so the columns stand at known places from both ends.
    """
    if None in said or any(b'"' in one or b"\\" in one or b"\n" in one for one in said):
        return False
    kind, actor, release_id, version, workload = said
    head = b'{"actor":"%b","data":{' % actor
    before = b'"kind":"%b","occurred_us":' % kind
    about = release_id, version, workload
    tail = b',"release_id":"%b","schema_version":1,"version":"%b","workload":"%b"}' % about
    count = len(bodies)
    if (
        len(times) != count
        or len(key_hashes) != count * KEY_HASH_BYTES
        or not (lines.startswith(head) and lines.endswith(tail))
        or not lines.count(b"\n" + head) == lines.count(tail + b"\n") == count - 1
    ):
        return False
    sha256 = hashlib.sha256
    rest = len(before) + _RECEIVED + len(tail)
    hashed = []
    for body, time in zip(bodies, times, strict=True):
        place = len(body) - len(time) - rest
        if place <= 0 or not body.startswith(b"%b%b," % (before, time), place):
            return False
        hashed.append(
            sha256(body[body.rfind(b'"key":"', 0, place) + 7 : place - 2]).digest()[:KEY_HASH_BYTES]
        )
    return b"".join(hashed) == key_hashes
