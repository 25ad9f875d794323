"""Score champion and candidate once, in the sandbox; every later gate reads the files."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.adapters.environments import Environments, installed
from airlock.core.audit import Kind
from airlock.core.canonical import parse_json
from airlock.core.diff import diff_models
from airlock.core.errors import InvalidInputError, RefusedError, SandboxError
from airlock.core.evidence import SCORE, Evidence, Finding, GateResult, Verdict, passed_or_worst
from airlock.core.manifest import ArtifactRef
from airlock.core.policy import Policy
from airlock.core.workload import Workload
from airlock.gates import load_gate
from airlock.gates._reasons import reason_texts
from airlock.gates._requirements import CONDA_ONLY, read_requirements
from airlock.gates.base import Stage
from airlock.ports import SandboxResult
from airlock.profiles.flips import flips
from airlock.services.deployment import Deployment
from airlock.services.evaluate import (
    error_result,
    keep_evidence,
    labelled,
    materialise,
    read_frame,
    recorded_evidence,
)
from airlock.services.releases import Case, open_case, read_evidence
from airlock.services.scoring import SEED, check_scores, limited_request, model_job, reviewed_types, score_job
from airlock.services.waivers import waived

if TYPE_CHECKING:
    import pandas as pd

SCORES, SHAP = "scores.parquet", "shap.parquet"
"""Names of what a model said and why, in evidence and in what comes out of the sandbox."""

SECURITY_ROLE = "security"
"""Role that looks at what was quarantined."""

_FILES = {
    "candidate": ("shap.parquet", "reasons.parquet", "report.json"),
    "champion": ("champion_shap.parquet",),
}
"""What is kept of each model's output, beside the scores."""

REASON_DRAWS = 20
"""Typical rows whose values take the place of a reason that is taken away."""


def score(deployment: Deployment, release_id: str) -> Evidence:
    """Run the scoring pass of a release and return its evidence.

    Raises:
        RefusedError: a gate that must come first has not passed; nothing was loaded.
        NotFoundError: unknown release or no manifest.
        UnavailableError: a store does not answer.
    """
    case = open_case(deployment, release_id)
    if (earlier := recorded_evidence(deployment, case, SCORE)) is not None:
        return earlier
    refuse_unchecked(deployment, case)
    config = {**case.policy.sandbox.to_data(), "seed": SEED}
    started = time.monotonic()
    try:
        result = _score(deployment, case)
    except (SandboxError, InvalidInputError) as error:
        result = error_result(SCORE, error)
    seconds = time.monotonic() - started
    return keep_evidence(deployment, case, SCORE, config=config, result=result, seconds=seconds)


def refuse_unchecked(deployment: Deployment, case: Case) -> None:
    """Judge by evidence and waivers, never by the state of the tasks before this one."""
    evidence = read_evidence(deployment, case)
    for gate in case.policy.gates:
        if load_gate(gate).STAGE is not Stage.BEFORE_SCORING:
            continue
        record = evidence.get(gate)
        if record is None or not (record.verdict.allows or waived(deployment, case, record)):
            verdict = "has not answered" if record is None else f"says {record.verdict}"
            raise RefusedError(
                f"nothing is scored because gate {gate} {verdict}",
                where=case.release.release_id,
                fix="" if record is None else record.result.summary,
            )


def _score(deployment: Deployment, case: Case) -> GateResult:
    manifest = case.manifest
    with tempfile.TemporaryDirectory(prefix="airlock-score-") as name:
        folder = Path(name)
        frame = read_frame(manifest.evaluation)
        rows = len(frame)
        models = {"candidate": manifest.candidate, "champion": manifest.champion}
        # Each model runs in a process of its own: neither can look at the other, or change what it says.
        # Side by side, because most of their time goes to importing libraries.
        with ThreadPoolExecutor(len(models)) as pool:
            running = {
                role: pool.submit(_run, deployment, case, role, artifact, folder)
                for role, artifact in models.items()
                if artifact is not None
            }
            both = {role: future.result() for role, future in running.items()}
        ran = {role: result for role, (result, _) in both.items()}
        reports = {role: parse_json((folder / role / "report.json").read_bytes()) for role in ran}
        _check_features(case, reports["candidate"]["models"]["candidate"]["features"])
        scores = _merged_scores(case, {role: folder / role / "scores.parquet" for role in ran}, rows)
        scores.to_parquet(folder / "scores.parquet", index=False)
        files = {"scores.parquet": deployment.evidence.put_file(folder / "scores.parquet")}
        for role in ran:
            files |= {
                file: deployment.evidence.put_file(folder / role / file)
                for file in _FILES[role]
                if (folder / role / file).is_file()
            }
    said = {"champion": None, **{role: report["models"][role] for role, report in reports.items()}}
    attempts = [
        f"{text} ({role})" if role == "champion" else text for role in ran for text in ran[role].attempts
    ]
    findings = [refused_attempts(attempts)] if attempts else []
    weakest = min(ran.values(), key=lambda one: len(one.isolation))
    shap: dict[str, Any] = {"champion_additivity_error": None}
    for report in reports.values():
        shap |= {key: value for key, value in report["shap"].items() if value is not None or key not in shap}
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=findings[0].message
        if findings
        else f"{rows} rows scored in the sandbox: {isolation_text(weakest.isolation)}.",
        findings=findings,
        files=files,
        details={
            "models": said,
            "change": diff_models(said),
            "flips": _flips(case, frame, scores),
            "rows": rows,
            "shap": shap,
            "timings": {
                "champion": None,
                **{role: report["timings"][role] for role, report in reports.items()},
            },
            "isolation": weakest.isolation,
            "isolation_level": weakest.level,
            "attempts": ran["candidate"].attempts,
            "champion_attempts": ran["champion"].attempts if "champion" in ran else [],
            "environments": {role: environment for role, (_, environment) in both.items()},
            "versions": reports["candidate"].get("versions", {}),
        },
    )


