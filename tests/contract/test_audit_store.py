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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from airlock.adapters.audit import SqlAuditStore, Vault
from airlock.adapters.audit.columns import COLUMNS, NAMES, body_of, event_of, values_of
from airlock.adapters.audit.schema import schema_problems
from airlock.core.audit import MAX_BODY_BYTES, Event, Kind
from airlock.core.errors import ConfigurationError, ConflictError, InvalidInputError, UnavailableError
from airlock.proof import hash_leaf
from tests.support.databases import Backend, Postgres, insert_of, integrate_all, losing_proxy, make_event
from tests.support.deployments import START_US, ManualClock, messages_of
from tests.support.ports import free_port
from tests.support.private_postgres import PrivatePostgres

FORK = multiprocessing.get_context("fork")
WRITERS, EVENTS = 4, 50


def received(event: Event) -> Event:
    """An event as it stands in a store whose clock stands still."""
    return event.model_copy(update={"received_us": START_US})


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event that can be recorded."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    number = st.integers(0, 2**53 - 1)
    leaf = st.none() | st.booleans() | number | st.floats(allow_nan=False, allow_infinity=False) | text
    nested = st.recursive(
        leaf, lambda one: st.lists(one, max_size=3) | st.dictionaries(text, one, max_size=3)
    )
    names = ("deployment", "release_id", "workload", "version")
    return make_event(
        draw(text.filter(bool)),
        actor=draw(text.filter(bool)),
        kind=draw(st.sampled_from(list(Kind))),
        occurred_us=draw(number),
        received_us=draw(number),
        data=draw(st.dictionaries(text, nested, max_size=4)),
        **{name: draw(text) for name in names},
    )


def keys(store: SqlAuditStore, **filters: Any) -> list[str]:
    return [entry.event.key for entry in store.events(**filters)]


# What is recorded


@pytest.mark.requirement("E-1")
def test_an_event_comes_back_as_it_was_given(store: SqlAuditStore) -> None:
    event = make_event(
        data={"text": 'Größe "1" \n \U0001f600', "list": [1, 2.5, None, True], "deep": {"a": {}}}
    )
    recorded = store.append(event)
    assert recorded.event == received(event)
    assert store.events() == [recorded]


def test_columns_bytes_and_hash_are_those_of_the_canonical_event(backend: Backend) -> None:
    event = received(make_event(data={"price": 1.0, "ü": "\u2028"}))
    backend.open().append(event)
    columns = "kind, release_id, workload, version, actor, occurred_us"
    fields = list(backend.raw(f"SELECT {columns} FROM event")[0])  # noqa: S608
    assert backend.bodies() == [event.to_bytes()]
    assert integrate_all(backend.log()).root == hash_leaf(event.to_bytes())
    assert fields == ["task.started", "r-1", "loan-model", "2", "dana", 1_000]


def test_the_time_of_receipt_is_the_store_s_and_not_the_writer_s(store: SqlAuditStore) -> None:
    recorded = store.append(make_event(received_us=1))
    assert recorded.event.received_us == START_US
    assert store.append(make_event(received_us=2)) == recorded


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
    assert first == received(make_event())
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
    assert store.events()[0].event == received(event)


def test_a_body_on_the_limit_is_kept_and_one_byte_more_is_refused(store: SqlAuditStore) -> None:
    room = MAX_BODY_BYTES - len(received(make_event(data={"a": ""})).to_bytes())
    # Bytes count, not characters.
    largest = make_event(data={"a": "é" + "x" * (room - 2)})
    assert len(received(largest).to_bytes()) == MAX_BODY_BYTES
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


TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from(["\\", "\\x", "'", '"', "%", "{}", "\\u0000", "é", "\U0001f600"])).map("".join),
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(key=TEXTS, text=TEXTS)
def test_whatever_text_is_in_an_event_it_is_kept_and_found_by_its_key(
    store: SqlAuditStore, key: str, text: str
) -> None:
    """PostgreSQL looks for a hash of the key that it computes itself, from bytes written as text."""
    unique = f"{key}{uuid.uuid4()}"
    event = make_event(unique, actor=text or "x", release_id=text, data={"text": text, text: [text]})
    recorded = store.append(event)
    assert recorded.event == received(event)
    assert store.events(key=unique) == [recorded]
    assert store.append(event) == recorded
    assert recorded in store.events(release_id=text)


