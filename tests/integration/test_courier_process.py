"""The courier as a process of its own: what `airlock up` and the compose file start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from airlock.adapters.settings import Settings
from airlock.services.deployment import open_deployment
from airlock.services.keys import create_key
from tests.support.fake_slack import SECRET, TEAM, TOKEN, FakeSlack, fake_slack
from tests.support.fake_socket import FakeSocket, fake_socket
from tests.system.conftest import connect_slack

pytestmark = pytest.mark.requirement("A-3")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as slack:
        yield slack


@pytest.fixture
def socket(slack: FakeSlack) -> Iterator[FakeSocket]:
    with fake_socket() as socket:
        slack.socket_url = socket.url
        yield socket


@pytest.fixture
def settings(slack: FakeSlack, tmp_path: Path) -> Settings:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    connect_slack(tmp_path / "config", slack)
    found = Settings(
        home=tmp_path / "home",
        config_dir=tmp_path / "config",
        slack_signing_secret=SecretStr(SECRET),
        slack_team=TEAM,
        slack_token=SecretStr(TOKEN),
        slack_api=slack.url,
    )
    deployment = open_deployment(found)
    deployment.audit.migrate()
    create_key(deployment)
    return found


def start(settings: Settings, *words: str, **more: str) -> subprocess.Popen[str]:
    env = {**os.environ, **settings.environment(), **more, "NO_COLOR": "1", "COLUMNS": "120"}
    command = [sys.executable, "-m", "airlock.cli", "courier", *words]
    return subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def wait(probe: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def test_it_says_that_it_is_at_work_and_ends_when_it_is_told_to(
    settings: Settings, socket: FakeSocket
) -> None:
    silent = start(settings, "--check")
    assert "has never looked at what there is to tell" in silent.communicate(timeout=300)[1]
    assert silent.returncode == 1
    courier = start(settings, AIRLOCK_SLACK_APP_TOKEN="xapp-test")
    try:
        wait(lambda: socket.connection and (settings.home / "courier.alive").is_file())
        assert start(settings, "--check").wait(90) == 0
    finally:
        courier.terminate()
        _, said = courier.communicate(timeout=300)
    assert courier.returncode == 0, said
    assert "Telling governance, and listening to Slack over Socket Mode." in said
    assert not {TOKEN, SECRET, "xapp-test"} & set(said.split())


def test_without_channels_it_tells_nobody_and_works(settings: Settings) -> None:
    (settings.config_dir / "notifications.yaml").unlink()
    courier = start(settings)
    try:
        wait((settings.home / "courier.alive").is_file)
    finally:
        courier.terminate()
        _, said = courier.communicate(timeout=300)
    assert (courier.returncode, "Telling no channel." in said) == (0, True)
