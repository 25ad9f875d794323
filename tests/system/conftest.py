"""Two real Airflows, each shared by system tests of a session that can run beside those of the other.

For one, `airlock demo --once` puts its five releases through from nothing and stops; then `airlock up` starts
Airflow again where the demo left it. So the demo is tested as people run it, and its releases need not be
run a second time to look at them closely. The other begins with nothing but data and small workloads.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from pydantic import SecretStr

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import RunState, local_passwords, port_problem
from airlock.core.audit import Event, Kind
from airlock.core.release import Release, State
from airlock.demo import data, models
from airlock.demo.story import CHAPTERS
from airlock.services.adopt import adopt
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.releases import find_release
from airlock.services.watch import start_release, wait_for
from tests.conftest import AFTER_THE_DEMO, AIRFLOW_SAID
from tests.support.fake_slack import CHANNEL, SECRET, TEAM, TOKEN, FakeSlack, fake_slack
from tests.support.ports import free_port
from tests.support.small_workloads import GREEN, add_small_workloads, small

ROOT = Path(__file__).parents[2]

PATIENCE = 600
"""Seconds until a test says that something never comes: many times what it takes, also on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.slow)
            if item.get_closest_marker("timeout") is None:
                # The first test of a session waits for Airflow and the whole demo.
                item.add_marker(pytest.mark.timeout(1800))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep what Airflow said last with a test that failed: its logs are gone when the run is over."""
    outcome: Any = yield
    report = outcome.get_result()
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(world, World):
        report.sections.append((AIRFLOW_SAID, world.said_last()))


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


def airlock(*arguments: str, env: dict[str, str], seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command as people do."""
    command = [sys.executable, "-m", "airlock.cli", *arguments]
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=seconds, check=False)


