"""Run one gate on a frozen release and keep its evidence."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.adapters.advisories import read_advisories
from airlock.adapters.evidence import hash_file
from airlock.core.advisory import AdvisoryBook
from airlock.core.audit import Kind
from airlock.core.canonical import parse_json, storable
from airlock.core.columns import Columns, Label, label_text, task_of
from airlock.core.declarations import Declarations
from airlock.core.errors import (
    AirlockError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    SandboxError,
    UnavailableError,
)
from airlock.core.evidence import SCORE, Evidence, Finding, GateResult, Verdict
from airlock.core.manifest import ArtifactRef, DataRef
from airlock.core.workload import ModelSpec
from airlock.gates import gate_text, load_gate
from airlock.gates.base import GateContext, Scores, no_advisories
from airlock.ports import Clock
from airlock.reporting.gate_report import GateView, report_files
from airlock.services.deployment import Deployment
from airlock.services.folders import write_folder
from airlock.services.gate_files import coded
from airlock.services.lineage import read_links
from airlock.services.releases import Case, open_case, read_evidence
from airlock.services.retrained import read_retrained
from airlock.services.scoring import limited_request

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_LENGTH = 1000
"""Characters of a summary in an audit event; the whole stands in the evidence."""


def evaluate(deployment: Deployment, release_id: str, gate: str) -> Evidence:
    """Run ``gate`` and return its evidence. A gate that has answered is not asked again.

    Whatever a gate raises becomes ``ERROR`` evidence, except ``UnavailableError``: that may heal, so
    the task fails without a verdict and is retried.

    Raises:
        NotFoundError: unknown release or no manifest.
        RefusedError: the gate is not part of the release's policy.
        UnavailableError: evidence store, audit store or registry does not answer.
    """
    case = open_case(deployment, release_id)
    if (earlier := recorded_evidence(deployment, case, gate)) is not None:
        return earlier
    if gate not in case.policy.gates:
        raise RefusedError(
            f"gate {gate!r} is not part of policy {case.policy.version}",
            where=release_id,
            fix=f"its gates are {', '.join(case.policy.gates)}",
        )
    module = load_gate(gate)
    config = module.Config.model_validate(case.policy.gates[gate])
    started = time.monotonic()
    with _context(deployment, case) as context:
        try:
            result = module.evaluate(context, config)
            result.to_bytes()  # what cannot be kept was not measured
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # a gate that breaks must not pass, and must say why
            result = error_result(gate, error)
        view = gate_view(gate, result, config.to_data(), f"release {release_id}")
        for name, data in report_files(view).items():
            context.attach(name, data)
        result = result.model_copy(update={"files": {**result.files, **context.files}})
    seconds = time.monotonic() - started
    return keep_evidence(deployment, case, gate, config=config.to_data(), result=result, seconds=seconds)


def gate_view(gate: str, result: GateResult, limits: dict[str, Any], subject: str) -> GateView:
    """What a report about this answer shows."""
    text = gate_text(gate)
    return GateView(
        gate=gate,
        title=text.title,
        why=text.why,
        good=text.good,
        fix=text.fix,
        result=result,
        limits=limits,
        subject=subject,
    )


def error_result(gate: str, error: Exception) -> GateResult:
    """An exception as a verdict nobody can mistake for a pass."""
    what, fix = (
        storable(f"{type(error).__name__}: {error}"),
        "see the task log; this gate could not judge the input",
    )
    if isinstance(error, AirlockError):
        what, fix = storable(error.what), storable(error.fix)
    # Errors can carry a traceback after their first line: evidence keeps it, people are told the line.
    fix, _, trace = fix.partition("\n")
    summary = f"{gate} could not be judged: {what.splitlines()[0]}"
    finding = Finding(id=f"{gate}-error", verdict=Verdict.ERROR, message=f"{gate}: {what}"[:8000], fix=fix)
    details: dict[str, Any] = {"trace": trace[:8000]} if trace else {}
    if isinstance(error, SandboxError) and error.attempts:
        details["attempts"] = [storable(attempt) for attempt in error.attempts]
    return GateResult(verdict=Verdict.ERROR, summary=summary, findings=[finding], details=details)


def recorded_evidence(deployment: Deployment, case: Case, gate: str) -> Evidence | None:
    """The evidence a gate has already given for this case."""
    return read_evidence(deployment, case).get(gate)


def keep_evidence(
    deployment: Deployment,
    case: Case,
    gate: str,
    *,
    config: dict[str, Any],
    result: GateResult,
    seconds: float,
) -> Evidence:
    """Store evidence, then record it; the order makes a crash harmless."""
    evidence = Evidence(
        release_id=case.release.release_id,
        manifest_digest=case.manifest.digest,
        gate=gate,
        config=config,
        result=result,
    )
    digest = deployment.evidence.put(evidence.to_bytes())
    key = f"release/{case.release.release_id}/gate/{gate}"
    # A try that lost its worker may still be alive beside its successor. They agree when their evidence
    # does; how long each took is no part of that.
    if _stands(deployment, key, digest):
        return evidence
    try:
        deployment.record(
            Kind.GATE_EVALUATED,
            key,
            release_id=case.release.release_id,
            workload=case.workload.name,
            version=case.release.version,
            data={
                "gate": gate,
                "verdict": str(evidence.verdict),
                "summary": result.summary[:SUMMARY_LENGTH],
                "evidence": digest,
                "seconds": round(seconds, 3),
            },
        )
    except ConflictError:
        if not _stands(deployment, key, digest):
            raise
    return evidence


def _stands(deployment: Deployment, key: str, digest: str) -> bool:
    first = deployment.find(key)
    return first is not None and first.data["evidence"] == digest


def verified_path(reference: DataRef) -> Path:
    """Where a data file is, after verifying that it is the one the manifest names.

    Raises:
        NotFoundError: the file is gone.
        IntegrityError: its content changed since the manifest was frozen.
    """
    path = Path(reference.path)
    if not path.is_file():
        raise NotFoundError(
            "data file not found", where=str(path), fix="put it back; its digest is in the manifest"
        )
    if hash_file(path) != reference.sha256:
        raise IntegrityError(
            "the data changed after the manifest was frozen",
            where=str(path),
            fix="submit a new release for the new data",
        )
    return path


def read_frame(reference: DataRef) -> pd.DataFrame:
    """Read a data file after verifying that it is the one the manifest names.

    Raises:
        NotFoundError: the file is gone.
        IntegrityError: its content changed since the manifest was frozen.
    """
    import pandas as pd

    return pd.read_parquet(verified_path(reference))


def materialise(deployment: Deployment, artifact: ArtifactRef, target: Path) -> Path:
    """Write the frozen files of an artifact into ``target``, each verified."""
    return write_folder(deployment.evidence, artifact.files, target)


def advisories_of(path: Path | None, clock: Clock) -> Callable[[Sequence[str]], AdvisoryBook]:
    """What asks the advisory database at ``path``; without one it says how to get it."""
    if path is None:
        return no_advisories
    return lambda names: read_advisories(path, names, clock.now_us())


@contextmanager
def _context(deployment: Deployment, case: Case) -> Iterator[GateContext]:
    manifest, evidence = case.manifest, deployment.evidence
    with tempfile.TemporaryDirectory(prefix="airlock-gate-") as folder:

        @cache
        def artifact() -> Path:
            return materialise(deployment, manifest.candidate, Path(folder) / "artifact")

        @cache
        def scan() -> dict[str, Any]:
            output = Path(folder) / "scan"
            output.mkdir()
            job = {"kind": "scan", "artifact": "artifact"}
            request = limited_request(case.policy.sandbox, job, {"artifact": artifact()})
            ran = deployment.sandbox.run(request, output)
            report: dict[str, Any] = parse_json((output / "scan.json").read_bytes())
            # The words of the sandbox itself come last: a scanner that was taken over cannot write them.
            return {**report, "isolation": ran.level, "attempts": ran.attempts}

        yield GateContext(
            workload=case.workload,
            manifest=manifest,
            columns=Columns.of(case.workload),
            declared=Declarations.of(case.workload),
            title=case.workload.title,
            protected_class_data=case.workload.risk.protected_class_data,
            privacy=case.workload.privacy,
            has_champion=manifest.champion is not None,
            now_us=lambda: case.release.submitted_us,
            lineage=cache(lambda: read_links(evidence, manifest)),
            candidate=lambda: manifest.candidate,
            current_path=cache(lambda: verified_path(manifest.evaluation)),
            reference_path=cache(lambda: verified_path(manifest.training)),
            evaluation=cache(lambda: labelled(case.workload.model, read_frame(manifest.evaluation))),
            training=cache(lambda: labelled(case.workload.model, read_frame(manifest.training))),
            task=task_of(case.workload),
            positive=_positive(case),
            scores=cache(lambda: _read_scores(deployment, case)),
            retrained=cache(lambda: read_retrained(deployment, case)),
            artifact=artifact,
            suite=lambda: parse_json(evidence.get(manifest.suite_digest)),
            documentation=lambda: evidence.get(manifest.documentation_digest).decode(),
            business_context=case.release.context,
            scan=scan,
            advisories=advisories_of(deployment.settings.advisories, deployment.clock),
            store=evidence.put,
        )


def _positive(case: Case) -> Label | None:
    model = case.workload.model
    return 1 if model.positive is None and model.task == "classification" else model.positive


def labelled(model: ModelSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """Data as gates read it: of two outcomes, 1 is the favourable one whatever the data calls it."""
    if model.task != "classification" or model.positive is None or model.target not in frame:
        return frame
    return frame.assign(**{model.target: coded(frame[model.target], label_text(model.positive))})


def _read_scores(deployment: Deployment, case: Case) -> Scores:
    import pandas as pd

    record = recorded_evidence(deployment, case, SCORE)
    if record is None or not record.verdict.allows:
        raise NotFoundError(
            "the models were not scored", where=case.release.release_id, fix="see why in the task `score`"
        )
    files = record.result.files

    def frame(name: str) -> pd.DataFrame | None:
        return pd.read_parquet(BytesIO(deployment.evidence.get(files[name]))) if name in files else None

    scores = frame("scores.parquet")
    if scores is None:
        raise IntegrityError("the score evidence holds no scores", where=case.release.release_id)
    return Scores(
        scores,
        frame("shap.parquet"),
        frame("champion_shap.parquet"),
        record.result.details,
        frame("reasons.parquet"),
    )
