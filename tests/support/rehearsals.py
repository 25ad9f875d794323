"""A deployment whose models are descriptions, so that whole releases run in a second without Airflow.

``ScriptedSandbox`` reads such a description instead of loading a model: estimator, features, threshold,
and how much the scores know. Gates, policy, audit log and evidence are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from airlock.adapters.evidence import hash_file
from airlock.core.decision import Decision
from airlock.core.errors import RefusedError, SandboxError
from airlock.core.evidence import SCORE
from airlock.gates import load_gate
from airlock.gates.base import Stage
from airlock.ports import SandboxRequest, SandboxResult
from airlock.services.decide import decide
from airlock.services.evaluate import evaluate
from airlock.services.releases import open_case
from airlock.services.score import score
from tests.support.deployments import WORKLOAD, World, make_world, shipped_policy, workload_data, write_yaml
from tests.support.gates import make_frame

CARD = """# Loan model

## Intended use

{words}

## Training data

{words}

## Limits

{words}

## Feature dictionary

| feature | meaning |
|---|---|
| income | income of the applicant, in thousands |
| debt | debt of the applicant, in thousands |
| bureau_score | score of the credit bureau |
| diary | entries in the applicant's diary |

## Narrative

{words}
"""
WORDS = "This is a model for tests of releases, described in a few plain words that are enough for its gate."

GATES = ("documentation", "privacy", "performance")
"""Two gates before scoring, one after."""

CHAMPION: dict[str, Any] = {
    "estimator": "sklearn.linear_model.LogisticRegression",
    "steps": ["LogisticRegression"],
    "hyperparameters": {"C": "1.0"},
    "features": ["income", "debt"],
    "threshold": 0.5,
    "skill": 1.0,
}


class ScriptedSandbox:
    """Scores by description: ``skill`` 1 is the true model, 0 knows nothing; ``broken`` raises no score."""

    def run(self, request: SandboxRequest, output: Path) -> SandboxResult:
        job = request.job
        if job["kind"] == "train":
            return _train(request, output)
        frame = pd.read_parquet(request.inputs["evaluation"])
        models: dict[str, Any] = {"champion": None}
        columns: dict[str, Any] = {}
        for role in ("candidate", "champion"):
            if job.get(role):
                path = Path(request.inputs[role]) / job[role]["model_path"]
                described = json.loads(path.read_text())
                models[role] = {**described, "threshold": job[role]["threshold"], "format": "skops"}
                values = _score(frame, described["skill"])
                columns[f"{role}_score"] = values if not described.get("broken") else values + 2
                columns[f"{role}_prediction"] = (values >= job[role]["threshold"]).astype("int64")
        pd.DataFrame(columns).to_parquet(output / "scores.parquet")
        times = {"batch_seconds": 0.1, "p50_ms": 1.0, "p95_ms": 1.0, "p99_ms": 1.0}
        ran = [role for role in ("candidate", "champion") if job.get(role)]
        report = {"models": models, "shap": {}, "timings": dict.fromkeys(ran, times), "versions": {}}
        (output / "report.json").write_text(json.dumps(report))
        return RAN


def _train(request: SandboxRequest, output: Path) -> SandboxResult:
    """Trains by description: the script is the description of the model that comes out, as JSON."""
    described = json.loads((Path(request.inputs["code"]) / "train.py").read_text())
    if "fails" in described:
        raise SandboxError(f"the job failed: {described['fails']}", fix="run it by hand", output="epoch 1")
    files = {
        "MLmodel": yaml.safe_dump({"flavors": {"sklearn": {"pickled_model": "model.skops"}}}).encode(),
        "model.skops": json.dumps({**CHAMPION, **described}).encode(),
        "requirements.txt": b"scikit-learn==1.9.1\n",
    }
    index = [{"file": f"model-{n}", "path": path} for n, path in enumerate(files)]
    for entry in index:
        (output / entry["file"]).write_bytes(files[entry["path"]])
    (output / "index.json").write_text(json.dumps(index))
    (output / "metrics.json").write_text(json.dumps({"rows": 600}))
    return RAN.model_copy(update={"attempts": described.get("attempts", [])})


RAN = SandboxResult(isolation=["no network"], level="process", attempts=[], seconds=0.1, stdout="", stderr="")


def _score(frame: pd.DataFrame, skill: float) -> np.ndarray[Any, Any]:
    margin = 0.15 * (frame["income"] - 50) - 0.2 * (frame["debt"] - 20) + 1.0
    noise = np.random.default_rng(3).normal(0, 2, len(frame))
    return np.asarray(1 / (1 + np.exp(-(skill * margin + (1 - skill) * noise))))


def make_stage(
    root: Path,
    *,
    candidate: Mapping[str, Any] | None = None,
    workload: Mapping[str, Any] | None = None,
    risk: Mapping[str, Any] | None = None,
    champion: bool = True,
    card: str = WORDS,
    declared: bool = True,
    policy: Mapping[str, Any] | None = None,
    signature: str = "double",
) -> World:
    """A world under the shipped rules with three gates, its champion, and version 2 that asks."""
    world = make_world(root, champion="1" if champion else None)
    data = world.root / "home" / "data" / "loan"
    rows = make_frame(rows=600, seed=1).assign(bureau_score=1.0, diary=2.0)
    rows.to_parquet(data / "batches" / "clean.parquet")
    make_frame(rows=600, seed=2).assign(bureau_score=1.0, diary=2.0).to_parquet(data / "training.parquet")
    plain = workload_data()
    features = {**CHAMPION, **(candidate or {})}["features"]
    plain["model"] = {**plain["model"], "features": sorted({*CHAMPION["features"], *features})}
    plain["risk"] = {**plain["risk"], **(risk or {})}
    write_yaml(world.workload_file, {**plain, **(workload or {})})
    (world.config / "workloads" / f"{WORKLOAD}.md").write_text(CARD.format(words=card))
    write_yaml(world.policy_file, {**shipped_rules(), **(policy or {})})
    digest = hash_file(data / "training.parquet") if declared else "0" * 64
    for version, described in (("1", CHAMPION), ("2", {**CHAMPION, **(candidate or {})})):
        world.registry.register(version, model(described, digest, "double" if version == "1" else signature))
    world.deployment = replace(world.deployment, sandbox=ScriptedSandbox())
    return world


def shipped_rules() -> dict[str, Any]:
    """The shipped policy with the gates of these tests."""
    data = shipped_policy().to_data()
    data["gates"] = {gate: data["gates"][gate] for gate in GATES}
    for role in data["roles"].values():
        role["gates"] = [gate for gate in role["gates"] if gate in GATES]
    data.pop("rego", None)
    if data.get("waivers"):
        # Scopes of gates that are not here would have no owner.
        kept = [
            scope
            for scope in data["waivers"]["waivable"]
            if not scope.startswith("gate-") or scope.split(":")[0].removeprefix("gate-") in GATES
        ]
        data["waivers"] = {**data["waivers"], "waivable": kept}
    return data


def model(described: Mapping[str, Any], training: str, kind: str = "double") -> dict[str, bytes]:
    """The files of a version."""
    columns = [{"name": name, "type": kind} for name in described["features"]]
    mlmodel = {
        "flavors": {"sklearn": {"pickled_model": "model.skops"}},
        "metadata": {"airlock": {"decision_threshold": described["threshold"], "training_sha256": training}},
        "signature": {"inputs": json.dumps(columns)},
    }
    return {
        "MLmodel": yaml.safe_dump(mlmodel).encode(),
        "model.skops": json.dumps(dict(described)).encode(),
        "requirements.txt": b"scikit-learn==1.9.1\n",
    }


def release(world: World, version: str = "2", **submitted: Any) -> Decision:
    """Run the tasks of the release DAG one after the other, as Airflow would, and return the decision."""
    release_id = world.frozen(version, **submitted)
    case = open_case(world.deployment, release_id)
    for gate in case.policy.gates:
        if load_gate(gate).STAGE is Stage.BEFORE_SCORING:
            evaluate(world.deployment, release_id, gate)
    try:
        scored = score(world.deployment, release_id)
    except RefusedError:
        return decide(world.deployment, release_id)
    if scored.verdict.allows:
        for gate in case.policy.gates:
            if load_gate(gate).STAGE is Stage.AFTER_SCORING:
                evaluate(world.deployment, release_id, gate)
    assert scored.gate == SCORE
    return decide(world.deployment, release_id)
