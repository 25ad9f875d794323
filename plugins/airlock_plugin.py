"""Airflow finds the plugin here; what it does is in ``airlock.airflow.plugin``."""

from airlock.airflow.plugin import AirlockPlugin

__all__ = ["AirlockPlugin"]
