"""The Merkle log inside the database: integration of what was appended, reading, proofs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from airlock.adapters.audit.bulk import Batch, hash_waiting
from airlock.adapters.audit.columns import OF_EVENT, body_of
from airlock.adapters.audit.database import Database
from airlock.core.audit import Kind
from airlock.core.errors import ConflictError, NotFoundError
from airlock.core.merkle import (
    TILE_WIDTH,
    Tree,
    complete_root,
    consistency_proof,
    inclusion_proof,
    root_at,
    split,
)
from airlock.proof import EMPTY_ROOT, Checkpoint, InclusionProof, hash_leaf

BATCH = 8192
"""Events integrated in one transaction at most; each is one checkpoint."""

_SEQUENCER_LOCK = 7203411

# The limit stands inside, or a long queue would be looked up in the events whole, once for each step.
_WAITING = f"""
    SELECT e.ingest_id, {OF_EVENT}
    FROM (SELECT ingest_id FROM pending ORDER BY ingest_id LIMIT :limit) p
    JOIN event e ON e.ingest_id = p.ingest_id ORDER BY e.ingest_id
"""  # noqa: S608  # names of columns, all ours
_ENTRY = f"SELECT l.seq, l.ingest_id, {OF_EVENT} FROM leaf l JOIN event e ON e.ingest_id = l.ingest_id WHERE "  # noqa: S608
_BODIES = sa.text(_ENTRY + "l.seq >= :start AND l.seq < :end ORDER BY l.seq")
_QUEUE = sa.text(
    "SELECT count(*), min(e.received_us) FROM pending p JOIN event e ON e.ingest_id = p.ingest_id"
)
_ROOTS = sa.text(
    "SELECT idx, root FROM tile WHERE level = :level AND idx >= :start AND idx < :end ORDER BY idx"
)
_TILE = sa.text("SELECT data FROM tile WHERE level = :level AND idx = :idx")
_HEAD = sa.text("SELECT tree_size, root, note FROM checkpoint ORDER BY tree_size DESC LIMIT 1")


@dataclass(frozen=True)
class Head:
    """The newest checkpoint of the log; ``note`` is empty before the first."""

    size: int
    root: bytes
    note: str


@dataclass(frozen=True)
class Entry:
    """An event at its place in the log: its exact bytes, and where its table has it."""

    seq: int
    ingest_id: int
    body: bytes


@dataclass(frozen=True)
class Waiting:
    """Events that are not in the tree yet: how many, and since when the oldest, microseconds since 1970."""

    count: int
    since_us: int | None


_Edge = tuple[tuple[int, bytes], dict[tuple[int, int], list[bytes]]]
"""Size and root of a tree, and the hashes of its tiles that are not complete, by level and index."""

Sign = Callable[[int, bytes], str]
"""``sign(size, root)``: the signed checkpoint."""


class Log:
    """The tree over the events of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._edge: _Edge = ((0, EMPTY_ROOT), {})

    def head(self) -> Head:
        """The newest checkpoint."""
        return self.database.read(_head)

    def tree(self) -> Tree:
        """The growing end of the tree, rebuilt from what is stored."""
        return self.database.read(_tree)

    def integrate(self, tree: Tree, sign: Sign, *, limit: int = BATCH) -> tuple[Tree, Head, list[str]] | None:
        """Put waiting events into the tree, in one transaction; ``None`` when there are none.

        Events arrive in no order; they get their place here. The batch ends with an event that changes
        the key, so that it is clear from which size on the next key signs.

        Returns:
            The new tree, the new head, and the kinds of the integrated events.

        Raises:
            ConflictError: another sequencer was faster; build the tree anew.
            UnavailableError: the database does not answer; build the tree anew.
        """
        return self.database.write(lambda connection: self._integrate(connection, tree, sign, limit))

    def _integrate(
        self, connection: sa.Connection, tree: Tree, sign: Sign, limit: int
    ) -> tuple[Tree, Head, list[str]] | None:
        if not self.database.sqlite:
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_SEQUENCER_LOCK})"))
        head = _head(connection)
        if head.size != tree.size:
            raise ConflictError(f"the log has {head.size} entries, not {tree.size}; another sequencer works")
        ingest_ids, kinds, hashes = self._waiting(connection, limit)
        if not ingest_ids:
            return None
        count = _until_new_key(kinds)
        grown = Tree(tree.size, [[*edge] for edge in tree.edges])
        tiles = grown.extend(hashes[:count])
        self._take(connection, ingest_ids[:count], tree.size)
        if tiles:
            connection.execute(
                sa.text("INSERT INTO tile (level, idx, root, data) VALUES (:level, :idx, :root, :data)"),
                [
                    {"level": tile.level, "idx": tile.index, "root": tile.root, "data": tile.hashes}
                    for tile in tiles
                ],
            )
        root = grown.root
        new = Head(grown.size, root, sign(grown.size, root))
        connection.execute(
            sa.text("INSERT INTO checkpoint (tree_size, root, note) VALUES (:size, :root, :note)"),
            {"size": new.size, "root": root, "note": new.note},
        )
        return grown, new, kinds[:count]

    def _waiting(self, connection: sa.Connection, limit: int) -> Batch:
        if not self.database.sqlite:
            cursor = connection.connection.cursor()
            if (found := hash_waiting(cursor, limit)) is not None:
                return found
        rows = connection.execute(sa.text(_WAITING), {"limit": limit}).all()
        return (
            [row[0] for row in rows],
            [row.kind for row in rows],
            [hash_leaf(body_of(row[1:])) for row in rows],
        )

    def _take(self, connection: sa.Connection, ingest_ids: list[int], start: int) -> None:
        """Move events from the queue into the log, the first at place ``start``."""
        if self.database.sqlite:
            connection.execute(
                sa.text("DELETE FROM pending WHERE ingest_id = :id"), [{"id": found} for found in ingest_ids]
            )
            connection.execute(
                sa.text("INSERT INTO leaf (seq, ingest_id) VALUES (:seq, :id)"),
                [{"seq": start + place, "id": found} for place, found in enumerate(ingest_ids)],
            )
            return
        # As text: the driver would look at each number by itself, twice.
        values = {"ids": f"{{{','.join(map(str, ingest_ids))}}}", "start": start}
        connection.execute(
            sa.text("DELETE FROM pending WHERE ingest_id = ANY(CAST(:ids AS bigint[]))"), values
        )
        connection.execute(
            sa.text(
                "INSERT INTO leaf (seq, ingest_id) SELECT :start + place - 1, id "
                "FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS taken (id, place)"
            ),
            values,
        )

    def has_waiting(self) -> bool:
        """Whether the sequencer has something to do; asked several times a second, so cheap."""
        question = sa.text("SELECT 1 FROM pending LIMIT 1")
        return self.database.read(lambda connection: connection.scalar(question)) is not None

    def waiting(self) -> Waiting:
        """What the sequencer has not come to yet."""
        return self.database.read(lambda connection: Waiting(*connection.execute(_QUEUE).one()))

    def entry(self, seq: int) -> Entry:
        """The event at a place of the log.

        Raises:
            NotFoundError: the log has no such place.
        """
        return self._entry("l.seq = :value", seq, f"entry {seq}")

    def entry_of(self, ingest_id: int) -> Entry:
        """The event with a number of the event table.

        Raises:
            NotFoundError: it is not in the log, or not yet.
        """
        return self._entry("l.ingest_id = :value", ingest_id, f"event {ingest_id}")

    def bodies(self, start: int, count: int) -> list[bytes]:
        """Bodies of the entries from ``start`` on, at most ``count``, in the order of the log."""
        values = {"start": start, "end": start + count}
        rows = self.database.read(lambda connection: connection.execute(_BODIES, values).all())
        return [body_of(row[2:]) for row in rows]

    def _entry(self, condition: str, value: int, what: str) -> Entry:
        row = self.database.read(
            lambda connection: connection.execute(sa.text(_ENTRY + condition), {"value": value}).one_or_none()
        )
        if row is None:
            raise NotFoundError(
                f"{what} is not in the log", fix="wait for the sequencer, or look at `airlock status`"
            )
        return Entry(row[0], row[1], body_of(row[2:]))

    def seqs(self, ingest_ids: Sequence[int]) -> dict[int, int]:
        """Places in the log by number of the event table; events that wait have none."""
        if not ingest_ids:
            return {}
        question = sa.text("SELECT ingest_id, seq FROM leaf WHERE ingest_id IN :ids").bindparams(
            sa.bindparam("ids", expanding=True)
        )
        rows = self.database.read(lambda connection: connection.execute(question, {"ids": ingest_ids}).all())
        return {row[0]: row[1] for row in rows}

    def root(self, size: int) -> bytes:
        """Root of the tree when the log had ``size`` entries, from the stored tiles."""
        return self.database.read(lambda connection: root_at(_Hashes(connection).peak, size))

    def prove(self, seq: int) -> InclusionProof:
        """Proof that an entry is in the log as the newest checkpoint signs it.

        Raises:
            NotFoundError: no checkpoint covers such an entry.
        """
        return self.prove_all([seq])[0]

    def prove_all(self, seqs: Sequence[int]) -> list[InclusionProof]:
        """Proofs for several entries under one checkpoint; errors as ``prove``."""

        def work(connection: sa.Connection) -> list[InclusionProof]:
            head = _head(connection)
            for seq in seqs:
                if not 0 <= seq < head.size:
                    raise NotFoundError(f"entry {seq} is not in the log, which has {head.size} entries")
            checkpoint = Checkpoint.parse(head.note) if seqs else None
            peak = _Hashes(connection, head.size, self._edge_of(head)).peak
            return [
                InclusionProof(seq, tuple(inclusion_proof(peak, seq, head.size)), checkpoint, head.note)
                for seq in seqs
                if checkpoint is not None
            ]

        return self.database.read(work)

    def _edge_of(self, head: Head) -> dict[tuple[int, int], list[bytes]]:
        """What was read of the growing end of this tree before; most of the work of a proof is there."""
        if self._edge[0] != (head.size, head.root):
            self._edge = ((head.size, head.root), {})
        return self._edge[1]

    def prove_consistency(self, size: int, later: int) -> list[bytes]:
        """Proof that the log of ``later`` entries continues that of ``size``."""
        return self.database.read(lambda connection: consistency_proof(_Hashes(connection).peak, size, later))

    def checkpoints(self) -> Iterator[Head]:
        """Every checkpoint, oldest first."""
        after = 0
        while True:
            rows = self.database.read(
                lambda connection, after=after: connection.execute(  # type: ignore[misc]
                    sa.text(
                        "SELECT tree_size, root, note FROM checkpoint WHERE tree_size > :after "
                        "ORDER BY tree_size LIMIT 5000"
                    ),
                    {"after": after},
                ).all()
            )
            if not rows:
                return
            for row in rows:
                yield Head(row[0], bytes(row[1]), row[2])
            after = rows[-1][0]

    def add_receipt(self, anchor: str, size: int) -> None:
        """Remember that an anchor holds a checkpoint; the same one again is free."""

        def work(connection: sa.Connection) -> None:
            values = {"anchor": anchor, "size": size}
            known = "SELECT 1 FROM anchor_receipt WHERE anchor = :anchor AND tree_size = :size"
            if connection.scalar(sa.text(known), values) is None:
                insert = "INSERT INTO anchor_receipt (anchor, tree_size) VALUES (:anchor, :size)"
                # Another sequencer may be writing the same one; writers of SQLite come one by one.
                insert += "" if self.database.sqlite else " ON CONFLICT DO NOTHING"
                connection.execute(sa.text(insert), values)

        self.database.write(work)

    def receipts(self) -> dict[str, int]:
        """Size of the newest checkpoint that each anchor was given."""
        question = sa.text("SELECT anchor, max(tree_size) FROM anchor_receipt GROUP BY anchor")
        return self.database.read(lambda connection: {row[0]: row[1] for row in connection.execute(question)})

    def is_anchored(self, ingest_id: int, anchors: Sequence[str]) -> bool:
        """Whether each of these anchors holds a checkpoint over an event."""
        seq = self.seqs([ingest_id]).get(ingest_id)
        if seq is None:
            return False
        receipts = self.receipts()
        return all(receipts.get(name, 0) > seq for name in anchors)


