"""Incidents: one for a cause, owned, escalated in time, closed with what was learned."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airlock.core.audit import Kind
from airlock.core.errors import NotFoundError, RefusedError
from airlock.core.incident import (
    HOUR_US,
    IncidentState,
    PolicyProposal,
    PostMortem,
    incident_id_for,
)
from airlock.services.incidents import (
    acknowledge,
    figures,
    find_incident,
    list_incidents,
    open_incident,
    resolve,
    review_incidents,
    timeline,
)
from tests.support.deployments import START_US, WORKLOAD, World, fast_folder, make_world

pytestmark = pytest.mark.requirement("M-4")

LEARNED = PostMortem(
    happened="Applicants from one county were declined.",
    why="The county was never in the training data.",
    changes="Drift of the county is watched from now on.",
)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


def opened(world: World, **changes: Any) -> str:
    values: dict[str, Any] = {
        "workload": WORKLOAD, "version": "1", "action": "alert", "severity": "high",
        "summary": "the county drifted", "cause": "drift/county", "detected_us": world.clock.us,
    }  # fmt: skip
    return open_incident(world.deployment, **{**values, **changes})


def test_an_incident_has_an_owner_a_role_and_a_deadline(world: World) -> None:
    incident = find_incident(world.deployment, opened(world, data={"psi": 0.4}))
    assert (incident.owner, incident.role, incident.escalate_to) == (
        "team", "ml-platform-engineer", "risk-officer",
    )  # fmt: skip
    assert incident.deadline_us == START_US + 24 * HOUR_US
    assert (incident.state, incident.data) == (IncidentState.OPEN, {"psi": 0.4})


@pytest.mark.parametrize(("severity", "hours"), [("critical", 4), ("high", 24), ("medium", 72), ("low", 168)])
def test_the_policy_says_how_long_each_severity_may_wait(world: World, severity: str, hours: int) -> None:
    incident = find_incident(world.deployment, opened(world, severity=severity))
    assert incident.deadline_us == START_US + hours * HOUR_US


def test_an_unknown_severity_or_workload_is_an_error(world: World) -> None:
    with pytest.raises(ValueError, match="terrible"):
        opened(world, severity="terrible")
    with pytest.raises(NotFoundError, match="no workload"):
        opened(world, workload="other")
    assert list_incidents(world.deployment) == []


def test_a_cause_has_one_incident_while_it_is_open(world: World) -> None:
    first = opened(world)
    world.clock.advance(hours=1)
    assert opened(world, summary="it drifted further", severity="critical") == first
    assert opened(world, cause="drift/income") != first
    assert len(list_incidents(world.deployment)) == 2
    resolve(world.deployment, first, actor="petra", post_mortem=LEARNED)
    again = opened(world)
    assert again != first
    assert [one.incident_id for one in list_incidents(world.deployment, only_open=True)][-1] == again


def test_many_who_notice_at_once_open_one_incident(world: World) -> None:
    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(lambda number: opened(world, summary=f"seen by {number}"), range(6)))
    assert len(ids) == 1
    assert len(world.events(Kind.INCIDENT_OPENED)) == 1


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 5), st.integers(0, 5))
def test_ids_follow_from_cause_and_number(one: str, two: str, first: int, second: int) -> None:
    same = (one, first) == (two, second)
    assert (incident_id_for("d", "w", one, first) == incident_id_for("d", "w", two, second)) is same


def test_an_unknown_incident_is_told(world: World) -> None:
    with pytest.raises(NotFoundError, match="airlock incident list"):
        find_incident(world.deployment, "incident-0000000000")


# People


def test_somebody_is_on_it_and_the_first_stands(world: World) -> None:
    incident = opened(world)
    acknowledge(world.deployment, incident, actor="petra", comment="I look at the county")
    found = acknowledge(world.deployment, incident, actor="ravi")
    assert found.state is IncidentState.ACKNOWLEDGED
    assert found.acknowledged is not None
    assert (found.acknowledged.actor, found.acknowledged.data["comment"]) == ("petra", "I look at the county")


@pytest.mark.parametrize("user", ["dana", "vera", "stranger", ""])
def test_who_holds_no_role_neither_acknowledges_nor_resolves(world: World, user: str) -> None:
    incident = opened(world)
    with pytest.raises(RefusedError, match="holds no governance role"):
        acknowledge(world.deployment, incident, actor=user)
    with pytest.raises(RefusedError, match="holds no governance role"):
        resolve(world.deployment, incident, actor=user, post_mortem=LEARNED)
    assert find_incident(world.deployment, incident).state is IncidentState.OPEN
    assert len(world.events(Kind.REQUEST_REFUSED)) == 2


def test_a_post_mortem_is_kept_encrypted_and_closes_it(world: World) -> None:
    incident = opened(world)
    found = resolve(world.deployment, incident, actor="petra", post_mortem=LEARNED)
    assert found.state is IncidentState.RESOLVED
    assert found.resolved is not None
    assert found.resolved.data["why"] == LEARNED.why
    world.deployment.audit.confirm(world.deployment.audit.events(kinds=[Kind.INCIDENT_RESOLVED])[0])
    bodies = b"".join(world.deployment.log.bodies(0, world.deployment.log.head().size))
    assert b"incident.resolved" in bodies
    assert LEARNED.why.encode() not in bodies
    assert resolve(world.deployment, incident, actor="ravi", post_mortem=LEARNED) == found
    with pytest.raises(RefusedError, match="is resolved"):
        acknowledge(world.deployment, incident, actor="petra")


@pytest.mark.parametrize("part", ["happened", "why", "changes"])
def test_an_empty_part_of_a_post_mortem_does_not_close_it(world: World, part: str) -> None:
    incident = opened(world)
    words = LEARNED.model_copy(update={part: "  fine  "})
    with pytest.raises(RefusedError, match=f"part `{part}` of the post-mortem needs at least 10"):
        resolve(world.deployment, incident, actor="petra", post_mortem=words)
    assert find_incident(world.deployment, incident).is_open


def test_a_post_mortem_may_propose_another_limit_and_changes_no_policy(world: World) -> None:
    incident = opened(world)
    before = world.deployment.config.policy("1.0.0").digest
    proposal = PolicyProposal(limit="red_change", value=0.1, why="0.15 was too late")
    found = resolve(
        world.deployment,
        incident,
        actor="petra",
        post_mortem=LEARNED.model_copy(update={"proposal": proposal}),
    )
    assert found.resolved is not None
    assert found.resolved.data["proposal"] == {
        "limit": "red_change", "value": 0.1, "now": 0.15, "why": "0.15 was too late", "policy": "1.0.0",
    }  # fmt: skip
    assert world.deployment.config.policy("1.0.0").digest == before


def test_a_proposal_names_a_limit_that_exists(world: World) -> None:
    words = LEARNED.model_copy(update={"proposal": PolicyProposal(limit="other", value=1, why="x")})
    with pytest.raises(RefusedError, match="no limit 'other'"):
        resolve(world.deployment, opened(world), actor="petra", post_mortem=words)
    with pytest.raises(ValidationError):
        PolicyProposal(limit="Not a name", value=1, why="x")


# Time


def test_what_is_late_is_escalated_once(world: World) -> None:
    incident = opened(world)
    assert review_incidents(world.deployment) == []
    world.clock.advance(hours=24)
    assert review_incidents(world.deployment) == [], "the deadline itself is in time"
    world.clock.advance(us=1)
    (sentence,) = review_incidents(world.deployment)
    assert "risk-officer is told" in sentence
    assert review_incidents(world.deployment) == []
    assert find_incident(world.deployment, incident).escalated is not None


def test_what_is_resolved_is_not_escalated(world: World) -> None:
    resolve(world.deployment, opened(world), actor="petra", post_mortem=LEARNED)
    world.clock.advance(hours=500)
    assert review_incidents(world.deployment) == []


def test_times_to_detect_acknowledge_and_resolve_are_measured(world: World) -> None:
    assert figures(world.deployment).resolve_seconds is None
    first = opened(world, began_us=START_US - 2 * HOUR_US)
    opened(world, cause="drift/income", severity="critical", action="rollback")
    world.clock.advance(hours=1)
    acknowledge(world.deployment, first, actor="petra")
    world.clock.advance(hours=2)
    resolve(world.deployment, first, actor="petra", post_mortem=LEARNED)
    world.clock.advance(hours=2)
    found = figures(world.deployment)
    assert (found.total, found.open, found.overdue) == (2, 1, 1)
    assert found.detect_seconds == 7200
    assert found.acknowledge_seconds == 3600
    assert found.resolve_seconds == 3 * 3600
    assert found.by_action == {"alert": 1, "rollback": 1}
    assert found.by_severity == {"critical": 1, "high": 1}
    assert figures(world.deployment, workload="other").total == 0
    assert figures(world.deployment, since_us=START_US + 1).total == 0


def test_the_timeline_comes_from_the_log_and_belongs_to_one_incident(world: World) -> None:
    world.granted("2")
    world.clock.advance(hours=3)
    incident = opened(world, began_us=START_US)
    opened(world, cause="drift/income")
    acknowledge(world.deployment, incident, actor="petra")
    kinds = [event.kind for event in timeline(world.deployment, incident)]
    assert kinds == [
        Kind.RELEASE_SUBMITTED, Kind.RELEASE_DECIDED, Kind.APPROVAL_RECORDED, Kind.APPROVAL_RECORDED,
        Kind.INCIDENT_OPENED, Kind.INCIDENT_ACKNOWLEDGED,
    ]  # fmt: skip
    resolve(world.deployment, incident, actor="petra", post_mortem=LEARNED)
    world.clock.advance(hours=1)
    world.judged("3", run="run-3")
    assert timeline(world.deployment, incident)[-1].kind is Kind.INCIDENT_RESOLVED


def test_what_happened_long_before_is_not_in_the_timeline(world: World) -> None:
    world.granted("2")
    world.clock.advance(hours=3)
    assert [event.kind for event in timeline(world.deployment, opened(world))] == [Kind.INCIDENT_OPENED]
