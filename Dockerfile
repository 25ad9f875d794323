# The one image of every Airlock service in docker-compose.yaml: same code, same versions, other command.
FROM python:3.12.12-slim-bookworm

# Bubblewrap is the sandbox in which candidate models run; git keeps checkpoints of the audit log.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap git \
    && rm -rf /var/lib/apt/lists/*

# A named volume takes over the owner of the folder it is mounted on, so the folders are made here.
RUN useradd --uid 10001 --no-create-home --home-dir /opt/airflow airlock \
    && install --directory --owner airlock --mode 750 \
        /opt/airflow /opt/airflow/logs /var/lib/airlock /var/lib/airlock-anchor /var/lib/airlock-key \
        /var/lib/mlflow

ENV AIRFLOW_HOME=/opt/airflow \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/airlock
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY include ./include
RUN pip install --no-cache-dir --constraint constraints.txt '.[cluster,rego,s3,signing,slack]' \
    && pip check
COPY dags ./dags
COPY plugins ./plugins
COPY config ./config

USER airlock
