"""What people read: tables in the terminal, Markdown in Airflow."""
