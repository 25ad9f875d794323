"""An anchor in MLflow: the newest checkpoint as a tag of an experiment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airlock.adapters.anchors.rules import conflict, is_newest, kept, to_publish
from airlock.adapters.mlflow_registry import quiet_mlflow
from airlock.core.errors import UnavailableError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "airlock-audit"
TAG = "airlock.audit.checkpoint"


class MlflowAnchor:
    """The newest checkpoint in the tag ``airlock.audit.checkpoint`` of an experiment.

    A tag holds one value, so the history is the newest checkpoint alone. MLflow cannot compare and swap:
    the tag is read before it is written and once more after, which finds most of two publishers at the
    same moment but not all. Use it beside an anchor of another kind.
    """

    def __init__(self, tracking_uri: str, experiment: str = EXPERIMENT, *, every_seconds: int = 60) -> None:
        self._uri = tracking_uri
        self._experiment = experiment
        self.name = f"mlflow://{experiment}"
        self.every_seconds = every_seconds

    @cached_property
    def _client(self) -> MlflowClient:
        quiet_mlflow()
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def history(self) -> list[str]:
        """The newest checkpoint, or nothing."""
        newest = self.latest()
        return [] if newest is None else [newest]

    def latest(self) -> str | None:
        """The newest checkpoint."""
        return self._read()[1]

    def publish(self, note: str, *, after: str | None) -> str:
        """Set the tag; the receipt names the experiment."""
        to_publish(note)
        identifier, newest = self._read()
        if not is_newest(note, newest, after, self.name):
            with self._translated():
                if identifier is None:
                    identifier = self._client.create_experiment(self._experiment)
                self._client.set_experiment_tag(identifier, TAG, note)
            if self.latest() != note:
                raise conflict(self.name)
        return f"tag {TAG} of experiment {identifier}"

    def _read(self) -> tuple[str | None, str | None]:
        with self._translated():
            found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return None, None
        note = found.tags.get(TAG)
        return str(found.experiment_id), None if note is None else kept(note, self.name)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        quiet_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self._refuse_to_create()
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            # Both quote the address, password included.
            text = self._without_password(str(error).strip()).partition("\n")[0][:300]
            deleted = "deleted" in text
            raise UnavailableError(
                f"MLflow failed: {text}",
                where=f"{self.name} in {self._without_password(self._uri)}",
                fix=f"restore the experiment {self._experiment} in MLflow"
                if deleted
                else "check that MLflow runs and AIRLOCK_MLFLOW_URI is right",
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

    def _without_password(self, text: str) -> str:
        password = urlsplit(self._uri).password
        return text.replace(password, "***") if password else text
