"""Requests of people without a login are recorded, but cannot fill the log."""

from __future__ import annotations

import time

import pytest

from airlock.airflow import attempts
from airlock.core.audit import Kind
from airlock.services import deployment
from tests.support.deployments import World, fast_folder, make_world


def recorded(world: World) -> list[tuple[str, int, int]]:
    return [
        (event.actor, event.data["status"], event.data.get("left_out_before", 0))
        for event in world.events(Kind.API_ATTEMPT)
    ]


@pytest.mark.requirement("E-1")
def test_refused_requests_of_nobody_are_bounded_and_all_others_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        settings = world.deployment.settings.model_copy(update={"anonymous_per_minute": 2})
        world.deployment = deployment.open_deployment(settings)
        monkeypatch.setattr(deployment, "open_deployment", lambda: world.deployment)
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        bound = attempts._Bound()

        def ask(user: str, status: int) -> None:
            attempts._write("POST", ("release__x", "/dagRuns/r"), user, status, bound)

        for _ in range(5):
            ask("anonymous", 401)
        ask("anonymous", 200)
        ask("dana", 403)
        now[0] = 61
        ask("anonymous", 401)
        assert recorded(world) == [
            ("anonymous", 401, 0),
            ("anonymous", 401, 0),
            ("anonymous", 200, 0),
            ("dana", 403, 0),
            ("anonymous", 401, 3),
        ]
