"""What is done about signals: proposed with reasons, held back, asked about, done once, never silently."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock.core.audit import Event, Kind
from airlock.core.errors import RefusedError, UnavailableError
from airlock.core.signals import SIGNALS, MonitoringEvidence, Reading, Signal
from airlock.services import actions
from airlock.services.approve import GRANTED, OPEN
from airlock.services.desks import standing
from airlock.services.monitor import _recorded, watched
from tests.support.deployments import HOUR_US, WORKLOAD, fast_folder, open_world, workload_data
from tests.support.production import Production, SmallModel, production

pytestmark = pytest.mark.requirement("M-2")

HIGH = {"regulated": True}
"""Makes the small workload high-risk by the rule of the small policy."""


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with fast_folder() as root:
        production(root / "world")
        yield root / "world"


@pytest.fixture
def prod(made: Path) -> Iterator[Production]:
    with fast_folder() as root:
        shutil.copytree(made, root / "world")
        world = open_world(root / "world")
        for version in ("1", "2", "3"):
            world.registry.register(version)
        world.registry.champions[WORKLOAD] = "1"
        yield Production(world, SmallModel())


def judged(prod: Production, number: int, **readings: Any) -> Event:
    """A window with these answers, all others calm; a number is the value of a raised signal."""
    prod.after(number)
    signals = []
    for name in SIGNALS:
        given = readings.get(name, "calm")
        reading = Reading.RAISED if isinstance(given, float) else Reading(given)
        value = given if isinstance(given, float) else 0.0
        signals.append(Signal(name=name, reading=reading, text="a test", value=value))
    policy = prod.deployment.config.policy("1.0.0")
    evidence = MonitoringEvidence(
        workload=WORKLOAD,
        version=watched(prod.deployment, WORKLOAD).version,
        window=prod.window(number),
        baseline="b" * 64,
        log=f"{number:064x}",
        labels="c" * 64,
        policy_version=policy.version,
        policy_digest=policy.digest,
        rows=300,
        labelled=300,
        config={},
        signals=signals,
        details={"days": {}},
    )
    return _recorded(prod.deployment, evidence, 0)


def propose(prod: Production, number: int, **readings: Any) -> Event:
    return actions.propose(prod.deployment, judged(prod, number, **readings))


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was asked of the services that act, in their order."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def retraining(_deployment: Any, workload: str, **kwargs: Any) -> str:
        asked.append(("retrain", {"workload": workload, **kwargs}))
        return "retrain-1"

    def back(_deployment: Any, workload: str, **kwargs: Any) -> Event:
        asked.append(("rollback", {"workload": workload, **kwargs}))
        return Event(
            key="k",
            kind=Kind.ROLLBACK_FINISHED,
            occurred_us=1,
            actor="system",
            deployment="test",
            data={"to": "1"},
        )

    monkeypatch.setattr(actions, "request_retraining", retraining)
    monkeypatch.setattr(actions, "rollback", back)
    return asked


def test_a_calm_window_does_nothing_and_says_so(prod: Production, hands: list[Any]) -> None:
    proposal = propose(prod, 0)
    assert (proposal.data["action"], proposal.data["reasons"]) == ("none", [])
    assert actions.act(prod.deployment, proposal) == proposal
    assert hands == []
    assert prod.world.events(Kind.INCIDENT_OPENED) == []


def test_a_raised_signal_is_an_alert_with_an_incident_and_its_reason(
    prod: Production, hands: list[Any]
) -> None:
    proposal = propose(prod, 0, latency="raised")
    assert proposal.data["action"] == "alert"
    assert proposal.data["reasons"][0]["rule"] == "watch-raised"
    assert "latency" in proposal.data["reasons"][0]["message"]
    ended = actions.act(prod.deployment, proposal)
    assert ended.kind is Kind.ACTION_TAKEN
    (incident,) = prod.world.events(Kind.INCIDENT_OPENED)
    assert incident.data["incident"] == ended.data["incident"]
    assert hands == []


def test_what_could_not_be_measured_is_an_alert_and_never_calm(prod: Production) -> None:
    proposal = propose(prod, 0, volume="error")
    assert proposal.data["action"] == "alert"
    assert [one["rule"] for one in proposal.data["reasons"]] == ["watch-blind"]


def test_drift_in_one_window_alerts_and_in_two_of_three_trains_again_on_that_window(
    prod: Production, hands: list[Any]
) -> None:
    assert propose(prod, 0, data_drift="raised").data["action"] == "alert"
    assert propose(prod, 1).data["action"] == "none"
    proposal = propose(prod, 2, data_drift="raised")
    assert (proposal.data["action"], proposal.data["restraint"]) == ("retrain", "go")
    ended = actions.act(prod.deployment, proposal)
    assert ended.kind is Kind.ACTION_TAKEN
    ((name, asked),) = hands
    assert (name, asked["workload"], asked["window"]) == ("retrain", WORKLOAD, prod.window(2))
    assert asked["incident_id"] == ended.data["incident"]
    assert "it lasts (data_drift)" in asked["reason"]


def test_data_that_is_not_sound_is_never_trained_on(prod: Production) -> None:
    propose(prod, 0, data_drift="raised")
    assert propose(prod, 1, data_drift="raised", data_quality="raised").data["action"] == "alert"
    assert propose(prod, 2, data_drift="raised", fairness="error").data["action"] == "alert"


def test_the_same_is_not_done_again_while_it_cools_down(prod: Production, hands: list[Any]) -> None:
    for number in range(2):
        proposal = propose(prod, number, data_drift="raised")
    actions.act(prod.deployment, proposal)
    again = propose(prod, 2, data_drift="raised")
    assert (again.data["action"], again.data["restraint"]) == ("retrain", "cool-down")
    ended = actions.act(prod.deployment, again)
    assert ended.kind is Kind.ACTION_DECLINED
    assert "not repeated within 14 days" in ended.data["sentence"]
    assert propose(prod, 4, data_drift="raised", concept_drift="calm").data["action"] == "retrain"
    assert len(hands) == 1


def test_repeating_any_step_does_it_once(prod: Production, hands: list[Any]) -> None:
    for number in range(2):
        proposal = propose(prod, number, data_drift="raised")
    first = actions.act(prod.deployment, proposal)
    assert actions.act(prod.deployment, proposal) == first
    assert propose(prod, 1, data_drift="raised") == proposal
    assert len(hands) == 1
    assert len(prod.world.events(Kind.ACTION_TAKEN)) == 1
    assert prod.world.events(Kind.CONFLICT) == []


def once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A look at the log that sees nothing the first time, because the other run has not written yet."""
    real, seen = getattr(actions, name), iter([True])
    monkeypatch.setattr(actions, name, lambda *given: None if next(seen, False) else real(*given))


