#!/usr/bin/env bash
# One database and one role for each component, and the roles of the audit store. PostgreSQL's image runs this once, on an empty volume.
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

# `airlock audit roles --apply` says what the roles of the audit store may do. Here they are only made, because that
# takes an administrator, and the owner of the database may hand out their rights from then on.
member() { # name, variable that holds the password, role whose rights it has, database, which has its owner's name
  NAME=$1 PASSWORD_OF=${!2:?} ROLE=$3 DATABASE=$4 psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
    --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-postgres}" <<'SQL'
\getenv name NAME
\getenv password PASSWORD_OF
\getenv role ROLE
\getenv database DATABASE
SET password_encryption = 'scram-sha-256';
SELECT format('CREATE ROLE %I NOLOGIN', name)
FROM unnest('{airlock_owner,airlock_writer,airlock_sequencer,airlock_reader,airlock_privacy}'::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
GRANT airlock_owner, airlock_writer, airlock_sequencer, airlock_reader, airlock_privacy
  TO :"database" WITH ADMIN OPTION;
CREATE ROLE :"name" LOGIN PASSWORD :'password' IN ROLE :"role";
GRANT CONNECT ON DATABASE :"database" TO :"name";
SQL
}

create airflow AIRFLOW_DB_PASSWORD # Airflow's metadata
create celery CELERY_DB_PASSWORD   # task results: all that a worker may see of Airflow's databases
create mlflow MLFLOW_DB_PASSWORD   # runs, models and users of MLflow
create airlock AIRLOCK_DB_PASSWORD # the audit store: this role makes its tables, and no process that runs keeps it

# Airflow's processes and the courier append and read; the sequencer signs.
member airlock_app AIRLOCK_APP_DB_PASSWORD airlock_writer airlock
member airlock_signer AIRLOCK_SIGNER_DB_PASSWORD airlock_sequencer airlock
