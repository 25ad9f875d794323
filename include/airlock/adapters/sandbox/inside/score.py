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
_TWO = 2
_PACKAGES = ("numpy", "pandas", "scikit-learn", "shap", "skops")


class JobError(Exception):
    """Something a data scientist can correct; the text says what and how."""


@dataclass
class Model:
    """A loaded model, with what the job says about it.

    Attributes:
        task: ``classification`` of two outcomes, ``multiclass`` or ``regression``.
        classes: names of the model's classes in its own order; empty for regression.
        place: which of them is the favourable or explained one.
    """

    role: str
    estimator: Any
    threshold: float
    features: list[str]
    task: str = "classification"
    classes: tuple[str, ...] = ("0", "1")
    place: int = 1

    def raw(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        """All that the model says: probabilities, a column per class, or numbers."""
        import numpy as np

        chosen = frame[self.features]
        if self.task == "regression":
            return np.asarray(self.estimator.predict(chosen), dtype="float64").reshape(len(frame), -1)[:, 0]
        scores: np.ndarray[Any, Any] = self.estimator.predict_proba(chosen)
        return scores

    def output(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        """The one number per row that is explained: the probability of a class, or the prediction."""
        raw = self.raw(frame)
        return raw if self.task == "regression" else raw[:, self.place]

    def favours(self, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which rows get the favourable outcome."""
        chosen: np.ndarray[Any, Any] = (
            raw[:, self.place] >= self.threshold
            if self.task == "classification"
            else raw.argmax(axis=1) == self.place
        )
        return chosen


def run(job: dict[str, Any], inputs: Path, output: Path) -> None:
    """Write ``scores.parquet``, ``shap.parquet``, ``champion_shap.parquet`` and ``report.json``."""
    laps = {"started": time.perf_counter()}
    import pandas as pd

    evaluation = pd.read_parquet(inputs / job["evaluation"])
    training = pd.read_parquet(inputs / job["background"])
    background = _sample(training, job["background_rows"], job["seed"])
    if evaluation.empty or background.empty:
        raise JobError(
            "the evaluation batch or the training data has no rows. How to fix it: choose another batch"
        )
    roles = [role for role in ("candidate", "champion") if job.get(role)]
    explained = _explained_class(job, training)
    models = [_load(role, job[role], inputs, job, explained) for role in roles]
    laps["loaded"] = time.perf_counter()
    scores: dict[str, Any] = {}
    timings = {}
    for model in models:
        _refuse_missing(model, evaluation, "evaluation batch")
        _refuse_missing(model, background, "training data")
        values, timings[model.role] = _score(model, evaluation)
        scores |= _columns(model, values)
    pd.DataFrame(scores).to_parquet(output / "scores.parquet", index=False)
    laps["scored"] = time.perf_counter()
    # Without rows to explain, such as of a model that is only compared, no explainer is loaded.
    explained_rows = evaluation.head(job["shap_rows"])
    shap = _explain(models, explained_rows, background, output, job) if len(explained_rows) else {}
    laps["explained"] = time.perf_counter()
    names = [*laps]
    report = {
        "models": {"champion": None, **{model.role: _describe(model, job[model.role]) for model in models}},
        "rows": len(evaluation),
        "shap": shap,
        "timings": {"champion": None, **timings},
        "seconds": {name: round(laps[name] - laps[before], 3) for before, name in itertools.pairwise(names)},
        "versions": {
            "python": sys.version.split()[0],
            **{package: version(package) for package in _PACKAGES},
        },
    }
    (output / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True))


def load_for_trial(role: str, job: dict[str, Any], inputs: Path, rows: pd.DataFrame) -> Model:
    """The model of a job, with every column it asks for among ``rows``; which class matters is not asked."""
    model = _load(role, job[role], inputs, job, None)
    _refuse_missing(model, rows, "data of today")
    return model


def _explained_class(job: dict[str, Any], training: pd.DataFrame) -> str | None:
    """The class whose probability is explained: the favourable one, else the most frequent in training.

    It is found in the data alone, so that candidate and champion are explained about the same class.
    """
    task = job.get("task", "classification")
    if task == "regression":
        return None
    if job.get("positive") is not None:
        return _text(job["positive"])
    if task == "classification":
        return "1"
    counts = training[job["target"]].map(_text).value_counts() if job.get("target") in training else None
    if counts is None or counts.empty:
        raise JobError(
            "no class is favourable and the training data has no label. How to fix it: name the favourable "
            "class under model.positive in the workload"
        )
    return str(min(counts[counts == counts.max()].index))


def _text(value: object) -> str:
    """A class as text: 1, 1.0 and "1" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(int(value)) if isinstance(value, bool) else str(value)


def _columns(model: Model, raw: np.ndarray[Any, Any]) -> dict[str, Any]:
    """What a model says, as columns of ``scores.parquet``."""
    import numpy as np

    role = model.role
    if model.task == "regression":
        return {f"{role}_score": raw, f"{role}_prediction": raw}
    if model.task == "classification":
        chosen = model.favours(raw).astype("int64")
        return {f"{role}_score": raw[:, model.place], f"{role}_prediction": chosen}
    each = {f"{role}_score:{name}": raw[:, place] for place, name in enumerate(model.classes)}
    chosen = np.array(model.classes, dtype=object)[raw.argmax(axis=1)]
    return {f"{role}_score": raw[:, model.place], f"{role}_prediction": chosen, **each}


def _sample(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """The same rows for the same data and seed, in their original order."""
    import numpy as np

    if len(frame) <= rows:
        return frame
    chosen = np.random.default_rng(seed).choice(len(frame), size=rows, replace=False)
    return frame.iloc[np.sort(chosen)]


def _load(
    role: str, entry: dict[str, Any], inputs: Path, job: dict[str, Any], explained: str | None
) -> Model:
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
    used = job["features"] if names is None else [str(name) for name in names]
    task = job.get("task", "classification")
    model = Model(role, estimator, float(entry["threshold"]), used, task)
    # Without a class to explain it is a trial, which asks for answers alone.
    if explained is not None or task == "regression":
        _refuse_unusable(model, explained)
    elif not hasattr(estimator, "predict_proba"):
        raise JobError(
            f"the {role} ({_dotted(estimator)}) gives no probabilities. "
            "How to fix it: use a classifier with predict_proba, such as LogisticRegression"
        )
    return model


def _refuse_unusable(model: Model, explained: str | None) -> None:
    """Refuse a model of another task; note its classes, and which of them is explained."""
    if model.task == "regression":
        if hasattr(model.estimator, "predict_proba") or not hasattr(model.estimator, "predict"):
            raise JobError(
                f"the {model.role} ({_dotted(model.estimator)}) predicts no quantity. "
                "How to fix it: use a regressor, or name the right model.task in the workload"
            )
        model.classes = ()
        return
    if not hasattr(model.estimator, "predict_proba"):
        raise JobError(
            f"the {model.role} ({_dotted(model.estimator)}) gives no probabilities. "
            "How to fix it: use a classifier with predict_proba, such as LogisticRegression"
        )
    model.classes = tuple(_text(name) for name in getattr(model.estimator, "classes_", []))
    shown = ", ".join(model.classes) or "none"
    if model.task == "classification" and (len(model.classes) != _TWO or explained not in model.classes):
        other = "0 and 1" if explained == "1" else f"{explained} and one other"
        raise JobError(
            f"the {model.role} knows the classes {shown}; it must know {other}. "
            f"How to fix it: train it on data with both outcomes, where {explained} is favourable"
        )
    if explained not in model.classes or len(set(model.classes)) != len(model.classes):
        raise JobError(
            f"the {model.role} knows the classes {shown}, without the class {explained!r} that is explained. "
            "How to fix it: name a class of the model under model.positive in the workload"
        )
    model.place = model.classes.index(str(explained))


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
    scores = model.raw(frame)
    batch = time.perf_counter() - started
    usable = (
        np.isfinite(scores) if model.task == "regression" else ((scores >= 0) & (scores <= 1)).all(axis=1)
    )
    if bad := int((~usable).sum()):
        kind = (
            "prediction that is no number" if model.task == "regression" else "score that is no probability"
        )
        raise JobError(
            f"the {model.role} gives {bad} of {len(scores)} rows a {kind}. "
            "How to fix it: handle missing and extreme values in the model, for instance with SimpleImputer"
        )
    single: list[float] = []
    while len(single) < _LATENCY_CALLS and sum(single) < _LATENCY_SECONDS:
        row = frame.iloc[[len(single) % len(frame)]]
        begun = time.perf_counter()
        model.raw(row)
        single.append(time.perf_counter() - begun)
    p50, p95, p99 = (round(float(value) * 1000, 4) for value in np.percentile(single, [50, 95, 99]))
    return scores, {"batch_seconds": round(batch, 6), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def _explain(
    models: list[Model], frame: pd.DataFrame, background: pd.DataFrame, output: Path, job: dict[str, Any]
) -> dict[str, Any]:
    from .explain import TooSlowError, explain
    from .reasons import test_reasons

    report: dict[str, Any] = {}
    for model in models:
        candidate = model.role == "candidate"
        prefix = "" if candidate else f"{model.role}_"
        try:
            explanation = explain(model, frame, background, job["seed"], job.get("explain_seconds"))
        except TooSlowError as error:
            report |= {f"{prefix}explainer": None, f"{prefix}refused": str(error)}
            continue
        explanation.table.to_parquet(output / f"{prefix}shap.parquet")
        if candidate and job.get("reasons") and model.task != "regression":
            table = test_reasons(model, frame, background, explanation.table, job["reasons"])
            table.to_parquet(output / "reasons.parquet", index=False)
        facts = {
            "explainer": explanation.explainer,
            "space": explanation.space,
            "rows": len(explanation.table),
            "additivity_error": explanation.error,
            "rejected": explanation.rejected,
            "estimated_seconds": explanation.estimated_seconds,
            "explained_class": model.classes[model.place] if model.classes else None,
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
        "task": model.task,
        "classes": list(model.classes),
    }


def _plain(value: object) -> str:
    """A hyperparameter as text that is the same in every process: without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(value).split()))[:_MAXIMUM_VALUE]


def _dotted(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
