"""The Airflow plugin: listener, middleware, pages."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airlock.airflow import listener
from airlock.airflow.attempts import AttemptsMiddleware

PREFIX = "/airlock"
"""Where Airflow's API server mounts the pages."""


class AirlockPlugin(AirflowPlugin):
    """Registered by ``plugins/airlock_plugin.py``."""

    name = "airlock"
    # Airflow declares these as plain attributes and only ever reads them.
    listeners = [listener]
    external_views = [
        # No picture of its own: Airflow's follows the colours of its menu, a file cannot.
        {"name": "Airlock", "href": f"{PREFIX}/", "destination": "nav", "url_route": "airlock"},
        {
            "name": "Review",
            "href": f"{PREFIX}/runs/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "airlock-review",
        },
    ]
    fastapi_root_middlewares = [
        {"middleware": AttemptsMiddleware, "name": "Airlock: attempts to change a release"}
    ]

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]  # read like the attribute it stands for
        """The pages, made where they are served: importing them takes a second that no task should pay."""
        from airlock.web.app import create_app

        return [{"app": create_app(), "url_prefix": PREFIX, "name": "Airlock"}]
