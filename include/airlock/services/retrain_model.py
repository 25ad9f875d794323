"""The model of a retraining: trained in the sandbox, compared, registered with its lineage, submitted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from airlock.adapters.airflow_api import AirflowClient, service_client
from airlock.adapters.environments import Environments, installed
from airlock.core.audit import Kind
from airlock.core.canonical import canonical_json, parse_json, sha256_hex, storable
from airlock.core.columns import Columns, Task, label_text, task_of
from airlock.core.declarations import Declarations
from airlock.core.errors import IntegrityError, InvalidInputError, NotFoundError, SandboxError
from airlock.core.evidence import GateResult
from airlock.core.manifest import ArtifactRef, release_id_for
from airlock.core.policy import Policy
from airlock.core.retraining import RETRAIN_PREFIX, Comparison, Plan, Retraining
from airlock.core.workload import Workload
from airlock.gates._measures import SMALLER_IS_BETTER, Uncertainty, measure
from airlock.gates._predictions import read_predictions
from airlock.gates._requirements import CONDA_ONLY, read_requirements
from airlock.gates.base import GateContext, Scores
from airlock.services.deployment import Deployment
from airlock.services.evaluate import labelled, materialise
from airlock.services.folders import keep_folder, regular_files, write_folder
from airlock.services.model_files import declared, read_mlmodel
from airlock.services.retrain import close, find_retraining, is_closed, record_step
from airlock.services.retrain_data import plan_path, read_plan
from airlock.services.scoring import Scored, reviewed_types, run_model
from airlock.services.submit import MAX_ARTIFACT_FILES, snapshot
from airlock.services.training import (
    CODE_DIGEST,
    Training,
    files_digest,
    read_files,
    train,
)
from airlock.services.watch import start_release

REPLICATES = 1000
CONFIDENCE = 0.95
"""Of the interval of the improvement, which is told and not judged: the release's own gate judges it."""


@dataclass(frozen=True)
class _Opened:
    """A retraining with what it was frozen with."""

    retraining: Retraining
    plan: Plan
    workload: Workload
    policy: Policy


def _open(deployment: Deployment, retrain_id: str) -> _Opened | None:
    """``None`` when it is closed: then no step does anything."""
    retraining = find_retraining(deployment, retrain_id)
    if is_closed(retraining):
        return None
    plan = read_plan(deployment, retraining)
    get = deployment.evidence.get
    workload = Workload.from_bytes(get(plan.workload_digest))
    return _Opened(retraining, plan, workload, Policy.from_bytes(get(plan.policy_digest)))


def train_version(deployment: Deployment, retrain_id: str) -> bool:
    """Run the training command on the frozen rows; whether there is a model. Safe to repeat.

    A command that fails closes the retraining with its last lines.

    Raises:
        NotFoundError: the data was not frozen or not checked.
        UnavailableError: a store does not answer.
    """
    opened = _open(deployment, retrain_id)
    if opened is None:
        return False
    if opened.retraining.data(Kind.RETRAIN_CHECKED) is None:
        raise NotFoundError("the rows were not checked", where=retrain_id, fix="see the task `check`")
    if opened.retraining.data(Kind.RETRAIN_TRAINED) is not None:
        return True
    with tempfile.TemporaryDirectory(prefix="airlock-retrain-") as name:
        try:
            said = _train(deployment, opened, Path(name))
        except (SandboxError, InvalidInputError) as error:
            close(deployment, opened.retraining, "train", [storable(str(error))])
            return False
    record_step(deployment, opened.retraining, Kind.RETRAIN_TRAINED, said)
    return True


def _train(deployment: Deployment, opened: _Opened, folder: Path) -> dict[str, Any]:
    plan, spec = opened.plan, opened.workload.training
    code = read_files(deployment, plan.code)
    parameters = parse_json(deployment.evidence.get(plan.parameters))
    training = Training(
        spec=spec,
        code=write_folder(deployment.evidence, code, folder / "code"),
        data=plan_path(deployment, plan.training),
        parameters=parameters,
        packages=_packages(deployment, opened, folder),
    )
    trained = train(deployment.sandbox, training, opened.policy.sandbox, folder)
    lineage = {
        "decision_threshold": parameters["threshold"],
        **declared(trained.folder),
        "training_sha256": plan.training.sha256,
        CODE_DIGEST: files_digest(code),
        "seed": training.seed,
        "retraining": plan.retrain_id,
        "parent_version": "" if plan.champion is None else plan.champion.version,
        "incident": str((opened.retraining.events[0].data).get("incident") or ""),
    }
    _declare(trained.folder / "MLmodel", lineage)
    paths = regular_files(
        trained.folder,
        where=plan.retrain_id,
        maximum=MAX_ARTIFACT_FILES,
        what="the trained model",
        fix="save the model alone, without data",
    )
    files = keep_folder(deployment.evidence, trained.folder, paths)
    return {
        "files": deployment.evidence.put(canonical_json([file.to_data() for file in files])),
        "artifact": ArtifactRef.digest_files(files),
        "metrics": trained.metrics,
        "seconds": round(trained.ran.seconds, 3),
        "isolation": trained.ran.level,
        "attempts": [storable(attempt) for attempt in trained.ran.attempts],
    }


