"""A Parquet file that answers questions in SQL, in bounded memory and out of reach of anything else.

Columns are called ``c0``, ``c1`` … inside, in the order of the file: what a column is called can neither
break nor change a query. NaN is missing, as everywhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.core.errors import InvalidInputError
from airlock.profiles.source import Column, ParquetSource, connect, literal

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

_ROW = "row_in_file"
_TOGETHER = 200
"""Aggregates asked for in one query."""


class Batch:
    """The rows of a file, through DuckDB."""

    def __init__(self, source: ParquetSource, connection: duckdb.DuckDBPyConnection) -> None:
        self.source = source
        self._connection = connection
        self._answers: dict[str, Any] = {}

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Name → what is known of it."""
        return dict(self.source.columns())

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.source.rows()

    def column(self, name: str) -> str:
        """The column's name inside."""
        return f"c{list(self.columns).index(name)}"

    def ask(self, aggregates: Sequence[str]) -> list[Any]:
        """The values of aggregates over all rows, in as few passes as can be; asked twice, read once."""
        new = [one for one in dict.fromkeys(aggregates) if one not in self._answers]
        for start in range(0, len(new), _TOGETHER):
            part = new[start : start + _TOGETHER]
            self._answers |= zip(part, self._query(f"SELECT {', '.join(part)} FROM rows")[0], strict=True)  # noqa: S608
        return [self._answers[one] for one in aggregates]

    def examples(self, wrong: str, shown: str, limit: int) -> list[tuple[Any, int]]:
        """Values of ``shown`` on rows where ``wrong``, with how many rows each is on, first seen first."""
        return self._query(
            f"SELECT {shown}, count(*) FROM rows WHERE {wrong} "  # noqa: S608
            f"GROUP BY ALL ORDER BY min({_ROW}), 1 LIMIT {limit}"
        )

    def occurrences(self, column: str, value: object) -> int | None:
        """Rows with exactly this number or text; ``None`` for values of other types."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        fits = "number" if isinstance(value, int | float) else "text"
        if self.columns[column].kind != fits:
            return None
        return int(self._query(f"SELECT count(*) FROM rows WHERE {self.column(column)} = ?", [value])[0][0])  # noqa: S608

    def newest(self, column: str) -> int | None:
        """The latest time in a column, in microseconds since 1970 UTC; ``None`` where there is none."""
        return self.ask([f"epoch_us(max({self.column(column)}))"])[0]  # type: ignore[no-any-return]

    def repeated_rows(self) -> int:
        """Rows that repeat an earlier row in every column, by a 64-bit digest of each."""
        inside = ", ".join(f"c{position}" for position in range(len(self.columns)))
        answer = self._query(f"SELECT count(*) - count(DISTINCT hash({inside})) FROM rows")  # noqa: S608
        return int(answer[0][0])

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns, whole, in memory."""
        return self.source.sample(list(columns), self.rows, 0)

    def _query(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        import duckdb

        try:
            return self._connection.execute(sql, list(values)).fetchall()
        except duckdb.Error as error:
            raise InvalidInputError(
                f"the data cannot be read: {str(error).splitlines()[0]}",
                where=self.source.name,
                fix="check the file; if memory ran out, give the machine more or judge fewer rows at once",
            ) from error


@contextmanager
def open_batch(source: ParquetSource, *, memory_mb: int = 384) -> Iterator[Batch]:
    """Open a Parquet source for questions in SQL. DuckDB can read its files and nothing else."""
    with (
        tempfile.TemporaryDirectory(prefix="airlock-duckdb-") as folder,
        connect(Path(folder), memory_mb=memory_mb) as connection,
    ):
        files = [str(path.resolve()) for path in source.files]
        connection.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
        connection.execute(f"SET allowed_directories = [{literal(folder)}]")
        connection.execute("SET enable_external_access = false")
        columns = source.columns()
        names = [f"c{position}" for position in range(len(columns))]
        listed = ", ".join(map(literal, files))
        # A file may have a column of this name; then examples come in the order of their values.
        numbered = all(name.casefold() != "file_row_number" for name in columns)
        read = f"read_parquet([{listed}], file_row_number = {str(numbered).lower()})"
        row = [_ROW] if numbered else []
        connection.execute(f"CREATE VIEW file({', '.join([*names, *row])}) AS FROM {read}")
        numbers = [
            f"nullif({name}, 'NaN') AS {name}" if column.type in ("float", "double") else name
            for name, column in zip(names, columns.values(), strict=True)
        ]
        order = _ROW if numbered else f"0 AS {_ROW}"
        connection.execute(f"CREATE VIEW rows AS SELECT {', '.join([*numbers, order])} FROM file")  # noqa: S608
        connection.execute("SET lock_configuration = true")
        yield Batch(source, connection)