def _flips(case: Case, frame: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Any] | None:
    """Which decisions change; kept beside the scores, so that a page need not read a million rows."""
    model = case.workload.model
    return flips(
        labelled(case.workload.model, frame),
        scores,
        task=model.task,
        features=model.features,
        target=model.target,
        sensitive=case.workload.data.sensitive,
    )


def _run(
    deployment: Deployment, case: Case, role: str, artifact: ArtifactRef, folder: Path
) -> tuple[SandboxResult, str]:
    """Score and explain one model of a release; what it writes is in ``folder / role``."""
    return run_version(
        deployment,
        case.workload,
        case.policy,
        artifact,
        role=role,
        rows=Path(case.manifest.evaluation.path),
        background=Path(case.manifest.training.path),
        folder=folder,
        reasons=_reason_job(deployment, case) if role == "candidate" else None,
    )


def run_version(
    deployment: Deployment,
    workload: Workload,
    policy: Policy,
    artifact: ArtifactRef,
    *,
    role: str,
    rows: Path,
    background: Path,
    folder: Path,
    explained: int | None = None,
    reasons: dict[str, Any] | None = None,
) -> tuple[SandboxResult, str]:
    """Score and explain rows by one version in the sandbox; what it writes is in ``folder / role``.

    ``explained`` rows are explained, by default as many as the policy says.

    Returns:
        What the sandbox says, and the name of the environment it ran in.

    Raises:
        SandboxError: the model raised, was killed, or could not be isolated as the policy demands.
        InvalidInputError: the artifact cannot be loaded there.
    """
    model, rules = workload.model, policy.sandbox
    source = materialise(deployment, artifact, folder / f"{role}-files")
    output = folder / role
    output.mkdir()
    where = f"{model.registered_model} version {artifact.version}"
    loaded = model_job(
        source, role=role, where=where, metadata=artifact.metadata, reviewed=reviewed_types(policy)
    )
    job = score_job(model, role, loaded, rules, explained=explained, reasons=reasons)
    inputs = {"evaluation": rows, "background": background, role: source}
    packages = own_packages(deployment, policy, source)
    ran = deployment.sandbox.run(limited_request(rules, job, inputs, packages=packages), output)
    return ran, packages.name if packages else "same"


def score_rows(
    deployment: Deployment,
    workload: Workload,
    policy: Policy,
    artifact: ArtifactRef,
    *,
    rows: Path,
    background: Path,
    folder: Path,
    explained: int | None = None,
) -> dict[str, Path]:
    """Score and explain rows outside a release; returns the files that came out, by name.

    Columns begin with ``candidate``, whatever the version is.

    Raises:
        SandboxError: as :func:`run_version`, or the model asked for what no model needs.
        InvalidInputError: the artifact cannot be loaded there.
    """
    ran, _ = run_version(
        deployment,
        workload,
        policy,
        artifact,
        role="candidate",
        rows=rows,
        background=background,
        folder=folder,
        explained=explained,
    )
    if ran.attempts:
        raise SandboxError(
            f"the model was refused what no model needs: it tried to {', '.join(ran.attempts)}"[:1000],
            where=f"{workload.model.registered_model} version {artifact.version}",
            fix="quarantine the version and find out which code does this",
        )
    output = folder / "candidate"
    return {name: output / name for name in (SCORES, SHAP) if (output / name).is_file()}


