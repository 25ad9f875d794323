"""Starts and stops the processes of a local Airflow, and leaves none behind."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.evidence import write_durably
from airlock.adapters.settings import Settings
from airlock.core.errors import ConflictError, NotFoundError, UnavailableError
from airlock.core.people import People

HOST = "127.0.0.1"
API_SERVER = "api-server"
SCHEDULER = "scheduler"
SEQUENCER = "sequencer"
COURIER = "courier"
COMPONENTS = (SEQUENCER, API_SERVER, SCHEDULER, "dag-processor", "triggerer")
STOP_SECONDS = 20
HEALTHY_SECONDS = 300

RESTARTS = 3
RESTART_SECONDS = 600
"""A component that was started again ``RESTARTS`` times within so many seconds is not once more."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Passwords:
    """The generated passwords of a local Airflow, in a file only its owner can read."""

    path: Path

    def read(self) -> dict[str, str]:
        """Passwords by user.

        Raises:
            NotFoundError: no local Airflow was ever started here.
        """
        try:
            data: dict[str, str] = json.loads(self.path.read_text())
        except FileNotFoundError as error:
            raise NotFoundError(
                "no local Airflow was started here",
                where=str(self.path),
                fix="run `airlock up`, or set AIRLOCK_USER and AIRLOCK_PASSWORD for a remote one",
            ) from error
        return data

    def ensure(self, users: list[str]) -> dict[str, str]:
        """Passwords for all ``users``, generating those that are missing."""
        known = self.read() if self.path.exists() else {}
        passwords = {user: known.get(user) or secrets.token_urlsafe(12) for user in users}
        write_durably(self.path, json.dumps(passwords).encode() + b"\n", mode=0o600)
        return passwords


def local_passwords(settings: Settings) -> Passwords:
    """Where the passwords of this deployment's local Airflow are."""
    return Passwords(settings.home / "airflow" / "passwords.json")


