"""Which data trained a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airlock.core.audit import Kind
from airlock.core.canonical import parse_json
from airlock.core.evidence import Evidence
from airlock.core.manifest import DataRef, Manifest
from airlock.services.deployment import Deployment
from airlock.services.questions.reading import (
    Adoption,
    Case,
    EvidenceReader,
    find_adoption,
    find_cases,
    text,
    unknown_version,
)


@dataclass(frozen=True)
class Data:
    """A data file by its content: SHA-256, size in bytes, rows where a gate counted them."""

    path: str
    sha256: str
    size: int
    rows: int | None


@dataclass(frozen=True)
class Inputs:
    """What one release of a version was frozen with.

    Attributes:
        declared: SHA-256 of the training data that the training code wrote into the model's files, which
            the manifest covers; empty when it wrote none.
        suite: name and version of the expectations.
        missing: what could not be read and why; the facts of it are empty.
    """

    release_id: str
    submitter: str
    submitted_us: int
    state: str
    manifest: str = ""
    artifact: str = ""
    training: Data | None = None
    evaluation: Data | None = None
    declared: str = ""
    suite: str = ""
    suite_digest: str = ""
    policy_version: str = ""
    policy_digest: str = ""
    mlflow_run: str = ""
    environment: Mapping[str, str] | None = None
    missing: tuple[str, ...] = ()
    event: int | None = None

    @property
    def training_is_declared(self) -> bool:
        """Whether the model itself names the training data that the workload file pointed to."""
        return self.training is not None and self.declared == self.training.sha256


@dataclass(frozen=True)
class VersionData:
    """What trained a version; ``cut`` when it has older releases than the answer goes into."""

    workload: str
    version: str
    releases: tuple[Inputs, ...]
    adopted: Adoption | None
    cut: bool


def data_of(deployment: Deployment, workload: str, version: str) -> VersionData:
    """Which data trained and judged a version, for each of its releases, the newest first.

    Raises:
        NotFoundError: nothing is recorded about such a version.
        UnavailableError: the store does not answer.
    """
    cases, cut = find_cases(deployment, workload, version)
    adopted = find_adoption(deployment, workload, version)
    if not cases and adopted is None:
        raise unknown_version(deployment, workload, version)
    releases = tuple(_inputs(deployment, case) for case in cases)
    return VersionData(workload, version, releases, adopted, cut)


def _inputs(deployment: Deployment, case: Case) -> Inputs:
    reader = EvidenceReader(deployment)
    submitted, frozen = case.submitted, case.last(Kind.RELEASE_FROZEN)
    base = Inputs(
        release_id=submitted.event.release_id,
        submitter=submitted.event.actor,
        submitted_us=submitted.event.occurred_us,
        state=case.state,
        event=submitted.ingest_id,
    )
    if frozen is None:
        return replace(base, missing=("no manifest was frozen, so nothing is known about its data",))
    base = replace(
        base,
        manifest=text(frozen.event, "manifest"),
        artifact=text(frozen.event, "artifact"),
        policy_version=text(frozen.event, "policy"),
        event=frozen.ingest_id,
    )
    manifest = reader.read("the manifest", base.manifest, Manifest.from_bytes)
    if manifest is None:
        return replace(base, missing=tuple(reader.missing))
    rows = _rows(case, reader)
    return replace(
        base,
        training=_data(manifest.training, rows.get("training")),
        evaluation=_data(manifest.evaluation, rows.get("evaluation")),
        declared=str(manifest.candidate.metadata.get("training_sha256") or ""),
        suite=reader.read("the suite", manifest.suite_digest, _suite_name) or "",
        suite_digest=manifest.suite_digest,
        policy_digest=manifest.policy_digest,
        mlflow_run=manifest.code.get("mlflow_run", ""),
        environment=manifest.environment,
        missing=tuple(reader.missing),
    )


def _data(reference: DataRef, rows: int | None) -> Data:
    return Data(reference.path, reference.sha256, reference.size, rows)


def _suite_name(content: bytes) -> str:
    suite = parse_json(content)
    return f"{suite['name']} {suite['version']}"


def _rows(case: Case, reader: EvidenceReader) -> dict[str, int]:
    """Rows of the data sets, as far as a gate counted them."""
    rows: dict[str, int] = {}
    for line in case.gates:
        if line.gate not in ("data_quality", "drift"):
            continue
        record = reader.read(f"the evidence of {line.gate}", line.evidence, Evidence.from_bytes)
        if record is None:
            continue
        found: Any = {"evaluation": record.result.details.get("rows")}
        if (file := record.result.files.get("drift.json")) is not None:
            found = reader.read("drift.json", file, _drift_rows) or {}
        rows |= {name: count for name, count in found.items() if isinstance(count, int)}
    return rows


def _drift_rows(content: bytes) -> dict[str, Any]:
    return dict(parse_json(content)["rows"])
