"""The Merkle log in both databases: integration, proofs, publication, and what a crash leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from airlock.adapters.audit import Log
from airlock.adapters.audit.columns import COLUMNS, NAMES
from airlock.adapters.audit.keys import SigningKey
from airlock.core.audit import Event, Kind
from airlock.core.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError
from airlock.core.merkle import Tree, root_of
from airlock.proof import EMPTY_ROOT, Checkpoint, hash_leaf, verify_consistency
from airlock.services.deployment import Deployment, anchors_of
from airlock.services.keys import rotate_key
from tests.support.databases import (
    KEY,
    Backend,
    bodies,
    deployment_on,
    insert_of,
    integrate_all,
    losing_proxy,
    make_event,
    sequencer_of,
    sign,
    verify_log,
)
from tests.support.deployments import START_US, Killed, ManualClock

FORK = multiprocessing.get_context("fork")


def fill(backend: Backend, *names: str, kind: Kind = Kind.TASK_STARTED) -> None:
    store = backend.open()
    for name in names:
        store.append(make_event(name, kind=kind))
    store.database.close()


def keys_of(log: Log) -> list[str]:
    return [Event.from_bytes(body).key for body in bodies(log, log.head().size)]


def counts(backend: Backend) -> dict[str, int]:
    tables = ("event", "pending", "leaf", "tile", "checkpoint", "anchor_receipt")
    return {table: backend.raw(f"SELECT count(*) FROM {table}")[0][0] for table in tables}  # noqa: S608


# Integration


def test_an_empty_queue_gives_nothing_and_writes_nothing(backend: Backend) -> None:
    log = backend.log()
    assert log.integrate(Tree(), sign) is None
    assert (log.head().size, log.head().root, log.head().note) == (0, EMPTY_ROOT, "")
    assert set(counts(backend).values()) == {0}
    assert list(log.checkpoints()) == []


@pytest.mark.requirement("E-2")
def test_events_stand_in_the_log_in_the_order_of_their_arrival(backend: Backend) -> None:
    names = ["c", "a", "b", "e", "d"]
    fill(backend, *names)
    log = backend.log()
    done = log.integrate(log.tree(), sign)
    assert done is not None
    tree, head, kinds = done
    assert keys_of(log) == names
    assert kinds == [Kind.TASK_STARTED] * 5
    assert head == log.head()
    assert tree.root == head.root == root_of([hash_leaf(body) for body in bodies(log, 5)])
    signed = Checkpoint.parse(head.note)
    assert (signed.size, signed.root) == (5, head.root)
    assert signed.note.signed_by(KEY.public)
    assert counts(backend)["pending"] == 0
    assert log.integrate(tree, sign) is None
    assert [event.key for event in verify_log(log, KEY.public)] == names


def test_batches_make_the_same_tree_as_one_step(backend: Backend) -> None:
    fill(backend, *"abcde")
    log = backend.log()
    tree, sizes = log.tree(), []
    while (done := log.integrate(tree, sign, limit=2)) is not None:
        tree = done[0]
        sizes.append(done[1].size)
    assert sizes == [2, 4, 5] == [found.size for found in log.checkpoints()]
    assert keys_of(log) == list("abcde")
    verify_log(log, KEY.public)


def test_a_batch_ends_with_a_change_of_the_key(backend: Backend) -> None:
    fill(backend, "a")
    fill(backend, "b", kind=Kind.KEY_ROTATED)
    fill(backend, "c", "d")
    fill(backend, "e", kind=Kind.LOG_RESTARTED)
    fill(backend, "f")
    log = backend.log()
    tree, sizes = log.tree(), []
    while (done := log.integrate(tree, sign)) is not None:
        tree = done[0]
        sizes.append((done[1].size, done[2][-1]))
    assert sizes == [(2, "key.rotated"), (5, "log.restarted"), (6, "task.started")]


@pytest.mark.requirement("E-2")
def test_an_event_that_is_committed_late_is_not_skipped(postgres_backend: Backend) -> None:
    """Numbers are given before COMMIT, so a lower one can appear after a higher one was integrated."""
    log = postgres_backend.log()
    engine = log.database.engine
    with engine.connect() as slow:
        late = slow.exec_driver_sql(insert_of(make_event("late")) + " RETURNING ingest_id").scalar_one()
        with engine.connect() as never:
            never.exec_driver_sql(insert_of(make_event("rolled back")))
            never.rollback()
        fill(postgres_backend, "early")
        tree = integrate_all(log)
        assert keys_of(log) == ["early"]
        slow.commit()
    assert late < log.entry(0).ingest_id
    grown = log.integrate(tree, sign)
    assert grown is not None
    assert keys_of(log) == ["early", "late"]
    verify_log(log)


@pytest.mark.parametrize("size", [1, pytest.param(300, marks=pytest.mark.slow)])
def test_a_transaction_that_stops_at_any_statement_leaves_nothing(backend: Backend, size: int) -> None:
    """With 300 events there is a tile among what must not stay behind."""
    fill(backend, *(f"k{n}" for n in range(size)))
    log = backend.log()
    tree, before = log.tree(), counts(backend)
    place, reached = 0, 0

    def stop(*_details: Any) -> None:
        nonlocal reached
        reached += 1
        if reached == place:
            raise Killed

    engine, done = log.database.engine, None
    while done is None:
        place, reached = place + 1, 0
        sa.event.listen(engine, "before_cursor_execute", stop)
        sa.event.listen(engine, "commit", stop)
        with suppress(Killed):
            done = log.integrate(tree, sign)
        sa.event.remove(engine, "before_cursor_execute", stop)
        sa.event.remove(engine, "commit", stop)
        if done is None:
            assert counts(backend) == before
            assert (tree.size, tree.root) == (0, EMPTY_ROOT)
    assert place > 6, "it stopped at each of its statements"
    assert done[0].size == log.head().size == size
    assert counts(backend)["tile"] == size // 256
    verify_log(log, KEY.public)


def test_a_signer_that_fails_leaves_nothing(backend: Backend) -> None:
    fill(backend, "a")
    log, before = backend.log(), counts(backend)

    def broken(size: int, root: bytes) -> str:
        raise OSError("the key is on a disk that is gone")

    with pytest.raises(UnavailableError, match="the key is on a disk"):
        log.integrate(log.tree(), broken)
    assert counts(backend) == before
    integrate_all(log)
    assert keys_of(log) == ["a"]


def test_who_integrates_with_an_old_tree_is_told_and_changes_nothing(backend: Backend) -> None:
    log = backend.log()
    old = log.tree()
    fill(backend, "a")
    integrate_all(log)
    fill(backend, "b")
    before = counts(backend)
    for tree in (old, Tree(5)):
        with pytest.raises(ConflictError, match="another sequencer works"):
            log.integrate(tree, sign)
    assert counts(backend) == before
    integrate_all(log)
    assert keys_of(log) == ["a", "b"]


def integrate_until(backend: Backend, size: int, limit: int) -> None:
    """One of several integrators; each goes on from what the database holds when another was faster."""
    log = backend.log()
    tree = log.tree()
    while tree.size < size:
        try:
            done = log.integrate(tree, sign, limit=limit)
            tree = tree if done is None else done[0]
        except ConflictError:
            tree = log.tree()
    log.database.close()


@pytest.mark.requirement("E-2")
@pytest.mark.slow
def test_writers_and_integrators_at_once_make_one_log(backend: Backend) -> None:
    writers, each, integrators = 3, 40, 3

    def write(writer: int) -> None:
        fill(backend, *(f"w{writer}/{n}" for n in range(each)))

    with ThreadPoolExecutor(writers + integrators) as pool:
        work = [pool.submit(write, writer) for writer in range(writers)]
        work += [
            pool.submit(integrate_until, backend, writers * each, limit)
            for limit in range(1, integrators + 1)
        ]
        for done in work:
            done.result()
    found = [event.key for event in verify_log(backend.log(), KEY.public)]
    assert sorted(found) == sorted(f"w{writer}/{n}" for writer in range(writers) for n in range(each))
    for writer in range(writers):
        own = [key for key in found if key.startswith(f"w{writer}/")]
        assert own == [f"w{writer}/{n}" for n in range(each)]


# Many entries


NUMBERED_AS = {"key": "CAST(n AS text)", "occurred_us": "n", "received_us": "0", "data": "'{}'"}


def bulk(backend: Backend, last: int, *, first: int = 1) -> None:
    """Many small events at once, numbered, without going through the store."""
    numbers = f"generate_series({first}, {last}) AS s(n)"
    if backend.name == "sqlite":
        following = f"SELECT n + 1 FROM c WHERE n < {last}"  # noqa: S608
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT {first} UNION ALL {following}) SELECT n FROM c)"  # noqa: S608
    columns = ", ".join(NUMBERED_AS.get(name, "''") for name in COLUMNS)
    backend.raw(f"INSERT INTO event ({NAMES}) SELECT {columns} FROM {numbers}")  # noqa: S608


def numbered(first: int, last: int) -> list[bytes]:
    """The hashes of the same events."""
    return [
        hash_leaf(
            f'{{"actor":"","data":{{}},"deployment":"","key":"{n}","kind":"","occurred_us":{n},'
            f'"received_us":0,"release_id":"","schema_version":1,"version":"","workload":""}}'.encode()
        )
        for n in range(first, last + 1)
    ]


@pytest.mark.requirement("E-2")
@pytest.mark.slow
def test_a_tree_rebuilt_from_the_database_is_the_one_that_grew(backend: Backend) -> None:
    """At the sizes at which tiles of each level become complete, and beside them."""
    sizes = [1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 66_000]
    log = backend.log()
    tree, reference = log.tree(), Tree()
    for size in sizes:
        bulk(backend, size, first=tree.size + 1)
        reference.extend(numbered(tree.size + 1, size))
        done = log.integrate(tree, sign, limit=size)
        assert done is not None
        tree = done[0]
        rebuilt = log.tree()
        assert rebuilt.size == tree.size == reference.size == size
        assert rebuilt.root == tree.root == reference.root == log.head().root
        assert [edge for edge in rebuilt.edges if edge] == [edge for edge in reference.edges if edge]
    assert counts(backend)["tile"] == 66_000 // 256 + 1
    assert [log.root(size) for size in sizes] == [found.root for found in log.checkpoints()]
    _proofs_verify(log, sizes[-1])


def _proofs_verify(log: Log, last: int) -> None:
    chosen = random.Random(20260101)  # noqa: S311
    edges = [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, last - 1]
    places = [*edges, *(chosen.randrange(last) for _ in range(20))]
    for seq in places:
        proof = log.prove(seq)
        proof.verify(log.entry(seq).body)
        assert proof.checkpoint.note.signed_by(KEY.public)
    for size in places:
        later = chosen.choice([last, chosen.randint(size, last)])
        verify_consistency(size, log.root(size), later, log.root(later), log.prove_consistency(size, later))
    for size in (257, 1000, 65_537):
        reference = Tree()
        reference.extend(numbered(1, size))
        assert log.root(size) == reference.root


def test_proofs_from_the_store_verify_at_every_small_size(backend: Backend) -> None:
    bulk(backend, 17)
    log = backend.log()
    tree = log.tree()
    for size in range(1, 18):
        done = log.integrate(tree, sign, limit=1)
        assert done is not None
        tree = done[0]
        log.prove(size // 2).verify(log.entry(size // 2).body)
    roots = [root_of(numbered(1, size)) for size in range(18)]
    for size in range(18):
        for later in range(size, 18):
            proof = log.prove_consistency(size, later)
            verify_consistency(size, roots[size], later, roots[later], proof)


def test_places_that_the_log_does_not_have_are_said(backend: Backend) -> None:
    fill(backend, "a", "b")
    log = backend.log()
    integrate_all(log)
    fill(backend, "waits")
    for seq in (-1, 2, 10**12):
        with pytest.raises(NotFoundError, match="not in the log"):
            log.entry(seq)
        with pytest.raises(NotFoundError, match="not in the log"):
            log.prove(seq)
    waits = backend.open().events(key="waits")[0].ingest_id
    assert waits is not None
    with pytest.raises(NotFoundError, match="wait for the sequencer"):
        log.entry_of(waits)
    assert log.seqs([waits]) == {}
    assert log.seqs([]) == {}
    first = log.entry(0)
    assert log.entry_of(first.ingest_id) == first
    assert log.seqs([first.ingest_id, waits]) == {first.ingest_id: 0}


def test_what_waits_is_counted_with_its_age(backend: Backend) -> None:
    log, clock = backend.log(), ManualClock()
    assert (log.waiting().count, log.waiting().since_us) == (0, None)
    store = backend.open(clock=clock)
    for name in "ab":
        store.append(make_event(name))
        clock.advance(hours=1)
    assert (log.waiting().count, log.waiting().since_us) == (2, START_US)
    integrate_all(log)
    assert (log.waiting().count, log.waiting().since_us) == (0, None)


# Append-only


CHANGES = [
    "UPDATE leaf SET seq = seq + 10",
    "UPDATE leaf SET ingest_id = ingest_id + 10",
    "DELETE FROM leaf",
    "UPDATE tile SET level = 7",
    "DELETE FROM tile",
    "UPDATE checkpoint SET note = ''",
    "UPDATE checkpoint SET tree_size = tree_size + 1",
    "DELETE FROM checkpoint",
    "UPDATE anchor_receipt SET tree_size = tree_size + 1",
    "DELETE FROM anchor_receipt",
    "UPDATE pending SET ingest_id = ingest_id + 1",
]


@pytest.fixture
def full(backend: Backend) -> Backend:
    """A row in each table of the log."""
    bulk(backend, 256)
    log = backend.log()
    integrate_all(log)
    log.add_receipt("file:///anchor", 256)
    fill(backend, "waits")
    return backend


@pytest.mark.requirement("E-2")
def test_the_owner_of_the_database_cannot_change_the_log(full: Backend) -> None:
    before = counts(full)
    assert min(before.values()) == 1
    for statement in CHANGES:
        with pytest.raises(SQLAlchemyError, match="append-only"):
            full.raw(statement)
    assert counts(full) == before
    verify_log_rows(full)


def verify_log_rows(backend: Backend) -> None:
    log = backend.log()
    assert log.root(256) == log.head().root == log.tree().root


REPLACEMENTS = [
    "INSERT OR REPLACE INTO leaf VALUES (0, 999)",
    "INSERT OR REPLACE INTO leaf VALUES (999, 1)",
    "INSERT OR REPLACE INTO tile VALUES (0, 0, zeroblob(32), zeroblob(8192))",
    "INSERT OR REPLACE INTO checkpoint VALUES (256, zeroblob(32), 'x')",
    "INSERT OR REPLACE INTO anchor_receipt VALUES ('file:///anchor', 256)",
    "REPLACE INTO checkpoint VALUES (256, zeroblob(32), 'x')",
]


@pytest.mark.requirement("E-2")
def test_sqlite_refuses_to_replace_rows_of_the_log(sqlite_backend: Backend) -> None:
    bulk(sqlite_backend, 256)
    integrate_all(sqlite_backend.log())
    sqlite_backend.log().add_receipt("file:///anchor", 256)
    for statement in REPLACEMENTS:
        with pytest.raises(SQLAlchemyError, match="append-only"):
            sqlite_backend.raw("PRAGMA recursive_triggers = OFF", statement)
    verify_log_rows(sqlite_backend)


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("table", ["leaf", "tile", "checkpoint", "anchor_receipt"])
def test_postgresql_refuses_to_empty_a_table_of_the_log(postgres_backend: Backend, table: str) -> None:
    for first in ([], ["SET session_replication_role = replica"]):
        with pytest.raises(SQLAlchemyError, match="append-only"):
            postgres_backend.raw(*first, f"TRUNCATE {table} CASCADE")


def test_a_row_that_was_cut_out_is_missed_by_roots_and_proofs(backend: Backend) -> None:
    fill(backend, *"abcde")
    log = backend.log()
    integrate_all(log)
    if backend.name == "sqlite":
        backend.raw("DROP TRIGGER leaf_no_delete", "DELETE FROM leaf WHERE seq = 3")
    else:
        backend.raw("DROP TRIGGER leaf_no_change ON leaf", "DELETE FROM leaf WHERE seq = 3")
    questions: list[Callable[[], object]] = [log.tree, lambda: log.root(5), lambda: log.prove(0)]
    for ask in questions:
        with pytest.raises(NotFoundError, match="the log lacks hashes of level 0"):
            ask()


# Publication


@pytest.fixture
def deployment(backend: Backend, folder: Path) -> Iterator[Deployment]:
    found = deployment_on(backend, folder / "world")
    yield found
    found.log.database.close()


def anchored(deployment: Deployment) -> list[Checkpoint]:
    return [Checkpoint.parse(note) for note in anchors_of(deployment.settings)[0].history()]


def record(deployment: Deployment, *names: str) -> list[int]:
    found = [deployment.audit.append(make_event(name)).ingest_id for name in names]
    assert all(ingest_id is not None for ingest_id in found)
    return [ingest_id or 0 for ingest_id in found]


def is_anchored(deployment: Deployment, ingest_id: int) -> bool:
    names = [anchor.name for anchor in anchors_of(deployment.settings)]
    return deployment.log.is_anchored(ingest_id, names)


@pytest.mark.requirement("E-2")
def test_a_checkpoint_is_published_and_then_counts(deployment: Deployment) -> None:
    (first,) = record(deployment, "a")
    sequencer = sequencer_of(deployment)
    sequencer.start()
    assert not is_anchored(deployment, first)
    head = sequencer.step()
    assert not is_anchored(deployment, first), "in the log, and nowhere outside"
    sequencer.publish()
    sequencer.publish()
    assert head is not None
    assert [found.note for found in anchored(deployment)] == [Checkpoint.parse(head.note).note]
    assert is_anchored(deployment, first)
    assert not is_anchored(deployment, first + 1)
    assert not deployment.log.is_anchored(first, ["another anchor"])
    deployment.log.add_receipt("another anchor", 1)
    deployment.log.add_receipt("another anchor", 1)
    assert deployment.log.receipts()["another anchor"] == 1


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("at", ["before anchor", "after anchor", "before receipt"])
def test_a_kill_between_commit_and_receipt_is_made_good_at_the_restart(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Also when nothing new arrives: somebody may be waiting for this very checkpoint."""
    (first,) = record(deployment, "a")
    killed = sequencer_of(deployment)
    killed.start()
    anchor = killed._publishers[0].anchor
    publish = anchor.publish

    def die(note: str, *, after: str | None) -> str:
        if at == "after anchor":
            publish(note, after=after)
        raise Killed

    def die_at_receipt(name: str, size: int) -> None:
        raise Killed

    killed.step()
    with monkeypatch.context() as patch:
        if at == "before receipt":
            patch.setattr(deployment.log, "add_receipt", die_at_receipt)
        else:
            patch.setattr(anchor, "publish", die)
        with pytest.raises(Killed):
            killed.publish()
    assert not is_anchored(deployment, first)
    restarted = sequencer_of(deployment)
    restarted.start()
    assert restarted.step() is None
    restarted.publish()
    assert [found.size for found in anchored(deployment)] == [1]
    assert is_anchored(deployment, first)


