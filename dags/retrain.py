"""Retraining DAGs: one for each workload with a training command. All logic is in ``airlock.airflow``."""

from airlock.airflow.retraining import retrain_dags

for dag in retrain_dags():
    globals()[dag.dag_id] = dag
