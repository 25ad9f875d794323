"""The data of a retraining: frozen by content, split, and checked before anything is trained on it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airlock.adapters.evidence import hash_file
from airlock.adapters.production_log import ProductionLog
from airlock.core import logged
from airlock.core.audit import Kind
from airlock.core.canonical import canonical_json, parse_json
from airlock.core.columns import Columns, label_text, task_of
from airlock.core.declarations import Declarations
from airlock.core.errors import AirlockError, InvalidInputError, NotFoundError, UnavailableError
from airlock.core.evidence import Verdict
from airlock.core.manifest import ArtifactRef, DataRef
from airlock.core.policy import Policy
from airlock.core.retraining import Plan, Retraining, TrainingData
from airlock.core.suite import Suite
from airlock.core.workload import Workload
from airlock.gates import load_gate
from airlock.gates.base import GateContext
from airlock.services.deployment import Deployment
from airlock.services.publish import require_published
from airlock.services.retrain import close, find_retraining, is_closed, record_step
from airlock.services.submit import batch_file, checked_policy, data_ref, environment_of, snapshot
from airlock.services.training import code_folder, keep_code, training_parameters

if TYPE_CHECKING:
    import pandas as pd

HOLDOUT = 4
"""One row in so many is kept from the training, to compare the new model with the champion."""

_QUALITY = "data_quality"
_SHOWN = 10


def freeze(deployment: Deployment, retrain_id: str) -> str:
    """Freeze data, code, parameters and champion; returns the digest of the plan. Safe to repeat.

    Raises:
        ConfigurationError: workload, policy, suite or code cannot be used.
        UnavailableError: the registry, the log or a store does not answer.
    """
    retraining = find_retraining(deployment, retrain_id)
    if (frozen := retraining.data(Kind.RETRAIN_FROZEN)) is not None:
        return str(frozen["plan"])
    if is_closed(retraining) or retraining.requested is None:
        return ""
    workload = deployment.config.workload(retraining.requested.workload)
    data = TrainingData.model_validate(retraining.requested.data["data"])
    policy = checked_policy(deployment, workload.policy)
    require_published(deployment, policy)
    try:
        rows = _rows(deployment, workload, data)
    except UnavailableError:
        raise
    except (InvalidInputError, NotFoundError) as error:
        close(deployment, retraining, "freeze", [str(error)])
        return ""
    plan = _plan(deployment, workload, policy, rows, retrain_id=retrain_id, data=data)
    digest = deployment.evidence.put(plan.to_bytes())
    record_step(
        deployment,
        retraining,
        Kind.RETRAIN_FROZEN,
        {
            "plan": digest,
            "data": plan.training.sha256,
            "source": data.text,
            "rows": rows.counted[0],
            "holdout": rows.counted[1],
            "code": plan.code,
            "champion": "" if plan.champion is None else plan.champion.version,
        },
    )
    return digest


@dataclass(frozen=True)
class _Rows:
    """Where the rows are: to train on, kept from it, and the pinned data in the same columns."""

    training: DataRef
    holdout: DataRef
    reference: DataRef
    columns: list[str] | None
    counted: tuple[int, int]


def _rows(deployment: Deployment, workload: Workload, data: TrainingData) -> _Rows:
    import pandas as pd

    root = deployment.settings.data_root
    pinned = data_ref(root / workload.data.training)
    if data.window is None and not data.file:
        holdout = data_ref(batch_file(deployment, workload, workload.data.default_batch))
        counted = (len(pd.read_parquet(pinned.path)), len(pd.read_parquet(holdout.path)))
        return _Rows(_kept_file(deployment, pinned), _kept_file(deployment, holdout), pinned, None, counted)
    reference = pd.read_parquet(pinned.path)
    if data.window is not None:
        frame = _logged(deployment, workload, data, reference)
        last = len(frame) - len(frame) // HOLDOUT  # what came last is what comes next
        training, holdout_rows = frame.iloc[:last], frame.iloc[last:]
        source = f"production log of {workload.name}"
    else:
        frame = _read_file(root / data.file, workload)
        kept = [number % HOLDOUT == HOLDOUT - 1 for number in range(len(frame))]
        holdout_rows, training = frame[kept], frame[[not one for one in kept]]
        source = data.file
    if not len(training) or not len(holdout_rows):
        raise InvalidInputError(
            f"{data.text} has {len(frame)} rows whose outcome is known",
            fix="train on more rows: a longer window, or one whose outcomes have arrived",
        )
    columns = [name for name in frame.columns if name in reference.columns]
    return _Rows(
        _kept_frame(deployment, training, source),
        _kept_frame(deployment, holdout_rows, source),
        _kept_frame(deployment, reference[columns], workload.data.training),
        [str(name) for name in frame.columns],
        (len(training), len(holdout_rows)),
    )


def _read_file(path: Path, workload: Workload) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    data_ref(path)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InvalidInputError(
            f"{path.name} cannot be read: {str(error).splitlines()[0][:200]}", fix="give a Parquet file"
        ) from error
    _require(frame, [*workload.model.features, workload.model.target], str(path.name))
    return frame[frame[workload.model.target].notna()].reset_index(drop=True)


def _logged(
    deployment: Deployment, workload: Workload, data: TrainingData, reference: pd.DataFrame
) -> pd.DataFrame:
    """Rows of the log whose outcome is known, oldest first, with the columns of the training data."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if data.window is None:
        raise AssertionError("there is a window")
    log = ProductionLog(workload, deployment.settings.data_root)
    numeric = [
        name for name in workload.model.features if name in reference and is_numeric_dtype(reference[name])
    ]
    with tempfile.TemporaryDirectory(prefix="airlock-retrain-") as folder:
        target = Path(folder) / "window.parquet"
        read = log.read(data.window, target, now_us=deployment.clock.now_us(), numeric=numeric)
        frame = pd.read_parquet(target)
    if read.unreadable:
        raise InvalidInputError(
            f"files of the production log cannot be read: {', '.join(read.unreadable[:_SHOWN])}",
            fix="mend them: a model must not be trained on what happens to be readable",
        )
    _require(frame, [*workload.model.features, logged.LABEL], data.text)
    frame = frame[frame[logged.LABEL].notna()].sort_values([logged.TIME, logged.ID], kind="stable")
    frame[workload.model.target] = _in_its_own_words(frame[logged.LABEL], workload, reference)
    wanted = [*workload.model.features, *workload.data.sensitive, workload.model.target]
    return frame[[name for name in wanted if name in frame]].reset_index(drop=True)


