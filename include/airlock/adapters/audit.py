"""Audit store on SQLite (embedded default) and PostgreSQL (production)."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from airlock.adapters.system import writing
from airlock.core.audit import MAX_BODY_BYTES, Event, Kind, Recorded
from airlock.core.canonical import parse_json
from airlock.core.errors import ConfigurationError, ConflictError, InvalidInputError, UnavailableError
from airlock.ports import Clock

_EVENT = sa.table(
    "event",
    sa.column("ingest_id", sa.BigInteger),
    sa.column("idem_key", sa.Text),
    sa.column("leaf_hash", sa.LargeBinary),
    sa.column("body", sa.Text),
    sa.column("received_us", sa.BigInteger),
    sa.column("kind", sa.Text),
    sa.column("release_id", sa.Text),
    sa.column("workload", sa.Text),
)

_BUSY_SECONDS = 30
_MIGRATE = "create the schema with `airlock audit migrate`"


class SqlAuditStore:
    """The event table behind the ``AuditStore`` port."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._url = _parse(url)
        # Tasks are forked processes: a pooled connection would be shared between them.
        arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS} if self._sqlite else {"connect_timeout": 10}
        try:
            self._engine = sa.create_engine(self._url, poolclass=NullPool, connect_args=arguments)
        except (ImportError, SQLAlchemyError) as error:
            raise ConfigurationError(
                f"the driver of the audit store cannot be loaded: {error}",
                where=self._where,
                fix="install the extra `cluster`, or correct AIRLOCK_AUDIT_URL",
            ) from error
        if self._sqlite:
            sa.event.listen(self._engine, "connect", _durable_sqlite)
            # Python's driver would commit each statement of a migration by itself; a real transaction
            # makes it all or nothing.
            sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))

    @property
    def _sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def _where(self) -> str:
        hidden = dict.fromkeys({"password", "passfile", "sslpassword"} & set(self._url.query), "***")
        return self._url.update_query_dict(hidden).render_as_string(hide_password=True)

    def migrate(self) -> None:
        """Create or upgrade the schema; safe to repeat and to run twice at once."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        if self._sqlite and self._url.database:
            with writing(Path(self._url.database)):
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        with self._translated(), self._writing() as connection:
            if not self._sqlite:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7203410)"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def append(self, event: Event) -> Recorded:
        """Record an event durably; see the port for its law."""
        body = event.to_bytes()
        self._require_file()
        if len(body) > MAX_BODY_BYTES:
            raise InvalidInputError(
                f"audit event of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}",
                where=event.key,
                fix="store the content as evidence and record its digest",
            )
        with self._translated(), self._writing() as connection:
            recorded = self._insert(connection, event)
            if recorded is not None:
                return recorded
            earlier = self._select(connection, sa.true() & (_EVENT.c.idem_key == event.key))[0]
            # The time was frozen when the event was first recorded; a retry must not conflict with itself.
            if _same_time(event, earlier.event).to_bytes() == earlier.event.to_bytes():
                return earlier
            self._insert(connection, _conflict(event, earlier.event))
        raise ConflictError(
            "another event stands under the same key",
            where=event.key,
            fix="this release was already processed with other content; submit a new release",
        )

    def events(
        self,
        *,
        release_id: str | None = None,
        workload: str | None = None,
        kinds: Sequence[Kind] = (),
        key: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """Events in the order they were recorded."""
        condition: sa.ColumnElement[bool] = sa.true()
        if release_id is not None:
            condition &= _EVENT.c.release_id == release_id
        if workload is not None:
            condition &= _EVENT.c.workload == workload
        if kinds:
            condition &= _EVENT.c.kind.in_([str(kind) for kind in kinds])
        if key is not None:
            condition &= _EVENT.c.idem_key == key
        self._require_file()
        with self._translated(), self._engine.connect() as connection:
            return self._select(connection, condition, limit=limit, newest_first=newest_first)

    def _insert(self, connection: sa.Connection, event: Event) -> Recorded | None:
        received = self._clock.now_us()
        values = {
            "idem_key": event.key,
            "leaf_hash": event.leaf_hash,
            "body": event.to_bytes().decode(),
            "received_us": received,
        }
        exists = sa.exists().where(_EVENT.c.idem_key == event.key)
        if self._sqlite:
            # Writers are serialised by the file lock, so looking first is safe; ON CONFLICT would
            # run into the guard against INSERT OR REPLACE.
            if connection.scalar(sa.select(exists)):
                return None
            ingest_id = connection.scalar(sa.insert(_EVENT).values(values).returning(_EVENT.c.ingest_id))
        else:
            from sqlalchemy.dialects.postgresql import insert

            statement = insert(_EVENT).values(values).on_conflict_do_nothing(index_elements=["idem_key"])
            ingest_id = connection.scalar(statement.returning(_EVENT.c.ingest_id))
        return None if ingest_id is None else Recorded(ingest_id=ingest_id, received_us=received, event=event)

    @staticmethod
    def _select(
        connection: sa.Connection,
        condition: sa.ColumnElement[bool],
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Recorded]:
        order = _EVENT.c.ingest_id.desc() if newest_first else _EVENT.c.ingest_id
        columns = (_EVENT.c.ingest_id, _EVENT.c.received_us, _EVENT.c.body)
        rows = connection.execute(sa.select(*columns).where(condition).order_by(order).limit(limit))
        return [
            Recorded(
                ingest_id=row.ingest_id,
                received_us=row.received_us,
                event=Event.model_validate(parse_json(row.body)),
            )
            for row in rows
        ]

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        if not self._sqlite or not self._url.database or self._url.database == ":memory:":
            with self._engine.begin() as connection:
                yield connection
            return
        # Under SQLite's own busy timeout writers starve each other; a file lock queues them.
        path = Path(self._url.database + ".lock")
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._engine.begin() as connection:
                yield connection

    def _require_file(self) -> None:
        """SQLite would create an empty database where one has gone missing."""
        if self._sqlite and self._url.database and not Path(self._url.database).is_file():
            raise UnavailableError("the audit store is not there", where=self._where, fix=_MIGRATE)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"the text cannot be stored: {error.reason}") from error
        except (DBAPIError, OSError) as error:
            text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
            cause = text.splitlines()[0] if text else type(error).__name__
            fix = "start the database and check AIRLOCK_AUDIT_URL"
            if "no such table" in cause or 'relation "event" does not exist' in cause:
                fix = _MIGRATE
            elif "disk" in cause or "full" in cause or "No space" in cause:
                fix = "free disk space; nothing was half written"
            raise UnavailableError(
                f"the audit store does not answer: {cause}", where=self._where, fix=fix
            ) from error
        except SQLAlchemyError as error:
            raise UnavailableError(f"the audit store failed: {error}", where=self._where) from error


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


def _durable_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy begins them
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _same_time(event: Event, other: Event) -> Event:
    return event.model_copy(update={"occurred_us": other.occurred_us})


def _conflict(event: Event, earlier: Event) -> Event:
    # Named by its content without the time, so that a retry of the same conflict is one record.
    digest = _same_time(event, earlier).leaf_hash.hex()
    return event.model_copy(
        update={
            "key": f"conflict/{digest[:16]}/{event.key}"[:1000],
            "kind": Kind.CONFLICT,
            "data": {"key": event.key, "kind": str(event.kind), "leaf_hash": event.leaf_hash.hex()},
        }
    )
