"""Everything that imports Airflow: operators, sensor, listener, DAG factory, plugin."""
