"""Production on a real Airflow: a bad week is seen, a person is asked, the version before comes back.

After the other modules, because it changes which versions are in production.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest

from airlock.core.audit import Event, Kind
from airlock.core.monitoring import Action
from airlock.core.production import DAY_US, Window, moment
from airlock.core.task import GUARD_DAG, ROLLBACK_DAG
from airlock.demo import models, weeks
from airlock.services.actions import answered, ended, proposal_of
from airlock.services.follow import answer_request
from airlock.services.incidents import find_incident, list_incidents
from airlock.services.monitor import evaluated
from airlock.services.moves import moves_of
from tests.system.conftest import World, airlock, until

WATCHED = models.APPROVAL
DAG = f"monitor__{WATCHED}"


@dataclass
class Watched:
    """One run of the monitoring DAG over a week whose server took the wrong column of the answers."""

    world: World
    run_id: str
    left: str
    event: Event
    proposal: Event

    def tasks(self) -> dict[str, str | None]:
        found = self.world.client("admin").task_instances(DAG, self.run_id)
        return {one["task_id"]: one["state"] for one in found}


def finished(world: World, dag_id: str, run_id: str) -> str:
    def ended_as() -> str:
        state = str(world.client("admin").run(dag_id, run_id)["state"])
        return state if state in ("success", "failed") else ""

    return until(ended_as)


def log_a_bad_week(world: World, window: Window) -> None:
    """The applications of the evaluation batch, answered by the champion, read from the wrong column."""
    rows = pd.read_parquet(world.settings.data_root / "loanapp" / "batches" / "clean.parquet")
    workload = world.deployment.config.workload(WATCHED)
    threshold = models.APPROVAL_BOOSTED.threshold
    weeks.replay(world.settings, workload, rows, window, threshold=threshold, column=0)


@pytest.fixture(scope="module")
def watched(world: World) -> Watched:
    end_us = world.deployment.clock.now_us() // DAY_US * DAY_US
    log_a_bad_week(world, Window(start_us=end_us - 7 * DAY_US, end_us=end_us))
    left = world.champion(WATCHED)
    started = world.client("dana").trigger(DAG, {}, logical_date=moment(end_us).isoformat())
    run_id = str(started["dag_run_id"])

    def proposed() -> str:
        events = evaluated(world.deployment, WATCHED)
        return "yes" if events and proposal_of(world.deployment, events[-1]) is not None else ""

    until(proposed)
    event = evaluated(world.deployment, WATCHED)[-1]
    proposal = proposal_of(world.deployment, event)
    assert proposal is not None
    return Watched(world, run_id, left, event, proposal)


@pytest.mark.requirement("M-1", "M-2")
def test_a_bad_week_is_seen_and_the_people_of_the_policy_are_asked(watched: Watched) -> None:
    assert watched.event.data["end_us"] - watched.event.data["start_us"] == 7 * DAY_US
    assert watched.event.data["readings"]["performance"] == "raised"
    assert watched.event.data["readings"]["data_quality"] == "calm"
    data = watched.proposal.data
    assert (data["action"], data["restraint"], data["role"]) == (Action.ROLLBACK, "ask", "risk-officer")
    world = watched.world
    world.client("ravi").wait_for_seat(DAG, watched.run_id, "seat", 0)
    assert ended(world.deployment, watched.proposal) is None, "nothing is done before somebody answered"
    assert world.champion(WATCHED) == watched.left


@pytest.mark.requirement("M-2", "R-3", "R-4", "M-4")
def test_what_they_approve_is_done_told_and_compared(watched: Watched) -> None:
    world, subject = watched.world, str(watched.proposal.data["subject"])
    answer_request(
        world.deployment,
        world.client("ravi"),
        subject,
        0,
        run=(DAG, watched.run_id),
        choice="Approve",
        comment="The wrong column is taken.",
        recorded=lambda: answered(world.deployment, subject) is not None,
    )
    assert finished(world, DAG, watched.run_id) == "success", watched.tasks()
    assert set(watched.tasks().values()) == {"success"}
    done = ended(world.deployment, watched.proposal)
    assert done is not None
    assert (done.kind, done.data["by"]) == (Kind.ACTION_TAKEN, "ravi")
    now = world.champion(WATCHED)
    assert now != watched.left
    assert moves_of(world.deployment, WATCHED).champion == now
    incident = find_incident(world.deployment, done.data["incident"])
    assert (incident.action, incident.severity) == ("rollback", "critical")
    compared = [one.event for one in world.deployment.audit.events(kinds=[Kind.DECISIONS_COMPARED])][-1]
    assert (compared.workload, compared.data["from"], compared.data["to"]) == (WATCHED, watched.left, now)
    assert compared.data["changed"] > 0


@pytest.mark.requirement("M-1")
def test_windows_and_champions_are_assets_that_other_dags_can_wait_for(watched: Watched) -> None:
    told = _asset_events(watched.world)
    assert [one["source_dag_id"] for one in told[f"airlock://window/{WATCHED}"]] == [DAG]
    last = told[f"airlock://champion/{WATCHED}"][-1]
    assert last["source_dag_id"] == DAG
    wanted = {"version": watched.world.champion(WATCHED), "by": f"rollback of version {watched.left}"}
    assert {name: last["extra"][name] for name in wanted} == wanted


def _asset_events(world: World) -> dict[str, list[dict[str, Any]]]:
    client = world.client("admin")
    assets = client.request("GET", "/assets", params={"limit": 100}).json()["assets"]
    found = client.request("GET", "/assets/events", params={"limit": 100, "order_by": "timestamp"}).json()
    names = {one["id"]: one["uri"] for one in assets}
    told: dict[str, list[dict[str, Any]]] = {}
    for event in found["asset_events"]:
        told.setdefault(names[event["asset_id"]].rstrip("/"), []).append(event)
    return told


@pytest.mark.requirement("M-4")
def test_the_history_is_a_page_for_whoever_comes_later(watched: Watched) -> None:
    world, page = watched.world, watched.world.settings.home / "history.html"
    shown = airlock("monitor", "history", WATCHED, "--html", str(page), "--format", "json", env=world.env)
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert [one["action"] for one in found["windows"]] == ["rollback"]
    assert found["champion"] == world.champion(WATCHED)
    text = page.read_text()
    assert "Which decisions change" in text
    assert "<script" not in text


@pytest.mark.requirement("R-3")
def test_the_button_rolls_back_in_the_name_of_who_pressed_it(world: World) -> None:
    left = world.champion(models.RATE_TYPE)
    conf = {"workload": models.RATE_TYPE, "reason": "The back office plans for the wrong month."}
    run_id = str(world.client("petra").trigger(ROLLBACK_DAG, conf)["dag_run_id"])
    assert finished(world, ROLLBACK_DAG, run_id) == "success"
    last = moves_of(world.deployment, models.RATE_TYPE).last
    assert last is not None
    assert (last.kind, last.actor, last.version) == (Kind.ROLLBACK_FINISHED, "petra", left)
    assert world.champion(models.RATE_TYPE) == last.data["to"] != left
    told = _asset_events(world)[f"airlock://champion/{models.RATE_TYPE}"][-1]
    assert told["source_dag_id"] == ROLLBACK_DAG
    # And the guard undoes what somebody does behind Airlock's back.
    models.move_alias(world.settings, models.RATE_TYPE, left)
    run_id = str(world.client("petra").trigger(GUARD_DAG, {})["dag_run_id"])
    assert finished(world, GUARD_DAG, run_id) == "success"
    assert world.champion(models.RATE_TYPE) == last.data["to"]
    causes = [one.action for one in list_incidents(world.deployment, workload=models.RATE_TYPE)]
    assert causes == ["rollback", "guard"]
