"""A preflight and the release itself agree, on every situation that makes a difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock.adapters.scratch import ReadOnlyRegistry, scratch_id
from airlock.core.decision import Outcome
from airlock.core.errors import NotFoundError, RefusedError
from airlock.core.evidence import SCORE
from airlock.core.policy import Track
from airlock.core.preflight import Level, Preflight
from airlock.services.rehearse import Rehearsal, rehearse
from tests.support.deployments import WORKLOAD, World, fast_folder
from tests.support.rehearsals import make_stage, release

ALLOW, PENDING, DENY = Outcome.ALLOW, Outcome.PENDING, Outcome.DENY
GREEN, YELLOW, RED = Track.GREEN, Track.YELLOW, Track.RED

CASES: dict[str, tuple[Outcome, Track | None, dict[str, Any]]] = {
    "the same model": (ALLOW, GREEN, {}),
    "a small change": (ALLOW, GREEN, {"candidate": {"skill": 0.95}}),
    "much worse": (DENY, RED, {"candidate": {"skill": 0.2}}),
    "another threshold": (PENDING, YELLOW, {"candidate": {"threshold": 0.45}}),
    "a far threshold": (PENDING, RED, {"candidate": {"threshold": 0.8}}),
    "a new feature from an approved source": (
        PENDING,
        YELLOW,
        {"candidate": {"features": ["income", "debt", "bureau_score"]}},
    ),
    "a new feature from nowhere": (PENDING, RED, {"candidate": {"features": ["income", "debt", "diary"]}}),
    "a feature less": (PENDING, YELLOW, {"candidate": {"features": ["income"]}}),
    "another architecture": (PENDING, RED, {"candidate": {"estimator": "sklearn.svm.SVC", "steps": ["SVC"]}}),
    "another signature": (PENDING, YELLOW, {"signature": "string"}),
    "undeclared training data": (PENDING, RED, {"declared": False}),
    "the first release": (PENDING, RED, {"champion": False}),
    "a high-risk use": (
        PENDING,
        RED,
        {"risk": {"automated_decision": True, "human_review": False, "regulated": True}},
    ),
    "a medium-risk use": (PENDING, YELLOW, {"risk": {"exposure": "customer"}}),
    "a contradicted declaration": (DENY, GREEN, {"risk": {"protected_class_data": False}}),
    "no documentation": (DENY, None, {"card": "TODO"}),
    "scores that are none": (DENY, None, {"candidate": {"broken": True}}),
}


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


def answer(world: World, **changes: Any) -> Preflight:
    wanted = {"workload": WORKLOAD, "version": "2", "context": "A test.", "submitter": "dana"}
    return rehearse(world.deployment, Rehearsal(**{**wanted, **changes}))


@pytest.mark.slow
@pytest.mark.requirement("T-2", "T-3", "T-7")
@pytest.mark.parametrize("name", CASES)
def test_preflight_and_release_agree(root: Path, name: str) -> None:
    outcome, track, case = CASES[name]
    world = make_stage(root, **case)
    events = len(world.deployment.audit.events())
    said = answer(world)
    assert len(world.deployment.audit.events()) == events, "a preflight leaves no trace"
    decided = release(world)
    assert (said.outcome, said.track, said.tier) == (decided.outcome, decided.track, decided.tier)
    assert (decided.outcome, decided.track) == (outcome, track)
    assert said.reasons == decided.reasons
    assert said.risk == decided.risk or said.unknown
    assert [(seat.role, seat.rules) for seat in said.seats] == [
        (seat.role, seat.rules) for seat in decided.seats
    ]
    assert bool(said.at_level(Level.ERROR)) is (decided.outcome is Outcome.DENY)


@pytest.mark.requirement("T-7")
def test_without_scoring_nothing_is_promised(root: Path) -> None:
    quick = answer(make_stage(root), full=False)
    assert (quick.outcome, quick.track, quick.at_least) == (None, None, Track.GREEN)
    assert SCORE not in quick.seconds
    assert "--full" in quick.unknown[0]
    assert quick.at_level(Level.ERROR) == []


@pytest.mark.requirement("T-7")
def test_what_is_certain_without_scoring_is_said(root: Path) -> None:
    risky = {"automated_decision": True, "human_review": False, "regulated": True}
    red = answer(make_stage(root / "red", risk=risky), full=False)
    assert (red.outcome, red.track) == (None, Track.RED)
    assert [seat.role for seat in red.seats] == ["governance-analyst", "risk-officer"]
    denied = answer(make_stage(root / "denied", card="TODO"), full=False)
    assert denied.outcome is Outcome.DENY
    assert denied.at_level(Level.ERROR)


@pytest.mark.requirement("A-2", "T-7")
def test_who_submits_is_not_among_those_who_may_approve(root: Path) -> None:
    world = make_stage(root, risk={"exposure": "customer"})
    assert answer(world).seats[0].people == ["Petra"]
    alone = answer(world, submitter="petra")
    assert alone.seats[0].people == []
    assert all("Petra" not in seat.people for seat in alone.seats)
    assert [note.rule for note in alone.at_level(Level.WARNING)][-1:] == ["people/nobody"]


@pytest.mark.slow
@pytest.mark.requirement("T-6", "T-7")
def test_past_scores_are_compared_and_none_is_added(root: Path) -> None:
    world = make_stage(root)
    for number in range(3):
        release(world, run=f"run-{number}")
    first, second = answer(world), answer(world)
    assert first.risk is not None
    assert first.risk.history == 3
    assert first.risk == second.risk


def test_without_the_audit_store_a_preflight_goes_on_and_says_so(root: Path) -> None:
    world = make_stage(root)
    for file in (root / "home").glob("audit.db*"):
        file.unlink()
    said = answer(world)
    assert said.outcome is Outcome.ALLOW
    assert any("audit store" in text for text in said.unknown)


def test_what_does_not_exist_is_named(root: Path) -> None:
    world = make_stage(root)
    with pytest.raises(NotFoundError):
        answer(world, version="9")
    with pytest.raises(NotFoundError):
        answer(world, batch="nothing")
    world.registry.quarantine(WORKLOAD, "2", "a test")
    with pytest.raises(RefusedError, match="quarantined"):
        answer(world)


def test_a_rehearsal_cannot_change_the_registry(root: Path) -> None:
    registry = ReadOnlyRegistry(make_stage(root).registry)
    for change in (
        lambda: registry.set_champion(WORKLOAD, "2", {}),
        lambda: registry.quarantine(WORKLOAD, "2", "x"),
    ):
        with pytest.raises(RefusedError):
            change()
    assert scratch_id(WORKLOAD, "2").startswith("preflight-")