def port_problem(port: int) -> str:
    """Why ``port`` cannot be used, or nothing."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


class Supervisor:
    """One local Airflow and the sequencer of its audit log, bound to this machine only."""

    def __init__(
        self, settings: Settings, people: People, *, port: int, extra: dict[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._people = people
        self._port = port
        self._extra = extra or {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: dict[str, list[float]] = {}
        self._state = RunState(settings.home)

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://{HOST}:{self._port}"

    @property
    def _database(self) -> Path:
        return self._settings.home / "airflow" / "airflow.db"

    @property
    def logs(self) -> Path:
        """Folder with one log file for each component."""
        return self._settings.home / "logs"

    def environment(self) -> dict[str, str]:
        """The environment of every component. Contains secrets; never printed."""
        settings, home = self._settings, self._settings.home / "airflow"
        users = {person.user: person.airflow_role for person in self._people.people}
        users[settings.service_user] = "user"
        passwords = local_passwords(settings).ensure(list(users))
        keys = _keys(home / "keys.json")
        project = settings.config_dir.parent
        airflow = {
            "CORE__DAGS_FOLDER": str(project / "dags"),
            "CORE__PLUGINS_FOLDER": str(project / "plugins"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            # Each parallel task costs memory; a release has at most five gates side by side.
            "CORE__PARALLELISM": "5",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in users.items()),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(local_passwords(settings).path),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__FERNET_KEY": keys["fernet"],
            # A component ends when a write waits for longer than this a few times in a row; SQLite's 5 s are
            # short on a busy machine, where a task that starts holds the database.
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self._database}?timeout=30",
            "API__HOST": HOST,
            "API__PORT": str(self._port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": keys["api"],
            "API_AUTH__JWT_SECRET": keys["jwt"],
            # The latency lever: 0.24 s a task at 0.1 and 1.13 s at 1; below 0.2 answers can get lost.
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # A task killed hard is noticed after this long instead of five minutes.
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "10",
            # A scheduler that is held up for longer takes itself for dead and begins its tasks anew. One that
            # creates the runs of 80 workloads at once on a busy machine was, for 70 s; the default is 30.
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "15",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "LOGGING__BASE_LOG_FOLDER": str(home / "task-logs"),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "AIRLOCK_"))
        }
        return {
            **inherited,
            "AIRFLOW_HOME": str(home),
            **{f"AIRFLOW__{key}": value for key, value in airflow.items()},
            **settings.environment(),
            "AIRLOCK_AIRFLOW_URL": self.url,
            "AIRLOCK_SERVICE_PASSWORD": passwords[settings.service_user],
            "PYTHONPATH": str(settings.config_dir),
            "GX_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            # BLAS threads of parallel tasks would fight for the same cores.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **self._extra,
        }

    def start(self) -> None:
        """Migrate the database and start every component.

        Raises:
            ConflictError: the port is in use, or an Airflow of this deployment already runs.
            UnavailableError: the database could not be migrated.
        """
        if running := self._state.read():
            raise ConflictError(
                f"Airlock already runs here as process {running['pid']}",
                where=str(running["url"]),
                fix="use it, or stop it with `airlock down`",
            )
        _end_groups(self._state.groups_left)
        if problem := port_problem(self._port):
            raise ConflictError(
                f"port {self._port} cannot be used: {problem}", where=HOST, fix="choose another with --port"
            )
        environment = self.environment()
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            # First, so that it is at work when the first approval or adoption waits for it.
            self._spawn(SEQUENCER, environment)
            self._migrate(environment)
            _end_schedulers(self._database)
            for component in COMPONENTS[1:]:
                self._spawn(component, environment)
            if (self._settings.config_dir / "notifications.yaml").is_file():
                self._spawn(COURIER, environment)
        except BaseException:
            self.stop()
            raise

    def _migrate(self, environment: dict[str, str]) -> None:
        log = self.logs / "migrate.log"
        with log.open("ab") as stream:
            command = [sys.executable, "-m", "airflow", "db", "migrate"]
            done = subprocess.run(command, env=environment, stdout=stream, stderr=stream, check=False)
        if done.returncode != 0:
            raise UnavailableError(
                "Airflow's database could not be migrated", where=str(log), fix="read the end of that file"
            )

    def _spawn(self, component: str, environment: dict[str, str]) -> None:
        program = "airlock.cli" if component in (SEQUENCER, COURIER) else "airflow"
        with (self.logs / f"{component}.log").open("ab") as stream:
            self._children[component] = subprocess.Popen(
                [sys.executable, "-m", program, component],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                # A group of its own: the terminal's Ctrl-C goes to us alone, and we stop them in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # this process starts no threads before
            )
        self._state.write(self._port, self.url, [child.pid for child in self._children.values()])

    def wait_healthy(self, seconds: float = HEALTHY_SECONDS) -> None:
        """Wait until Airflow says that all four components are healthy.

        Raises:
            UnavailableError: a component died, or the time is over.
        """
        client = AirflowClient(self.url, "", "")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.check()
            if client.is_healthy():
                return
            time.sleep(0.5)
        raise UnavailableError(f"Airflow was not healthy after {seconds:.0f} s", where=str(self.logs))

    def check(self) -> None:
        """Notice a component that died.

        Raises:
            UnavailableError: naming it and its log.
        """
        if died := self._dead():
            raise self._gone(died[0])

    def keep(self) -> list[str]:
        """Start again what died, as a service manager does; returns a sentence about each.

        Airflow ends a component at an error of the database that is over a moment later. What it left running
        is ended first: the next one knows nothing of it.

        Raises:
            UnavailableError: naming a component that dies again and again, and its log.
        """
        told = []
        for component in self._dead():
            now, child = time.monotonic(), self._children[component]
            lately = [moment for moment in self._ended.get(component, []) if now - moment < RESTART_SECONDS]
            if len(lately) == RESTARTS:
                raise self._gone(component)
            self._ended[component] = [*lately, now]
            told.append(f"{component} stopped with code {child.returncode} and is started again")
            _end_groups(partial(_living, child.pid))
            if component == SCHEDULER:
                _end_schedulers(self._database)
            self._spawn(component, self.environment())
        return told

    def _dead(self) -> list[str]:
        return [name for name, child in self._children.items() if child.poll() is not None]

    def _gone(self, component: str) -> UnavailableError:
        return UnavailableError(
            f"{component} stopped with code {self._children[component].returncode}",
            where=str(self.logs / f"{component}.log"),
            fix="read the end of that file, then start again",
        )

    def stop(self) -> None:
        """Stop every component and everything it started. Safe to repeat."""
        until = time.monotonic() + STOP_SECONDS
        # Tasks that end report to the API server, and what they record is sealed by the sequencer.
        others = [name for name in (COURIER, *COMPONENTS) if name not in (API_SERVER, SEQUENCER)]
        for names in (others, [API_SERVER], [SEQUENCER]):
            children = [self._children[name] for name in names if name in self._children]
            for child in children:
                _signal_group(child.pid, signal.SIGTERM)
            for child in children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.1, until - time.monotonic()))
        for child in self._children.values():
            _signal_group(child.pid, signal.SIGKILL)
            child.wait()
        self._children.clear()
        self._state.clear()


def _end_schedulers(database: Path) -> None:
    """Tell Airflow that no earlier scheduler lives, so that the next one takes over its tasks as it starts.

    It would wait until the heartbeat of one that was killed is old, and ours is the only one there is.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=STOP_SECONDS)) as connection, connection:
        connection.execute(
            "UPDATE job SET state = 'failed' WHERE job_type = 'SchedulerJob' AND state = 'running'"
        )


