"""Waivers: ask for one, take one back, and look after all. All logic is in ``airlock.airflow``."""

from airlock.airflow.requests import revoke_dag, waiver_dag, waivers_dag

dag, revoke, review = waiver_dag(), revoke_dag(), waivers_dag()
