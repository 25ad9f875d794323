"""A deployment in a temporary folder: everything is real but the registry, the sandbox and the clock.

``World`` is a deployment with a small configuration. ``frozen``, ``judged`` and ``granted`` bring a
release to a point of its life in milliseconds, without scoring anything: the evidence goes through the
same service that keeps a gate's evidence.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from airlock.adapters.audit import Database, Log, Spool, SqlAuditStore, Vault
from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.evidence import FileEvidenceStore
from airlock.adapters.settings import Settings
from airlock.core.approvals import Answer
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.decision import Decision
from airlock.core.errors import NotFoundError, SandboxError, UnavailableError
from airlock.core.evidence import SCORE, Finding, GateResult, Verdict
from airlock.core.manifest import release_id_for
from airlock.core.policy import Policy
from airlock.core.release import Release
from airlock.ports import ModelVersion, RunFacts, SandboxRequest, SandboxResult
from airlock.services.adopt import adopt
from airlock.services.approve import answer
from airlock.services.decide import decide
from airlock.services.deployment import Deployment, anchors_of, immediate
from airlock.services.evaluate import keep_evidence
from airlock.services.keys import create_key
from airlock.services.promote import promote
from airlock.services.releases import find_release, open_case
from airlock.services.sequence import Sequencer
from airlock.services.submit import freeze, submit

WORKLOAD = "loan-model"
START_US = 1_767_225_600_000_000  # 2026-01-01
HOUR_US = 3_600_000_000
CHANGES = {"green": 0.01, "yellow": 0.1, "red": 0.3}
"""Relative change of performance that puts a release of the small policy on each track."""

_SHIPPED = Path(__file__).parents[2] / "config"

PEOPLE: dict[str, Any] = {
    "people": [
        {"user": "dana", "name": "Dana"},
        {"user": "petra", "name": "Petra", "roles": ["ml-platform-engineer"]},
        {"user": "grace", "name": "Grace", "roles": ["governance-analyst"]},
        {"user": "ravi", "name": "Ravi", "roles": ["risk-officer"]},
        {"user": "omar", "name": "Omar", "roles": ["governance-analyst", "risk-officer"]},
        {"user": "vera", "name": "Vera", "airflow_role": "viewer"},
        {"user": "gita", "name": "Gita", "roles": ["data-governance"]},
    ]
}

SUITE: dict[str, Any] = {
    "name": "loan",
    "version": "1.0.0",
    "description": "Incomes are plausible.",
    "expectations": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "income", "min_value": 0, "max_value": 1000},
            "why": "an income in thousands",
        }
    ],
}


def workload_data(**changes: Any) -> dict[str, Any]:
    """The small workload as YAML data; low risk, so that the track depends on the change alone."""
    return {
        "name": WORKLOAD,
        "title": "Loan model",
        "description": "A workload for tests.",
        "owner": "team",
        "policy": "1.0.0",
        "model": {"registered_model": WORKLOAD, "target": "y", "features": ["income", "debt"]},
        "data": {
            "training": "loan/training.parquet",
            "evaluation": "loan/batches",
            "default_batch": "clean",
            "expectations": "loan",
            "sensitive": {"group": {"0": "group A", "1": "group B"}},
        },
        "risk": {
            "automated_decision": False,
            "protected_class_data": True,
            "regulated": False,
            "human_review": True,
            "exposure": "internal",
            "loss_per_error_usd": 10,
            "rollback": "easy",
        },
        "documentation": f"{WORKLOAD}.md",
        **changes,
    }


def _rule(rule_id: str, when: str, effect: dict[str, str], because: str) -> dict[str, Any]:
    return {
        "id": rule_id,
        "title": rule_id,
        "owner": "governance-analyst",
        "severity": "medium",
        "why": "a test",
        "fix": f"avoid {rule_id}",
        "when": when,
        "effect": effect,
        "because": because,
        "otherwise": f"not: {because}",
        "expires": "never",
    }


@cache
def shipped_policy() -> Policy:
    """The policy Airlock ships with."""
    return ConfigFolder(_SHIPPED).policy("1.0.0")


@cache
def shipped_gates() -> dict[str, Any]:
    """The gates of the shipped policy with their configuration."""
    return shipped_policy().gates


def limit_data(value: float) -> dict[str, Any]:
    """A limit as YAML data."""
    return {"value": value, "unit": "share", "owner": "risk-officer", "why": "a test"}


def policy_data(gates: Sequence[str] = ("documentation", "performance"), **changes: Any) -> dict[str, Any]:
    """A small policy: two gates as they are shipped, one tier rule, three track rules."""
    return {
        "version": "1.0.0",
        "description": "A policy for tests.",
        "limits": {"green_change": limit_data(0.05), "red_change": limit_data(0.15)},
        "roles": {
            role: {"title": role, "answers_for": "a test", "gates": owned}
            for role, owned in {
                "ml-platform-engineer": [],
                "governance-analyst": ["documentation"],
                "risk-officer": ["performance"],
                "data-governance": ["privacy"],
            }.items()
        },
        "gates": {gate: shipped_gates()[gate] for gate in gates},
        "rules": [
            _rule("tier-regulated", "workload.regulated", {"tier": "high"}, "it is regulated"),
            _rule("track-first", "release.first", {"track": "red"}, "there is no champion"),
            _rule(
                "track-red",
                "!release.first && candidate.performance.relative_change > limits.red_change",
                {"track": "red"},
                "performance changes by {candidate.performance.relative_change|percent}",
            ),
            _rule(
                "track-yellow",
                "!release.first && candidate.performance.relative_change >= limits.green_change",
                {"track": "yellow"},
                "performance changes by {candidate.performance.relative_change|percent}, someone looks at it",
            ),
        ],
        "approval": {
            "expires_hours": 72,
            "minimum_comment": 10,
            "seats": {
                "green": [],
                "yellow": [{"role": "ml-platform-engineer", "reason": "knows the platform"}],
                "red": [
                    {"role": "governance-analyst", "reason": "checks the evidence"},
                    {"role": "risk-officer", "reason": "accepts what remains"},
                ],
            },
        },
        "sandbox": {
            "seconds": 10,
            "memory_mb": 1000,
            "output_mb": 10,
            "require_network_isolation": False,
            "shap_rows": 10,
            "background_rows": 10,
        },
        "waivers": {
            "maximum_days": 90,
            "warn_days": 14,
            "answer_hours": 72,
            "minimum_reason": 20,
            "at_least": "yellow",
            "waivable": [
                f"gate-{gate}" for gate in ("privacy", "documentation", "performance") if gate in gates
            ],
        },
        **changes,
    }


def write_yaml(path: Path, data: Any) -> Path:
    """Write data as YAML, in the order it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_config(folder: Path, *, gates: Sequence[str] = ("documentation", "performance")) -> Path:
    """A whole ``config/`` folder with one workload, and return it."""
    write_yaml(folder / "workloads" / f"{WORKLOAD}.yaml", workload_data())
    (folder / "workloads" / f"{WORKLOAD}.md").write_text("# Loan model\n", encoding="utf-8")
    write_yaml(folder / "policies" / "1.0.0" / "policy.yaml", policy_data(gates))
    write_yaml(folder / "expectations" / "loan.yaml", SUITE)
    write_yaml(folder / "people.yaml", PEOPLE)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace the only occurrence of ``old`` in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is one: waiting for a disk hundreds of times proves no logic."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def messages_of(error: BaseException | None) -> str:
    """What a log shows of an error and its causes, but for the lines of source."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(texts)


@dataclass
class ManualClock:
    """A clock that stands still until it is moved."""

    us: int = START_US

    def now_us(self) -> int:
        return self.us

    def advance(self, *, hours: float = 0, us: int = 0) -> None:
        self.us += int(hours * HOUR_US) + us


class Killed(BaseException):
    """What SIGKILL looks like from inside: nothing that catches errors catches it."""


class Failpoints:
    """Numbers every moment before and after a call through a port, and stops the world at one of them."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self._at = 0
        self._error: BaseException = Killed()

    def stop_at(self, number: int, error: BaseException) -> None:
        """From now on, count anew and raise ``error`` at the n-th moment, once."""
        self.reached, self._at, self._error = [], number, error

    def reach(self, moment: str) -> None:
        self.reached.append(moment)
        if len(self.reached) == self._at:
            raise self._error

    def watch(self, name: str, port: Any) -> Any:
        """The port, with a failpoint before and after each of its calls."""
        return _Watched(self, name, port)


