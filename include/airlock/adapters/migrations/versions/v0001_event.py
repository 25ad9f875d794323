"""The event table: append-only, idempotent, every event as its exact canonical bytes."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_FIELDS = ("kind", "release_id", "workload", "version", "actor")


def _generated(expression: str) -> str:
    """Columns computed from the body, so that they can never say something else."""
    return "".join(f"{name} TEXT GENERATED ALWAYS AS ({expression.format(name)}) STORED," for name in _FIELDS)


_SQLITE = [
    f"""
    CREATE TABLE event (
        ingest_id INTEGER PRIMARY KEY AUTOINCREMENT,
        idem_key TEXT NOT NULL UNIQUE,
        leaf_hash BLOB NOT NULL CHECK (length(leaf_hash) = 32),
        body TEXT NOT NULL CHECK (length(CAST(body AS BLOB)) <= 65536),
        received_us INTEGER NOT NULL,
        {_generated("json_extract(body, '$.{}')")}
        occurred_us INTEGER GENERATED ALWAYS AS (json_extract(body, '$.occurred_us')) STORED
    )
    """,
    """
    CREATE TRIGGER event_no_update BEFORE UPDATE ON event
    BEGIN SELECT RAISE(ABORT, 'the audit store is append-only'); END
    """,
    """
    CREATE TRIGGER event_no_delete BEFORE DELETE ON event
    BEGIN SELECT RAISE(ABORT, 'the audit store is append-only'); END
    """,
    # INSERT OR REPLACE deletes the old row without firing the DELETE trigger; this guard sees it first.
    """
    CREATE TRIGGER event_no_replace BEFORE INSERT ON event
    WHEN EXISTS (SELECT 1 FROM event WHERE idem_key = NEW.idem_key OR ingest_id = NEW.ingest_id)
    BEGIN SELECT RAISE(ABORT, 'the audit store is append-only'); END
    """,
]

_POSTGRESQL = [
    f"""
    CREATE TABLE event (
        ingest_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        idem_key TEXT NOT NULL UNIQUE,
        leaf_hash BYTEA NOT NULL,
        body TEXT NOT NULL CHECK (octet_length(body) <= 65536),
        received_us BIGINT NOT NULL,
        {_generated("body::jsonb ->> '{}'")}
        occurred_us BIGINT GENERATED ALWAYS AS ((body::jsonb ->> 'occurred_us')::bigint) STORED,
        CHECK (leaf_hash = sha256('\\x00'::bytea || convert_to(body, 'UTF8')))
    )
    """,
    """
    CREATE FUNCTION event_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit store is append-only'; END $$
    """,
    """
    CREATE TRIGGER event_no_change BEFORE UPDATE OR DELETE ON event
    FOR EACH ROW EXECUTE FUNCTION event_append_only()
    """,
    """
    CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION event_append_only()
    """,
    "ALTER TABLE event ENABLE ALWAYS TRIGGER event_no_change",
    "ALTER TABLE event ENABLE ALWAYS TRIGGER event_no_truncate",
]

_INDEXES = [
    "CREATE INDEX event_release ON event (release_id, ingest_id)",
    "CREATE INDEX event_workload ON event (workload, kind, ingest_id)",
    "CREATE INDEX event_kind ON event (kind, ingest_id)",
]


def upgrade() -> None:
    """Create the table, its triggers and its indexes."""
    statements = _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL
    for statement in [*statements, *_INDEXES]:
        op.execute(statement)
