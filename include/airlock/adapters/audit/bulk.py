"""Reads and hashes many events at once, as long as nothing about them is odd.

A few long values travel ten times faster than thousands of short ones, so PostgreSQL puts the events
together as the log has them, one on a line. Whatever does not fit gives ``None`` here, or while verifying
another hash than the stored one, and is then read row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airlock.adapters.audit.columns import COLUMNS
from airlock.core.merkle import TILE_WIDTH, hash_leaves

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BEFORE = (
    '{"actor":"',
    '","data":',
    ',"deployment":"',
    '","key":"',
    '","kind":"',
    '","occurred_us":',
    ',"received_us":',
    ',"release_id":"',
    '","schema_version":1,"version":"',
    '","workload":"',
)
# What has to be escaped in a text is not, so that such an event gets another hash here and is looked at
# closely. A quote in a column could move where another one begins without changing the whole, so there may
# be none.
_BODY = (
    " || ".join(f"'{text}' || {name}" for text, name in zip(_BEFORE, COLUMNS, strict=True)) + """ || '"}'"""
)
_TEXTS = "(actor || deployment || key || kind || release_id || version || workload)"
_EVENTS = f"""
    SELECT bool_or(strpos({_TEXTS}, '"') > 0),
        array_agg(ingest_id), array_agg(occurred_us), string_agg({_BODY}, E'\n')
    FROM event WHERE ingest_id >= %s AND ingest_id <= %s
"""  # noqa: S608  # names of columns, all ours
# Here is no stored hash to compare with, so that nothing may need escaping.
_WAITING = f"""
    SELECT bool_or({_TEXTS} ~ '["\\\\\\u0001-\\u001f]'), array_agg(ingest_id),
        string_agg(kind, E'\n'), string_agg({_BODY}, E'\n')
    FROM (SELECT e.* FROM (SELECT ingest_id FROM pending ORDER BY ingest_id LIMIT %s) AS next
        JOIN event e ON e.ingest_id = next.ingest_id ORDER BY e.ingest_id) AS part
"""  # noqa: S608  # names of columns, all ours
_LEAVES = """
    SELECT array_agg(seq), array_agg(ingest_id) FROM
    (SELECT seq, ingest_id FROM leaf WHERE seq >= %s AND seq < %s ORDER BY seq) AS part
"""
Batch = tuple[list[int], list[str], list[bytes]]
"""Numbers, kinds and leaf hashes of events."""

_AT_ONCE = 8 * TILE_WIDTH
_STRAY = 2
"""How many times as many events as wanted may lie between the first and the last."""


def hash_waiting(cursor: Any, limit: int) -> Batch | None:
    """The first events of the queue, in the order of their numbers; ``None`` if a text needs escaping.

    Args:
        cursor: of psycopg.
        limit: how many at most.
    """
    found = cursor.execute(_WAITING, (limit,), binary=True).pgresult
    odd, numbers, kinds, text = (found.get_value(0, column) for column in range(4))
    if odd is None:
        return [], [], []
    bodies = text.split(b"\n")
    ingest_ids = _numbers(numbers).tolist()
    if odd != b"\x00" or len(bodies) != len(ingest_ids):
        return None
    return ingest_ids, kinds.decode().split("\n"), hash_leaves(bodies)


def hash_at_once(cursor: Any, start: int, end: int) -> tuple[list[bytes], NDArray[Any]] | None:
    """Leaf hashes of the entries from ``start`` to ``end``, and the times they claim; ``None`` if any is odd.

    Args:
        cursor: of psycopg.
        start: first entry.
        end: the one after the last.
    """
    import numpy as np

    hashes: list[bytes] = []
    times = []
    for first in range(start, end, _AT_ONCE):
        found = _hash_part(cursor, first, min(first + _AT_ONCE, end))
        if found is None:
            return None
        hashes += found[0]
        times.append(found[1])
    return hashes, np.concatenate(times)


def _hash_part(cursor: Any, first: int, last: int) -> tuple[list[bytes], NDArray[Any]] | None:
    import numpy as np

    leaves = cursor.execute(_LEAVES, (first, last), binary=True).pgresult
    seqs, wanted = _numbers(leaves.get_value(0, 0)), _numbers(leaves.get_value(0, 1))
    if not np.array_equal(seqs, np.arange(first, last)):
        return None
    lowest, highest = int(wanted.min()), int(wanted.max())
    if highest - lowest > _STRAY * len(wanted):
        return None
    events = cursor.execute(_EVENTS, (lowest, highest), binary=True).pgresult
    odd, numbers, claimed, text = (events.get_value(0, column) for column in range(4))
    found, times, bodies = _numbers(numbers), _numbers(claimed), (text or b"").split(b"\n")
    if odd != b"\x00" or len(bodies) != len(found):
        return None
    hashes = hash_leaves(bodies)
    if np.array_equal(found, wanted):
        return hashes, times
    places = _places(found, wanted)
    return None if places is None else ([hashes[place] for place in places.tolist()], times[places])


def _places(found: NDArray[Any], wanted: NDArray[Any]) -> NDArray[Any] | None:
    """Where the wanted numbers stand; events that were committed late come at a later place of the log."""
    import numpy as np

    order = np.argsort(found)
    places = order[np.minimum(np.searchsorted(found, wanted, sorter=order), len(order) - 1)]
    return places if np.array_equal(found[places], wanted) else None


def _numbers(array: bytes | None) -> NDArray[Any]:
    """The numbers of PostgreSQL's binary ``bigint[]``: five words, then a length and a value each."""
    import numpy as np

    if not array:
        return np.empty(0, dtype=np.int64)
    items = np.frombuffer(array, dtype=[("length", ">i4"), ("value", ">i8")], offset=20)
    return items["value"].astype(np.int64)
