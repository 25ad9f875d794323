"""The services of docker-compose.yaml as plain processes, for a machine without a container engine.

Command, environment and health check of a service are taken from the file as they stand. Replaced is only
what a container engine provides: values of variables, host names and ports, folders and volumes. PostgreSQL
and Redis are those of this machine; a cluster gets databases and roles of its own, gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml
from sqlalchemy.engine import make_url

from airlock.adapters.supervisor import HOST, _die_with_parent
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
POSTGRES = os.environ.get("AIRLOCK_TEST_POSTGRES") or "postgresql://postgres@127.0.0.1:5432/postgres"
REDIS = os.environ.get("AIRLOCK_TEST_REDIS") or "redis://127.0.0.1:6379"

ONE_SHOT = "airflow-init"
COMPONENTS = ("airflow", "celery", "mlflow", "airlock")
"""Each has a database and a role of its name."""

MEMBERS = ("airlock_app", "airlock_signer")
"""Logins with some of the rights in the audit store's database."""

IMAGE = ("config", "dags", "plugins")
"""Folders of the project that are in the image, beside the installed package."""

STATE = ("/var/lib/airlock", "/var/lib/airlock-anchor", "/var/lib/airlock-key", "/var/lib/mlflow")
"""Folders of the image in which services keep what has to last."""

_CLAIM = "airlock-tests:claimed"
_STOP_SECONDS = 30
_VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<operator>:[-?])(?P<rest>[^}]*)\}")
_FOLDER = re.compile(r"(?:(?<![\w.}/-])|(?<=file://))/(?:opt|var/lib)/[a-z-]+")
_PORT = re.compile(r"(?<![\w.])(?:(?P<host>[a-z0-9][a-z0-9.-]*):)?(?P<port>8080|5000|8974)(?!\w)")


class MissingError(Exception):
    """What this machine lacks to run a cluster."""


class Postgres:
    """Databases and roles as config/compose/postgres-init.sh makes them, under names nobody else has."""

    def __init__(self, passwords: dict[str, str]) -> None:
        import psycopg

        self.passwords = passwords
        self.server = make_url(POSTGRES).set(drivername="postgresql")
        self.address = f"{self.server.host}:{self.server.port or 5432}"
        self.prefix = f"airlock_test_{secrets.token_hex(4)}_"
        if shutil.which("psql") is None:
            raise MissingError("psql, PostgreSQL's client, is not installed")
        try:
            self.connect().close()
        except psycopg.OperationalError as error:
            raise MissingError(
                f"PostgreSQL does not answer at {self.server.render_as_string()}; "
                f"set AIRLOCK_TEST_POSTGRES ({str(error).splitlines()[0]})"
            ) from error

    def connect(self, component: str = "", *, user: str = "") -> Any:
        """A connection to a component's database, as the administrator or in another component's role."""
        import psycopg

        url = self.server.set(database=self.prefix + component) if component else self.server
        if user:
            password = self.passwords[f"{user.upper()}_DB_PASSWORD"]
            url = url.set(username=self.prefix + user, password=password)
        address = url.render_as_string(hide_password=False)
        return psycopg.connect(address, autocommit=True, connect_timeout=10)

    def rows(self, component: str, query: str, *values: object) -> list[Any]:
        with self.connect(component) as connection:
            return list(connection.execute(query, values).fetchall())

    def create(self, folder: Path) -> None:
        """Run the container's script; in it, only the names are others."""
        text = (ROOT / "config/compose/postgres-init.sh").read_text()
        script = folder / "postgres-init.sh"
        text = re.sub(r"^(create|member) (?=\w+ [A-Z])", rf"\1 {self.prefix}", text, flags=re.MULTILINE)
        script.write_text(re.sub(r"^(member .+ )(\w+)$", rf"\1{self.prefix}\2", text, flags=re.MULTILINE))
        environment = {
            "PATH": os.environ["PATH"],
            "PGHOST": str(self.server.host),
            "PGPORT": self.address.split(":")[1],
            "PGPASSWORD": str(self.server.password or ""),
            "POSTGRES_USER": str(self.server.username),
            "POSTGRES_DB": str(self.server.database),
            **self.passwords,
        }
        subprocess.run(["/bin/bash", str(script)], env=environment, check=True, timeout=600)

    def drop(self) -> None:
        with self.connect() as connection:
            for component in COMPONENTS:
                connection.execute(f'DROP DATABASE IF EXISTS "{self.prefix}{component}" WITH (FORCE)')
            for role in (*MEMBERS, *COMPONENTS):
                connection.execute(f'DROP ROLE IF EXISTS "{self.prefix}{role}"')


