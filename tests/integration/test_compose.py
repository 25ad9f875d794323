"""docker-compose.yaml: fits the Compose specification, opens no door by default, can tell its health."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg import DatabaseError
from sqlalchemy.engine import make_url

from airlock.adapters.audit import Database, Log, SqlAuditStore
from airlock.adapters.audit.roles import apply_roles
from airlock.adapters.settings import Settings
from airlock.core.errors import UnavailableError
from tests.support.cluster import MissingError, Postgres
from tests.support.databases import integrate_all, make_event
from tests.support.deployments import ManualClock

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yaml"
ONE_SHOT = {"airflow-init"}
AIRFLOW = {"airflow-init", "api-server", "scheduler", "dag-processor", "triggerer", "worker"}
# ${NAME}, ${NAME:-default}, ${NAME:?message}; $$ is a literal dollar and no variable.
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<operator>:?[-?])?(?P<rest>[^}]*)\}")
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN")
CONTROL_ONLY = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return data


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def texts(value: Any) -> Iterator[str]:
    """All strings in a piece of YAML."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def variables(value: Any) -> Iterator[re.Match[str]]:
    for text in texts(value):
        yield from VARIABLE.finditer(text)


def example() -> str:
    return (ROOT / ".env.example").read_text()


def test_it_fits_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_platform_is_complete(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "redis", "mlflow", "sequencer", "courier", *AIRFLOW}


def test_every_secret_must_be_set_and_the_refusal_says_where(services: dict[str, Any]) -> None:
    # Slack is off, and its endpoint refuses everything, until its secrets are set.
    secrets = [
        match
        for match in variables(services)
        if SECRET.search(match["name"]) and not match["name"].startswith("AIRLOCK_SLACK_")
    ]
    assert len({match["name"] for match in secrets}) >= 10
    for match in secrets:
        assert match["operator"] == ":?", f"{match['name']} may be missing or empty"
        assert match["rest"] == "set it in .env, see docs/operator.md"


def test_no_secret_is_written_down(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|_KEY$|AUTH$|CONN$|_URL$|_URI$|BACKEND$", variable) and (
                "@" in value or SECRET.search(variable) or variable.endswith("AUTH")
            ):
                assert VARIABLE.search(value), f"{name}: {variable}"
        for text in texts(service):
            for login in re.findall(r"://[^/@]*:([^@/]+)@", VARIABLE.sub("${x}", text)):
                assert login == "${x}", f"{name}: a password in a URL"


def test_every_variable_is_in_the_example_and_the_example_has_no_values(services: dict[str, Any]) -> None:
    used = {match["name"]: match["operator"] for match in variables(services)}
    required = set(re.findall(r"^([A-Z_]+)=$", example(), re.MULTILINE))
    optional = set(re.findall(r"^# ([A-Z_]+)=$", example(), re.MULTILINE))
    assert required == {name for name, operator in used.items() if operator == ":?"}
    assert optional == {name for name, operator in used.items() if operator == ":-"}
    assert not re.search(r"^[^#\n][^\n]*=[^\n]+$", example(), re.MULTILINE)


