"""Seats are asked again when their answer counts no more, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airlock.core.errors import NotFoundError, UnavailableError
from airlock.services.ask_again import ask_again
from tests.support.deployments import World, edit, fast_folder, make_world

pytestmark = pytest.mark.requirement("A-6")


class Airflow:
    """Airflow's side: seats that wait."""

    def __init__(self, seats: int) -> None:
        self.seats = [{"map_index": index, "state": "awaiting_input"} for index in range(seats)]
        self.cleared: list[int] = []
        self.gone = False

    def task_instances(self, dag_id: str, run_id: str, task_id: str) -> list[dict[str, Any]]:
        if self.gone:
            raise NotFoundError("Airflow answers 404: no such run")
        return self.seats

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


def again(world: World, airflow: Airflow) -> list[str]:
    client: Any = airflow
    return ask_again(world.deployment, client)


def test_nothing_is_asked_again_while_nothing_changes(world: World) -> None:
    world.judged("2", track="red")
    airflow = Airflow(2)
    assert (again(world, airflow), airflow.cleared) == ([], [])


def test_a_filled_seat_is_left_alone_and_a_revoked_one_asked_again(world: World) -> None:
    release_id = world.judged("2", track="red")
    world.answer(release_id, "grace", 0, condition="Show a month of shadow traffic.", until="2026-01-05")
    airflow = Airflow(2)
    airflow.seats[0]["state"] = "success"
    assert again(world, airflow) == []
    world.clock.advance(hours=24 * 6)
    assert again(world, airflow) == [f"seat 1 of {release_id} (governance-analyst) asks grace, omar"]


def test_a_seat_that_nobody_may_fill_is_not_asked_of_nobody(world: World) -> None:
    """Airflow lets anyone answer a task without assigned users."""
    release_id = world.judged("2", track="yellow")
    world.answer(release_id, "petra", 0)
    world.set_roles("petra", [])
    airflow = Airflow(1)
    airflow.seats[0]["state"] = "success"
    assert (again(world, airflow), airflow.cleared) == ([], [])


def test_a_release_whose_run_is_gone_keeps_no_other_from_being_asked(world: World) -> None:
    world.judged("2", track="red")
    airflow = Airflow(0)
    airflow.gone = True
    (said,) = again(world, airflow)
    assert "could not be asked again" in said


def test_without_a_service_user_it_says_so_when_there_is_something_to_ask(world: World) -> None:
    assert ask_again(world.deployment) == []
    world.judged("2", track="red")
    with pytest.raises(UnavailableError, match="no service user"):
        ask_again(world.deployment)
