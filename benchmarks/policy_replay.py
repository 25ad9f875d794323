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
import re
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


KINDS = 200
"""Releases that differ in more than their names; the others repeat what was decided about these."""


def build(root: Path, policy: Policy, count: int, processes: int = 1) -> list[Past]:
    """Store releases as the services do, with different changes of performance.

    What is decided about a release depends on its number modulo ``KINDS`` alone, so only that many are made;
    the bytes of the others are theirs with other names and digests. A few are made as well and compared.
    """
    builder = _Builder(root, policy)
    kinds = range(min(count, KINDS))
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        made = pool.map(builder.make, kinds, chunksize=5)
        numbers = [range(start, count, processes) for start in range(processes)]
        stored = pool.starmap(builder.store, [(made, some) for some in numbers])
    past = sorted((one for some in stored for one in some), key=lambda one: one.decided_us)
    for number in (0, count // 2, count - 1):
        assert past[number].decision == sha256_hex(builder.make(number).decision), "the copies are the same"
    return past


@dataclass(frozen=True)
class _Made:
    """The bytes of a release: its manifest, evidence and decision."""

    manifest: bytes
    evidence: list[bytes]
    decision: bytes


class _Builder:
    """Makes releases; the workload and the policy are stored once."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.store_at = _Fast(root)
        self.policy = policy
        self.workload = ConfigFolder(ROOT / "config").workload("rate-type-forecast")
        self.digests = self.store_at.put(self.workload.to_bytes()), self.store_at.put(policy.to_bytes())

    def make(self, number: int) -> _Made:
        """One release, decided."""
        manifest = self._manifest(number)
        released = manifest.digest
        evidence = {
            name: _record(name, manifest, released, self.policy, number % KINDS)
            for name in [*self.policy.gates, SCORE]
        }
        decision = decide(
            manifest=manifest,
            workload=self.workload,
            policy=self.policy,
            evidence=evidence,
            engine=CelEngine(),
            as_of=_TODAY,
        )
        records = [record.to_bytes() for record in evidence.values()]
        return _Made(manifest.to_bytes(), records, decision.to_bytes())

    def store(self, made: Sequence[_Made], numbers: Sequence[int]) -> list[Past]:
        """Releases of these numbers, each a copy of one that was made."""
        past = []
        for number in numbers:
            kind = number % KINDS
            one, put = made[kind], self.store_at.put
            names = {_release_id(kind): _release_id(number), sha256_hex(one.manifest): ""}
            manifest = one.manifest.replace(_release_id(kind).encode(), _release_id(number).encode())
            names[sha256_hex(one.manifest)] = put(manifest)
            for record in one.evidence:
                names[sha256_hex(record)] = put(_renamed(record, names))
            decision = put(_renamed(one.decision, names))
            workload = self.workload.name
            past.append(Past(_release_id(number), workload, str(number), number, decision))
        return past

    def _manifest(self, number: int) -> Manifest:
        file = FileRef(path="model.skops", sha256="a" * 64, size=1)
        trained = {"training_sha256": "c" * 64}
        artifact = ArtifactRef(version="2", sha256="b" * 64, files=[file] * 5, metadata=trained)
        data = DataRef(path="/data/x.parquet", sha256="c" * 64, size=1)
        return Manifest(
            release_id=_release_id(number),
            workload=self.workload.name,
            workload_digest=self.digests[0],
            submitter="dana",
            candidate=artifact,
            champion=artifact,
            training=data,
            evaluation=data,
            suite_digest="d" * 64,
            documentation_digest="e" * 64,
            policy_version=self.policy.version,
            policy_digest=self.digests[1],
            code={},
            environment={f"package-{index}": "1.0.0" for index in range(8)},
        )


def _release_id(number: int) -> str:
    return f"rate-type-forecast-v{number}-00000000"


def _renamed(data: bytes, names: Mapping[str, str]) -> bytes:
    """The same bytes with other names and digests: canonical JSON stays canonical."""
    return re.sub(
        rb"rate-type-forecast-v\d+-0{8}|[0-9a-f]{64}",
        lambda found: names.get(found[0].decode(), found[0].decode()).encode(),
        data,
    )


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
        past = build(Path(name), policy, options.releases, options.processes)
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
