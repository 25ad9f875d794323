# ruff: noqa: S608  # identifiers and literals are quoted by profiles.source, numbers are ours
"""Makes one clean Parquet file of what a production log holds about a window, by DuckDB in bounded memory."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.core import logged
from airlock.core.canonical import digest_of
from airlock.core.columns import label_text
from airlock.core.errors import InvalidInputError
from airlock.core.production import MonitoringSpec, Window
from airlock.core.workload import Workload
from airlock.profiles.source import connect, literal, quoted

if TYPE_CHECKING:
    import duckdb

_NEAR = 0.6
"""Likeness of two names from which one may be the other, renamed."""
_NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_TEXTS = (logged.ID, logged.VERSION, logged.POLICY, logged.CALLER, logged.UNIT)
_AMOUNTS = (logged.SCORE, logged.LATENCY, logged.COST)


@dataclass(frozen=True)
class LoggedWindow:
    """One window of the log.

    Attributes:
        path: Parquet file with the rows: standard columns, features, attributes, ``airlock_label``. Of two
            outcomes ``airlock_label`` and ``airlock_decision`` are 1 for the favourable one and 0 else, of a
            regression numbers, of several classes texts. A column the log does not have is not there.
        rows: rows of the window, each id once.
        digest: of these rows; the same log gives the same digest.
        days: rows by day, ``2026-01-31``; a day without rows is not there.
        labelled: rows whose outcome is known.
        missing: columns that the model or the workload needs and the log does not have.
        renamed: missing column → new column of the log that may be it.
        mistyped: feature → values that are no number though the model's training data has numbers.
        repeated: rows with an id that was there before; they are left out.
        contradictory: ids with several outcomes; these outcomes do not count.
        early_labels: outcomes that are older than their prediction.
        future: rows of days after now: somebody's clock is wrong.
        timeless: rows with no time, in the files that were read.
        lost: rows the recorder had to drop, by its own count.
        unreadable: names of files that cannot be read.
    """

    path: Path
    rows: int
    digest: str
    days: dict[str, int] = field(default_factory=dict)
    labelled: int = 0
    missing: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    mistyped: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    contradictory: int = 0
    early_labels: int = 0
    future: int = 0
    timeless: int = 0
    lost: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RawLog:
    """Files that hold a window and perhaps more.

    Attributes:
        place: where it came from, for people.
        known: columns that exist though no file has a value in them.
    """

    place: str
    predictions: list[Path]
    labels: list[Path]
    known: frozenset[str] = frozenset()
    lost: int = 0
    future: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What monitoring of a workload reads."""

    workload: Workload
    spec: MonitoringSpec
    numeric: frozenset[str] = frozenset()

    @property
    def own(self) -> list[str]:
        """Features, protected attributes and the KPI, under their own names."""
        kpi = [self.spec.kpi.column] if self.spec.kpi else []
        return list(dict.fromkeys([*self.workload.model.features, *self.workload.data.sensitive, *kpi]))

    @property
    def log_names(self) -> list[str]:
        """Every column of the log that is read, under its name there."""
        standard = [self.spec.log.named(name) for name in (*logged.PREDICTION_COLUMNS, *logged.LABEL_COLUMNS)]
        return list(dict.fromkeys([*standard, *self.own]))

    @property
    def needed(self) -> list[str]:
        """Columns without which something cannot be watched, under their names in the log."""
        standard = [
            self.spec.log.named(name) for name in (logged.ID, logged.VERSION, logged.SCORE, logged.DECISION)
        ]
        return [*standard, *self.workload.model.features, *self.workload.data.sensitive]


def write_window(
    raw: RawLog, wanted: Wanted, window: Window, target: Path, *, now_us: int, memory_mb: int = 512
) -> LoggedWindow:
    """Join, clean and count; the rows are in ``target`` afterwards.

    Raises:
        InvalidInputError: the files cannot be read, or hold no time.
    """
    import duckdb

    with connect(target.parent, memory_mb=memory_mb) as connection:
        try:
            return _Making(raw, wanted, window, connection, now_us).write(target)
        except duckdb.Error as error:
            raise InvalidInputError(
                f"the production log cannot be read: {str(error).splitlines()[0][:300]}",
                where=raw.place,
                fix="see that all files of the log are whole Parquet files with columns of sensible types",
            ) from error


