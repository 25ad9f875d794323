"""The registry adapter against a real MLflow, and against servers that are down, sick or hostile."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airlock.adapters.mlflow_registry import MlflowRegistry, quiet_mlflow
from airlock.core.errors import AirlockError, InvalidInputError, NotFoundError, UnavailableError
from tests.support.deployments import messages_of
from tests.support.ports import free_port

pytestmark = pytest.mark.slow  # MLflow takes seconds to be imported and to make its store

MODEL = "loan-model"
FILES = {"MLmodel": b"flavors: {}", "data/model.skops": b"weights"}


@dataclass
class Mlflow:
    """A real MLflow on SQLite, used as a training pipeline would."""

    folder: Path
    uri: str
    _client: Any = None

    @property
    def client(self) -> Any:
        if self._client is None:
            quiet_mlflow()
            import mlflow

            self._client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def register(self, files: dict[str, bytes] = FILES, *, links: dict[str, str] | None = None) -> str:
        """Log files and register them; returns the version."""
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(MODEL)
        identifier = (
            experiment.experiment_id
            if experiment
            else self.client.create_experiment(MODEL, artifact_location=(self.folder / "artifacts").as_uri())
        )
        run = self.client.create_run(identifier)
        with tempfile.TemporaryDirectory() as name:
            for path, content in files.items():
                (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(name) / path).write_bytes(content)
            self.client.log_artifacts(run.info.run_id, name, "model")
        try:
            self.client.create_registered_model(MODEL)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{run.info.artifact_uri}/model"
        version = self.client.create_model_version(MODEL, source=source, run_id=run.info.run_id)
        for path, goal in (links or {}).items():
            (self.artifacts(version.version) / path).symlink_to(goal)
        return str(version.version)

    def artifacts(self, version: str) -> Path:
        """Where the files of a version lie."""
        return Path(urlsplit(self.client.get_model_version_download_uri(MODEL, str(version))).path)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Mlflow:
    """One store for all tests: MLflow needs seconds to make one."""
    folder = tmp_path_factory.mktemp("mlflow")
    return Mlflow(folder, f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture(scope="module")
def version(mlflow: Mlflow) -> str:
    return mlflow.register()


@pytest.fixture
def registry(mlflow: Mlflow, version: str) -> MlflowRegistry:
    return MlflowRegistry(mlflow.uri)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


# Versions, aliases, tags


@pytest.mark.requirement("R-1")
def test_a_version_is_found_with_the_run_that_made_it(registry: MlflowRegistry, version: str) -> None:
    found = registry.version(MODEL, version)
    assert (found.name, found.version) == (MODEL, version)
    assert len(found.run_id) == 32


@pytest.mark.parametrize("name", ["9999", "0", "03", "-1", "1e3", "٣", "latest", "", " 1", "9" * 30])
def test_what_is_no_version_is_not_found(registry: MlflowRegistry, name: str) -> None:
    """Also other ways to write a number: a version must not have two names."""
    with pytest.raises(NotFoundError):
        registry.version(MODEL, name)


def test_an_unknown_model_is_not_found(registry: MlflowRegistry) -> None:
    for ask in (
        lambda: registry.version("unknown", "1"),
        lambda: registry.champion("unknown"),
        lambda: registry.set_champion("unknown", "1", {"state": "champion"}),
        lambda: registry.quarantine("unknown", "1", "reason"),
        lambda: registry.download("unknown", "1", Path("never")),
    ):
        with pytest.raises(NotFoundError, match="MLflow does not know unknown"):
            ask()


@pytest.mark.parametrize("name", ["a/b", "a:b", ""])
def test_a_name_mlflow_refuses_is_not_taken_for_an_outage(registry: MlflowRegistry, name: str) -> None:
    with pytest.raises(InvalidInputError, match="MLflow refuses"):
        registry.champion(name)


@pytest.mark.requirement("R-1")
def test_the_champion_is_an_alias_that_moves_with_its_tags(registry: MlflowRegistry, mlflow: Mlflow) -> None:
    first, second = mlflow.register(), mlflow.register()
    for candidate in (first, second, second):
        registry.set_champion(MODEL, candidate, {"state": "champion", "release": f"r-{candidate}"})
        champion = registry.champion(MODEL)
        assert champion is not None
        assert champion.version == candidate
        assert champion.tags["airlock.release"] == f"r-{candidate}"
    assert str(mlflow.client.get_model_version_by_alias(MODEL, "champion").version) == second


@pytest.mark.requirement("R-1")
def test_a_version_that_does_not_exist_cannot_become_champion(registry: MlflowRegistry, version: str) -> None:
    registry.set_champion(MODEL, version, {})
    for tags in ({}, {"state": "champion"}):
        with pytest.raises(NotFoundError):
            registry.set_champion(MODEL, "9999", tags)
    champion = registry.champion(MODEL)
    assert champion is not None
    assert champion.version == version


@pytest.mark.requirement("R-1")
def test_a_deleted_champion_is_no_champion(registry: MlflowRegistry, mlflow: Mlflow) -> None:
    doomed = mlflow.register()
    registry.set_champion(MODEL, doomed, {})
    mlflow.client.delete_model_version(MODEL, doomed)
    assert registry.champion(MODEL) is None


@pytest.mark.requirement("R-5", "G-8")
def test_quarantine_is_a_tag_with_its_reason_and_safe_to_repeat(
    registry: MlflowRegistry, mlflow: Mlflow
) -> None:
    bad = mlflow.register()
    for _ in range(2):
        registry.quarantine(MODEL, bad, "it would run a command " + "x" * 10_000)
    tags = registry.version(MODEL, bad).tags
    assert tags["airlock.state"] == "quarantined"
    assert tags["airlock.quarantine_reason"].startswith("it would run a command")


# Files


@pytest.mark.requirement("G-2")
def test_files_are_copied_as_they_are(registry: MlflowRegistry, version: str, tmp_path: Path) -> None:
    registry.download(MODEL, version, tmp_path / "copy")
    assert content(tmp_path / "copy") == FILES


@pytest.mark.requirement("G-8")
def test_links_stay_links_so_that_a_later_check_can_see_them(
    registry: MlflowRegistry, mlflow: Mlflow, tmp_path: Path
) -> None:
    linked = mlflow.register(links={"passwords": "/etc/passwd", "folder": "/etc"})
    registry.download(MODEL, linked, tmp_path / "copy")
    assert (tmp_path / "copy" / "passwords").is_symlink()
    assert (tmp_path / "copy" / "folder").is_symlink()


@pytest.mark.requirement("G-8")
def test_a_copy_does_not_change_with_the_registry_or_the_registry_with_it(
    registry: MlflowRegistry, mlflow: Mlflow, tmp_path: Path
) -> None:
    changing = mlflow.register()
    registry.download(MODEL, changing, tmp_path / "copy")
    (tmp_path / "copy" / "MLmodel").write_bytes(b"mine")
    assert (mlflow.artifacts(changing) / "MLmodel").read_bytes() == FILES["MLmodel"]


@pytest.mark.requirement("G-2")
def test_an_artifact_without_files_or_with_its_files_gone_is_said(
    registry: MlflowRegistry, mlflow: Mlflow, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="the artifact is empty"):
        registry.download(MODEL, mlflow.register({}), tmp_path / "empty")
    gone = mlflow.register()
    shutil.rmtree(mlflow.artifacts(gone))
    with pytest.raises(InvalidInputError, match="the artifact files cannot be read") as caught:
        registry.download(MODEL, gone, tmp_path / "gone")
    assert "its files are missing" in caught.value.fix


# Outages


def asks(registry: MlflowRegistry, target: Path) -> list[Callable[[], Any]]:
    return [
        lambda: registry.version(MODEL, "1"),
        lambda: registry.champion(MODEL),
        lambda: registry.download(MODEL, "1", target),
        lambda: registry.set_champion(MODEL, "1", {"state": "champion"}),
        lambda: registry.quarantine(MODEL, "1", "reason"),
    ]


@pytest.mark.requirement("R-1")
def test_a_store_that_is_gone_is_unavailable_and_not_made_anew(
    mlflow: Mlflow, version: str, tmp_path: Path
) -> None:
    """MLflow itself would create an empty store, in which nothing was ever in production."""
    path = tmp_path / "mlflow.db"
    shutil.copy(mlflow.folder / "mlflow.db", path)
    used, fresh = MlflowRegistry(f"sqlite:///{path}"), MlflowRegistry(f"sqlite:///{path}")
    assert used.version(MODEL, version).version == version
    path.unlink()
    for registry in (used, fresh):
        for ask in asks(registry, tmp_path / "copy"):
            with pytest.raises(UnavailableError, match="the MLflow store is not there") as caught:
                ask()
            assert caught.value.where == str(path)
    assert not path.exists()


@pytest.mark.requirement("R-1")
def test_a_file_that_is_no_store_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(UnavailableError, match="file is not a database"):
        MlflowRegistry(f"sqlite:///{path}").version(MODEL, "1")


@pytest.mark.requirement("R-1")
def test_a_server_that_is_down_is_unavailable_within_seconds_and_keeps_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    registry = MlflowRegistry(f"http://airlock:s3cret@127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="MLflow failed") as caught:
        registry.champion(MODEL)
    assert time.monotonic() - started < 60
    # The text goes into task logs and, for ever, into the audit store.
    assert "s3cret" not in messages_of(caught.value)
    assert "127.0.0.1" in caught.value.where


@dataclass
class Server:
    """Speaks as much of MLflow's REST as a download needs, and fails where it is told to."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    status: int = 200
    api_status: int = 200
    url: str = ""

    def reply(self, path: str, query: str) -> tuple[int, bytes]:
        if path.startswith("/api/2.0/mlflow-artifacts/artifacts"):
            return self._artifact(path.removeprefix("/api/2.0/mlflow-artifacts/artifacts"), query)
        if self.api_status != 200:
            return self.api_status, b"<html>the proxy says no</html>"
        answers = {
            "registered-models/get": {"registered_model": {"name": MODEL}},
            "model-versions/get": {"model_version": {"name": MODEL, "version": "1"}},
            "model-versions/get-download-uri": {"artifact_uri": "mlflow-artifacts:/1/model"},
        }
        found = answers.get(path.removeprefix("/api/2.0/mlflow/"))
        return (404, b"{}") if found is None else (200, json.dumps(found).encode())

    def _artifact(self, path: str, query: str) -> tuple[int, bytes]:
        if self.status != 200:
            return self.status, b"broken"
        if not path:
            folder = query.split("1%2Fmodel", 1)[-1].split("&", maxsplit=1)[0].replace("%2F", "/").strip("/")
            return 200, json.dumps({"files": self._listing(folder)}).encode()
        name = path.removeprefix("/1/model/")
        return (200, self.files[name]) if name in self.files else (404, b"")

    def _listing(self, folder: str) -> list[dict[str, Any]]:
        names = {name.removeprefix(f"{folder}/") for name in self.files if not folder or folder in name}
        parts = {name.split("/")[0]: "/" in name for name in names}
        return [{"path": name, "is_dir": is_dir} for name, is_dir in parts.items()]


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # named by the standard library
            parts = urlsplit(self.path)
            status, body = found.reply(parts.path, parts.query)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield found
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go in this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.requirement("G-2")
def test_files_of_a_server_are_copied_and_nothing_stays_behind(
    server: Server, temporary: Path, tmp_path: Path
) -> None:
    """MLflow leaves a download in a temporary folder for ever; a model can be large."""
    MlflowRegistry(server.url).download(MODEL, "1", tmp_path / "copy")
    assert content(tmp_path / "copy") == FILES
    assert list(temporary.iterdir()) == []


