#!/usr/bin/env bash
# Starts the MLflow server with logins. Its settings for users can only come from a file, and the file
# holds a password, so it is written here, in memory, at start-up.
set -euo pipefail
export MLFLOW_AUTH_CONFIG_PATH=${TMPDIR:-/tmp}/mlflow-auth.ini
(
  umask 077
  cat >"$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
default_permission = READ
database_uri = ${MLFLOW_BACKEND_STORE_URI:?}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
)
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers 2 \
  --serve-artifacts --artifacts-destination /var/lib/mlflow