def _packages(deployment: Deployment, opened: _Opened, folder: Path) -> Path | None:
    """The champion's own packages, where the policy asks for them and the worker has others."""
    champion = opened.plan.champion
    if opened.policy.sandbox.environment == "same" or champion is None:
        return None
    needed = read_requirements(materialise(deployment, champion, folder / "champion"))
    pins = [(one.name, one.version) for one in needed if one.version and one.name not in CONDA_ONLY]
    wheels = deployment.settings.wheels
    if wheels is None or all(installed(name) == wanted for name, wanted in pins):
        return None
    return Environments(wheels, deployment.settings.home / "environments").provide(pins)


def _declare(path: Path, lineage: dict[str, Any]) -> None:
    """Write what Airlock knows about the training into the model, so that its digest covers it."""
    model = read_mlmodel(path)
    if not model:
        raise InvalidInputError("the MLmodel file of the trained model is no YAML", where=path.name)
    metadata = model.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    model["metadata"] = {**known, "airlock": {key: value for key, value in lineage.items() if value != ""}}
    path.write_text(yaml.safe_dump(model, sort_keys=True), encoding="utf-8")


def compare(deployment: Deployment, retrain_id: str) -> bool:
    """Run champion and new model on the rows that were kept; whether the new one is better. Safe to repeat.

    One that is not better closes the retraining, with both numbers.
    """
    opened = _open(deployment, retrain_id)
    if opened is None:
        return False
    if opened.retraining.data(Kind.RETRAIN_COMPARED) is not None:
        return True
    with tempfile.TemporaryDirectory(prefix="airlock-retrain-") as name:
        try:
            found = _compared(deployment, opened, Path(name))
        except (SandboxError, InvalidInputError) as error:
            close(deployment, opened.retraining, "compare", [storable(str(error))])
            return False
    if not found.better:
        close(deployment, opened.retraining, "compare", [f"the new model is not better: {found.text}"])
        return False
    record_step(deployment, opened.retraining, Kind.RETRAIN_COMPARED, {**found.to_data(), "text": found.text})
    return True


def _compared(deployment: Deployment, opened: _Opened, folder: Path) -> Comparison:
    import pandas as pd

    plan, model = opened.plan, opened.workload.model
    holdout = plan_path(deployment, plan.holdout)
    new = write_folder(deployment.evidence, _trained_files(deployment, opened), folder / "new")
    wanted = Scored(
        folder=new,
        model=model,
        evaluation=holdout,
        background=plan_path(deployment, plan.training),
        reviewed=reviewed_types(opened.policy),
    )
    frames = [run_model(deployment.sandbox, wanted, opened.policy.sandbox, folder / "scored-new")]
    if plan.champion is not None:
        champion = replace(wanted, folder=materialise(deployment, plan.champion, folder / "champion"))
        frame = run_model(deployment.sandbox, champion, opened.policy.sandbox, folder / "scored-champion")
        frames.append(frame.rename(columns=lambda name: name.replace("candidate", "champion", 1)))
    rows = labelled(model, pd.read_parquet(holdout))
    return _improvement(opened, rows, Scores(pd.concat(frames, axis=1), None, None, {}))


def _trained_files(deployment: Deployment, opened: _Opened) -> list[Any]:
    trained = opened.retraining.data(Kind.RETRAIN_TRAINED)
    if trained is None:
        raise NotFoundError("nothing was trained", fix="see why in the task `train`")
    return read_files(deployment, str(trained["files"]))


def _improvement(opened: _Opened, rows: Any, scores: Scores) -> Comparison:
    """The policy's primary metric of both models on the same rows."""
    task = task_of(opened.workload)
    metric = _primary_metric(opened.policy, task)
    context = _judging(opened, rows, scores, task)
    models = read_predictions(context, minimum_rows=1)
    if isinstance(models, GateResult):
        raise InvalidInputError(models.summary, fix=models.findings[0].fix if models.findings else "")
    measured = [measure(model) for model in models]
    values = [one.get(metric) for one in measured]
    if any(value is None for value in values):
        raise InvalidInputError(
            f"{metric} is undefined on the {len(rows)} rows that were kept from training",
            fix="train on more rows, with every outcome among them",
        )
    value = float(values[0] or 0.0)
    if len(values) == 1:
        return Comparison(metric=metric, value=value, rows=len(rows))
    before = float(values[1] or 0.0)
    sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
    uncertainty = Uncertainty(models, measured, CONFIDENCE, REPLICATES)
    _, interval = uncertainty.change(metric)
    return Comparison(
        metric=metric,
        value=value,
        champion=before,
        improvement=sign * (value - before),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        confidence=None if interval is None else CONFIDENCE,
        rows=len(rows),
    )


