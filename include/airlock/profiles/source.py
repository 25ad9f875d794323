"""Where data comes from: one interface over Parquet, CSV, SQL and frames, one column at a time.

A column is read alone, so memory grows with rows, never with columns; and whatever its type, it
comes out as one of two things: finite numbers, or counts of texts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airlock.core.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    Floats = npt.NDArray[np.float64]

Kind = Literal["number", "boolean", "time", "duration", "text", "no values", "other"]

_BAD_FILE = "write it again as Parquet or as CSV with a header, encoded in UTF-8"


@dataclass(frozen=True)
class Column:
    """What a source says about a column before any row is read.

    Attributes:
        kind: what it holds, in words.
        type: its type in Arrow's words, such as ``int64`` or ``timestamp[us, tz=UTC]``.
        whole: whether the type is an integer type.
    """

    kind: Kind
    type: str
    whole: bool = False


@dataclass(frozen=True)
class Numbers:
    """A column as numbers.

    Attributes:
        values: the finite values; their order means nothing, and who needs one may sort them in place.
        ends: the smallest and the largest of them; ``None`` where there are none.
        rows: all rows.
        missing: rows with no value or NaN.
        infinite: rows with an infinity.
        whole: whether the column is of an integer type and no value is missing.
    """

    values: Floats
    ends: tuple[float, float] | None
    rows: int
    missing: int
    infinite: int
    whole: bool


@dataclass(frozen=True)
class Texts:
    """A column as texts: how often each occurs, and how many rows have none."""

    counts: Mapping[str, int]
    rows: int
    missing: int


class Source(Protocol):
    """Rows of named columns. Names are any text: quoting is the source's business."""

    name: str

    def columns(self) -> Mapping[str, Column]:
        """All columns, in their order."""

    def rows(self) -> int:
        """The number of rows."""

    def numbers(self, column: str, *, into: Floats | None = None) -> Numbers:
        """A column of numbers, times or durations (in seconds, times since 1970 UTC).

        ``into`` is memory for as many values as there are rows; without it there is some of their own.
        """

    def texts(self, column: str) -> Texts:
        """Any column as texts."""

    def chunks(self, column: str) -> Iterator[pa.Array]:
        """A column as Arrow arrays, in parts and in order."""

    def sample(self, columns: list[str], rows: int, seed: int) -> pd.DataFrame:
        """At most so many rows, drawn without replacement, always the same ones for the same seed."""


class _ArrowSource:
    """What all sources share whose columns come as Arrow arrays."""

    name: str

    def _schema(self) -> pa.Schema:
        raise NotImplementedError

    def _array(self, column: str) -> pa.ChunkedArray:
        raise NotImplementedError

    def rows(self) -> int:
        """The number of rows."""
        raise NotImplementedError

    @cached_property
    def _columns(self) -> dict[str, Column]:
        schema = self._schema()
        if len(set(schema.names)) != len(schema.names):
            twice = sorted(name for name in set(schema.names) if schema.names.count(name) > 1)
            raise InvalidInputError(
                f"column {twice[0]!r} is there twice", where=self.name, fix="rename or remove one"
            )
        return {field.name: _column(field.type) for field in schema}

    def columns(self) -> Mapping[str, Column]:
        """All columns, in their order."""
        return self._columns

    def numbers(self, column: str, *, into: Floats | None = None) -> Numbers:
        """A column of numbers, times or durations."""
        import numpy as np

        rows, described = self.rows(), self._describe(column)
        values, filled, missing = np.empty(rows) if into is None else into, 0, 0
        lows, highs = [], []
        for chunk in self._chunks(column):
            part = _floats(chunk, described.kind)
            ends = _ends(part)
            if ends is None:  # one of the values is none, or there is none
                missing += int(np.count_nonzero(np.isnan(part)))
                part = part[np.isfinite(part)]
                ends = _ends(part)
            if ends is not None:
                lows.append(ends[0])
                highs.append(ends[1])
                values[filled : filled + len(part)] = part
                filled += len(part)
        return Numbers(
            values=values[:filled],
            ends=(min(lows), max(highs)) if filled else None,
            rows=rows,
            missing=missing,
            infinite=rows - missing - filled,
            whole=described.whole and filled == rows,
        )

    def texts(self, column: str) -> Texts:
        """Any column as texts; whole numbers without a fraction, so that 1, 1.0 and "1" are one."""
        self._describe(column)
        array = self._array(column)
        totals: dict[str, int] = {}
        for value, count in _counted(array):
            if value is not None and value == value:  # noqa: PLR0124  # NaN is not itself
                text = text_of(value)
                totals[text] = totals.get(text, 0) + count
        return Texts(counts=totals, rows=self.rows(), missing=self.rows() - sum(totals.values()))

    def chunks(self, column: str) -> Iterator[pa.Array]:
        """A column as Arrow arrays, in parts and in order."""
        self._describe(column)
        yield from self._chunks(column)

    def _chunks(self, column: str) -> Iterator[pa.Array]:
        yield from self._array(column).chunks

    def _describe(self, column: str) -> Column:
        if column not in self.columns():
            raise NotFoundError(
                f"there is no column {column!r}", where=self.name, fix="see the columns of the file"
            )
        return self.columns()[column]


