"""Starting a local Airflow again after its supervisor was killed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import HOST, RunState, Supervisor, free_port, port_problem
from airlock.core.errors import ConflictError
from airlock.core.people import People, Person


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


def _killed(home: Path) -> None:
    """Leave what a supervisor leaves that is killed."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (home / "run.json").write_text(json.dumps({"pid": ended.pid, "started": 1.0, "port": 1, "url": ""}))


def test_the_port_is_waited_for_while_what_a_killed_supervisor_started_ends(
    supervisor: Supervisor, taken: socket.socket, tmp_path: Path
) -> None:
    _killed(tmp_path)
    assert RunState(tmp_path).was_killed()
    ending = threading.Timer(0.3, taken.close)
    ending.start()
    with pytest.raises(_StartedError):
        supervisor.start()
    ending.join()


def test_a_port_of_somebody_else_is_said_at_once(supervisor: Supervisor, taken: socket.socket) -> None:
    with taken, pytest.raises(ConflictError, match="cannot be used: Address already in use"):
        supervisor.start()


def test_a_free_port_is_none_that_an_outgoing_connection_gets() -> None:
    port = free_port()
    assert 20000 <= port < 32768
    assert port_problem(port) == ""
