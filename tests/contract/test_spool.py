"""What happens to events while the database is away, and how they come back: once, and none missing."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from airlock.adapters import evidence
from airlock.adapters.audit import Spool, SqlAuditStore
from airlock.adapters.audit import spool as spool_module
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.canonical import sha256_hex
from airlock.core.errors import ConflictError, InvalidInputError, UnavailableError
from airlock.services.deployment import Deployment, anchors_of
from airlock.services.sequence import replay_spool
from tests.support.databases import (
    Backend,
    deployment_on,
    integrate_all,
    make_event,
    sequencer_of,
    verify_log,
)
from tests.support.deployments import ManualClock
from tests.support.private_postgres import PrivatePostgres

FORK = multiprocessing.get_context("fork")
SPOOLABLE = [kind for kind in Kind if kind.spoolable]


@pytest.fixture
def spool(folder: Path) -> Spool:
    return Spool(folder / "spool")


def outcome(key: str = "k", **changes: Any) -> Event:
    """A fact that several sources report, so that the first report is the record of it."""
    return make_event(key, kind=Kind.TASK_OUTCOME, **changes)


def names(store: SqlAuditStore) -> list[str]:
    return [entry.event.key for entry in store.events()]


def safe(recorded: Recorded) -> bool:
    return True


def never(recorded: Recorded) -> bool:
    return False


# While the database is away


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("kind", SPOOLABLE)
def test_a_routine_event_waits_on_disk_while_the_database_is_away(
    backend: Backend, spool: Spool, kind: Kind
) -> None:
    event = make_event(kind=kind)
    with backend.away():
        recorded = backend.open(spool=spool).append(event)
        assert backend.open(spool=spool).append(event) == recorded
    assert (recorded.ingest_id, recorded.event) == (None, event)
    assert [spool.read(path) for path in spool.waiting()] == [event]
    assert [path.stat().st_mode & 0o777 for path in spool.waiting()] == [0o600]
    store = backend.open()
    assert names(store) == []
    assert spool.replay(store, safe) == spool_module.Replay(1, 1, ())
    assert names(store) == ["k"]
    assert spool.waiting() == []


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("kind", [kind for kind in Kind if not kind.spoolable])
def test_what_something_waits_for_is_never_put_aside(
    sqlite_backend: Backend, spool: Spool, kind: Kind
) -> None:
    """Who reads the log next must find a verdict or an approval there, or nobody may go on."""
    store = sqlite_backend.open(spool=spool)
    with sqlite_backend.away(), pytest.raises(UnavailableError, match="the audit store is not there"):
        store.append(make_event(kind=kind))
    assert spool.waiting() == []


def test_without_a_spool_an_outage_is_an_error(backend: Backend) -> None:
    with backend.away(), pytest.raises(UnavailableError):
        backend.open().append(make_event())


def test_an_event_that_could_never_be_recorded_is_refused_and_not_kept(
    backend: Backend, spool: Spool
) -> None:
    with backend.away():
        store = backend.open(spool=spool)
        for data in ({"a": "x" * 70_000}, {"a": float("nan")}, {"a": "\0"}):
            with pytest.raises(InvalidInputError):
                store.append(make_event(data=data))
    assert spool.waiting() == []


@pytest.mark.requirement("E-1")
def test_the_claimed_time_survives_the_wait_and_the_store_says_when_it_came(
    backend: Backend, spool: Spool
) -> None:
    clock = ManualClock()
    with backend.away():
        backend.open(spool=spool, clock=clock).append(make_event(occurred_us=7))
    clock.advance(hours=2)
    spool.replay(backend.open(clock=clock), safe)
    (recorded,) = backend.open().events()
    assert (recorded.event.occurred_us, recorded.event.received_us) == (7, clock.us)


# Replay


@pytest.mark.requirement("E-1")
def test_what_waited_is_recorded_once_however_often_it_is_replayed(backend: Backend, spool: Spool) -> None:
    with backend.away():
        store = backend.open(spool=spool)
        for n in range(5):
            store.append(make_event(f"k{n}"))
    for _ in range(3):
        assert spool.replay(backend.open(), never).removed == 0
    assert len(spool.waiting()) == 5
    assert spool.replay(backend.open(), safe).removed == 5
    assert spool.replay(backend.open(), safe) == spool_module.Replay(0, 0, ())
    assert sorted(names(backend.open())) == [f"k{n}" for n in range(5)]


def test_the_oldest_is_replayed_first(backend: Backend, spool: Spool) -> None:
    """Of two reports of one fact the first is the record of it, also when both waited."""
    for n in range(6):
        spool.keep(outcome(data={"source": f"s{n}"}, occurred_us=n))
        spool.keep(make_event(f"k{n}"))
    spool.replay(backend.open(), safe)
    assert names(backend.open()) == ["k", *(f"k{n}" for n in range(6))]
    assert backend.open().events(key="k")[0].event.data == {"source": "s0"}


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize(
    ("waited", "meanwhile", "conflicts"),
    [
        (make_event(occurred_us=1), make_event(occurred_us=2), 0),
        (outcome(data={"source": "operator"}), outcome(data={"source": "listener"}), 0),
        (make_event(data={"n": 1}), make_event(data={"n": 2}), 1),
        (outcome(), make_event(), 1),
    ],
    ids=["same content", "first wins", "other content", "other kind"],
)
def test_an_event_that_was_recorded_meanwhile_stands_once(
    backend: Backend, spool: Spool, waited: Event, meanwhile: Event, conflicts: int
) -> None:
    with backend.away():
        backend.open(spool=spool).append(waited)
    first = backend.open().append(meanwhile)
    for _ in range(2):
        spool.replay(backend.open(), never)
    store = backend.open()
    assert store.events(key="k") == [first]
    assert len(store.events(kinds=[Kind.CONFLICT])) == conflicts
    assert len(store.events()) == 1 + conflicts
    spool.replay(store, safe)
    assert spool.waiting() == []


def test_a_conflict_must_be_safe_too_before_the_file_goes(backend: Backend, spool: Spool) -> None:
    spool.keep(make_event(data={"n": 1}))
    first = backend.open().append(make_event(data={"n": 2}))
    asked: list[Recorded] = []

    def is_safe(recorded: Recorded) -> bool:
        asked.append(recorded)
        return len(asked) > 1

    assert spool.replay(backend.open(), is_safe).removed == 0
    assert spool.replay(backend.open(), is_safe).removed == 1
    assert {entry.event.kind for entry in asked} == {Kind.CONFLICT}
    assert first not in asked


@pytest.fixture
def deployment(backend: Backend, folder: Path) -> Iterator[Deployment]:
    found = deployment_on(backend, folder / "world")
    yield found
    found.log.database.close()


@pytest.mark.requirement("E-1")
def test_a_record_stays_until_an_anchor_outside_the_database_covers_its_event(
    backend: Backend, deployment: Deployment
) -> None:
    """Restored from a backup before that, the database would have lost it."""
    anchors = anchors_of(deployment.settings)
    with backend.away():
        assert deployment.audit.append(make_event()).ingest_id is None
        with pytest.raises(UnavailableError):
            replay_spool(deployment, anchors)
    sequencer = sequencer_of(deployment)
    assert replay_spool(deployment, anchors).removed == 0, "recorded"
    sequencer.step()
    assert replay_spool(deployment, anchors).removed == 0, "in the log"
    sequencer.publish()
    assert replay_spool(deployment, anchors).removed == 1, "anchored"
    assert deployment.spool.waiting() == []
    assert [event.key for event in verify_log(deployment.log)] == ["k"]


def test_what_is_replayed_during_an_outage_does_not_come_back_as_a_new_file(
    backend: Backend, deployment: Deployment
) -> None:
    with backend.away():
        deployment.audit.append(make_event())
        before = deployment.spool.waiting()
        with pytest.raises(UnavailableError):
            replay_spool(deployment, anchors_of(deployment.settings))
        assert deployment.spool.waiting() == before


@pytest.mark.requirement("E-1")
@pytest.mark.slow
def test_two_replays_at_once_double_nothing_and_neither_stops(backend: Backend, spool: Spool) -> None:
    wanted = [f"k{n}" for n in range(30)]
    for name in wanted:
        spool.keep(make_event(name))
    for n in range(10):
        (spool.folder / f"{n:064}.event").write_bytes(b"torn")
    barrier = threading.Barrier(3)

    def replay(_: int) -> spool_module.Replay:
        store = backend.open()
        barrier.wait()
        done = spool.replay(store, safe)
        store.database.close()
        return done

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(replay, range(3)))
    assert sorted(names(backend.open())) == sorted(wanted)
    assert spool.waiting() == []
    assert sorted(path for each in done for path in each.damaged) == sorted(spool.damaged())
    assert len(spool.damaged()) == 10


def test_appends_and_a_replay_at_once_lose_nothing(sqlite_backend: Backend, spool: Spool) -> None:
    stop = threading.Event()

    def replay() -> None:
        while not stop.is_set():
            spool.replay(sqlite_backend.open(), safe)

    with ThreadPoolExecutor(1) as pool:
        replaying = pool.submit(replay)
        for n in range(40):
            spool.keep(make_event(f"k{n % 20}"))
        stop.set()
        replaying.result()
    spool.replay(sqlite_backend.open(), safe)
    assert sorted(names(sqlite_backend.open())) == sorted(f"k{n}" for n in range(20))


# Damage


def place(spool: Spool, data: bytes, content: bytes) -> Path:
    """A file with the name of ``data`` and other content."""
    path = spool.folder / f"{sha256_hex(data)}.event"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.requirement("E-1")
def test_a_record_torn_at_any_byte_is_set_aside_and_never_believed(
    sqlite_backend: Backend, spool: Spool
) -> None:
    data = make_event("torn").to_bytes()
    store = sqlite_backend.open()
    for end in range(len(data)):
        path = place(spool, data, data[:end])
        done = spool.replay(store, safe)
        aside = path.with_suffix(".damaged")
        assert (done.replayed, done.damaged) == (0, (aside,))
        assert (spool.waiting(), spool.damaged()) == ([], [aside])
        assert aside.read_bytes() == data[:end]
    # Zeros are what some file systems leave behind.
    for content in (bytes(len(data)), data[:100] + bytes(len(data) - 100), data + b"\0", data + data, b""):
        place(spool, data, content)
        assert len(spool.replay(store, safe).damaged) == 1
    assert store.events() == []


def test_a_flipped_bit_anywhere_is_noticed(sqlite_backend: Backend, spool: Spool) -> None:
    data = make_event("flipped").to_bytes()
    store = sqlite_backend.open()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        place(spool, data, bytes(changed))
        assert len(spool.replay(store, safe).damaged) == 1, at
    assert store.events() == []


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"key":"k","key":"k"}',
    make_event().to_bytes().replace(b'"task.started"', b'"no.such.kind"'),
    make_event().to_bytes()[:-1] + b',"more":1}',
    make_event(kind=Kind.APPROVAL_RECORDED).to_bytes(),
    make_event(kind=Kind.CONFLICT).to_bytes(),
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_file_with_the_right_name_that_nobody_kept_is_not_believed(
    sqlite_backend: Backend, spool: Spool, content: bytes
) -> None:
    """Approvals above all: whoever can write a file here must not write one of those."""
    path = place(spool, content, content)
    spool.keep(make_event("good"))
    done = spool.replay(sqlite_backend.open(), safe)
    assert (done.replayed, done.damaged) == (1, (path.with_suffix(".damaged"),))
    assert names(sqlite_backend.open()) == ["good"]


def test_what_cannot_be_read_is_reported_and_holds_nothing_up(sqlite_backend: Backend, spool: Spool) -> None:
    spool.keep(make_event("good"))
    odd = spool.folder / "folder.event"
    odd.mkdir()
    for _ in range(2):
        done = spool.replay(sqlite_backend.open(), safe)
        assert done.damaged == (odd,)
    assert names(sqlite_backend.open()) == ["good"]


def test_other_files_in_the_folder_are_left_alone(sqlite_backend: Backend, spool: Spool) -> None:
    spool.folder.mkdir()
    for name in (".writing-abc", "note.txt", "x.damaged"):
        (spool.folder / name).write_bytes(b"x")
    assert spool.replay(sqlite_backend.open(), safe) == spool_module.Replay(0, 0, ())
    assert len(list(spool.folder.iterdir())) == 3


# The disk


def test_a_spool_that_cannot_be_used_is_an_error_and_not_an_empty_one(
    sqlite_backend: Backend, spool: Spool
) -> None:
    spool.folder.write_text("a file where the folder should be")
    asks: list[Callable[[], object]] = [
        lambda: spool.keep(make_event()),
        lambda: spool.replay(sqlite_backend.open(), safe),
        spool.waiting,
        spool.damaged,
    ]
    for ask in asks:
        with pytest.raises(UnavailableError, match="the spool cannot be read") as caught:
            ask()
        assert "AIRLOCK_SPOOL_DIR" in caught.value.fix


@pytest.mark.parametrize("name", ["mkstemp", "fsync", "replace"])
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(
    sqlite_backend: Backend, spool: Spool, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spool.keep(make_event("before"))
    before = sorted(spool.folder.iterdir())

    def full(*_arguments: Any, **_named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    owner: Any = {"mkstemp": tempfile, "fsync": os, "replace": Path}[name]
    store = sqlite_backend.open(spool=spool)
    with monkeypatch.context() as patch, sqlite_backend.away():
        patch.setattr(owner, name, full)
        with pytest.raises(UnavailableError, match="No space left") as caught:
            store.append(make_event("lost"))
        assert "free disk space" in caught.value.fix
    assert sorted(spool.folder.iterdir()) == before
    store.append(make_event("lost"))


def _keep_on_a_full_disk(folder: Path, pipe: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
    spool = Spool(folder)
    for size in (10, 5_000):
        try:
            spool.keep(make_event(f"k{size}", data={"a": "x" * size}))
        except BaseException as error:  # noqa: BLE001  # the parent judges what it was
            pipe.send(type(error).__name__)
        else:
            pipe.send("kept")


def test_a_write_that_the_system_refuses_leaves_nothing_half_written(spool: Spool) -> None:
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_keep_on_a_full_disk, args=(spool.folder, there))
    process.start()
    assert [here.recv(), here.recv()] == ["kept", "UnavailableError"]
    process.join(10)
    assert [spool.read(path).key for path in spool.waiting()] == ["k10"]
    assert len(list(spool.folder.iterdir())) == 1


def test_a_spool_has_an_end(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_RECORDS", 3)
    for n in range(3):
        spool.keep(make_event(f"k{n}"))
    with pytest.raises(UnavailableError, match="3 events wait in the spool already"):
        spool.keep(make_event("one more"))


# Kill


def _keep_and_die(folder: Path, pipe: Any, place: int) -> None:
    """Keep events; die at the n-th line that is executed while the last one is kept."""
    spool = Spool(folder)
    spool.keep(make_event("first"))
    pipe.send("first")
    files = (spool_module.__file__, evidence.__file__)
    reached = 0

    def trace(frame: FrameType, happening: str, argument: Any) -> Any:
        nonlocal reached
        if frame.f_code.co_filename not in files:
            return None
        reached += happening in ("line", "return")
        if reached == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    spool.keep(make_event("second"))
    pipe.send("second")
    sys.settrace(None)


@pytest.mark.requirement("E-1")
@pytest.mark.slow
def test_a_kill_at_any_line_of_keeping_loses_nothing_that_was_acknowledged(
    sqlite_backend: Backend, folder: Path
) -> None:
    places = 0
    while True:
        places += 1
        spool = Spool(folder / f"spool-{places}")
        here, there = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_keep_and_die, args=(spool.folder, there, places))
        process.start()
        there.close()
        acknowledged = []
        try:
            while True:
                acknowledged.append(here.recv())
        except EOFError:
            process.join(10)
        kept = [spool.read(path).key for path in spool.waiting()]
        assert set(acknowledged) <= set(kept) <= {"first", "second"}
        done = spool.replay(sqlite_backend.open(), safe)
        assert (done.replayed, done.damaged) == (len(kept), ())
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert acknowledged == ["first", "second"]
    assert places > 15, "it died at every line"
    assert sorted(names(sqlite_backend.open())) == ["first", "second"]


# A real server that stops


def _record_until_told(url: str, folder: Path, writer: int, pipe: Any) -> None:
    store = SqlAuditStore(url, ManualClock(), spool=Spool(folder))
    n = 0
    while not pipe.poll():
        try:
            store.append(outcome(f"w{writer}/{n}", data={"writer": writer}))
        except (UnavailableError, ConflictError) as error:
            pipe.send(repr(error))
            return
        n += 1
    pipe.send(n)


@pytest.mark.requirement("E-1")
@pytest.mark.slow
def test_no_acknowledged_event_is_lost_when_the_server_is_killed_under_its_writers(
    private: PrivatePostgres, spool: Spool
) -> None:
    backend = Backend("postgresql", private.url)
    backend.open().migrate()
    backend.close()
    pipes = []
    for writer in range(3):
        here, there = FORK.Pipe()
        process = FORK.Process(target=_record_until_told, args=(private.url, spool.folder, writer, there))
        process.start()
        pipes.append((process, here))
    wait_for(lambda: len(backend.open().events()) > 20)
    backend.close()
    private.kill()
    wait_for(lambda: len(spool.waiting()) > 20)
    private.start()
    wait_for(lambda: len(backend.open().events(newest_first=True, limit=200)) == 200)
    written = {}
    for writer, (process, here) in enumerate(pipes):
        here.send("stop")
        written[writer] = here.recv()
        process.join(20)
    assert all(isinstance(count, int) for count in written.values()), written
    assert len(spool.waiting()) > 20
    for replaying in (spool, Spool(spool.folder)):  # a second process sends everything again
        while (done := replaying.replay(backend.open(), never)).replayed:
            assert done.damaged == ()
    found = names(backend.open())
    assert sorted(found) == sorted(
        f"w{writer}/{n}" for writer, count in written.items() for n in range(count)
    )
    integrate_all(backend.log())
    assert sorted(event.key for event in verify_log(backend.log())) == sorted(found)
    backend.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll; the test's own time limit ends a wait without end."""
    pause = threading.Event()
    while True:
        try:
            if condition():
                return
        except UnavailableError:
            pass  # it is starting
        pause.wait(0.05)
