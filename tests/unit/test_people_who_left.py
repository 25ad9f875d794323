"""Somebody who left, by ``active: false`` in ``people.yaml``, may do nothing that a person is needed for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import yaml

from airlock.core.audit import Kind
from airlock.core.errors import RefusedError
from airlock.core.incident import PostMortem
from airlock.services.ask import ask
from airlock.services.incidents import acknowledge, open_incident, resolve
from airlock.services.retrain import request
from airlock.services.rollback import rollback
from tests.support.deployments import WORKLOAD, World, fast_folder, make_world, write_yaml

pytestmark = pytest.mark.requirement("A-2", "E-6")

REASON = "More rows came in since spring."
LEARNED = PostMortem(happened="Declined too many.", why="A new county.", changes="It is watched now.")


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        path = world.config / "people.yaml"
        people = yaml.safe_load(path.read_text())["people"]
        write_yaml(path, {"people": [{**person, "active": False} for person in people]})
        yield world


def _roll_back(world: World) -> None:
    rollback(world.deployment, WORKLOAD, actor="ravi", reason=REASON)


def _retrain(world: World) -> None:
    request(world.deployment, WORKLOAD, actor="dana", reason=REASON)


def _incident(world: World) -> str:
    return open_incident(
        world.deployment,
        workload=WORKLOAD,
        version="1",
        action="alert",
        severity="high",
        summary="the county drifted",
        cause="drift/county",
        detected_us=world.clock.us,
    )


def _acknowledge(world: World) -> None:
    acknowledge(world.deployment, _incident(world), actor="grace", comment="I look at it.")


def _resolve(world: World) -> None:
    resolve(world.deployment, _incident(world), actor="grace", post_mortem=LEARNED)


def _ask(world: World) -> None:
    ask(world.deployment, world.judged("2", track="red"), 0, user="grace", text="Who checked this?")


@pytest.mark.parametrize("act", [_roll_back, _retrain, _acknowledge, _resolve, _ask])
def test_who_left_is_refused(world: World, act: Callable[[World], None]) -> None:
    with pytest.raises(RefusedError):
        act(world)
    done = (
        Kind.ROLLBACK_STARTED,
        Kind.RETRAIN_REQUESTED,
        Kind.INCIDENT_ACKNOWLEDGED,
        Kind.INCIDENT_RESOLVED,
        Kind.QUESTION_ASKED,
    )
    assert [kind for kind in done if world.events(kind)] == []
