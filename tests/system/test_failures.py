"""What breaks in the middle ends in a definite state or goes on; nothing is promoted twice."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import psutil
import pytest

from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.demo import models
from tests.support.small_workloads import GREEN, small
from tests.system.conftest import Submitted, World, airlock, make_settings, processes_of, until


@pytest.mark.requirement("E-1")
def test_a_task_killed_hard_is_run_again_and_both_tries_are_recorded(world: World) -> None:
    submitted = world.submit_small(GREEN)
    submitted.wait_for_task("score", {"running"})
    end = time.monotonic() + 60
    killed = False
    while not killed and time.monotonic() < end:
        for process in world.component("scheduler").children(recursive=True):
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
    assert submitted.wait() is State.PROMOTED
    submitted.finished()
    assert world.champion(GREEN) == submitted.version
    until(lambda: "both" if _tries(submitted, "score") == [1, 2] else "")
    assert len(submitted.events(Kind.PROMOTION_FINISHED)) == 1


def _tries(submitted: Submitted, task_id: str) -> list[int]:
    outcomes = submitted.events(Kind.TASK_OUTCOME)
    return sorted(event.data["try_number"] for event in outcomes if event.data["task_id"] == task_id)


def test_mlflow_away_is_said_retried_and_the_release_goes_on(world: World) -> None:
    version = world.register(small(models.RATE_REFIT, GREEN))
    store = world.settings.home / "mlflow.db"
    away = store.with_suffix(".away")
    store.rename(away)
    try:
        submitted = world.submit(GREEN, version)
        submitted.wait_for_task("submit", {"up_for_retry"})
        assert not store.exists()
    finally:
        away.rename(store)
    assert submitted.wait() is State.PROMOTED
    errors = [event.data["error"] for event in submitted.events(Kind.TASK_OUTCOME)]
    assert any("the MLflow store is not there" in error for error in errors)


def test_status_says_how_it_is_and_a_second_up_harms_nothing(world: World) -> None:
    assert _unwell(world) == []
    again = airlock("up", "--port", str(world.port), env=world.env)
    assert again.returncode == 1
    assert "already runs here" in again.stderr
    assert _unwell(world) == [], "the second `up` harmed the first"


def _unwell(world: World) -> list[str]:
    """Parts that are not healthy; another test may have left a release on a waiver that has ended."""
    status = airlock("status", "--format", "json", env=world.env)
    components = json.loads(status.stdout)["components"]
    assert len(components) > 5
    del components["waivers"]
    return [f"{name}: {state}" for name, state in components.items() if state != "healthy"]


def test_a_supervisor_killed_in_the_middle_takes_its_airflow_with_it_and_the_release_goes_on(
    world: World,
) -> None:
    """It is started again at once, as a service manager does; ``make soak`` cuts the power of everything.

    The scheduler is killed as well and cannot say so: its tasks are taken over all the same.
    """
    submitted = world.submit_small(GREEN)
    submitted.wait_for_task("score", {"running", "success"})
    before = processes_of(world.settings.home)
    assert len(before) > 4
    supervisor, scheduler = world.supervisor(), world.component("scheduler")
    supervisor.suspend()  # it would stop the others in order when it sees one go
    for process in (scheduler, *scheduler.children(recursive=True), supervisor):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert airlock("status", env=world.env).returncode == 1
    world.up()
    assert submitted.wait(through_waiting=True) is State.PROMOTED
    assert world.champion(GREEN) == submitted.version
    assert len(submitted.events(Kind.PROMOTION_FINISHED)) == 1
    until(lambda: "" if set(before) & set(processes_of(world.settings.home)) else "gone")


def test_a_scheduler_and_an_api_server_that_end_are_started_again_and_the_release_goes_on(
    world: World,
) -> None:
    submitted = world.submit_small(GREEN)
    submitted.wait_for_task("score", {"running", "success"})
    supervisor = world.supervisor()
    for process in (world.component("scheduler"), world.component("api_server")):
        process.kill()
    assert submitted.wait(through_waiting=True) is State.PROMOTED
    submitted.finished()
    assert world.champion(GREEN) == submitted.version
    assert len(submitted.events(Kind.PROMOTION_FINISHED)) == 1
    assert world.supervisor() == supervisor
    said = (world.settings.home / "logs" / "up.log").read_text()
    for name in ("scheduler", "api-server"):
        assert f"{name} stopped with code -9 and is started again" in said


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