def _in_its_own_words(outcome: pd.Series[Any], workload: Workload, reference: pd.DataFrame) -> pd.Series[Any]:
    """Outcomes of the log, 1 for the favourable one, as the training data writes them."""
    known = reference[workload.model.target].dropna()
    if workload.model.task == "regression":
        return outcome.astype("float64")
    if workload.model.task == "multiclass":
        by_text = {label_text(value): value for value in known.unique()}
        return outcome.map(lambda value: by_text.get(label_text(value), value))
    positive = label_text(1 if workload.model.positive is None else workload.model.positive)
    yes = [value for value in known.unique() if label_text(value) == positive]
    no = [value for value in known.unique() if label_text(value) != positive]
    if len(yes) != 1 or len(no) != 1:
        raise InvalidInputError(
            f"the training data does not have two outcomes of which {positive} is the favourable one",
            where=workload.model.target,
            fix="correct model.positive, or train on a Parquet file",
        )
    return outcome.map({1.0: yes[0], 0.0: no[0]}).astype(known.dtype)


def _require(frame: pd.DataFrame, names: list[str], where: str) -> None:
    if missing := [name for name in names if name not in frame]:
        raise InvalidInputError(
            f"{where} has no column {', '.join(missing[:_SHOWN])}",
            fix="log or deliver every feature and the outcome under the names of the workload file",
        )


def _kept_file(deployment: Deployment, reference: DataRef) -> DataRef:
    """The same content in the evidence store, so that it can be trained on again for ever."""
    deployment.evidence.put_file(Path(reference.path))
    return reference


def _kept_frame(deployment: Deployment, frame: pd.DataFrame, source: str) -> DataRef:
    with tempfile.TemporaryDirectory(prefix="airlock-retrain-") as folder:
        path = Path(folder) / "rows.parquet"
        frame.to_parquet(path, index=False)
        digest = deployment.evidence.put_file(path)
        size = path.stat().st_size
    kept = deployment.evidence.path(digest)
    return DataRef(path=str(kept), sha256=digest, size=size, source=source)


def _plan(
    deployment: Deployment,
    workload: Workload,
    policy: Policy,
    rows: _Rows,
    *,
    retrain_id: str,
    data: TrainingData,
) -> Plan:
    model, put = workload.model.registered_model, deployment.evidence.put
    champion = deployment.registry.champion(model)
    artifact: ArtifactRef | None = None
    logged_parameters: dict[str, str] = {}
    commit = ""
    if champion is not None:
        # The alias names a version; the run that made it stands at the version itself.
        champion = deployment.registry.version(model, champion.version)
        run = deployment.registry.run(champion.run_id)
        artifact, logged_parameters, commit = (
            snapshot(deployment, model, champion.version),
            run.params,
            run.commit,
        )
    parameters = training_parameters(
        workload.training,
        workload.model,
        metadata={} if artifact is None else artifact.metadata,
        logged=logged_parameters,
    )
    suite, left_out = _askable(deployment.config.suite(workload.data.expectations), rows.columns)
    return Plan(
        retrain_id=retrain_id,
        workload=workload.name,
        workload_digest=put(workload.to_bytes()),
        policy_version=policy.version,
        policy_digest=put(policy.to_bytes()),
        data=data,
        training=rows.training,
        holdout=rows.holdout,
        reference=rows.reference,
        suite_digest=put(canonical_json(suite)),
        left_out=left_out,
        code=keep_code(deployment, code_folder(deployment, workload)),
        parameters=put(canonical_json(parameters)),
        champion=artifact,
        champion_run="" if champion is None else champion.run_id,
        commit=workload.lineage.commit or commit,
        environment=environment_of(),
    )


