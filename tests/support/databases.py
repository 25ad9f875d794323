"""Databases for the audit log: SQLite in a folder in memory, PostgreSQL in a schema of its own."""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from airlock.adapters.audit import Database, Log, Spool, SqlAuditStore
from airlock.adapters.audit.columns import COLUMNS, NAMES, body_of
from airlock.adapters.audit.keys import SigningKey
from airlock.core.audit import Event, Kind
from airlock.core.merkle import Tree, root_of
from airlock.proof import EMPTY_ROOT, Checkpoint, PublicKey, hash_leaf, verify_consistency
from airlock.services.deployment import Deployment, anchors_of, immediate
from airlock.services.keys import create_key
from airlock.services.sequence import Sequencer
from tests.support.deployments import ManualClock, open_world

DSN = os.environ.get("AIRLOCK_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1/postgres")
ORIGIN = "airlock/test/0011223344556677"
KEY = SigningKey.generate(ORIGIN)


def make_event(key: str = "k", **changes: Any) -> Event:
    """An event as a task records it."""
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


def columns_of(event: Event | str) -> dict[str, Any]:
    """What an event, or the text of one, has in its columns."""
    fields = json.loads(event if isinstance(event, str) else event.to_bytes())
    data = json.dumps(fields["data"], ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return {name: data if name == "data" else fields[name] for name in COLUMNS}


def insert_of(event: Event, **changes: Any) -> str:
    """The SQL that puts an event into its table without going through the store."""
    values = [
        str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
        for value in {**columns_of(event), **changes}.values()
    ]
    return f"INSERT INTO event ({NAMES}) VALUES ({', '.join(values)})"  # noqa: S608


INSERT = f"INSERT INTO event ({NAMES}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"  # noqa: S608
"""The same with the values of ``columns_of`` as parameters."""


def sign(size: int, root: bytes) -> str:
    """A checkpoint signed by the key of these tests."""
    return KEY.sign_checkpoint(size, root, seconds=1)


def integrate_all(log: Log) -> Tree:
    """Put everything that waits into the log, and return its tree."""
    tree = log.tree()
    while (done := log.integrate(tree, sign)) is not None:
        tree = done[0]
    return tree


@dataclass
class Backend:
    """One database, and a way to reach it behind the store's back, as its owner."""

    name: str
    url: str
    server: Postgres | None = None
    opened: list[Database] = field(default_factory=list)

    def database(self) -> Database:
        """A connection pool of its own, as another process has."""
        found = Database(self.url)
        self.opened.append(found)
        return found

    def open(self, *, spool: Spool | None = None, clock: ManualClock | None = None) -> SqlAuditStore:
        return SqlAuditStore(self.database(), clock or ManualClock(), spool=spool)

    @contextmanager
    def opened_here(self) -> Iterator[SqlAuditStore]:
        """A store for one thread, which closes its connections at the end."""
        store = SqlAuditStore(self.url, ManualClock())
        yield store
        store.database.close()

    def log(self) -> Log:
        return Log(self.database())

    def raw(self, *statements: str) -> list[Any]:
        """Run SQL as the owner of the database; rows of the last statement."""
        engine = sa.create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []

    def bodies(self) -> list[bytes]:
        """The exact bytes of every event, in the order of their numbers."""
        return [body_of(row) for row in self.raw(f"SELECT {NAMES} FROM event ORDER BY ingest_id")]  # noqa: S608

    @contextmanager
    def away(self) -> Iterator[None]:
        """An outage: connections end, and new ones are refused."""
        if self.server is not None:
            with self.server.away():
                yield
            return
        path = Path(self.url.removeprefix("sqlite:///"))
        gone = path.with_suffix(".gone")
        path.rename(gone)
        try:
            yield
        finally:
            gone.rename(path)

    def close(self) -> None:
        """Close the connections that wait in pools."""
        for database in self.opened:
            database.close()


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
        return Backend("postgresql", self.url(query={"options": f"-csearch_path={name}"}), self)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections to this database, and end those there are."""
        self.run(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS false")
        ours = f"FROM pg_stat_activity WHERE datname = '{self.database}'"
        self.run(f"SELECT pg_terminate_backend(pid) {ours}")
        try:
            yield
        finally:
            self.run(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS true")

    def drop(self) -> None:
        self.run(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")


class LosingProxy:
    """Stands between a client and PostgreSQL, and cuts connections when it is told to.

    ``lose(n, b"INSERT")`` lets the next n messages with that word reach the server, which carries them
    out; instead of the answer the client sees its connection end. With ``arrive=False`` they are lost too.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._to_lose, self._word, self._arrive = 0, b"", True
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def lose(self, number: int, word: bytes, *, arrive: bool = True) -> None:
        self._to_lose, self._word, self._arrive = number, word, arrive

    def close(self) -> None:
        # Closing alone would leave the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(self._server)
        with client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            losing = False
            while True:
                for key, _ in ready.select():
                    source, target = cast("socket.socket", key.fileobj), cast("socket.socket", key.data)
                    try:
                        data = source.recv(65536)
                        if source is client and self._to_lose and self._word in data:
                            self._to_lose -= 1
                            losing = True
                            self.lost += 1
                        if not data or (losing and (source is server or not self._arrive)):
                            return
                        target.sendall(data)
                    except OSError:
                        return  # one side is gone, which ends the other


@contextmanager
def losing_proxy(backend: Backend) -> Iterator[tuple[LosingProxy, Backend]]:
    """A proxy before a PostgreSQL database, and the database as it is seen through the proxy."""
    url = sa.make_url(backend.url)
    proxy = LosingProxy(url.host or "127.0.0.1", url.port or 5432)
    query = {"sslmode": "disable", "gssencmode": "disable"}
    through = url.set(host="127.0.0.1", port=proxy.port).update_query_dict(query)
    seen = Backend(backend.name, through.render_as_string(hide_password=False))
    try:
        yield proxy, seen
    finally:
        seen.close()
        proxy.close()


def deployment_on(backend: Backend, root: Path, *, wait_seconds: float = 10) -> Deployment:
    """A deployment whose log is in this database, with a spool, an anchor and a signing key in ``root``."""
    world = open_world(root)
    base = world.deployment
    database = backend.database()
    names = immediate(anchors_of(base.settings))
    audit = SqlAuditStore(
        database, world.clock, base.vault, spool=base.spool, anchors=names, wait_seconds=wait_seconds
    )
    deployment = replace(base, audit=audit, log=Log(database))
    audit.migrate()
    if not base.settings.signing_key.exists():
        create_key(deployment)
    return deployment


def sequencer_of(deployment: Deployment) -> Sequencer:
    """A sequencer as a process of its own would open it."""
    return Sequencer(deployment, anchors_of(deployment.settings))


def bodies(log: Log, size: int) -> list[bytes]:
    """The bytes of the first entries of a log."""
    return [log.entry(seq).body for seq in range(size)]


def verify_log(log: Log, key: PublicKey | None = None) -> list[Event]:
    """Check a whole log the slow way, and return its events.

    Every entry is an event in the table, each once; every checkpoint has the root of its entries, is
    signed, and continues the one before.
    """
    head = log.head()
    entries = bodies(log, head.size)
    events = [Event.from_bytes(body) for body in entries]
    assert len({event.key for event in events}) == len(events)
    assert len({log.entry(seq).ingest_id for seq in range(head.size)}) == head.size
    hashes = [hash_leaf(body) for body in entries]
    before, before_root = 0, EMPTY_ROOT
    for found in log.checkpoints():
        signed = Checkpoint.parse(found.note)
        assert (signed.size, signed.root) == (found.size, found.root)
        assert found.root == root_of(hashes[: found.size])
        assert key is None or signed.note.signed_by(key)
        assert found.size > before
        proof = log.prove_consistency(before, found.size)
        verify_consistency(before, before_root, found.size, found.root, proof)
        before, before_root = found.size, found.root
    assert (before, before_root) == (head.size, head.root)
    rebuilt = log.tree()
    assert (rebuilt.size, rebuilt.root) == (head.size, head.root)
    return events