class _Watched:
    def __init__(self, failpoints: Failpoints, name: str, port: Any) -> None:
        self._failpoints, self._name, self._port = failpoints, name, port

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._port, method)
        if not callable(real):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._failpoints.reach(f"before {self._name}.{method}")
            result = real(*args, **kwargs)
            self._failpoints.reach(f"after {self._name}.{method}")
            return result

        return call


@dataclass
class _Version:
    files: dict[str, bytes]
    links: dict[str, str]
    tags: dict[str, str]


class FakeRegistry:
    """A model registry in memory that fails when it is told to."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, _Version]] = {}
        self.champions: dict[str, str] = {}
        self.model_tags: dict[str, dict[str, str]] = {}
        self.moves: list[tuple[str, str]] = []
        self.calls = 0
        self._fail_at: dict[int, BaseException] = {}

    def register(
        self,
        version: str,
        files: Mapping[str, bytes] | None = None,
        *,
        name: str = WORKLOAD,
        links: Mapping[str, str] | None = None,
    ) -> None:
        """Add a version; its files differ from those of other versions unless given."""
        mlmodel = "flavors:\n  sklearn:\n    pickled_model: model.skops\n"
        default = {"model.skops": f"weights {version}".encode(), "MLmodel": mlmodel.encode()}
        content = default if files is None else dict(files)
        self.models.setdefault(name, {})[version] = _Version(content, dict(links or {}), {})

    def fail_at(self, number: int, error: BaseException | None = None) -> None:
        """Raise at the n-th call from now, once."""
        self._fail_at[self.calls + number] = error or UnavailableError("the registry does not answer")

    def _called(self) -> None:
        self.calls += 1
        if (error := self._fail_at.pop(self.calls, None)) is not None:
            raise error

    def _find(self, name: str, version: str) -> _Version:
        try:
            return self.models[name][version]
        except KeyError as error:
            raise NotFoundError(f"the registry does not know {name} version {version}") from error

    def version(self, name: str, version: str) -> ModelVersion:
        self._called()
        tags = dict(self._find(name, version).tags)
        return ModelVersion(name=name, version=version, run_id=f"run-{version}", tags=tags)

    def champion(self, name: str) -> ModelVersion | None:
        self._called()
        found = self.champions.get(name)
        return None if found is None else ModelVersion(name=name, version=found, run_id="", tags={})

    def run(self, run_id: str) -> RunFacts:
        return RunFacts(params={"C": "0.1"}) if run_id else RunFacts()

    def download(self, name: str, version: str, target: Path) -> None:
        self._called()
        found = self._find(name, version)
        target.mkdir(parents=True)
        for path, content in found.files.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content)
        for path, goal in found.links.items():
            (target / path).symlink_to(goal)

    def set_champion(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        self._called()
        self._find(name, version).tags.update({f"airlock.{key}": value for key, value in tags.items()})
        if self.champions.get(name) != version:
            self.moves.append((name, version))
        self.champions[name] = version

    def quarantine(self, name: str, version: str, reason: str) -> None:
        self._called()
        tags = {"airlock.state": "quarantined", "airlock.quarantine_reason": reason}
        self._find(name, version).tags.update(tags)

    def add_version(
        self,
        name: str,
        folder: Path,
        *,
        key: str,
        beside: str = "",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        self._called()
        versions = self.models.setdefault(name, {})
        for version, stored in versions.items():
            if stored.tags.get("airlock.key") == key:
                return version
        number = str(max(map(int, versions), default=0) + 1)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.register(
            number, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, name=name
        )
        versions[number].tags.update(
            {f"airlock.{tag}": value for tag, value in {**(tags or {}), "key": key}.items()}
        )
        return number

    def tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        self._called()
        self._find(name, version).tags.update({f"airlock.{key}": value for key, value in tags.items()})

    def clear_champion(self, name: str, tags: Mapping[str, str]) -> None:
        self._called()
        self.model_tags.setdefault(name, {}).update({f"airlock.{key}": value for key, value in tags.items()})
        if self.champions.pop(name, None) is not None:
            self.moves.append((name, ""))


class SelfSequencing(SqlAuditStore):
    """An audit store that runs the sequencer itself when a critical event waits for it."""

    deployment: Deployment

    def confirm(self, recorded: Recorded) -> None:
        sequencer = Sequencer(self.deployment, anchors_of(self.deployment.settings))
        sequencer.step()
        sequencer.publish()
        super().confirm(recorded)


class NoSandbox:
    """Nothing is scored in these tests."""

    def run(self, request: SandboxRequest, output: Path) -> SandboxResult:
        raise SandboxError("there is no sandbox in this test")


@dataclass
class TrialSandbox:
    """Answers trials as a model would that asks for ``features``; a model in ``broken`` does not answer."""

    features: list[str] = field(default_factory=lambda: ["income", "debt"])
    broken: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    unavailable: bool = False
    tried: list[str] = field(default_factory=list)

    def run(self, request: SandboxRequest, output: Path) -> SandboxResult:
        if self.unavailable:
            raise SandboxError("the policy asks for a sandbox without network, and none can be had here")
        if request.job["kind"] != "trial":
            raise SandboxError("nothing is scored in this test", where=f"sandbox job {request.job['kind']}")
        weights = (Path(request.inputs["candidate"]) / "model.skops").read_text()
        self.tried.append(weights)
        if weights in self.broken:
            raise SandboxError("the model gives no answers", where="sandbox job trial")
        if weights in self.slow:
            raise SandboxError("the job ran longer than 10 s and was stopped", where="sandbox job trial")
        report = {"rows": 3, "features": self.features, "task": "classification"}
        (output / "trial.json").write_text(json.dumps(report))
        return SandboxResult(isolation=["no network"], seconds=0.1, stdout="", stderr="")


@dataclass
class World:
    """A deployment with one workload, its champion (version 1) and two candidates (2 and 3)."""

    root: Path
    deployment: Deployment
    registry: FakeRegistry
    clock: ManualClock
    failpoints: Failpoints = field(default_factory=Failpoints)
    asked: int = 0
    releases: dict[str, str] = field(default_factory=dict)

    @property
    def trials(self) -> TrialSandbox:
        """The sandbox of a world in operation."""
        assert isinstance(self.deployment.sandbox, TrialSandbox)
        return self.deployment.sandbox

    @property
    def config(self) -> Path:
        return self.deployment.settings.config_dir

    @property
    def workload_file(self) -> Path:
        return self.config / "workloads" / f"{WORKLOAD}.yaml"

    @property
    def policy_file(self) -> Path:
        return self.config / "policies" / "1.0.0" / "policy.yaml"

    @property
    def champion(self) -> str | None:
        return self.registry.champions.get(WORKLOAD)

    def watched(self) -> Deployment:
        """The deployment with failpoints around registry, audit and evidence."""
        ports = {
            name: self.failpoints.watch(name, getattr(self.deployment, name))
            for name in ("registry", "audit", "evidence")
        }
        return replace(self.deployment, **ports)

    def set_roles(self, user: str, roles: list[str]) -> None:
        """Give a person other roles in ``people.yaml``."""
        people = [
            {**person, "roles": roles} if person["user"] == user else person for person in PEOPLE["people"]
        ]
        write_yaml(self.config / "people.yaml", {"people": people})

    def submit(self, version: str = "2", *, run: str = "run-1", user: str = "dana", **changes: Any) -> str:
        """Submit a release and return its id."""
        dag_id = f"release__{WORKLOAD}"
        name = self.deployment.settings.deployment
        values: dict[str, Any] = {
            "release_id": release_id_for(name, WORKLOAD, version, dag_id, run),
            "workload_name": WORKLOAD,
            "version": version,
            "batch": "clean",
            "context": "A test.",
            "submitter": user,
            "dag_id": dag_id,
            "run_id": run,
        }
        return submit(self.deployment, **{**values, **changes})

    def frozen(self, version: str = "2", **kwargs: Any) -> str:
        """A release whose manifest is frozen."""
        release_id = self.submit(version, **kwargs)
        freeze(self.deployment, release_id)
        return release_id

    def evidence(
        self,
        release_id: str,
        *,
        relative: float = CHANGES["red"],
        verdicts: Mapping[str, Verdict | None] | None = None,
        summary: str = "",
    ) -> None:
        """Keep evidence of every gate and the scoring pass; ``None`` as a verdict leaves a gate out."""
        case = open_case(self.deployment, release_id)
        for gate in [*case.policy.gates, SCORE]:
            verdict = (verdicts or {}).get(gate, Verdict.PASSED)
            if verdict is None:
                continue
            text = summary or f"{gate} says {verdict}"
            bad = (
                [] if verdict.allows else [Finding(id=gate, verdict=verdict, message=text, fix=f"fix {gate}")]
            )
            details = {"change": {"relative": relative}} if gate == "performance" else {}
            result = GateResult(verdict=verdict, summary=text, findings=bad, details=details)
            keep_evidence(self.deployment, case, gate, config={}, result=result, seconds=0.5)

    def judged(
        self,
        version: str = "2",
        *,
        track: str = "red",
        verdicts: Mapping[str, Verdict | None] | None = None,
        summary: str = "",
        **kwargs: Any,
    ) -> str:
        """A release that was decided."""
        release_id = self.frozen(version, **kwargs)
        self.evidence(release_id, relative=CHANGES[track], verdicts=verdicts, summary=summary)
        decide(self.deployment, release_id)
        return release_id

    def decision(self, release_id: str) -> Decision:
        return decide(self.deployment, release_id)

    def answer(
        self,
        release_id: str,
        user: str,
        seat: int = 0,
        choice: str = "approve",
        comment: str = "Looks right.",
        **condition: str,
    ) -> Answer:
        """Answer for a seat."""
        self.asked += 1
        return answer(
            self.deployment,
            release_id,
            seat,
            user=user,
            choice=choice,
            comment=comment,
            when=str(self.asked),
            **condition,
        )

    def granted(self, version: str = "2", **kwargs: Any) -> str:
        """A red release with both approvals."""
        release_id = self.judged(version, **kwargs)
        self.answer(release_id, "grace", 0)
        self.answer(release_id, "ravi", 1)
        return release_id

    def promoted(self, version: str, **kwargs: Any) -> str:
        """A release that is in production."""
        release_id = self.granted(version, run=f"run-{version}", **kwargs)
        promote(self.deployment, release_id)
        return release_id

    def release(self, release_id: str) -> Release:
        return find_release(self.deployment, release_id)

    def events(self, kind: Kind, release_id: str | None = None) -> list[Event]:
        """Recorded events of a kind, of one release if it is named."""
        return [entry.event for entry in self.deployment.audit.events(kinds=[kind], release_id=release_id)]

    def evidence_file(self, digest: str) -> Path:
        """Where a piece of evidence lies, writable for a tamperer."""
        path = self.deployment.settings.evidence_root / digest[:2] / digest[2:]
        path.chmod(0o644)
        return path

    def copy(self, root: Path) -> World:
        """The same world in another folder, with a registry and a clock of its own."""
        shutil.copytree(self.root, root)
        copied = open_world(root)
        for name, versions in self.registry.models.items():
            for version, stored in versions.items():
                copied.registry.register(version, stored.files, name=name, links=stored.links)
                copied.registry.models[name][version].tags.update(stored.tags)
        copied.registry.champions.update(self.registry.champions)
        copied.clock.us = self.clock.us
        copied.releases = dict(self.releases)
        if isinstance(self.deployment.sandbox, TrialSandbox):
            copied.deployment = replace(copied.deployment, sandbox=TrialSandbox())
        return copied


def open_world(root: Path) -> World:
    """Open the deployment that lies in ``root``, with an empty registry."""
    settings = Settings(home=root / "home", config_dir=root / "config", deployment="test")
    clock, registry = ManualClock(), FakeRegistry()
    database = Database(settings.audit_url.get_secret_value())
    vault, spool = Vault(settings.personal_key_path), Spool(settings.spool_root)
    audit = SelfSequencing(database, clock, vault, spool=spool, anchors=immediate(anchors_of(settings)))
    deployment = Deployment(
        settings=settings,
        clock=clock,
        audit=audit,
        log=Log(database),
        vault=vault,
        spool=spool,
        evidence=FileEvidenceStore(settings.evidence_root),
        registry=cast("Any", registry),
        sandbox=NoSandbox(),
        engine=CelEngine(),
        config=ConfigFolder(settings.config_dir),
    )
    audit.deployment = deployment
    return World(root, deployment, registry, clock)


def in_operation(root: Path, *, features: Sequence[str] = ("income", "debt")) -> World:
    """Real rows, version 1 adopted, then 2 and 3 promoted; trials are answered."""
    import pyarrow as pa
    import pyarrow.parquet

    world = make_world(root, champion=None)
    rows = pa.table({**{name: [1.0, 2.0, 3.0] for name in features}, "y": [0, 1, 0], "group": [0, 1, 0]})
    pa.parquet.write_table(rows, root / "home" / "data" / "loan" / "batches" / "clean.parquet")
    adopt(world.deployment, WORKLOAD, "1", actor="root", reason="it was there before Airlock")
    world.releases = {version: world.promoted(version) for version in ("2", "3")}
    world.deployment = replace(world.deployment, sandbox=TrialSandbox())
    return world


def make_world(root: Path, *, champion: str | None = "1") -> World:
    """A new deployment with configuration, data, schema and three registered versions."""
    write_config(root / "config")
    batches = root / "home" / "data" / "loan" / "batches"
    batches.mkdir(parents=True)
    (batches / "clean.parquet").write_bytes(b"evaluation rows")
    (batches.parent / "training.parquet").write_bytes(b"training rows")
    world = open_world(root)
    world.deployment.audit.migrate()
    create_key(world.deployment)
    for version in ("1", "2", "3"):
        world.registry.register(version)
    if champion is not None:
        world.registry.champions[WORKLOAD] = champion
    return world
