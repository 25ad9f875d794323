# ruff: noqa: S608  # identifiers are quoted by the dialect, and every other value is a number of ours
"""Compares two tables where they are: SQL text goes to the engine that holds them, small tables come back.

For data that does not leave its warehouse, and for Spark. The numbers are those of
:mod:`airlock.profiles.compare`, from the same definitions; each column costs four queries. SQL is kept
to what DuckDB and Spark share: CASE, CAST, GROUP BY, window functions, ``isnan``.

    spark = SparkSession.builder.getOrCreate()
    engine = SqlEngine(lambda sql: [tuple(row) for row in spark.sql(sql).collect()], SPARK)
    compare_tables(engine, Relation("risk.train", columns), Relation("risk.today", columns), ["income"])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airlock.core.errors import NotFoundError
from airlock.profiles import distances
from airlock.profiles.compare import DECILES, Comparison, Table, measured
from airlock.profiles.ordered import FEW_VALUES
from airlock.profiles.source import Column

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Dialect:
    """How an engine writes what engines write differently."""

    name: str
    quote: str

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        return self.quote + name.replace(self.quote, self.quote * 2) + self.quote


DUCKDB = Dialect("duckdb", '"')
SPARK = Dialect("spark", "`")


@dataclass(frozen=True)
class SqlEngine:
    """Runs a query and returns its rows."""

    run: Callable[[str], Sequence[Row]]
    dialect: Dialect


@dataclass(frozen=True)
class Relation:
    """A table: its name, parts divided by dots, and what its columns hold."""

    table: str
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class _Pair:
    """One column of both tables."""

    engine: SqlEngine
    reference: str
    current: str
    column: str

    def sides(self, expression: str) -> str:
        """Both tables as one: the value, and 1 in ``r`` or in ``c`` for the table it comes from."""
        return (
            f"SELECT {expression} AS v, 1 AS r, 0 AS c FROM {self.reference} "
            f"UNION ALL SELECT {expression} AS v, 0 AS r, 1 AS c FROM {self.current}"
        )

    def ask(self, sql: str) -> Sequence[Row]:
        return self.engine.run(sql)


def compare_tables(
    engine: SqlEngine, reference: Relation, current: Relation, columns: Iterable[str]
) -> list[Comparison]:
    """Compare columns of two tables of one engine; answers come in the order of ``columns``.

    Raises:
        NotFoundError: a column is missing in one of them.
    """
    return [_compare(engine, reference, current, column) for column in columns]


def _compare(engine: SqlEngine, reference: Relation, current: Relation, column: str) -> Comparison:
    for relation in (reference, current):
        if column not in relation.columns:
            raise NotFoundError(
                f"there is no column {column!r}", where=relation.table, fix="see the columns of the table"
            )
    quoted = engine.dialect.quoted
    tables = [".".join(map(quoted, relation.table.split("."))) for relation in (reference, current)]
    pair = _Pair(engine, tables[0], tables[1], quoted(column))
    known = [relation.columns[column] for relation in (reference, current)]
    if all(one.kind == "number" for one in known):
        return _numbers(pair, column, whole=all(one.whole for one in known))
    return _texts(pair, column)


def _texts(pair: _Pair, column: str) -> Comparison:
    """Counts by text, as the engine writes values of other types."""
    found = pair.ask(
        f"SELECT v, SUM(r), SUM(c) FROM ({pair.sides(f'CAST({pair.column} AS STRING)')}) AS u GROUP BY v"
    )
    rows = sum(int(row[1]) for row in found), sum(int(row[2]) for row in found)
    present = sorted((str(row[0]), int(row[1]), int(row[2])) for row in found if row[0] is not None)
    table = _table([row[0] for row in present], [row[1:] for row in present])
    n = int(table.reference.sum()), int(table.current.sum())
    return measured(column, rows, n, bins="values", table=table)


def _numbers(pair: _Pair, column: str, *, whole: bool) -> Comparison:
    value = f"CAST({pair.column} AS DOUBLE)"
    finite = (
        f"CASE WHEN {value} IS NULL OR isnan({value}) OR ABS({value}) = CAST('Infinity' AS DOUBLE) "
        f"THEN NULL ELSE {value} END"
    )
    both = f"({pair.sides(finite)}) AS u"
    facts = (
        f"SELECT SUM(r), SUM(c), SUM(CASE WHEN v IS NULL THEN 0 ELSE r END), "
        f"SUM(CASE WHEN v IS NULL THEN 0 ELSE c END), MIN(v), MAX(v), "
        f"COUNT(DISTINCT CASE WHEN r = 1 THEN v END), STDDEV_POP(CASE WHEN r = 1 THEN v END) FROM {both}"
    )
    answer = pair.ask(facts)[0]
    rows, n = (int(answer[0] or 0), int(answer[1] or 0)), (int(answer[2] or 0), int(answer[3] or 0))
    if not all(n):
        return measured(column, rows, n, bins="none", table=None)
    low, high, distinct, scale = float(answer[4]), float(answer[5]), int(answer[6]), float(answer[7])
    table = None if distinct <= FEW_VALUES else _equal_widths(pair, both, (low, high), n, whole and n == rows)
    ks, distance, places = _exact(pair, both, n)
    by_value = table is None
    return measured(
        column,
        rows,
        n,
        bins="values" if by_value else "equal width",
        table=_by_value(pair, both) if table is None else table,
        deciles=None if by_value else _between(pair, both, places),
        ks=ks,
        wasserstein=distances.normed(distance, scale),
    )


def _equal_widths(
    pair: _Pair,
    both: str,
    ends: tuple[float, float],
    n: tuple[int, int],
    whole: bool,  # noqa: FBT001
) -> Table | None:
    try:
        edges = distances.sturges_edges(*ends, sum(n), whole=whole).tolist()
    except ValueError:
        return None
    below = [f"v < {_literal(edge)}" for edge in edges[1:-1]]
    return _cumulative(pair, both, below, edges)


def _between(pair: _Pair, both: str, places: list[float]) -> Table:
    edges = sorted(set(places))
    return _cumulative(pair, both, [f"v <= {_literal(edge)}" for edge in edges], edges)


def _cumulative(pair: _Pair, both: str, below: list[str], labels: list[float]) -> Table:
    """Counts of the bins between conditions that hold for more and more rows."""
    import numpy as np

    parts = [f"SUM(CASE WHEN {one} THEN {side} ELSE 0 END)" for side in "rc" for one in below]
    parts += ["SUM(r)", "SUM(c)"]
    found = [
        int(value) for value in pair.ask(f"SELECT {', '.join(parts)} FROM {both} WHERE v IS NOT NULL")[0]
    ]
    k = len(below)
    counts = [np.diff([0, *found[i * k : i * k + k], found[2 * k + i]]).astype(np.int64) for i in (0, 1)]
    return Table(counts[0], counts[1], labels)


def _exact(pair: _Pair, both: str, n: tuple[int, int]) -> tuple[float, float, list[float]]:
    """Kolmogorov-Smirnov, Wasserstein and the reference's deciles, from both distribution functions."""
    steps = (
        f"SELECT v, SUM(SUM(r)) OVER (ORDER BY v) AS fr, SUM(SUM(c)) OVER (ORDER BY v) AS fc, "
        f"LEAD(v) OVER (ORDER BY v) AS next_v FROM {both} WHERE v IS NOT NULL GROUP BY v"
    )
    gap = f"ABS(CAST(fr AS DOUBLE) / {n[0]} - CAST(fc AS DOUBLE) / {n[1]})"
    places = [-(-n[0] * tenth // DECILES) for tenth in range(1, DECILES)]
    deciles = [f"MIN(CASE WHEN fr >= {place} THEN v END)" for place in places]
    found = pair.ask(
        f"SELECT MAX({gap}), SUM({gap} * (next_v - v)), {', '.join(deciles)} FROM ({steps}) AS s"
    )[0]
    return float(found[0]), float(found[1] or 0.0), [float(value) for value in found[2:]]


def _by_value(pair: _Pair, both: str) -> Table:
    found = pair.ask(f"SELECT v, SUM(r), SUM(c) FROM {both} WHERE v IS NOT NULL GROUP BY v ORDER BY v")
    return _table([float(row[0]) for row in found], [(int(row[1]), int(row[2])) for row in found])


def _table(labels: list[Any], counts: Sequence[tuple[int, int]]) -> Table:
    import numpy as np

    sides = np.array(list(counts), dtype=np.int64).reshape(-1, 2)
    return Table(sides[:, 0], sides[:, 1], labels)


def _literal(value: float) -> str:
    """A float exactly, in a cast, so that a negative one is no operator and no engine makes it a decimal."""
    return f"CAST('{float(value)!r}' AS DOUBLE)"