def run_until_anchored(deployments: list[Deployment], ingest_ids: list[int]) -> None:
    """Sequencers side by side, until everything is anchored; what one of them raises is raised here."""
    stop = threading.Event()
    sequencers = [sequencer_of(deployment) for deployment in deployments]

    def stop_at_error(error: Exception) -> None:
        raise error

    with ThreadPoolExecutor(len(sequencers)) as pool:
        work = [pool.submit(sequencer.run, stop, stop_at_error) for sequencer in sequencers]
        try:
            while not all(is_anchored(deployments[0], ingest_id) for ingest_id in ingest_ids):
                for done in work:
                    assert not done.done(), done.exception()
                time.sleep(0.01)
        finally:
            stop.set()
        for done in work:
            done.result()


@pytest.mark.requirement("E-2")
@pytest.mark.slow
def test_two_sequencers_at_once_make_one_log_and_neither_stops(backend: Backend, folder: Path) -> None:
    deployments = [deployment_on(backend, folder / "world") for _ in range(2)]

    def write() -> list[int]:
        found = record(deployments[1], *map(str, range(60)))
        deployments[1].log.database.close()
        return found

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        run_until_anchored(deployments, record(deployments[0], "first"))
        run_until_anchored(deployments, writing.result())
    key = SigningKey.load(deployments[0].settings.signing_key).public
    assert len(verify_log(backend.log(), key)) == 61
    published = anchored(deployments[0])
    assert [each.size for each in published] == sorted({each.size for each in published})
    assert all(backend.log().root(each.size) == each.root for each in published)


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("published", [0, 1])
@pytest.mark.parametrize("moment", ["before the answer", "after the answer"])
def test_a_sequencer_that_read_before_another_published_does_not_call_it_a_rollback(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, moment: str, published: int
) -> None:
    """The other one integrates and publishes between this one's looks at the log and at the anchor."""
    slow, quick = sequencer_of(deployment), sequencer_of(deployment)
    for n in range(published):
        record(deployment, f"before {n}")
        quick.step()
        quick.publish()
    anchor = slow._publishers[0].anchor
    latest = anchor.latest

    def meanwhile() -> str | None:
        answer = latest()
        record(deployment, "meanwhile")
        quick.step()
        quick.publish()
        return answer if moment == "after the answer" else latest()

    with monkeypatch.context() as patch:
        patch.setattr(anchor, "latest", meanwhile)
        slow.start()
    (last,) = record(deployment, "last")
    slow.step()
    slow.step()
    slow.publish(everything=True)
    slow.publish(everything=True)
    assert [found.size for found in anchored(deployment)] == list(range(1, published + 3))
    assert is_anchored(deployment, last)


