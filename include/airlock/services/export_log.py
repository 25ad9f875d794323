"""A copy of the whole log in one SQLite file, for auditors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airlock.adapters.audit.columns import COLUMNS
from airlock.adapters.audit.database import Database
from airlock.core.errors import ConflictError

_ROWS = 5000
_TABLES = {
    "event": ("ingest_id", *COLUMNS),
    "leaf": ("seq", "ingest_id"),
    "tile": ("level", "idx", "root", "data"),
    "checkpoint": ("tree_size", "root", "note"),
    "anchor_receipt": ("anchor", "tree_size"),
    "personal": ("commitment", "subject", "release_id", "recorded_us", "wrapped_key", "sealed"),
}


def export_log(database: Database, target: Path) -> int:
    """Write the log into a new file and return its number of entries; all of one moment, or nothing.

    Texts that people wrote stay encrypted in it, and their key does not go along.

    Raises:
        ConflictError: the file is there already.
        UnavailableError: a database does not answer or the disk is full; nothing is left behind.
    """
    if target.exists():
        raise ConflictError("the file is there already", where=str(target), fix="choose another name")
    making = target.with_name(f".{target.name}.making")
    making.unlink(missing_ok=True)
    copy = Database(f"sqlite:///{making.absolute()}")
    try:
        copy.migrate()
        size = database.read(lambda source: copy.write(lambda sink: _copy(source, sink)))
        # One file, without a journal beside it, that can be read from a read-only place.
        copy.finish()
        making.replace(target)
    finally:
        beside = (Path(f"{making}.{ending}") for ending in ("lock", "next"))
        for name in (making, *making.parent.glob(f"{making.name}-*"), *beside):
            name.unlink(missing_ok=True)
    return size


def _copy(source: sa.Connection, sink: sa.Connection) -> int:
    for table, columns in _TABLES.items():
        names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        rows = source.execution_options(yield_per=_ROWS).execute(sa.text(f"SELECT {names} FROM {table}"))  # noqa: S608
        insert = sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})")  # noqa: S608
        for part in rows.mappings().partitions(_ROWS):
            sink.execute(insert, [_plain(row) for row in part])
    # The trigger has queued every copied event; those that the source has in its log wait for nobody.
    sink.execute(sa.text("DELETE FROM pending WHERE ingest_id IN (SELECT ingest_id FROM leaf)"))
    return int(sink.scalar(sa.text("SELECT count(*) FROM leaf")) or 0)


def _plain(row: Any) -> dict[str, Any]:
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in row.items()}
