#!/usr/bin/env bash
# One database and one role for each component. PostgreSQL's image runs this once, on an empty volume.
# Passwords are read from the environment by psql itself, so that no command line shows them.
set -euo pipefail

create() { # name, variable that holds the password
  NAME=$1 PASSWORD_OF=${!2:?} psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
    --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-postgres}" <<'SQL'
\getenv name NAME
\getenv password PASSWORD_OF
SET password_encryption = 'scram-sha-256';
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

create airflow AIRFLOW_DB_PASSWORD # Airflow's metadata
create celery CELERY_DB_PASSWORD   # task results: all that a worker may see of Airflow's databases
create mlflow MLFLOW_DB_PASSWORD   # runs, models and users of MLflow
create airlock AIRLOCK_DB_PASSWORD # the audit store
