"""Processes that move a champion are killed with SIGKILL at every step, and others go on (R-1, R-3, E-1).

The audit store is a real one on disk, and the registry keeps its state in a file that is replaced at once:
what a killed process had not written is gone, as when its worker dies.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock.core.audit import Kind
from airlock.services.guard import check
from airlock.services.incidents import list_incidents
from airlock.services.moves import moves_of
from airlock.services.promote import promote
from airlock.services.rollback import rollback
from tests.support.deployments import WORKLOAD, FakeRegistry, World, fast_folder, in_operation, open_world

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R-1", "R-3", "E-1")]

Act = Callable[[World], Any]


class FileRegistry(FakeRegistry):
    """A registry whose tags and alias live in a file, each change whole or not at all."""

    def __init__(self, path: Path, other: FakeRegistry | None = None) -> None:
        super().__init__()
        self._path = path
        if other is not None:
            self.models, self.champions = other.models, other.champions
            self._save()
            return
        stored = json.loads(path.read_text())
        self.champions, self.model_tags = stored["champions"], stored["model_tags"]
        self.moves = [(name, version) for name, version in stored["moves"]]
        for name, versions in stored["models"].items():
            for version, (files, tags) in versions.items():
                self.register(version, {file: text.encode() for file, text in files.items()}, name=name)
                self.models[name][version].tags.update(tags)

    def _save(self) -> None:
        data = {
            "champions": self.champions,
            "model_tags": self.model_tags,
            "moves": self.moves,
            "models": {
                name: {
                    version: [{file: text.decode() for file, text in one.files.items()}, one.tags]
                    for version, one in versions.items()
                }
                for name, versions in self.models.items()
            },
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(data))
        fresh.replace(self._path)

    def set_champion(self, name: str, version: str, tags: Any) -> None:
        # As MLflow does it: the tags are there before the alias moves.
        self.tag(name, version, tags)
        super().set_champion(name, version, tags)
        self._save()

    def tag(self, name: str, version: str, tags: Any) -> None:
        super().tag(name, version, tags)
        self._save()

    def quarantine(self, name: str, version: str, reason: str) -> None:
        super().quarantine(name, version, reason)
        self._save()

    def clear_champion(self, name: str, tags: Any) -> None:
        super().clear_champion(name, tags)
        self._save()


def roll_back(world: World) -> Any:
    return rollback(world.deployment, WORKLOAD, actor="petra", reason="it declines everybody", wait_seconds=0)


def roll_back_to_nothing(world: World) -> Any:
    world.trials.broken |= {"weights 1", "weights 2"}
    return roll_back(world)


def promote_4(world: World) -> Any:
    return promote(world.deployment, world.releases["4"])


def guard(world: World) -> Any:
    return check(world.deployment, WORKLOAD)


ACTS: dict[str, tuple[Act, str]] = {
    "rollback": (roll_back, "2"),
    "rollback to nothing": (roll_back_to_nothing, ""),
    "promotion": (promote_4, "4"),
    "guard": (guard, "3"),
}


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        world = in_operation(folder / "template")
        world.registry.register("4")
        world.releases["4"] = world.granted("4", run="run-4")
        yield world


def fresh(template: World, root: Path, act: str) -> World:
    world = template.copy(root)
    if act == "guard":
        world.registry.champions[WORKLOAD] = "1"
    use(world, FileRegistry(root / "registry.json", world.registry))
    return world


def use(world: World, registry: FileRegistry) -> None:
    object.__setattr__(world.deployment, "registry", registry)
    world.registry = registry


def reopened(template: World, root: Path) -> World:
    """What another process finds."""
    world = open_world(root)
    world.clock.us = template.clock.us
    world.releases = dict(template.releases)
    object.__setattr__(world.deployment, "sandbox", type(template.trials)())
    use(world, FileRegistry(root / "registry.json"))
    return world


def moments(template: World, folder: Path, act: str) -> list[str]:
    """The named moments of one whole run."""
    world = fresh(template, folder / "whole", act)
    world.failpoints.stop_at(0, RuntimeError())
    object.__setattr__(world, "deployment", world.watched())
    ACTS[act][0](world)
    return world.failpoints.reached


def killed(template: World, root: Path, act: str, number: int) -> None:
    """Run it in a process of its own that is killed at its n-th moment."""
    child = os.fork()
    if child == 0:  # pragma: no cover  # it ends by SIGKILL
        try:
            world = reopened(template, root)
            world.failpoints.reach = dying(number)  # type: ignore[method-assign]
            world.deployment = world.watched()
            ACTS[act][0](world)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it ended with {os.waitstatus_to_exitcode(status)} before moment {number}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def dying(number: int) -> Callable[[str], None]:
    seen = []

    def reach(moment: str) -> None:
        seen.append(moment)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


@pytest.mark.parametrize("act", ACTS)
def test_after_a_kill_at_each_step_there_is_one_champion_and_a_complete_record(
    template: World, act: str
) -> None:
    run, expected = ACTS[act]
    with fast_folder() as folder:
        names = moments(template, folder, act)
        # Reading changes nothing, so being killed there is being killed before the next change.
        steps = [
            number
            for number, name in enumerate(names, 1)
            if name.split(".")[1]
            in ("append", "confirm", "set_champion", "tag", "quarantine", "clear_champion")
        ]
        assert len(steps) >= 8
        for number in steps:
            root = folder / f"{number}"
            fresh(template, root, act)
            killed(template, root, act, number)
            world = reopened(template, root)
            run(world)
            assert (world.champion or "") == expected, names[number - 1]
            assert [version for _, version in world.registry.moves] == [expected], names[number - 1]
            complete(world, act)


def complete(world: World, act: str) -> None:
    """One start, one end, one incident at most; and what the log says is what the alias says."""
    starts = [Kind.ROLLBACK_STARTED, Kind.PROMOTION_STARTED, Kind.GUARD_UNDO_STARTED]
    ends = [Kind.ROLLBACK_FINISHED, Kind.PROMOTION_FINISHED, Kind.GUARD_UNDO_FINISHED]
    before = 2  # the promotions that made versions 2 and 3 champions
    assert sum(len(world.events(kind)) for kind in starts) == before + 1
    assert sum(len(world.events(kind)) for kind in ends) == before + 1
    assert len(list_incidents(world.deployment)) == (0 if act == "promotion" else 1)
    assert world.events(Kind.CONFLICT) == []
    moves = moves_of(world.deployment, WORKLOAD)
    assert (moves.running, moves.champion) == ((), world.champion)


def test_a_rollback_after_a_promotion_that_was_killed_takes_out_what_it_brought(template: World) -> None:
    with fast_folder() as folder:
        names = moments(template, folder, "promotion")
        number = names.index("after registry.set_champion") + 1
        root = folder / "killed"
        fresh(template, root, "promotion")
        killed(template, root, "promotion", number)
        world = reopened(template, root)
        assert (world.champion, check(world.deployment, WORKLOAD)) == ("4", None)
        event = roll_back(world)
        assert (event.data["from"], event.data["to"], world.champion) == ("4", "3", "3")
        # The task that was killed is run again: its release was promoted once, and that is over.
        assert promote_4(world).kind is Kind.PROMOTION_FINISHED
        assert world.champion == "3"
