"""Submit a release and freeze what is released."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path

from airlock import __version__
from airlock.adapters.evidence import hash_file
from airlock.adapters.lineage import commit_authors
from airlock.core.audit import Kind
from airlock.core.canonical import canonical_json, parse_json
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError
from airlock.core.interview import check_answers
from airlock.core.lineage import Link
from airlock.core.manifest import AnswerValue, ArtifactRef, DataRef, Manifest
from airlock.core.policy import Policy
from airlock.core.release import Release
from airlock.core.retraining import Plan
from airlock.core.workload import Workload
from airlock.ports import ModelVersion, RunFacts
from airlock.services import model_files
from airlock.services.deployment import Deployment
from airlock.services.folders import keep_folder, regular_files
from airlock.services.interview import required_questions
from airlock.services.lineage import KEY, collect_links, keep_links
from airlock.services.policy_check import refuse_problems
from airlock.services.publish import require_published
from airlock.services.releases import find_release
from airlock.services.retrain import requester_of_release
from airlock.services.training import (
    CODE,
    CODE_DIGEST,
    PARAMETERS,
    code_folder,
    files_digest,
    keep_code,
    read_files,
    training_parameters,
)

MAX_CONTEXT = 20_000
"""Characters of business context; more belongs into the model card."""

MAX_CONTEXT_BYTES = 60_000
"""The same in bytes, so that a context in any script fits into an audit event."""

MAX_ARTIFACT_FILES = 10_000
"""Files of one artifact that are frozen at all; policy sets the real, smaller limit."""

_ENVIRONMENT = ("scikit-learn", "numpy", "pandas", "skops", "mlflow", "apache-airflow")


def submit(
    deployment: Deployment,
    *,
    release_id: str,
    workload_name: str,
    version: str,
    batch: str,
    context: str,
    submitter: str,
    dag_id: str,
    run_id: str,
    answers: Mapping[str, object] | None = None,
) -> str:
    """Open a release and return its id. Repeating it for the same DAG run changes nothing.

    Raises:
        NotFoundError: unknown workload, version or evaluation batch.
        RefusedError: the version is quarantined, or nobody is known as the submitter.
        InvalidInputError: the context is too long, or an answer does not fit its question.
    """
    workload = deployment.config.workload(workload_name)
    if submitter == deployment.settings.service_user:
        submitter = requester_of_release(deployment, run_id) or submitter
    if not submitter:
        raise RefusedError(
            "nobody is known as the submitter of this run",
            where=run_id,
            fix="trigger the DAG as a logged-in user: a release needs someone who cannot approve it",
        )
    size = len(canonical_json(context))
    if len(context) > MAX_CONTEXT or size > MAX_CONTEXT_BYTES:
        raise InvalidInputError(
            f"context has {len(context)} characters ({size} bytes), "
            f"the limit is {MAX_CONTEXT} ({MAX_CONTEXT_BYTES})",
            where=release_id,
            fix="move the long part into the model card",
        )
    batch = batch or workload.data.default_batch
    batch_file(deployment, workload, batch)
    found = deployment.registry.version(workload.model.registered_model, version)
    if found.tags.get("airlock.state") == "quarantined":
        raise RefusedError(
            f"version {version} of {workload.model.registered_model} is quarantined: "
            f"{found.tags.get('airlock.quarantine_reason', 'no reason recorded')}",
            where=release_id,
            fix="register a corrected version; a quarantined one cannot be released",
        )
    data = {"batch": batch, "context": context, "dag_id": dag_id, "run_id": run_id}
    if answers:
        questions = deployment.config.policy(workload.policy).interview
        data["answers"] = deployment.evidence.put(canonical_json(check_answers(questions, answers)))
    deployment.record(
        Kind.RELEASE_SUBMITTED,
        f"release/{release_id}/submitted",
        actor=submitter,
        release_id=release_id,
        workload=workload.name,
        version=version,
        data=data,
    )
    return release_id


def batch_file(deployment: Deployment, workload: Workload, batch: str) -> Path:
    """The file of an evaluation batch.

    Raises:
        NotFoundError: there is no such batch; names those there are.
    """
    folder = deployment.settings.data_root / workload.data.evaluation
    known = sorted(path.stem for path in folder.glob("*.parquet"))
    if batch not in known:
        raise NotFoundError(
            f"there is no evaluation batch {batch!r}",
            where=str(folder),
            fix=f"use one of: {', '.join(known) or 'none is there yet; put one into the folder'}",
        )
    return folder / f"{batch}.parquet"


def freeze(deployment: Deployment, release_id: str) -> str:
    """Freeze the manifest of a release and return its digest.

    Every file of the artifact is copied into the evidence store, so what is scanned, scored and
    approved is one and the same content, whatever happens in the registry meanwhile.

    Raises:
        NotFoundError: a file or version is missing.
        ConfigurationError: policy, suite or people cannot be used.
        InvalidInputError: the artifact has links or special files.
    """
    release = find_release(deployment, release_id)
    if (frozen := release.first(Kind.RELEASE_FROZEN)) is not None:
        return str(frozen.data["manifest"])
    workload = deployment.config.workload(release.workload)
    policy = checked_policy(deployment, workload.policy)
    require_published(deployment, policy)
    deployment.config.people()
    model = workload.model.registered_model
    champion = deployment.registry.champion(model)
    candidate = deployment.registry.version(model, release.version)
    put = deployment.evidence.put
    artifact = snapshot(deployment, model, candidate.version)
    training = training_of(deployment, workload, artifact)
    manifest = Manifest(
        release_id=release_id,
        workload=workload.name,
        workload_digest=put(workload.to_bytes()),
        submitter=release.submitter,
        candidate=artifact,
        champion=None if champion is None else snapshot(deployment, model, champion.version),
        training=training,
        evaluation=data_ref(batch_file(deployment, workload, release.batch)),
        suite_digest=put(canonical_json(deployment.config.suite(workload.data.expectations))),
        documentation_digest=put(deployment.config.documentation(workload).encode()),
        policy_version=policy.version,
        policy_digest=put(policy.to_bytes()),
        code=_code(deployment, workload, candidate.run_id, artifact, training),
        environment=environment_of(),
        champion_training=None if champion is None else champion_training(deployment, workload, champion),
        answers=answers_of(deployment, release),
        asked=required_questions(deployment.engine, workload, policy, as_of=release.submitted_on),
        risk_history=risk_history(deployment, workload.name, policy),
        authors=authors_of(deployment, workload, candidate),
    )
    digest = put(manifest.to_bytes())
    deployment.record(
        Kind.RELEASE_FROZEN,
        f"release/{release_id}/frozen",
        release_id=release_id,
        workload=workload.name,
        version=release.version,
        data={
            "manifest": digest,
            "artifact": manifest.candidate.sha256,
            "policy": policy.version,
            "policy_digest": manifest.policy_digest,
        },
    )
    return digest


def training_of(deployment: Deployment, workload: Workload, artifact: ArtifactRef) -> DataRef:
    """What the version was trained on: the rows a retraining of Airlock's froze, else the declared file.

    Raises:
        NotFoundError: the file is not there.
    """
    declared = artifact.metadata.get("training_sha256")
    for entry in deployment.audit.events(workload=workload.name, kinds=[Kind.RETRAIN_FROZEN]):
        event = entry.event
        if event.deployment == deployment.settings.deployment and event.data["data"] == declared:
            training = Plan.from_bytes(deployment.evidence.get(str(event.data["plan"]))).training
            if training.source:  # it lies in the evidence store, wherever that is now
                path = deployment.evidence.path(training.sha256)
                return training.model_copy(update={"path": str(path)})
    return data_ref(deployment.settings.data_root / workload.data.training)


def answers_of(deployment: Deployment, release: Release) -> dict[str, AnswerValue]:
    """What the submitter answered to the questions of the policy."""
    submitted = release.first(Kind.RELEASE_SUBMITTED)
    digest = None if submitted is None else submitted.data.get("answers")
    found: dict[str, AnswerValue] = {} if digest is None else parse_json(deployment.evidence.get(str(digest)))
    return found


def champion_training(deployment: Deployment, workload: Workload, champion: ModelVersion) -> DataRef | None:
    """The training data of the release that made the champion; ``None`` when it was adopted."""
    promoted = deployment.audit.events(
        workload=workload.name, kinds=[Kind.PROMOTION_FINISHED], newest_first=True
    )
    for entry in promoted:
        event = entry.event
        if event.deployment != deployment.settings.deployment or event.version != champion.version:
            continue
        frozen = find_release(deployment, event.release_id).first(Kind.RELEASE_FROZEN)
        if frozen is not None:
            return Manifest.from_bytes(deployment.evidence.get(frozen.data["manifest"])).training
    return None


def risk_history(deployment: Deployment, workload: str, policy: Policy) -> list[float]:
    """Risk scores of the workload's earlier releases, oldest first; as many as the policy compares."""
    if policy.risk is None:
        return []
    decided = deployment.audit.events(workload=workload, kinds=[Kind.RELEASE_DECIDED])
    scores = [
        float(entry.event.data["risk_score"])
        for entry in decided
        if entry.event.deployment == deployment.settings.deployment and "risk_score" in entry.event.data
    ]
    return scores[-policy.risk.maximum_history :]


