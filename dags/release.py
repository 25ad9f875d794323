"""Release DAGs: one for each workload file. All logic is in ``airlock.airflow``."""

from airlock.airflow.dag_factory import release_dags

for dag in release_dags():
    globals()[dag.dag_id] = dag
