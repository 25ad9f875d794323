"""The demo's models: scikit-learn pipelines over numeric columns, registered in MLflow as skops files."""

from __future__ import annotations

import os
import pickle
import runpy
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.evidence import hash_file
from airlock.adapters.mlflow_registry import quiet_mlflow
from airlock.adapters.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

RATE_TYPE: Final = "rate-type-forecast"
APPROVAL: Final = "mortgage-approval"

SEED: Final = 0
"""Of everything random in the training."""

TRUSTED: Final = ["numpy.dtype", "sklearn.tree._tree.Tree"]
"""What these models need beyond what skops trusts; both only hold numbers."""


@dataclass(frozen=True)
class DemoModel:
    """One version to register: how to train it, and the threshold that makes decisions of scores.

    ``parameters`` are those of the workload's training command, and are logged with the run, so that anybody
    can train the version again.
    """

    workload: str
    threshold: float
    parameters: Mapping[str, str]


RATE_CHAMPION: Final = DemoModel(RATE_TYPE, 0.3, {"model": "logistic", "share": "0.9"})
"""The champion knew only the first nine tenths of the rows."""
RATE_REFIT: Final = DemoModel(RATE_TYPE, 0.3, {"model": "logistic", "share": "1"})
RATE_SMALL: Final = DemoModel(RATE_TYPE, 0.3, {"model": "logistic", "share": "1"})
"""The champion of the drift story, trained on the few applications that there were."""
APPROVAL_CHAMPION: Final = DemoModel(APPROVAL, 0.4, {"model": "logistic", "share": "1"})
APPROVAL_BOOSTED: Final = DemoModel(APPROVAL, 0.4, {"model": "boosted", "share": "1"})
APPROVAL_STRICT: Final = DemoModel(APPROVAL, 0.75, {"model": "boosted", "share": "1"})


def register(settings: Settings, model: DemoModel, features: list[str]) -> str:
    """Train a model on the prepared data, register it in MLflow and return its version.

    Threshold and training data are declared inside the artifact, so its digest covers them.
    """
    quiet_mlflow()
    import mlflow.sklearn

    training = settings.data_root / "loanapp" / "training.parquet"
    declared = {
        "decision_threshold": model.threshold,
        "training_sha256": hash_file(training),
        "seed": SEED,
    }
    fitted = _fitted(settings, model, training, features)
    with tempfile.TemporaryDirectory(prefix="airlock-demo-") as folder:
        path = Path(folder) / "model"
        mlflow.sklearn.save_model(
            fitted,
            path,
            serialization_format="skops",
            skops_trusted_types=TRUSTED,
            pip_requirements=[f"{name}=={version(name)}" for name in ("scikit-learn", "skops")],
            metadata={"airlock": declared},
        )
        params = {**_parameters(fitted), **model.parameters}
        return register_folder(settings, model.workload, path, params=params)


def load_champion(settings: Settings, name: str) -> tuple[str, Any]:
    """Version and pipeline of the champion, as a server would load it."""
    quiet_mlflow()
    import mlflow.artifacts
    import skops.io

    version = _client(settings).get_model_version_by_alias(name, "champion")
    with tempfile.TemporaryDirectory(prefix="airlock-demo-") as folder:
        path = mlflow.artifacts.download_artifacts(
            version.source, dst_path=folder, tracking_uri=settings.mlflow_uri
        )
        return str(version.version), skops.io.load(Path(path) / "model.skops", trusted=TRUSTED)


def move_alias(settings: Settings, name: str, version: str) -> None:
    """Make a version the champion without asking anybody, as everyone with access to MLflow can."""
    _client(settings).set_registered_model_alias(name, "champion", version)


def _fitted(settings: Settings, model: DemoModel, training: Path, features: list[str]) -> Any:
    """Fitted by the very code that the sandbox runs when it trains the version again."""
    import pandas as pd

    workload = ConfigFolder(settings.config_dir).workload(model.workload)
    script = settings.config_dir / "workloads" / str(workload.training.code) / "train.py"
    code = runpy.run_path(str(script))
    told = {
        "features": features,
        "target": workload.model.target,
        "seed": SEED,
        "parameters": model.parameters,
    }
    return code["fit"](pd.read_parquet(training), told)


def _parameters(pipeline: Any) -> dict[str, str]:
    """The hyperparameters of the last step, as a training script would log them."""
    return {name: str(value) for name, value in sorted(pipeline[-1].get_params().items())}


def register_folder(
    settings: Settings, name: str, folder: Path, params: Mapping[str, str] | None = None
) -> str:
    """Log a folder as a model version, as any training pipeline could, and return the version."""
    from mlflow.exceptions import MlflowException

    client = _client(settings)
    experiment = client.get_experiment_by_name(name)
    # A server says itself where artifacts go; a SQLite store would put them below the current folder.
    local = settings.mlflow_uri.startswith("sqlite:")
    location = (settings.home / "mlflow-artifacts" / name).as_uri() if local else None
    experiment_id = (
        experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=location)
    )
    run = client.create_run(experiment_id)
    for key, value in (params or {}).items():
        client.log_param(run.info.run_id, key, value)
    client.log_artifacts(run.info.run_id, str(folder), "model")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.info.artifact_uri}/model"
    version = client.create_model_version(name, source=source, run_id=run.info.run_id)
    client.set_terminated(run.info.run_id)
    return str(version.version)


def register_malicious(settings: Settings, name: str, marker: Path) -> str:
    """Register a model whose pickle would create ``marker`` if anything ever loaded it."""
    with tempfile.TemporaryDirectory(prefix="airlock-demo-") as folder:
        path = Path(folder) / "model"
        path.mkdir()
        (path / "model.pkl").write_bytes(pickle.dumps(_Payload(f"touch {marker}")))
        (path / "MLmodel").write_text(
            "flavors:\n  sklearn:\n    pickled_model: model.pkl\n    serialization_format: pickle\n"
        )
        return register_folder(settings, name, path)


class _Payload:
    """What attackers put into a pickle: loading it runs a command. It is written here, never read."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def _client(settings: Settings) -> MlflowClient:
    quiet_mlflow()
    import mlflow

    return mlflow.MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)


def forget(home: Path) -> None:
    """Delete the state of an earlier demo; everything in it can be made again."""
    shutil.rmtree(home, ignore_errors=True)
