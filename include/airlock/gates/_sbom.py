"""The bill of materials of a model: CycloneDX 1.6, the same bytes for the same model."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from airlock.core.manifest import ArtifactRef
from airlock.gates._requirements import Requirement


def bill_of_materials(
    title: str,
    artifact: ArtifactRef,
    requirements: Sequence[Requirement],
    unsafe: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The model, its files with their digests, the packages it names, and their known vulnerabilities.

    ``unsafe`` maps the reference of a package to the ids of its advisories. There is no time in it, so that
    it can be part of the evidence; its serial number is made from the model's digest.
    """
    packages = {reference(one): one for one in requirements if one.name}
    files: list[dict[str, Any]] = [
        {
            "type": "file",
            "bom-ref": f"file:{file.path}",
            "name": file.path,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        }
        for file in sorted(artifact.files, key=lambda one: one.path)
    ]
    libraries: list[dict[str, Any]] = [
        {
            "type": "library",
            "bom-ref": ref,
            "name": one.name,
            **({"version": one.version} if one.version else {}),
            "purl": ref,
        }
        for ref, one in sorted(packages.items())
    ]
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": title or "model",
        "version": artifact.version,
        "hashes": [{"alg": "SHA-256", "content": artifact.sha256}],
    }
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, artifact.sha256)}",
        "version": 1,
        "metadata": {"component": model},
        "components": [*files, *libraries],
        "dependencies": [
            {"ref": "model", "dependsOn": [str(one["bom-ref"]) for one in (*files, *libraries)]}
        ],
    }
    affected = sorted((advisory, ref) for ref, ids in unsafe.items() for advisory in ids)
    if affected:
        bill["vulnerabilities"] = [
            {"id": advisory, "source": {"name": "OSV"}, "affects": [{"ref": ref}]}
            for advisory, ref in affected
        ]
    return bill


def reference(requirement: Requirement) -> str:
    """The package URL of a requirement (ECMA-427)."""
    version = f"@{quote(requirement.version, safe='')}" if requirement.version else ""
    return f"pkg:pypi/{quote(requirement.name, safe='')}{version}"
