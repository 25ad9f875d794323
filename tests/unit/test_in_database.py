"""The SQL that other engines are given, run by DuckDB and by Spark, against the comparison of arrays."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from airlock.core.errors import NotFoundError
from airlock.profiles.compare import Comparison, compare
from airlock.profiles.in_database import DUCKDB, SPARK, Relation, SqlEngine, compare_tables
from airlock.profiles.source import FrameSource

PYSPARK = "pyspark==4.0.1"
HOSTILE = 'größe"; DROP TABLE reference; --'


def data(rows: int, seed: int, shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "normal": rng.normal(shift, 1, rows),
            "skewed": np.exp(rng.normal(shift, 1, rows)),
            "gaps": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(-3, 1, rows)),
            "infinite": np.where(rng.random(rows) < 0.01, -math.inf, rng.normal(0, 1, rows)),
            "whole": rng.integers(-40, 40, rows),
            "narrow": rng.integers(0, 24, rows),
            "few": rng.integers(0, 5, rows),
            "text": rng.choice(["a", "b", "ü", "it's", ""], rows),
            HOSTILE: rng.choice([None, "x", "y"], rows),
            "yes": rng.random(rows) < 0.4,
            "empty": np.full(rows, np.nan),
        }
    )


BEFORE, NOW = data(3000, 1, 0.0), data(2000, 2, 0.2)


@pytest.fixture(scope="module", params=["duckdb", pytest.param("spark", marks=pytest.mark.soak)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlEngine]:
    with duckdb_engine() if request.param == "duckdb" else spark_engine(tmp_path_factory) as engine:
        yield engine


@contextmanager
def duckdb_engine() -> Iterator[SqlEngine]:
    with duckdb.connect() as connection:
        for name, frame in (("reference", BEFORE), ("current", NOW)):
            connection.register(f"{name}_frame", frame)
            connection.execute(f'CREATE TABLE "{name}" AS FROM {name}_frame')
        yield SqlEngine(lambda sql: connection.execute(sql).fetchall(), DUCKDB)


@contextmanager
def spark_engine(folders: pytest.TempPathFactory) -> Iterator[SqlEngine]:
    packages, data = folders.mktemp("packages"), folders.mktemp("tables")
    # Half a gigabyte that no other test needs, so it is installed here and for this alone.
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), PYSPARK]
    subprocess.run(install, check=True)
    for name, frame in (("reference", BEFORE), ("current", NOW)):
        frame.set_axis([f"c{at}" for at in range(frame.shape[1])], axis=1).to_parquet(
            data / f"{name}.parquet"
        )
    (data / "names.json").write_text(json.dumps(list(BEFORE.columns)))
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "spark_rows.py"), str(data)],
        env={**os.environ, "PYTHONPATH": str(packages)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def run(sql: str) -> list[tuple[Any, ...]]:
            print(json.dumps(sql), file=asked, flush=True)
            return [tuple(row) for row in json.loads(answers.readline())]

        yield SqlEngine(run, SPARK)
    assert process.returncode == 0


def plain(one: Comparison) -> dict[str, Any]:
    return {key: value for key, value in vars(one).items() if key != "table"}


@pytest.mark.requirement("G-4")
@pytest.mark.parametrize("column", BEFORE.columns)
def test_tables_are_compared_as_arrays_are(engine: SqlEngine, column: str) -> None:
    sources = FrameSource(BEFORE), FrameSource(NOW)
    relations = [
        Relation(name, source.columns())
        for name, source in zip(("reference", "current"), sources, strict=True)
    ]
    theirs = compare_tables(engine, relations[0], relations[1], [column])[0]
    ours = compare(sources[0], sources[1], [column])[0]
    for name, value in plain(ours).items():
        exact = value is None or isinstance(value, str)
        expected = value if exact else pytest.approx(value, rel=1e-9, abs=1e-12)
        assert plain(theirs)[name] == expected, name
    if ours.table is not None:
        assert theirs.table is not None
        assert sorted(theirs.table.reference.tolist()) == sorted(ours.table.reference.tolist())


def test_a_column_that_is_not_there_is_named(engine: SqlEngine) -> None:
    relation = Relation("reference", FrameSource(BEFORE).columns())
    with pytest.raises(NotFoundError, match="no column 'nope'"):
        compare_tables(engine, relation, relation, ["nope"])


def test_names_are_quoted_as_the_engine_quotes_them() -> None:
    asked: list[str] = []

    def run(sql: str) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return [("x", 1, 1)]

    relation = Relation("risk.to`day", {"a`b": FrameSource(BEFORE).columns()["text"]})
    compare_tables(SqlEngine(run, SPARK), relation, relation, ["a`b"])
    assert "FROM `risk`.`to``day`" in asked[0]
    assert "CAST(`a``b` AS STRING)" in asked[0]
