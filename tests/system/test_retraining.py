"""A workload trained again through a real Airflow and MLflow, and stopped by the release's own gates."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.core.retraining import RetrainState
from airlock.demo import models
from airlock.services.retrain import find_retraining
from tests.system.conftest import Submitted, World, airlock, until


@pytest.mark.soak
@pytest.mark.requirement("M-3", "G-11")
def test_a_model_trained_on_turned_outcomes_is_submitted_and_denied(world: World) -> None:
    """It is better on the rows it comes from, so it becomes a release; there the real rows deny it."""
    data = world.settings.data_root / "loanapp"
    rows = pd.read_parquet(data / "training.parquet")
    rows.assign(fixadj=1 - rows["fixadj"]).to_parquet(data / "turned.parquet", index=False)
    champion = world.champion(models.RATE_TYPE)
    reason = "Outcomes of the new system, which turn out to be turned around."
    words = ("--reason", reason, "--file", "loanapp/turned.parquet", "--user", "dana", "--format", "json")
    asked = airlock("retrain", models.RATE_TYPE, *words, env={**world.env, "AIRLOCK_AIRFLOW_URL": world.url})
    assert asked.returncode == 0, asked.stderr
    retrain_id = json.loads(asked.stdout)["retraining"]

    def ended() -> str:
        events = world.deployment.audit.events(kinds=[Kind.RETRAIN_SUBMITTED, Kind.RETRAIN_CLOSED])
        return "yes" if any(entry.event.data["retrain"] == retrain_id for entry in events) else ""

    until(ended, 240)
    found = find_retraining(world.deployment, retrain_id)
    assert found.state is RetrainState.SUBMITTED, found.sentence
    assert found.requested is not None
    assert found.requested.actor == "dana"
    said = found.data(Kind.RETRAIN_SUBMITTED) or {}
    submitted = Submitted(world, models.RATE_TYPE, said["release"], said["run_id"])
    assert submitted.wait() is State.DENIED
    release = submitted.release()
    assert (release.version, release.submitter) == (said["version"], "dana")
    assert release.first(Kind.RELEASE_RETRAINED) is not None
    assert world.champion(models.RATE_TYPE) == champion
    params = world.deployment.registry.run(
        world.deployment.registry.version(models.RATE_TYPE, said["version"]).run_id
    ).params
    assert params["model"] == "logistic"
