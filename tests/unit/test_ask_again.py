"""Seats are asked again when who may fill them has changed, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airlock.core.errors import NotFoundError, UnavailableError
from airlock.services import delegations
from airlock.services.ask_again import ask_again
from tests.support.deployments import World, edit, fast_folder, make_world

pytestmark = pytest.mark.requirement("A-6")


class Airflow:
    """Airflow's side: a seat of each release waits for the people it was asked of."""

    def __init__(self, *asked: set[str]) -> None:
        self.seats = [{"map_index": index, "state": "awaiting_input"} for index in range(len(asked))]
        self.asked = dict(enumerate(asked))
        self.cleared: list[int] = []
        self.gone = False

    def task_instances(self, dag_id: str, run_id: str, task_id: str) -> list[dict[str, Any]]:
        if self.gone:
            raise NotFoundError("Airflow answers 404: no such run")
        return self.seats

    def asked_people(self, dag_id: str, run_id: str, task_id: str, index: int) -> set[str]:
        return self.asked[index]

    def clear_task(self, dag_id: str, run_id: str, task_id: str, index: int) -> None:
        self.cleared.append(index)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        edit(
            world.policy_file,
            "expires_hours: 72",
            "expires_hours: 1000\n  delegate_days: 31\n  condition_days: 30",
        )
        yield world


ANALYSTS, OFFICERS = {"grace", "omar"}, {"ravi", "omar"}


def again(world: World, airflow: Airflow) -> list[str]:
    client: Any = airflow
    return ask_again(world.deployment, client)


def test_nothing_is_asked_again_while_nothing_changes(world: World) -> None:
    world.judged("2", track="red")
    airflow = Airflow(ANALYSTS, OFFICERS)
    assert (again(world, airflow), airflow.cleared) == ([], [])


def test_a_delegation_asks_the_seat_of_its_role_again(world: World) -> None:
    release_id = world.judged("2", track="red")
    delegations.give(
        world.deployment,
        delegation_id="delegation-1",
        giver="ravi",
        to="petra",
        roles=["risk-officer"],
        start="2026-01-01",
        until="2026-01-02",
        reason="On holiday today.",
        when="now",
    )
    airflow = Airflow(ANALYSTS, OFFICERS)
    assert again(world, airflow) == [f"seat 2 of {release_id} (risk-officer) asks omar, petra, ravi"]
    assert airflow.cleared == [1]
    airflow = Airflow(ANALYSTS, OFFICERS | {"petra"})
    assert again(world, airflow) == []
    world.clock.advance(hours=48)  # it is over, and she is not asked any more
    assert again(world, airflow) == [f"seat 2 of {release_id} (risk-officer) asks omar, ravi"]


def test_a_filled_seat_is_left_alone_and_a_revoked_one_asked_again(world: World) -> None:
    release_id = world.judged("2", track="red")
    world.answer(release_id, "grace", 0, condition="Show a month of shadow traffic.", until="2026-01-05")
    airflow = Airflow(set(), OFFICERS)
    airflow.seats[0]["state"] = "success"
    assert again(world, airflow) == []
    world.clock.advance(hours=24 * 6)
    assert again(world, airflow) == [f"seat 1 of {release_id} (governance-analyst) asks grace, omar"]


def test_a_seat_that_nobody_may_fill_is_not_asked_of_nobody(world: World) -> None:
    """Airflow lets anyone answer a task without assigned users."""
    world.judged("2", track="yellow")
    world.set_roles("petra", [])
    airflow = Airflow({"petra"})
    assert (again(world, airflow), airflow.cleared) == ([], [])


def test_a_release_whose_run_is_gone_keeps_no_other_from_being_asked(world: World) -> None:
    world.judged("2", track="red")
    airflow = Airflow()
    airflow.gone = True
    (said,) = again(world, airflow)
    assert "could not be asked again" in said


def test_without_a_service_user_it_says_so_when_there_is_something_to_ask(world: World) -> None:
    assert ask_again(world.deployment) == []
    world.judged("2", track="red")
    with pytest.raises(UnavailableError, match="no service user"):
        ask_again(world.deployment)