def _primary_metric(policy: Policy, task: Task) -> str:
    chosen = policy.gates.get("performance", {}).get("primary_metric")
    if not isinstance(chosen, dict) or not chosen.get(str(task)):
        raise InvalidInputError(
            f"policy {policy.version} names no primary metric for {task}, so nobody says what better means",
            fix="name one in gates.performance.primary_metric",
        )
    return str(chosen[str(task)])


def _judging(opened: _Opened, rows: Any, scores: Scores, task: Task) -> GateContext:
    def nothing() -> Any:
        raise InvalidInputError("only predictions are compared here")

    return GateContext(
        columns=Columns.of(opened.workload),
        declared=Declarations.of(opened.workload),
        task=task,
        has_champion=opened.plan.champion is not None,
        evaluation=lambda: rows,
        training=nothing,
        current_path=nothing,
        reference_path=nothing,
        scores=lambda: scores,
        artifact=nothing,
        suite=nothing,
        documentation=nothing,
        business_context="",
        scan=nothing,
        store=sha256_hex,
        candidate=nothing,
        now_us=nothing,
    )


def register(deployment: Deployment, retrain_id: str) -> str:
    """Register the model with its lineage; its version, or nothing when the retraining is closed.

    The retraining's id is the key of the version, so that repeating this, also after a kill, gives the same.
    """
    opened = _open(deployment, retrain_id)
    if opened is None:
        return ""
    if opened.retraining.data(Kind.RETRAIN_COMPARED) is None:
        raise NotFoundError("the model was not compared", where=retrain_id, fix="see the task `compare`")
    plan, workload = opened.plan, opened.workload
    parameters = parse_json(deployment.evidence.get(plan.parameters))
    with tempfile.TemporaryDirectory(prefix="airlock-retrain-") as name:
        folder = write_folder(deployment.evidence, _trained_files(deployment, opened), Path(name) / "model")
        return deployment.registry.add_version(
            workload.model.registered_model,
            folder,
            key=retrain_id,
            beside=plan.champion_run,
            params={str(key): label_text(value) for key, value in parameters["parameters"].items()},
            tags={
                "retraining": retrain_id,
                "training_sha256": plan.training.sha256,
                "training_source": plan.data.text,
                "parent_version": "" if plan.champion is None else plan.champion.version,
            },
        )


def submit_release(deployment: Deployment, retrain_id: str, *, client: AirflowClient | None = None) -> str:
    """Submit the version as a release like any other; the release's id, or nothing when it is closed.

    The run of the release is named after the retraining, so there is never a second one.

    Raises:
        IntegrityError: what is registered is not what was trained.
        UnavailableError: Airflow or a store does not answer; repeating it goes on.
    """
    opened = _open(deployment, retrain_id)
    if opened is None:
        return ""
    if (submitted := opened.retraining.data(Kind.RETRAIN_SUBMITTED)) is not None:
        return str(submitted["release"])
    version = register(deployment, retrain_id)
    workload, model = opened.workload, opened.workload.model.registered_model
    trained = opened.retraining.data(Kind.RETRAIN_TRAINED) or {}
    if snapshot(deployment, model, version).sha256 != trained.get("artifact"):
        raise IntegrityError(
            f"version {version} of {model} is not what was trained",
            where=retrain_id,
            fix="somebody changed the registered files: find out who, and ask for another retraining",
        )
    run_id = f"{RETRAIN_PREFIX}{retrain_id}"
    release_id = release_id_for(
        deployment.settings.deployment, workload.name, version, workload.dag_id, run_id
    )
    start_release(
        deployment,
        service_client(deployment.settings) if client is None else client,
        workload.name,
        version=version,
        batch=workload.data.default_batch,
        context=_context_text(opened),
        run_id=run_id,
    )
    record_step(
        deployment,
        opened.retraining,
        Kind.RETRAIN_SUBMITTED,
        {"version": version, "release": release_id, "run_id": run_id},
        version=version,
    )
    return release_id


def _context_text(opened: _Opened) -> str:
    """Why this release, for those who are asked."""
    asked = opened.retraining.events[0]
    compared = opened.retraining.data(Kind.RETRAIN_COMPARED) or {}
    lines = [
        f"Trained again by Airlock ({opened.plan.retrain_id}) on {opened.plan.data.text}.",
        f"Asked for by {asked.actor}: {asked.data.get('reason', '')}",
        f"Compared with the champion: {compared.get('text', '')}.",
    ]
    if asked.data.get("incident"):
        lines.insert(1, f"Incident: {asked.data['incident']}.")
    return "\n".join(lines)
