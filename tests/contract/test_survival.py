"""Processes are killed at random under load, and no acknowledged event is ever missing.

Each writer notes on disk what became of each event: ``ok`` when the store acknowledged it, ``spooled``
when this machine's disk did, ``failed`` when it was refused; what has neither is unknown, because the
writer was killed in between. ``make soak`` runs this for minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from airlock.adapters.audit.keys import public_path, read_public_key
from airlock.adapters.settings import Settings
from airlock.core.errors import UnavailableError
from airlock.services.deployment import Deployment, anchors_of, open_deployment
from airlock.services.keys import create_key
from airlock.services.sequence import Sequencer
from airlock.services.verify import verify
from tests.support.databases import make_event
from tests.support.private_postgres import MissingError, PrivatePostgres, private_postgres

FORK = multiprocessing.get_context("fork")
WRITERS = 4


def _write(settings: Settings, writer: int, journal: Path) -> None:
    """Append events until killed, and note what became of each."""
    deployment = open_deployment(settings)
    out = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        key = f"{writer}/{os.getpid()}/{number}"
        os.write(out, f"begun {key}\n".encode())
        try:
            recorded = deployment.audit.append(make_event(key, occurred_us=number))
            os.write(out, f"{'spooled' if recorded.ingest_id is None else 'ok'} {key}\n".encode())
        except UnavailableError:
            os.write(out, f"failed {key}\n".encode())
        number += 1
        time.sleep(0.001)


@dataclass
class Campaign:
    """Writers and a sequencer on one database, and what was done to them."""

    settings: Settings
    folder: Path
    server: PrivatePostgres | None
    moments: np.random.Generator
    writers: list[BaseProcess] = field(default_factory=list)
    sequencer: subprocess.Popen[bytes] | None = None
    done: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> None:
        self.writers = [self._writer(number) for number in range(WRITERS)]
        self._start_sequencer()
        until = time.monotonic() + seconds
        acts: list[Callable[[], None]] = [self._kill_writer, self._kill_sequencer]
        acts += [self._kill_server] if self.server else []
        while time.monotonic() < until:
            time.sleep(self.moments.uniform(0.05, 1.0))
            acts[self.moments.integers(len(acts))]()
        for writer in self.writers:
            writer.kill()
            writer.join()
        assert self.sequencer is not None
        self.sequencer.kill()
        self.sequencer.wait()

    def _writer(self, number: int) -> BaseProcess:
        journal = self.folder / f"journal-{number}"
        process = FORK.Process(target=_write, args=(self.settings, number, journal), daemon=True)
        process.start()
        return process

    def _start_sequencer(self) -> None:
        with (self.folder / "sequencer.log").open("ab") as log:
            self.sequencer = subprocess.Popen(
                [sys.executable, "-m", "airlock.cli", "sequencer"],
                env={**os.environ, **self.settings.environment()},
                stdout=log,
                stderr=log,
            )

    def _kill_writer(self) -> None:
        number = int(self.moments.integers(WRITERS))
        self.writers[number].kill()
        self.writers[number].join()
        self.writers[number] = self._writer(number)
        self.done["writers killed"] += 1

    def _kill_sequencer(self) -> None:
        assert self.sequencer is not None
        self.sequencer.send_signal(signal.SIGKILL)
        self.sequencer.wait()
        self._start_sequencer()
        self.done["sequencers killed"] += 1

    def _kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        time.sleep(self.moments.uniform(0, 1.0))
        self.server.start()
        self.done["databases killed"] += 1

    def wait_for(self, outcome: str, count: int) -> None:
        """Wait until more than so many events have come to this."""
        until = time.monotonic() + 300
        while len(self.outcomes()[outcome]) <= count:
            assert time.monotonic() < until, f"no {count} events are {outcome}"
            time.sleep(0.05)

    def outcomes(self) -> dict[str, set[str]]:
        """Keys by what became of them; ``unknown`` were begun and nothing more."""
        found: dict[str, set[str]] = {"begun": set(), "ok": set(), "spooled": set(), "failed": set()}
        for path in self.folder.glob("journal-*"):
            for line in path.read_text().splitlines():
                word, _, key = line.partition(" ")
                found[word].add(key)
        found["unknown"] = found["begun"] - found["ok"] - found["spooled"] - found["failed"]
        return found


def _drain(deployment: Deployment) -> None:
    """Start once more what was killed, and let it finish."""
    sequencer = Sequencer(deployment, anchors_of(deployment.settings))
    sequencer.start()
    least, until = sys.maxsize, 0.0
    while waiting := len(deployment.spool.waiting()) + deployment.log.waiting().count:
        if waiting < least:  # however slow the machine is, it goes on
            least, until = waiting, time.monotonic() + 300
        assert time.monotonic() < until, f"{waiting} events stay in the spool or the queue"
        sequencer.work()
    assert deployment.spool.damaged() == []


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[tuple[str, PrivatePostgres | None]]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'audit.db'}", None
        return
    try:
        with private_postgres(flush_us=0) as server:
            yield server.url, server
    except MissingError as missing:
        pytest.skip(str(missing))


def _survive(kind: str, folder: Path, seconds: float) -> None:
    seed = int(os.environ.get("AIRLOCK_SOAK_SEED", str(time.time_ns() % 2**32)))
    sys.stderr.write(f"AIRLOCK_SOAK_SEED={seed}\n")
    with _database(kind, folder) as (url, server):
        settings = Settings(home=folder / "home", config_dir=folder, audit_url=url)  # type: ignore[arg-type]
        deployment = open_deployment(settings)
        deployment.audit.migrate()
        create_key(deployment)
        deployment.log.database.close()
        campaign = Campaign(settings, folder, server, np.random.default_rng(seed))
        campaign.run(seconds)
        _drain(deployment)
        outcomes = campaign.outcomes()
        acknowledged = outcomes["ok"] | outcomes["spooled"]
        keys = [entry.event.key for entry in deployment.audit.events()]
        counts = {name: len(found) for name, found in outcomes.items()}
        sys.stderr.write(f"{kind}: {dict(campaign.done)}, {counts}, {len(keys)} events in the log\n")
        assert len(keys) == len(set(keys)), "an event stands twice"
        assert acknowledged - set(keys) == set(), "acknowledged events are missing"
        assert set(keys) <= outcomes["begun"]
        assert len(acknowledged) > 50
        pinned = read_public_key(public_path(settings.signing_key))
        found = verify(deployment.log.database, pinned, anchors_of(settings), strict=True)
        assert found.suspects == []
        assert (found.size, found.waiting) == (len(keys), 0)
        deployment.log.database.close()


@pytest.mark.slow
@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_acknowledged_event_is_missing_after_random_kills(kind: str, tmp_path: Path) -> None:
    _survive(kind, tmp_path, 6)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_acknowledged_event_is_missing_after_minutes_of_random_kills(kind: str, tmp_path: Path) -> None:
    _survive(kind, tmp_path, float(os.environ.get("AIRLOCK_SOAK_SECONDS", "180")))


@pytest.mark.slow
@pytest.mark.requirement("E-2")
def test_a_database_that_is_away_while_many_write_loses_nothing(tmp_path: Path) -> None:
    """Several writers go on while it is down; what was spooled meanwhile is in the log afterwards."""
    with _database("postgresql", tmp_path) as (url, server):
        assert server is not None
        settings = Settings(home=tmp_path / "home", config_dir=tmp_path, audit_url=url)  # type: ignore[arg-type]
        deployment = open_deployment(settings)
        deployment.audit.migrate()
        create_key(deployment)
        deployment.log.database.close()
        campaign = Campaign(settings, tmp_path, server, np.random.default_rng(1))
        campaign.writers = [campaign._writer(number) for number in range(WRITERS)]
        campaign.wait_for("ok", 100)
        server.kill()
        campaign.wait_for("spooled", 100)
        before = len(campaign.outcomes()["ok"])
        server.start()
        campaign.wait_for("ok", before + 100)
        for writer in campaign.writers:
            writer.kill()
            writer.join()
        outcomes = campaign.outcomes()
        assert not outcomes["failed"]
        _drain(deployment)
        keys = {entry.event.key for entry in deployment.audit.events()}
        assert (outcomes["ok"] | outcomes["spooled"]) - keys == set()
        deployment.log.database.close()
