"""The database of the audit log: connections, the queue of SQLite's writers, errors in words."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from airlock import __version__
from airlock.adapters.system import writing
from airlock.core.errors import ConfigurationError, InvalidInputError, UnavailableError

_BUSY_SECONDS = 30
_ANYBODY_WRITES = 0o222
_MIGRATE = "create the schema with `airlock audit migrate`"
_SCHEMA_LOCK = 7203410
_APPEND = b"airlock_append"
_COMMAND_OK, _TUPLES_OK = 1, 2
"""Of libpq's ``ExecStatusType``."""

T = TypeVar("T")


class Database:
    """One audit database. Writers of SQLite queue at a file lock; PostgreSQL needs none."""

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        """Whether this is SQLite and not PostgreSQL."""
        arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS} if self.sqlite else {"connect_timeout": 10}
        # A connection to PostgreSQL costs more than an append, so one is kept for each thread that writes.
        pool: dict[str, Any] = (
            {"poolclass": NullPool} if self.sqlite else {"pool_size": 1, "max_overflow": 64}
        )
        try:
            self.engine = sa.create_engine(self.url, connect_args=arguments, **pool)
        except (ImportError, SQLAlchemyError) as error:
            raise ConfigurationError(
                f"the driver of the audit store cannot be loaded: {error}",
                where=self.where,
                fix="install the extra `cluster`, or correct AIRLOCK_AUDIT_URL",
            ) from error
        self._kept = threading.local()
        _DATABASES.add(self)
        if self.sqlite:
            sa.event.listen(self.engine, "connect", _durable_sqlite)
            # Python's driver would commit each statement of a migration by itself; a real transaction
            # makes it all or nothing.
            sa.event.listen(self.engine, "begin", _begin_sqlite)

    @property
    def where(self) -> str:
        """The URL without its secrets."""
        hidden = dict.fromkeys({"password", "passfile", "sslpassword"} & set(self.url.query), "***")
        return self.url.update_query_dict(hidden).render_as_string(hide_password=True)

    def migrate(self) -> None:
        """Create or upgrade the schema; safe to repeat and to run twice at once.

        Raises:
            ConfigurationError: the schema was made by a version of Airlock that this one does not know.
            UnavailableError: the database does not answer.
        """
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        if self.sqlite and self.url.database:
            with writing(Path(self.url.database)):
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        with self._translated(), self._begin() as connection:
            if not self.sqlite:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise ConfigurationError(
                    f"this audit log has a form that Airlock {__version__} does not know: {error}",
                    where=self.url.render_as_string(hide_password=True),
                    fix="open it with the Airlock that made it, or begin a log in another database",
                ) from error

    def insert(self, statement: str, values: Sequence[bytes]) -> int | None:
        """Run one INSERT of PostgreSQL that is a transaction by itself, and return its number or ``None``.

        Every task waits for this, so it is one round trip on a connection that each thread keeps, prepared
        once and sent straight through libpq: psycopg's own cursor would take several times as long as the
        rest of an append. Errors and the second try as ``write``.
        """
        try:
            return self._insert(statement, values)
        except self.engine.dialect.loaded_dbapi.Error as error:
            with self._translated():
                return self._insert_again(statement, values, error)

    def _insert_again(self, statement: str, values: Sequence[bytes], error: Exception) -> int | None:
        if not self._drop_lost():
            raise DBAPIError(statement, None, error) from error
        try:
            return self._insert(statement, values)
        except self.engine.dialect.loaded_dbapi.Error as again:
            self._drop_lost()  # so that the next append has both of its tries
            raise DBAPIError(statement, None, again) from again

    def _drop_lost(self) -> bool:
        """Forget this thread's connection if it is gone or never was; whether that is so."""
        connection = getattr(self._kept, "connection", None)
        if connection is not None and not connection.closed:
            return False
        self._kept.__dict__.pop("connection", None)
        return True

    def _insert(self, statement: str, values: Sequence[bytes]) -> int | None:
        kept = getattr(self._kept, "connection", None) or self._keep(statement)
        result = kept.pgconn.exec_prepared(_APPEND, values)
        if result.status != _TUPLES_OK:
            raise _refusal_of(result)
        return int(result.get_value(0, 0)) if result.ntuples else None

    def _keep(self, statement: str) -> Any:
        """A connection of this thread for appends; each statement on it commits by itself."""
        pooled = self.engine.raw_connection()
        connection = cast("Any", pooled.driver_connection)
        pooled.detach()
        connection.rollback()
        connection.autocommit = True
        try:
            result = connection.pgconn.prepare(_APPEND, statement.encode())
            if result.status != _COMMAND_OK:
                raise _refusal_of(result)
        except self.engine.dialect.loaded_dbapi.Error:
            connection.close()  # kept, it would never know the statement
            raise
        self._kept.connection = connection
        return connection

    def close(self) -> None:
        """Give back the connections of this thread and of the pool."""
        if (connection := getattr(self._kept, "connection", None)) is not None:
            connection.close()
        self._kept = threading.local()
        self.engine.dispose()

    def forget(self) -> None:
        """Drop connections that another process goes on using, without a word to the server."""
        _INHERITED.append(self._kept.__dict__)
        self._kept = threading.local()
        self.engine.dispose(close=False)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in one transaction, once more if the connection was lost; ``work`` is idempotent.

        A connection that is lost while COMMIT is answered leaves open whether it happened; what is
        written here has a key, so that doing it again is safe and gives the answer.

        Raises:
            UnavailableError: the database does not answer or its disk is full.
        """
        self._require_file()
        with self._translated():
            try:
                with self._begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            with self._begin() as connection:
                return work(connection)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run queries in one transaction that sees one state of the database; errors as ``write``."""
        self._require_file()
        with self._translated():
            try:
                return self._read(work)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            return self._read(work)

    def finish(self) -> None:
        """Fold SQLite's journal into the file, so that the file alone is the database."""
        with self._translated(), closing(sqlite3.connect(str(self.url.database))) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        engine = self.engine
        if not self.sqlite:
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with engine.connect() as connection:
            return work(connection)

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        if not self.sqlite or not self.url.database or self.url.database == ":memory:":
            with self.engine.begin() as connection:
                yield connection
            return
        engine = self.engine.execution_options(airlock_writes=True)
        with _queue(Path(self.url.database + ".lock")), engine.begin() as connection:
            yield connection

    def _require_file(self) -> None:
        """SQLite would create an empty database where one has gone missing."""
        if self.sqlite and self.url.database and not Path(self.url.database).is_file():
            raise UnavailableError("the audit store is not there", where=self.where, fix=_MIGRATE)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"the text cannot be stored: {error.reason}") from error
        except (DBAPIError, OSError, sqlite3.Error) as error:
            text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
            cause = text.splitlines()[0] if text else type(error).__name__
            fix = "start the database and check AIRLOCK_AUDIT_URL"
            if "no such table" in cause or 'relation "event" does not exist' in cause:
                fix = _MIGRATE
            elif any(word in cause for word in ("disk", "full", "No space", "could not extend file")):
                fix = "free disk space; nothing was half written"
            elif "permission denied" in cause:
                fix = "use a role that may do this; `airlock audit roles` says which there are"
            raise UnavailableError(
                f"the audit store does not answer: {cause}", where=self.where, fix=fix
            ) from error
        except SQLAlchemyError as error:
            raise UnavailableError(f"the audit store failed: {error}", where=self.where) from error


