"""What every audit store promises, proved on SQLite and on PostgreSQL with the same tests."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from airlock.adapters.audit import SqlAuditStore
from airlock.adapters.supervisor import free_port
from airlock.core.audit import MAX_BODY_BYTES, Event, Kind
from airlock.core.errors import ConfigurationError, ConflictError, InvalidInputError, UnavailableError
from tests.support.deployments import ManualClock, fast_folder, messages_of

DSN = os.environ.get("AIRLOCK_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1/postgres")
FORK = multiprocessing.get_context("fork")
WRITERS, EVENTS = 4, 50


def make_event(key: str = "k", **changes: Any) -> Event:
    values: dict[str, Any] = {
        "key": key,
        "kind": Kind.TASK_STARTED,
        "occurred_us": 1_000,
        "actor": "dana",
        "deployment": "test",
        "release_id": "r-1",
        "workload": "loan-model",
        "version": "2",
        "data": {"n": 1},
    }
    return Event(**{**values, **changes})


@dataclass
class Backend:
    """One database, and a way to reach it behind the store's back, as its owner."""

    name: str
    url: str

    def open(self) -> SqlAuditStore:
        return SqlAuditStore(self.url, ManualClock())

    def raw(self, *statements: str) -> list[Any]:
        """Run SQL as the owner of the database; rows of the last statement."""
        engine = sa.create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []


