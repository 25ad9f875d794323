"""Reads one window of the production log into one Parquet file, whatever it is logged in.

Of a Parquet folder only the days of the window are opened, and in them only the columns that are used; a
database is asked for the window alone. Outcomes that arrived later are joined by the prediction's id. What is
wrong with the log (columns that are missing or were renamed, ids that stand twice, outcomes that contradict
each other, clocks that are wrong, files nobody can read) is counted and said, never guessed away.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.adapters.production_window import LoggedWindow, RawLog, Wanted, write_window
from airlock.core import logged
from airlock.core.errors import ConfigurationError, InvalidInputError, NotFoundError, UnavailableError
from airlock.core.production import DAY_US, LogSpec, MonitoringSpec, Window, microseconds, moment
from airlock.core.workload import Workload

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["LoggedWindow", "ProductionLog"]

_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")
_FETCHED = 50_000
"""Rows fetched from a database at a time."""


class ProductionLog:
    """The production log of a workload.

    Args:
        workload: whose; it must have a section ``monitoring``.
        data_root: folder that its Parquet path is relative to.
        environ: where the URL of a database is looked up.

    Raises:
        ConfigurationError: the workload says nothing about monitoring.
    """

    def __init__(
        self, workload: Workload, data_root: Path, *, environ: Mapping[str, str] | None = None
    ) -> None:
        if workload.monitoring is None:
            raise ConfigurationError(
                f"workload {workload.name} does not say where its predictions are logged",
                where=f"{workload.name}.yaml: monitoring",
                fix="add a section `monitoring` with `log`; docs/monitoring.md has an example",
            )
        self.spec: MonitoringSpec = workload.monitoring
        self._workload = workload
        self._root = data_root
        self._environ = os.environ if environ is None else environ

    def read(
        self,
        window: Window,
        target: Path,
        *,
        now_us: int,
        numeric: Sequence[str] = (),
        memory_mb: int = 512,
    ) -> LoggedWindow:
        """Write the window's rows to ``target``, a Parquet file, and say what was found.

        Outcomes known at ``now_us`` count, later ones do not. ``numeric`` are features that are numbers in
        the training data: texts of the log are read as numbers there, and what is none is counted.

        Raises:
            NotFoundError: there is no log.
            InvalidInputError: it cannot be read.
            UnavailableError: the database does not answer.
        """
        wanted = Wanted(self._workload, self.spec, frozenset(numeric))
        with tempfile.TemporaryDirectory(prefix="airlock-log-", dir=target.parent) as name:
            folder = Path(name)
            if self.spec.log.parquet is not None:
                raw = self._files(window, now_us)
            else:
                raw = self._fetched(window, folder, wanted, now_us)
            return write_window(raw, wanted, window, target, now_us=now_us, memory_mb=memory_mb)

    def ends_us(self) -> int | None:
        """When the newest day with predictions ends; ``None`` while nothing is logged, or of a database."""
        if self.spec.log.parquet is None:
            return None
        days = [day for day, _ in _partitions(self._folder(logged.PREDICTIONS)) if day]
        return microseconds(max(days)) + DAY_US if days else None

    def newest_file(self) -> Path | None:
        """A file with the newest predictions; ``None`` while nothing is logged, or of a database."""
        if self.spec.log.parquet is None:
            return None
        files = [
            (day, path.stat().st_mtime_ns, path)
            for day, path in _partitions(self._folder(logged.PREDICTIONS))
        ]
        return max(files)[-1] if files else None

    def _folder(self, kind: str) -> Path:
        """A folder of the log; predictions may stand in the log's own folder."""
        base = self._root / str(self.spec.log.parquet)
        return base / kind if kind == logged.LABELS or (base / kind).is_dir() else base

    def _files(self, window: Window, now_us: int) -> RawLog:
        base = self._root / str(self.spec.log.parquet)
        if not base.is_dir():
            raise NotFoundError(
                "there is no production log",
                where=str(base),
                fix="have the model server write it (airlock.record), or correct monitoring.log.parquet",
            )
        days, today = window.days, moment(now_us).date().isoformat()
        everything = list(_partitions(self._folder(logged.PREDICTIONS)))
        inside = [path for day, path in everything if not day or day in days]
        # An outcome may be written on any later day.
        outcomes = [
            path
            for day, path in _partitions(self._folder(logged.LABELS))
            if not day or days[0] <= day <= today
        ]
        predictions, lost, bad = _opened(inside)
        labels, _, bad_labels = _opened(outcomes)
        ahead, _, _ = _opened([path for day, path in everything if day > today])
        return RawLog(
            place=str(base),
            predictions=predictions,
            labels=labels,
            lost=lost,
            future=sum(_rows(path) for path in ahead),
            unreadable=[path.name for path in (*bad, *bad_labels)],
        )

    def _fetched(self, window: Window, folder: Path, wanted: Wanted, now_us: int) -> RawLog:
        """The window as Parquet files, through SQLAlchemy, so any database will do."""
        import sqlalchemy as sa

        log = self.spec.log
        place = f"table {log.predictions} of ${log.url_env}"
        url = self._environ.get(str(log.url_env), "")
        if not url:
            raise ConfigurationError(
                f"the environment variable {log.url_env} is not set",
                where=f"{self._workload.name}.yaml: monitoring.log.url_env",
                fix="set it to the SQLAlchemy URL of the database with the production log",
            )
        try:
            engine = sa.create_engine(url)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            # What it says may repeat the URL, and with it a password.
            raise ConfigurationError(
                f"{log.url_env} is no usable SQLAlchemy URL ({type(error).__name__})",
                where=place,
                fix="write it as dialect+driver://user:password@host/database, and install the driver",
            ) from None
        try:
            with engine.connect() as connection:
                reader = _Tables(connection, log, window, place)
                predictions = reader.predictions(folder, wanted)
                labels = reader.labels(folder, now_us)
        except sa.exc.DBAPIError as error:
            raise UnavailableError(
                f"the production log cannot be read: {type(error.orig).__name__}",
                where=place,
                fix="see whether the database answers and this user may read the table",
            ) from None
        finally:
            engine.dispose()
        return RawLog(place, predictions, labels, known=reader.known)


