"""Builds a gate context from frames, so that a gate can be tested with no Airflow and no files."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airlock.core.canonical import sha256_hex
from airlock.core.columns import Columns
from airlock.core.declarations import Declarations
from airlock.core.lineage import Link
from airlock.core.manifest import ArtifactRef, DataRef, FileRef, Manifest
from airlock.core.workload import DataSpec, ModelSpec, RiskSpec, Workload
from airlock.gates.base import GateContext, Retrained, Scores

ZERO = "0" * 64
NOW_US = 1_780_000_000_000_000
"""28 May 2026, 20:26:40 UTC."""


def make_workload(**changes: Any) -> Workload:
    """A small valid workload: features ``income`` and ``debt``, protected ``group``."""
    values: dict[str, Any] = {
        "name": "test-model",
        "title": "Test model",
        "description": "A workload for tests.",
        "owner": "team",
        "policy": "1.0.0",
        "model": ModelSpec(registered_model="test-model", target="y", features=["income", "debt"]),
        "data": DataSpec(
            training="train.parquet",
            evaluation="batches",
            default_batch="clean",
            expectations="test-model",
            sensitive={"group": {"0": "group A", "1": "group B"}},
        ),
        "risk": RiskSpec(
            automated_decision=True,
            protected_class_data=True,
            regulated=True,
            human_review=False,
            exposure="customer",
            loss_per_error_usd=1000,
            rollback="easy",
        ),
        "documentation": "test-model.md",
    }
    return Workload(**{**values, **changes})


def make_manifest(workload: Workload, *, champion: bool = True, **changes: Any) -> Manifest:
    """A manifest for ``workload`` with made-up digests."""
    files = [FileRef(path="model.skops", sha256=ZERO, size=1)]
    artifact = ArtifactRef(version="2", sha256=ArtifactRef.digest_files(files), files=files)
    data = DataRef(path="x.parquet", sha256=ZERO, size=1)
    values: dict[str, Any] = {
        "release_id": "test-model-v2-00000000",
        "workload": workload.name,
        "workload_digest": workload.digest,
        "submitter": "dana",
        "candidate": artifact,
        "champion": artifact.model_copy(update={"version": "1"}) if champion else None,
        "training": data,
        "evaluation": data,
        "suite_digest": ZERO,
        "documentation_digest": ZERO,
        "policy_version": workload.policy,
        "policy_digest": ZERO,
        "code": {},
        "environment": {},
    }
    return Manifest(**{**values, **changes})


def make_frame(rows: int = 400, seed: int = 7) -> pd.DataFrame:
    """Random but reproducible data: two features, a protected group, an outcome."""
    rng = np.random.default_rng(seed)
    income, debt = rng.normal(50, 10, rows), rng.normal(20, 5, rows)
    logit = 0.15 * (income - 50) - 0.2 * (debt - 20) + 1.0
    outcome = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype("int64")
    return pd.DataFrame({"income": income, "debt": debt, "group": rng.integers(0, 2, rows), "y": outcome})


def make_scores(frame: pd.DataFrame, *, champion: bool = True, threshold: float = 0.5) -> Scores:
    """Scores and exact SHAP values of the linear model that made ``make_frame``."""
    parts = pd.DataFrame({"income": 0.15 * (frame["income"] - 50), "debt": -0.2 * (frame["debt"] - 20)})
    margin = parts.sum(axis=1) + 1.0
    score = 1 / (1 + np.exp(-margin))
    columns = {"candidate_score": score, "candidate_prediction": (score >= threshold).astype("int64")}
    if champion:
        columns |= {"champion_score": score, "champion_prediction": (score >= 0.5).astype("int64")}
    shap = parts.assign(_base=1.0, _margin=margin)
    shap.index.name = "row"
    model = {
        "format": "skops",
        "estimator": "sklearn.linear_model.LogisticRegression",
        "steps": ["LogisticRegression"],
        "hyperparameters": {"C": "1.0"},
        "features": ["income", "debt"],
        "threshold": threshold,
    }
    details = {
        "models": {"candidate": model, "champion": {**model, "threshold": 0.5} if champion else None},
        "rows": len(frame),
        "shap": {"explainer": "linear", "space": "log-odds", "rows": len(frame)},
    }
    return Scores(pd.DataFrame(columns), shap, shap.copy() if champion else None, details)


def make_retrained(frame: pd.DataFrame, **details: Any) -> Retrained:
    """The candidate of ``make_scores`` trained again: it says the same."""
    scores = make_scores(frame, champion=False).frame
    return Retrained(scores, {"seed": 0, "attempts": [], **details})


def on_disk(frame: pd.DataFrame) -> Callable[[], Path]:
    """Writes the frame to a Parquet file when it is asked for; the file goes with the function."""

    @cache
    def path() -> Path:
        folder = Path(mkdtemp(prefix="airlock-test-"))
        weakref.finalize(path, shutil.rmtree, folder, ignore_errors=True)
        file = folder / "data.parquet"
        try:
            frame.to_parquet(file, index=False)
        except (pa.ArrowException, TypeError):  # columns of mixed types are text in a file
            mixed = frame.select_dtypes("object").columns
            frame.astype(dict.fromkeys(mixed, "string")).to_parquet(file, index=False)
        return file

    return path


def make_context(
    *,
    evaluation: pd.DataFrame | None = None,
    training: pd.DataFrame | None = None,
    scores: Scores | None = None,
    workload: Workload | None = None,
    manifest: Manifest | None = None,
    suite: dict[str, Any] | None = None,
    documentation: str = "",
    business_context: str = "A test.",
    artifact: Path = Path("missing"),
    scan: dict[str, Any] | None = None,
    links: list[Link] | None = None,
    retrained: Retrained | None = None,
) -> GateContext:
    """A context whose every part can be replaced."""
    workload = workload or make_workload()
    manifest = manifest or make_manifest(workload)
    frame = make_frame() if evaluation is None else evaluation
    reference = make_frame(seed=8) if training is None else training
    return GateContext(
        workload=workload,
        manifest=manifest,
        columns=Columns.of(workload),
        declared=Declarations.of(workload),
        title=workload.title,
        protected_class_data=workload.risk.protected_class_data,
        privacy=workload.privacy,
        has_champion=manifest.champion is not None,
        now_us=lambda: NOW_US,
        lineage=lambda: links or [],
        retrained=lambda: retrained,
        candidate=lambda: manifest.candidate,
        current_path=on_disk(frame),
        reference_path=on_disk(reference),
        evaluation=lambda: frame,
        training=lambda: reference,
        scores=lambda: scores or make_scores(frame, champion=manifest.champion is not None),
        artifact=lambda: artifact,
        suite=lambda: suite or {},
        documentation=lambda: documentation,
        business_context=business_context,
        scan=lambda: scan or {},
        store=sha256_hex,
    )
