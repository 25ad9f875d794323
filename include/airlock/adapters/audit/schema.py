"""Whether the tables of the audit log are still protected as they were made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from airlock.adapters.audit.columns import COLUMNS
from airlock.adapters.audit.database import Database

TABLES = ("event", "pending", "leaf", "tile", "checkpoint", "anchor_receipt", "personal")

_SQLITE = sa.text(
    "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name IN :tables"
).bindparams(sa.bindparam("tables", expanding=True))
_TRIGGERS = sa.text("""
    SELECT t.tgname, t.tgenabled, p.prosrc, pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid IN (SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name)
    AND NOT t.tgisinternal
""")
_OTHER = sa.text("""
    SELECT relname FROM pg_class
    WHERE oid IN (SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name)
    AND (relhasrules OR relrowsecurity OR relhassubclass OR relkind <> 'r')
    ORDER BY relname
""")
_KEY = sa.text("""
    SELECT i.indisvalid AND i.indisready AND NOT c.condeferrable
    AND pg_get_constraintdef(c.oid) = 'EXCLUDE USING hash (key WITH =)'
    FROM pg_constraint c JOIN pg_index i ON i.indexrelid = c.conindid
    WHERE c.conname = 'event_key' AND c.conrelid = to_regclass('event')
""")
_COLUMNS = sa.text("""
    SELECT attname, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
        || CASE WHEN attgenerated <> '' THEN ' GENERATED' ELSE '' END
    FROM pg_attribute
    WHERE attrelid = to_regclass('event') AND attnum > 0 AND NOT attisdropped
""")
_SCHEMA = sa.text("SELECT quote_ident(current_schema())")


def schema_problems(database: Database) -> list[str]:
    """What protects the tables and is missing, switched off or changed."""
    return list(_sqlite_problems(database) if database.sqlite else _postgresql_problems(database))


@cache
def _fresh_sqlite() -> dict[str, str]:
    """The statements that a new database is made of."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Database(f"sqlite:///{Path(folder) / 'fresh.db'}")
        fresh.migrate()
        return _read_sqlite(fresh)


def _read_sqlite(database: Database) -> dict[str, str]:
    return database.read(
        lambda connection: {row[0]: row[1] for row in connection.execute(_SQLITE, {"tables": TABLES})}
    )


def _sqlite_problems(database: Database) -> Iterator[str]:
    expected, found = _fresh_sqlite(), _read_sqlite(database)
    for name, sql in expected.items():
        if name not in found:
            yield f"{name} is missing"
        elif found[name] != sql:
            yield f"{name} was changed"
    yield from (f"{name} was added" for name in sorted(set(found) - set(expected)))


def _postgresql_problems(database: Database) -> Iterator[str]:
    tables = {"tables": list(TABLES)}
    triggers, other, unique, columns, schema = database.read(
        lambda connection: (
            {row[0]: tuple(row[1:]) for row in connection.execute(_TRIGGERS, tables)},
            [row[0] for row in connection.execute(_OTHER, tables)],
            connection.scalar(_KEY),
            {row[0]: row[1] for row in connection.execute(_COLUMNS)},
            connection.scalar(_SCHEMA),
        )
    )
    known = _expected_triggers(schema)
    for name, (when, expected) in known.items():
        enabled, source, made = triggers.get(name, ("", "", ""))
        if enabled not in ("A", b"A"):
            yield f"trigger {name} is {'switched off' if name in triggers else 'missing'}"
        elif source != expected or f" {when} ON " not in made or " WHEN " in made:
            yield f"trigger {name} does something else"
    yield from (f"trigger {name} was added" for name in sorted(set(triggers) - set(known)))
    yield from (f"table {name} has rules, row security or heirs" for name in other)
    if not unique:
        yield "the constraint that keeps keys unique is missing or not valid"
    numbers = ("ingest_id", "occurred_us", "received_us")
    expected_columns = dict.fromkeys(COLUMNS, "text NOT NULL") | dict.fromkeys(numbers, "bigint NOT NULL")
    for name in sorted({name for name, _ in columns.items() ^ expected_columns.items()}):
        yield f"the column {name} of event is missing, was added or has another type"


def _expected_triggers(schema: str) -> dict[str, tuple[str, str]]:
    """When each trigger fires, and what its function says, as they were made."""
    from airlock.adapters.audit.migrations.versions import v0001_log as made
    from airlock.adapters.audit.migrations.versions import v0002_check_in_trigger as queued

    return {
        **{
            f"{table}_no_change": (
                "BEFORE DELETE OR UPDATE" if table in made.KEPT else "BEFORE UPDATE",
                made.APPEND_ONLY,
            )
            for table in TABLES
        },
        **{f"{table}_no_truncate": ("BEFORE TRUNCATE", made.APPEND_ONLY) for table in TABLES},
        "event_queue": ("AFTER INSERT", queued.QUEUE.format(schema=schema)),
    }
