"""Monitoring DAGs: one for each workload with a log. All logic is in ``airlock.airflow``."""

from airlock.airflow.monitoring import monitor_dags

for dag in monitor_dags():
    globals()[dag.dag_id] = dag