class ParquetSource(_ArrowSource):
    """A local Parquet file, or a folder of them whose columns are the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._footers: list[Any] = []

    @cached_property
    def files(self) -> list[Path]:
        """The files, in the order of their names."""
        if self.path.is_dir():
            files = sorted(self.path.glob("*.parquet"))
        else:
            files = [self.path] if self.path.is_file() else []
        if not files:
            raise NotFoundError("there is no such Parquet file", where=str(self.path), fix="check the path")
        return files

    @cached_property
    def _metadata(self) -> tuple[pa.Schema, int]:
        opened = [_open(path) for path in self.files]
        self._footers = [file.metadata for file in opened]
        schema = opened[0].schema_arrow
        for path, file in zip(self.files, opened, strict=True):
            if not file.schema_arrow.equals(schema):
                raise InvalidInputError(
                    "the columns differ from those of the first file",
                    where=str(path),
                    fix="write all files of the folder with the same columns and types",
                )
        return schema, sum(file.metadata.num_rows for file in opened)

    def _schema(self) -> pa.Schema:
        return self._metadata[0]

    def rows(self) -> int:
        """The number of rows, from the files' footers."""
        return self._metadata[1]

    def _array(self, column: str) -> pa.ChunkedArray:
        import pyarrow as pa

        return pa.chunked_array(list(self._chunks(column)), type=None if self.rows() else pa.string())

    def _chunks(self, column: str) -> Iterator[pa.Array]:
        import pyarrow as pa

        as_dictionary = [column] if self._describe(column).kind == "text" else None
        try:
            for path, footer in zip(self.files, self._footers, strict=True):
                file = _open(path, as_dictionary, footer)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=[column], use_threads=False)
                    yield from table.column(0).chunks
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(
                f"column {column!r} cannot be read: {error}", where=str(self.path), fix=_BAD_FILE
            ) from error

    def empty(self, column: str) -> bool:
        """Whether the files' own statistics say that no row has a value."""
        position, self_says = list(self.columns()).index(column), []
        for footer in self._footers:
            for group in range(footer.num_row_groups):
                part = footer.row_group(group).column(position)
                self_says.append(
                    part.statistics is not None and part.statistics.null_count == part.num_values
                )
        return all(self_says)

    def sample(self, columns: list[str], rows: int, seed: int) -> pd.DataFrame:
        """At most so many rows, drawn with a fixed seed, in their order."""
        import pandas as pd
        import pyarrow as pa

        chosen, offset, parts = chosen_rows(self.rows(), rows, seed), 0, []
        for path in self.files:
            file = _open(path)
            for group in range(file.num_row_groups):
                length = file.metadata.row_group(group).num_rows
                inside = chosen[(chosen >= offset) & (chosen < offset + length)] - offset
                offset += length
                if len(inside):
                    parts.append(file.read_row_group(group, columns=columns).take(inside))
        if not parts:
            return pd.DataFrame(columns=columns)
        frame: pd.DataFrame = pa.concat_tables(parts).to_pandas()
        return frame[columns]


class FrameSource(_ArrowSource):
    """A pandas frame. A column of mixed types is text."""

    def __init__(self, frame: pd.DataFrame, name: str = "frame") -> None:
        self.name = name
        self._frame = frame
        self._arrays: dict[str, pa.Array] = {}

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        names = [str(name) for name in self._frame.columns]
        self._arrays = {
            name: _of_series(self._frame.iloc[:, position]) for position, name in enumerate(names)
        }
        return pa.schema(
            [pa.field(name, self._arrays[name].type) for name in names]  # a name that is there twice stays
        )

    def rows(self) -> int:
        """The number of rows."""
        return len(self._frame)

    def _array(self, column: str) -> pa.ChunkedArray:
        import pyarrow as pa

        return pa.chunked_array([self._arrays[column]])

    def sample(self, columns: list[str], rows: int, seed: int) -> pd.DataFrame:
        """At most so many rows, drawn with a fixed seed, in their order."""
        frame = self._frame.set_axis([str(name) for name in self._frame.columns], axis=1)
        drawn: pd.DataFrame = frame.iloc[chosen_rows(len(frame), rows, seed)][columns]
        return drawn.reset_index(drop=True)


def chosen_rows(available: int, wanted: int, seed: int) -> Any:
    """Positions of a sample without replacement, ascending."""
    import numpy as np

    if available <= wanted:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, wanted, replace=False))


