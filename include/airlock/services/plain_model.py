"""Runs a model on plain files, in the sandbox, for a gate that is asked alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.adapters.data_files import DataFile
from airlock.adapters.sandbox import ProcessSandbox
from airlock.core.canonical import parse_json
from airlock.core.columns import Columns, Task
from airlock.core.errors import ConfigurationError
from airlock.core.policy import Policy
from airlock.core.workload import ModelSpec
from airlock.gates._reasons import reason_texts
from airlock.gates.base import Scores
from airlock.services.model_files import declared
from airlock.services.score import REASON_DRAWS
from airlock.services.scoring import check_scores, limited_request, model_job, reviewed_types, score_job

if TYPE_CHECKING:
    import pandas as pd


def run_plain_model(
    artifact: Path,
    *,
    columns: Columns,
    task: Task,
    positive: Any,
    threshold: float,
    current: Path,
    reference: Path,
    card: str,
    cases: int,
    policy: Policy | None,
    temporary: Path,
) -> Scores:
    """Run a model on the current data in the sandbox, and explain it there against the reference data.

    Raises:
        InvalidInputError: the folder holds no model in a format that can be loaded safely.
        SandboxError: the model cannot be run.
    """
    import pandas as pd

    if policy is None:
        raise ConfigurationError(
            "there is no policy, so nothing says how much a model may use", fix="set AIRLOCK_CONFIG_DIR"
        )
    rules, output = policy.sandbox, temporary / "scored"
    output.mkdir()
    kind = "classification" if task is Task.BINARY else str(task)
    hidden = [*columns.sensitive, *columns.identifiers]
    model = ModelSpec.model_validate(
        {
            "registered_model": artifact.name or "model",
            "target": columns.label or "_",
            "features": columns.features,
            "task": kind,
        }
    )
    reasons: dict[str, Any] | None = {
        "map": reason_texts(model.features, {}, card),
        "hidden": sorted(hidden),
        "cases": cases,
        "draws": REASON_DRAWS,
    }
    if not cases or task is Task.REGRESSION:
        reasons = None
    inputs = {
        "candidate": artifact.resolve(),
        "evaluation": _as_parquet(current, temporary / "evaluation.parquet"),
        "background": _as_parquet(reference, temporary / "background.parquet"),
    }
    loaded = _job(artifact, threshold, reviewed_types(policy))
    # A file names its outcome as it is written there, which may be a number that no workload may name.
    job = {**score_job(model, "candidate", loaded, rules, reasons=reasons), "positive": positive}
    request = limited_request(rules, job, inputs)
    ran = ProcessSandbox().run(request, output)
    report: dict[str, Any] = parse_json((output / "report.json").read_bytes())
    frame = pd.read_parquet(output / "scores.parquet")
    check_scores(kind, "candidate", frame)

    def table(name: str) -> pd.DataFrame | None:
        return pd.read_parquet(output / name) if (output / name).is_file() else None

    details = {**report, "isolation": ran.isolation, "attempts": ran.attempts}
    return Scores(frame, table("shap.parquet"), None, details, table("reasons.parquet"))


def _job(artifact: Path, threshold: float, reviewed: list[str]) -> dict[str, Any]:
    """How the model is loaded: as its MLmodel file says, or the only skops file there is."""
    files = sorted(path.relative_to(artifact).as_posix() for path in artifact.rglob("*.skops"))
    if (artifact / "MLmodel").is_file() or len(files) != 1:
        metadata = {"decision_threshold": threshold, **declared(artifact)}
        return model_job(
            artifact, role="candidate", where=str(artifact), metadata=metadata, reviewed=reviewed
        )
    return {
        "artifact": "candidate",
        "model_path": files[0],
        "format": "skops",
        "threshold": threshold,
        "trusted": reviewed,
    }


def _as_parquet(path: Path, target: Path) -> Path:
    """A file that the sandbox can read: Parquet as it is, CSV turned into it."""
    file = DataFile(path)
    if file.parquet:
        return path
    file.frame().to_parquet(target, index=False)
    return target
