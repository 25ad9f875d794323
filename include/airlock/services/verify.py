"""Verify the whole audit log against a pinned key and the anchors, believing nothing of the database.

What is checked: every event against its place in the tree, every stored tile, every column that
questions are asked by, every checkpoint with its signature, each anchor's history, the schema that keeps
the log append-only, and what people wrote against the commitments in the events.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, TypeVar

import sqlalchemy as sa

from airlock.adapters.audit.database import Database
from airlock.adapters.audit.log import Head, Log
from airlock.adapters.audit.personal import Sealed, Vault
from airlock.adapters.audit.scan import RANGE, REMOVED, Scan, Suspect, close_reader, compare_tiles, scan
from airlock.adapters.audit.schema import schema_problems
from airlock.core.audit import Kind
from airlock.core.canonical import parse_json
from airlock.core.errors import AirlockError, IntegrityError
from airlock.core.merkle import TILE_WIDTH, complete_root, root_at
from airlock.ports import Anchor
from airlock.proof import (
    HASH_SIZE,
    Checkpoint,
    KeyChange,
    ProofError,
    PublicKey,
    Rotation,
    key_for,
    key_periods,
)

CHECKPOINT = "a checkpoint was changed"
KEY = "another key signed"
REBUILT = "the log was rebuilt with other content"
TRUNCATED = "the end of the log was cut off"
ROLLED_BACK = "an old checkpoint was put in place of a newer one"
OUTSIDE = "an event is kept outside the log"
SCHEMA = "the protection of the tables was changed"
PERSONAL = "what people wrote was changed or removed"
RESTARTED = "the log was begun anew after its end was lost"

_CLOCK_US = 300_000_000
"""How far clocks of different machines may be apart; as in evidence packs."""

_CHUNK = 4 * RANGE
_NOTES = 2000

T = TypeVar("T")

Signed = tuple[int, int]
"""Size of a checkpoint, and when it was signed, in seconds since 1970."""

Progress = Callable[[int, int], None]
"""``progress(done, total)`` in entries."""


@dataclass
class Verification:
    """What a verification found.

    Attributes:
        origin: name of the log.
        size: number of entries that the newest checkpoint signs.
        root: the root it signs, hex.
        key_id: the pinned key.
        checkpoints: how many were checked.
        anchors: how many checkpoints each anchor holds, by its name.
        waiting: events that are recorded and not in the log yet.
        suspects: what is wrong, the first bad entry first.
        notices: what a person should look at, without anything being wrong.
    """

    origin: str = ""
    size: int = 0
    root: str = ""
    key_id: str = ""
    checkpoints: int = 0
    anchors: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    suspects: list[Suspect] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.suspects

    def order(self) -> None:
        """Put the first bad entry first; what is about no single entry comes last."""
        self.suspects.sort(key=lambda suspect: (suspect.seq is None, suspect.seq or 0))


def verify(
    database: Database,
    pinned: PublicKey,
    anchors: Sequence[Anchor],
    *,
    vault: Vault | None = None,
    strict: bool = False,
    accept_restarts: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check everything that can be checked; the log may grow meanwhile.

    Args:
        database: where the log is.
        pinned: the public key, from a place that the log's keepers cannot change.
        anchors: where its checkpoints are kept; without any, a log that was cut or rebuilt with the
            key cannot be told from a true one.
        vault: the deployment's, to check what people wrote; auditors do without.
        strict: also check that each event is canonical JSON, which takes several times as long.
        accept_restarts: the auditor knows that the log was begun anew after a loss.
        processes: how many work at once; by default as many as there are processors, and this one alone
            where the log is short.
        progress: told after each part.

    Raises:
        UnavailableError: the database or an anchor does not answer; nothing can be said then.
    """
    log = Log(database)
    found = Verification(key_id=pinned.id)
    # Anchors are read first: what they hold must be in the log that is read after it.
    histories = {anchor.name: anchor.history() for anchor in anchors}
    head = log.head()
    found.size, found.root = head.size, head.root.hex()
    with _workers(processes or min(os.cpu_count() or 1, 1 + head.size // _CHUNK)) as pool:
        tree, claimed = _scan(pool, database, head.size, found, strict=strict, progress=progress)
        keys = _Keys(pinned, log, found, restarts_accepted=accept_restarts)
        good, signed = _check_checkpoints(pool, log, tree, keys, found)
    if head.size and not (good and head.size > keys.signs_after):
        found.suspects.append(Suspect(KEY, None, "no checkpoint of this log is signed with the pinned key"))
    receipts = log.receipts()
    for name, history in histories.items():
        found.anchors[name] = len(history)
        _Anchored(name, tree, keys, found).check(history, receipts.get(name, 0))
    if not anchors:
        found.notices.append("no anchor was read: a log that was cut or rebuilt with its key looks true")
    _check_clocks(claimed, signed, found)
    _check_outside(database, found)
    found.suspects += [Suspect(SCHEMA, None, problem) for problem in schema_problems(database)]
    found.suspects += _personal_problems(database, vault)
    found.order()
    return found


class _Here(Executor):
    """Does at once what it is given."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _workers(count: int) -> Executor:
    """Processes that share the work; for a short log making them would take longer than looking."""
    return ProcessPoolExecutor(count, mp_context=get_context("fork")) if count > 1 else _Here()


class _Tree:
    """The tree computed from the events."""

    def __init__(self, hashes: bytes, roots: list[list[bytes]]) -> None:
        self.size = len(hashes) // HASH_SIZE
        self._hashes = hashes
        self._roots = roots
        # Neighbouring checkpoints share most of their subtrees.
        self._peak = lru_cache(maxsize=100_000)(self._compute)

    def root(self, size: int) -> bytes:
        return root_at(self._peak, size)

    def _compute(self, level: int, start: int, count: int) -> bytes:
        if level:
            return complete_root(self._roots[level - 1][start : start + count])
        rows = self._hashes[start * HASH_SIZE : (start + count) * HASH_SIZE]
        return complete_root([rows[at : at + HASH_SIZE] for at in range(0, len(rows), HASH_SIZE)])


def _scan(
    pool: Executor,
    database: Database,
    size: int,
    found: Verification,
    *,
    strict: bool,
    progress: Progress | None,
) -> tuple[_Tree, array[int]]:
    url = database.url.render_as_string(hide_password=False)
    starts = range(0, size, _CHUNK)
    scans: list[Scan] = []
    try:
        parts = [pool.submit(scan, url, start, min(start + _CHUNK, size), strict=strict) for start in starts]
        for part in parts:
            scans.append(part.result())
            if progress is not None:
                progress(min(len(scans) * _CHUNK, size), size)
    finally:
        close_reader(url)
    claimed = array("q")
    for done in scans:
        found.suspects += done.suspects
        claimed += done.times
    hashes = b"".join(done.hashes for done in scans)
    roots = [root for done in scans for root in done.roots]
    return _Tree(hashes, _upper_levels(database, roots, found)), claimed


def _upper_levels(database: Database, roots: list[bytes], found: Verification) -> list[list[bytes]]:
    """Roots of complete subtrees at each level above the leaves, compared with the stored tiles."""
    levels = [roots]
    question = sa.text("SELECT idx, root, data FROM tile WHERE level = :level")
    while len(levels[-1]) >= TILE_WIDTH:
        level = len(levels)
        stored = database.read(
            lambda connection, level=level: {  # type: ignore[misc]
                tile[0]: (bytes(tile[1]), bytes(tile[2]))
                for tile in connection.execute(question, {"level": level})
            }
        )
        roots, suspects = compare_tiles(level, 0, levels[-1], stored)
        levels.append(roots)
        found.suspects += suspects
    return levels


class _Keys:
    """Which key signs the log at which size."""

    def __init__(
        self, pinned: PublicKey, log: Log, found: Verification, *, restarts_accepted: bool = False
    ) -> None:
        self.restarts_accepted = restarts_accepted
        self.restarts: dict[str, int] = {}
        self.signed: dict[int, int] = {}
        changes = []
        for seq, kind, data in _key_events(log):
            try:
                rotation = Rotation.parse(str(data.get("statement")))
            except ProofError as error:
                found.notices.append(f"entry {seq} claims a new key and means nothing: {error}")
                continue
            if kind == Kind.LOG_RESTARTED:
                size = data.get("size")
                size = size if isinstance(size, int) else -1
                self.restarts[rotation.old.name] = size
                changes.append(KeyChange(size, rotation))
            else:
                changes.append(KeyChange(seq + 1, rotation))
        self.periods = key_periods(pinned, changes)
        # Earlier keys are vouched for only by a log that the pinned key, or one after it, has signed:
        # anybody can write a statement that names the pinned key as their successor.
        named = [change.size for change in changes if change.rotation.new == pinned]
        self.signs_after = max(named, default=0)

    def check(self, note: str, size: int, root: bytes) -> Suspect | None:
        """What is wrong with a checkpoint that ought to sign ``size`` and ``root``."""
        try:
            checkpoint = Checkpoint.parse(note)
        except ProofError as error:
            return Suspect(CHECKPOINT, None, f"the checkpoint of {size} entries cannot be read: {error}")
        key = key_for(self.periods, size)
        if checkpoint.size != size or checkpoint.root != root:
            return Suspect(CHECKPOINT, None, f"the checkpoint of {size} entries signs something else")
        if not checkpoint.note.signed_by(key):
            others = ", ".join(sorted({data.hex() for _, data, _ in checkpoint.note.signatures}))
            text = f"the checkpoint of {size} entries is not signed by key {key.id}, but by {others}"
            return Suspect(KEY, None, text)
        if checkpoint.origin != key.name:
            return Suspect(
                KEY, None, f"the checkpoint of {size} entries is of another log, {checkpoint.origin}"
            )
        if (signed_at := checkpoint.note.signed_at(key)) is None:
            return Suspect(CHECKPOINT, None, f"the time of the checkpoint of {size} entries is not signed")
        self.signed[size] = signed_at
        return None


def _key_events(log: Log) -> Iterator[tuple[int, str, dict[str, object]]]:
    question = sa.text(
        "SELECT l.seq, e.kind, e.data FROM event e JOIN leaf l ON l.ingest_id = e.ingest_id "
        "WHERE e.kind IN (:rotated, :restarted) ORDER BY l.seq"
    )
    values = {"rotated": str(Kind.KEY_ROTATED), "restarted": str(Kind.LOG_RESTARTED)}
    rows = log.database.read(lambda connection: connection.execute(question, values).all())
    for seq, kind, text in rows:
        data = parse_json(text)
        yield seq, kind, data if isinstance(data, dict) else {}


def _check_notes(keys: _Keys, heads: list[Head]) -> tuple[list[Suspect], list[Signed]]:
    suspects, signed = [], []
    for head in heads:
        suspect = keys.check(head.note, head.size, head.root)
        if suspect is not None:
            suspects.append(suspect)
        else:
            signed.append((head.size, keys.signed[head.size]))
    return suspects, signed


def _check_checkpoints(
    pool: Executor, log: Log, tree: _Tree, keys: _Keys, found: Verification
) -> tuple[bool, list[Signed]]:
    """Check each checkpoint; returns whether at least one is right, and when those were signed that are."""
    good_size = 0
    notes: list[Head] = []
    futures = []
    for head in log.checkpoints():
        if head.size > found.size:
            break  # it was made while we looked
        found.checkpoints += 1
        notes.append(head)
        if len(notes) == _NOTES:
            futures.append(pool.submit(_check_notes, keys, notes))
            notes = []
        if head.size > tree.size:
            continue  # said already: entries are missing
        if tree.root(head.size) == head.root:
            good_size = head.size
        elif not any(suspect.seq is not None for suspect in found.suspects):
            text = f"the entries {good_size} to {head.size - 1} are not those that were signed"
            found.suspects.append(Suspect(REBUILT, good_size, text))
    signed: list[Signed] = []
    for suspects, times in [*(future.result() for future in futures), _check_notes(keys, notes)]:
        found.suspects += suspects
        signed += times
    found.origin = key_for(keys.periods, found.size).name
    return good_size > 0, signed


def _check_clocks(claimed: array[int], signed: list[Signed], found: Verification) -> None:
    """Notice events that claim a time at which their checkpoint was not being made.

    An event belongs between the signatures of the checkpoint before it and of its own. One that is further
    out waited in a spool, or somebody's clock was wrong, or it was written to look older than it is.
    """
    import numpy as np

    sizes = np.array([size for size, _ in signed], dtype=np.int64)
    times = np.array([seconds * 1_000_000 for _, seconds in signed], dtype=np.int64)
    claims = np.frombuffer(claimed, dtype=np.int64)[: sizes[-1] if len(sizes) else 0]
    if not len(claims):
        return
    own = np.searchsorted(sizes, np.arange(len(claims)), side="right")
    early = np.where(own > 0, times[own - 1] - _CLOCK_US, 0)
    odd = np.flatnonzero((claims >= 0) & ((claims < early) | (claims > times[own] + _CLOCK_US)))
    if len(odd):
        found.notices.append(
            f"{len(odd)} events claim a time over {_CLOCK_US // 60_000_000} minutes before or after their "
            f"checkpoint was made, the first is entry {odd[0]}: they waited in a spool, or a clock was wrong"
        )


class _Anchored:
    """What one anchor holds, compared with the log."""

    def __init__(self, name: str, tree: _Tree, keys: _Keys, found: Verification) -> None:
        self._name, self._tree, self._keys, self._found = name, tree, keys, found

    def check(self, history: list[str], receipt: int) -> None:
        """Check that the log continues everything that the anchor was given."""
        largest = 0
        for note in history:
            try:
                held = Checkpoint.parse(note)
            except ProofError as error:
                self._suspect(CHECKPOINT, None, f"holds no checkpoint: {error}")
                continue
            if self._is_lost(held):
                continue
            if held.size < largest:
                self._suspect(ROLLED_BACK, held.size, f"was given {held.size} entries after it had {largest}")
            largest = max(largest, held.size)
            self._compare(note, held)
        if receipt > largest:
            self._suspect(
                ROLLED_BACK, None, f"holds {largest} entries, the database says that it was given {receipt}"
            )

    def _is_lost(self, held: Checkpoint) -> bool:
        """Whether the checkpoint covers entries that were lost before the log was begun anew."""
        lost_after = self._keys.restarts.get(held.origin)
        if lost_after is None or held.size <= lost_after:
            return False
        text = f"holds {held.size} entries of {held.origin}, which was begun anew after {lost_after}"
        if self._keys.restarts_accepted:
            self._found.notices.append(f"{self._name} {text}")
        else:
            self._suspect(RESTARTED, lost_after, text)
        return True

    def _compare(self, note: str, held: Checkpoint) -> None:
        if (suspect := self._keys.check(note, held.size, held.root)) is not None:
            self._suspect(suspect.what, None, suspect.detail)
        elif held.size > self._found.size:
            text = f"holds a checkpoint of {held.size} entries, the log has {self._found.size}"
            self._suspect(TRUNCATED, self._found.size, text)
        elif held.size <= self._tree.size and self._tree.root(held.size) != held.root:
            text = f"holds another history of the first {held.size} entries, signed with the same key"
            self._suspect(REBUILT, None, text)

    def _suspect(self, what: str, seq: int | None, text: str) -> None:
        self._found.suspects.append(Suspect(what, seq, f"{self._name} {text}"))


def _check_outside(database: Database, found: Verification) -> None:
    """Every event must be in the log or in its queue."""
    question = sa.text(
        "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM leaf), "
        "(SELECT count(*) FROM pending p JOIN event e ON e.ingest_id = p.ingest_id), "
        "(SELECT max(tree_size) FROM checkpoint), "
        "(SELECT count(*) FROM pending p JOIN leaf l ON l.ingest_id = p.ingest_id), "
        "(SELECT count(*) FROM anchor_receipt r WHERE NOT EXISTS "
        "(SELECT 1 FROM checkpoint c WHERE c.tree_size = r.tree_size))"
    )
    events, leaves, waiting, signed, both, unsigned = database.read(
        lambda connection: tuple(connection.execute(question).one())
    )
    found.waiting = waiting
    if leaves != (signed or 0):
        detail = f"{leaves} entries stand in the log, its newest checkpoint signs {signed or 0}"
        found.suspects.append(Suspect(REMOVED if leaves < (signed or 0) else OUTSIDE, None, detail))
    if unsigned:
        detail = f"{unsigned} receipts of anchors are for checkpoints that are not there"
        found.suspects.append(Suspect(ROLLED_BACK, None, detail))
    if both:
        found.suspects.append(Suspect(OUTSIDE, None, f"{both} events are in the log and in its queue"))
    elif events != leaves + waiting:
        detail = f"there are {events} events, but {leaves} in the log and {waiting} in its queue"
        found.suspects.append(Suspect(OUTSIDE if events > leaves + waiting else REMOVED, None, detail))


def _personal_problems(database: Database, vault: Vault | None) -> list[Suspect]:
    """Each sealed text must stand in the table or in the record of an erasure, and nothing else there."""
    kinds = [str(kind) for kind in Kind if kind.personal]
    events = sa.text(
        "SELECT kind, actor, release_id, occurred_us, data FROM event WHERE kind IN :kinds"
    ).bindparams(sa.bindparam("kinds", expanding=True))
    texts = sa.text("SELECT commitment, subject, release_id, recorded_us, wrapped_key, sealed FROM personal")
    written, erased, rows = database.read(
        lambda connection: (
            connection.execute(events, {"kinds": kinds}).all(),
            [row.data for row in connection.execute(events, {"kinds": [str(Kind.PERSONAL_ERASED)]})],
            {bytes(row[0]): row for row in connection.execute(texts)},
        )
    )
    expected = {}
    try:
        for kind, actor, release_id, occurred_us, text in written:
            data = parse_json(text)
            for name in Kind(kind).personal:
                if isinstance(sealed := data.get(name), dict):
                    expected[bytes.fromhex(sealed["sealed"])] = (actor, release_id, occurred_us)
        gone = {bytes.fromhex(sealed) for text in erased for sealed in parse_json(text)["commitments"]}
    except (AirlockError, AttributeError, KeyError, TypeError, ValueError) as error:
        return [Suspect(PERSONAL, None, f"an event about what people wrote cannot be read: {error}")]
    found = []
    for commitment, about in expected.items():
        row = rows.pop(commitment, None)
        if row is None and commitment not in gone:
            found.append(Suspect(PERSONAL, None, f"the text {commitment.hex()} is gone without a record"))
        elif row is not None and tuple(row[1:4]) != about:
            found.append(Suspect(PERSONAL, None, f"the text {commitment.hex()} is said to be by another"))
        elif row is not None and commitment in gone:
            found.append(Suspect(PERSONAL, None, f"the text {commitment.hex()} was erased and is back"))
        elif row is not None and vault is not None and vault.present:
            found += _opened(vault, Sealed(commitment, bytes(row[4]), bytes(row[5])))
    found += [Suspect(PERSONAL, None, f"the text {extra.hex()} belongs to no event") for extra in rows]
    return found


def _opened(vault: Vault, row: Sealed) -> Iterator[Suspect]:
    try:
        vault.open(row)
    except IntegrityError as error:
        yield Suspect(PERSONAL, None, f"the text {row.commitment.hex()}: {error.what}")
