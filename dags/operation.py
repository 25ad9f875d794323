"""Rollback and the guard. All logic is in ``airlock.airflow``."""

from airlock.airflow.operation import guard_dag, rollback_dag

dag, guard = rollback_dag(), guard_dag()