def _head(connection: sa.Connection) -> Head:
    row = connection.execute(_HEAD).one_or_none()
    return Head(0, EMPTY_ROOT, "") if row is None else Head(row[0], bytes(row[1]), row[2])


def _tree(connection: sa.Connection) -> Tree:
    size = _head(connection).size
    read = _Hashes(connection, size).read
    edges, count, level = [], size, 0
    while count:
        complete = count // TILE_WIDTH
        start = complete * TILE_WIDTH
        edges.append(read(level, start, count - start) if count > start else [])
        count, level = complete, level + 1
    return Tree(size, edges)


def _until_new_key(kinds: Sequence[str]) -> int:
    changes = (place for place, kind in enumerate(kinds) if kind in (Kind.KEY_ROTATED, Kind.LOG_RESTARTED))
    return next(changes, len(kinds) - 1) + 1


class _Hashes:
    """Hashes of complete subtrees: from tiles where they are complete, else from what is below.

    Each tile is read once; a proof passes several times through the same ones.
    """

    def __init__(
        self,
        connection: sa.Connection,
        size: int | None = None,
        edge: dict[tuple[int, int], list[bytes]] | None = None,
    ) -> None:
        self._connection = connection
        self._size = _head(connection).size if size is None else size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}
        self._edge = {} if edge is None else edge

    def peak(self, level: int, start: int, count: int) -> bytes:
        """Root over neighbouring subtrees; see ``core.merkle.Peak``."""
        return complete_root(self.read(level, start, count))

    def read(self, level: int, start: int, count: int) -> list[bytes]:
        """Hashes of ``count`` subtrees of a level, all of one tile.

        Raises:
            NotFoundError: some are missing, because somebody removed what they follow from.
        """
        index, place = divmod(start, TILE_WIDTH)
        complete = index < self._size // TILE_WIDTH ** (level + 1)
        tiles = self._tiles if complete else self._edge
        if (level, index) not in tiles:
            tiles[level, index] = self._tile(level, index)
        found = tiles[level, index][place : place + count]
        if len(found) != count:
            raise NotFoundError(
                f"the log lacks hashes of level {level} from {start} on",
                fix="run `airlock audit verify`, which says what was removed",
            )
        return found

    def _tile(self, level: int, index: int) -> list[bytes]:
        if index < self._size // TILE_WIDTH ** (level + 1):
            data = self._connection.scalar(_TILE, {"level": level, "idx": index})
            if data is not None:
                return split(bytes(data))
        start = index * TILE_WIDTH
        span = {"start": start, "end": start + TILE_WIDTH}
        if level == 0:
            rows = [(row[0], hash_leaf(body_of(row[2:]))) for row in self._connection.execute(_BODIES, span)]
        else:
            below = self._connection.execute(_ROOTS, {"level": level - 1, **span})
            rows = [(row[0], bytes(row[1])) for row in below]
        # What follows a gap is left out: nothing stands at its place any more.
        return [found for place, (number, found) in enumerate(rows) if number == start + place]
