"""Approvals: delegate, confirm a condition, and look after all. All logic is in ``airlock.airflow``."""

from airlock.airflow.seats import approvals_dag, condition_dag, delegate_dag, end_delegation_dag

dag, end, condition, review = delegate_dag(), end_delegation_dag(), condition_dag(), approvals_dag()
