"""The guard: finds what was moved without Airlock, puts it back, and never touches what is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airlock.core.audit import Kind
from airlock.core.errors import AirlockError, ConflictError, IntegrityError, RefusedError, UnavailableError
from airlock.services import guard as service
from airlock.services.guard import check, check_all
from airlock.services.incidents import find_incident, list_incidents
from airlock.services.moves import moves_of
from airlock.services.promote import promote
from airlock.services.questions.champions import production
from airlock.services.rollback import rollback
from tests.support.deployments import WORKLOAD, Killed, World, fast_folder, in_operation, make_world
from tests.unit.test_rollback import edit_yaml, republish, started_promotion

pytestmark = pytest.mark.requirement("R-1")

Copy = Callable[[], World]


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        yield in_operation(folder / "template")


@pytest.fixture
def copy(template: World) -> Iterator[Copy]:
    with fast_folder() as folder:
        numbers = iter(range(10_000))
        yield lambda: template.copy(folder / f"world-{next(numbers)}")


@pytest.fixture
def world(copy: Copy) -> World:
    return copy()


def by_hand(world: World, version: str | None) -> None:
    """What anybody who may write to the registry can do."""
    if version is None:
        world.registry.champions.pop(WORKLOAD)
    else:
        world.registry.champions[WORKLOAD] = version


def tags(world: World, version: str) -> dict[str, str]:
    return world.registry.models[WORKLOAD][version].tags


def test_what_the_log_says_is_left_alone(world: World) -> None:
    before = len(world.deployment.audit.events())
    assert check(world.deployment, WORKLOAD) is None
    assert check_all(world.deployment).findings == []
    assert world.registry.moves == []
    assert len(world.deployment.audit.events()) == before


@pytest.mark.parametrize(("version", "problem"), [("1", "moved"), (None, "removed")])
def test_a_champion_that_was_moved_by_hand_is_recorded_told_and_put_back(
    world: World, version: str | None, problem: str
) -> None:
    by_hand(world, version)
    finding = check(world.deployment, WORKLOAD)
    assert finding is not None
    assert (finding.problem, finding.expected, finding.found) == (problem, "3", version or "")
    assert finding.undone
    assert "it was put back" in finding.sentence
    assert world.champion == "3"
    (moved,) = world.events(Kind.GUARD_ALIAS_MOVED)
    assert (moved.data["from"], moved.data["to"]) == ("3", version or "")
    assert len(world.events(Kind.GUARD_UNDO_FINISHED)) == 1
    incident = find_incident(world.deployment, finding.incident_id)
    assert (incident.action, incident.severity, incident.is_open) == ("guard", "critical", True)
    assert tags(world, "3")["airlock.state"] == "champion"
    if version:
        assert finding.incident_id in tags(world, version)["airlock.guard"]
    assert check(world.deployment, WORKLOAD) is None, "there is nothing left to find"


def test_each_further_move_by_hand_is_another_event_of_the_same_incident(world: World) -> None:
    incidents = set()
    for _ in range(3):
        by_hand(world, "1")
        finding = check(world.deployment, WORKLOAD)
        assert finding is not None
        incidents.add(finding.incident_id)
        assert world.champion == "3"
    assert len(incidents) == 1
    assert len(world.events(Kind.GUARD_ALIAS_MOVED)) == 3
    assert len(world.events(Kind.GUARD_UNDO_FINISHED)) == 3
    assert len(list_incidents(world.deployment)) == 1


def test_a_policy_can_say_that_people_are_told_and_nothing_else(world: World) -> None:
    republish(world, {"guard": {"moved": "tell"}})
    by_hand(world, "1")
    findings = [check(world.deployment, WORKLOAD) for _ in range(3)]
    assert all(finding is not None and not finding.undone for finding in findings)
    assert world.champion == "1"
    assert len(world.events(Kind.GUARD_ALIAS_MOVED)) == 1, "said once while it lasts"
    assert len(list_incidents(world.deployment)) == 1


def test_a_champion_that_lost_its_tags_gets_them_back(world: World) -> None:
    tags(world, "3").clear()
    finding = check(world.deployment, WORKLOAD)
    assert finding is not None
    assert (finding.problem, finding.undone) == ("untagged", True)
    assert tags(world, "3") | {"airlock.decision": ""} == {
        "airlock.state": "champion", "airlock.release": world.releases["3"], "airlock.decision": "",
    }  # fmt: skip


def test_tags_after_a_rollback_are_those_of_the_rollback(world: World) -> None:
    rollback(world.deployment, WORKLOAD, actor="petra", reason="it declines everybody")
    then = dict(tags(world, "2"))
    tags(world, "2").clear()
    assert check(world.deployment, WORKLOAD) is not None
    assert tags(world, "2")["airlock.rollback"] == then["airlock.rollback"]
    assert world.champion == "2"


def test_a_quarantined_champion_is_told_because_a_rollback_has_checks_of_its_own(world: World) -> None:
    world.registry.quarantine(WORKLOAD, "3", "unsafe")
    finding = check(world.deployment, WORKLOAD)
    assert finding is not None
    assert (finding.problem, finding.undone, world.champion) == ("quarantined", False, "3")


def test_a_champion_from_before_airlock_is_told_and_left_alone() -> None:
    """Taking it away would take down what works; adopting it is what people have to do."""
    with fast_folder() as folder:
        world = make_world(folder / "world")
        finding = check(world.deployment, WORKLOAD)
        assert finding is not None
        assert (finding.problem, finding.found, finding.undone) == ("ungoverned", "1", False)
        assert world.champion == "1"


def test_a_model_without_champion_or_log_is_nothing_to_tell() -> None:
    with fast_folder() as folder:
        world = make_world(folder / "world", champion=None)
        assert check(world.deployment, WORKLOAD) is None


def test_after_a_rollback_to_nothing_a_champion_by_hand_is_taken_away(world: World) -> None:
    world.trials.broken |= {"weights 1", "weights 2"}
    rollback(world.deployment, WORKLOAD, actor="petra", reason="it declines everybody")
    assert world.champion is None
    by_hand(world, "1")
    finding = check(world.deployment, WORKLOAD)
    assert finding is not None
    assert finding.undone
    assert world.champion is None


@pytest.mark.requirement("E-4")
def test_what_was_in_production_names_the_move_by_hand(world: World) -> None:
    by_hand(world, "1")
    check(world.deployment, WORKLOAD)
    answer = production(world.deployment, WORKLOAD)
    assert answer.periods[0].version == "3"
    assert answer.periods[0].notes == ("the guard found that the alias was moved to version 1 by hand",)
    assert answer.open_starts == ()


# Races


@pytest.mark.parametrize("moved", [False, True])
def test_a_promotion_on_its_way_is_never_touched(world: World, moved: bool) -> None:
    release_id = started_promotion(world, moved=moved)
    assert check(world.deployment, WORKLOAD) is None
    assert world.champion == ("4" if moved else "3")
    promote(world.deployment, release_id)
    assert check(world.deployment, WORKLOAD) is None
    assert world.champion == "4"


def test_a_move_that_does_not_end_is_told_after_an_hour(world: World) -> None:
    started_promotion(world, moved=True)
    world.clock.advance(hours=1.1)
    finding = check(world.deployment, WORKLOAD)
    assert finding is not None
    assert (finding.problem, finding.undone, world.champion) == ("stuck", False, "4")


def test_a_promotion_that_finishes_while_the_guard_looks_is_not_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    real = service._champion
    looks: list[int] = []

    def meanwhile(*arguments: Any) -> Any:
        # The log was read; the promotion comes and goes; then the alias is read, which is at another version.
        looks.append(1)
        if len(looks) == 1:
            promote(world.deployment, release_id)
        return real(*arguments)

    monkeypatch.setattr(service, "_champion", meanwhile)
    assert check(world.deployment, WORKLOAD) is None
    assert world.champion == "4"
    assert world.events(Kind.GUARD_ALIAS_MOVED) == []


def test_a_promotion_that_starts_before_the_undo_wins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    by_hand(world, "1")
    real = service._undo

    def late(*arguments: Any) -> bool:
        by_hand(world, "3")  # somebody puts it back, and the release is promoted in this very moment
        promote(world.deployment, release_id)
        return real(*arguments)

    monkeypatch.setattr(service, "_undo", late)
    finding = check(world.deployment, WORKLOAD)
    assert finding is not None
    assert not finding.undone
    assert world.champion == "4"


def test_a_promotion_that_starts_during_an_undo_conflicts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    by_hand(world, "1")
    real = service.finish_undo
    refused: list[AirlockError] = []

    def beside(*arguments: Any) -> bool:
        with pytest.raises((ConflictError, RefusedError)) as caught:
            promote(world.deployment, release_id)
        refused.append(caught.value)
        return real(*arguments)

    monkeypatch.setattr(service, "finish_undo", beside)
    check(world.deployment, WORKLOAD)
    assert len(refused) == 1
    assert world.champion == "3"
    promote(world.deployment, release_id)
    assert world.champion == "4"
    assert check(world.deployment, WORKLOAD) is None


def test_guards_and_promotions_side_by_side_end_with_the_promoted_version(copy: Copy) -> None:
    world = copy()
    world.registry.register("4")
    release_id = world.granted("4", run="run-4")
    stop = threading.Event()
    seen: list[object] = []

    def guarding() -> None:
        while not stop.is_set():
            try:
                seen.append(check(world.deployment, WORKLOAD))
            except AirlockError as error:
                seen.append(error)

    threads = [threading.Thread(target=guarding) for _ in range(2)]
    for thread in threads:
        thread.start()
    promote(world.deployment, release_id)
    stop.set()
    for thread in threads:
        thread.join()
    assert world.champion == "4"
    assert set(seen) == {None}, seen
    assert world.registry.moves == [(WORKLOAD, "4")]


# Ends in the middle


@pytest.mark.parametrize("error", [Killed(), UnavailableError("no acknowledgement came")])
def test_an_undo_killed_at_any_moment_is_finished_by_the_next_look(copy: Copy, error: BaseException) -> None:
    number = 0
    while True:
        number += 1
        world = copy()
        by_hand(world, "1")
        world.failpoints.stop_at(number, error)
        try:
            check(world.watched(), WORKLOAD)
            break
        except type(error):
            pass
        check(world.deployment, WORKLOAD)
        assert world.champion == "3"
        assert len(world.events(Kind.GUARD_ALIAS_MOVED)) == 1
        assert len(world.events(Kind.GUARD_UNDO_FINISHED)) == 1
        assert len(list_incidents(world.deployment)) == 1
        assert moves_of(world.deployment, WORKLOAD).running == ()
        assert world.events(Kind.CONFLICT) == []
    assert number > 15


def test_a_rollback_finishes_an_undo_that_was_killed(world: World) -> None:
    by_hand(world, "1")
    with fast_folder() as folder:
        twin = world.copy(folder / "twin")
        twin.failpoints.stop_at(0, Killed())
        check(twin.watched(), WORKLOAD)
        number = twin.failpoints.reached.index("before registry.set_champion") + 1
    world.failpoints.stop_at(number, Killed())
    with pytest.raises(Killed):
        check(world.watched(), WORKLOAD)
    with pytest.raises(ConflictError, match="version 3 went into production meanwhile"):
        rollback(world.deployment, WORKLOAD, actor="petra", reason="now this too", wait_seconds=0)
    event = rollback(world.deployment, WORKLOAD, actor="petra", reason="now this too", wait_seconds=0)
    assert (event.data["from"], world.champion) == ("3", "2")


def test_an_alias_that_does_not_stay_is_an_error(world: World) -> None:
    by_hand(world, "1")
    real = world.registry.set_champion

    def and_back(name: str, version: str, tags: Any) -> None:
        real(name, version, tags)
        world.registry.champions[name] = "1"

    world.registry.set_champion = and_back  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match="is at 1 again, not at 3"):
        check(world.deployment, WORKLOAD)


def test_one_workload_that_cannot_be_looked_at_does_not_hide_the_others(world: World) -> None:
    by_hand(world, "1")
    broken = world.config / "workloads" / "broken.yaml"
    broken.write_text("name: broken\n")
    report = check_all(world.deployment)
    assert [finding.workload for finding in report.findings] == [WORKLOAD]
    assert list(report.failed) == ["broken"]
    assert report.looked_at == 2


@pytest.mark.parametrize("unknown", ["version", "model"])
def test_what_the_registry_has_lost_is_told_and_blocks_nobody(world: World, unknown: str) -> None:
    if unknown == "model":
        edit_yaml(world.workload_file, lambda data: data["model"].update(registered_model="other"))
    else:
        del world.registry.models[WORKLOAD]["3"]
        by_hand(world, "1")
    finding = check(world.deployment, WORKLOAD)
    assert finding is not None
    assert not finding.undone
    assert find_incident(world.deployment, finding.incident_id).is_open
    assert moves_of(world.deployment, WORKLOAD).running == ()
    count = len(world.deployment.audit.events())
    assert check(world.deployment, WORKLOAD) == finding
    assert len(world.deployment.audit.events()) == count, "it is not tried and said again every few minutes"
