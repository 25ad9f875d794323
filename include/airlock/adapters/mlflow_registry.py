"""The MLflow model registry: aliases and tags carry the state (requirement R-1)."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airlock.adapters.evidence import copy_tree
from airlock.core.errors import InvalidInputError, NotFoundError, UnavailableError
from airlock.ports import ModelVersion, RunFacts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

CHAMPION = "champion"
"""The alias that is production; moved by promotion and by nothing else."""

TAG = "airlock."
"""Prefix of every tag Airlock writes on a model version."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
"""A version as MLflow writes it; it would also read "03" as 3, and one version would have two names."""

# A server that is down must be an error in seconds; Airflow's own retries come after that.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def quiet_mlflow() -> None:
    """Set MLflow's environment, where nobody has; before its first import, when it reads it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class MlflowRegistry:
    """A registry behind an MLflow tracking URI: ``sqlite:///…`` or ``http://…``."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _client(self) -> MlflowClient:
        quiet_mlflow()
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def version(self, name: str, version: str) -> ModelVersion:
        """Return a version."""
        if not _VERSION.fullmatch(version):
            raise NotFoundError(
                f"{version!r} is not a version of {name!r}", fix="give the number MLflow shows, such as 3"
            )
        with self._translated(f"{name} version {version}"):
            found = self._client.get_model_version(name, version)
            return _model_version(found)

    def champion(self, name: str) -> ModelVersion | None:
        """The version in production, or ``None`` before the first release."""
        with self._translated(name):
            aliases = self._client.get_registered_model(name).aliases
        return self.version(name, str(aliases[CHAMPION])) if CHAMPION in aliases else None

    def run(self, run_id: str) -> RunFacts:
        """Parameters, git commit and data sets of a run; nothing when it was deleted or never was."""
        if not run_id:
            return RunFacts()
        try:
            with self._translated(f"run {run_id}"):
                run = self._client.get_run(run_id)
        except NotFoundError:
            return RunFacts()
        inputs = run.inputs.dataset_inputs if run.inputs is not None else []
        commit = str(run.data.tags.get("mlflow.source.git.commit", ""))
        return RunFacts(
            params={str(name): str(value) for name, value in sorted(run.data.params.items())},
            commit=commit if _COMMIT.fullmatch(commit) else "",
            datasets={str(entry.dataset.name): str(entry.dataset.digest) for entry in inputs},
            users=_users(run.info.user_id, run.data.tags),
        )

    def download(self, name: str, version: str, target: Path) -> None:
        """Copy the files of a version into ``target``, without loading them."""
        what = f"{name} version {version}"
        with self._translated(what):
            uri = self._client.get_model_version_download_uri(name, version)
        with tempfile.TemporaryDirectory(prefix="airlock-download-") as folder:
            with self._translated(what):
                local = self._download(uri, what, folder)
            if not local.is_dir() or not any(local.iterdir()):
                raise InvalidInputError(
                    "the artifact is empty", where=what, fix="log the model again and register that version"
                )
            copy_tree(local, target)

    def _download(self, uri: str, what: str, folder: str) -> Path:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        # Files of this machine are read where they are, so that links stay links; others come into a
        # folder of ours, because MLflow would leave them in one of its own for ever.
        destination = None if urlsplit(uri).scheme in ("", "file") else folder
        try:
            return Path(download_artifacts(artifact_uri=uri, dst_path=destination, tracking_uri=self._uri))
        except RequestException as error:
            if error.response is None or error.response.status_code != HTTPStatus.NOT_FOUND:
                raise UnavailableError(
                    f"the artifact store does not answer: {self._without_password(str(error))}",
                    where=what,
                    fix="check that the artifact store runs; the task retries by itself",
                ) from None
            missing: Exception = error
        except OSError as error:
            if error.errno not in (None, errno.ENOENT, errno.ENOTDIR):
                raise UnavailableError(f"the artifact cannot be read: {error}", where=what) from error
            missing = error
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            missing = error
        raise InvalidInputError(
            f"the artifact files cannot be read: {self._without_password(str(missing))}",
            where=what,
            fix="log the model again; its files are missing in the artifact store",
        ) from None

    def add_version(
        self,
        name: str,
        folder: Path,
        *,
        key: str,
        beside: str = "",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Log the folder as a run and register it; the version that has ``key`` already is the answer."""
        with self._translated(name):
            if earlier := self._keyed(name, key):
                return earlier[0]
            run = self._client.create_run(self._experiment(name, beside), tags={TAG + "key": key})
            for parameter, value in (params or {}).items():
                self._client.log_param(run.info.run_id, parameter[:250], value[:6000])
            self._client.log_artifacts(run.info.run_id, str(folder), "model")
            self._create_model(name)
            made = self._client.create_model_version(
                name,
                source=f"{run.info.artifact_uri}/model",
                run_id=run.info.run_id,
                tags={TAG + "key": key, **{TAG + tag: value[:5000] for tag, value in (tags or {}).items()}},
            )
            self._client.set_terminated(run.info.run_id)
            # Two tries of one task that overlap: the lower number stays, and each takes its own surplus away.
            first = self._keyed(name, key)[0]
            if str(made.version) != first:
                self._client.delete_model_version(name, str(made.version))
            return first

    def _keyed(self, name: str, key: str) -> list[str]:
        """Numbers of the versions with this key, the lowest first."""
        found = self._client.search_model_versions(
            f"name = '{name.replace(chr(39), '')}'", max_results=10_000
        )
        return sorted((str(one.version) for one in found if one.tags.get(TAG + "key") == key), key=int)

    def _experiment(self, name: str, beside: str) -> str:
        """The experiment of a run, else the one that is called like the model."""
        if beside:
            return str(self._client.get_run(beside).info.experiment_id)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _create_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def set_champion(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Tag the version, then move the champion alias to it. Safe to repeat."""
        with self._translated(f"{name} version {version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, version, TAG + key, value)
            self._client.set_registered_model_alias(name, CHAMPION, version)

    def quarantine(self, name: str, version: str, reason: str) -> None:
        """Tag the version as quarantined. Safe to repeat."""
        with self._translated(f"{name} version {version}"):
            self._client.set_model_version_tag(name, version, TAG + "state", "quarantined")
            self._client.set_model_version_tag(name, version, TAG + "quarantine_reason", reason[:5000])

    def tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Tag a version without moving anything. Safe to repeat."""
        with self._translated(f"{name} version {version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, version, TAG + key, value[:5000])

    def clear_champion(self, name: str, tags: Mapping[str, str]) -> None:
        """Tag the model, then take the champion alias away: nothing is in production. Safe to repeat."""
        with self._translated(name):
            for key, value in tags.items():
                self._client.set_registered_model_tag(name, TAG + key, value[:5000])
            if CHAMPION in self._client.get_registered_model(name).aliases:
                self._client.delete_registered_model_alias(name, CHAMPION)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self._refuse_to_create()
        try:
            yield
        except SQLAlchemyError as error:
            raise UnavailableError(
                f"MLflow's store failed: {self._without_password(str(error).splitlines()[0])}",
                where=self._where,
                fix="check AIRLOCK_MLFLOW_URI and the database behind it",
            ) from None
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise NotFoundError(
                    f"MLflow does not know {what}",
                    where=self._where,
                    fix="register it: mlflow.sklearn.log_model(..., registered_model_name=...)",
                ) from error
            message = self._without_password(str(error.message).strip()).partition("\n")[0][:300]
            if error.error_code == "INVALID_PARAMETER_VALUE":
                raise InvalidInputError(
                    f"MLflow refuses {what}: {message}", where=self._where, fix="correct the name or value"
                ) from error
            # MLflow quotes its address, password included; this text goes into logs and the audit store.
            raise UnavailableError(
                f"MLflow failed: {message}",
                where=self._where,
                fix="check that MLflow runs and AIRLOCK_MLFLOW_URI is right; the task retries by itself",
            ) from None

    def _refuse_to_create(self) -> None:
        """MLflow would silently create an empty SQLite store where one has gone missing."""
        path = Path(self._uri.removeprefix("sqlite:///"))
        if self._uri.startswith("sqlite:///") and not path.is_file():
            raise UnavailableError(
                "the MLflow store is not there",
                where=str(path),
                fix="restore the file, or set AIRLOCK_MLFLOW_URI to where your MLflow keeps its data",
            )

    @property
    def _where(self) -> str:
        return self._without_password(self._uri)

    def _without_password(self, text: str) -> str:
        password = urlsplit(self._uri).password
        return text.replace(password, "***") if password else text


def _users(user_id: str | None, tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """Who made a run and its data, and what each did; a tag may name several people, with commas."""
    made = [user_id or "", str(tags.get("mlflow.user", "")), *str(tags.get("author", "")).split(",")]
    data = str(tags.get("data_author", "")).split(",")
    found = [*((name, "trained this model") for name in made), *((name, "made its data") for name in data)]
    return [(name.strip(), did) for name, did in dict.fromkeys(found) if name.strip()]


def _model_version(found: MlflowVersion) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id or "",
        tags=dict(found.tags),
        user=str(found.user_id or ""),
    )