def _open(path: Path, as_dictionary: list[str] | None = None, footer: Any = None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Groups of one column are read one by one: to read ahead would only copy what is read once more.
        return pq.ParquetFile(path, read_dictionary=as_dictionary, metadata=footer, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(
            f"this is no readable Parquet file: {error}", where=str(path), fix=_BAD_FILE
        ) from error


def _of_series(series: pd.Series[Any]) -> pa.Array:
    import pyarrow as pa

    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        array = pa.array(
            [None if missing else text_of(v) for v, missing in zip(series, series.isna(), strict=True)]
        )
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _column(arrow: pa.DataType) -> Column:
    from pyarrow import types

    kinds: list[tuple[Any, Kind]] = [
        (types.is_boolean, "boolean"),
        (types.is_integer, "number"),
        (types.is_floating, "number"),
        (types.is_decimal, "number"),
        (types.is_timestamp, "time"),
        (types.is_date, "time"),
        (types.is_duration, "duration"),
        (types.is_null, "no values"),
        (types.is_string, "text"),
        (types.is_large_string, "text"),
        (types.is_string_view, "text"),
    ]
    if types.is_dictionary(arrow):
        return Column("text" if _column(arrow.value_type).kind == "text" else "other", str(arrow.value_type))
    kind: Kind = next((kind for holds, kind in kinds if holds(arrow)), "other")
    return Column(kind, str(arrow), whole=bool(types.is_integer(arrow)))


def _counted(array: pa.ChunkedArray) -> Iterator[tuple[object, int]]:
    """The values of an array with their counts; those of a dictionary may come again with each chunk."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        for chunk in array.chunks:
            codes = chunk.indices.drop_null().to_numpy(zero_copy_only=False)
            counts = np.bincount(codes, minlength=len(chunk.dictionary)).tolist()
            pairs = zip(chunk.dictionary.to_pylist(), counts, strict=True)
            yield from (pair for pair in pairs if pair[1])
        return
    try:
        counted = pc.value_counts(array)
    except pa.ArrowException:  # lists and structures
        texts = [None if value is None else str(value) for value in array.to_pylist()]
        counted = pc.value_counts(pa.array(texts))
    yield from zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)


def _ends(values: Floats) -> tuple[float, float] | None:
    """The smallest and the largest value; ``None`` where there are none, or not all are finite."""
    import numpy as np

    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())  # NaN where one of the values is
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None


def _floats(array: pa.Array, kind: Kind) -> Any:
    """One chunk as floats, NaN for what is missing; times in seconds."""
    import pyarrow as pa
    from pyarrow import types

    scale = 1.0
    if types.is_date(array.type):
        array = array.cast(pa.timestamp("s"))
    if kind in ("time", "duration"):
        scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[array.type.unit]
        array = array.cast(pa.int64())
    if not types.is_float64(array.type):
        array = array.cast(pa.float64(), safe=False)
    values = array.to_numpy(zero_copy_only=False)
    return values if scale == 1 else values * scale


def text_of(value: object) -> str:
    """A value as text: a whole number without its fraction, anything else as Python writes it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def connect(folder: Path, *, memory_mb: int = 256, threads: int = 0) -> duckdb.DuckDBPyConnection:
    """A DuckDB that stays on this machine, in so much memory, and spills into ``folder``."""
    import duckdb

    return duckdb.connect(
        config={
            "memory_limit": f"{memory_mb}MB",
            "threads": threads or min(4, os.cpu_count() or 1),
            "temp_directory": str(folder / "spill"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "preserve_insertion_order": True,
        }
    )


def _begins_as_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


@contextmanager
def open_source(path: Path) -> Iterator[ParquetSource]:
    """A Parquet file or folder as it is, a CSV file through DuckDB as a temporary Parquet file.

    DuckDB may read this one file and write its own folder; everything else, the network included, is out of
    its reach. Types are told from all rows, not from the first ones.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: it is neither Parquet nor CSV, or broken.
    """
    if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
        yield ParquetSource(path)
        return
    if not path.is_file():
        raise NotFoundError("the data file does not exist", where=str(path), fix="check the path")
    if not path.suffix and _begins_as_parquet(path):  # content in an evidence store has no file name
        yield ParquetSource(path)
        return
    if path.suffix.lower() not in (".csv", ".tsv", ".gz"):
        raise InvalidInputError("this is neither Parquet nor CSV", where=str(path), fix=_BAD_FILE)
    with tempfile.TemporaryDirectory(prefix="airlock-csv-") as folder:
        target = Path(folder) / "rows.parquet"
        copy_csv(path, target)
        source = ParquetSource(target)
        source.name = path.name
        yield source


def copy_csv(path: Path, target: Path) -> None:
    """Write a CSV file with a header as Parquet.

    Raises:
        InvalidInputError: it cannot be parsed.
    """
    import duckdb

    if not path.stat().st_size:
        raise InvalidInputError("this CSV is empty", where=str(path), fix=_BAD_FILE)
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    read = (
        f"read_csv({literal(str(path.resolve()))}, header = true, sample_size = -1, "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', strict_mode = true)"
    )
    with connect(target.parent) as connection:
        allowed = f"[{literal(str(path.resolve()))}, {literal(str(target))}]"
        connection.execute(f"SET allowed_paths = {allowed}")
        connection.execute(f"SET allowed_directories = [{literal(str(target.parent))}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            connection.execute(f"COPY (FROM {read}) TO {literal(str(target))} (FORMAT parquet)")
        except duckdb.Error as error:
            what = str(error).splitlines()[0]
            raise InvalidInputError(
                f"this CSV cannot be read: {what}", where=str(path), fix=_BAD_FILE
            ) from error
