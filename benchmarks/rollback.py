"""Rollback as a person sees it: from the command to a verified alias, a signed record, and notices queued.

    python -m benchmarks.rollback

Two real releases of the demo's workload go into production in a real MLflow (SQLite); the sequencer and the
courier run as processes of their own. Then ``airlock rollback`` is started as a fresh process, three times,
each with the version back in place. Measured from the start of the process until

- the alias is verified and ``rollback.finished`` is signed and anchored, both of which the command waits for,
- the courier has the notices of the incident in its queue.

The floor is what no rollback through MLflow's client can do without: a fresh Python that imports MLflow and
moves the alias, with no check and no record. CPU seconds are those of the command and of its sandbox; memory
is the command's peak. ``--limit`` (3 s) is for an idle machine; the exit code is 1 above it.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airlock.adapters.outbox import Outbox
from airlock.adapters.settings import Settings
from airlock.cli.local import prepare
from airlock.core.audit import Event, Kind
from airlock.demo import models
from airlock.demo.data import prepare as prepare_data
from airlock.gates import load_gate
from airlock.gates.base import Stage
from airlock.services.adopt import adopt
from airlock.services.decide import decide
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.evaluate import evaluate
from airlock.services.promote import promote
from airlock.services.reproduce import reproduce
from airlock.services.rollback import rollback
from airlock.services.score import score
from airlock.services.submit import freeze, submit

ROOT = Path(__file__).parents[1]
WORKLOAD = models.RATE_TYPE
RUNS = 3
PATIENCE = 120
FLOOR = """
import sys
from airlock.adapters.mlflow_registry import quiet_mlflow
quiet_mlflow()
import mlflow
client = mlflow.MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1])
client.set_registered_model_alias(sys.argv[2], "champion", sys.argv[3])
"""


@contextmanager
def processes(settings: Settings) -> Iterator[None]:
    """The sequencer and the courier."""
    environment = {**os.environ, **settings.environment()}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "airlock.cli", name],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("sequencer", "courier")
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait()


def released(deployment: Deployment, version: str) -> None:
    """Put a version into production through every gate, without Airflow."""
    release_id = f"{WORKLOAD}-v{version}-benchmark"
    submit(
        deployment, release_id=release_id, workload_name=WORKLOAD, version=version, batch="clean",
        context="A refit on newer rows, for the capacity plan of the next quarter.", submitter="dana",
        dag_id=f"release__{WORKLOAD}", run_id=f"benchmark-{version}",
    )  # fmt: skip
    freeze(deployment, release_id)
    gates = list(deployment.config.policy(deployment.config.workload(WORKLOAD).policy).gates)
    for gate in gates:
        if load_gate(gate).STAGE is Stage.BEFORE_SCORING:
            evaluate(deployment, release_id, gate)
    reproduce(deployment, release_id)
    score(deployment, release_id)
    for gate in gates:
        if load_gate(gate).STAGE is Stage.AFTER_SCORING:
            evaluate(deployment, release_id, gate)
    decision = decide(deployment, release_id)
    if decision.seats or decision.outcome != "ALLOW":
        raise SystemExit(f"version {version} is not green: {decision.sentence}")
    promote(deployment, release_id)


def wait_until_queued(deployment: Deployment, incident: str) -> None:
    """Wait until the courier has taken the incident over from the log: what it does next is telling."""
    outbox = Outbox(deployment.settings.home / "outbox.db")
    (opened,) = deployment.audit.events(key=f"benchmark/incident/{incident}/opened")
    (seq,) = deployment.log.seqs([opened.ingest_id or 0]).values()
    until = time.perf_counter() + PATIENCE
    while (outbox.position() or 0) <= seq:
        if time.perf_counter() > until:
            raise SystemExit(f"the courier did not get to {incident} in {PATIENCE} s")
        time.sleep(0.01)


def measured(deployment: Deployment, settings: Settings) -> tuple[float, float, float, Event]:
    """One rollback: seconds to the end that the command waits for, to the queue, and CPU seconds."""
    environment = {**os.environ, **settings.environment(), "NO_COLOR": "1"}
    command = [
        sys.executable, "-m", "airlock.cli", "rollback", WORKLOAD, "--user", "petra", "--without-airflow",
        "--reason", "the benchmark says so", "--no-changes",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    ended = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found = re.search(r"incident-[0-9a-f]{10}", done.stdout + done.stderr)
    assert found is not None, done.stdout
    wait_until_queued(deployment, found[0])
    queue = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = deployment.audit.events(workload=WORKLOAD, kinds=[Kind.ROLLBACK_FINISHED])[-1].event
    return ended, queue, cpu, last


def floor(settings: Settings, version: str) -> float:
    """Seconds of a fresh Python that imports MLflow and moves the alias."""
    command = [sys.executable, "-c", FLOOR, settings.mlflow_uri, WORKLOAD, version]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> int:
    """Measure and print; 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=3.0)
    limit = parser.parse_args().limit
    with tempfile.TemporaryDirectory(prefix="airlock-benchmark-") as name:
        settings = Settings(
            home=Path(name) / "home",
            config_dir=ROOT / "config",
            deployment="benchmark",
            anchor_wait_seconds=120,  # the sequencer starts beside it
        )
        deployment = open_deployment(settings)
        prepare(settings)
        prepare_data(ROOT / "data/loanapp.csv", settings.data_root)
        features = deployment.config.workload(WORKLOAD).model.features
        versions = [
            models.register(settings, model, features)
            for model in (models.RATE_CHAMPION, models.RATE_REFIT, models.RATE_REFIT)
        ]
        with processes(settings):
            adopt(deployment, WORKLOAD, versions[0], actor="benchmark", reason="it was there before")
            for version in versions[1:]:
                released(deployment, version)
            rows, floors = [], []
            for _ in range(RUNS):
                floors.append(floor(settings, versions[2]))
                rows.append(measured(deployment, settings))
                # Forward again, so that each run rolls the same version back.
                rollback(
                    deployment, WORKLOAD, to=versions[2], actor="petra", reason="once more, for the benchmark"
                )
    ends, queues, cpus = ([row[place] for row in rows] for place in range(3))
    base = statistics.median(floors)
    for label, values in (
        ("alias verified, record signed and anchored", ends),
        ("notices in the courier's queue", queues),
    ):
        best, middle = min(values), statistics.median(values)
        print(f"{label:44} best {best:5.2f} s  median {middle:5.2f} s  {middle / base:4.1f}x the floor")
    print(f"{'floor: import MLflow, move the alias':44} best {min(floors):5.2f} s  median {base:5.2f} s")
    print(f"{'CPU of command and sandbox':44} median {statistics.median(cpus):5.2f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{'peak memory of the largest process':44} {peak:.0f} MB")
    worst = statistics.median(queues)
    print(f"median {worst:.2f} s against a limit of {limit:g} s")
    return int(worst > limit)


if __name__ == "__main__":
    sys.exit(main())
