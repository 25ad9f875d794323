"""The Airflow plugin: listener and middleware."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airlock.airflow import listener
from airlock.airflow.attempts import AttemptsMiddleware


class AirlockPlugin(AirflowPlugin):
    """Registered by ``plugins/airlock_plugin.py``."""

    name = "airlock"
    # Airflow declares these as plain attributes and only ever reads them.
    listeners = [listener]
    fastapi_root_middlewares = [
        {"middleware": AttemptsMiddleware, "name": "Airlock: attempts to change a release"}
    ]
