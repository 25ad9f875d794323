"""What breaks in the middle ends in a definite state or goes on; nothing is promoted twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from airlock.adapters.supervisor import free_port, port_problem
from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.demo import models
from tests.system.conftest import ROOT, Submitted, World, make_settings, processes_of, until


def airlock(*arguments: str, env: dict[str, str], **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airlock.cli", *arguments]
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=400, check=False)


@pytest.mark.requirement("E-1")
def test_a_task_killed_hard_is_run_again_and_both_tries_are_recorded(world: World) -> None:
    version = world.story.register(models.RATE_REFIT)
    submitted = world.submit(models.RATE_TYPE, version)
    submitted.wait_for_task("score", {"running"})
    end = time.monotonic() + 60
    killed = False
    while not killed and time.monotonic() < end:
        for process in world.scheduler().children(recursive=True):
            try:
                # The sandbox is a child of the process that runs the task; that one is killed.
                if "airlock-score" in " ".join(process.cmdline()) or "sandbox" in " ".join(process.cmdline()):
                    process.parent().kill()  # type: ignore[union-attr]
                    killed = True
                    break
            except psutil.Error:
                continue
        time.sleep(0.05)
    assert killed, "no sandbox was seen"
    assert submitted.wait(seconds=300) is State.PROMOTED
    submitted.finished()
    assert world.champion(models.RATE_TYPE) == version
    until(lambda: "both" if _tries(submitted, "score") == [1, 2] else "", 30)
    assert len(submitted.events(Kind.PROMOTION_FINISHED)) == 1


def _tries(submitted: Submitted, task_id: str) -> list[int]:
    outcomes = submitted.events(Kind.TASK_OUTCOME)
    return sorted(event.data["try_number"] for event in outcomes if event.data["task_id"] == task_id)


def test_mlflow_away_is_said_retried_and_the_release_goes_on(world: World) -> None:
    version = world.story.register(models.RATE_REFIT)
    store = world.settings.home / "mlflow.db"
    away = store.with_suffix(".away")
    store.rename(away)
    try:
        submitted = world.submit(models.RATE_TYPE, version)
        submitted.wait_for_task("submit", {"up_for_retry"})
        assert not store.exists()
    finally:
        away.rename(store)
    assert submitted.wait(seconds=200) is State.PROMOTED
    errors = [event.data["error"] for event in submitted.events(Kind.TASK_OUTCOME)]
    assert any("the MLflow store is not there" in error for error in errors)


def test_airflow_killed_in_the_middle_goes_on_after_a_restart(world: World) -> None:
    version = world.story.register(models.RATE_REFIT)
    submitted = world.submit(models.RATE_TYPE, version)
    submitted.wait_for_task("score", {"running", "success"})
    world.cut_the_power()
    world.supervisor.start()
    world.supervisor.wait_healthy()
    assert submitted.wait(through_waiting=True, seconds=300) is State.PROMOTED
    assert world.champion(models.RATE_TYPE) == version
    assert len(submitted.events(Kind.PROMOTION_FINISHED)) == 1


def test_up_status_down_and_nothing_is_left(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    env = {**os.environ, **settings.environment()}
    port = str(free_port())
    up = airlock("up", "--detach", "--port", port, env=env)
    assert up.returncode == 0, up.stderr
    try:
        status = airlock("status", "--format", "json", env=env)
        assert json.loads(status.stdout)["healthy"], status.stdout
        again = airlock("up", "--port", port, env=env)
        assert again.returncode == 1
        assert "already runs here" in again.stderr
        status = airlock("status", "--format", "json", env=env)
        assert json.loads(status.stdout)["healthy"], "the second `up` harmed the first"
    finally:
        down = airlock("down", env=env)
    assert down.returncode == 0, down.stderr
    assert processes_of(settings.home) == []
    assert port_problem(int(port)) == ""
    assert airlock("status", env=env).returncode == 1


def test_a_supervisor_killed_hard_takes_its_airflow_with_it(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    code = (
        "from airlock.adapters.settings import load_settings\n"
        "from airlock.adapters.supervisor import Supervisor, free_port\n"
        "from airlock.services.deployment import open_deployment\n"
        "import time\n"
        "s = load_settings()\n"
        "v = Supervisor(s, open_deployment(s).config.people(), port=free_port())\n"
        "v.start(); print('started', flush=True); time.sleep(600)\n"
    )
    env = {**os.environ, **settings.environment()}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        until(lambda: "yes" if len(processes_of(settings.home)) > 4 else "", 30)
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: "" if processes_of(settings.home) else "gone", 60)


def test_a_port_in_use_is_said_plainly(tmp_path: Path) -> None:
    import socket

    settings = make_settings(tmp_path)
    env = {**os.environ, **settings.environment()}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("demo", "up"):
            done = airlock(command, "--port", port, env=env)
            assert done.returncode == 1
            assert f"port {port} cannot be used: Address already in use" in done.stderr
            assert "Traceback" not in done.stderr


def test_the_demo_ends_as_it_should(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    (tmp_path / "project" / "data").symlink_to(ROOT / "data")
    env = {**os.environ, **settings.environment(), "COLUMNS": "120", "NO_COLOR": "1"}
    done = airlock("demo", "--once", "--answer", "approve", "--port", str(free_port()), env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "How the five releases ended" in done.stderr
    for words in ("promoted", "denied", "quarantined", "approved by grace", "four-fifths", "999999.4"):
        assert words in done.stderr
    assert processes_of(settings.home / "demo") == []
