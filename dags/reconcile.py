"""Reconciliation of the audit store with Airflow. All logic is in ``airlock.airflow``."""

from airlock.airflow.dag_factory import reconcile_dag

dag = reconcile_dag()