class Postgres:
    """A database with a random name; each test gets a schema of its own in it, which is quick to make."""

    def __init__(self) -> None:
        self.database = f"airlock_test_{uuid.uuid4().hex}"
        self._admin = sa.create_engine(DSN, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self.run(f"CREATE DATABASE {self.database}")
        # Spares the wait for the disk; only a crash of the server could tell the difference.
        self.run(f"ALTER DATABASE {self.database} SET synchronous_commit = off")

    def run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def url(self, **changes: Any) -> str:
        url = sa.make_url(DSN).set(**{"database": self.database, **changes})
        return url.render_as_string(hide_password=False)

    def schema(self) -> Backend:
        """An empty schema."""
        name = f"test_{uuid.uuid4().hex}"
        Backend("postgresql", self.url()).raw(f"CREATE SCHEMA {name}")
        return Backend("postgresql", self.url(query={"options": f"-csearch_path={name}"}))

    def migrated(self) -> Backend:
        """A schema with the event table."""
        backend = self.schema()
        backend.open().migrate()
        return backend

    def drop(self) -> None:
        self.run(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    try:
        made = Postgres()
    except (ImportError, SQLAlchemyError) as error:
        where = sa.make_url(DSN).render_as_string(hide_password=True)
        pytest.skip(
            f"PostgreSQL does not answer at {where} ({type(error).__name__}); set AIRLOCK_TEST_POSTGRES"
        )
    yield made
    made.drop()


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as path:
        yield path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, folder: Path) -> Backend:
    """A database without the schema."""
    if request.param == "sqlite":
        return Backend("sqlite", f"sqlite:///{folder / 'home' / 'audit.db'}")
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.schema()


@pytest.fixture
def sqlite_backend(folder: Path) -> Backend:
    found = Backend("sqlite", f"sqlite:///{folder / 'audit.db'}")
    found.open().migrate()
    return found


@pytest.fixture
def postgres_backend(postgres: Postgres) -> Backend:
    return postgres.migrated()


@pytest.fixture(params=["sqlite_backend", "postgres_backend"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A migrated database."""
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(backend: Backend) -> SqlAuditStore:
    return backend.open()


def keys(store: SqlAuditStore, **filters: Any) -> list[str]:
    return [entry.event.key for entry in store.events(**filters)]


# What is recorded


@pytest.mark.requirement("E-1")
def test_an_event_comes_back_as_it_was_given(store: SqlAuditStore) -> None:
    event = make_event(
        data={"text": 'Größe "1" \n \U0001f600', "list": [1, 2.5, None, True], "deep": {"a": {}}}
    )
    recorded = store.append(event)
    assert recorded.event == event
    assert store.events() == [recorded]


def test_body_hash_and_columns_are_those_of_the_canonical_event(backend: Backend) -> None:
    event = make_event(data={"price": 1.0, "ü": "\u2028"})
    backend.open().append(event)
    columns = "body, leaf_hash, idem_key, kind, release_id, workload, version, actor, occurred_us"
    body, leaf, *fields = backend.raw(f"SELECT {columns} FROM event")[0]  # noqa: S608
    assert body.encode() == event.to_bytes()
    assert bytes(leaf) == event.leaf_hash
    assert fields == ["k", "task.started", "r-1", "loan-model", "2", "dana", 1_000]


@pytest.mark.requirement("E-1")
def test_the_same_event_at_another_time_is_one_record(store: SqlAuditStore) -> None:
    first = store.append(make_event(occurred_us=1))
    again = store.append(make_event(occurred_us=2))
    assert again == first
    assert [entry.event.occurred_us for entry in store.events()] == [1]


@pytest.mark.requirement("E-1")
def test_a_tuple_or_a_whole_float_is_no_other_content_than_its_json(store: SqlAuditStore) -> None:
    first = store.append(make_event(data={"pair": (1, 2), "n": 1.0}))
    again = store.append(make_event(data={"pair": [1, 2], "n": 1}))
    assert again.ingest_id == first.ingest_id
    assert len(store.events()) == 1


def test_other_content_under_the_same_key_is_a_conflict_recorded_once(store: SqlAuditStore) -> None:
    store.append(make_event())
    for time_us in (1, 2, 3):
        with pytest.raises(ConflictError, match="another event stands under the same key"):
            store.append(make_event(data={"n": 2}, occurred_us=time_us))
    first, conflict = (entry.event for entry in store.events())
    assert first == make_event()
    assert conflict.kind is Kind.CONFLICT
    assert (conflict.data["key"], conflict.release_id, conflict.actor) == ("k", "r-1", "dana")
    with pytest.raises(ConflictError):
        store.append(make_event(data={"n": 3}))
    assert len(store.events(kinds=[Kind.CONFLICT])) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"n": True}},  # equal to 1 for Python, not for an auditor
        {"actor": "omar"},
        {"kind": Kind.TASK_OUTCOME},
        {"version": "3"},
        {"release_id": "r-2"},
    ],
)
def test_each_field_counts_as_content(sqlite_backend: Backend, other: dict[str, Any]) -> None:
    store = sqlite_backend.open()
    store.append(make_event())
    with pytest.raises(ConflictError):
        store.append(make_event(**other))


def test_conflicts_under_keys_of_full_length_stay_apart(store: SqlAuditStore) -> None:
    key = "k" * 1000
    store.append(make_event(key))
    for n in (2, 3):
        with pytest.raises(ConflictError):
            store.append(make_event(key, data={"n": n}))
    assert len(store.events(kinds=[Kind.CONFLICT])) == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"a": "x\0y"}, "NUL"),
        ({"a": {"x\0y": 1}}, "NUL"),
        ({"a": "\\\0"}, "NUL"),
        ({"a": float("nan")}, "nan"),
        ({"a": [float("inf")]}, "inf"),
        ({"a": "\ud800"}, "canonical JSON"),
        ({"a": 2**53}, "9007199254740992"),
        ({"a": object()}, "no JSON form"),
        ({"a": b"\xff"}, "no JSON form"),
    ],
)
def test_what_has_no_canonical_form_is_refused_and_leaves_nothing(
    store: SqlAuditStore, data: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        store.append(make_event(data=data))
    assert store.events() == []


def test_data_nested_without_end_is_refused(store: SqlAuditStore) -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(InvalidInputError):
        store.append(make_event(data={"deep": deep}))


def test_text_that_only_looks_like_an_escaped_nul_is_kept(store: SqlAuditStore) -> None:
    event = make_event(data={"a": r"\u0000 and \\u0000 and \ud800"})
    store.append(event)
    assert store.events()[0].event == event


def test_a_body_on_the_limit_is_kept_and_one_byte_more_is_refused(store: SqlAuditStore) -> None:
    room = MAX_BODY_BYTES - len(make_event(data={"a": ""}).to_bytes())
    # Bytes count, not characters.
    largest = make_event(data={"a": "é" + "x" * (room - 2)})
    assert len(largest.to_bytes()) == MAX_BODY_BYTES
    store.append(largest)
    with pytest.raises(InvalidInputError, match="over the limit of 65536"):
        store.append(make_event("other", data={"a": "é" + "x" * (room - 1)}))
    assert keys(store) == ["k"]


# Reading


def test_events_come_in_the_order_they_were_recorded(store: SqlAuditStore) -> None:
    for n in range(5):
        store.append(make_event(f"k{n}", occurred_us=100 - n))
    assert keys(store) == ["k0", "k1", "k2", "k3", "k4"]
    assert keys(store, newest_first=True) == ["k4", "k3", "k2", "k1", "k0"]
    assert keys(store, limit=2) == ["k0", "k1"]
    assert keys(store, limit=2, newest_first=True) == ["k4", "k3"]


def test_filters_narrow_and_combine(store: SqlAuditStore) -> None:
    store.append(make_event("a"))
    store.append(make_event("b", release_id="r-2"))
    store.append(make_event("c", kind=Kind.CONFLICT))
    store.append(make_event("d", workload="other", release_id=""))
    assert keys(store, release_id="r-1") == ["a", "c"]
    assert keys(store, release_id="") == ["d"]
    assert keys(store, workload="other") == ["d"]
    assert keys(store, kinds=[Kind.CONFLICT]) == ["c"]
    assert keys(store, kinds=[Kind.CONFLICT, Kind.TASK_STARTED]) == ["a", "b", "c", "d"]
    assert keys(store, key="b") == ["b"]
    assert keys(store, release_id="r-1", kinds=[Kind.TASK_STARTED]) == ["a"]
    assert keys(store, release_id="r-1", key="b") == []
    assert keys(store, release_id="' OR 1=1 --") == []
    assert keys(store, release_id="r-_") == []


def test_a_question_with_a_lone_surrogate_is_refused_in_words(store: SqlAuditStore) -> None:
    with pytest.raises(InvalidInputError, match="surrogates"):
        store.events(release_id="\udcff")


# Append-only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET received_us = 0",
        "UPDATE event SET body = '{}'",
        "UPDATE event SET idem_key = 'other' WHERE ingest_id = 1",
        "DELETE FROM event",
        "DELETE FROM event WHERE ingest_id = 1",
    ],
)
def test_the_owner_of_the_database_cannot_update_or_delete(backend: Backend, statement: str) -> None:
    recorded = backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        backend.raw(statement)
    assert backend.open().events() == [recorded]


_ROW = "(idem_key, leaf_hash, body, received_us) VALUES ('k', zeroblob(32), '{\"occurred_us\":1}', 1)"
_ROW_1 = "(ingest_id, idem_key, leaf_hash, body, received_us) VALUES (1, 'new', zeroblob(32), '{}', 1)"


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT OR REPLACE INTO event {_ROW}",
        f"REPLACE INTO event {_ROW}",
        f"INSERT OR REPLACE INTO event {_ROW_1}",
        f"INSERT INTO event {_ROW} ON CONFLICT (idem_key) DO UPDATE SET body = '1'",
        "UPDATE OR REPLACE event SET received_us = 0",
    ],
)
def test_sqlite_refuses_replacement_in_every_form(sqlite_backend: Backend, statement: str) -> None:
    recorded = sqlite_backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        sqlite_backend.raw(statement)
    with pytest.raises(SQLAlchemyError, match="append-only"):
        sqlite_backend.raw("PRAGMA recursive_triggers = OFF", statement)
    assert sqlite_backend.open().events() == [recorded]


@pytest.mark.parametrize(
    "statements",
    [
        ["TRUNCATE event"],
        ["TRUNCATE event CASCADE"],
        ["SET session_replication_role = replica", "DELETE FROM event"],  # switches ordinary triggers off
        ["SET session_replication_role = replica", "TRUNCATE event"],
        [
            """
            INSERT INTO event (idem_key, leaf_hash, body, received_us)
            SELECT idem_key, leaf_hash, body, 0 FROM event
            ON CONFLICT (idem_key) DO UPDATE SET received_us = 0
            """
        ],
    ],
)
def test_postgresql_refuses_truncate_and_upsert(postgres_backend: Backend, statements: list[str]) -> None:
    recorded = postgres_backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        postgres_backend.raw(*statements)
    assert postgres_backend.open().events() == [recorded]


def test_postgresql_refuses_a_body_that_does_not_match_its_hash(postgres_backend: Backend) -> None:
    statement = (
        "INSERT INTO event (idem_key, leaf_hash, body, received_us)"
        " VALUES ('k', sha256('other'), '{\"occurred_us\":1}', 1)"
    )
    with pytest.raises(SQLAlchemyError, match="check constraint"):
        postgres_backend.raw(statement)


# Many writers


def write_many(url: str, writer: int, acknowledge: Callable[[str], None]) -> None:
    store = SqlAuditStore(url, ManualClock())
    for n in range(EVENTS):
        key = f"w{writer}/{n}"
        store.append(make_event(key, data={"writer": writer, "n": n}))
        acknowledge(key)


def exactly_all(store: SqlAuditStore) -> None:
    recorded = store.events()
    wanted = {f"w{writer}/{n}" for writer in range(WRITERS) for n in range(EVENTS)}
    assert {entry.event.key for entry in recorded} == wanted
    assert len(recorded) == len(wanted) == len({entry.ingest_id for entry in recorded})
    for writer in range(WRITERS):
        own = [entry.event.data["n"] for entry in recorded if entry.event.data["writer"] == writer]
        assert own == list(range(EVENTS))


@pytest.mark.requirement("E-1")
@pytest.mark.slow
def test_threads_lose_nothing_and_double_nothing(backend: Backend) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(write_many, backend.url, n, lambda _: None) for n in range(WRITERS)]:
            done.result()
    exactly_all(backend.open())


@pytest.mark.requirement("E-1")
@pytest.mark.slow
def test_processes_lose_nothing_and_double_nothing(backend: Backend) -> None:
    writers = [FORK.Process(target=write_many, args=(backend.url, n, lambda _: None)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    exactly_all(backend.open())


@pytest.mark.requirement("E-1")
def test_the_same_event_from_many_writers_at_once_is_one_record(backend: Backend) -> None:
    barrier = threading.Barrier(8)

    def write(time_us: int) -> int:
        barrier.wait()
        return backend.open().append(make_event(occurred_us=time_us)).ingest_id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(write, range(8)))
    assert len(ids) == 1
    assert len(backend.open().events()) == 1


@pytest.mark.requirement("R-1")
def test_of_many_contents_under_one_key_exactly_one_wins(backend: Backend) -> None:
    """Promotion rests on this: whoever records its number first may move the champion."""
    barrier = threading.Barrier(6)

    def write(n: int) -> bool:
        barrier.wait()
        try:
            backend.open().append(make_event(data={"n": n}))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(write, range(6)))
    assert won.count(True) == 1
    recorded = backend.open().events()
    assert recorded[0].event.data["n"] == won.index(True)
    assert [entry.event.kind for entry in recorded[1:]] == [Kind.CONFLICT] * 5


# Schema


def test_migrating_twice_changes_nothing(empty: Backend) -> None:
    empty.open().migrate()
    recorded = empty.open().append(make_event())
    empty.open().migrate()
    assert empty.open().events() == [recorded]


def test_migrating_at_the_same_time_makes_one_schema(empty: Backend) -> None:
    barrier = threading.Barrier(4)

    def migrate(_: int) -> None:
        store = empty.open()
        barrier.wait()
        store.migrate()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, range(4)))
    empty.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        empty.raw("DELETE FROM event")


@pytest.mark.parametrize("at", ["event_no_update", "event_no_delete", "event_no_replace", "event_kind"])
def test_a_migration_killed_in_the_middle_leaves_nothing_and_can_run_again(folder: Path, at: str) -> None:
    """Otherwise the table could stand there without the triggers that make it append-only."""
    backend = Backend("sqlite", f"sqlite:///{folder / 'audit.db'}")
    killed = backend.open()

    def die(*details: Any) -> None:
        if at in details[2]:
            raise KeyboardInterrupt

    sa.event.listen(killed._engine, "before_cursor_execute", die)
    with pytest.raises(KeyboardInterrupt):
        killed.migrate()
    assert backend.raw("SELECT name FROM sqlite_master WHERE name = 'event'") == []
    backend.open().migrate()
    backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        backend.raw("DELETE FROM event")


def test_a_missing_schema_names_the_command_that_makes_it(empty: Backend) -> None:
    for ask in (lambda: empty.open().events(), lambda: empty.open().append(make_event())):
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert "airlock audit migrate" in caught.value.fix


def test_looking_does_not_create_an_empty_store_where_one_has_gone_missing(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    store = SqlAuditStore(f"sqlite:///{path}", ManualClock())
    with pytest.raises(UnavailableError, match="not there"):
        store.events()
    with pytest.raises(UnavailableError, match="not there"):
        store.append(make_event())
    assert not path.exists()


# Failures


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://airlock:s3cret@127.0.0.1:{port}/audit",
        "postgresql+psycopg://127.0.0.1:{port}/audit?user=airlock&password=s3cret",
    ],
)
def test_an_unreachable_database_says_so_in_seconds_without_its_password(url: str) -> None:
    pytest.importorskip("psycopg")
    store = SqlAuditStore(url.format(port=free_port()), ManualClock())
    for ask in (store.events, lambda: store.append(make_event()), store.migrate):
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer") as caught:
            ask()
        assert time.monotonic() - started < 5
        assert "127.0.0.1" in caught.value.where
        assert "AIRLOCK_AUDIT_URL" in caught.value.fix
        assert "s3cret" not in messages_of(caught.value)


def test_a_database_that_does_not_exist_is_not_called_a_missing_schema(postgres: Postgres) -> None:
    store = SqlAuditStore(postgres.url(database="airlock_test_never_made"), ManualClock())
    with pytest.raises(UnavailableError, match="does not exist") as caught:
        store.events()
    assert "migrate" not in caught.value.fix


@pytest.mark.parametrize("url", ["garbage s3cret", "mysql://airlock:s3cret@host/audit", "://s3cret"])
def test_a_url_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="neither SQLite nor PostgreSQL") as caught:
        SqlAuditStore(url, ManualClock())
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_no_database_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    path.write_bytes(b"this is not a database, but it is a long enough file to be taken for one" * 10)
    before = path.read_bytes()
    store = SqlAuditStore(f"sqlite:///{path}", ManualClock())
    for ask in (store.events, lambda: store.append(make_event()), store.migrate):
        with pytest.raises(UnavailableError, match="not a database"):
            ask()
    assert path.read_bytes() == before


def whole(backend: Backend, acknowledged: list[str], *, at_most_more: int = 1) -> None:
    """Every acknowledged event is there, whole; at most the one in flight came on top."""
    store = backend.open()
    recorded = store.events()
    found = [entry.event.key for entry in recorded]
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) <= len(acknowledged) + at_most_more
    for body, leaf in backend.raw("SELECT body, leaf_hash FROM event"):
        assert Event.from_bytes(body.encode()).leaf_hash == bytes(leaf)
    if backend.name == "sqlite":
        assert backend.raw("PRAGMA integrity_check") == [("ok",)]
    store.append(make_event("after the disaster"))


def test_sqlite_waits_for_the_disk_before_it_acknowledges(sqlite_backend: Backend) -> None:
    with sqlite_backend.open()._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"


def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(sqlite_backend: Backend) -> None:
    """SQLite's own limit: pages run out in the middle of an insert."""
    store = sqlite_backend.open()
    pages = sqlite_backend.raw("PRAGMA page_count")[0][0]
    sa.event.listen(
        store._engine,
        "connect",
        lambda connection, _: connection.execute(f"PRAGMA max_page_count={pages + 8}"),
    )
    acknowledged: list[str] = []

    def fill() -> None:
        for n in range(100):
            store.append(make_event(f"k{n}", data={"a": "x" * 5_000}))
            acknowledged.append(f"k{n}")

    with pytest.raises(UnavailableError, match="full") as caught:
        fill()
    assert "free disk space" in caught.value.fix
    assert acknowledged
    whole(sqlite_backend, acknowledged, at_most_more=0)


def _fill(url: str, pipe: Any, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    store = SqlAuditStore(url, ManualClock())
    for n in range(1_000):
        try:
            store.append(make_event(f"k{n}", data={"a": "x" * 5_000}))
        except BaseException as error:  # noqa: BLE001  # the parent judges what it was
            pipe.send((type(error).__name__, str(error)))
            return
        pipe.send(f"k{n}")


@pytest.mark.parametrize("limit", [100_000, 200_001])
def test_a_write_the_system_refuses_is_unavailable_and_leaves_nothing_half_written(
    sqlite_backend: Backend, limit: int
) -> None:
    here, there = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=_fill, args=(sqlite_backend.url, there, limit))
    writer.start()
    there.close()
    acknowledged: list[str] = []
    while isinstance(message := here.recv(), str):
        acknowledged.append(message)
    writer.join(10)
    name, text = message
    assert name == "UnavailableError", text
    assert "free disk space" in text
    assert acknowledged
    whole(sqlite_backend, acknowledged, at_most_more=0)


def _write_and_tell(url: str, pipe: Any) -> None:
    write_many(url, 0, pipe.send)
    pipe.send("done")


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("after", [1, 7, 20])
def test_every_acknowledged_event_survives_the_kill_of_its_writer(backend: Backend, after: int) -> None:
    here, there = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=_write_and_tell, args=(backend.url, there))
    writer.start()
    there.close()
    acknowledged = [here.recv() for _ in range(after)]
    time.sleep(0.004)  # into the next append
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(10)
    assert writer.exitcode == -signal.SIGKILL
    while here.poll():
        try:
            acknowledged.append(here.recv())
        except EOFError:
            break
    whole(backend, acknowledged)


def test_a_connection_lost_before_commit_records_nothing_and_one_lost_after_records_once(
    postgres: Postgres, postgres_backend: Backend
) -> None:
    store = postgres_backend.open()

    def cut(connection: sa.Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        postgres.run(f"SELECT pg_terminate_backend({pid})")

    sa.event.listen(store._engine, "commit", cut)
    with pytest.raises(UnavailableError):
        store.append(make_event())
    sa.event.remove(store._engine, "commit", cut)
    assert store.events() == []
    # The acknowledgement of a commit gets lost: the caller tries again and finds its own record.
    first = store.append(make_event(occurred_us=1))
    assert store.append(make_event(occurred_us=2)) == first


def test_a_writer_waits_for_another_and_does_not_starve(sqlite_backend: Backend) -> None:
    """A reader in a long transaction blocks nobody either."""
    reader = sqlite3.connect(sqlite_backend.url.removeprefix("sqlite:///"))
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM event").fetchone() == (0,)
    started = time.monotonic()
    sqlite_backend.open().append(make_event())
    assert time.monotonic() - started < 5
    assert reader.execute("SELECT count(*) FROM event").fetchone() == (0,)
    reader.close()


# Against a model: a dict that remembers the first content of each key


CONTENTS = st.fixed_dictionaries({"n": st.sampled_from([0, 1, True, 1.5, "1", None, [1], {"a": 1}])})
STEPS = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), CONTENTS, st.integers(0, 5)), max_size=12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(steps=STEPS)
def test_any_sequence_of_appends_keeps_the_first_content_of_each_key(
    folder: Path, steps: list[tuple[str, dict[str, Any], int]]
) -> None:
    store = SqlAuditStore(f"sqlite:///{folder / uuid.uuid4().hex}", ManualClock())
    store.migrate()
    first: dict[str, Event] = {}
    conflicts: set[tuple[str, bytes]] = set()
    for key, data, time_us in steps:
        event = make_event(key, data=data, occurred_us=time_us)
        content = event.model_copy(update={"occurred_us": 0}).to_bytes()
        earlier = first.setdefault(key, event)
        if earlier.model_copy(update={"occurred_us": 0}).to_bytes() == content:
            assert store.append(event).event.occurred_us == earlier.occurred_us
        else:
            conflicts.add((key, content))
            with pytest.raises(ConflictError):
                store.append(event)
    kept = [entry.event for entry in store.events(kinds=[Kind.TASK_STARTED])]
    assert [event.to_bytes() for event in kept] == [event.to_bytes() for event in first.values()]
    assert len(store.events(kinds=[Kind.CONFLICT])) == len(conflicts)