class _Making:
    def __init__(
        self,
        raw: RawLog,
        wanted: Wanted,
        window: Window,
        connection: duckdb.DuckDBPyConnection,
        now_us: int,
    ) -> None:
        self._raw, self._wanted, self._window, self._now_us = raw, wanted, window, now_us
        self._connection = connection
        self._types = self._view("raw", raw.predictions)
        self._label_types = self._view("outcomes", raw.labels)

    def write(self, target: Path) -> LoggedWindow:
        missing = [name for name in self._wanted.needed if name not in self._present]
        renamed = self._renamed(missing)
        if not self._types:
            self._run(f"COPY (SELECT NULL::VARCHAR AS {quoted(logged.ID)} WHERE false) TO {_file(target)}")
            return LoggedWindow(
                target, 0, digest_of({"rows": 0}), missing=missing if self._present else [],
                lost=self._raw.lost, future=self._raw.future, unreadable=self._raw.unreadable,
            )  # fmt: skip
        facts = self._prepare()
        self._run(f"COPY ({self._rows()}) TO {_file(target)} (FORMAT parquet)")
        written = f"read_parquet({literal(str(target))})"
        rows, labelled, total = self._ask(
            f"SELECT count(*), count({quoted(logged.LABEL)}), coalesce(sum(hash(t)), 0) FROM {written} AS t"
        )
        days = self._all(
            f"SELECT strftime({quoted(logged.TIME)}, '%Y-%m-%d') AS day, count(*) FROM {written} "
            "GROUP BY day ORDER BY day"
        )
        return LoggedWindow(
            path=target,
            rows=int(rows),
            digest=digest_of({"rows": int(rows), "sum": str(total)}),
            days={str(day): int(count) for day, count in days},
            labelled=int(labelled),
            missing=missing,
            renamed=renamed,
            lost=self._raw.lost,
            future=self._raw.future,
            unreadable=self._raw.unreadable,
            **facts,
        )

    @cached_property
    def _present(self) -> set[str]:
        return set(self._types) | set(self._raw.known)

    def _view(self, name: str, files: list[Path]) -> dict[str, str]:
        """Make the files one view; column → DuckDB type, nothing where there is no file."""
        if not files:
            return {}
        listed = ", ".join(literal(str(path)) for path in files)
        self._run(
            f"CREATE VIEW {name} AS SELECT * FROM "
            f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
        )
        return {str(row[0]): str(row[1]) for row in self._all(f"DESCRIBE {name}")}

    def _prepare(self) -> dict[str, Any]:
        """Rows of the window as a view, each id once, with their outcomes; and what was counted."""
        time = self._time(logged.TIME, self._types)
        wrong = {
            feature: f"count({quoted(feature)}) - count(TRY_CAST({quoted(feature)} AS DOUBLE))"
            for feature in self._wanted.workload.model.features
            if self._as_number(feature)
        }
        name = self._name(logged.ID)
        identity = f"CAST({quoted(name)} AS VARCHAR)" if name in self._types else "NULL"
        inside = f"epoch_us({time}) >= {self._window.start_us} AND epoch_us({time}) < {self._window.end_us}"
        self._run(
            f"CREATE VIEW inside AS SELECT *, {time} AS made_at, {identity} AS own_id FROM raw WHERE {inside}"
        )
        timeless = self._ask(f"SELECT count(*) FROM raw WHERE {time} IS NULL")[0]
        asked = ["count(own_id) - count(DISTINCT hash(own_id))", *wrong.values()]
        repeated, *mistyped = self._ask(f"SELECT {', '.join(asked)} FROM inside")
        once = ""
        if repeated:  # rare, and the only thing here that needs memory for every row
            once = "QUALIFY own_id IS NULL OR row_number() OVER (PARTITION BY own_id ORDER BY made_at) = 1"
        self._run(f"CREATE VIEW once AS SELECT * FROM inside {once}")
        return {
            "repeated": int(repeated),
            "timeless": int(timeless),
            "mistyped": {
                feature: int(count) for feature, count in zip(wrong, mistyped, strict=True) if count
            },
            **self._join(),
        }

    def _join(self) -> dict[str, int]:
        """Outcomes by id: one value, or none where they contradict each other."""
        self._joined = False
        own_name = self._wanted.spec.log.named(logged.LABEL)
        if not self._label_types or logged.ID not in self._names_of(self._label_types):
            self._label = self._text(quoted(own_name)) if own_name in self._types else "NULL"
            return {"contradictory": 0, "early_labels": 0}
        named = self._names_of(self._label_types)
        value = self._text(quoted(named[logged.LABEL])) if logged.LABEL in named else "NULL"
        known = self._time(logged.LABELLED, self._label_types) if logged.LABELLED in named else "NULL"
        kpi = self._kpi_of_labels()
        self._run(
            "CREATE TEMP TABLE known AS SELECT label_id, min(value) AS value, min(known_at) AS known_at, "
            f"min(value) IS DISTINCT FROM max(value) AS contradictory{', min(kpi) AS kpi' if kpi else ''} "
            f"FROM (SELECT CAST({quoted(named[logged.ID])} AS VARCHAR) AS label_id, {value} AS value, "
            f"{known} AS known_at{f', {kpi} AS kpi' if kpi else ''} FROM outcomes) "
            f"WHERE value IS NOT NULL AND (known_at IS NULL OR epoch_us(known_at) <= {self._now_us}) "
            "AND label_id IN (SELECT own_id FROM inside) GROUP BY label_id"
        )
        self._joined = True
        self._label = "CASE WHEN known.contradictory THEN NULL ELSE known.value END"
        contradictory, early = self._ask(
            "SELECT count(*) FILTER (contradictory), count(*) FILTER (known_at < made_at) "
            "FROM known JOIN once ON label_id = own_id"
        )
        return {"contradictory": int(contradictory), "early_labels": int(early)}

    def _kpi_of_labels(self) -> str:
        kpi = self._wanted.spec.kpi
        if kpi is None or kpi.column in self._types or kpi.column not in self._label_types:
            return ""
        return f"TRY_CAST({quoted(kpi.column)} AS DOUBLE)"

    def _rows(self) -> str:
        """The query for the clean rows."""
        columns = {logged.TIME: "CAST(made_at AS TIMESTAMP)", logged.ID: "own_id"}
        for standard in (*_TEXTS[1:], *_AMOUNTS):
            if (name := self._name(standard)) in self._types:
                kind = "DOUBLE" if standard in _AMOUNTS else "VARCHAR"
                columns[standard] = f"TRY_CAST({quoted(name)} AS {kind})"
        if (name := self._name(logged.DECISION)) in self._types:
            columns[logged.DECISION] = self._outcome(self._text(quoted(name)))
        for name in self._wanted.own:
            if name in self._types:
                number = self._as_number(name)
                columns[name] = f"TRY_CAST({quoted(name)} AS DOUBLE)" if number else quoted(name)
        if self._joined and self._kpi_of_labels() and self._wanted.spec.kpi:
            columns[self._wanted.spec.kpi.column] = "known.kpi"
        columns[logged.LABEL] = self._outcome(self._label)
        listed = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in columns.items())
        join = "LEFT JOIN known ON label_id = own_id" if self._joined else ""
        # In one order, so that samples and sums are the same whoever reads the same log.
        return f"SELECT {listed} FROM once {join} ORDER BY made_at, own_id"

    def _outcome(self, text: str) -> str:
        """An outcome or decision as monitoring reads it, from its text."""
        model = self._wanted.workload.model
        if model.task == "regression":
            return f"TRY_CAST({text} AS DOUBLE)"
        if model.task == "multiclass":
            return f"CAST({text} AS VARCHAR)"
        positive = literal(label_text(1 if model.positive is None else model.positive))
        return f"CASE WHEN {text} IS NULL THEN NULL WHEN {text} = {positive} THEN 1.0 ELSE 0.0 END"

    @staticmethod
    def _text(column: str) -> str:
        """A value as text, a whole number without its fraction: 1, 1.0, true and ``1`` are one."""
        number = f"TRY_CAST({column} AS DOUBLE)"
        return (
            f"CASE WHEN {number} = floor({number}) AND abs({number}) < 9e15 "
            f"THEN CAST(CAST({number} AS BIGINT) AS VARCHAR) ELSE CAST({column} AS VARCHAR) END"
        )

    def _as_number(self, feature: str) -> bool:
        return (
            feature in self._wanted.numeric
            and feature in self._types
            and not any(part in self._types[feature] for part in _NUMBERS)
        )

    def _name(self, standard: str) -> str:
        return self._wanted.spec.log.named(standard)

    def _names_of(self, types: dict[str, str]) -> dict[str, str]:
        return {one: self._name(one) for one in logged.LABEL_COLUMNS if self._name(one) in types}

    def _time(self, standard: str, types: dict[str, str]) -> str:
        """A column of times as an expression; a text is read as ISO 8601, a time without a zone as UTC."""
        name = self._name(standard)
        kind = types.get(name, "")
        if kind.startswith("TIMESTAMP"):
            return quoted(name)
        if kind in ("DATE", "VARCHAR"):
            return f"TRY_CAST({quoted(name)} AS TIMESTAMP)"
        what = f"is of type {kind}, not a time" if kind else "is missing"
        raise InvalidInputError(
            f"column {name!r} of the log {what}",
            where=self._raw.place,
            fix=f"log a time in UTC, or name its column: monitoring.log.columns: {{{standard}: …}}",
        )

    def _renamed(self, missing: list[str]) -> dict[str, str]:
        """Columns that may be a missing one under a new name: alike, or the only one nobody knows."""
        unknown = sorted(self._present - set(self._wanted.log_names))
        found = {}
        for name in missing:
            near = difflib.get_close_matches(name, unknown, n=1, cutoff=_NEAR)
            if near or (len(missing) == len(unknown) == 1):
                found[name] = near[0] if near else unknown[0]
        return found

    def _run(self, sql: str) -> None:
        self._connection.execute(sql)

    def _ask(self, sql: str) -> tuple[Any, ...]:
        return self._all(sql)[0]

    def _all(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()


def _file(path: Path) -> str:
    return literal(str(path))
