"""Pages and REST in the Airflow UI, rendered on the server. Besides ``airflow`` only this imports Airflow."""
