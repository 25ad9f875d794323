"""The manifest: the frozen statement of what is released."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import digest_of, sha256_hex


def _is_empty(value: object) -> bool:
    """Whether a field added after the first release says nothing and is left out."""
    return value is None or value in ({}, [])


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


AnswerValue = bool | float | str
"""An answer to a question of the interview: yes or no, a number, or a text."""


class FileRef(Value):
    """One file of an artifact: path inside it, SHA-256, size in bytes."""

    path: str
    sha256: Digest
    size: int


class ArtifactRef(Value):
    """A model version, identified by the content of its files and not by its name.

    ``metadata`` is what the training code declared about it inside the artifact (``metadata.airlock``
    of the MLmodel file), so it is covered by the digest: ``decision_threshold``, ``training_sha256``.
    ``inputs`` and ``outputs`` are its signature (column → type), ``packages`` what it needs (name →
    version). What is empty has no place in the JSON form, so older manifests keep their digests.
    """

    version: str
    sha256: Digest
    files: list[FileRef]
    metadata: dict[str, str | float | int | bool | None] = {}
    inputs: Annotated[dict[str, str], Field(exclude_if=_is_empty)] = {}
    outputs: Annotated[dict[str, str], Field(exclude_if=_is_empty)] = {}
    packages: Annotated[dict[str, str], Field(exclude_if=_is_empty)] = {}

    @staticmethod
    def digest_files(files: list[FileRef]) -> str:
        """Digest of a folder: over path, digest and size of each file, sorted by path."""
        return digest_of([file.to_data() for file in sorted(files, key=lambda file: file.path)])


class DataRef(Value):
    """A data file, identified by its content.

    ``source`` says where its rows come from when the path does not, such as a window of a production log
    that was copied into the evidence store.
    """

    path: str
    sha256: Digest
    size: int
    source: Annotated[str, Field(exclude_if=lambda value: not value)] = ""

    @property
    def origin(self) -> str:
        """What is compared when one asks whether two data sets come from the same place."""
        return self.source or self.path


class Manifest(Value):
    """What is released: artifact, data, code, environment and policy version, all by digest.

    Approvals bind to its digest (requirement A-7): change anything and they are void.

    Attributes:
        champion_training: training data of the release that made the champion; ``None`` when it was
            adopted or there is none.
        answers: what the submitter answered to the questions of the policy, by question.
        asked: questions that this release must answer.
        authors: people who made the model or its data, and what they did, so that they cannot approve it.
        risk_history: risk scores of the workload's releases before this one, oldest first, so that a
            comparison with them can be repeated for ever.
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
    champion_training: Annotated[DataRef | None, Field(exclude_if=_is_empty)] = None
    answers: Annotated[dict[str, AnswerValue], Field(exclude_if=_is_empty)] = {}
    asked: Annotated[list[str], Field(exclude_if=_is_empty)] = []
    risk_history: Annotated[list[float], Field(exclude_if=_is_empty)] = []
    authors: Annotated[dict[str, str], Field(exclude_if=_is_empty)] = {}

    @property
    def unanswered(self) -> list[str]:
        """Questions that must be answered and are not."""
        return [question for question in self.asked if question not in self.answers]


def release_id_for(deployment: str, workload: str, version: str, dag_id: str, run_id: str) -> str:
    """The id of a release, a function of the DAG run alone, so that it cannot be forged by XCom.

    Law: the same run always gives the same id; two runs give two ids.
    """
    key = f"{deployment}\x1f{dag_id}\x1f{run_id}"
    return f"{workload}-v{version}-{sha256_hex(key.encode())[:8]}"
