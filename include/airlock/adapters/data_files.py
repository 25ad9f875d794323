"""Data in plain files, Parquet or CSV, read with words for everything that can be wrong with them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airlock.core.errors import InvalidInputError

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

_PARQUET = b"PAR1"
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_PEEK = 65_536
"""Bytes that are looked at to tell text from something else."""


class DataFile:
    """One Parquet or CSV file. Nothing but its kind is read before it is asked for.

    Raises:
        InvalidInputError: it is not there, no regular file, empty, or neither Parquet nor CSV.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parquet = _is_parquet(path)

    def columns(self) -> list[str]:
        """Names of the columns, in order.

        Raises:
            InvalidInputError: the file is broken, has no columns, or one without a name or twice.
        """
        names = self._parquet_names() if self.parquet else self._csv_names()
        if not names:
            raise self._problem("it has no columns", "write a header line" if not self.parquet else "")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise self._problem(
                f"column {twice[0]!r} stands in it twice", "rename one of them: nobody can say which is meant"
            )
        if not all(names):
            raise self._problem("a column has no name", "name every column")
        return names

    def rows(self) -> int:
        """How many rows it has."""
        with self._reading() as connection:
            found = connection.execute("SELECT count(*) FROM data").fetchone()
        return 0 if found is None else int(found[0])

    def distinct(self, column: str, limit: int) -> list[object]:
        """At most ``limit`` of the different values of a column; missing ones do not count."""
        name = '"' + column.replace('"', '""') + '"'
        with self._reading() as connection:
            found = connection.execute(
                f"SELECT DISTINCT {name} FROM data WHERE {name} IS NOT NULL LIMIT {int(limit)}"  # noqa: S608  # quoted as SQL asks
            ).fetchall()
        return [row[0] for row in found]

    def frame(self) -> pd.DataFrame:
        """All of it as a frame."""
        import pandas as pd
        import pyarrow as pa

        self.columns()
        if not self.parquet:
            with self._reading() as connection:
                return connection.execute("SELECT * FROM data").df()
        try:
            return pd.read_parquet(self.path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._broken(error) from error

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        self.columns()
        quoted = str(self.path).replace("'", "''")
        # Names of files are taken as they are: a bracket or star in one is no pattern.
        for character in "[*?":
            quoted = quoted.replace(character, f"[{character}]")
        source = (
            f"read_parquet('{quoted}')"
            if self.parquet
            else f"read_csv('{quoted}', header=true, sample_size=-1)"
        )
        try:
            with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
                connection.execute(f"CREATE VIEW data AS SELECT * FROM {source}")  # noqa: S608  # quoted above
                yield connection
        except duckdb.Error as error:
            raise self._broken(error) from error

    def _parquet_names(self) -> list[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = [str(name) for name in pq.read_schema(self.path).names]
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._broken(error) from error
        # pandas keeps the index of a frame so; it is no column of the data.
        return [name for name in names if not _PANDAS_INDEX.fullmatch(name)]

    def _csv_names(self) -> list[str]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as stream:
                head = stream.readline(_PEEK)
        except (OSError, UnicodeDecodeError) as error:
            raise self._problem("it is neither Parquet nor CSV in UTF-8", "save it as Parquet") from error
        delimiter = max(",;\t|", key=head.count)
        return next(csv.reader([head.strip("\r\n")], delimiter=delimiter), [])

    def _broken(self, error: Exception) -> InvalidInputError:
        what = str(error).strip().splitlines()[0][:300]
        return self._problem(f"it cannot be read: {what}", "write the file again, as Parquet if you can")

    def _problem(self, what: str, fix: str) -> InvalidInputError:
        return _problem(self.path, what, fix)


def _problem(path: Path, what: str, fix: str) -> InvalidInputError:
    return InvalidInputError(f"data file {path.name}: {what}", where=str(path), fix=fix)


def _is_parquet(path: Path) -> bool:
    try:
        if not path.is_file():
            what = "it is not a file" if path.exists() else "it is not there"
            raise _problem(path, what, "check the path")
        with path.open("rb") as stream:
            head = stream.read(_PEEK)
    except OSError as error:
        raise _problem(
            path, f"it cannot be opened ({error.strerror})", "check the path and its rights"
        ) from (error)
    if not head:
        raise _problem(path, "it is empty", "empty is invalid: write data into it")
    if head.startswith(_PARQUET):
        return True
    if b"\0" in head or path.suffix.lower() in {".parquet", ".pq"}:
        raise _problem(path, "it is not a Parquet file", "save it as Parquet, or as CSV under a .csv name")
    return False