@pytest.mark.requirement("E-2")
def test_a_lost_acknowledgement_of_the_integration_is_no_second_one(
    postgres_backend: Backend, folder: Path
) -> None:
    with losing_proxy(postgres_backend) as (proxy, seen):
        deployment = deployment_on(seen, folder / "world")
        sequencer = sequencer_of(deployment)
        sequencer.start()
        (first, second) = record(deployment, "a", "b")
        proxy.lose(1, b"COMMIT")
        sequencer.step()
        assert proxy.lost == 1
        record(deployment, "c")
        proxy.lose(2, b"COMMIT")
        for _ in range(3):
            try:
                sequencer.step()
                sequencer.publish()
            except UnavailableError:
                continue
        assert proxy.lost == 3
        sequencer.publish()
        assert is_anchored(deployment, first)
        assert is_anchored(deployment, second)
    assert sorted(event.key for event in verify_log(postgres_backend.log())) == ["a", "b", "c"]


@pytest.mark.requirement("E-2")
def test_a_sequencer_stops_when_the_database_is_behind_the_anchor(
    sqlite_backend: Backend, folder: Path
) -> None:
    """It was restored from an old backup, or cut; going on would fork the log."""
    deployment = deployment_on(sqlite_backend, folder / "world")
    path = Path(sqlite_backend.url.removeprefix("sqlite:///"))
    record(deployment, "a")
    sequencer = sequencer_of(deployment)
    sequencer.step()
    sequencer.publish()
    backup = path.read_bytes()
    record(deployment, "b")
    sequencer.step()
    sequencer.publish()
    path.write_bytes(backup)
    with pytest.raises(IntegrityError, match="the anchor is ahead of the database"):
        sequencer_of(deployment).start()
    record(deployment, "other")
    forked = sequencer_of(deployment)
    forked.step()
    with pytest.raises(IntegrityError, match="the anchor holds another history"):
        forked.publish()
    assert [found.size for found in anchored(deployment)] == [1, 2]


