"""Run one gate on plain files, without Airflow, registry or workload (requirement T-7)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from airlock.adapters.evidence import hash_file
from airlock.adapters.sandbox import ProcessSandbox
from airlock.adapters.settings import load_settings
from airlock.adapters.system import SystemClock
from airlock.adapters.yaml_files import load_yaml
from airlock.core.canonical import parse_json, sha256_hex
from airlock.core.declarations import Declarations
from airlock.core.errors import ConfigurationError, InvalidInputError
from airlock.core.evidence import Finding, GateResult, Verdict
from airlock.core.lineage import Link
from airlock.core.manifest import ArtifactRef, FileRef
from airlock.core.policy import Policy
from airlock.gates import load_gate
from airlock.gates.base import GateContext, Scores
from airlock.ports import RunFacts, SandboxRequest
from airlock.reporting.gate_report import answer_data
from airlock.services.attributions import with_attributions
from airlock.services.evaluate import advisories_of, error_result
from airlock.services.gate_files import FileConfig, PlainData, limits_for, newest_policy, read_config
from airlock.services.lineage import collect_links
from airlock.services.model_files import declared
from airlock.services.plain_model import run_plain_model


@dataclass(frozen=True)
class GateRun:
    """What a gate said about plain files.

    Attributes:
        gate: its name.
        limits: its complete configuration.
        result: its answer.
        seconds: how long it took, without reading the configuration.
        files: what it attached: file name → content.
    """

    gate: str
    limits: dict[str, Any]
    result: GateResult
    seconds: float
    files: dict[str, bytes] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """The run for programs; these keys are fixed."""
        return {**answer_data(self.gate, self.result), "seconds": round(self.seconds, 3)}


def run_gate(
    gate: str,
    config_file: Path,
    *,
    current: Path | None = None,
    reference: Path | None = None,
    predictions: Path | None = None,
) -> GateRun:
    """Judge files with one gate. What is wrong with the data becomes an ``ERROR``, never an exception.

    Raises:
        NotFoundError: there is no such configuration file.
        ConfigurationError: there is no such gate, or the configuration is wrong.
    """
    config = read_config(config_file, gate)
    policy = newest_policy()
    limits, taken = limits_for(gate, config, policy, config_file)
    started, kept = time.perf_counter(), {}

    def store(data: bytes) -> str:
        kept[digest := sha256_hex(data)] = data
        return digest

    attached: dict[str, str] = {}
    try:
        data = PlainData(config, current=current, reference=reference, predictions=predictions)
        with _context(config, data, config_file.parent, policy, reference) as context:
            if gate in _EXPLAINED:
                folder = config_file.parent
                _explain(context, config, data, folder=folder, policy=policy, limits=limits)
            context.store = store
            result = load_gate(gate).evaluate(context, limits)
            attached = {**result.files, **context.files}
        result.to_bytes()  # what cannot be kept was not measured
    except Exception as error:  # noqa: BLE001  # whatever breaks, the person gets words and no pass
        result = error_result(gate, error)
    seconds = time.perf_counter() - started
    if taken and policy is not None:
        result = result.model_copy(update={"findings": [*result.findings, _from_policy(taken, policy)]})
    files = {name: kept[digest] for name, digest in attached.items() if digest in kept}
    return GateRun(gate, limits.to_data(), result, seconds, files)


def _from_policy(taken: list[str], policy: Policy) -> Finding:
    return Finding(
        id="limits.from_policy",
        verdict=Verdict.PASSED,
        message=f"{', '.join(taken)}: taken from policy {policy.version}, because the configuration leaves "
        f"{'it' if len(taken) == 1 else 'them'} out",
        where="limits",
        fix="write them under limits to judge by numbers of your own",
    )


@contextmanager
def _context(
    config: FileConfig, data: PlainData, folder: Path, policy: Policy | None, reference: Path | None
) -> Iterator[GateContext]:
    with tempfile.TemporaryDirectory(prefix="airlock-gate-") as temporary:
        artifact = cache(lambda: _artifact(_input(config.artifact, folder, "artifact"), Path(temporary)))
        yield GateContext(
            columns=data.columns,
            positive=data.positive,
            task=data.task,
            title=config.artifact or "plain files",
            evaluation=lambda: data.current,
            training=lambda: data.reference,
            current_path=data.current_path,
            reference_path=data.reference_path,
            scores=lambda: data.scores,
            scored=data.scored,
            has_champion=data.has_champion,
            lineage=cache(lambda: _links(config, folder, artifact, reference)),
            has_reference=data.has_reference,
            declared=Declarations.of(config),
            now_us=SystemClock().now_us,
            artifact=artifact,
            candidate=cache(lambda: _identified(artifact())),
            scan=cache(lambda: _scan(artifact(), Path(temporary), policy)),
            suite=lambda: _suite(_input(config.suite, folder, "suite")),
            documentation=lambda: _text(_input(config.card, folder, "card")),
            business_context=config.context,
            advisories=advisories_of(_advisories(config, folder), SystemClock()),
            protected_class_data=config.protected_class_data,
            privacy=config.privacy,
            store=sha256_hex,
        )


_EXPLAINED = {"explainability"}
"""Gates that look at attributions, which no plain file of predictions holds."""


def _explain(
    context: GateContext,
    config: FileConfig,
    data: PlainData,
    *,
    folder: Path,
    policy: Policy | None,
    limits: Any,
) -> None:
    """Give the gate attributions: those in a file, or those of the model itself."""
    card = "" if config.card is None else _text(_input(config.card, folder, "card"))
    context.documentation = lambda: card  # a card only says what reasons are called
    if config.attributions is not None:
        wanted = config.attributions
        context.scores = cache(lambda: with_attributions(data.scores, wanted, folder))
    elif config.artifact is not None:
        context.has_champion = False  # predictions of a champion are no attributions of one
        cases = int(getattr(limits, "tested_reasons", 0))
        context.scores = cache(
            lambda: _run_model(context, config, data, policy=policy, card=card, cases=cases)
        )
    else:
        raise InvalidInputError(
            "there are no attributions: predictions alone do not say what moved them",
            where="attributions",
            fix="give SHAP values with `attributions: {file: shap.parquet, base: column or number}`, or the "
            "model itself with `artifact: FOLDER` (a skops file) and training data with --reference; it runs "
            "in the sandbox",
        )


def _run_model(
    context: GateContext,
    config: FileConfig,
    data: PlainData,
    *,
    policy: Policy | None,
    card: str,
    cases: int,
) -> Scores:
    with tempfile.TemporaryDirectory(prefix="airlock-gate-") as temporary:
        return run_plain_model(
            context.artifact(),
            columns=context.columns,
            task=context.task,
            positive=context.positive,
            threshold=config.threshold,
            current=data.current_path(),
            reference=data.reference_path(),
            card=card,
            cases=cases,
            policy=policy,
            temporary=Path(temporary),
        )


def _advisories(config: FileConfig, folder: Path) -> Path | None:
    return folder / config.advisories if config.advisories else load_settings().advisories


def _links(
    config: FileConfig, folder: Path, artifact: Callable[[], Path], reference: Path | None
) -> list[Link]:
    """Declared links, and those inside the artifact where one is given."""
    described, digest = None, "" if reference is None else hash_file(reference)
    if config.artifact is not None:
        root = artifact()
        described = _identified(root).model_copy(update={"metadata": declared(root)})
    return collect_links(config.lineage, folder, described, training_sha256=digest, run=RunFacts())


def _input(name: str | None, folder: Path, key: str) -> Path:
    if name is None:
        raise InvalidInputError(
            f"this gate needs {key}", where=key, fix=f"add `{key}: PATH` to the configuration"
        )
    path = folder / name
    if not path.exists():
        raise InvalidInputError(f"{key}: there is no {path}", where=key, fix="check the path")
    return path


def _artifact(source: Path, temporary: Path) -> Path:
    """The artifact as a folder; a single file is put into one of its own."""
    if source.is_dir():
        return source
    target = temporary / "artifact"
    target.mkdir()
    (target / source.name).write_bytes(source.read_bytes())
    return target


def _identified(root: Path) -> ArtifactRef:
    files = [
        FileRef(path=path.relative_to(root).as_posix(), sha256=hash_file(path), size=path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    if not files:
        raise InvalidInputError("the artifact is empty", where=str(root), fix="give the folder of the model")
    return ArtifactRef(version="0", sha256=ArtifactRef.digest_files(files), files=files)


def _scan(root: Path, temporary: Path, policy: Policy | None) -> dict[str, Any]:
    if policy is None:
        raise ConfigurationError(
            "there is no policy, so nothing says how much a scan may use", fix="set AIRLOCK_CONFIG_DIR"
        )
    output = temporary / "scan"
    output.mkdir()
    rules = policy.sandbox
    request = SandboxRequest(
        job={"kind": "scan", "artifact": "artifact"},
        inputs={"artifact": str(root.resolve())},
        seconds=rules.seconds,
        memory_mb=rules.memory_mb,
        output_mb=rules.output_mb,
        require_network_isolation=rules.require_network_isolation,
        require_level=rules.require_level,
    )
    ran = ProcessSandbox().run(request, output)
    report: dict[str, Any] = parse_json((output / "scan.json").read_bytes())
    return {**report, "isolation": ran.level, "attempts": ran.attempts}


def _suite(path: Path) -> dict[str, Any]:
    data = load_yaml(path)
    if not isinstance(data, dict):
        raise InvalidInputError("an expectation suite is a mapping", where=str(path))
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError("the text cannot be read", where=str(path), fix="save it as UTF-8") from error