# Append-only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET data = data",
        "UPDATE event SET data = '{}'",
        "UPDATE event SET actor = 'omar' WHERE ingest_id = 1",
        "DELETE FROM event",
        "DELETE FROM event WHERE ingest_id = 1",
    ],
)
def test_the_owner_of_the_database_cannot_update_or_delete(backend: Backend, statement: str) -> None:
    recorded = backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        backend.raw(statement)
    assert backend.open().events() == [recorded]


_RENAMED = NAMES.replace("key", "'new'")
_SAME_KEY = f"({NAMES}) SELECT {NAMES} FROM event"  # noqa: S608
_SAME_ID = f"(ingest_id, {NAMES}) SELECT 1, {_RENAMED} FROM event"  # noqa: S608


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT OR REPLACE INTO event {_SAME_KEY}",
        f"REPLACE INTO event {_SAME_KEY}",
        f"INSERT OR REPLACE INTO event {_SAME_ID}",
        f"INSERT INTO event {_SAME_KEY} WHERE true ON CONFLICT (key) DO UPDATE SET data = '1'",
        f"INSERT INTO event {_SAME_ID} WHERE true ON CONFLICT (ingest_id) DO UPDATE SET data = '1'",
        "UPDATE OR REPLACE event SET data = '{}'",
        "UPDATE OR REPLACE event SET ingest_id = 2",
    ],
)
def test_sqlite_refuses_replacement_in_every_form(sqlite_backend: Backend, statement: str) -> None:
    recorded = sqlite_backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        sqlite_backend.raw(statement)
    with pytest.raises(SQLAlchemyError, match="append-only"):
        sqlite_backend.raw("PRAGMA recursive_triggers = OFF", statement)
    assert sqlite_backend.open().events() == [recorded]


_UPSERT_ID = f"""
    INSERT INTO event (ingest_id, {NAMES}) OVERRIDING SYSTEM VALUE SELECT ingest_id, {NAMES} FROM event
    ON CONFLICT (ingest_id) DO UPDATE SET data = '{{}}'
"""  # noqa: S608


@pytest.mark.parametrize(
    "statements",
    [
        ["TRUNCATE event"],
        ["TRUNCATE event CASCADE"],
        ["SET session_replication_role = replica", "DELETE FROM event"],  # switches ordinary triggers off
        ["SET session_replication_role = replica", "TRUNCATE event"],
        [_UPSERT_ID],
    ],
)
def test_postgresql_refuses_truncate_and_upsert(postgres_backend: Backend, statements: list[str]) -> None:
    recorded = postgres_backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        postgres_backend.raw(*statements)
    assert postgres_backend.open().events() == [recorded]


@pytest.mark.parametrize("data", ["", "x", "[]", "null", '{"a":', "{}{}", '{"a":1,}'])
def test_what_is_no_object_is_refused_by_the_database_too(backend: Backend, data: str) -> None:
    """A reader could not go on behind it."""
    with pytest.raises(SQLAlchemyError, match=r"(?i)check constraint|json"):
        backend.raw(insert_of(make_event(), data=data))
    assert backend.raw("SELECT * FROM event") == []


def test_a_log_of_the_first_form_is_upgraded(empty: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade
    with monkeypatch.context() as before:
        before.setattr(command, "upgrade", lambda config, _: upgrade(config, "v1_fields"))
        empty.open().migrate()
    recorded = empty.open().append(make_event("before"))
    empty.open().migrate()
    assert schema_problems(empty.database()) == []
    assert empty.open().events() == [recorded]
    with pytest.raises(SQLAlchemyError, match=r"(?i)check constraint"):
        empty.raw(insert_of(make_event("after"), data="[]"))
    assert empty.open().append(make_event("after")).ingest_id


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_may_be_left_out(backend: Backend, column: str) -> None:
    """The bytes of an event follow from all of them."""
    others = ", ".join(name for name in COLUMNS if name != column)
    renamed = others.replace("key", "'new'")
    backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match=r"(?i)not.null"):
        backend.raw(f"INSERT INTO event ({others}) SELECT {renamed} FROM event")  # noqa: S608