def _partitions(folder: Path) -> Iterator[tuple[str, Path]]:
    """Parquet files with their day; without one where they stand in no folder ``day=…``.

    Names that begin with a dot or underscore are still being written, as everywhere in the field.
    """
    for path in sorted(folder.rglob("*.parquet")):
        inside = path.relative_to(folder).parts
        if inside[0] == logged.LABELS or any(part.startswith((".", "_")) for part in inside):
            continue
        found = [match[1] for part in inside[:-1] if (match := _DAY.fullmatch(part))]
        yield (found[0] if found else ""), path


def _opened(paths: list[Path]) -> tuple[list[Path], int, list[Path]]:
    """The files whose footer can be read, the losses that the recorder noted in them, and the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    good, bad, lost = [], [], 0
    for path in paths:
        try:
            noted = (pq.read_metadata(path).metadata or {}).get(logged.LOST, b"0")
        except (OSError, pa.ArrowException):
            bad.append(path)
            continue
        good.append(path)
        lost += int(noted) if noted.isdigit() else 0
    return good, lost, bad


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


class _Tables:
    """The tables of a database that hold one window."""

    def __init__(self, connection: sa.Connection, log: LogSpec, window: Window, place: str) -> None:
        import sqlalchemy as sa

        self._connection, self._log, self._window, self._place = connection, log, window, place
        self._metadata = sa.MetaData()
        self._predictions = self._table(str(log.predictions))
        self._labels = self._predictions if log.labels is None else self._table(log.labels)
        self.known = frozenset(str(column.name) for column in self._predictions.columns)

    def predictions(self, folder: Path, wanted: Wanted) -> list[Path]:
        """Rows of the window, the columns that are wanted."""
        import sqlalchemy as sa

        names = [name for name in wanted.log_names if name in self.known]
        time = self._column(self._predictions, logged.TIME)
        query = sa.select(*(self._predictions.columns[name] for name in names)).where(*self._inside(time))
        return self._written(query, folder, "predictions")

    def labels(self, folder: Path, now_us: int) -> list[Path]:
        """Outcomes of the window's predictions that are known now; none where they are not kept apart."""
        import sqlalchemy as sa

        if self._labels is self._predictions:
            return []
        own, theirs = (self._column(table, logged.ID) for table in (self._labels, self._predictions))
        time = self._column(self._predictions, logged.TIME)
        query = sa.select(self._labels).where(own.in_(sa.select(theirs).where(*self._inside(time))))
        known = self._log.named(logged.LABELLED)
        if known in self._labels.columns:
            column = self._labels.columns[known]
            query = query.where(sa.or_(column.is_(None), column <= _moment_for(column, now_us)))
        return self._written(query, folder, "labels")

    def _table(self, name: str) -> sa.Table:
        import sqlalchemy as sa

        schema, _, table = name.rpartition(".")
        try:
            return sa.Table(table, self._metadata, schema=schema or None, autoload_with=self._connection)
        except sa.exc.NoSuchTableError:
            raise NotFoundError(
                f"there is no table {name}",
                where=self._place,
                fix="correct monitoring.log in the workload file, or create the table",
            ) from None

    def _column(self, table: sa.Table, standard: str) -> sa.Column[Any]:
        name = self._log.named(standard)
        if name not in table.columns:
            raise InvalidInputError(
                f"the log has no column {name!r}, and nothing can be read without it",
                where=self._place,
                fix=f"name the column that holds it: monitoring.log.columns: {{{standard}: …}}",
            )
        return table.columns[name]

    def _inside(self, time: sa.Column[Any]) -> list[sa.ColumnElement[bool]]:
        start, end = (_moment_for(time, us) for us in (self._window.start_us, self._window.end_us))
        return [time >= start, time < end]

    def _written(self, query: sa.Select[Any], folder: Path, name: str) -> list[Path]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths: list[Path] = []
        result = self._connection.execution_options(stream_results=True).execute(query)
        names = list(result.keys())
        while rows := result.fetchmany(_FETCHED):
            arrays = {}
            for column, values in zip(names, zip(*rows, strict=True), strict=True):
                array = _array(list(values))
                if not pa.types.is_null(array.type):  # a column without values says nothing about its type
                    arrays[column] = array
            path = folder / f"{name}-{len(paths)}.parquet"
            pq.write_table(pa.table(arrays), path)
            paths.append(path)
        return paths


def _moment_for(column: sa.Column[Any], us: int) -> Any:
    """A time as the column compares it: with or without a zone, or as text."""
    import sqlalchemy as sa

    when = moment(us)
    if isinstance(column.type, sa.DateTime):
        return when if column.type.timezone else when.replace(tzinfo=None)
    return when.replace(tzinfo=None).isoformat(sep=" ")


def _array(values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