def _askable(suite: dict[str, Any], columns: list[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The suite without expectations about columns that are not there, which are named.

    A production log holds what the model uses; columns of the training data beside that are not logged.
    """
    if columns is None:
        return suite, []
    try:
        parsed = Suite.model_validate(suite)
    except ValidationError:
        return suite, []  # the gate says what is wrong with it
    kept, left_out = [], []
    for raw, one in zip(suite["expectations"], parsed.expectations, strict=True):
        if set(one.columns) <= set(columns):
            kept.append(raw)
        else:
            left_out.append(f"{one.type} of {one.subject}")
    changed = {**suite, "expectations": kept}
    if parsed.freshness is not None and parsed.freshness.column not in columns:
        changed.pop("freshness", None)
        left_out.append(f"freshness by {parsed.freshness.column}")
    return changed, left_out


def read_plan(deployment: Deployment, retraining: Retraining) -> Plan:
    """The frozen plan.

    Raises:
        NotFoundError: it was not frozen.
    """
    frozen = retraining.data(Kind.RETRAIN_FROZEN)
    if frozen is None:
        raise NotFoundError("the retraining was not frozen", fix="see why in the task `freeze`")
    return Plan.from_bytes(deployment.evidence.get(str(frozen["plan"])))


def plan_path(deployment: Deployment, reference: DataRef) -> Path:
    """The verified content of a plan's data, from the evidence store."""
    return deployment.evidence.path(reference.sha256)


def check(deployment: Deployment, retrain_id: str) -> bool:
    """Judge the rows with the data quality gate; whether they may be trained on. Safe to repeat.

    What the gate fails or cannot judge closes the retraining with its reasons.
    """
    retraining = find_retraining(deployment, retrain_id)
    if is_closed(retraining):
        return False
    if retraining.data(Kind.RETRAIN_CHECKED) is not None:
        return True
    plan = read_plan(deployment, retraining)
    workload = Workload.from_bytes(deployment.evidence.get(plan.workload_digest))
    policy = Policy.from_bytes(deployment.evidence.get(plan.policy_digest))
    if _QUALITY not in policy.gates:
        problem = f"policy {policy.version} has no gate {_QUALITY}, so nobody says whether to train on this"
        close(deployment, retraining, "check", [problem])
        return False
    module = load_gate(_QUALITY)
    try:
        asked = 0 if retraining.requested is None else retraining.requested.occurred_us
        context = _context(deployment, workload, plan, asked)
        result = module.evaluate(context, module.Config.model_validate(policy.gates[_QUALITY]))
    except UnavailableError:
        raise
    except AirlockError as error:
        close(deployment, retraining, "check", [str(error)])
        return False
    evidence = deployment.evidence.put(result.to_bytes())
    if not result.verdict.allows:
        bad = [one.message for one in result.findings if not one.verdict.allows]
        close(deployment, retraining, "check", bad or [result.summary])
        return False
    warned = [one.message for one in result.findings if one.verdict is Verdict.WARNED]
    said: dict[str, Any] = {
        "verdict": str(result.verdict),
        "summary": result.summary[:1000],
        "evidence": evidence,
    }
    said |= {"left_out": plan.left_out[:50], "warnings": warned[:_SHOWN]}
    record_step(deployment, retraining, Kind.RETRAIN_CHECKED, said)
    return True


def _context(deployment: Deployment, workload: Workload, plan: Plan, asked_us: int) -> GateContext:
    """What the data quality gate looks at: the rows to train on, beside the pinned training data."""
    import pandas as pd

    current, reference = plan_path(deployment, plan.training), _reference(deployment, plan)
    return GateContext(
        columns=Columns.of(workload),
        declared=Declarations.of(workload),
        title=workload.title,
        task=task_of(workload),
        evaluation=lambda: pd.read_parquet(current),
        training=lambda: pd.read_parquet(reference),
        current_path=lambda: current,
        reference_path=lambda: reference,
        scores=_nothing,
        artifact=_nothing,
        suite=lambda: parse_json(deployment.evidence.get(plan.suite_digest)),
        documentation=lambda: "",
        business_context="",
        scan=_nothing,
        store=deployment.evidence.put,
        candidate=_nothing,
        now_us=lambda: asked_us,
        workload=workload,
    )


def _reference(deployment: Deployment, plan: Plan) -> Path:
    if plan.reference.source:
        return plan_path(deployment, plan.reference)
    path = Path(plan.reference.path)
    if not path.is_file() or hash_file(path) != plan.reference.sha256:
        raise NotFoundError("the pinned training data changed since it was frozen", where=str(path))
    return path


def _nothing() -> Any:
    raise InvalidInputError("data is judged here, and no model")
