"""The log: events, the Merkle tree over them, and the one table that can be erased.

event           what happened; written by everyone, changed by nobody
pending         which events are not in the tree yet; filled by a trigger, emptied by the sequencer
leaf            which event stands at which place of the log
tile            256 neighbouring hashes of the tree, once they are complete
checkpoint      what the sequencer signed about the whole log at a size
anchor_receipt  where a checkpoint was published outside this database
personal        what people wrote, encrypted; the event holds a salted commitment to it
"""

from alembic import op

# Not "0001" nor anything that begins with it, which Alembic would take for the same: that was the form
# before 0.1.0 which kept each event twice, and a log cannot be rewritten.
revision = "v1_fields"
down_revision = None
branch_labels = None
depends_on = None

_TEXTS = ("actor", "data", "deployment", "key", "kind", "release_id", "version", "workload")
KEPT = ("event", "leaf", "tile", "checkpoint", "anchor_receipt")
"""Tables in which nothing is ever changed or removed."""


APPEND_ONLY = "BEGIN RAISE EXCEPTION 'the audit log is append-only'; END"

# Runs as its owner, so that a writer needs no right on the queue and cannot empty it. The names are
# qualified: with the caller's search path a writer could have its own table filled instead.
QUEUE = "BEGIN INSERT INTO {schema}.pending VALUES (NEW.ingest_id); RETURN NULL; END"


# An event at most as large as in the core; its data is an object, so that readers can go on.
def _columns(length: str, kind_of_data: str) -> str:
    size = " + ".join(length.format(name) for name in _TEXTS)
    texts = ", ".join(f"{name} TEXT NOT NULL" for name in _TEXTS)
    return f"{texts}, CHECK ({size} <= 65536 AND {kind_of_data} = 'object')"


def _sqlite() -> list[str]:
    return [
        f"""
        CREATE TABLE event (
            ingest_id INTEGER PRIMARY KEY AUTOINCREMENT,
            occurred_us INTEGER NOT NULL,
            received_us INTEGER NOT NULL,
            {_columns("length(CAST({} AS BLOB))", "json_type(data)")}
        )
        """,
        "CREATE TABLE pending (ingest_id INTEGER PRIMARY KEY)",
        "CREATE TABLE leaf (seq INTEGER PRIMARY KEY, ingest_id INTEGER NOT NULL UNIQUE)",
        """
        CREATE TABLE tile (
            level INTEGER NOT NULL, idx INTEGER NOT NULL,
            root BLOB NOT NULL CHECK (length(root) = 32),
            data BLOB NOT NULL CHECK (length(data) = 8192),
            PRIMARY KEY (level, idx)
        )
        """,
        """
        CREATE TABLE checkpoint (
            tree_size INTEGER PRIMARY KEY,
            root BLOB NOT NULL CHECK (length(root) = 32),
            note TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE anchor_receipt (
            anchor TEXT NOT NULL, tree_size INTEGER NOT NULL,
            PRIMARY KEY (anchor, tree_size)
        )
        """,
        """
        CREATE TABLE personal (
            commitment BLOB PRIMARY KEY CHECK (length(commitment) = 32),
            subject TEXT NOT NULL,
            release_id TEXT NOT NULL,
            recorded_us INTEGER NOT NULL,
            wrapped_key BLOB NOT NULL,
            sealed BLOB NOT NULL
        )
        """,
        *(statement for table in KEPT for statement in _sqlite_refuse(table, "UPDATE", "DELETE")),
        *_sqlite_refuse("pending", "UPDATE"),
        *_sqlite_refuse("personal", "UPDATE"),
        *(_sqlite_no_replace(table, same) for table, same in _SQLITE_SAME.items()),
        """
        CREATE TRIGGER event_queue AFTER INSERT ON event
        BEGIN INSERT INTO pending VALUES (NEW.ingest_id); END
        """,
        "CREATE UNIQUE INDEX event_key ON event (key)",
        "CREATE INDEX event_occurred ON event (occurred_us)",
    ]


def _sqlite_refuse(table: str, *changes: str) -> list[str]:
    return [
        f"""
        CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table}
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
        """
        for change in changes
    ]


