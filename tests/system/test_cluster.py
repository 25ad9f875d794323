"""What docker-compose.yaml promises, with its own commands and environment, but without containers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import psycopg
import pytest
import yaml

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings, load_settings
from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.demo import data, models
from airlock.services.adopt import adopt
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.watch import answer_release, start_release
from tests.support.cluster import COMPONENTS, IMAGE, ONE_SHOT, ROOT, STATE, Cluster, MissingError, cluster
from tests.support.fake_slack import SECRET, TEAM, TOKEN, FakeSlack, fake_slack
from tests.support.small_workloads import GREEN, RED, add_small_workloads, small
from tests.system.conftest import PATIENCE, Submitted, World, connect_slack, until
from tests.system.test_slack import message_of, push, says

PASSWORD = "the password of everybody here"
USERS = ("dana", "grace", "ravi")
DAEMONS = (
    "mlflow", "sequencer", "courier", "api-server", "scheduler", "dag-processor", "triggerer", "worker",
)  # fmt: skip
CONTROL_ONLY = {"AIRFLOW_DB_PASSWORD", "AIRFLOW_FERNET_KEY", "AIRFLOW_API_SECRET_KEY", "AIRFLOW_JWT_SECRET"}
OWNERS = {"POSTGRES_PASSWORD", "MLFLOW_DB_PASSWORD", "AIRLOCK_DB_PASSWORD", "AIRLOCK_SIGNER_DB_PASSWORD"}
"""Passwords of whoever owns a database, and of who signs: no worker has a use for them."""


@dataclass
class Platform:
    """The running services, as people and tests use them, with one release of each kind under way."""

    cluster: Cluster
    settings: Settings
    deployment: Deployment
    slack: FakeSlack
    ids: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    releases: dict[str, Submitted] = field(default_factory=dict)
    _clients: dict[str, AirflowClient] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.cluster.url

    def client(self, user: str) -> AirflowClient:
        if user not in self._clients:
            password = PASSWORD if user != "airlock" else self.settings.service_password.get_secret_value()
            self._clients[user] = AirflowClient(self.cluster.url, user, password)
        return self._clients[user]

    def register(self, model: models.DemoModel) -> str:
        features = self.deployment.config.workload(model.workload).model.features
        return models.register(self.settings, model, features)

    def submit(self, workload: str) -> None:
        version = self.versions[workload]
        release_id, run_id = start_release(
            self.deployment, self.client("dana"), workload, version=version, batch="clean", context="A test."
        )
        self.releases[workload] = Submitted(cast("World", self), workload, release_id, run_id)

    def mlflow(self, path: str, *, login: bool = True, **kwargs: Any) -> httpx.Response:
        auth = ("airlock", self.cluster.values["MLFLOW_ADMIN_PASSWORD"]) if login else None
        return httpx.get(
            self.settings.mlflow_uri + path, auth=auth, trust_env=False, timeout=PATIENCE, **kwargs
        )

    def champion(self, workload: str) -> str:
        """As the MLflow server says."""
        query = {"name": workload, "alias": "champion"}
        response = self.mlflow("/api/2.0/mlflow/registered-models/alias", params=query)
        return str(response.raise_for_status().json()["model_version"]["version"])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with pytest.MonkeyPatch.context() as patch:
        try:
            with (
                fake_slack() as slack,
                cluster(
                    tmp_path_factory.mktemp("cluster"),
                    AIRLOCK_SLACK_SIGNING_SECRET=SECRET,
                    AIRLOCK_SLACK_TEAM=TEAM,
                    AIRLOCK_SLACK_TOKEN=TOKEN,
                    AIRLOCK_SLACK_API=slack.url,
                ) as services,
            ):
                connect_slack(services.config, slack)
                add_small_workloads(services.config)
                for name, value in services.environment("worker").items():
                    if name.startswith(("AIRLOCK_", "MLFLOW_")):
                        patch.setenv(name, value)
                platform = Platform(services, load_settings(), open_deployment(), slack)
                _bring_up(platform)
                yield platform
        except MissingError as missing:
            pytest.skip(str(missing))
    assert services.left() == []
    with services.postgres.connect() as connection:
        query = "SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles"
        names = {name for (name,) in connection.execute(query)}
    assert not {name for name in names if name.startswith(services.postgres.prefix)}


def _bring_up(platform: Platform) -> None:
    """Start everything in the order of the file, and submit one green and one red release."""
    services = platform.cluster
    for name in ("mlflow", "api-server", "scheduler"):
        assert services.check(name).returncode != 0, f"the health check of {name} is content with nothing"
    services.start("mlflow")
    services.start(ONE_SHOT)
    data.prepare(ROOT / "data" / "loanapp.csv", platform.settings.data_root)
    for name in DAEMONS[1:]:
        services.start(name)
    services.wait_healthy("sequencer")
    champion = platform.register(small(models.RATE_CHAMPION, GREEN))
    adopt(platform.deployment, GREEN, champion, actor="admin", reason="a test")
    for workload in (GREEN, RED):
        platform.versions[workload] = platform.register(small(models.RATE_REFIT, workload))
    _create_people(platform)
    for workload in platform.versions:
        until(lambda workload=workload: _dag_is_there(platform, workload))
    for workload in platform.versions:
        platform.submit(workload)
    # As every `docker compose up` does. It runs beside the releases, and one test looks how it ended.
    services.start(ONE_SHOT)


def _dag_is_there(platform: Platform, workload: str) -> str:
    response = platform.client("dana").request("GET", f"/dags/release__{workload}")
    return "yes" if response.is_success else ""


def _create_people(platform: Platform) -> None:
    """An administrator as the head of the file says, users, and their numbers in people.yaml."""
    head = (ROOT / "docker-compose.yaml").read_text().replace("\\\n#", "")
    command = re.search(r"run --rm api-server (airflow users create .*?)  ", re.sub(r" +--", " --", head))
    assert command is not None
    words = [{"NAME": "admin", "ADDRESS": "admin@localhost"}.get(word, word) for word in command[1].split()]
    made = platform.cluster.run("api-server", [*words, "--password", PASSWORD])
    assert made.returncode == 0, made.stderr[-2000:]
    for user in USERS:
        body = {
            "username": user,
            "first_name": user,
            "last_name": "of a test",
            "email": f"{user}@localhost",
            "roles": [{"name": "User"}],
            "password": PASSWORD,
        }
        response = httpx.post(
            f"{platform.cluster.url}/auth/fab/v1/users",
            headers={"Authorization": f"Bearer {platform.client('admin')._token}"},
            json=body,
            trust_env=False,
            timeout=PATIENCE,
        )
        assert response.is_success, response.text
    rows = platform.cluster.postgres.rows("airflow", "SELECT username, id FROM ab_user")
    platform.ids = {user: str(number) for user, number in rows}
    path = platform.cluster.config / "people.yaml"
    people = yaml.safe_load(path.read_text())
    for person in people["people"]:
        if person["user"] in USERS:
            person["airflow_id"] = platform.ids[person["user"]]
    path.write_text(yaml.safe_dump(people))


def test_a_log_can_be_read_while_its_task_runs(platform: Platform) -> None:
    """And nobody is advised to give the workers the API server's key."""
    submitted = platform.releases[RED]
    dana = platform.client("dana")
    headers = {"Authorization": f"Bearer {dana._token}", "Accept": "application/json"}

    def running_log() -> str:
        for instance in dana.task_instances(submitted.dag_id, submitted.run_id):
            if instance["state"] == "running":
                task = f"{submitted.path}/taskInstances/{instance['task_id']}"
                url = f"{platform.cluster.url}/api/v2{task}/logs/{instance['try_number']}"
                text = httpx.get(url, headers=headers, trust_env=False, timeout=PATIENCE).text
                if submitted.task_state(instance["task_id"]) == "running" and "Pre Execute" in text:
                    return text
        return ""

    assert "secret_key" not in until(running_log)