def _code(
    deployment: Deployment, workload: Workload, run_id: str, artifact: ArtifactRef, training: DataRef
) -> dict[str, str]:
    """The training run, its git commit, and the digest of all links of lineage."""
    run = deployment.registry.run(run_id)
    root = deployment.settings.data_root
    trained_by, code_links = _training(deployment, workload, artifact, run)
    links = collect_links(workload.lineage, root, artifact, training_sha256=training.sha256, run=run)
    links += code_links
    code = {"mlflow_run": run_id, KEY: keep_links(deployment.evidence, links), **trained_by}
    commit = run.commit or workload.lineage.commit
    return {**code, "git_commit": commit} if commit else code


def _training(
    deployment: Deployment, workload: Workload, artifact: ArtifactRef, run: RunFacts
) -> tuple[dict[str, str], list[Link]]:
    """Training code and parameters by digest, and the code's link; nothing without a training command."""
    if not workload.training.command:
        return {}, []
    folder = code_folder(deployment, workload)
    kept = keep_code(deployment, folder)
    parameters = training_parameters(
        workload.training, workload.model, metadata=artifact.metadata, logged=run.params
    )
    link = Link(
        kind="code",
        tool="files",
        name=f"training code {folder.name}",
        claimed=str(artifact.metadata.get(CODE_DIGEST) or ""),
        found=files_digest(read_files(deployment, kept)),
    )
    return {CODE: kept, PARAMETERS: deployment.evidence.put(canonical_json(parameters))}, [link]


