"""What running a model on rows needs, whether it is a release's candidate or one that was just trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.core.errors import InvalidInputError, SandboxError
from airlock.core.policy import Policy, SandboxRules
from airlock.core.workload import ModelSpec
from airlock.ports import Sandbox, SandboxRequest
from airlock.services.model_files import declared, read_mlmodel

if TYPE_CHECKING:
    import pandas as pd


SEED = 20260101
"""Seed of background samples; part of the evidence, so that a re-run gives the same values."""


def reviewed_types(policy: Policy) -> list[str]:
    """Types beyond those skops trusts by itself that the policy lets models have."""
    found: list[str] = policy.gates.get("security", {}).get("reviewed_types", [])
    return found


def model_job(
    folder: Path, *, role: str, where: str, metadata: Mapping[str, Any], reviewed: list[str]
) -> dict[str, Any]:
    """How the sandbox loads a model.

    Raises:
        InvalidInputError: the folder holds no skops model, or its decision threshold is none.
    """
    flavor = (read_mlmodel(folder / "MLmodel").get("flavors") or {}).get("sklearn") or {}
    path = flavor.get("pickled_model")
    if not isinstance(path, str) or not (folder / path).is_file() or not path.endswith(".skops"):
        raise InvalidInputError(
            f"the {role} has no skops model file that its MLmodel names",
            where=where,
            fix="log it with mlflow.sklearn.log_model(..., serialization_format='skops')",
        )
    threshold = metadata.get("decision_threshold", 0.5)
    if not isinstance(threshold, float | int) or not 0 < threshold < 1:
        raise InvalidInputError(
            f"decision_threshold of the {role} is {threshold!r}, not a number between 0 and 1",
            where=where,
            fix="log the model with metadata={'airlock': {'decision_threshold': 0.5}}",
        )
    return {
        "artifact": role,
        "model_path": path,
        "format": "skops",
        "threshold": float(threshold),
        "trusted": reviewed,
    }


def score_job(
    model: ModelSpec,
    role: str,
    loaded: Mapping[str, Any],
    rules: SandboxRules,
    *,
    explained: int | None = None,
    reasons: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The sandbox job that scores the input ``evaluation`` by one model, and explains it.

    Args:
        model: what it predicts, and from what.
        role: ``candidate`` or ``champion``: the name of its input, and how its columns begin.
        loaded: how the sandbox loads it, from :func:`model_job`.
        rules: how much is explained, against how many rows, and for how long.
        explained: rows that are explained against the input ``background``; by default as many as the
            policy says, and none with 0.
        reasons: what the test of its reasons needs; ``None`` where nobody asks.
    """
    if explained is None:
        explained = rules.shap_rows
    return {
        "kind": "score",
        role: dict(loaded),
        "evaluation": "evaluation",
        "background": "background",
        "features": model.features,
        "target": model.target,
        "task": model.task,
        "positive": model.positive,
        "shap_rows": explained,
        "background_rows": rules.background_rows if explained else 1,
        "explain_seconds": rules.explain_seconds,
        "reasons": reasons,
        "seed": SEED,
    }


def limited_request(
    rules: SandboxRules, job: dict[str, Any], inputs: Mapping[str, Path], *, packages: Path | None = None
) -> SandboxRequest:
    """A sandbox job with the limits of a policy, in the model's own environment if it has one."""
    return SandboxRequest(
        job=job,
        inputs={name: str(path) for name, path in inputs.items()},
        seconds=rules.seconds,
        memory_mb=rules.memory_mb,
        output_mb=rules.output_mb,
        require_network_isolation=rules.require_network_isolation,
        require_level=rules.require_level,
        packages=str(packages or ""),
    )


def check_scores(task: str, role: str, frame: pd.DataFrame) -> None:
    """Scores that came out of the sandbox are probabilities, or of a regression numbers.

    Raises:
        SandboxError: they are not.
    """
    import numpy as np

    predictions = frame[f"{role}_prediction"]
    scores = [frame[name] for name in frame.columns if name != f"{role}_prediction"]
    if task == "regression":
        usable = all(np.isfinite(column.to_numpy("float64")).all() for column in (*scores, predictions))
    else:
        usable = all(column.between(0, 1).all() for column in scores)
        usable &= bool(predictions.notna().all() if task == "multiclass" else predictions.isin([0, 1]).all())
    if not usable:
        raise SandboxError(
            f"the {role} gives scores that are not probabilities or predictions other than 0 and 1"
            if task != "regression"
            else f"the {role} gives predictions that are no numbers",
            fix="the model needs predict_proba (a regressor: predict) with no missing values",
        )


@dataclass(frozen=True)
class Scored:
    """A model that is run on rows without being explained.

    Attributes:
        folder: its files.
        model: what it predicts.
        threshold: score from which it decides 1; ``None`` for the one it declares.
        evaluation: Parquet file with the rows.
        background: Parquet file that it was trained on.
        packages: its own packages; ``None`` for those of the worker.
    """

    folder: Path
    model: ModelSpec
    evaluation: Path
    background: Path
    reviewed: list[str]
    threshold: float | None = None
    packages: Path | None = None


def run_model(sandbox: Sandbox, wanted: Scored, rules: SandboxRules, output: Path) -> pd.DataFrame:
    """Columns ``candidate_score`` and ``candidate_prediction``, and of several classes one for each.

    Raises:
        SandboxError: the model cannot be run, or says something else than probabilities.
        InvalidInputError: there is no model that could be loaded.
    """
    import pandas as pd

    model, role = wanted.model, "candidate"
    metadata = {**declared(wanted.folder)}
    if wanted.threshold is not None:
        metadata["decision_threshold"] = wanted.threshold
    output.mkdir(parents=True)
    loaded = model_job(
        wanted.folder, role=role, where="the trained model", metadata=metadata, reviewed=wanted.reviewed
    )
    inputs = {role: wanted.folder, "evaluation": wanted.evaluation, "background": wanted.background}
    job = score_job(model, role, loaded, rules, explained=0)
    request = limited_request(rules, job, inputs, packages=wanted.packages)
    sandbox.run(request, output)
    frame = pd.read_parquet(output / "scores.parquet")
    names = {f"{role}_score", f"{role}_prediction"}
    if model.task == "multiclass":
        names |= {name for name in frame.columns if str(name).startswith(f"{role}_score:")}
    if set(frame.columns) != names:
        raise SandboxError(f"the sandbox wrote columns {sorted(map(str, frame.columns))}")
    check_scores(model.task, role, frame)
    return frame
