"""Rollback and the guard as Airflow sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airlock.airflow import operation
from airlock.airflow.assets import CHAMPIONS, champion_asset, tell_champion
from airlock.core.audit import Kind
from airlock.services import deployment as deployments
from airlock.services.incidents import open_incident
from tests.support.deployments import WORKLOAD, World, fast_folder, in_operation
from tests.support.production import OutletEvents

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        yield in_operation(folder / "template")


@pytest.fixture
def world(template: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with fast_folder() as folder:
        world = template.copy(folder / "world")
        monkeypatch.setattr(deployments, "open_deployment", lambda: world.deployment)
        yield world


def context(user: str, **params: Any) -> Any:
    values = {"workload": WORKLOAD, "reason": "everybody is declined", "version": None, "quarantine": False}
    return {
        "params": {**values, **params},
        "dag_run": SimpleNamespace(triggering_user_name=user),
        "outlet_events": OutletEvents(),
    }


def task(dag: Any, name: str) -> Any:
    return dag.get_task(name)


@pytest.mark.requirement("R-3")
def test_the_button_rolls_back_in_the_name_of_who_pressed_it_and_tells_other_dags(world: World) -> None:
    given = context("petra")
    assert task(operation.rollback_dag(), "rollback").execute(given) == "2"
    (finished,) = world.events(Kind.ROLLBACK_FINISHED)
    assert finished.actor == "petra"
    assert given["outlet_events"][CHAMPIONS].added == [
        ("airlock://champion/loan-model", {"version": "2", "by": "rollback of version 3"})
    ]


@pytest.mark.requirement("R-3", "A-2")
@pytest.mark.parametrize("user", ["dana", "", None])
def test_who_may_not_gets_a_red_task_that_is_not_tried_again(world: World, user: str | None) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="may not roll back"):
        task(operation.rollback_dag(), "rollback").execute(context(user or ""))
    assert world.champion == "3"
    assert len(world.events(Kind.ROLLBACK_REFUSED)) == 1


def test_a_registry_that_is_down_is_tried_again(world: World) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    world.registry.fail_at(1)
    with pytest.raises(AirflowException) as caught:
        task(operation.rollback_dag(), "rollback").execute(context("petra"))
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.requirement("R-4")
def test_the_second_task_reads_the_log_and_not_the_first(world: World) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    changes = task(operation.rollback_dag(), "changes")
    with pytest.raises(AirflowFailException, match="was never rolled back"):
        changes.execute(context("petra"))
    task(operation.rollback_dag(), "rollback").execute(context("petra"))
    digest = changes.execute(context("petra"))
    (compared,) = world.events(Kind.DECISIONS_COMPARED)
    assert compared.data["report"] == digest


@pytest.mark.requirement("R-1", "M-4")
def test_the_guard_puts_back_and_escalates(world: World) -> None:
    look = task(operation.guard_dag(), "look")
    assert look.execute(context("")) == 0
    world.registry.champions[WORKLOAD] = "1"
    open_incident(
        world.deployment, workload=WORKLOAD, version="3", action="alert", severity="low", summary="late",
        cause="late", detected_us=world.clock.us - 400 * 3_600_000_000,
    )  # fmt: skip
    assert look.execute(context("")) == 1
    assert world.champion == "3"
    assert len(world.events(Kind.INCIDENT_ESCALATED)) == 1


def test_a_guard_that_can_look_at_nothing_is_red(world: World) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    world.workload_file.write_text("name: [")
    with pytest.raises(AirflowFailException, match="no champion could be looked at"):
        task(operation.guard_dag(), "look").execute(context(""))


def test_dags_say_what_they_are_for_and_when_they_run() -> None:
    rollback, guard = operation.rollback_dag(), operation.guard_dag()
    assert (rollback.dag_id, rollback.schedule) == ("airlock__rollback", None)
    assert guard.dag_id == "airlock__guard"
    assert guard.max_active_runs == 1
    assert task(rollback, "rollback").downstream_task_ids == {"changes"}
    for dag in (rollback, guard):
        assert not dag.is_paused_upon_creation
        assert len(str(dag.doc_md)) > 200
        assert all(one.doc_md for one in dag.tasks)
    lines = (ROOT / "dags" / "operation.py").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith('"""')]) <= 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workload", 1),
        ("reason", "no"),
        ("reason", None),
        ("version", "03"),
        ("version", "x"),
        ("quarantine", "yes"),
    ],
)
def test_a_form_that_is_wrong_is_refused(name: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        operation.rollback_dag().params.get_param(name).resolve(value)


@pytest.mark.requirement("R-1")
def test_a_champion_is_an_asset_of_its_workload() -> None:
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.context import OutletEventAccessors

    asset = champion_asset(WORKLOAD)
    assert asset == Asset("airlock://champion/loan-model"), "as other DAGs name it"
    events = OutletEventAccessors()
    tell_champion({"outlet_events": events}, WORKLOAD, "3", "release x")
    assert events[asset].extra == {"version": "3", "by": "release x"}
