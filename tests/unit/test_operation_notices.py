"""People are told of incidents and of decisions that change, through the courier's channels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airlock.adapters.notify import open_notifier
from airlock.adapters.outbox import Outbox
from airlock.core.audit import Kind
from airlock.core.incident import PostMortem
from airlock.core.notices import ChannelSpec
from airlock.services.courier import Courier
from airlock.services.deployment import anchors_of
from airlock.services.incidents import acknowledge, find_incident, open_incident, resolve
from airlock.services.operation_notices import CHANGES, INCIDENT, operation_due
from airlock.services.rollback import rollback
from airlock.services.sequence import Sequencer
from tests.support.deployments import WORKLOAD, World, fast_folder, in_operation
from tests.support.fake_slack import CHANNEL, TOKEN, FakeSlack, fake_slack

pytestmark = pytest.mark.requirement("M-4", "A-3")

URL = "https://airflow.example"
LEARNED = PostMortem(
    happened="Everybody was declined.", why="A column was renamed.", changes="The schema is watched."
)


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        yield in_operation(folder / "template")


@pytest.fixture
def world(template: World) -> Iterator[World]:
    with fast_folder() as folder:
        world = template.copy(folder / "world")
        sequence(world)
        Outbox(world.root / "outbox.db").advance(world.deployment.log.head().size, [])
        yield world


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as slack:
        yield slack


def sequence(world: World) -> None:
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    sequencer.step()
    sequencer.publish()


def courier(world: World, slack: FakeSlack, **changes: object) -> Courier:
    values = {
        "name": "operation", "type": "slack", "to": CHANNEL, "secret": "SLACK",
        "options": {"base_url": slack.url}, **changes,
    }  # fmt: skip
    spec = ChannelSpec.model_validate(values)
    notifier = open_notifier(spec, airflow_url=URL, environment={"SLACK": TOKEN})
    return Courier(world.deployment, [(spec, notifier)], Outbox(world.root / "outbox.db"))


def step(world: World, worker: Courier) -> int:
    sequence(world)
    return worker.step()


def opened(world: World) -> str:
    return open_incident(
        world.deployment, workload=WORKLOAD, version="3", action="alert", severity="high",
        summary="the county drifted", cause="drift/county", detected_us=world.clock.us,
    )  # fmt: skip


def texts(slack: FakeSlack) -> list[str]:
    return [slack.text(ts) for ts in slack.messages]


def test_an_incident_is_one_message_that_follows_it_to_its_end(world: World, slack: FakeSlack) -> None:
    worker = courier(world, slack, topics=["incident", "escalation"])
    incident = opened(world)
    assert step(world, worker) == 1
    assert step(world, worker) == 0, "nothing changed"
    (first,) = texts(slack)
    assert "loan-model: alert, high, open" in first
    assert "the county drifted" in first
    acknowledge(world.deployment, incident, actor="petra")
    assert step(world, worker) == 1
    assert "alert, high, acknowledged" in texts(slack)[0]
    resolve(world.deployment, incident, actor="petra", post_mortem=LEARNED)
    assert step(world, worker) == 1
    assert "alert, high, resolved" in texts(slack)[0]
    assert len(slack.messages) == 1
    world.clock.advance(hours=500)
    assert step(world, worker) == 0


def test_a_deadline_that_passes_is_told_without_anything_being_recorded(
    world: World, slack: FakeSlack
) -> None:
    worker = courier(world, slack, topics=["incident", "escalation"])
    opened(world)
    step(world, worker)
    world.clock.advance(hours=23)
    assert step(world, worker) == 0
    world.clock.advance(hours=1, us=2)
    assert step(world, worker) == 1
    assert "was to be resolved within 24 hours" in texts(slack)[1]


def test_a_role_of_the_policy_is_asked(world: World) -> None:
    notices, wakes = operation_due(world.deployment, INCIDENT + opened(world))
    (notice,) = notices
    assert (notice.role, notice.people, notice.waits) == ("ml-platform-engineer", ["petra"], True)
    assert wakes == [world.clock.us + 24 * 3_600_000_000 + 1]
    assert notice.review == f"/airlock/incidents/{notice.notice_id.split('/', maxsplit=1)[0]}"


def test_a_courier_that_runs_for_the_first_time_tells_what_is_open(world: World, slack: FakeSlack) -> None:
    opened(world)
    sequence(world)
    (world.root / "outbox.db").unlink()
    worker = courier(world, slack, topics=["incident"])
    worker.step()
    assert len(slack.messages) == 1


def test_a_rollback_is_told_as_an_incident_and_as_the_outcome_of_its_release(
    world: World, slack: FakeSlack
) -> None:
    worker = courier(world, slack)
    event = rollback(world.deployment, WORKLOAD, actor="petra", reason="everybody is declined")
    assert step(world, worker) > 0
    said = "\n".join(texts(slack))
    assert "loan-model goes back from version 3 to version 2, by petra" in said
    assert "loan-model version 3: rolled back" in said
    assert "taken out of production by petra: version 2 took over; see incident-" in said
    assert "everybody is declined" not in said, "what somebody wrote is kept where it can be erased"
    assert find_incident(world.deployment, str(event.data["incident"])).is_open


@pytest.mark.requirement("R-4")
def test_each_team_downstream_is_told_which_decisions_change(world: World, slack: FakeSlack) -> None:
    compared = world.deployment.record(
        Kind.DECISIONS_COMPARED,
        "decisions/rollback/3/loan-model",
        workload=WORKLOAD,
        version="2",
        data={
            "kind": "rollback", "from": "3", "to": "2", "report": "0" * 64, "page": "1" * 64, "cases": 400,
            "changed": 90, "sentence": "version 2 decides 90 of 400 cases differently",
            "downstream": ["claims", "collections"], "incident": "incident-1",
        },
    ).event  # fmt: skip
    claims = courier(world, slack, topics=["decisions"], roles=["claims"])
    assert step(world, claims) == 1
    assert "version 2 decides 90 of 400 cases differently" in texts(slack)[0]
    notices, wakes = operation_due(world.deployment, CHANGES + compared.key)
    assert [notice.role for notice in notices] == ["claims", "collections"]
    assert wakes == []
    assert step(world, claims) == 0
