"""Whether the tables of the audit log are still protected as they were made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from airlock.adapters.audit.database import Database

TABLES = ("event", "pending", "leaf", "tile", "checkpoint", "anchor_receipt", "personal")

_SQLITE = sa.text(
    "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name IN :tables"
).bindparams(sa.bindparam("tables", expanding=True))
_COLUMNS = sa.text("""
    SELECT a.attname, a.attgenerated, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = to_regclass('event') AND a.attnum > 0 AND NOT a.attisdropped
""")
_TRIGGERS = sa.text("""
    SELECT t.tgname, t.tgenabled, p.proname, p.prosrc
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('event'))
    AND NOT t.tgisinternal
""")
_KEY_INDEX = sa.text("""
    SELECT i.indisunique AND i.indisvalid AND i.indisready FROM pg_index i
    WHERE i.indexrelid = to_regclass('event_key')
""")
_TEXT = "((body)::jsonb ->> '{}'::text)"
_GENERATED = {
    **{name: _TEXT.format(name) for name in ("kind", "release_id", "workload", "version", "actor")},
    "occurred_us": f"({_TEXT.format('occurred_us')})::bigint",
}
_REFUSES, _QUEUES = "the audit store is append-only", "pending VALUES (NEW.ingest_id)"
_EXPECTED_TRIGGERS = {
    **{f"{table}_no_change": _REFUSES for table in TABLES},
    **{f"{table}_no_truncate": _REFUSES for table in TABLES},
    "event_queue": _QUEUES,
}


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
    columns, triggers, index = database.read(
        lambda connection: (
            {row[0]: (row[1], row[2]) for row in connection.execute(_COLUMNS)},
            {row[0]: tuple(row[1:]) for row in connection.execute(_TRIGGERS)},
            connection.scalar(_KEY_INDEX),
        )
    )
    for name, expression in _GENERATED.items():
        kind, found = columns.get(name, ("", None))
        if kind not in ("s", b"s"):
            yield f"column {name} of event is not computed from the event any more"
        elif found != expression:
            yield f"column {name} of event is computed in another way: {found}"
    for name, says in _EXPECTED_TRIGGERS.items():
        enabled, _, source = triggers.get(name, ("", "", ""))
        if enabled not in ("A", b"A"):
            yield f"trigger {name} is {'switched off' if name in triggers else 'missing'}"
        elif says not in source:
            yield f"trigger {name} does something else"
    if not index:
        yield "the index that keeps keys unique is missing or not valid"
