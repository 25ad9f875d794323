"""The trial of a rollback, with real models in the real sandbox (requirements R-3, G-8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from airlock.adapters.sandbox import ProcessSandbox
from airlock.services.adopt import adopt
from airlock.services.decision_changes import after_rollback, report_of
from airlock.services.rollback import dry_run, rollback
from airlock.services.rollback_checks import Considered
from tests.support.artifacts import FEATURES, REVIEWED, make_data, make_pipeline_for, write_artifact
from tests.support.deployments import WORKLOAD, World, fast_folder, make_world, policy_data, write_yaml

pytestmark = [pytest.mark.requirement("R-3", "G-8"), pytest.mark.slow]


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    """Version 1 was adopted and versions 2 and 3 promoted; all of them are real models."""
    with fast_folder() as folder:
        world = make_world(folder / "world", champion=None)
        # As every model of scikit-learn needs it; the shipped policy has reviewed it too.
        gates = ("documentation", "performance", "security")
        reviewed = {**policy_data(gates)["gates"]["security"], "reviewed_types": REVIEWED}
        policy = policy_data(gates)
        policy["gates"]["security"] = reviewed
        policy["roles"]["ml-platform-engineer"]["gates"] = ["security"]
        policy["sandbox"] |= {"seconds": 300, "memory_mb": 4096, "output_mb": 64}
        write_yaml(world.policy_file, policy)
        data = make_data()
        edited: dict[str, Any] = yaml.safe_load(world.workload_file.read_text())
        edited["model"] |= {"features": FEATURES}
        edited["data"] |= {"sensitive": {}}
        write_yaml(world.workload_file, edited)
        batches = world.deployment.settings.data_root / "loan" / "batches"
        data.to_parquet(batches / "clean.parquet", index=False)
        data.to_parquet(batches.parent / "training.parquet", index=False)
        for number in ("1", "2", "3"):
            rows = data.iloc[int(number) * 20 :]
            artifact = write_artifact(folder / number, make_pipeline_for().fit(rows[FEATURES], rows["y"]))
            world.registry.register(number, files_of(artifact))
        world.deployment = replace(world.deployment, sandbox=ProcessSandbox())
        adopt(world.deployment, WORKLOAD, "1", actor="root", reason="it was there before Airlock")
        world.releases = {version: world.promoted(version) for version in ("2", "3")}
        yield world


@pytest.fixture
def world(template: World) -> Iterator[World]:
    with fast_folder() as folder:
        world = template.copy(folder / "world")
        world.deployment = replace(world.deployment, sandbox=ProcessSandbox())
        yield world


def batch(world: World) -> Path:
    return world.deployment.settings.data_root / "loan" / "batches" / "clean.parquet"


def trial(world: World) -> Considered:
    return dry_run(world.deployment, WORKLOAD).considered[0]


def test_a_model_that_answers_takes_over_and_its_decisions_are_compared(world: World) -> None:
    one = trial(world)
    assert one.fit, one.problems
    assert one.checks[-1].sentence == "it answered 20 rows of batch clean in the sandbox"
    event = rollback(world.deployment, WORKLOAD, actor="petra", reason="it declines everybody")
    assert world.champion == "2"
    (data,) = report_of(world.deployment, after_rollback(world.deployment, event))["data"]
    assert data["flips"]["rows"] == len(pd.read_parquet(batch(world)))


def test_a_column_that_is_gone_is_named(world: World) -> None:
    frame = pd.read_parquet(batch(world))
    frame.drop(columns=FEATURES[0]).to_parquet(batch(world), index=False)
    assert FEATURES[0] in "; ".join(trial(world).problems)


def test_texts_where_the_model_wants_numbers_are_noticed(world: World) -> None:
    frame = pd.read_parquet(batch(world))
    frame[FEATURES[0]] = "unknown"
    frame.to_parquet(batch(world), index=False)
    assert not trial(world).fit


def test_an_empty_batch_proves_nothing(world: World) -> None:
    pd.read_parquet(batch(world)).head(0).to_parquet(batch(world), index=False)
    assert "no rows" in "; ".join(trial(world).problems)
