"""The profile engine on Spark: the same SQL, the same numbers as DuckDB's and as those of arrays."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from airlock.profiles.compare import Comparison, compare
from airlock.profiles.in_database import DUCKDB, SPARK, Relation, SqlEngine, compare_tables
from airlock.profiles.source import ParquetSource

if shutil.which("java") is None:
    pytest.skip("there is no java; Spark 4 needs version 17 or newer", allow_module_level=True)
sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: pip install -e '.[spark]'")

HOSTILE = "grö`ße; DROP TABLE reference; --"
COLUMNS = ["spoilt", "whole", HOSTILE]


def data(rows: int, seed: int, shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    spoilt = rng.normal(shift, 1, rows)
    spoilt[::10], spoilt[5::97] = np.nan, -np.inf
    texts = rng.choice([None, "a", "ü", "it's", ""], rows)
    return pd.DataFrame({"spoilt": spoilt, "whole": rng.integers(-40, 40, rows), HOSTILE: texts})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ParquetSource]:
    folder, found = tmp_path_factory.mktemp("tables"), {}
    for name, frame in (("reference", data(3000, 1, 0.0)), ("current", data(2000, 2, 0.2))):
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        found[name] = ParquetSource(folder / f"{name}.parquet")
    return found


@pytest.fixture(scope="module")
def spark(sources: dict[str, ParquetSource], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlEngine]:
    # For queries this small compiling costs more than it saves.
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = sql.SparkSession.builder.master("local[1]").appName("airlock-tests")
    session = builder.config(map=settings).getOrCreate()
    try:
        for name, source in sources.items():
            session.read.parquet(str(source.path)).createOrReplaceTempView(name)
        yield SqlEngine(lambda text: [tuple(row) for row in session.sql(text).collect()], SPARK)
    finally:
        session.stop()


@pytest.fixture(scope="module")
def duck(sources: dict[str, ParquetSource]) -> Iterator[SqlEngine]:
    with duckdb.connect() as connection:
        for name, source in sources.items():
            connection.read_parquet(str(source.path)).create_view(name)
        yield SqlEngine(lambda text: connection.execute(text).fetchall(), DUCKDB)


def numbers(found: list[Comparison]) -> list[dict[str, Any]]:
    return [{key: value for key, value in vars(one).items() if key != "table"} for one in found]


@pytest.mark.slow
@pytest.mark.requirement("G-4")
def test_spark_and_duckdb_give_the_numbers_of_arrays(
    spark: SqlEngine, duck: SqlEngine, sources: dict[str, ParquetSource]
) -> None:
    expected = numbers(compare(sources["reference"], sources["current"], COLUMNS))
    relations = [Relation(name, source.columns()) for name, source in sources.items()]
    for engine in (spark, duck):
        found = compare_tables(engine, *relations, COLUMNS)
        for one, wanted in zip(numbers(found), expected, strict=True):
            for name, value in wanted.items():
                exact = value is None or isinstance(value, str)
                told = value if exact else pytest.approx(value, rel=1e-9, abs=1e-12)
                assert one[name] == told, (engine.dialect.name, one["column"], name)
