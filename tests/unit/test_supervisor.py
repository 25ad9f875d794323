"""Starting a local Airflow again after its supervisor was killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from airlock.adapters import supervisor as module
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import HOST, RunState, Supervisor, port_problem
from airlock.core.errors import ConflictError
from airlock.core.people import People, Person
from tests.support.ports import free_port


class _StartedError(Exception):
    """The supervisor got as far as starting processes."""


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    def started(*_: object) -> None:
        raise _StartedError

    monkeypatch.setattr(Supervisor, "_spawn", started)
    settings = Settings(home=tmp_path, config_dir=tmp_path / "project" / "config")
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
