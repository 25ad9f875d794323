"""Publishing policies. All logic is in ``airlock.airflow``."""

from airlock.airflow.requests import policy_dag

dag = policy_dag()
