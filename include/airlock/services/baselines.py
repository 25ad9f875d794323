"""What production is held against: the evidence of the champion's own release, pinned by digest.

A champion that was adopted has no release. It is scored once, in the sandbox, on the workload's default
evaluation batch; what came out is kept and used from then on.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from airlock.core.audit import Kind
from airlock.core.base import Value
from airlock.core.columns import label_text
from airlock.core.errors import ConflictError, IntegrityError, NotFoundError
from airlock.core.evidence import SCORE
from airlock.core.manifest import ArtifactRef, DataRef
from airlock.core.policy import Policy
from airlock.core.workload import Workload
from airlock.profiles.source import ParquetSource
from airlock.services.deployment import Deployment
from airlock.services.evaluate import verified_path
from airlock.services.gate_files import coded
from airlock.services.releases import open_case, read_evidence
from airlock.services.score import SCORES, SHAP, score_rows
from airlock.services.submit import batch_file, data_ref, snapshot

if TYPE_CHECKING:
    import pandas as pd


class Baseline(Value):
    """Where each part of a baseline is, each by digest.

    Attributes:
        release_id: release it comes from; empty for an adopted version.
        scores: digest of ``scores.parquet``: the version's own scores of the evaluation batch.
        shap: digest of its attributions on that batch; empty where it could not be explained.
    """

    workload: str
    version: str
    release_id: str
    artifact: ArtifactRef
    training: DataRef
    evaluation: DataRef
    scores: str
    shap: str = ""


def find_baseline(
    deployment: Deployment, workload: Workload, policy: Policy, *, version: str, release_id: str
) -> tuple[Baseline, str]:
    """The baseline of a version and its digest; made and recorded the first time it is asked for.

    Raises:
        NotFoundError: a file or the version is gone.
        SandboxError: an adopted version cannot be scored.
        UnavailableError: the registry or a store does not answer.
    """
    key = f"monitor/{workload.name}/baseline/{version}/{release_id or 'adopted'}"
    if (known := deployment.find(key)) is not None:
        digest = str(known.data["baseline"])
        return Baseline.from_bytes(deployment.evidence.get(digest)), digest
    if release_id:
        made = _of_release(deployment, release_id)
    else:
        made = _of_adopted(deployment, workload, policy, version)
    digest = deployment.evidence.put(made.to_bytes())
    try:
        deployment.record(
            Kind.MONITOR_BASELINED,
            key,
            release_id=release_id,
            workload=workload.name,
            version=version,
            data={"baseline": digest, "from": "release" if release_id else "scored in the sandbox"},
        )
    except ConflictError:  # somebody else made it in the same moment: theirs counts
        if (first := deployment.find(key)) is None:
            raise
        digest = str(first.data["baseline"])
        made = Baseline.from_bytes(deployment.evidence.get(digest))
    return made, digest


def _of_release(deployment: Deployment, release_id: str) -> Baseline:
    case = open_case(deployment, release_id)
    record = read_evidence(deployment, case).get(SCORE)
    if record is None or SCORES not in record.result.files:
        raise NotFoundError(
            "the release behind the champion was never scored",
            where=release_id,
            fix="release the version again; without its own evidence nothing can be compared",
        )
    manifest = case.manifest
    return Baseline(
        workload=case.workload.name,
        version=manifest.candidate.version,
        release_id=release_id,
        artifact=manifest.candidate,
        training=manifest.training,
        evaluation=manifest.evaluation,
        scores=record.result.files[SCORES],
        shap=record.result.files.get(SHAP, ""),
    )


def _of_adopted(deployment: Deployment, workload: Workload, policy: Policy, version: str) -> Baseline:
    artifact = snapshot(deployment, workload.model.registered_model, version)
    training = data_ref(deployment.settings.data_root / workload.data.training)
    evaluation = data_ref(batch_file(deployment, workload, workload.data.default_batch))
    with tempfile.TemporaryDirectory(prefix="airlock-baseline-") as name:
        files = score_rows(
            deployment,
            workload,
            policy,
            artifact,
            rows=verified_path(evaluation),
            background=verified_path(training),
            folder=Path(name),
        )
        kept = {file: deployment.evidence.put_file(path) for file, path in files.items()}
    return Baseline(
        workload=workload.name,
        version=version,
        release_id="",
        artifact=artifact,
        training=training,
        evaluation=evaluation,
        scores=kept[SCORES],
        shap=kept.get(SHAP, ""),
    )


@dataclass
class OpenBaseline:
    """A baseline whose files are read when they are asked for, each verified."""

    deployment: Deployment
    workload: Workload
    baseline: Baseline

    @cached_property
    def training(self) -> ParquetSource:
        """The data the version was trained on."""
        return ParquetSource(verified_path(self.baseline.training))

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The evaluation batch with columns ``score``, ``decision`` and ``label`` beside its own.

        Of two outcomes decision and label are 1 for the favourable one and 0 else.
        """
        import pandas as pd

        rows = pd.read_parquet(verified_path(self.baseline.evaluation))
        scores = pd.read_parquet(BytesIO(self.deployment.evidence.get(self.baseline.scores)))
        if len(rows) != len(scores):
            raise IntegrityError(
                f"{len(scores)} scores belong to {len(rows)} rows of the evaluation batch",
                where=self.baseline.release_id or f"version {self.baseline.version}",
            )
        model = self.workload.model
        label = rows[model.target]
        if model.task == "classification" and model.positive is not None:
            label = coded(label, label_text(model.positive))
        elif model.task == "multiclass":
            label = label.map(label_text, na_action="ignore")
        return rows.assign(
            score=scores["candidate_score"], decision=scores["candidate_prediction"], label=label
        )

    @cached_property
    def attributions(self) -> pd.DataFrame | None:
        """SHAP values on the evaluation batch, a column for each feature; ``None`` where there are none."""
        import pandas as pd

        if not self.baseline.shap:
            return None
        frame = pd.read_parquet(BytesIO(self.deployment.evidence.get(self.baseline.shap)))
        return frame[[name for name in frame.columns if not str(name).startswith("_")]]