@pytest.mark.requirement("G-2")
def test_an_artifact_store_that_refuses_is_an_outage_not_a_bad_model(
    server: Server, temporary: Path, tmp_path: Path
) -> None:
    server.status = 403
    with pytest.raises(UnavailableError, match="the artifact store does not answer"):
        MlflowRegistry(server.url).download(MODEL, "1", tmp_path / "copy")
    assert list(temporary.iterdir()) == []


@pytest.mark.requirement("R-1")
@pytest.mark.parametrize("status", [403, 400])
def test_a_server_that_does_not_speak_mlflow_is_unavailable(server: Server, status: int) -> None:
    server.api_status = status
    with pytest.raises(AirlockError) as caught:
        MlflowRegistry(server.url).version(MODEL, "1")
    assert isinstance(caught.value, UnavailableError)
    assert "\n" not in caught.value.what


def test_the_environment_of_the_user_is_not_overruled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    quiet_mlflow()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.requirement("M-3")
def test_one_key_gives_one_version_beside_the_run_it_was_made_from(mlflow: Mlflow, tmp_path: Path) -> None:
    """What a retraining registers: files, parameters and tags, once however often it is asked."""
    first = mlflow.register()
    registry = MlflowRegistry(mlflow.uri)
    run = registry.version(MODEL, first).run_id
    folder = tmp_path / "trained"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(b"flavors: {}")
    (folder / "data" / "model.skops").write_bytes(b"new weights")
    asked: dict[str, Any] = {
        "beside": run,
        "params": {"model": "boosted", "share": "0.9"},
        "tags": {"retraining": "retrain-1", "training_source": "x" * 9000},
    }
    (version,) = {registry.add_version(MODEL, folder, key="retrain-1", **asked) for _ in range(3)}
    assert int(version) == int(first) + 1
    made = registry.version(MODEL, version)
    assert made.tags["airlock.retraining"] == "retrain-1"
    assert registry.run(made.run_id).params == {"model": "boosted", "share": "0.9"}
    experiment = mlflow.client.get_run(run).info.experiment_id
    assert mlflow.client.get_run(made.run_id).info.experiment_id == experiment
    registry.download(MODEL, version, tmp_path / "again")
    assert (tmp_path / "again" / "data" / "model.skops").read_bytes() == b"new weights"
    other = registry.add_version(MODEL, folder, key="retrain-2", beside=run)
    assert int(other) == int(version) + 1