def own_packages(deployment: Deployment, policy: Policy, source: Path) -> Path | None:
    """The model's own environment; ``None`` where the policy asks for none, or the worker has its packages.

    Raises:
        InvalidInputError: it cannot be built, or there are no wheels.
    """
    if policy.sandbox.environment == "same":
        return None
    needed = read_requirements(source)
    pins = [(one.name, one.version) for one in needed if one.version and one.name not in CONDA_ONLY]
    if all(installed(name) == wanted for name, wanted in pins):
        return None
    wheels = deployment.settings.wheels
    if wheels is None:
        raise InvalidInputError(
            "the policy asks for the model's own environment, and there are no wheels to build it from",
            where="sandbox.environment",
            fix="set AIRLOCK_WHEELS to a folder of wheels, or sandbox.environment: same",
        )
    return Environments(wheels, deployment.settings.home / "environments").provide(pins)


def _reason_job(deployment: Deployment, case: Case) -> dict[str, Any] | None:
    """What the sandbox needs to test the reasons given to declined people; ``None`` when nobody asks."""
    cases = int(case.policy.gates.get("explainability", {}).get("tested_reasons", 0))
    if not cases:
        return None
    model, data = case.workload.model, case.workload.data
    card = deployment.evidence.get(case.manifest.documentation_digest).decode("utf-8", "replace")
    return {
        "map": reason_texts(model.features, model.reasons, card),
        "hidden": sorted({*data.sensitive, *data.identifiers}),
        "cases": cases,
        "draws": REASON_DRAWS,
    }


def refused_attempts(attempts: list[str]) -> Finding:
    """A model that asked for what no model needs: whatever it scores, it is not trusted."""
    return Finding(
        id="sandbox-attempt",
        verdict=Verdict.FAILED,
        message=f"A model was refused what no model needs: it tried to {', '.join(attempts)}"[:2000],
        fix="find out which code in the artifact or its libraries does this; the version is quarantined "
        "until security has looked at it",
    )


def isolation_text(isolation: list[str]) -> str:
    """What the sandbox kept out, without the means it used; says so when the network was not."""
    plain = [item.partition(" (")[0] for item in isolation]
    return ", ".join(plain if "no network" in plain else [*plain, "the network was NOT isolated"])


def _check_features(case: Case, used: list[str]) -> None:
    """A model may use what its workload names: anything else was never reviewed, and may be the answer."""
    if others := sorted(set(used) - set(case.workload.model.features)):
        raise InvalidInputError(
            f"the candidate uses columns its workload does not name: {', '.join(others)}",
            where=f"model.features of workload {case.workload.name}",
            fix="train without them, or have them reviewed and added to model.features",
        )


def _merged_scores(case: Case, paths: dict[str, Path], rows: int) -> pd.DataFrame:
    """Both models' scores side by side.

    What comes out of the sandbox is untrusted: its shape is checked before anything reads it.
    """
    import pandas as pd

    frames = []
    for role, path in paths.items():
        frame = pd.read_parquet(path)
        names = {f"{role}_score", f"{role}_prediction"}
        if case.workload.model.task == "multiclass":
            names |= {name for name in frame.columns if str(name).startswith(f"{role}_score:")}
        if len(frame) != rows or set(frame.columns) != names:
            raise SandboxError(
                f"the sandbox wrote {len(frame)} rows with columns {sorted(map(str, frame.columns))}, "
                f"expected {rows} rows with {sorted(names)}"
            )
        check_scores(case.workload.model.task, role, frame)
        frames.append(frame)
    return pd.concat(frames, axis=1)


def quarantine_if_unsafe(deployment: Deployment, evidence: Evidence) -> bool:
    """Quarantine a version that is not safe to load, and open a security review (R-5, G-8). Safe to repeat.

    Not safe is what the security gate refuses, and what asked the sandbox for something no model needs.
    """
    refused = evidence.gate == "security" and evidence.verdict is Verdict.FAILED
    if not refused and not (evidence.gate == SCORE and evidence.result.details.get("attempts")):
        return False
    case = open_case(deployment, evidence.release_id)
    model, version = case.workload.model.registered_model, case.release.version
    deployment.registry.quarantine(model, version, evidence.result.summary)
    about = {"release_id": evidence.release_id, "workload": case.workload.name, "version": version}
    reason = {"model": model, "reason": evidence.result.summary[:1000], "evidence": evidence.digest}
    # One release can be refused twice, by the gate and by the sandbox: it is quarantined once, by the first.
    quarantined = f"release/{evidence.release_id}/quarantined"
    if deployment.find(quarantined) is None:
        deployment.record(Kind.VERSION_QUARANTINED, quarantined, **about, data=reason)
    findings = sorted({finding.id for finding in evidence.result.findings if not finding.verdict.allows})
    deployment.record(
        Kind.SECURITY_REVIEW_OPENED,
        f"release/{evidence.release_id}/security-review/{evidence.gate}",
        **about,
        data={**reason, "gate": evidence.gate, "findings": findings, "role": SECURITY_ROLE},
    )
    return True
