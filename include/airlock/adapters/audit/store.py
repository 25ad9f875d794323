"""Appends to the audit log and questions to it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from airlock.adapters.audit.columns import COLUMNS, NAMES, event_of, values_of
from airlock.adapters.audit.database import Database
from airlock.adapters.audit.log import Log
from airlock.adapters.audit.personal import ERASED, SEALED, Sealed, Vault
from airlock.adapters.audit.spool import Spool
from airlock.adapters.system import writing
from airlock.core.audit import MAX_BODY_BYTES, Event, Kind, Recorded
from airlock.core.base import trusted
from airlock.core.errors import ConfigurationError, ConflictError, InvalidInputError, UnavailableError
from airlock.ports import Clock

EVENT = sa.table(
    "event",
    sa.column("ingest_id", sa.BigInteger),
    *(sa.column(name, sa.BigInteger if name.endswith("_us") else sa.Text) for name in COLUMNS),
)
PERSONAL = sa.table(
    "personal",
    sa.column("commitment", sa.LargeBinary),
    sa.column("subject", sa.Text),
    sa.column("release_id", sa.Text),
    sa.column("recorded_us", sa.BigInteger),
    sa.column("wrapped_key", sa.LargeBinary),
    sa.column("sealed", sa.LargeBinary),
)

_INSERT = f"INSERT INTO event ({NAMES}) VALUES ({{}}) {{}}RETURNING ingest_id"  # noqa: S608  # names of ours
_ONCE = "ON CONFLICT DO NOTHING "
_INSERT_POSTGRESQL = _INSERT.format(", ".join(["%s"] * len(COLUMNS)), _ONCE)
_INSERT_PREPARED = _INSERT.format(", ".join(f"${place + 1}" for place in range(len(COLUMNS))), _ONCE)
_INSERT_SQLITE = _INSERT.format(", ".join("?" * len(COLUMNS)), "")

_PERSONAL_FIELD = "sealed"
_IN_ONE_QUESTION = 500
_CONFIRM_POLL_SECONDS = 0.02
_PERSONAL_LOCK = 7203412
T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """That somebody wrote something, without what it was.

    Attributes:
        commitment: what stands for the text in its event.
        kind: kind of the event.
        field: field of the event's data.
        subject: user id of the person who wrote it.
        release_id: the release it is about, or empty.
        workload: the workload it is about.
        deployment: where it was written.
        recorded_us: when, microseconds since 1970; the later of the claimed and the received time.
        present: whether the text is there; if not, it was erased.
    """

    commitment: bytes
    kind: Kind
    field: str
    subject: str
    release_id: str
    workload: str
    deployment: str
    recorded_us: int
    present: bool


class SqlAuditStore:
    """The event table behind the ``AuditStore`` port."""

    def __init__(
        self,
        database: Database | str,
        clock: Clock,
        vault: Vault | None = None,
        *,
        spool: Spool | None = None,
        anchors: Sequence[str] = (),
        wait_seconds: float = 15,
    ) -> None:
        """Open a store.

        Args:
            database: where the events are.
            clock: the time of receipt.
            vault: seals what people wrote; without it such events are refused.
            spool: takes routine events while the database does not answer.
            anchors: names of those that have to hold an event before it counts as confirmed.
            wait_seconds: how long ``confirm`` waits for them.
        """
        self.database = Database(database) if isinstance(database, str) else database
        self._clock = clock
        self._vault = vault
        self._spool = spool
        self._anchors = tuple(anchors)
        self._wait_seconds = wait_seconds

    def migrate(self) -> None:
        """Create or upgrade the schema, and the key for personal data; safe to repeat."""
        self.database.migrate()
        if self._vault is not None:
            self._vault.ensure()

    def append(self, event: Event) -> Recorded:
        """Record an event durably; see the port for its law."""
        try:
            return self._append(event)
        except UnavailableError:
            if self._spool is None or not event.kind.spoolable:
                raise
            self._spool.keep(event)
            return Recorded(ingest_id=None, event=event)

    def _append(self, event: Event) -> Recorded:
        received = _with(event, "received_us", self._clock.now_us())
        stored, personal = self._seal(received)
        values = values_of(stored)
        # Looked at closely only where it may be too large: every event goes through here.
        if len(stored.key) + len(str(values[1])) > MAX_BODY_BYTES // 8:
            _require_size(stored)

        if not (self.database.sqlite or personal):
            number = self.database.insert(_INSERT_PREPARED, [str(value).encode() for value in values])
            if number is not None:
                return trusted(Recorded, {"ingest_id": number, "event": stored}, {"ingest_id", "event"})

        def work(connection: sa.Connection) -> tuple[int, Event] | None:
            ingest_id = self._insert(connection, stored)
            if ingest_id is not None:
                if personal:
                    connection.execute(sa.insert(PERSONAL), personal)
                return ingest_id, stored
            found = self._select(connection, EVENT.c.key == event.key)[0]
            if stored.kind.first_wins and stored.kind is found[1].kind:
                return found
            # Times were frozen when the event was first recorded; a retry must not conflict with itself.
            if _same_time(stored, found[1]).to_bytes() == found[1].to_bytes():
                return found
            self._insert(connection, _conflict(stored, found[1]))
            return None

        found = self.database.write(work)
        if found is None:
            raise ConflictError(
                "another event stands under the same key",
                where=event.key,
                fix="this release was already processed with other content; submit a new release",
            )
        ingest_id, kept = found
        return Recorded(ingest_id=ingest_id, event=received if kept is stored else self._reveal([kept])[0])

    def events(
        self,
        *,
        release_id: str | None = None,
        workload: str | None = None,
        version: str | None = None,
        actor: str | None = None,
        kinds: Sequence[Kind] = (),
        key: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """Events in the order they were recorded; see the port."""
        equal = {"release_id": release_id, "workload": workload, "version": version, "actor": actor}
        conditions = [EVENT.c[name] == value for name, value in equal.items() if value is not None]
        if key is not None:
            conditions.append(EVENT.c.key == key)
        if kinds:
            conditions.append(EVENT.c.kind.in_([str(kind) for kind in kinds]))
        if since_us is not None:
            conditions.append(EVENT.c.occurred_us >= since_us)
        if until_us is not None:
            conditions.append(EVENT.c.occurred_us < until_us)
        condition = sa.and_(sa.true(), *conditions)
        rows = self.database.read(
            lambda connection: self._select(
                connection,
                condition,
                limit=limit,
                newest_first=newest_first,
                # Walking the log backwards to a time long ago would pass all that is newer.
                by_time=limit is not None and newest_first and (since_us, until_us) != (None, None),
            )
        )
        revealed = self._reveal([event for _, event in rows])
        return [
            Recorded(ingest_id=ingest_id, event=event)
            for (ingest_id, _), event in zip(rows, revealed, strict=True)
        ]

    def confirm(self, recorded: Recorded) -> None:
        """Wait until an event is in the signed log and anchored; see the port."""
        log = Log(self.database)
        until = time.monotonic() + self._wait_seconds
        while recorded.ingest_id is None or not log.is_anchored(recorded.ingest_id, self._anchors):
            if time.monotonic() > until:
                raise UnavailableError(
                    f"the event {recorded.event.kind} is recorded, but not anchored outside the database yet",
                    where=recorded.event.key,
                    fix="nothing goes on before it is; `airlock status` says whether the sequencer runs and "
                    "which anchor does not answer",
                )
            time.sleep(_CONFIRM_POLL_SECONDS)

    def _insert(self, connection: sa.Connection, event: Event) -> int | None:
        values = values_of(event)
        if not self.database.sqlite:
            found = connection.exec_driver_sql(_INSERT_POSTGRESQL, values).fetchone()
        # Writers are serialised by the file lock, so looking first is safe; ON CONFLICT would
        # run into the guard against INSERT OR REPLACE.
        elif connection.scalar(sa.select(EVENT.c.ingest_id).where(EVENT.c.key == event.key)):
            return None
        else:
            found = connection.exec_driver_sql(_INSERT_SQLITE, values).fetchone()
        return None if found is None else int(found[0])

    @staticmethod
    def _select(
        connection: sa.Connection,
        condition: sa.ColumnElement[bool],
        *,
        limit: int | None = None,
        newest_first: bool = False,
        by_time: bool = False,
    ) -> list[tuple[int, Event]]:
        order = [EVENT.c.ingest_id.desc() if newest_first else EVENT.c.ingest_id]
        order = [EVENT.c.occurred_us.desc(), *order] if by_time else order
        rows: Iterable[Any] = connection.execute(
            sa.select(EVENT).where(condition).order_by(*order).limit(limit)
        )
        rows = sorted(rows, reverse=True) if by_time else rows
        return [(row[0], event_of(row[1:])) for row in rows]

    def _seal(self, event: Event) -> tuple[Event, list[dict[str, Any]]]:
        """The event as it is stored, and the rows with what it does not say itself."""
        texts = {name: event.data[name] for name in event.kind.personal if event.data.get(name)}
        if not texts:
            return event, []
        if self._vault is None:
            raise ConfigurationError(
                "this store was opened without the key for personal data", fix="set AIRLOCK_PERSONAL_KEY_FILE"
            )
        rows, data = [], dict(event.data)
        for name, text in texts.items():
            sealed = self._vault.seal(f"{event.key}\x00{name}", text)
            data[name] = {_PERSONAL_FIELD: sealed.commitment.hex()}
            rows.append(
                {
                    "commitment": sealed.commitment,
                    "subject": event.actor,
                    "release_id": event.release_id,
                    "recorded_us": event.occurred_us,
                    "wrapped_key": sealed.wrapped_key,
                    "sealed": sealed.sealed,
                }
            )
        return event.model_copy(update={"data": data}), rows

    def _reveal(self, events: list[Event]) -> list[Event]:
        """Put the texts back into events, as far as they were not erased."""
        wanted = [commitment for event in events for commitment in commitments(event).values()]
        if not wanted:
            return events
        # Asked once: whether the key is here is a look at the disk.
        vault = self._vault if self._vault is not None and self._vault.present else None
        opened = {row.commitment: vault.open(row) if vault else SEALED for row in self.personal(wanted)}
        return [_with_texts(event, opened) for event in events]

    def personal(self, wanted: Iterable[bytes]) -> list[Sealed]:
        """Rows of the erasable table, by commitment."""
        asked = list(wanted)
        columns = (PERSONAL.c.commitment, PERSONAL.c.wrapped_key, PERSONAL.c.sealed)

        def work(connection: sa.Connection) -> list[Sealed]:
            return [
                Sealed(bytes(row[0]), bytes(row[1]), bytes(row[2]))
                for part in _parts(asked)
                for row in connection.execute(sa.select(*columns).where(PERSONAL.c.commitment.in_(part)))
            ]

        return self.database.read(work)

    def texts(self, *, subject: str | None = None, release_id: str | None = None) -> list[Text]:
        """Everything people wrote, erased or not, in the order it was recorded; needs no key."""
        equal = {"actor": subject, "release_id": release_id}
        kinds = [str(kind) for kind in Kind if kind.personal]
        conditions = [EVENT.c[name] == value for name, value in equal.items() if value is not None]
        condition = sa.and_(EVENT.c.kind.in_(kinds), *conditions)

        def work(connection: sa.Connection) -> list[Text]:
            sealed = [
                (event, name, commitment)
                for _, event in self._select(connection, condition)
                for name, commitment in commitments(event).items()
            ]
            present = _present(connection, [commitment for _, _, commitment in sealed])
            return [
                _text(event, name, commitment, present=commitment in present)
                for event, name, commitment in sealed
            ]

        return self.database.read(work)

    def require_right_to_erase(self) -> None:
        """See that this user of the database may erase, before an erasure is recorded.

        Raises:
            UnavailableError: the user may not, or the database does not answer.
        """
        self.database.write(lambda connection: connection.execute(sa.delete(PERSONAL).where(sa.false())))

    def erase(self, erased: Iterable[bytes]) -> None:
        """Delete texts by commitment, for good; those that are gone already are no error.

        SQLite overwrites them in its file and empties its write-ahead log. In PostgreSQL no query finds
        them any more; VACUUM FULL takes their bytes out of the table's file.

        Raises:
            UnavailableError: the database does not answer, or somebody reads so long that SQLite's
                write-ahead log cannot be emptied; do it again then.
        """
        asked = list(erased)

        def work(connection: sa.Connection) -> None:
            if self.database.sqlite:
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            for part in _parts(asked):
                connection.execute(sa.delete(PERSONAL).where(PERSONAL.c.commitment.in_(part)))

        self.database.write(work)
        if self.database.sqlite and self.database.read(_is_left_in_wal):
            raise UnavailableError(
                "the texts are deleted, but the write-ahead log still holds their encrypted form",
                where=self.database.where,
                fix="do it again when whoever reads the database now has ended",
            )

    def alone(self, work: Callable[[], T]) -> T:
        """Run ``work`` while nobody else decides about erasures and holds in this database.

        Raises:
            UnavailableError: the database does not answer.
        """
        if not self.database.sqlite:
            lock = sa.text(f"SELECT pg_advisory_xact_lock({_PERSONAL_LOCK})")

            def locked(connection: sa.Connection) -> T:
                connection.execute(lock)
                return work()

            return self.database.write(locked)
        # Not the lock of the writers: what runs here writes.
        path = Path(f"{self.database.url.database}.personal.lock")
        with writing(path):
            stream = path.open("w")
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            return work()


def _with(event: Event, name: str, value: object) -> Event:
    """An event with another field, made quickly: each append makes one."""
    return trusted(Event, {**event.__dict__, name: value}, {*event.model_fields_set, name})


def _require_size(event: Event) -> None:
    if (size := len(event.to_bytes())) > MAX_BODY_BYTES:
        raise InvalidInputError(
            f"audit event of {size} bytes is over the limit of {MAX_BODY_BYTES}",
            where=event.key,
            fix="store the content as evidence and record its digest",
        )


def commitments(event: Event) -> dict[str, bytes]:
    """Fields of a stored event that were sealed, with their commitments."""
    found = {}
    for name in event.kind.personal:
        value = event.data.get(name)
        if isinstance(value, dict) and isinstance(value.get(_PERSONAL_FIELD), str):
            found[name] = bytes.fromhex(value[_PERSONAL_FIELD])
    return found


def _parts(asked: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(asked), _IN_ONE_QUESTION):
        yield asked[start : start + _IN_ONE_QUESTION]


def _present(connection: sa.Connection, wanted: Sequence[bytes]) -> set[bytes]:
    """Those of the commitments whose text is there."""
    column = PERSONAL.c.commitment
    return {
        bytes(row[0])
        for part in _parts(wanted)
        for row in connection.execute(sa.select(column).where(column.in_(part)))
    }


def _text(event: Event, name: str, commitment: bytes, *, present: bool) -> Text:
    return Text(
        commitment=commitment,
        kind=event.kind,
        field=name,
        subject=event.actor,
        release_id=event.release_id,
        workload=event.workload,
        deployment=event.deployment,
        recorded_us=max(event.occurred_us, event.received_us),
        present=present,
    )


def _is_left_in_wal(connection: sa.Connection) -> bool:
    """Write SQLite's log into its file and cut it to nothing; whether readers are in the way."""
    # Past SQLAlchemy, which would begin a transaction, in which this cannot be done.
    cursor = connection.connection.cursor()
    try:
        return bool(cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
    finally:
        cursor.close()


def _with_texts(event: Event, opened: dict[bytes, str]) -> Event:
    sealed = commitments(event)
    if not sealed:
        return event
    texts = {name: opened.get(commitment, ERASED) for name, commitment in sealed.items()}
    return event.model_copy(update={"data": {**event.data, **texts}})


def _same_time(event: Event, other: Event) -> Event:
    return event.model_copy(update={"occurred_us": other.occurred_us, "received_us": other.received_us})


def _conflict(event: Event, earlier: Event) -> Event:
    # Named by its content without the time, so that a retry of the same conflict is one record.
    content = _same_time(event, earlier).digest
    return event.model_copy(
        update={
            "key": f"conflict/{content[:16]}/{event.key}"[:1000],
            "kind": Kind.CONFLICT,
            "data": {"key": event.key, "kind": str(event.kind), "content": content},
        }
    )
