"""Train a release's candidate again, once, in the sandbox; the reproducibility gate reads what came out.

What is trained, on which data and with which code, stands in the manifest. The training code sees the
training data alone: the rows on which both models are compared are scored in another process.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from airlock.core.audit import Kind
from airlock.core.canonical import parse_json
from airlock.core.errors import InvalidInputError, NotFoundError, SandboxError
from airlock.core.evidence import Evidence, GateResult, Verdict
from airlock.services.deployment import Deployment
from airlock.services.evaluate import SUMMARY_LENGTH, error_result, materialise, verified_path
from airlock.services.folders import write_folder
from airlock.services.releases import Case, open_case
from airlock.services.retrained import RETRAIN, SCORES, recorded_retraining
from airlock.services.score import isolation_text, own_packages, refuse_unchecked
from airlock.services.scoring import Scored, reviewed_types, run_model
from airlock.services.training import CODE, PARAMETERS, Training, files_digest, read_files, train

REPRODUCED = "reproducibility"
"""The gate that reads what is kept here; where a policy does not have it, nothing is trained again."""


def reproduce(deployment: Deployment, release_id: str) -> Evidence:
    """Train the candidate again and keep what it says about the evaluation rows. Safe to repeat.

    That the command fails is a result, which the gate judges, and no error of this task.

    Raises:
        NotFoundError: unknown release, no manifest, or no training command.
        RefusedError: a gate that must come first has not passed; nothing was run.
        UnavailableError: a store does not answer.
    """
    case = open_case(deployment, release_id)
    if (earlier := recorded_retraining(deployment, case)) is not None:
        return earlier
    if CODE not in case.manifest.code:
        raise NotFoundError(
            f"workload {case.workload.name} has no training command",
            where=release_id,
            fix="name one in training.command, and submit again",
        )
    refuse_unchecked(deployment, case)
    started = time.monotonic()
    try:
        result = _trained(deployment, case)
    except (SandboxError, InvalidInputError) as error:
        result = error_result(RETRAIN, error)
    evidence = Evidence(
        release_id=release_id,
        manifest_digest=case.manifest.digest,
        gate=RETRAIN,
        config=case.policy.sandbox.to_data(),
        result=result,
    )
    key = f"release/{release_id}/retrained"
    digest = deployment.evidence.put(evidence.to_bytes())
    if deployment.find(key) is not None:  # by a try before this one that lost its worker
        return evidence
    deployment.record(
        Kind.RELEASE_RETRAINED,
        key,
        release_id=release_id,
        workload=case.workload.name,
        version=case.release.version,
        data={
            "evidence": digest,
            "verdict": str(result.verdict),
            "summary": result.summary[:SUMMARY_LENGTH],
            "seconds": round(time.monotonic() - started, 3),
        },
    )
    return evidence


def _trained(deployment: Deployment, case: Case) -> GateResult:
    manifest = case.manifest
    with tempfile.TemporaryDirectory(prefix="airlock-retrain-") as name:
        folder = Path(name)
        code = read_files(deployment, manifest.code[CODE])
        candidate = materialise(deployment, manifest.candidate, folder / "candidate")
        packages = own_packages(deployment, case.policy, candidate)
        data = verified_path(manifest.training)
        parameters = parse_json(deployment.evidence.get(manifest.code[PARAMETERS]))
        training = Training(
            spec=case.workload.training,
            code=write_folder(deployment.evidence, code, folder / "code"),
            data=data,
            parameters=parameters,
            packages=packages,
        )
        trained = train(deployment.sandbox, training, case.policy.sandbox, folder)
        wanted = Scored(
            folder=trained.folder,
            model=case.workload.model,
            evaluation=verified_path(manifest.evaluation),
            background=data,
            reviewed=reviewed_types(case.policy),
            threshold=parameters["threshold"],
            packages=packages,
        )
        frame = run_model(deployment.sandbox, wanted, case.policy.sandbox, folder / "scored")
        frame.to_parquet(folder / SCORES, index=False)
        kept = deployment.evidence.put_file(folder / SCORES)
    return GateResult(
        verdict=Verdict.PASSED,
        summary=f"Trained again in {trained.ran.seconds:.0f} s: {isolation_text(trained.ran.isolation)}.",
        files={SCORES: kept},
        details={
            "rows": len(frame),
            "seed": training.seed,
            "data": manifest.training.sha256,
            "code": files_digest(code),
            "command": case.workload.training.command,
            "metrics": trained.metrics,
            "isolation_level": trained.ran.level,
            "attempts": trained.ran.attempts,
        },
    )
