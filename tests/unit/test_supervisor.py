"""A local Airflow whose components end by themselves, and one whose supervisor was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from airlock.adapters import supervisor as module
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import HOST, RESTARTS, SCHEDULER, RunState, Supervisor, port_problem
from airlock.core.errors import ConflictError, UnavailableError
from airlock.core.people import People, Person
from tests.support.ports import free_port


class _StartedError(Exception):
    """The supervisor got as far as starting processes."""


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    def started(*_: object) -> None:
        raise _StartedError

    monkeypatch.setattr(Supervisor, "_spawn", started)
    return _supervisor(tmp_path)


def _supervisor(home: Path) -> Supervisor:
    settings = Settings(home=home, config_dir=home / "project" / "config")
    return Supervisor(settings, People(people=[Person(user="dana", name="Dana")]), port=free_port())


@pytest.fixture
def taken(supervisor: Supervisor) -> socket.socket:
    listening = socket.socket()
    listening.bind((HOST, int(supervisor.url.rpartition(":")[2])))
    listening.listen()
    return listening


def _begin(script: str) -> subprocess.Popen[bytes]:
    """A component: the leader of a group, which says that it is ready."""
    child = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def _killed(home: Path, child: subprocess.Popen[bytes], *, later: float = 0.0) -> None:
    """Leave what a supervisor leaves that is killed."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    components = [(child.pid, psutil.Process(child.pid).create_time() + later)]
    state = {"pid": ended.pid, "started": 1.0, "port": 1, "url": "", "components": components}
    (home / "run.json").write_text(json.dumps(state))


_ENDS = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.3), sys.exit(7)))"
_HANGS = "import signal, time; signal.signal(15, signal.SIG_IGN)"
_WAITS = "; print('ready', flush=True); time.sleep(300)"
_LEAVES = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])"
)


@pytest.mark.parametrize(("script", "code"), [(_ENDS, 7), (_HANGS, -signal.SIGKILL)])
def test_what_a_killed_supervisor_started_is_let_end_and_then_ended(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: int
) -> None:
    if script == _HANGS:
        monkeypatch.setattr(module, "STOP_SECONDS", 0.3)
    with _begin(script + _WAITS) as child:
        _killed(tmp_path, child)
        with pytest.raises(_StartedError):
            supervisor.start()
    assert child.returncode == code


def test_what_a_component_left_is_ended_though_the_component_is_gone(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    child = _begin(_LEAVES + "; print('ready', flush=True); time.sleep(1)")
    with child:
        _killed(tmp_path, child)
    assert RunState(tmp_path).groups_left() == [child.pid]
    with pytest.raises(_StartedError):
        supervisor.start()
    assert RunState(tmp_path).groups_left() == []


def test_a_process_that_only_has_the_number_of_a_component_is_left_alone(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with _begin(_HANGS + _WAITS) as child:
        _killed(tmp_path, child, later=1.0)
        with pytest.raises(_StartedError):
            supervisor.start()
        assert child.poll() is None
        child.kill()


def test_a_port_of_somebody_else_is_said_at_once(supervisor: Supervisor, taken: socket.socket) -> None:
    with taken, pytest.raises(ConflictError, match="cannot be used: Address already in use"):
        supervisor.start()


def test_a_free_port_is_none_that_an_outgoing_connection_gets() -> None:
    port = free_port()
    assert 20000 <= port < 32768
    assert port_problem(port) == ""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor whose components are stand-ins that wait to be ended."""
    found, begin = _supervisor(tmp_path), subprocess.Popen

    def stand_in(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        script = "pass" if command[1:3] == ["-m", "airflow"] and command[3] == "db" else "time.sleep(300)"
        return begin([sys.executable, "-c", f"import time; {script}", *command[3:]], **options)

    monkeypatch.setattr(subprocess, "Popen", stand_in)
    (tmp_path / "airflow").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "airflow" / "airflow.db")) as database, database:
        database.execute("CREATE TABLE job (job_type TEXT, state TEXT)")
    found.start()
    yield found
    found.stop()


def _component(supervisor: Supervisor, name: str) -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if child.cmdline()[-1:] == [name]]
    assert found.pid in [pid for pid, _ in json.loads(_run_file(supervisor).read_text())["components"]]
    return found


def _run_file(supervisor: Supervisor) -> Path:
    return supervisor.logs.parent / "run.json"


def _let_end(supervisor: Supervisor) -> psutil.Process:
    child = _component(supervisor, SCHEDULER)
    child.kill()
    supervisor._children[SCHEDULER].wait()
    return child


def test_a_component_that_ends_by_itself_is_started_again_and_the_others_are_left_alone(
    running: Supervisor,
) -> None:
    assert running.keep() == []
    with contextlib.closing(sqlite3.connect(running._database)) as database, database:
        database.execute("INSERT INTO job VALUES ('SchedulerJob', 'running'), ('TriggererJob', 'running')")
    others = [_component(running, name) for name in module.COMPONENTS if name != SCHEDULER]
    before = _let_end(running)
    assert running.keep() == ["scheduler stopped with code -9 and is started again"]
    assert running.keep() == []
    assert _component(running, SCHEDULER) != before
    assert [_component(running, name) for name in module.COMPONENTS if name != SCHEDULER] == others
    with contextlib.closing(sqlite3.connect(running._database)) as database:
        jobs = dict(database.execute("SELECT job_type, state FROM job"))
    assert jobs == {"SchedulerJob": "failed", "TriggererJob": "running"}


def test_what_a_component_left_running_is_ended_before_it_is_started_again(
    supervisor: Supervisor,
) -> None:
    child = _begin(_LEAVES + "; print('ready', flush=True)")
    with child:
        supervisor._children["triggerer"] = child
    left = [one for one in psutil.process_iter() if _group_of(one) == child.pid]
    assert left
    with pytest.raises(_StartedError):
        supervisor.keep()
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def _group_of(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


def test_one_that_ends_again_and_again_is_named_with_its_log(running: Supervisor) -> None:
    for _ in range(RESTARTS):
        _let_end(running)
        assert len(running.keep()) == 1
    _let_end(running)
    with pytest.raises(UnavailableError, match="scheduler stopped with code -9") as caught:
        running.keep()
    assert "scheduler.log" in str(caught.value)


def test_one_that_ends_now_and_then_is_started_again_each_time(
    running: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTART_SECONDS", 0)
    for _ in range(RESTARTS + 1):
        _let_end(running)
        assert len(running.keep()) == 1


def test_one_that_ends_before_all_are_healthy_is_said_at_once(running: Supervisor) -> None:
    _let_end(running)
    with pytest.raises(UnavailableError, match="scheduler stopped with code -9"):
        running.wait_healthy()