class RunState:
    """The file that says which process supervises this deployment."""

    def __init__(self, home: Path) -> None:
        self._path = home / "run.json"

    def read(self) -> dict[str, Any] | None:
        """Process id, port and URL of a supervisor that is alive, or ``None``."""
        state = self._last()
        return state if state and _start_time(state["pid"]) == state["started"] else None

    def _last(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return state

    def groups_left(self) -> list[int]:
        """Process groups of components in which something lives although their supervisor was killed."""
        if self.read() is not None:
            return []
        return [pid for pid, started in self._last().get("components", []) if _group_lives(pid, started)]

    def write(self, port: int, url: str, components: Iterable[int]) -> None:
        """Say that this process supervises now, and which processes it started as leaders of groups."""
        pid = os.getpid()
        state = {
            "pid": pid,
            "started": _start_time(pid),
            "port": port,
            "url": url,
            "components": [(one, _start_time(one)) for one in components],
        }
        write_durably(self._path, json.dumps(state).encode())

    def clear(self) -> None:
        """Say that this process supervises no more; what another one said stays."""
        running = self.read()
        if running is None or running["pid"] == os.getpid():
            self._path.unlink(missing_ok=True)


def _start_time(pid: int) -> float | None:
    """When a process started, while it runs: an id alone may have been given to another process since."""
    try:
        process = psutil.Process(pid)
        # One that was killed stays as a zombie where nothing reaps it, such as in a bare container.
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _group_lives(leader: int, started: float | None) -> bool:
    """Whether anything is left of a group; where its leader is gone, its number is nobody else's as long."""
    if _start_time(leader) not in (started, None):
        return False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _keys(path: Path) -> dict[str, str]:
    if not path.exists():
        keys = {
            "fernet": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "api": secrets.token_urlsafe(32),
            "jwt": secrets.token_urlsafe(32),
        }
        write_durably(path, json.dumps(keys).encode(), mode=0o600)
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded


def _die_with_parent() -> None:
    """On Linux, a child gets SIGTERM when its supervisor dies, even by SIGKILL."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _living(leader: int) -> list[int]:
    return [leader] if _group_lives(leader, None) else []


def _end_groups(living: Callable[[], list[int]]) -> None:
    """Let what is left of groups end in the time that stopping takes, and then end it.

    A scheduler can hang as it stops, and would stay for ever.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in living():
            _signal_group(group, number)
        until = time.monotonic() + STOP_SECONDS
        while living() and time.monotonic() < until:
            time.sleep(0.1)


def _signal_group(leader: int, number: signal.Signals) -> None:
    # The group outlives its leader while workers are left, so it is signalled even after the leader ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
