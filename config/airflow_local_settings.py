"""Imports the heavy libraries once, where tasks are forked, so that they start in 0.2 s instead of 10 s.

Airflow imports this file from its Python path at start-up, in every component. With LocalExecutor the
scheduler forks tasks, with Celery the workers do. An import that fails here must not take a component
down: the task that needs the library will fail by itself and say so.
"""

import logging
import os
import sys

_LIBRARIES = (
    "airlock.airflow.operators",
    "airlock.airflow.approval",
    "airlock.services.promote",
    "airlock.services.score",
    "pandas",
    "pyarrow.parquet",
    "sklearn.metrics",
    "fairlearn.metrics",
    "mlflow.artifacts",
    "mlflow.store.tracking.sqlalchemy_store",
    "great_expectations",
    "evidently.metrics",
)

_FORKS = "worker" if "Celery" in os.environ.get("AIRFLOW__CORE__EXECUTOR", "") else "scheduler"

if _FORKS in sys.argv:
    import importlib

    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
        except Exception:
            logging.getLogger(__name__).exception(
                "Preloading %s failed; tasks that need it start slower", name
            )
