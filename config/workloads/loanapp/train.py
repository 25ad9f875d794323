"""Trains a model of the mortgage applications: the training command of both workloads of the demo.

What is fitted, on which columns and with which seed stands in the file of parameters, which Airlock writes:
``parameters.model`` is ``logistic`` or ``boosted``, ``parameters.share`` the share of the rows, from the
first on, that are used. The model is saved as a skops file beside an MLmodel file, as MLflow would save it;
MLflow itself takes longer to import than this takes to train.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import skops.io
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler


def fit(frame: pd.DataFrame, settings: dict[str, Any]) -> Pipeline:
    """The fitted pipeline; the same rows and settings give the same one."""
    chosen = settings["parameters"]
    rows = frame.dropna(subset=[settings["target"]])
    rows = rows.iloc[: int(float(chosen.get("share", 1)) * len(rows))]
    steps: list[tuple[str, Any]] = [("impute", SimpleImputer(strategy="median"))]
    if chosen.get("model", "logistic") == "boosted":
        steps.append(
            (
                "model",
                GradientBoostingClassifier(
                    n_estimators=80,
                    learning_rate=0.08,
                    max_depth=2,
                    subsample=0.8,
                    random_state=settings["seed"],
                ),
            )
        )
    else:
        steps += [("scale", StandardScaler()), ("model", LogisticRegression(C=0.1, max_iter=1000))]
    return Pipeline(steps).fit(rows[settings["features"]], rows[settings["target"]])


def save(model: Pipeline, folder: Path, settings: dict[str, Any]) -> None:
    """Write the model as MLflow lays it out."""
    folder.mkdir()
    skops.io.dump(model, folder / "model.skops")
    pins = [f"{name}=={version(name)}" for name in ("scikit-learn", "skops")]
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n")
    flavors = {
        "sklearn": {
            "pickled_model": "model.skops",
            "serialization_format": "skops",
            "sklearn_version": version("scikit-learn"),
            "skops_trusted_types": ["numpy.dtype", "sklearn.tree._tree.Tree"],
        },
        "python_function": {
            "loader_module": "mlflow.sklearn",
            "model_path": "model.skops",
            "predict_fn": "predict",
            "python_version": platform.python_version(),
        },
    }
    declared = {"decision_threshold": settings["threshold"], "seed": settings["seed"]}
    # JSON is YAML, and MLflow reads the file as YAML.
    text = json.dumps({"flavors": flavors, "metadata": {"airlock": declared}}, indent=1)
    (folder / "MLmodel").write_text(text + "\n")


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "model", "parameters", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    settings = json.loads(given.parameters.read_text())
    frame = pd.read_parquet(given.data)
    model = fit(frame, settings)
    save(model, given.model, settings)
    score = model.score(frame[settings["features"]], frame[settings["target"]])
    given.metrics.write_text(json.dumps({"rows": len(frame), "training_accuracy": float(score)}))


if __name__ == "__main__":
    main()
