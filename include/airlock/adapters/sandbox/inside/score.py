"""The job ``score``: run candidate and champion once on the same rows, and write down what they say."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .trees import check_trees

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_LATENCY_CALLS = 100
_LATENCY_SECONDS = 0.5
_MAXIMUM_VALUE = 200
_PACKAGES = ("numpy", "pandas", "scikit-learn", "shap", "skops")


class JobError(Exception):
    """Something a data scientist can correct; the text says what and how."""


@dataclass
class Model:
    """A loaded model, with what the job says about it."""

    role: str
    estimator: Any
    threshold: float
    features: list[str]

    def probability(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Probability of 1, the favourable outcome, for each row."""
        scores: np.ndarray[Any, Any] = self.estimator.predict_proba(frame[self.features])[:, 1]
        return scores


def run(job: dict[str, Any], inputs: Path, output: Path) -> None:
    """Write ``scores.parquet``, ``shap.parquet``, ``champion_shap.parquet`` and ``report.json``."""
    laps = {"started": time.perf_counter()}
    import pandas as pd

    evaluation = pd.read_parquet(inputs / job["evaluation"])
    background = _sample(pd.read_parquet(inputs / job["background"]), job["background_rows"], job["seed"])
    if evaluation.empty or background.empty:
        raise JobError(
            "the evaluation batch or the training data has no rows. How to fix it: choose another batch"
        )
    roles = [role for role in ("candidate", "champion") if job.get(role)]
    models = [_load(role, job[role], inputs, job["features"]) for role in roles]
    laps["loaded"] = time.perf_counter()
    scores, timings = {}, {}
    for model in models:
        _refuse_missing(model, evaluation, "evaluation batch")
        _refuse_missing(model, background, "training data")
        values, timings[model.role] = _score(model, evaluation)
        scores[f"{model.role}_score"] = values
        scores[f"{model.role}_prediction"] = (values >= model.threshold).astype("int64")
    pd.DataFrame(scores).to_parquet(output / "scores.parquet", index=False)
    laps["scored"] = time.perf_counter()
    explained = _explain(models, evaluation.head(job["shap_rows"]), background, output, job["seed"])
    laps["explained"] = time.perf_counter()
    names = [*laps]
    report = {
        "models": {"champion": None, **{model.role: _describe(model, job[model.role]) for model in models}},
        "rows": len(evaluation),
        "shap": explained,
        "timings": {"champion": None, **timings},
        "seconds": {name: round(laps[name] - laps[before], 3) for before, name in itertools.pairwise(names)},
        "versions": {
            "python": sys.version.split()[0],
            **{package: version(package) for package in _PACKAGES},
        },
    }
    (output / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True))


def _sample(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """The same rows for the same data and seed, in their original order."""
    import numpy as np

    if len(frame) <= rows:
        return frame
    chosen = np.random.default_rng(seed).choice(len(frame), size=rows, replace=False)
    return frame.iloc[np.sort(chosen)]


def _load(role: str, entry: dict[str, Any], inputs: Path, features: list[str]) -> Model:
    if entry["format"] != "skops":
        raise JobError(
            f"the {role} is in format {entry['format']}, which cannot be scored. "
            "How to fix it: log it with mlflow.sklearn.log_model(..., serialization_format='skops')"
        )
    folder = (inputs / entry["artifact"]).resolve()
    path = (folder / entry["model_path"]).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise JobError(f"the {role} has no file {entry['model_path']}. How to fix it: log the model again")
    import skops.io

    try:
        estimator = skops.io.load(path, trusted=entry["trusted"])
    except TypeError as error:
        raise JobError(
            f"the {role} cannot be loaded: {error}. "
            "How to fix it: have the type reviewed and added to gates.security.reviewed_types, or avoid it"
        ) from error
    check_trees(estimator, JobError)
    names = getattr(estimator, "feature_names_in_", None)
    used = features if names is None else [str(name) for name in names]
    model = Model(role, estimator, float(entry["threshold"]), used)
    _refuse_unusable(model)
    return model


def _refuse_unusable(model: Model) -> None:
    if not hasattr(model.estimator, "predict_proba"):
        raise JobError(
            f"the {model.role} ({_dotted(model.estimator)}) gives no probabilities. "
            "How to fix it: use a classifier with predict_proba, such as LogisticRegression"
        )
    classes = list(getattr(model.estimator, "classes_", []))
    if classes != [0, 1]:
        shown = ", ".join(str(name) for name in classes) or "none"
        raise JobError(
            f"the {model.role} knows the classes {shown}; it must know 0 and 1. "
            "How to fix it: train it on data with both outcomes, coded 0 and 1, where 1 is favourable"
        )


def _refuse_missing(model: Model, frame: pd.DataFrame, name: str) -> None:
    if missing := [column for column in model.features if column not in frame.columns]:
        raise JobError(
            f"the {model.role} needs columns that the {name} does not have: {', '.join(missing)}. "
            "How to fix it: add them to the data, or train the model without them"
        )


def _score(model: Model, frame: pd.DataFrame) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
    """Scores of all rows, the time that took, and how long single rows take."""
    import numpy as np

    started = time.perf_counter()
    scores = model.probability(frame)
    batch = time.perf_counter() - started
    if bad := int((~((scores >= 0) & (scores <= 1))).sum()):
        raise JobError(
            f"the {model.role} gives {bad} of {len(scores)} rows a score that is no probability. "
            "How to fix it: handle missing and extreme values in the model, for instance with SimpleImputer"
        )
    single: list[float] = []
    while len(single) < _LATENCY_CALLS and sum(single) < _LATENCY_SECONDS:
        row = frame.iloc[[len(single) % len(frame)]]
        begun = time.perf_counter()
        model.probability(row)
        single.append(time.perf_counter() - begun)
    p50, p95, p99 = (round(float(value) * 1000, 4) for value in np.percentile(single, [50, 95, 99]))
    return scores, {"batch_seconds": round(batch, 6), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def _explain(
    models: list[Model], frame: pd.DataFrame, background: pd.DataFrame, output: Path, seed: int
) -> dict[str, Any]:
    from .explain import explain

    report: dict[str, Any] = {}
    for model in models:
        candidate = model.role == "candidate"
        explanation = explain(model, frame, background, seed)
        prefix = "" if candidate else f"{model.role}_"
        explanation.table.to_parquet(output / f"{prefix}shap.parquet")
        facts = {
            "explainer": explanation.explainer,
            "space": explanation.space,
            "rows": len(explanation.table),
            "additivity_error": explanation.error,
            "rejected": explanation.rejected,
        }
        report |= {prefix + name: value for name, value in facts.items()}
    report.setdefault("champion_additivity_error", None)
    return report


def _describe(model: Model, entry: dict[str, Any]) -> dict[str, Any]:
    steps = getattr(model.estimator, "steps", [("model", model.estimator)])
    hyperparameters: dict[str, str] = {}
    for position, (name, step) in enumerate(steps):
        prefix = "" if position == len(steps) - 1 else f"{name}__"
        parameters = step.get_params(deep=True) if hasattr(step, "get_params") else {}
        hyperparameters |= {prefix + key: _plain(value) for key, value in parameters.items()}
    return {
        "format": entry["format"],
        "estimator": _dotted(steps[-1][1]),
        "steps": [type(step).__name__ for _, step in steps],
        "hyperparameters": hyperparameters,
        "features": model.features,
        "threshold": model.threshold,
    }


def _plain(value: object) -> str:
    """A hyperparameter as text that is the same in every process: without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(value).split()))[:_MAXIMUM_VALUE]


def _dotted(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