def authors_of(deployment: Deployment, workload: Workload, candidate: ModelVersion) -> dict[str, str]:
    """People who made the model or its data, and what they did, so that they approve none of it (A-2).

    Names of the registry and of git count for whom ``people.yaml`` knows by them; nobody else holds a role.
    """
    people, run = deployment.config.people(), deployment.registry.run(candidate.run_id)
    wrote = commit_authors(workload.lineage, deployment.settings.data_root, commit=run.commit)
    found: dict[str, str] = {}
    for name, did in [*run.users, (candidate.user, "registered this version"), *wrote]:
        person = people.known_as(name) if name else None
        if person is not None:
            found.setdefault(person.user, did)
    return found


def checked_policy(deployment: Deployment, version: str) -> Policy:
    """Read a policy whose every gate exists and accepts its configuration.

    Raises:
        ConfigurationError: naming file, line, gate and field.
    """
    files = deployment.config.policy_files(version)
    policy = files.policy()
    refuse_problems(policy, files)
    return policy


def data_ref(path: Path) -> DataRef:
    """Identify a data file by its content.

    Raises:
        NotFoundError: the file is not there.
    """
    if not path.is_file():
        raise NotFoundError(
            "data file not found", where=str(path), fix="check `data` in the workload and AIRLOCK_DATA_DIR"
        )
    return DataRef(path=str(path), sha256=hash_file(path), size=path.stat().st_size)


def snapshot(deployment: Deployment, model: str, version: str) -> ArtifactRef:
    """Copy a version's files into the evidence store and identify them."""
    with tempfile.TemporaryDirectory(prefix="airlock-artifact-") as folder:
        root = Path(folder) / "artifact"
        deployment.registry.download(model, version, root)
        paths = regular_files(
            root,
            where=f"{model} {version}",
            maximum=MAX_ARTIFACT_FILES,
            what="the artifact",
            fix="log the model alone, without data",
        )
        if not (files := keep_folder(deployment.evidence, root, paths)):
            raise InvalidInputError(
                "the artifact is empty",
                where=f"{model} {version}",
                fix="log the model again and register that version",
            )
        inputs, outputs = model_files.signature(root)
        return ArtifactRef(
            version=version,
            sha256=ArtifactRef.digest_files(files),
            files=files,
            metadata=model_files.declared(root),
            inputs=inputs,
            outputs=outputs,
            packages=model_files.packages(root),
        )


def environment_of() -> dict[str, str]:
    """Versions of what judges and trains here."""
    versions = {name: importlib.metadata.version(name) for name in _ENVIRONMENT}
    return {"airlock": __version__, "python": platform.python_version(), **versions}
