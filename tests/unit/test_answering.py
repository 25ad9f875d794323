"""An answer that Airflow loses is sent again, and one that counts or is refused is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from airlock.adapters.airflow_api import AirflowClient
from airlock.core.audit import Kind
from airlock.core.errors import RefusedError
from airlock.services import follow, watch
from airlock.services.delegations import give
from tests.support.deployments import World, edit, fast_folder, make_world


class Seat:
    """Airflow's side of one seat: it loses the first ``loses`` answers, as when it fails the parked task."""

    def __init__(self, world: World, release_id: str, *, loses: int, user: str = "grace") -> None:
        self.world, self.release_id, self.loses, self.user = world, release_id, loses, user
        self.answers: list[str] = []
        self.waits = True

    def wait_for_seat(self, *place: object) -> None:
        assert self.waits

    def answer(self, *place: Any, choice: str, comment: str, condition: str = "", until: str = "") -> None:
        self.answers.append(choice)
        if len(self.answers) > self.loses:
            self.waits = False
            try:
                self.world.answer(self.release_id, self.user, place[-1], comment=comment)
            except RefusedError:
                self.waits = True

    def asks_again(self, *place: object) -> bool:
        return self.waits

    def run(self, dag_id: str, run_id: str) -> dict[str, str]:
        return {"state": "running"}


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0)


def send(world: World, seat: Seat, user: str = "grace") -> int:
    return watch.answer_release(
        world.deployment,
        cast("AirflowClient", seat),
        seat.release_id,
        user=user,
        choice="Approve",
        comment="Looked at everything.",
        seat=1,
    )


@pytest.mark.requirement("A-3")
@pytest.mark.parametrize("loses", [0, 1, 3])
def test_a_lost_answer_is_sent_until_it_stands(world: World, loses: int) -> None:
    seat = Seat(world, world.judged(), loses=loses)
    assert send(world, seat) == 0
    assert len(seat.answers) == loses + 1
    assert [event.actor for event in world.events(Kind.APPROVAL_RECORDED)] == ["grace"]


@pytest.mark.requirement("A-2")
def test_a_refused_answer_is_not_sent_again(world: World) -> None:
    seat = Seat(world, world.judged(), loses=0, user="dana")
    with pytest.raises(RefusedError):
        send(world, seat, user="dana")
    assert len(seat.answers) == 1
    assert not world.events(Kind.APPROVAL_RECORDED)


@pytest.mark.parametrize(
    ("hours", "filled", "why"),
    [(73, False, "does not wait for approval: it is expired"), (0, True, "seat 1 is already filled by omar")],
)
def test_who_comes_too_late_is_told_at_once(world: World, hours: int, filled: bool, why: str) -> None:
    """Airflow is not asked: it would be waited for until it asks for this seat, which it does no more."""
    seat = Seat(world, world.judged(), loses=0)
    if filled:
        world.answer(seat.release_id, "omar", 0)
    world.clock.advance(hours=hours)
    with pytest.raises(RefusedError, match=why):
        send(world, seat)
    assert seat.answers == []


def test_a_lost_answer_to_a_request_is_sent_again(world: World) -> None:
    release_id = world.judged()
    seat = Seat(world, release_id, loses=1)
    follow.answer_request(
        world.deployment,
        cast("AirflowClient", seat),
        release_id,
        0,
        run=("dag", "run"),
        choice="Approve",
        comment="Looked at everything.",
        recorded=lambda: bool(world.events(Kind.APPROVAL_RECORDED)),
    )
    assert seat.answers == ["Approve", "Approve"]


class Asks(Seat):
    """A seat for which Airflow asks some users and refuses the others; it never changes whom."""

    def __init__(self, world: World, release_id: str, *, asked: set[str], user: str) -> None:
        super().__init__(world, release_id, loses=0, user=user)
        self.asked = asked

    def answer(self, *place: Any, choice: str, comment: str, **more: str) -> None:
        if self.user not in self.asked:
            self.answers.append("403")
            raise RefusedError(f"Airflow answers 403: {self.user} is not a respondent")
        super().answer(*place, choice=choice, comment=comment, **more)


@pytest.mark.requirement("A-6", "A-2")
def test_a_deputy_whom_airflow_does_not_ask_is_recorded_and_nobody_else(world: World) -> None:
    edit(world.policy_file, "expires_hours: 72", "expires_hours: 1000\n  delegate_days: 31")
    release_id = world.judged("2", track="red")
    give(
        world.deployment,
        delegation_id="delegation-1",
        giver="grace",
        to="petra",
        roles=["governance-analyst"],
        start="2026-01-01",
        until="2026-01-02",
        reason="On holiday today.",
        when="now",
    )
    for user in ("vera", "ravi", "dana"):
        with pytest.raises(RefusedError, match="is not a respondent"):
            send(world, Asks(world, release_id, asked={"grace", "omar"}, user=user), user=user)
    assert not world.events(Kind.APPROVAL_RECORDED)
    petra = Asks(world, release_id, asked={"grace", "omar"}, user="petra")
    assert send(world, petra, user="petra") == 0
    (event,) = world.events(Kind.APPROVAL_RECORDED)
    assert (event.actor, event.data["acts_for"], event.data["choice"]) == ("petra", "grace", "approve")
    assert petra.answers == ["403"], "it is on record, and nothing is sent again"