@pytest.mark.requirement("M-3")
def test_two_tries_that_overlap_leave_the_lower_version(
    mlflow: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looked before the first had registered: it takes its own surplus away."""
    run = MlflowRegistry(mlflow.uri).version(MODEL, mlflow.register()).run_id
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "MLmodel").write_bytes(b"flavors: {}")
    first, second = MlflowRegistry(mlflow.uri), MlflowRegistry(mlflow.uri)
    version = first.add_version(MODEL, tmp_path / "trained", key="k", beside=run)
    looked: list[int] = []
    real = second._keyed

    def blind_at_first(name: str, key: str) -> list[str]:
        looked.append(1)
        return [] if len(looked) == 1 else real(name, key)

    monkeypatch.setattr(second, "_keyed", blind_at_first)
    assert second.add_version(MODEL, tmp_path / "trained", key="k", beside=run) == version
    assert real(MODEL, "k") == [version]
    with pytest.raises(NotFoundError):
        first.version(MODEL, str(int(version) + 1))


@pytest.mark.requirement("M-3")
def test_a_first_version_makes_the_model(mlflow: Mlflow, tmp_path: Path) -> None:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "MLmodel").write_bytes(b"flavors: {}")
    mlflow.client.create_experiment("new-model", artifact_location=(tmp_path / "artifacts").as_uri())
    assert MlflowRegistry(mlflow.uri).add_version("new-model", tmp_path / "trained", key="k") == "1"


# Operation


@pytest.mark.requirement("R-3")
def test_a_version_is_tagged_without_moving_the_champion(registry: MlflowRegistry, mlflow: Mlflow) -> None:
    first, second = mlflow.register(), mlflow.register()
    registry.set_champion(MODEL, first, {"state": "champion"})
    for _ in range(2):
        registry.tag(MODEL, second, {"state": "rolled-back", "incident": "incident-1"})
    tags = registry.version(MODEL, second).tags
    assert (tags["airlock.state"], tags["airlock.incident"]) == ("rolled-back", "incident-1")
    champion = registry.champion(MODEL)
    assert champion is not None
    assert champion.version == first
    with pytest.raises(NotFoundError):
        registry.tag(MODEL, "9999", {"state": "rolled-back"})


@pytest.mark.requirement("R-5")
def test_a_champion_is_taken_away_and_the_model_says_what_answers(
    registry: MlflowRegistry, mlflow: Mlflow, version: str
) -> None:
    registry.set_champion(MODEL, version, {"state": "champion"})
    for _ in range(2):
        registry.clear_champion(MODEL, {"fallback": '"ask a person"'})
        assert registry.champion(MODEL) is None
    assert mlflow.client.get_registered_model(MODEL).tags["airlock.fallback"] == '"ask a person"'
    registry.set_champion(MODEL, version, {"state": "champion"})
    champion = registry.champion(MODEL)
    assert champion is not None
    assert champion.version == version
    with pytest.raises(NotFoundError):
        registry.clear_champion("unknown", {})