_SQLITE_SAME = {
    "event": "ingest_id = NEW.ingest_id OR key = NEW.key",
    "leaf": "seq = NEW.seq OR ingest_id = NEW.ingest_id",
    "tile": "level = NEW.level AND idx = NEW.idx",
    "checkpoint": "tree_size = NEW.tree_size",
    "anchor_receipt": "anchor = NEW.anchor AND tree_size = NEW.tree_size",
    "personal": "commitment = NEW.commitment",
}


def _sqlite_no_replace(table: str, same: str) -> str:
    # INSERT OR REPLACE deletes the old row without firing the DELETE trigger; this guard sees it first.
    return f"""
        CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
        WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
    """  # noqa: S608


def _postgresql() -> list[str]:
    return [
        # The constraint keeps keys unique as an index would, in half its room: keys have up to 1,000
        # characters, of which an index of hashes holds four bytes.
        f"""
        CREATE TABLE event (
            ingest_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            occurred_us BIGINT NOT NULL,
            received_us BIGINT NOT NULL,
            {_columns("octet_length({})", "json_typeof(CAST(data AS json))")},
            CONSTRAINT event_key EXCLUDE USING hash (key WITH =)
        )
        """,
        # No index: it is emptied several times a second, and what is left is read whole.
        "CREATE TABLE pending (ingest_id BIGINT NOT NULL)",
        "CREATE TABLE leaf (seq BIGINT PRIMARY KEY, ingest_id BIGINT NOT NULL UNIQUE)",
        """
        CREATE TABLE tile (
            level INTEGER NOT NULL, idx BIGINT NOT NULL,
            root BYTEA NOT NULL CHECK (octet_length(root) = 32),
            data BYTEA NOT NULL CHECK (octet_length(data) = 8192),
            PRIMARY KEY (level, idx)
        )
        """,
        # Hashes do not compress.
        "ALTER TABLE tile ALTER COLUMN data SET STORAGE EXTERNAL",
        """
        CREATE TABLE checkpoint (
            tree_size BIGINT PRIMARY KEY,
            root BYTEA NOT NULL CHECK (octet_length(root) = 32),
            note TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE anchor_receipt (
            anchor TEXT NOT NULL, tree_size BIGINT NOT NULL,
            PRIMARY KEY (anchor, tree_size)
        )
        """,
        """
        CREATE TABLE personal (
            commitment BYTEA PRIMARY KEY CHECK (octet_length(commitment) = 32),
            subject TEXT NOT NULL,
            release_id TEXT NOT NULL,
            recorded_us BIGINT NOT NULL,
            wrapped_key BYTEA NOT NULL,
            sealed BYTEA NOT NULL
        )
        """,
        f"CREATE FUNCTION airlock_append_only() RETURNS trigger LANGUAGE plpgsql AS $${APPEND_ONLY}$$",
        *(statement for table in KEPT for statement in _postgresql_refuse(table, "UPDATE OR DELETE")),
        *_postgresql_refuse("pending", "UPDATE"),
        *_postgresql_refuse("personal", "UPDATE"),
        f"""
        DO $$ BEGIN EXECUTE format(
            'CREATE FUNCTION airlock_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS '
            '$body${QUEUE.format(schema="%I")}$body$', current_schema()
        ); END $$
        """,
        "CREATE TRIGGER event_queue AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION airlock_queue()",
        "ALTER TABLE event ENABLE ALWAYS TRIGGER event_queue",
        "CREATE INDEX event_occurred ON event (occurred_us)",
    ]


def _postgresql_refuse(table: str, changes: str) -> list[str]:
    function = "EXECUTE FUNCTION airlock_append_only()"
    return [
        f"CREATE TRIGGER {table}_no_change BEFORE {changes} ON {table} FOR EACH ROW {function}",
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {function}",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_change",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_truncate",
    ]


_INDEXES = [
    # Few distinct values and no second column: PostgreSQL then keeps each value once, with a list of rows.
    "CREATE INDEX event_release ON event (release_id)",
    "CREATE INDEX event_version ON event (workload, version)",
    "CREATE INDEX event_kind ON event (kind)",
    "CREATE INDEX event_actor ON event (actor, kind)",
    "CREATE INDEX personal_subject ON personal (subject)",
]


def upgrade() -> None:
    """Create the tables, their triggers and their indexes."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in [*(_sqlite() if sqlite else _postgresql()), *_INDEXES]:
        op.execute(statement)
