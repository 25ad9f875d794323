"""Collect the lineage of a candidate while its manifest is frozen, and read it back for the gate."""

from __future__ import annotations

from pathlib import Path

from airlock.adapters.lineage import follow
from airlock.core.canonical import canonical_json, digest_of, parse_json
from airlock.core.declarations import LineageSpec
from airlock.core.lineage import Link
from airlock.core.manifest import ArtifactRef, Manifest
from airlock.gates.lineage import TRAINING
from airlock.ports import EvidenceStore, RunFacts

_ENVIRONMENT = ("requirements.txt", "conda.yaml", "python_env.yaml")
"""Files in which MLflow writes down what a model needs."""

KEY = "lineage"
"""Under this name a manifest's ``code`` holds the digest of its links."""


def collect_links(
    spec: LineageSpec, root: Path, artifact: ArtifactRef | None, *, training_sha256: str, run: RunFacts
) -> list[Link]:
    """Every link there is: declared on disk, inside the artifact, and known to the registry."""
    links = [] if artifact is None else list(_artifact_links(artifact, training_sha256))
    if run.params:
        links.append(Link(kind="parameters", tool="mlflow", name="run", found=digest_of(run.params)))
    links += [
        Link(kind="data", tool="mlflow", name=name, found=digest)
        for name, digest in sorted(run.datasets.items())
    ]
    return [*links, *follow(spec, root, commit=run.commit)]


def _artifact_links(artifact: ArtifactRef, training_sha256: str) -> list[Link]:
    claimed = artifact.metadata.get("training_sha256")
    data = Link(
        kind="data",
        tool="artifact",
        name=TRAINING,
        claimed=str(claimed or ""),
        found=training_sha256,
        problem="" if claimed else "is not named by the artifact: it has no training_sha256",
    )
    needs = [
        Link(kind="environment", tool="artifact", name=file.path, found=file.sha256)
        for file in artifact.files
        if file.path in _ENVIRONMENT
    ]
    return [data, *needs]


def keep_links(evidence: EvidenceStore, links: list[Link]) -> str:
    """Store the links and return their digest."""
    return evidence.put(canonical_json([link.to_data() for link in links]))


def read_links(evidence: EvidenceStore, manifest: Manifest) -> list[Link]:
    """The links of a frozen release; none where it was frozen without."""
    digest = manifest.code.get(KEY)
    if digest is None:
        return []
    return [Link.model_validate(entry) for entry in parse_json(evidence.get(digest))]
