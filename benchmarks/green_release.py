"""A green release in a real Airflow: latency, orchestration, start-up and memory, in one run.

    python -m benchmarks.green_release

Orchestration is the time from trigger to champion alias in which no gate and no scoring was at work.
Its peer is a DAG of the same shape whose tasks do nothing, run in the same Airflow right before.
Memory is the peak proportional set size (shared pages counted once) of all processes Airlock started,
sampled twice a second from start-up to the end of the last release.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

import psutil
from rich.console import Console
from tests.support.ports import free_port

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import Supervisor, local_passwords
from airlock.cli.local import prepare
from airlock.core.audit import Kind
from airlock.core.release import Release, State
from airlock.demo import models
from airlock.demo.story import Story
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.releases import find_release
from airlock.services.watch import start_release, wait_for

ROOT = Path(__file__).parents[1]
RUNS = 3
UNTIL_PROMOTED = ("announce", "changes", "seal", "seat")

NOOP_DAG = """
from airflow.sdk import DAG, BaseOperator

class Noop(BaseOperator):
    def execute(self, context):
        return "nothing"

with DAG(dag_id="noop", schedule=None, is_paused_upon_creation=False) as dag:
    tasks = {{name: Noop(task_id=name) for name in {names}}}
    for name, upstream in {edges}.items():
        tasks[name].set_upstream([tasks[other] for other in upstream])
"""


class Memory(threading.Thread):
    """Samples the proportional set size of this process's descendants."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._done.wait(0.5):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_full_info().pss
                except psutil.Error:
                    continue  # it ended while we looked
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        """Stop, and return the peak in bytes."""
        self._done.set()
        self.join()
        return self.peak


def write_noop_dag(folder: Path, settings: Settings) -> None:
    """A DAG with the tasks and edges a release has until promotion."""
    import os

    os.environ["AIRFLOW_HOME"] = str(settings.home / "benchmark-airflow")
    os.environ["AIRLOCK_CONFIG_DIR"] = str(settings.config_dir)
    from airlock.airflow.dag_factory import release_dags

    dag = next(dag for dag in release_dags() if dag.dag_id == f"release__{models.RATE_TYPE}")
    names = [task.task_id for task in dag.tasks if task.task_id not in UNTIL_PROMOTED]
    edges = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks if task.task_id in names}
    flat = {name: name.replace(".", "_") for name in names}
    text = NOOP_DAG.format(
        names=list(flat.values()),
        edges={flat[name]: [flat[other] for other in upstream] for name, upstream in edges.items()},
    )
    (folder / "dags" / "noop.py").write_text(text)


def noop_seconds(client: AirflowClient) -> float:
    """Trigger to end of the last task of the no-op DAG."""
    start = time.time()
    run_id = client.trigger("noop", {})["dag_run_id"]
    while client.run("noop", run_id)["state"] not in ("success", "failed"):
        time.sleep(0.1)
    ends = [datetime.fromisoformat(task["end_date"]) for task in client.task_instances("noop", run_id)]
    return max(ends).timestamp() - start


def work_seconds(release: Release) -> float:
    """Length of the union of the intervals in which a gate or the scoring pass was at work."""
    intervals = sorted(
        (event.occurred_us / 1e6 - event.data["seconds"], event.occurred_us / 1e6)
        for event in release.all(Kind.GATE_EVALUATED)
    )
    total, reached = 0.0, 0.0
    for start, end in intervals:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def release_once(deployment: Deployment, client: AirflowClient, version: str) -> tuple[float, float]:
    """Seconds from trigger to promotion, and of these the seconds without work."""
    start = time.time()
    release_id, run_id = start_release(
        deployment, client, models.RATE_TYPE, version=version, batch="clean", context="Benchmark."
    )
    dag_id = f"release__{models.RATE_TYPE}"
    state = wait_for(deployment, client, dag_id, run_id, release_id, on_change=lambda _: None)
    assert state is State.PROMOTED, state
    release = find_release(deployment, release_id)
    finished = release.first(Kind.PROMOTION_FINISHED)
    assert finished is not None
    total = finished.occurred_us / 1e6 - start
    return total, total - work_seconds(release)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airlock-benchmark-") as name:
        folder = Path(name)
        for part in ("config", "dags", "plugins"):
            shutil.copytree(ROOT / part, folder / part)
        settings = Settings(home=folder / "home", config_dir=folder / "config", deployment="benchmark")
        # In a process of its own: importing Airflow here would fill the output with its warnings.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
            other.submit(write_noop_dag, folder, settings).result()
        deployment = open_deployment(settings)
        memory = Memory()
        memory.start()
        start = time.monotonic()
        prepare(settings)
        prepared = time.monotonic() - start
        supervisor = Supervisor(settings, deployment.config.people(), port=free_port())
        story = Story(settings, supervisor.url, Console(quiet=True))
        start = time.monotonic()
        supervisor.start()
        try:
            supervisor.wait_healthy()
            healthy = prepared + time.monotonic() - start
            story.set_up(ROOT / "data" / "loanapp.csv", lambda _: None)
            story.wait_for_dags()
            client = AirflowClient(supervisor.url, "dana", local_passwords(settings).read()["dana"])
            while not client.request("GET", "/dags/noop").is_success:
                time.sleep(0.5)
            versions = [story.versions["a"], *(story.register(models.RATE_REFIT) for _ in range(RUNS - 1))]
            noop = [noop_seconds(client) for _ in range(RUNS)]
            releases = [release_once(deployment, client, version) for version in versions]
        finally:
            supervisor.stop()
        peak = memory.stop()
    total, orchestration = (statistics.median(column) for column in zip(*releases, strict=True))
    floor = statistics.median(noop)
    print(f"start-up, nothing to healthy:     {healthy:5.1f} s")
    print(f"green release, trigger to alias:  {total:5.1f} s (all: {[round(run[0], 1) for run in releases]})")
    print(f"  of that orchestration:          {orchestration:5.1f} s")
    print(f"  same shape of no-op tasks:      {floor:5.1f} s, ratio {orchestration / floor:.2f}")
    print(f"peak memory of all processes:     {peak / 1e9:5.2f} GB proportional set size")


if __name__ == "__main__":
    main()
