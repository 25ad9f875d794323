"""The personal-data case on a real Airflow: blocked, asked, granted by the owner, released by people."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airlock.cli.publishing import answer_publication
from airlock.cli.waiver import answer_waiver
from airlock.core.audit import Kind
from airlock.core.errors import RefusedError
from airlock.core.release import State
from airlock.core.task import POLICY_DAG, REVOKE_DAG, WAIVER_DAG, WAIVERS_DAG
from airlock.demo import models
from airlock.services import publish, waivers
from airlock.services.follow import start_request
from tests.support.deployments import edit
from tests.system.conftest import World, until
from tests.system.test_releases import answer

CARD = 4_111_111_111_111_111
"""A number from a card company's documentation; it belongs to nobody."""


@pytest.fixture
def card_in_training(world: World) -> Iterator[None]:
    """One card number among the training values of a feature."""
    import pandas as pd

    path = world.settings.data_root / "loanapp" / "training.parquet"
    kept = path.with_suffix(".kept")
    shutil.copyfile(path, kept)
    frame = pd.read_parquet(path)
    frame["liq"] = frame["liq"].astype("float64")
    frame.loc[frame.index[0], "liq"] = float(CARD)
    frame.to_parquet(path)
    yield
    kept.replace(path)


def conf(rule: str, version: str) -> dict[str, str]:
    return {
        "workload": models.RATE_TYPE,
        "rule": rule,
        "versions": version,
        "until": (datetime.now(tz=UTC) + timedelta(days=10)).strftime("%Y-%m-%d"),
        "reason": "One number slipped in; the file is delivered again next month.",
    }


@pytest.mark.requirement("T-9", "A-2", "A-8")
@pytest.mark.usefixtures("card_in_training")
def test_personal_data_becomes_a_governed_exception(world: World) -> None:
    version = world.register(models.RATE_REFIT)
    blocked = world.submit(models.RATE_TYPE, version)
    assert blocked.wait() is State.DENIED
    verdicts = {line.gate: line.verdict for line in blocked.release().gates}
    assert verdicts["privacy"] == "FAILED"
    assert "score" not in verdicts, "nothing is loaded before somebody has said that it may"

    # Not for a rule that is never waived; then for the right one.
    dana = world.client("dana")
    with pytest.raises(RefusedError, match="cannot be waived"):
        start_request(world.deployment, dana, "waiver", WAIVER_DAG, conf("gate-security", version))
    waiver_id = start_request(world.deployment, dana, "waiver", WAIVER_DAG, conf("gate-privacy", version))
    request = waivers.find_waiver(world.deployment, waiver_id)
    assert (request.requested.actor, request.role) == ("dana", "data-governance")
    # Who asked, and who holds another role, cannot answer; nor can anybody go round the question.
    run = request.requested.data["run_id"]
    for user in ("dana", "ravi", "admin"):
        with pytest.raises(RefusedError):
            answer_waiver(world.deployment, world.client(user), waiver_id, choice="Approve", comment="")
    assert waivers.find_waiver(world.deployment, waiver_id).granted is None
    gita = world.client("gita")
    answer_waiver(world.deployment, gita, waiver_id, choice="Approve", comment="Until the next delivery.")
    assert waivers.find_waiver(world.deployment, waiver_id).granted is not None
    until(lambda: "yes" if gita.run(WAIVER_DAG, run)["state"] == "success" else "")

    # Released by people, who see it.
    again = world.submit(models.RATE_TYPE, version)
    assert again.wait() is State.WAITING, [line.summary for line in again.release().gates]
    assert {line.gate: line.verdict for line in again.release().gates}["privacy"] == "FAILED"
    assert again.task_state("checks.privacy") == "success"
    decided = again.events(Kind.RELEASE_DECIDED)[0].data
    assert decided["waivers"] == [waiver_id]
    people = {"ml-platform-engineer": "petra", "governance-analyst": "grace", "risk-officer": "ravi"}
    assert decided["seats"]
    for role in decided["seats"]:
        answer(world, again.release_id, people[role])
    assert again.wait(through_waiting=True) is State.PROMOTED
    assert again.finished() == "success"

    # Taken back, and the daily look says what is in production without it.
    taken = world.client("ravi").trigger(REVOKE_DAG, {"waiver": waiver_id, "reason": "I am not asked."})
    until(lambda: "yes" if gita.run(REVOKE_DAG, taken["dag_run_id"])["state"] == "failed" else "")
    assert waivers.find_waiver(world.deployment, waiver_id).revoked is None
    gita.trigger(REVOKE_DAG, {"waiver": waiver_id, "reason": "The delivery did not come."})
    until(lambda: "yes" if waivers.find_waiver(world.deployment, waiver_id).revoked else "")
    gita.trigger(WAIVERS_DAG, {})
    until(lambda: "yes" if again.events(Kind.RELEASE_REOPENED) else "")
    (found,) = waivers.reopened(world.deployment)
    assert (found.release_id, found.waiver_id) == (again.release_id, waiver_id)


@pytest.mark.requirement("P-2", "P-3", "A-2")
def test_a_new_policy_is_published_by_those_who_own_what_it_changes(world: World) -> None:
    policies = world.settings.config_dir / "policies"
    shutil.copytree(policies / "1.0.0", policies / "1.1.0")
    edit(policies / "1.1.0" / "bundle.yaml", "version: 1.0.0", "version: 1.1.0")
    edit(policies / "1.1.0" / "limits.yaml", "value: 0.15", "value: 0.14")
    assert "1.1.0" not in publish.published(world.deployment)
    petra = world.client("petra")
    request_id = start_request(world.deployment, petra, "policy", POLICY_DAG, {"version": "1.1.0"})
    request = publish.find_request(world.deployment, request_id)
    assert request.seats == ["governance-analyst"]
    grace = world.client("grace")
    answer_publication(world.deployment, grace, request_id, user="grace", choice="Approve", comment="Agreed.")
    until(lambda: "yes" if "1.1.0" in publish.published(world.deployment) else "")
    (event,) = [
        entry.event
        for entry in world.deployment.audit.events(kinds=[Kind.POLICY_PUBLISHED])
        if "1.1.0" in entry.event.data["policies"]
    ]
    assert event.data["approved_by"] == {"governance-analyst": "grace"}
    (sentence,) = event.data["sentences"]
    assert sentence.startswith("limit red_change falls from 15 % to 14 %")