class Redis:
    """A numbered database of the server that was empty: claimed while it is used, empty afterwards."""

    def __init__(self) -> None:
        import redis

        server = REDIS.rsplit("/", 1)[0] if REDIS.count("/") > 2 else REDIS
        self._token = secrets.token_hex(8)
        for number in range(1, 16):
            self.url = f"{server}/{number}"
            self._client = redis.Redis.from_url(self.url, socket_connect_timeout=10)
            try:
                if self._client.dbsize() == 0 and self._client.set(_CLAIM, self._token, nx=True):
                    return
            except redis.RedisError as error:
                raise MissingError(
                    f"Redis does not answer at {REDIS}; set AIRLOCK_TEST_REDIS ({error})"
                ) from error
        raise MissingError(f"none of Redis' databases 1 to 15 at {REDIS} is empty")

    def release(self) -> None:
        if self._client.get(_CLAIM) == self._token.encode():
            self._client.flushdb()
        self._client.close()


class Cluster:
    """The services of docker-compose.yaml that run Airlock's image."""

    def __init__(self, folder: Path, values: dict[str, str], postgres: Postgres, redis: Redis) -> None:
        self.folder = folder
        self.values = values
        self.postgres = postgres
        self.redis = redis
        self.services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())[
            "services"
        ]
        self.names = [name for name, service in self.services.items() if "build" in service]
        self._ports = {port: free_port() for port in (8080, 5000, 8974, 8793, 8794)}
        self.environments: dict[str, dict[str, str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sessions: set[int] = set()
        for name in IMAGE:
            shutil.copytree(ROOT / name, folder / "project" / name)
        for name in self.names:
            self._mount(name)
        script = self.config / "compose" / "mlflow.sh"
        script.write_text(self._places("mlflow", script.read_text()))

    @property
    def url(self) -> str:
        """Where people find Airflow."""
        return f"http://{HOST}:{self._ports[8080]}"

    @property
    def config(self) -> Path:
        """The configuration that all containers see, and that a test may change."""
        return self.folder / "project" / "config"

    def inside(self, service: str, path: str) -> Path:
        """Where a path of a container is on this machine."""
        return self.folder / "containers" / service / path.lstrip("/")

    def _mount(self, service: str) -> None:
        """Make a container's folders: those of the image, then the volumes over them."""
        for path in ("/opt/airflow/logs", "/opt/airlock", "/tmp", *STATE):
            self.inside(service, path).mkdir(parents=True)
        for name in IMAGE:
            self.inside(service, f"/opt/airlock/{name}").symlink_to(self.folder / "project" / name)
        for volume in self.services[service]["volumes"]:
            source, target, *_ = volume.split(":")
            place = self.inside(service, target)
            real = self.folder / ("project" if source.startswith(".") else "volumes") / source
            real.mkdir(parents=True, exist_ok=True)
            place.unlink() if place.is_symlink() else place.rmdir()
            place.symlink_to(real)

    def _places(self, service: str, text: str) -> str:
        """A text of the file with this machine's ports, hosts and folders."""
        prefix = self.postgres.prefix
        text = _PORT.sub(self._port, text)
        text = re.sub(
            r"//(\w+:\$\{[^}]*\})@postgres/(\w+)", rf"//{prefix}\1@{self.postgres.address}/{prefix}\2", text
        )
        # The Redis of this machine asks for no password, and refuses one.
        text = re.sub(r"redis://:\$\{[^}]*\}@redis:6379/0", self.redis.url, text)
        text = re.sub(r"(?<![\w.])0\.0\.0\.0(?![\w.])", HOST, text)
        return _FOLDER.sub(lambda found: str(self._folder(service, found[0])), text)

    def _port(self, found: re.Match[str]) -> str:
        port = self._ports[int(found["port"])]
        return f"{HOST}:{port}" if found["host"] else str(port)

    def _folder(self, service: str, path: str) -> Path:
        inside = self.inside(service, path)
        assert inside.is_dir(), f"{path} of {service} is neither in the image nor on a volume"
        return inside

    def _text(self, service: str, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            if found["operator"] == ":?":
                return self.values[found["name"]]
            return self.values.get(found["name"], found["rest"])

        return _VARIABLE.sub(value, self._places(service, text)).replace("$$", "$")

    def environment(self, service: str) -> dict[str, str]:
        """The environment of a container: the image's, the service's, and what the engine adds."""
        image = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
        lines = re.findall(r"^ENV (.*)$", image, re.MULTILINE)
        given = dict(pair.split("=", 1) for line in lines for pair in line.split())
        given |= self.services[service]["environment"]
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOSTNAME": socket.gethostname(),
            "HOME": str(self.inside(service, "/opt/airflow")),
            "TMPDIR": str(self.inside(service, "/tmp")),
            # Ports that are Airflow's defaults and so stand nowhere in the file.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": HOST,
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self._ports[8974]),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._ports[8793]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._ports[8794]),
            **{name: self._text(service, text) for name, text in given.items()},
        }

    def start(self, service: str) -> None:
        """Start a service, once what it depends on is as far as the file demands."""
        for need, how in self.services[service]["depends_on"].items():
            if need == ONE_SHOT and how["condition"] == "service_completed_successfully":
                self.wait_done()
            elif need in self.names:
                assert how["condition"] == "service_healthy"
                self.wait_healthy(need)
        with (self.folder / f"{service}.log").open("ab") as stream:
            self._processes[service] = subprocess.Popen(
                [self._text(service, word) for word in self.services[service]["command"]],
                env=self.environment(service),
                cwd=self.inside(service, "/opt/airlock"),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509
            )
        # Read now: Airflow gives its processes titles, which overwrite where their environment stands.
        self._sessions.add(self._processes[service].pid)
        self.environments[service] = psutil.Process(self._processes[service].pid).environ()

    def wait_done(self) -> None:
        """Wait until the one-shot service has done its work."""
        code = self._processes[ONE_SHOT].wait(600)
        assert code == 0, f"{ONE_SHOT} ended with {code}:\n{self.log(ONE_SHOT)[-3000:]}"

    def wait_healthy(self, service: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Wait until its health check is content, as the engine does, and return what it says."""
        end = time.monotonic() + seconds
        while (check := self.check(service)).returncode != 0:
            code = self._processes[service].poll()
            assert code is None, f"{service} ended with {code}:\n{self.log(service)[-3000:]}"
            assert time.monotonic() < end, f"{service}: {check.stderr[-500:]}\n{self.log(service)[-3000:]}"
            time.sleep(2)  # some checks cost seconds of a processor
        return check

    def check(self, service: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a service's health check."""
        kind, *words = (self._text(service, word) for word in self.services[service]["healthcheck"]["test"])
        assert kind in ("CMD", "CMD-SHELL")
        return self.run(service, words if kind == "CMD" else ["/bin/sh", "-c", *words], **environment)

    def run(self, service: str, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's environment, as ``docker compose exec`` does."""
        return subprocess.run(
            command,
            env=self.environment(service) | environment,
            cwd=self.inside(service, "/opt/airlock"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")

    def processes(self, service: str) -> list[psutil.Process]:
        """The process of a service and all below it."""
        leader = psutil.Process(self._processes[service].pid)
        return [leader, *leader.children(recursive=True)]

    def listening(self, service: str) -> list[str]:
        """Addresses at which the processes of a service listen."""
        found = []
        for process in self.processes(service):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [
                    f"{process.name()} {connection.laddr}"
                    for connection in process.net_connections()
                    if connection.status == psutil.CONN_LISTEN
                ]
        return found

    def left(self) -> list[str]:
        """Processes in the sessions that services opened."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getsid(process.pid) in self._sessions:
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
        return found

    def stop(self) -> None:
        """Stop every service as the engine does, and end whatever one of them leaves behind."""
        running = {name: child for name, child in self._processes.items() if child.poll() is None}
        below = [process for name in running for process in self.processes(name)]
        for child in running.values():
            child.send_signal(signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        for child in running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, end - time.monotonic()))
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil compares the start time too: never somebody else's process
        for child in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def generated() -> dict[str, str]:
    """A value for every variable that .env.example leaves empty."""
    from cryptography.fernet import Fernet

    names = re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    return {
        name: Fernet.generate_key().decode() if "FERNET" in name else secrets.token_hex(32) for name in names
    }


@contextlib.contextmanager
def cluster(folder: Path, **values: str) -> Iterator[Cluster]:
    """A cluster with its databases, of which nothing runs yet; all gone afterwards.

    ``values`` are variables that .env.example leaves out.

    Raises:
        MissingError: PostgreSQL or Redis does not answer.
    """
    values = {**generated(), **values}
    postgres = Postgres({name: value for name, value in values.items() if name.endswith("_DB_PASSWORD")})
    with contextlib.ExitStack() as stack:
        redis = Redis()
        stack.callback(redis.release)
        stack.callback(postgres.drop)
        postgres.create(folder)
        found = Cluster(folder, values, postgres, redis)
        stack.callback(found.stop)
        yield found
