"""Trains a model again: a workload's command, on pinned data and pinned code, in the sandbox.

The code is as untrusted as a model: it sees the training data and nothing else, and what it writes is a
folder of files that are read and never executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from airlock.core.canonical import canonical_json, parse_json, storable
from airlock.core.declarations import TrainingSpec
from airlock.core.errors import ConfigurationError, InvalidInputError, SandboxError
from airlock.core.manifest import ArtifactRef, FileRef
from airlock.core.policy import SandboxRules
from airlock.core.workload import ModelSpec, Workload
from airlock.ports import Sandbox, SandboxRequest, SandboxResult
from airlock.services.deployment import Deployment
from airlock.services.folders import keep_folder, regular_files

DEFAULT_SEED = 0
"""Seed of a training whose version says none; the reproducibility gate complains about that."""

CODE, PARAMETERS = "training_code", "training_parameters"
"""Under these names a manifest's ``code`` holds the digests of training code and parameters."""

CODE_DIGEST = "training_code_sha256"
"""Under this name an artifact says which code it was trained with."""

MAXIMUM_CODE_FILES = 2000
_MAXIMUM_CODE_BYTES = 50_000_000
_NO_CODE = {"__pycache__", ".git", ".venv", ".ipynb_checkpoints", ".mypy_cache", ".ruff_cache", ".dvc"}
_LINES = 15
"""Last lines of a failed command that people are told."""
_MAXIMUM_INDEX = 1 << 20


@dataclass(frozen=True)
class Training:
    """What is trained, how, and on what.

    Attributes:
        spec: the command and its limits.
        code: folder with the code.
        data: Parquet file to train on.
        parameters: what the command finds in ``{parameters}``.
        packages: the model's own packages; ``None`` for those of the worker.
    """

    spec: TrainingSpec
    code: Path
    data: Path
    parameters: dict[str, Any]
    packages: Path | None = None

    @property
    def seed(self) -> int:
        """Seed of everything random in it."""
        return int(self.parameters["seed"])


@dataclass(frozen=True)
class Trained:
    """What came out.

    Attributes:
        folder: the model's files.
        metrics: numbers that the command wrote down about itself.
        ran: how the sandbox went.
    """

    folder: Path
    metrics: dict[str, float]
    ran: SandboxResult


def training_parameters(
    spec: TrainingSpec, model: ModelSpec, *, metadata: dict[str, Any], logged: dict[str, str]
) -> dict[str, Any]:
    """What a training command is told.

    Args:
        spec: the workload's training.
        model: what it predicts, and from what.
        metadata: what the version that is trained again declared about itself.
        logged: parameters that its run logged.
    """
    seed = metadata.get("seed", spec.seed)
    known = isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0
    return {
        "features": model.features,
        "target": model.target,
        "task": model.task,
        "positive": model.positive,
        "seed": seed if known else DEFAULT_SEED if spec.seed is None else spec.seed,
        "threshold": metadata.get("decision_threshold", 0.5),
        "parameters": logged,
    }


def train(sandbox: Sandbox, training: Training, rules: SandboxRules, target: Path) -> Trained:
    """Run the command and leave the model's files in ``target / "model"``.

    Raises:
        SandboxError: the command failed; with the last lines it wrote.
        InvalidInputError: an input is missing.
    """
    output = target / "trained"
    output.mkdir(parents=True)
    request = SandboxRequest(
        job={
            "kind": "train",
            "words": training.spec.command[1:],
            "seed": training.seed,
            "parameters": training.parameters,
        },
        inputs={"code": str(training.code), "data": str(training.data)},
        seconds=_least(training.spec.seconds, rules.training_seconds or rules.seconds),
        memory_mb=int(_least(training.spec.memory_mb, rules.training_memory_mb or rules.memory_mb)),
        output_mb=rules.output_mb,
        require_network_isolation=rules.require_network_isolation,
        require_level=rules.require_level,
        packages=str(training.packages or ""),
    )
    try:
        ran = sandbox.run(request, output)
    except SandboxError as error:
        raise _in_words(error) from None
    metrics = _metrics(output / "metrics.json")
    return Trained(_unpacked(output, target / "model"), metrics, ran)


def _least(wanted: float | None, allowed: float) -> float:
    return allowed if wanted is None else min(wanted, allowed)