class ReadOnlyDatabase(Database):
    """An audit database of somebody else: no statement can change it, nor a file beside it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if self.sqlite:
            # Without the pragmas of a writer: they would change the file.
            self.engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=NullPool)
        else:
            sa.event.listen(self.engine, "connect", _read_only_postgresql)

    def _connect(self) -> sqlite3.Connection:
        path = Path(self.url.database or "").absolute()
        options = "mode=ro&immutable=1" if _is_frozen(path) else "mode=ro"
        name = f"file:{quote(str(path))}?{options}"
        return sqlite3.connect(name, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Refuse.

        Raises:
            UnavailableError: always.
        """
        del work
        raise self._refusal()

    def insert(self, statement: str, values: Sequence[bytes]) -> int | None:
        """Refuse.

        Raises:
            UnavailableError: always.
        """
        del statement, values
        raise self._refusal()

    def _refusal(self) -> UnavailableError:
        return UnavailableError("this audit store is only read", where=self.where, fix="leave out --store")


def _read_only_postgresql(connection: Any, _record: Any) -> None:
    connection.execute("SET default_transaction_read_only = on")
    connection.commit()


def _is_frozen(path: Path) -> bool:
    """Whether nobody can change the file while it is read, so that SQLite need not lock it.

    Locks need files beside a database, which a folder that is read-only has no place for.
    """
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        return False  # part of the events stand there
    try:
        mounted = os.statvfs(path).f_flag & os.ST_RDONLY
        return bool(mounted) or not path.stat().st_mode & _ANYBODY_WRITES
    except OSError:
        return False  # opening it says what is wrong


@contextmanager
def _queue(path: Path) -> Iterator[None]:
    """Let one writer in at a time; under SQLite's own busy timeout they starve each other.

    Two locks: who holds ``.next`` is the one that follows the writer at work, so that a writer that has
    just ended does not come before all who wait.

    Raises:
        TimeoutError: another writer has held the lock for too long.
    """
    until = time.monotonic() + _BUSY_SECONDS
    with path.open("w") as lock:
        with path.with_suffix(".next").open("w") as following:
            _lock(following, until)
            _lock(lock, until)
        yield


def _lock(file: IO[str], until: float) -> None:
    """Lock a file; the system lets those who wait in the order in which they came."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        locked = threading.Event()

        def wait() -> None:
            # Nothing interrupts this. When it is given up the file is closed, which ends the lock as well.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
                locked.set()

        threading.Thread(target=wait, daemon=True).start()
        if not locked.wait(max(0.0, until - time.monotonic())):
            held = f"another process has held {file.name} for {_BUSY_SECONDS} s"
            raise TimeoutError(held) from None


def _refusal_of(result: Any) -> Exception:
    """What the server said, as the driver raises it."""
    from psycopg.errors import error_from_result

    return error_from_result(result, encoding="utf-8")


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() in ("sqlite", "postgresql"):
            return parsed
    except SQLAlchemyError:
        pass  # the text may hold a password, so it is not shown
    raise ConfigurationError(
        "the URL of the audit store is neither SQLite nor PostgreSQL",
        where="AIRLOCK_AUDIT_URL",
        fix="use sqlite:////path/to/audit.db or postgresql+psycopg://user:password@host/database",
    )


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that first reads and then writes fails at once when a reader has meanwhile recovered
    # what a killed writer left; one that takes the write lock first waits.
    writes = connection.get_execution_options().get("airlock_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _durable_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy begins them
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


@cache
def open_database(url: str) -> Database:
    """The database at a URL; one for each process, so that its connections are used again."""
    return Database(url)


# Two processes cannot share a connection, and tasks are forked. What was open stays referenced: closing it
# would tell the server that the parent's session is over.
_DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()
_INHERITED: list[object] = []


def _forget_connections() -> None:
    for database in list(_DATABASES):
        database.forget()


os.register_at_fork(after_in_child=_forget_connections)