# The key changes


def rotate(deployment: Deployment) -> None:
    """Ask for a new key; it is recorded, and confirmed once a sequencer has worked."""
    with pytest.raises(UnavailableError, match="not anchored"):
        rotate_key(deployment, actor="petra", reason="a test")


@pytest.fixture
def impatient(backend: Backend, folder: Path) -> Iterator[Deployment]:
    found = deployment_on(backend, folder / "world", wait_seconds=0)
    yield found
    found.log.database.close()


def signers(deployment: Deployment, names: dict[str, str]) -> list[str]:
    """Who signed each checkpoint, by the name that ``names`` gives to the id of its key."""
    found = []
    for head in deployment.log.checkpoints():
        note = Checkpoint.parse(head.note).note
        found += [names[key_id.hex()] for _, key_id, _ in note.signatures if key_id.hex() in names]
    return found


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("other", ["waits", "restarts", "is told of an error"])
def test_after_a_rotation_no_sequencer_signs_with_the_old_key(
    impatient: Deployment, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Not the one that integrated it, nor one beside it that still holds the old key in memory."""
    first, second = sequencer_of(impatient), sequencer_of(impatient)
    record(impatient, "a")
    second.step()
    old = first.public_key
    rotate(impatient)
    if other == "is told of an error":
        integrate = impatient.log.integrate

        def lost(*arguments: Any) -> object:
            integrate(*arguments)
            raise UnavailableError("the connection was lost after COMMIT")

        with monkeypatch.context() as patch:
            patch.setattr(impatient.log, "integrate", lost)
            with pytest.raises(UnavailableError):
                second.step()
    else:
        first.step()
        first.step()
    if other == "restarts":
        second = sequencer_of(impatient)
    record(impatient, "b")
    second.step()
    second.step()
    new = SigningKey.load(impatient.settings.signing_key).public
    assert new != old
    assert second.public_key == new
    assert signers(impatient, {old.id: "old", new.id: "new"}) == ["old", "old", "new"]


def test_asking_again_for_a_new_key_goes_on_with_the_same_one(impatient: Deployment) -> None:
    """Also later: the statement is dated, and the second one must not conflict with the first."""
    clock: Any = impatient.clock
    rotate(impatient)
    clock.advance(hours=1)
    rotate(impatient)
    sequencer = sequencer_of(impatient)
    sequencer.step()
    sequencer.publish()
    assert [event.kind for event in verify_log(impatient.log)] == [Kind.KEY_ROTATED]


# Confirmation


@pytest.mark.requirement("E-2")
def test_a_critical_event_counts_only_when_it_is_anchored(impatient: Deployment) -> None:
    with pytest.raises(UnavailableError, match="recorded, but not anchored"):
        impatient.record(Kind.HOLD_PLACED, "hold/1", actor="grace")
    (recorded,) = impatient.audit.events(kinds=[Kind.HOLD_PLACED])
    sequencer = sequencer_of(impatient)
    sequencer.step()
    with pytest.raises(UnavailableError):
        impatient.audit.confirm(recorded)
    sequencer.publish()
    impatient.audit.confirm(recorded)
    # Who tries again gets the first record.
    assert impatient.record(Kind.HOLD_PLACED, "hold/1", actor="grace") == recorded


def test_what_waits_in_a_spool_is_never_confirmed(impatient: Deployment) -> None:
    (recorded,) = (impatient.audit.append(make_event("a")),)
    sequencer = sequencer_of(impatient)
    sequencer.step()
    sequencer.publish()
    impatient.audit.confirm(recorded)
    with pytest.raises(UnavailableError, match="not anchored"):
        impatient.audit.confirm(recorded.model_copy(update={"ingest_id": None}))


# Kill


def _sequence(deployment: Deployment) -> None:
    sequencer_of(deployment).run(threading.Event(), print)


@pytest.mark.requirement("E-2")
@pytest.mark.slow
def test_killing_the_sequencer_at_any_moment_loses_and_doubles_nothing(
    backend: Backend, folder: Path
) -> None:
    deployment = deployment_on(backend, folder / "world")
    wanted: list[int] = []
    chosen = random.Random(20260101)  # noqa: S311
    for number in range(8):
        backend.close()  # a forked process must not find open connections
        process = FORK.Process(target=_sequence, args=(deployment,))
        process.start()
        wanted += record(deployment, *(f"{number}/{n}" for n in range(10)))
        time.sleep(chosen.uniform(0, 0.15))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
    run_until_anchored([deployment], wanted)
    assert len(verify_log(backend.log())) == len(wanted) == 80
    for found in anchored(deployment):
        assert backend.log().root(found.size) == found.root
