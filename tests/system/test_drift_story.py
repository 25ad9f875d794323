"""`airlock demo --once --story drift`: calm, drift, retraining, release, rollback, guard, unattended.

It runs once, as people run it, and the tests look at what it left behind. Here policy asks people of every
risk tier, so that the seats of both actions are seen as well.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from airlock.adapters.settings import Settings
from airlock.core.audit import Event, Kind
from airlock.core.release import State
from airlock.core.retraining import RetrainState
from airlock.demo.drift import AFTER, BEFORE, PAGE, WORKLOAD
from airlock.services.actions import answered, ended, proposal_of
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.incidents import list_incidents
from airlock.services.monitor import evaluated
from airlock.services.moves import moves_of
from airlock.services.releases import find_release, state_of
from airlock.services.retrain import list_retrainings
from tests.support.ports import free_port
from tests.system.conftest import ROOT, airlock, make_settings, processes_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class Left:
    """What the demo left behind."""

    shown: subprocess.CompletedProcess[str]
    settings: Settings
    deployment: Deployment
    proposals: list[Event]

    def rows(self, query: str) -> list[tuple[str, str]]:
        """What Airflow's own database says."""
        database = self.settings.home / "airflow" / "airflow.db"
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    folder = tmp_path_factory.mktemp("drift")
    base = make_settings(folder)
    (folder / "project" / "data").symlink_to(ROOT / "data")
    limits = base.config_dir / "policies" / "1.0.0" / "monitoring.yaml"
    limits.write_text(limits.read_text().replace("ask: [high]", "ask: [low, medium, high]"))
    env = {**os.environ, **base.environment(), "COLUMNS": "140", "NO_COLOR": "1"}
    shown = airlock("demo", "--once", "--story", "drift", "--port", str(free_port()), env=env, seconds=1500)
    settings = Settings(home=base.home / "demo", config_dir=base.config_dir, deployment="demo")
    deployment = open_deployment(settings)
    found = [proposal_of(deployment, event) for event in evaluated(deployment, WORKLOAD)]
    assert shown.returncode == 0, shown.stderr[-5000:]
    yield Left(shown, settings, deployment, [one for one in found if one is not None])
    assert processes_of(settings.home) == []


@pytest.mark.requirement("M-1", "M-2")
def test_each_week_is_judged_once_and_policy_says_what_it_means(left: Left) -> None:
    events = evaluated(left.deployment, WORKLOAD)
    assert [event.version for event in events] == ["1", "1", "1", "2", "2"]
    assert "data_drift" in [name for name, found in events[1].data["readings"].items() if found == "raised"]
    wanted = [week.expected for week in (*BEFORE, *AFTER)]
    assert [one.data["action"] for one in left.proposals] == wanted
    assert len({one.data["window"] for one in left.proposals}) == len(wanted)


@pytest.mark.requirement("M-2")
def test_people_are_asked_about_what_acts_and_about_nothing_else(left: Left) -> None:
    acting = [one for one in left.proposals if one.data["action"] in ("retrain", "rollback")]
    assert [one.data["restraint"] for one in acting] == ["ask", "ask"]
    answers = [answered(left.deployment, str(one.data["subject"])) for one in acting]
    assert [None if one is None else one.actor for one in answers] == ["ravi", "ravi"]
    ends = [ended(left.deployment, one) for one in acting]
    assert [None if one is None else one.kind for one in ends] == [Kind.ACTION_TAKEN] * 2


@pytest.mark.requirement("M-3")
def test_the_retrained_version_came_as_a_release_like_any_other(left: Left) -> None:
    (found,) = list_retrainings(left.deployment, WORKLOAD)
    assert found.state is RetrainState.SUBMITTED
    kinds = [event.kind.removeprefix("retrain.") for event in found.events]
    assert kinds == ["requested", "frozen", "checked", "trained", "compared", "submitted"]
    submitted = found.data(Kind.RETRAIN_SUBMITTED) or {}
    release = find_release(left.deployment, submitted["release"])
    assert state_of(left.deployment, release) is State.ROLLED_BACK
    (decided,) = release.all(Kind.RELEASE_DECIDED)
    assert (decided.data["outcome"], decided.data["track"], decided.data["seats"]) == ("ALLOW", "green", [])
    tags = left.deployment.registry.version(WORKLOAD, "2").tags
    assert tags["airlock.parent_version"] == "1"
    assert tags["airlock.training_source"] == f"production log of {left.proposals[2].data['window']}"


@pytest.mark.requirement("R-1", "R-3", "M-4")
def test_the_bad_version_is_out_and_stays_out(left: Left) -> None:
    moves = moves_of(left.deployment, WORKLOAD)
    kinds = [Kind.CHAMPION_ADOPTED, Kind.PROMOTION_FINISHED, Kind.ROLLBACK_FINISHED]
    assert [event.kind for event in moves.arrivals] == kinds
    champion = left.deployment.registry.champion(WORKLOAD)
    assert champion is not None
    assert champion.version == moves.champion == "1"
    actions = [one.action for one in list_incidents(left.deployment, workload=WORKLOAD)]
    assert actions == ["alert", "retrain", "rollback", "guard"]


@pytest.mark.requirement("E-1")
def test_airflow_saw_green_runs_and_tells_other_dags(left: Left) -> None:
    runs = left.rows("SELECT dag_id, state FROM dag_run WHERE run_type = 'manual' ORDER BY id")
    assert {state for _, state in runs} == {"success"}
    wanted = {f"monitor__{WORKLOAD}", f"retrain__{WORKLOAD}", f"release__{WORKLOAD}", "airlock__guard"}
    assert {dag_id for dag_id, _ in runs} == wanted
    told = left.rows(
        "SELECT asset.uri, source_dag_id FROM asset_event JOIN asset ON asset.id = asset_event.asset_id"
        " WHERE asset.uri LIKE 'airlock://champion/%' ORDER BY asset_event.id"
    )
    assert [dag_id for _, dag_id in told] == [f"release__{WORKLOAD}", f"monitor__{WORKLOAD}"]


@pytest.mark.requirement("M-4", "R-4")
def test_the_terminal_tells_it_and_a_page_stays(left: Left) -> None:
    assert "the guard looked, and it is at version 1" in left.shown.stderr
    page = (left.settings.home / PAGE).read_text()
    assert re.search(r"version in production</dt><dd>1<", page)
    assert page.count("Which decisions change") == 2
    for proposal in left.proposals:
        assert proposal.data["window"] in page