@given(event=events())
def test_the_bytes_of_an_event_follow_from_its_columns(event: Event) -> None:
    assert body_of(values_of(event)) == event.to_bytes()
    assert event_of(values_of(event)).to_bytes() == event.to_bytes()


@pytest.mark.parametrize("name", ["actor", "deployment", "key", "release_id", "version", "workload"])
def test_a_field_that_cannot_be_stored_is_refused_with_words(backend: Backend, name: str) -> None:
    with pytest.raises(InvalidInputError, match="NUL"):
        backend.open().append(make_event(**{name: "x\0y"}))
    assert backend.raw("SELECT * FROM event") == []


def test_a_body_over_the_limit_is_refused_by_the_database_too(backend: Backend) -> None:
    event = received(make_event(data={"a": "é" * (MAX_BODY_BYTES // 2)}))
    assert len(event.to_bytes().decode()) < MAX_BODY_BYTES < len(event.to_bytes())
    with pytest.raises(SQLAlchemyError, match=r"(?i)check constraint"):
        backend.raw(insert_of(event))


# Many writers


def write_many(url: str, writer: int, acknowledge: Callable[[str], None]) -> None:
    store = SqlAuditStore(url, ManualClock())
    for n in range(EVENTS):
        key = f"w{writer}/{n}"
        store.append(make_event(key, data={"writer": writer, "n": n}))
        acknowledge(key)
    store.database.close()


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

    def write(time_us: int) -> int | None:
        barrier.wait()
        with backend.opened_here() as store:
            return store.append(make_event(occurred_us=time_us)).ingest_id

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
        with backend.opened_here() as store:
            try:
                store.append(make_event(data={"n": n}))
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


def test_a_log_of_another_form_is_left_alone_and_named(empty: Backend) -> None:
    empty.open().migrate()
    empty.raw("UPDATE airlock_alembic_version SET version_num = '0001'")
    with pytest.raises(ConfigurationError, match="does not know") as caught:
        empty.open().migrate()
    assert "begin a log in another database" in caught.value.fix


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


@pytest.mark.parametrize(
    "at",
    [
        "event_no_update",
        "event_no_delete",
        "event_no_replace",
        "personal_no_update",
        "event_queue",
        "event_key",
        "event_kind",
    ],
)
def test_a_migration_killed_in_the_middle_leaves_nothing_and_can_run_again(folder: Path, at: str) -> None:
    """Otherwise the table could stand there without the triggers that make it append-only."""
    backend = Backend("sqlite", f"sqlite:///{folder / 'audit.db'}")
    killed = backend.open()

    def die(*details: Any) -> None:
        if at in details[2]:
            raise KeyboardInterrupt

    sa.event.listen(killed.database.engine, "before_cursor_execute", die)
    with pytest.raises(KeyboardInterrupt):
        killed.migrate()
    assert backend.raw("SELECT name FROM sqlite_master WHERE name = 'event'") == []
    backend.open().migrate()
    backend.open().append(make_event())
    with pytest.raises(SQLAlchemyError, match="append-only"):
        backend.raw("DELETE FROM event")


def test_a_missing_schema_names_the_command_that_makes_it(empty: Backend) -> None:
    store = empty.open()
    for ask in (store.events, lambda: store.append(make_event())):
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert "airlock audit migrate" in caught.value.fix
    empty.open().migrate()
    store.append(make_event())
    assert keys(store) == ["k"], "who asked too early need not be restarted"


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
        assert time.monotonic() - started < 30
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
    for body in backend.bodies():
        assert Event.from_bytes(body).to_bytes() == body
    assert integrate_all(backend.log()).size == len(found)
    if backend.name == "sqlite":
        assert backend.raw("PRAGMA integrity_check") == [("ok",)]
    store.append(make_event("after the disaster"))


def test_sqlite_waits_for_the_disk_before_it_acknowledges(sqlite_backend: Backend) -> None:
    with sqlite_backend.open().database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"


def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(sqlite_backend: Backend) -> None:
    """SQLite's own limit: pages run out in the middle of an insert."""
    store = sqlite_backend.open()
    pages = sqlite_backend.raw("PRAGMA page_count")[0][0]
    sa.event.listen(
        store.database.engine,
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


@pytest.mark.slow
def test_postgresql_without_space_is_unavailable_and_goes_on_when_there_is_some(
    private: PrivatePostgres,
) -> None:
    backend = Backend("postgresql", private.url)
    backend.open().migrate()
    backend.close()
    # The write-ahead log is in files of 16 MB, which have to be possible.
    private.limit_files(17_000_000)
    store = backend.open()
    acknowledged: list[str] = []

    def fill() -> None:
        for n in range(5_000):
            store.append(make_event(f"k{n}", data={"a": os.urandom(10_000).hex()}))
            acknowledged.append(f"k{n}")

    with pytest.raises(UnavailableError, match="could not extend file") as caught:
        fill()
    assert "free disk space" in caught.value.fix
    backend.close()
    private.limit_files(None)
    assert len(acknowledged) > 100
    whole(backend, acknowledged, at_most_more=0)
    backend.close()


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


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("kind", [Kind.TASK_STARTED, Kind.RELEASE_SUBMITTED])
def test_a_connection_lost_before_the_event_arrives_records_nothing_or_tries_again(
    postgres_backend: Backend, kind: Kind
) -> None:
    event = make_event(kind=kind)
    with losing_proxy(postgres_backend) as (proxy, seen):
        store = seen.open()
        # The event itself is the word to look for: how it is sent is the store's own affair.
        proxy.lose(2, b"loan-model", arrive=False)
        with pytest.raises(UnavailableError):
            store.append(event)
        assert store.events() == []
        # Lost once, it is tried again at once, and nobody notices.
        proxy.lose(1, b"loan-model", arrive=False)
        first = store.append(event)
        assert store.events() == [first]
    assert proxy.lost == 3


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("kind", [Kind.TASK_STARTED, Kind.RELEASE_SUBMITTED])
def test_a_lost_acknowledgement_leaves_one_record(
    postgres_backend: Backend, tmp_path: Path, kind: Kind
) -> None:
    """The server carried it out, and the writer never heard of it."""
    # What people wrote is more than one statement, so that there is a COMMIT to lose.
    data, word = {"context": "why"}, b"COMMIT"
    if not kind.personal:
        word = b"loan-model"
    vault = Vault(tmp_path / "key")
    vault.ensure()
    with losing_proxy(postgres_backend) as (proxy, seen):
        store = SqlAuditStore(seen.database(), ManualClock(), vault)
        proxy.lose(1, word)
        first = store.append(make_event("a", kind=kind, data=data, occurred_us=1))
        assert (proxy.lost, store.events()) == (1, [first])
        proxy.lose(2, word)
        with pytest.raises(UnavailableError):
            store.append(make_event("b", kind=kind, data=data, occurred_us=1))
        again = store.append(make_event("b", kind=kind, data=data, occurred_us=2))
        assert proxy.lost == 3
        assert again.event.occurred_us == 1
        assert store.events() == [first, again]


def test_a_writer_waits_for_another_and_does_not_starve(sqlite_backend: Backend) -> None:
    """A reader in a long transaction blocks nobody either."""
    reader = sqlite3.connect(sqlite_backend.url.removeprefix("sqlite:///"))
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM event").fetchone() == (0,)
    started = time.monotonic()
    sqlite_backend.open().append(make_event())
    assert time.monotonic() - started < 30
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
    assert [event.to_bytes() for event in kept] == [received(event).to_bytes() for event in first.values()]
    assert len(store.events(kinds=[Kind.CONFLICT])) == len(conflicts)
