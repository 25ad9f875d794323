"""A real Airflow on a free port with the demo's models; shared by all system tests of a session."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import Supervisor, free_port, local_passwords
from airlock.cli.local import prepare
from airlock.core.audit import Event, Kind
from airlock.core.release import Release, State
from airlock.demo.story import Story
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.releases import find_release
from airlock.services.watch import start_release, wait_for

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.slow)


def processes_of(home: Path) -> list[psutil.Process]:
    """Processes of the deployment in ``home``, known by their environment.

    The API server is not among them: it writes its title over its environment. Its port tells.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended while we looked
            mine = process.environ().get("AIRLOCK_HOME") == str(home)
            if mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@dataclass
class World:
    """A running Airlock with its models."""

    settings: Settings
    supervisor: Supervisor
    deployment: Deployment
    story: Story
    _clients: dict[str, AirflowClient] = field(default_factory=dict)

    def client(self, user: str) -> AirflowClient:
        if user not in self._clients:
            password = local_passwords(self.settings).read()[user]
            self._clients[user] = AirflowClient(self.supervisor.url, user, password)
        return self._clients[user]

    def submit(self, workload: str, version: str, *, user: str = "dana", batch: str = "clean") -> Submitted:
        release_id, run_id = start_release(
            self.deployment, self.client(user), workload, version=version, batch=batch, context="A test."
        )
        return Submitted(self, workload, release_id, run_id)

    def scheduler(self) -> psutil.Process:
        return psutil.Process(self.supervisor._children["scheduler"].pid)

    def cut_the_power(self) -> None:
        """End everything at once, without a chance to say good-bye."""
        children = self.supervisor._children
        for child in children.values():
            for process in [*psutil.Process(child.pid).children(recursive=True), child]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            child.wait()
        # A process may have forked while it was being looked for.
        for process in processes_of(self.settings.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        children.clear()
        self.supervisor._state.clear()

    def champion(self, workload: str) -> str:
        found = self.deployment.registry.champion(workload)
        assert found is not None
        return found.version


@dataclass
class Submitted:
    """A release that was submitted."""

    world: World
    workload: str
    release_id: str
    run_id: str

    @property
    def dag_id(self) -> str:
        return f"release__{self.workload}"

    @property
    def path(self) -> str:
        from airlock.adapters.airflow_api import _run_path

        return _run_path(self.dag_id, self.run_id)

    def wait(self, *, through_waiting: bool = False, seconds: float = 240) -> State:
        return wait_for(
            self.world.deployment,
            self.world.client("admin"),
            self.dag_id,
            self.run_id,
            self.release_id,
            on_change=lambda _: None,
            through_waiting=through_waiting,
            seconds=seconds,
        )

    def finished(self, seconds: float = 120) -> str:
        """Wait for the end of the DAG run and return its state."""
        return until(lambda: self._run_state() if self._run_state() in ("success", "failed") else "", seconds)

    def _run_state(self) -> str:
        return str(self.world.client("admin").run(self.dag_id, self.run_id)["state"])

    def task_state(self, task_id: str, map_index: int = -1) -> str | None:
        for instance in self.world.client("admin").task_instances(self.dag_id, self.run_id, task_id):
            if instance["map_index"] == map_index:
                state: str | None = instance["state"]
                return state
        return None

    def wait_for_task(self, task_id: str, states: set[str], seconds: float = 120) -> str:
        return until(lambda: found if (found := self.task_state(task_id) or "") in states else "", seconds)

    def release(self) -> Release:
        return find_release(self.world.deployment, self.release_id)

    def events(self, kind: Kind) -> list[Event]:
        return self.release().all(kind)

    def outcomes(self) -> dict[str, list[str]]:
        """Recorded outcomes by task, with the map index of mapped tasks."""
        found: dict[str, list[str]] = {}
        for event in self.events(Kind.TASK_OUTCOME):
            index = event.data["map_index"]
            name = event.data["task_id"] if index < 0 else f"{event.data['task_id']}[{index}]"
            found.setdefault(name, []).append(event.data["state"])
        return found

    def attempts(self) -> list[Event]:
        """Audited requests to change this run."""
        recorded = self.world.deployment.audit.events(kinds=[Kind.API_ATTEMPT])
        return [entry.event for entry in recorded if entry.event.data["run_id"] == self.run_id]


def until(probe: Callable[[], str], seconds: float) -> str:
    """Call ``probe`` until it returns something, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.3)
    raise AssertionError(f"nothing within {seconds} s")


def make_settings(folder: Path) -> Settings:
    """Settings with a copy of the project's configuration, which tests may change."""
    project = folder / "project"
    for name in ("config", "dags", "plugins"):
        shutil.copytree(ROOT / name, project / name)
    return Settings(home=folder / "home", config_dir=project / "config", deployment="test")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = make_settings(tmp_path_factory.mktemp("world"))
    deployment = open_deployment(settings)
    prepare(settings)
    supervisor = Supervisor(settings, deployment.config.people(), port=free_port())
    story = Story(settings, supervisor.url, Console(quiet=True))
    supervisor.start()
    try:
        story.set_up(ROOT / "data" / "loanapp.csv", lambda _: None)
        supervisor.wait_healthy()
        story.wait_for_dags()
        yield World(settings, supervisor, deployment, story)
    finally:
        supervisor.stop()