def _in_words(error: SandboxError) -> SandboxError:
    """A failure of the command with the end of what it said, instead of advice about models."""
    _, _, trace = error.fix.partition("\n")
    lines = [line for text in (error.output, trace) for line in text.splitlines() if line.strip()]
    said = "\n".join(lines[-_LINES:])
    return SandboxError(
        storable(error.what.replace("the job failed", "the training command failed", 1)),
        where="training.command",
        fix=storable(f"run the command by hand on this data and mend it\n{said}".strip()),
        attempts=error.attempts,
        output=storable(said),
    )


def _unpacked(output: Path, target: Path) -> Path:
    """The model's files in their places; the index was written by untrusted code."""
    index = output / "index.json"
    entries = parse_json(index.read_bytes()) if 0 < _size(index) <= _MAXIMUM_INDEX else None
    if not isinstance(entries, list) or not entries:
        raise SandboxError(
            "the training command wrote no model", where="training.command", fix="save the model in {model}"
        )
    target.mkdir()
    for entry in entries:
        source, path = output / Path(str(entry["file"])).name, PurePosixPath(str(entry["path"]))
        if path.is_absolute() or ".." in path.parts or not source.is_file():
            raise SandboxError(f"the training command wrote a file {str(path)[:100]!r} that cannot be kept")
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        source.replace(place)
    if not (target / "MLmodel").is_file():
        raise SandboxError(
            "the training command wrote no MLmodel file",
            where="training.command",
            fix="save the model with mlflow.sklearn.save_model(..., path, serialization_format='skops')",
        )
    return target


def _metrics(path: Path) -> dict[str, float]:
    found = parse_json(path.read_bytes()) if 0 < _size(path) <= _MAXIMUM_INDEX else {}
    return {storable(str(name)): float(value) for name, value in found.items()}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def code_folder(deployment: Deployment, workload: Workload) -> Path:
    """Where a workload's training code is.

    Raises:
        ConfigurationError: nobody says where, or it leaves the folder it must lie in.
    """
    spec = workload.training
    if spec.code is not None:
        root, name, key = deployment.settings.config_dir / "workloads", spec.code, "training.code"
    elif workload.lineage.repository is not None:
        root, name, key = deployment.settings.data_root, workload.lineage.repository, "lineage.repository"
    else:
        raise ConfigurationError(
            "nobody says where the training code is",
            where=f"workload {workload.name}",
            fix="name its folder in training.code, or the repository in lineage.repository",
        )
    folder = (root / name).resolve()
    if not folder.is_relative_to(root.resolve()) or not folder.is_dir():
        problem = "is not there" if folder.is_relative_to(root.resolve()) else f"leaves {root}"
        raise ConfigurationError(
            f"{key}: the folder {name} {problem}", where=f"workload {workload.name}", fix="correct the path"
        )
    return folder


def keep_code(deployment: Deployment, folder: Path) -> str:
    """Copy training code into the evidence store; returns the digest of the list of its files.

    Raises:
        InvalidInputError: it is empty, too much, or holds links.
    """
    files = keep_folder(deployment.evidence, folder, code_files(folder))
    return deployment.evidence.put(canonical_json([file.to_data() for file in files]))


def code_files(folder: Path) -> list[Path]:
    """The files of training code, without what version control and Python leave there."""
    found = regular_files(
        folder,
        where=str(folder),
        maximum=MAXIMUM_CODE_FILES,
        what="the training code",
        fix="keep data and environments out of the code folder",
        skip=lambda path: path.name in _NO_CODE or path.suffix == ".pyc",
    )
    size = sum(path.stat().st_size for path in found)
    if not found or size > _MAXIMUM_CODE_BYTES:
        raise InvalidInputError(
            f"the training code has {len(found)} files of {size} bytes",
            where=str(folder),
            fix=f"keep at least one file and at most {_MAXIMUM_CODE_BYTES} bytes there",
        )
    return found


def read_files(deployment: Deployment, digest: str) -> list[FileRef]:
    """A kept list of files."""
    return [FileRef.model_validate(entry) for entry in parse_json(deployment.evidence.get(digest))]


def files_digest(files: list[FileRef]) -> str:
    """The digest that identifies a folder of code, whatever the order of its files."""
    return ArtifactRef.digest_files(files)