def test_every_health_check_tells_how_it_is(platform: Platform) -> None:
    with ThreadPoolExecutor(4) as pool:
        nobody = pool.submit(platform.cluster.check, "worker", HOSTNAME="nobody")
        checks = dict(zip(DAEMONS, pool.map(platform.cluster.wait_healthy, DAEMONS), strict=True))
        assert "pong" in checks["worker"].stdout
        assert nobody.result().returncode != 0, "the worker's health check is content with another worker"
    assert set(DAEMONS) | {ONE_SHOT} == set(platform.cluster.names)
    # In its container MLflow's check asks 127.0.0.1, which is not among the allowed hosts.
    assert platform.mlflow("/health", login=False, headers={"Host": "elsewhere"}).status_code == 200


def test_the_checks_of_postgres_and_redis(platform: Platform) -> None:
    services, postgres = platform.cluster.services, platform.cluster.postgres
    if missing := [name for name in ("pg_isready", "redis-cli") if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    kind, *words = services["postgres"]["healthcheck"]["test"]
    assert kind == "CMD"
    words = [postgres.prefix + word if word in COMPONENTS else word for word in words]
    environment = {**os.environ, "PGPORT": postgres.address.split(":")[1]}
    subprocess.run(words, env=environment, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
    kind, text = services["redis"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    text = text.replace("redis-cli", f"redis-cli -u {platform.cluster.redis.url}")
    subprocess.run(["/bin/sh", "-c", text], check=True, timeout=PATIENCE)


@pytest.mark.requirement("G-8")
def test_a_worker_holds_no_key_to_airflow(platform: Platform) -> None:
    def held(environment: dict[str, str]) -> set[str]:
        values = platform.cluster.values
        return {name for name in values if any(values[name] in text for text in environment.values())}

    environment = platform.cluster.environments["worker"]
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in environment
    assert not held(environment) & (CONTROL_ONLY | OWNERS)
    assert "CELERY_DB_PASSWORD" in held(environment), "the comparison finds nothing"
    assert held(platform.cluster.environments["scheduler"]) >= CONTROL_ONLY
    written = platform.cluster.inside("worker", "/opt/airflow/airflow.cfg").read_text()
    assert not held({"airflow.cfg": written})
    assert platform.cluster.listening("api-server"), "the search finds nothing"
    assert platform.cluster.listening("worker") == []
    # The roles it does hold open no other database.
    for role, database in (("celery", "airflow"), ("airlock_app", "airflow"), ("airlock_app", "mlflow")):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            platform.cluster.postgres.connect(database, user=role)


def test_mlflow_asks_who_is_there_and_for_its_own_name(platform: Platform) -> None:
    path = "/api/2.0/mlflow/registered-models/search"
    assert platform.mlflow(path).status_code == 200
    assert platform.mlflow(path, login=False).status_code == 401
    assert platform.mlflow(path, headers={"Host": "elsewhere"}).status_code == 403


@pytest.mark.requirement("T-3", "E-1")
def test_a_green_release_is_promoted_by_the_worker(platform: Platform) -> None:
    submitted = platform.releases[GREEN]
    assert submitted.wait() is State.PROMOTED
    assert submitted.finished() == "success"
    assert platform.champion(GREEN) == platform.versions[GREEN] == "2"
    assert submitted.events(Kind.RELEASE_SUBMITTED)[0].actor == "dana"
    assert submitted.events(Kind.RELEASE_DECIDED)[0].data["track"] == "green"
    _assert_complete(platform, submitted)
    outcomes = submitted.outcomes()
    assert outcomes.pop("seat") == ["skipped"]
    # A busy machine may need more than one try.
    assert {states[-1] for states in outcomes.values()} == {"success"}


@pytest.mark.requirement("A-1", "A-2", "A-3")
def test_two_people_approve_a_red_release_under_fab(platform: Platform) -> None:
    """One in Airflow, one in Slack: there FAB's number and Slack's account are one person."""
    submitted = platform.releases[RED]
    assert submitted.wait() is State.WAITING
    seat = f"{submitted.path}/taskInstances/seat/0"
    body = {"chosen_options": ["Approve"], "params_input": {"comment": "I say so"}}
    for client in (platform.client("admin"), platform.client("dana")):
        client.wait_for_seat(submitted.dag_id, submitted.run_id, "seat", 0)
        refused = client.request("PATCH", f"{seat}/hitlDetails", json=body)
        assert (refused.status_code, "is not a respondent" in refused.text) == (403, True)
    # The service user may take a question back, and may not answer it.
    service = platform.client("airlock")
    assert service.request("PATCH", f"{seat}/hitlDetails", json=body).status_code == 403
    assert service.request("PATCH", f"{seat}/dry_run", json={"new_state": "skipped"}).status_code == 200
    grace, comment = platform.client("grace"), "Looked at everything."
    answer_release(
        platform.deployment, grace, submitted.release_id, user="grace", choice="Approve", comment=comment
    )
    world = cast("World", platform)
    officer = message_of(world, submitted, "risk-officer")
    push(world, officer, "approve", "ravi")
    assert "approved by ravi" in says(world, officer, "approved by")
    for index, (user, role) in enumerate((("grace", "governance-analyst"), ("ravi", "risk-officer"))):
        path = f"{submitted.path}/taskInstances/seat/{index}/hitlDetails"
        detail = platform.client("admin").request("GET", path).json()
        person = {"id": platform.ids[user], "name": user}
        assert platform.ids[user].isdecimal()
        assert detail["responded_by_user"] == person
        assert person["id"] in {one["id"] for one in detail["assigned_users"]}
        assert submitted.events(Kind.APPROVAL_RECORDED)[index].data["role"] == role
    assert submitted.wait(through_waiting=True) is State.PROMOTED
    assert submitted.finished() == "success"
    assert platform.champion(RED) == platform.versions[RED] == "1"
    finished = submitted.events(Kind.PROMOTION_FINISHED)[0].data
    assert finished["approved_by"] == ["grace", "ravi"]
    tried = {(event.actor, event.data["status"]) for event in submitted.attempts()}
    assert tried >= {("admin", 403), ("dana", 403), ("airlock", 403), ("grace", 200), ("ravi", 200)}
    _assert_complete(platform, submitted)


def _assert_complete(platform: Platform, submitted: Submitted) -> None:
    """Every task has the outcome Airflow gave it, and those that ran did so on the Celery worker."""
    postgres = platform.cluster.postgres
    query = "SELECT task_id, map_index, state, external_executor_id FROM task_instance WHERE run_id = %s"
    tasks = postgres.rows("airflow", query + " AND dag_id = %s", submitted.run_id, submitted.dag_id)
    assert len(tasks) > 10
    names = {(f"{task}[{index}]" if index >= 0 else task): state for task, index, state, _ in tasks}
    until(lambda: "all" if set(submitted.outcomes()) == set(names) else "")
    assert {name: states[-1] for name, states in submitted.outcomes().items()} == names
    stored = "SELECT count(*) FROM event WHERE release_id = %s"
    assert postgres.rows("airlock", stored, submitted.release_id)[0][0] == len(submitted.release().events)
    queued = {(task,) for _, _, state, task in tasks if state != "skipped"}
    done = "SELECT task_id FROM celery_taskmeta WHERE status = 'SUCCESS'"
    until(lambda: "all" if queued <= set(postgres.rows("celery", done)) else "")


def test_starting_again_changes_nothing(platform: Platform) -> None:
    platform.cluster.wait_done()
    log = platform.cluster.log(ONE_SHOT)
    assert "airlock already exists in the db" in log
    assert log.count("password reset successfully") == 2
    again = AirflowClient(
        platform.cluster.url, "airlock", platform.cluster.values["AIRLOCK_SERVICE_PASSWORD"]
    )
    assert again.request("GET", "/dags").status_code == 200


def test_no_secret_is_in_a_log(platform: Platform) -> None:
    logs = [
        *platform.cluster.folder.glob("*.log"),
        *(platform.cluster.folder / "volumes/logs").rglob("*.log"),
    ]
    assert len(logs) > 20
    text = "\n".join(path.read_text(errors="replace") for path in logs)
    text += str(platform.cluster.postgres.rows("airflow", "SELECT event, extra FROM log"))
    assert "cli_users_create" in text
    assert [name for name, value in platform.cluster.values.items() if value in text] == []


def test_what_has_to_survive_a_container_is_on_a_volume(platform: Platform) -> None:
    for name in platform.cluster.names:
        assert {path.name for path in platform.cluster.inside(name, "/opt/airlock").iterdir()} == set(IMAGE)
        for path in (*STATE, "/opt/airflow/logs"):
            folder = platform.cluster.inside(name, path)
            assert folder.is_symlink() or not list(folder.iterdir()), f"{name} keeps state in {path}"
    volumes = platform.cluster.folder / "volumes"
    assert {path.name for path in volumes.iterdir()} == {"airlock", "anchor", "key", "logs", "mlflow"}
    assert all(any(folder.iterdir()) for folder in volumes.iterdir())