def test_the_command_in_the_example_fills_every_value(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text(example())
    command = re.search(r"^# +(\(umask 077;.*?\.env\))$", example(), re.MULTILINE | re.DOTALL)
    assert command is not None
    subprocess.run(
        ["/bin/bash", "-euc", command[1].replace("\n#", "\n")], cwd=tmp_path, check=True, timeout=3000
    )
    lines = [line for line in (tmp_path / ".env").read_text().splitlines() if re.match("[A-Z]", line)]
    values = dict(line.split("=", 1) for line in lines)
    assert set(values) == set(re.findall(r"^([A-Z_]+)=$", example(), re.MULTILINE))
    assert len(set(values.values())) == len(values), "two secrets share a value"
    assert all(re.fullmatch(r"[\w=-]{40,}", value) for value in values.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    from cryptography.fernet import Fernet

    Fernet(values["AIRFLOW_FERNET_KEY"])


def test_every_service_can_tell_its_health(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name in ONE_SHOT:
            assert service["restart"] == "no"
            assert "healthcheck" not in service
        else:
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
            assert service["restart"] == "unless-stopped"


def test_services_wait_until_what_they_need_is_ready(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, need in service.get("depends_on", {}).items():
            ready = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert need["condition"] == ready, f"{name} → {other}"
    for name in AIRFLOW - ONE_SHOT:
        assert {"postgres", "redis", "mlflow", "airflow-init"} <= set(services[name]["depends_on"])


def test_images_are_pinned(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values()]
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image), image


def test_nothing_is_published_beyond_this_machine_by_default(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"api-server", "mlflow"}
    for ports in published.values():
        assert all(port.startswith("${AIRLOCK_BIND:-127.0.0.1}:") for port in ports)
    assert services["postgres"]["networks"] == services["redis"]["networks"] == ["data"]


@pytest.mark.requirement("G-8")
def test_a_worker_holds_no_key_to_airflow(services: dict[str, Any]) -> None:
    for name in AIRFLOW:
        held = CONTROL_ONLY & set(services[name]["environment"])
        assert held == (set() if name == "worker" else CONTROL_ONLY), name
    text = "\n".join(texts(services["worker"]))
    assert "AIRFLOW_DB_PASSWORD" not in text
    assert "POSTGRES_PASSWORD" not in text


@pytest.mark.requirement("E-2")
def test_no_process_that_runs_owns_the_audit_log(services: dict[str, Any]) -> None:
    """Who owns the tables could switch their triggers off; who cannot sign could not sign what they wrote."""
    for name in [*AIRFLOW, "sequencer", "courier"]:
        url = make_url(VARIABLE.sub("x", services[name]["environment"]["AIRLOCK_AUDIT_URL"]))
        expected = {"airflow-init": "airlock", "sequencer": "airlock_signer"}.get(name, "airlock_app")
        assert url.username == expected, name
        text = "\n".join(texts(services[name]))
        assert ("{AIRLOCK_DB_PASSWORD" in text) == (name == "airflow-init"), name
        assert ("{AIRLOCK_SIGNER_DB_PASSWORD" in text) == (name == "sequencer"), name
    assert "airlock audit roles --apply" in services["airflow-init"]["command"][-1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """Databases and roles as the container's script makes them."""
    names = re.findall(r"^([A-Z_]+_DB_PASSWORD)=$", example(), re.MULTILINE)
    try:
        found = Postgres({name: secrets.token_hex(16) for name in names})
    except MissingError as error:
        pytest.skip(str(error))
    try:
        found.create(tmp_path)
        yield found
    finally:
        found.drop()


@pytest.mark.requirement("E-2")
def test_each_login_may_do_its_part_and_nothing_else(server: Postgres) -> None:
    def database(login: str) -> Database:
        password = server.passwords[f"{login.upper()}_DB_PASSWORD"]
        url = server.server.set(
            drivername="postgresql+psycopg",
            database=f"{server.prefix}airlock",
            username=server.prefix + login,
            password=password,
        )
        return Database(url.render_as_string(hide_password=False))

    def refused(login: str, statement: str) -> bool:
        with closing(server.connect("airlock", user=login)) as connection, suppress(DatabaseError):
            connection.execute(statement)
            return False
        return True

    owner = database("airlock")
    for _ in range(2):  # as at every start
        owner.migrate()
        apply_roles(owner)
    store = SqlAuditStore(database("airlock_app"), ManualClock())
    recorded = store.append(make_event())
    assert store.events() == [recorded]
    with pytest.raises(UnavailableError, match="permission denied"):
        integrate_all(Log(store.database))
    log = Log(database("airlock_signer"))
    assert integrate_all(log).size == 1
    log.add_receipt("here", 1)
    for login in ("airlock_app", "airlock_signer"):
        for table in ("event", "leaf", "tile", "checkpoint", "anchor_receipt"):
            assert refused(login, f"DELETE FROM {table}"), (login, table)  # noqa: S608
            assert refused(login, f"ALTER TABLE {table} DISABLE TRIGGER ALL"), (login, table)
        assert refused(login, "UPDATE event SET actor = 'omar'")
        assert refused(login, "INSERT INTO event (ingest_id) VALUES (7)")
    for table in ("pending", "personal", "leaf"):
        assert refused("airlock_app", f"DELETE FROM {table}"), table  # noqa: S608
    assert refused("airlock_app", "INSERT INTO checkpoint VALUES (1, '', '')")
    assert refused("airlock_app", "INSERT INTO pending VALUES (1)")
    for one in (owner, store.database, log.database):
        one.close()


def test_services_run_without_root_and_privileges(services: dict[str, Any]) -> None:
    assert re.search(r"^USER airlock$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for name, service in services.items():
        assert not service.get("privileged")
        assert "no-new-privileges:true" in service["security_opt"], name
        if service["image"].startswith("airlock:"):
            assert service["cap_drop"] == ["ALL"], name
            assert service.get("user") is None
        weakened = [option for option in service["security_opt"] if option.endswith("=unconfined")]
        assert not weakened or name == "worker", name


def test_every_setting_of_airlock_is_given(services: dict[str, Any]) -> None:
    wanted = {f"AIRLOCK_{name.upper()}" for name in Settings.model_fields}
    key, slack = {"AIRLOCK_AUDIT_KEY_FILE"}, {name for name in wanted if name.startswith("AIRLOCK_SLACK_")}
    for name in [*AIRFLOW, "sequencer", "courier"]:
        given = {variable for variable in services[name]["environment"] if variable.startswith("AIRLOCK_")}
        # Where the signing key lies is told to the one service that may read it, and what Slack trusts to no
        # service that runs other people's models.
        hidden = {"sequencer": slack, "worker": key | slack, "courier": key}.get(name, key)
        assert given == wanted - hidden, name


@pytest.mark.requirement("E-2")
def test_only_the_sequencer_can_read_the_signing_key_and_write_the_anchor(services: dict[str, Any]) -> None:
    for name, service in services.items():
        volumes = {volume.split(":")[0]: volume.split(":")[1:] for volume in service.get("volumes", [])}
        assert ("key" in volumes) == (name == "sequencer"), name
        if "anchor" in volumes and name != "sequencer":
            assert volumes["anchor"][1:] == ["ro"], name


def test_airflow_finds_code_and_configuration(services: dict[str, Any]) -> None:
    for name in AIRFLOW:
        environment = services[name]["environment"]
        assert environment["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
        assert environment["PYTHONPATH"] == environment["AIRLOCK_CONFIG_DIR"] == "/opt/airlock/config"
        assert "./config:/opt/airlock/config:ro" in services[name]["volumes"]
        for variable in ("AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__PLUGINS_FOLDER"):
            assert (ROOT / Path(environment[variable]).relative_to("/opt/airlock")).is_dir()
    assert (ROOT / "config" / "airflow_local_settings.py").is_file()


def test_mounted_files_and_named_volumes_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], name


@pytest.mark.parametrize("script", ["postgres-init.sh", "mlflow.sh"])
def test_scripts_of_the_containers_can_be_run(script: str) -> None:
    path = ROOT / "config" / "compose" / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["/bin/bash", "-n", str(path)], check=True, timeout=300)


def test_the_image_leaves_secrets_and_state_out() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*", "everything is left out unless it is named"
    assert "**/.env*" in lines
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {f"!{name}" for group in copied for name in group.split()} == {
        line for line in lines if line.startswith("!")
    }
