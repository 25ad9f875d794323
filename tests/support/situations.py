"""From a row of ``tests/situations.yaml`` to the decision the shipped policy makes about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from airlock.adapters.cel_engine import CelEngine
from airlock.core.decision import Decision, decide, required_gates
from airlock.core.diff import diff_models
from airlock.core.evidence import SCORE, Evidence, Finding, GateResult, Verdict
from airlock.core.manifest import ArtifactRef, DataRef, Manifest
from airlock.core.workload import Workload
from tests.support.deployments import shipped_policy
from tests.support.engines import TODAY
from tests.support.gates import ZERO, make_manifest, make_workload

FILE: Final = Path(__file__).parents[1] / "situations.yaml"

USE: Final[dict[str, Any]] = {
    "automated_decision": False,
    "protected_class_data": False,
    "regulated": False,
    "human_review": True,
    "exposure": "internal",
    "loss_per_error_usd": 100,
    "rollback": "easy",
}
"""A use that can do no harm: an internal forecast that a person looks at."""

MODEL: Final[dict[str, Any]] = {
    "estimator": "sklearn.linear_model.LogisticRegression",
    "steps": ["StandardScaler", "LogisticRegression"],
    "hyperparameters": {"C": "1.0"},
    "features": ["netw", "liq"],
    "threshold": 0.5,
}


def situations() -> list[dict[str, Any]]:
    """The rows of the table."""
    rows: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["situations"]
    return rows


def decision_of(row: dict[str, Any]) -> Decision:
    """What the shipped policy decides about a row."""
    workload = _workload(row)
    manifest = _manifest(workload, row.get("release", {}))
    policy = shipped_policy()
    evidence = {
        gate: record
        for gate in required_gates(policy)
        if (record := _evidence(gate, manifest, row.get("release", {}), row.get("gates", {}))) is not None
    }
    return decide(
        manifest=manifest,
        workload=workload,
        policy=policy,
        evidence=evidence,
        engine=CelEngine(),
        as_of=TODAY,
    )


def _workload(row: dict[str, Any]) -> Workload:
    use = dict(row.get("use", {}))
    extra = {name: use.pop(name) for name in ("regimes",) if name in use}
    sensitive = use.pop("sensitive", [])
    plain = make_workload()
    return plain.model_copy(
        update={
            "risk": plain.risk.model_validate({**USE, **use}),
            "data": plain.data.model_copy(
                update={"sensitive": {name: {"0": "no", "1": "yes"} for name in sensitive}}
            ),
            **extra,
        }
    )


def _manifest(workload: Workload, release: dict[str, Any]) -> Manifest:
    declared = {"training_sha256": ZERO if release.get("declared_data", True) else "1" * 64}
    candidate = ArtifactRef(
        version="2",
        sha256=ZERO,
        files=[],
        metadata=declared,
        inputs=release.get("inputs", {"netw": "double"}),
    )
    champion = candidate.model_copy(update={"version": "1", "inputs": {"netw": "double"}})
    source = release.get("champion_source")
    return make_manifest(
        workload,
        champion=not release.get("first", False),
        candidate=candidate,
        champion_training=None if source is None else DataRef(path=source, sha256=ZERO, size=1),
        asked=release.get("unanswered", []),
        risk_history=release.get("risk_history", []),
    ).model_copy(update={} if release.get("first") else {"champion": champion})


def _evidence(
    gate: str, manifest: Manifest, release: dict[str, Any], gates: dict[str, Any]
) -> Evidence | None:
    said = gates.get(gate, "PASSED")
    if said == "no answer":
        return None
    verdict, findings = _said(said)
    details: dict[str, Any] = {}
    if gate == SCORE:
        candidate = {**MODEL, **release.get("candidate", {})}
        models = {"candidate": candidate, "champion": None if release.get("first") else MODEL}
        details = {"models": models, "change": diff_models(models)}
    if gate == "performance" and not release.get("first"):
        details = {
            "change": {
                "metric": "roc_auc",
                "relative": release.get("relative_change", 0.01),
                "direction": release.get("direction", "better"),
            }
        }
    if gate == "privacy" and "protected" in gates:
        details = {"protected": gates["protected"]}
    result = GateResult(verdict=verdict, summary=f"{gate} says {verdict}", findings=findings, details=details)
    return Evidence(
        release_id=manifest.release_id, manifest_digest=manifest.digest, gate=gate, config={}, result=result
    )


def _said(said: Any) -> tuple[Verdict, list[Finding]]:
    """A verdict, or a verdict with a number of findings such as ``WARNED x 9``."""
    name, _, count = str(said).partition(" x ")
    verdict = Verdict(name)
    number = int(count) if count else int(verdict is not Verdict.PASSED)
    return verdict, [Finding(id=f"f{i}", verdict=verdict, message=f"finding {i}") for i in range(number)]


def answer_of(decision: Decision) -> dict[str, Any]:
    """A decision as the table writes it: what fired, without the rules of lighter tiers and tracks."""
    return {
        "tier": str(decision.tier),
        "track": None if decision.track is None else str(decision.track),
        "outcome": str(decision.outcome),
        "seats": [seat.role for seat in decision.seats],
        "reasons": [reason.rule for reason in decision.reasons if reason.fired],
    }