@dataclass
class World:
    """A running Airlock with its models, and after a demo what it said and its releases by their letter."""

    settings: Settings
    port: int
    deployment: Deployment
    slack: FakeSlack
    demo: str = ""
    told: dict[str, Submitted] = field(default_factory=dict)
    _clients: dict[str, AirflowClient] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **self.settings.environment(), "COLUMNS": "120", "NO_COLOR": "1"}

    def client(self, user: str) -> AirflowClient:
        if user not in self._clients:
            password = local_passwords(self.settings).read()[user]
            self._clients[user] = AirflowClient(self.url, user, password)
        return self._clients[user]

    def register(self, model: models.DemoModel) -> str:
        """Train one more version of a demo model and return its number."""
        features = self.deployment.config.workload(model.workload).model.features
        return models.register(self.settings, model, features)

    def submit(self, workload: str, version: str, *, user: str = "dana", batch: str = "clean") -> Submitted:
        release_id, run_id = start_release(
            self.deployment, self.client(user), workload, version=version, batch=batch, context="A test."
        )
        return Submitted(self, workload, release_id, run_id)

    def submit_small(self, workload: str, *, user: str = "dana") -> Submitted:
        """Register a refit as one more version of a small workload, and submit it."""
        return self.submit(workload, self.register(small(models.RATE_REFIT, workload)), user=user)

    def up(self) -> None:
        """Start Airflow in the background, and return when it is healthy."""
        done = airlock("up", "--detach", "--port", str(self.port), env=self.env)
        assert done.returncode == 0, done.stderr

    def said_last(self) -> str:
        """The last lines of what supervises, and of each component where that is gone."""
        logs = self.settings.home / "logs"
        alive = RunState(self.settings.home).read() is not None
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-12:])
            for path in ([logs / "up.log"] if alive else sorted(logs.glob("*.log")))
            if path.is_file()
        )

    def supervisor(self) -> psutil.Process:
        """The process that `airlock up` left behind, which started all others."""
        running = RunState(self.settings.home).read()
        assert running is not None
        return psutil.Process(running["pid"])

    def component(self, name: str) -> psutil.Process:
        """One of these, by what its command or its title says."""
        (found,) = [child for child in self.supervisor().children() if name in " ".join(child.cmdline())]
        return found

    def cut_the_power(self) -> None:
        """End everything at once, without a chance to say good-bye."""
        supervisor = self.supervisor()
        # It would stop the others in order when it sees one go.
        supervisor.suspend()
        for process in [*supervisor.children(recursive=True), supervisor]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # A process may have forked while it was being looked for.
        for process in processes_of(self.settings.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

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

    def wait(self, *, through_waiting: bool = False) -> State:
        return wait_for(
            self.world.deployment,
            self.world.client("admin"),
            self.dag_id,
            self.run_id,
            self.release_id,
            on_change=lambda _: None,
            through_waiting=through_waiting,
            seconds=PATIENCE,
        )

    @property
    def version(self) -> str:
        return self.release().version

    def finished(self) -> str:
        """Wait for the end of the DAG run and return its state."""
        return until(lambda: state if (state := self._run_state()) in ("success", "failed") else "")

    def _run_state(self) -> str:
        return str(self.world.client("admin").run(self.dag_id, self.run_id)["state"])

    def task_state(self, task_id: str, map_index: int = -1) -> str | None:
        for instance in self.world.client("admin").task_instances(self.dag_id, self.run_id, task_id):
            if instance["map_index"] == map_index:
                state: str | None = instance["state"]
                return state
        return None

    def wait_for_task(self, task_id: str, states: set[str]) -> str:
        return until(lambda: found if (found := self.task_state(task_id) or "") in states else "")

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


def until(probe: Callable[[], str]) -> str:
    """Call ``probe`` until it returns something, and return that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.5)
    raise AssertionError(f"nothing within {PATIENCE} s")


def make_settings(folder: Path) -> Settings:
    """Settings with a copy of the project's configuration, which tests may change."""
    project = folder / "project"
    for name in ("config", "dags", "plugins"):
        shutil.copytree(ROOT / name, project / name)
    for path in (project / "config" / "workloads").glob("*.yaml"):
        # What they see must not depend on the day of the week; tests start such runs themselves.
        path.write_text(re.sub(r"schedule: .*", 'schedule: "0 0 29 2 *"', path.read_text()))
    return Settings(home=folder / "home", config_dir=project / "config", deployment="test")


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> World:
    """The Airflow that the tests of this file share with others."""
    shared = "demo_world" if request.path.stem in AFTER_THE_DEMO else "small_world"
    found: World = request.getfixturevalue(shared)
    return found


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Airflow where the demo left it."""
    base = _project(tmp_path_factory.mktemp("demo"))
    port = free_port()
    env = {**os.environ, **base.environment(), "COLUMNS": "120", "NO_COLOR": "1"}
    demo = airlock("demo", "--once", "--answer", "approve", "--port", str(port), env=env, seconds=1500)
    assert demo.returncode == 0, demo.stderr[-3000:]
    settings = Settings(home=base.home / "demo", config_dir=base.config_dir, deployment="demo")
    assert processes_of(settings.home) == [], "the demo left something running"
    with _running(settings, port) as found:
        found.demo = demo.stderr
        found.told = _told(found)
        yield found


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Airflow as it begins."""
    settings = _project(tmp_path_factory.mktemp("small"))
    data.prepare(ROOT / "data" / "loanapp.csv", settings.data_root)
    with _running(settings, free_port()) as found:
        yield found


def _project(folder: Path) -> Settings:
    settings = make_settings(folder)
    (folder / "project" / "data").symlink_to(ROOT / "data")
    add_small_workloads(settings.config_dir)
    return settings


@contextlib.contextmanager
def _running(settings: Settings, port: int) -> Iterator[World]:
    """Airflow with a Slack, and a champion of the small workload that has one."""
    with fake_slack() as slack:
        given = {
            "slack_signing_secret": SecretStr(SECRET),
            "slack_team": TEAM,
            "slack_token": SecretStr(TOKEN),
            "slack_api": slack.url,
        }
        settings = settings.model_copy(update=given)
        connect_slack(settings.config_dir, slack)
        world = World(settings, port, open_deployment(settings), slack)
        world.up()
        try:
            # The sequencer has to run: adopting waits for its signature.
            first = world.register(small(models.RATE_CHAMPION, GREEN))
            adopt(world.deployment, GREEN, first, actor="admin", reason="a test")
            yield world
        finally:
            down = airlock("down", env=world.env)
            left = processes_of(settings.home)
        assert down.returncode == 0, down.stderr
        assert left == []
        assert port_problem(port) == ""


def connect_slack(config: Path, slack: FakeSlack) -> None:
    """Give everybody an account there, and tell the courier."""
    people = yaml.safe_load((config / "people.yaml").read_text())
    for person in people["people"]:
        person["slack"] = f"U0{person['user'].upper()}"
    (config / "people.yaml").write_text(yaml.safe_dump(people))
    channel = {"name": "governance", "type": "slack", "to": CHANNEL, "secret": "AIRLOCK_SLACK_TOKEN"}
    channels = [{**channel, "options": {"base_url": slack.url}}]
    (config / "notifications.yaml").write_text(yaml.safe_dump({"channels": channels}))


def _told(world: World) -> dict[str, Submitted]:
    """The demo's releases, in the order in which it submitted them."""
    submitted = [entry.event for entry in world.deployment.audit.events(kinds=[Kind.RELEASE_SUBMITTED])]
    assert len(submitted) == len(CHAPTERS)
    return {
        chapter.letter: Submitted(world, event.workload, event.release_id, event.data["run_id"])
        for chapter, event in zip(CHAPTERS, submitted, strict=True)
    }
