"""Replay of 10,000 stored releases under another policy: under 10 s on two cores (requirement P-4).

    python -m benchmarks.policy_replay [--releases 10000] [--processes 2]

The floor is reading and hashing the same files in the same number of processes, without deciding anything:
what no replay from stored evidence can be faster than. Both are measured interleaved, so that a busy machine
slows both. Peak memory is that of this process and its largest child.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.evidence import FileEvidenceStore
from airlock.core.canonical import sha256_hex
from airlock.core.decision import SCORE, decide
from airlock.core.evidence import Evidence, GateResult, Metric, Verdict
from airlock.core.manifest import ArtifactRef, DataRef, FileRef, Manifest
from airlock.core.policy import Policy
from airlock.services.replay import Again, Past, decided_again

ROOT = Path(__file__).resolve().parent.parent
MEMORY = Path("/dev/shm")  # noqa: S108  # a folder in memory, so that the disk is not what is measured
_TODAY = date(2026, 1, 1)
METRICS = 40
"""Metrics of each gate: what the shipped gates keep for a model of about ten features."""


def build(root: Path, policy: Policy, count: int) -> list[Past]:
    """Store releases as the services do, with different changes of performance."""
    workload = ConfigFolder(ROOT / "config").workload("rate-type-forecast")
    engine = CelEngine()
    put = _Fast(root).put
    digest, policy_digest = put(workload.to_bytes()), put(policy.to_bytes())
    file = FileRef(path="model.skops", sha256="a" * 64, size=1)
    trained = {"training_sha256": "c" * 64}
    artifact = ArtifactRef(version="2", sha256="b" * 64, files=[file] * 5, metadata=trained)
    data = DataRef(path="/data/x.parquet", sha256="c" * 64, size=1)
    past = []
    for number in range(count):
        manifest = Manifest(
            release_id=f"rate-type-forecast-v{number}-00000000",
            workload=workload.name,
            workload_digest=digest,
            submitter="dana",
            candidate=artifact,
            champion=artifact,
            training=data,
            evaluation=data,
            suite_digest="d" * 64,
            documentation_digest="e" * 64,
            policy_version=policy.version,
            policy_digest=policy_digest,
            code={},
            environment={f"package-{index}": "1.0.0" for index in range(8)},
        )
        released = put(manifest.to_bytes())
        evidence = {
            name: _record(name, manifest, released, policy, number) for name in [*policy.gates, SCORE]
        }
        decision = decide(
            manifest=manifest,
            workload=workload,
            policy=policy,
            evidence=evidence,
            engine=engine,
            as_of=_TODAY,
        )
        for record in evidence.values():
            put(record.to_bytes())
        past.append(Past(manifest.release_id, workload.name, str(number), number, put(decision.to_bytes())))
    return past


def _record(gate: str, manifest: Manifest, released: str, policy: Policy, number: int) -> Evidence:
    metrics = [
        Metric(
            name="psi", value=(number * index % 97) / 500, threshold=0.2, direction="lower", n=1000,
            where=f"feature-{index}", interval=(0.0, 0.3), confidence=0.95, method="bootstrap",
        )
        for index in range(METRICS)
    ]  # fmt: skip
    change = {
        "relative": (number % 200) / 1000, "architecture": False, "threshold": 0.0, "new_features": [],
        "removed_features": [], "hyperparameters": [], "from_estimator": "A", "to_estimator": "A",
    }  # fmt: skip
    details: dict[str, Any] = {"change": change}
    result = GateResult(verdict=Verdict.PASSED, summary=f"{gate} passes", metrics=metrics, details=details)
    return Evidence(
        release_id=manifest.release_id,
        manifest_digest=released,
        gate=gate,
        config=policy.gates.get(gate, {}),
        result=result,
    )


class _Fast:
    """Writes evidence without waiting for the disk: 100,000 of those waits measure nothing here."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> str:
        digest = sha256_hex(data)
        place = self._root / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return digest


def _floor(arguments: tuple[str, list[str]]) -> int:
    store = FileEvidenceStore(Path(arguments[0]))
    size = 0
    for decision in arguments[1]:
        data = json.loads(store.get(decision))
        size += sum(
            len(store.get(digest)) for digest in (data["manifest_digest"], *data["evidence"].values())
        )
    return size


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--releases", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = ConfigFolder(ROOT / "config")
    policy = folder.policy(folder.policy_versions()[-1])
    data = yaml.safe_load(yaml.safe_dump(policy.to_data()))
    data["version"] = "99.0.0"
    data["limits"]["red_change"]["value"] *= 0.8
    other = Policy.model_validate(data)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        past = build(Path(name), policy, options.releases)
        times: dict[str, list[tuple[float, float]]] = {"floor": [], "replay": []}
        changed = size = 0
        for _ in range(options.rounds):
            for what, found in times.items():
                before, busy = time.perf_counter(), _cpu()
                if what == "replay":
                    changed = _replay(name, other, past, options.processes)
                else:
                    size = _read_all(name, past, options.processes)
                found.append((time.perf_counter() - before, _cpu() - busy))
    middle = {
        what: [statistics.median(one) for one in zip(*found, strict=True)] for what, found in times.items()
    }
    print(f"{options.releases} releases, {size / 1e6:.0f} MB of evidence, {len(policy.rules)} rules")
    for what, (seconds, busy) in middle.items():
        print(f"{what}: {seconds:.1f} s, {busy:.1f} s of CPU in {options.processes} processes")
    ratio = middle["replay"][1] / middle["floor"][1]
    print(f"{changed} decided differently; {ratio:.1f} times the floor's CPU time")
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"peak memory of a process: {peak / 1024:.0f} MB; {os.cpu_count()} cores")


def _replay(name: str, other: Policy, past: list[Past], processes: int) -> int:
    found = decided_again(Again(FileEvidenceStore(Path(name)), CelEngine(), other), past, processes)
    if problems := [one for one in found if isinstance(one, str)]:
        raise SystemExit(problems[0])
    return sum(not isinstance(one, str) and bool(one.changed) for one in found)


def _read_all(name: str, past: list[Past], processes: int) -> int:
    parts = [(name, [one.decision for one in past[start::processes]]) for start in range(processes)]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return sum(pool.map(_floor, parts))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