def test_two_monitors_at_once_propose_once_and_act_once(
    prod: Production, hands: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        event = judged(prod, number, data_drift="raised")
        first = actions.propose(prod.deployment, event, subject="action-of-one-run")
    once(monkeypatch, "proposal_of")
    assert actions.propose(prod.deployment, event, subject="action-of-the-other") == first
    done = actions.act(prod.deployment, first)
    once(monkeypatch, "ended")
    assert actions.act(prod.deployment, first) == done
    assert {asked["incident_id"] for _, asked in hands} == {done.data["incident"]}
    kinds = (Kind.ACTION_PROPOSED, Kind.ACTION_TAKEN)
    assert [len(prod.world.events(kind)) for kind in kinds] == [2, 1]
    assert [one.data["action"] for one in prod.world.events(Kind.INCIDENT_OPENED)] == ["retrain"]


def test_a_service_that_does_not_answer_leaves_it_open_for_another_try(
    prod: Production, monkeypatch: pytest.MonkeyPatch, hands: list[Any]
) -> None:
    for number in range(2):
        proposal = propose(prod, number, data_drift="raised")

    def away(*_: Any, **__: Any) -> str:
        raise UnavailableError("Airflow does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(actions, "request_retraining", away)
        with pytest.raises(UnavailableError):
            actions.act(prod.deployment, proposal)
    assert actions.ended(prod.deployment, proposal) is None
    assert actions.act(prod.deployment, proposal).kind is Kind.ACTION_TAKEN
    assert len(prod.world.events(Kind.INCIDENT_OPENED)) == 1


def test_what_the_acting_service_refuses_is_recorded_as_declined(
    prod: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        proposal = propose(prod, number, data_drift="raised")

    def refused(*_: Any, **__: Any) -> str:
        raise RefusedError("there is no training command")

    monkeypatch.setattr(actions, "request_retraining", refused)
    ended = actions.act(prod.deployment, proposal)
    assert ended.kind is Kind.ACTION_DECLINED
    assert "no training command" in ended.data["sentence"]


def test_shadow_stays_a_proposal_to_people_and_says_why(prod: Production) -> None:
    for number in range(2):
        proposal = propose(prod, number, performance_estimate="raised", performance="unsure")
    assert proposal.data["action"] == "shadow"
    ended = actions.act(prod.deployment, proposal)
    assert ended.kind is Kind.ACTION_DECLINED
    assert "nothing here can run a second model" in ended.data["sentence"]
    assert prod.world.events(Kind.INCIDENT_OPENED)


def second_champion(prod: Production) -> None:
    """Version 2 came into production after version 1."""
    prod.deployment.record(
        Kind.PROMOTION_FINISHED,
        "release/r-2/promotion/finished",
        release_id="r-2",
        workload=WORKLOAD,
        version="2",
        data={"model": WORKLOAD, "previous": "1", "decision": "", "approved_by": []},
    )


def test_a_new_champion_that_fails_goes_back_and_an_old_one_is_trained_again(
    prod: Production, hands: list[Any]
) -> None:
    second_champion(prod)
    proposal = propose(prod, 0, performance=-0.2)
    assert proposal.data["action"] == "rollback"
    actions.act(prod.deployment, proposal)
    ((name, asked),) = hands
    assert (name, asked["leaving"], asked["actor"], asked["quarantine"]) == ("rollback", "2", "system", False)
    for number in range(1, 5):
        propose(prod, number)
    assert propose(prod, 5, performance=-0.2).data["action"] == "alert"
    assert propose(prod, 6, performance=-0.2).data["action"] == "retrain"


def test_a_collapse_with_nothing_to_go_back_to_is_quarantined(prod: Production, hands: list[Any]) -> None:
    assert propose(prod, 0, performance=-0.2).data["action"] == "alert"
    proposal = propose(prod, 1, performance=-0.4)
    assert proposal.data["action"] == "quarantine"
    actions.act(prod.deployment, proposal)
    assert hands[0][1]["quarantine"] is True


def act_on(prod: Production, *numbers: int) -> list[Event]:
    """Roll back in each of these weeks."""
    return [actions.act(prod.deployment, propose(prod, number, performance=-0.2)) for number in numbers]


def test_after_too_many_actions_airlock_pauses_itself_and_a_person_lets_it_go_on(
    prod: Production, hands: list[Any]
) -> None:
    prod.set_policy(actions={"cool_down_days": {"shadow": 0, "retrain": 0, "rollback": 0, "quarantine": 0}})
    second_champion(prod)
    ended = act_on(prod, 0, 1, 2, 3)
    assert [one.kind for one in ended] == [Kind.ACTION_TAKEN] * 3 + [Kind.ACTION_DECLINED]
    assert len(hands) == 3
    stopped = actions.paused(prod.deployment, WORKLOAD)
    assert stopped is not None
    assert "Airlock pauses itself" in stopped.data["sentence"]
    later = propose(prod, 4, data_drift="raised", performance="raised")
    assert later.data["restraint"] in ("paused", "cap")

    with pytest.raises(RefusedError, match="does not hold the role"):
        actions.resume(prod.deployment, WORKLOAD, actor="dana", reason="it is fine again")
    actions.resume(prod.deployment, WORKLOAD, actor="ravi", reason="the cause was found and mended")
    assert actions.paused(prod.deployment, WORKLOAD) is None
    assert propose(prod, 5, data_drift="raised").data["restraint"] == "go"
    with pytest.raises(RefusedError, match="not paused"):
        actions.resume(prod.deployment, WORKLOAD, actor="ravi", reason="the cause was found and mended")


def asked(prod: Production) -> Event:
    prod.set_workload(risk={**workload_data()["risk"], **HIGH})
    second_champion(prod)
    return propose(prod, 0, performance=-0.2)


def test_high_risk_asks_a_person_first_and_says_what_silence_means(
    prod: Production, hands: list[Any]
) -> None:
    proposal = asked(prod)
    assert (proposal.data["restraint"], proposal.data["role"]) == ("ask", "risk-officer")
    subject = proposal.data["subject"]
    question = actions.question(prod.deployment, subject, 0)
    assert [person.user for person in question.eligible] == ["ravi", "omar"]
    assert "it is done: that is the safe side" in question.body
    assert "watch-new-champion-fails" in question.body
    assert standing(prod.deployment, "action", subject).state == OPEN
    with pytest.raises(RefusedError, match="may still answer"):
        actions.act(prod.deployment, proposal)
    assert hands == []


@pytest.mark.parametrize(
    ("choice", "kind"), [("approve", Kind.ACTION_TAKEN), ("reject", Kind.ACTION_DECLINED)]
)
def test_what_the_person_answers_is_what_happens(
    prod: Production, hands: list[Any], choice: str, kind: Kind
) -> None:
    proposal = asked(prod)
    subject = proposal.data["subject"]
    with pytest.raises(RefusedError, match="does not hold the role"):
        actions.answer(prod.deployment, subject, 0, user="grace", choice="approve", comment="", when="1")
    actions.answer(prod.deployment, subject, 0, user="ravi", choice=choice, comment="I looked.", when="2")
    with pytest.raises(RefusedError, match="answered already"):
        actions.answer(prod.deployment, subject, 0, user="omar", choice="approve", comment="", when="3")
    assert standing(prod.deployment, "action", subject).state == GRANTED
    ended = actions.act(prod.deployment, proposal)
    assert (ended.kind, ended.actor) == (kind, "ravi")
    assert len(hands) == (choice == "approve")


@pytest.mark.parametrize(("side", "kind"), [("take", Kind.ACTION_TAKEN), ("decline", Kind.ACTION_DECLINED)])
def test_when_nobody_answers_the_safe_side_is_chosen(
    prod: Production, hands: list[Any], side: str, kind: Kind
) -> None:
    silence = dict.fromkeys(["shadow", "retrain", "rollback", "quarantine"], side)
    prod.set_policy(actions={"silence": silence})
    proposal = asked(prod)
    prod.world.clock.us += 24 * HOUR_US + 1
    assert standing(prod.deployment, "action", proposal.data["subject"]).state == GRANTED
    with pytest.raises(RefusedError, match="time to answer is over"):
        actions.answer(
            prod.deployment, proposal.data["subject"], 0, user="ravi", choice="approve", comment="", when="1"
        )
    ended = actions.act(prod.deployment, proposal)
    assert (ended.kind, ended.actor) == (kind, "system")
    assert len(hands) == (side == "take")


def test_a_rule_that_cannot_be_evaluated_is_an_alert_and_no_action(
    prod: Production, hands: list[Any]
) -> None:
    from tests.support.deployments import write_yaml
    from tests.support.production import production_policy

    data = production_policy()
    for rule in data["rules"]:
        if rule["id"] == "watch-drift-lasts":
            rule["expires"] = "2020-01-01"
    write_yaml(prod.world.policy_file, data)
    proposal = propose(prod, 0)
    assert proposal.data["action"] == "alert"
    assert "expired" in proposal.data["reasons"][0]["message"]


def test_no_secret_and_no_row_of_data_stands_in_what_is_recorded(prod: Production, hands: list[Any]) -> None:
    proposal = propose(prod, 0, data_drift="raised")
    assert len(proposal.to_bytes()) < 20_000
    assert set(proposal.data["reasons"][0]) == {"rule", "effect", "message", "fix", "severity"}


def test_the_catalogue_has_every_fact_about_production_and_no_other(prod: Production) -> None:
    from airlock.core.facts import FACTS, PRODUCTION
    from airlock.services.monitor import read_window

    event = judged(prod, 0)
    scene, evidence = watched(prod.deployment, WORKLOAD), read_window(prod.deployment, event)
    built = actions._production_facts(prod.deployment, scene, event, evidence)
    assert sorted(built) == sorted(PRODUCTION)
    assert list(built["signals"]) == list(SIGNALS)
    assert {f"monitor.{name}" for name in built["monitor"]} == {
        name for name in FACTS if name.startswith("monitor.")
    }
