"""Answers queries with Spark, in a process that has PySpark on its path and nothing else of the tests.

PySpark beside Great Expectations and MLflow changes what these import, so it stays out of the environment of
the tests. A query comes as one line of JSON, and its rows go back as another.
"""

from __future__ import annotations

import importlib
import json
import sys


def main(folder: str) -> None:
    """Serve the tables ``reference`` and ``current``: Parquet files, column names beside them."""
    builder = importlib.import_module("pyspark.sql").SparkSession.builder
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"}
    spark = builder.master("local[2]").config(map=settings).getOrCreate()
    with open(f"{folder}/names.json") as file:  # noqa: PTH123  # nothing but PySpark is imported here
        names = json.load(file)
    for table in ("reference", "current"):
        spark.read.parquet(f"{folder}/{table}.parquet").toDF(*names).createOrReplaceTempView(table)
    for line in sys.stdin:
        rows = [tuple(row) for row in spark.sql(json.loads(line)).collect()]
        sys.stdout.write(json.dumps(rows) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
