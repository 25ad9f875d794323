"""The manifest: the frozen statement of what is released."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import digest_of, sha256_hex

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileRef(Value):
    """One file of an artifact: path inside it, SHA-256, size in bytes."""

    path: str
    sha256: Digest
    size: int


class ArtifactRef(Value):
    """A model version, identified by the content of its files and not by its name.

    ``metadata`` is what the training code declared about it inside the artifact (``metadata.airlock``
    of the MLmodel file), so it is covered by the digest: ``decision_threshold``, ``training_sha256``.
    """

    version: str
    sha256: Digest
    files: list[FileRef]
    metadata: dict[str, str | float | int | bool | None] = {}

    @staticmethod
    def digest_files(files: list[FileRef]) -> str:
        """Digest of a folder: over path, digest and size of each file, sorted by path."""
        return digest_of([file.to_data() for file in sorted(files, key=lambda file: file.path)])


class DataRef(Value):
    """A data file, identified by its content."""

    path: str
    sha256: Digest
    size: int


class Manifest(Value):
    """What is released: artifact, data, code, environment and policy version, all by digest.

    Approvals bind to its digest (requirement A-7): change anything and they are void.
    """

    schema_version: Literal[1] = 1
    release_id: str
    workload: str
    workload_digest: Digest
    submitter: str
    candidate: ArtifactRef
    champion: ArtifactRef | None
    training: DataRef
    evaluation: DataRef
    suite_digest: Digest
    documentation_digest: Digest
    policy_version: str
    policy_digest: Digest
    code: dict[str, str]
    environment: dict[str, str]


def release_id_for(deployment: str, workload: str, version: str, dag_id: str, run_id: str) -> str:
    """The id of a release, a function of the DAG run alone, so that it cannot be forged by XCom.

    Law: the same run always gives the same id; two runs give two ids.
    """
    key = f"{deployment}\x1f{dag_id}\x1f{run_id}"
    return f"{workload}-v{version}-{sha256_hex(key.encode())[:8]}"
