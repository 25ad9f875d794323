"""A week of production is judged by every signal, and what cannot be measured is never silence."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airlock.core import logged
from airlock.core.audit import Kind
from airlock.core.errors import (
    ConfigurationError,
    IntegrityError,
    NotFoundError,
    SandboxError,
    UnavailableError,
)
from airlock.core.production import DAY_US
from airlock.core.signals import SIGNALS, Reading
from airlock.services.monitor import evaluate_window, read_window
from tests.support.deployments import WORKLOAD, fast_folder, write_yaml
from tests.support.production import Production, people, production, write_log

pytestmark = pytest.mark.requirement("M-1")


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with fast_folder() as root:
        production(root / "world")
        yield root / "world"


@pytest.fixture
def prod(made: Path) -> Iterator[Production]:
    """A world of its own, copied from one that was made once."""
    from tests.support.production import SmallModel

    with fast_folder() as root:
        from tests.support.deployments import open_world

        shutil.copytree(made, root / "world")
        world = open_world(root / "world")
        for version in ("1", "2", "3"):
            world.registry.register(version)
        world.registry.champions[WORKLOAD] = "1"
        yield Production(world, SmallModel())


def one_row(**changes: Any) -> dict[str, Any]:
    row = {"features": {"income": 13.0, "debt": 2.0}, "score": 0.5, "decision": 1, "attributes": {"group": 0}}
    return {**row, **changes}


def calm(prod: Production, number: int = 0, n: int = 300) -> None:
    prod.answer(number, people(n, 100 + number))


def test_a_calm_week_is_calm_in_every_signal_that_can_be_measured(prod: Production) -> None:
    calm(prod)
    found = prod.signals(0)
    assert list(found) == list(SIGNALS)
    loud = {name: one.text for name, one in found.items() if one.reading not in (Reading.CALM, Reading.OFF)}
    assert loud == {}
    assert {name for name, one in found.items() if one.reading is Reading.OFF} == {"business", "cost"}
    assert found["performance_estimate"].estimated
    assert [one.name for one in found.values() if one.estimated] == ["performance_estimate"]


def test_the_event_names_what_the_answer_rests_on_by_digest(prod: Production) -> None:
    calm(prod)
    event = prod.judge(0)
    assert event.kind is Kind.MONITOR_EVALUATED
    evidence = read_window(prod.deployment, event)
    assert (evidence.version, evidence.rows, evidence.labelled) == ("1", 300, 300)
    assert evidence.digest == event.data["evidence"]
    assert evidence.policy_digest == prod.deployment.config.policy("1.0.0").digest
    baseline = prod.world.events(Kind.MONITOR_BASELINED)
    assert [one.data["baseline"] for one in baseline] == [evidence.baseline]
    assert prod.deployment.evidence.get(evidence.baseline)


def test_the_same_window_twice_is_one_answer(prod: Production) -> None:
    calm(prod)
    first, runs = prod.judge(0), prod.model.runs
    assert prod.judge(0) == first
    assert len(prod.world.events(Kind.MONITOR_EVALUATED)) == 1
    assert prod.model.runs == runs, "nothing is scored again for an answer that stands"


def test_late_rows_make_a_new_revision_and_the_first_stays(prod: Production) -> None:
    frame = people(300, 100)
    prod.answer(0, frame.head(200))
    first = prod.judge(0)
    start = prod.window(0).start_us
    write_log(prod.folder, [one_row(prediction_id=f"late{i}", time_us=start + i) for i in range(30)])
    second = prod.judge(0)
    assert (first.data["revision"], second.data["revision"]) == (0, 1)
    assert (first.data["rows"], second.data["rows"]) == (200, 230)
    assert len(prod.world.events(Kind.MONITOR_EVALUATED)) == 2


def test_two_monitors_at_once_record_one_answer(prod: Production) -> None:
    calm(prod)
    prod.judge(0)  # the baseline is there
    calm(prod, 1)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(prod.judge(1))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0].key == found[1].key
    assert len(prod.world.events(Kind.MONITOR_EVALUATED)) == 2
    assert prod.world.events(Kind.CONFLICT) == []


def test_a_population_that_moved_raises_data_and_prediction_drift_and_nothing_about_the_log(
    prod: Production,
) -> None:
    prod.answer(0, people(300, 5, income=17))
    found = prod.signals(0)
    raised = {name for name, one in found.items() if one.reading is Reading.RAISED}
    assert {"data_drift", "prediction_drift"} <= raised
    assert not raised & {"data_quality", "unknown_version", "volume", "concept_drift"}
    assert found["data_drift"].details["drifted"] == ["income"]


def test_outcomes_that_turn_around_raise_performance_and_leave_the_estimate_blind(prod: Production) -> None:
    prod.answer(0, people(300, 6, wrong=0.5))
    found = prod.signals(0)
    assert found["performance"].reading is Reading.RAISED
    assert found["performance"].value is not None
    assert found["performance"].value < -0.2
    assert found["performance_estimate"].reading is Reading.CALM, "an estimate cannot see concept drift"
    assert found["data_drift"].reading is Reading.CALM


def test_outcomes_above_their_scores_raise_concept_drift(prod: Production) -> None:
    frame = people(400, 7)
    prod.answer(0, frame.assign(y=1))
    found = prod.signals(0)
    assert found["concept_drift"].reading is Reading.RAISED
    assert found["target_drift"].reading is Reading.RAISED


def test_without_outcomes_performance_cannot_be_told_and_the_estimate_is_marked_as_one(
    prod: Production,
) -> None:
    prod.answer(0, people(300, 8), labels=False)
    found = prod.signals(0)
    for name in ("performance", "target_drift", "concept_drift"):
        assert found[name].reading is Reading.UNSURE
        assert "0 outcomes are known" in found[name].text
    assert found["performance_estimate"].reading is Reading.CALM


def test_outcomes_that_take_weeks_are_judged_on_the_window_they_belong_to(prod: Production) -> None:
    prod.set_workload(monitoring={"label_delay_days": 7})
    prod.answer(0, people(300, 9, wrong=0.5))
    prod.answer(1, people(300, 10), labels=False)
    found = prod.signals(1)
    assert found["performance"].reading is Reading.RAISED
    assert found["performance"].n == 300


def test_an_empty_week_is_an_error_and_not_a_calm_one(prod: Production) -> None:
    calm(prod)
    prod.judge(0)
    event = prod.judge(1)
    readings = event.data["readings"]
    assert readings["volume"] == "error"
    assert "calm" not in readings.values()
    assert event.data["sentence"].startswith("could not be measured: volume")


def test_a_log_that_is_late_raises_volume_by_its_missing_days(prod: Production) -> None:
    calm(prod)
    prod.judge(0)
    frame = people(300, 101)
    prod.answer(1, frame)
    for day in prod.window(1).days[4:]:
        shutil.rmtree(prod.folder / "predictions" / f"day={day}")
    found = prod.signals(1)
    assert found["volume"].reading is Reading.RAISED
    assert found["volume"].details["missing_days"] == prod.window(1).days[4:]


def test_a_flood_of_rows_raises_volume(prod: Production) -> None:
    calm(prod)
    prod.judge(0)
    prod.answer(1, people(900, 11))
    assert prod.signals(1)["volume"].reading is Reading.RAISED


def test_a_renamed_column_is_named_and_what_rests_on_it_is_no_pass(prod: Production) -> None:
    window = prod.window(0)
    renamed = {"incomes": 13.0, "debt": 2.0}
    rows = [one_row(features=renamed, time_us=window.start_us + i * 10_000_000) for i in range(200)]
    write_log(prod.folder, rows)
    found = prod.signals(0)
    assert found["data_quality"].reading is Reading.RAISED
    assert "column income is missing; was it renamed to incomes?" in found["data_quality"].text
    assert found["explanation"].reading is Reading.ERROR
    assert "income" in found["explanation"].text


def test_a_new_category_and_values_far_outside_raise_unknown_values(prod: Production) -> None:
    frame = people(300, 12)
    frame.loc[:50, "income"] = 900.0
    prod.answer(0, frame)
    found = prod.signals(0)["unknown_values"]
    assert found.reading is Reading.RAISED
    assert found.details["features"] == {"income": 51}


def test_predictions_of_a_version_nobody_released_are_seen(prod: Production) -> None:
    calm(prod)
    write_log(prod.folder, [
        {"features": {"income": 13.0, "debt": 2.0}, "score": 0.5, "decision": 1, "attributes": {"group": 0},
         "version": "shadow-it", "time_us": prod.window(0).start_us + i} for i in range(60)])  # fmt: skip
    found = prod.signals(0)
    assert found["unknown_version"].reading is Reading.RAISED
    assert "shadow-it" in found["unknown_version"].text
    assert found["prediction_drift"].n == 300, "what the champion did not answer is not held against it"


def test_clocks_contradictions_and_losses_are_data_quality(prod: Production) -> None:
    calm(prod)
    prod.world.clock.us = prod.window(0).end_us + DAY_US
    window = prod.window(0)
    labels = [(f"w0-{i}", 5, window.end_us) for i in range(40)] + [("w0-50", 1, window.start_us - 1)]
    write_log(prod.folder, [{"features": None}], labels)
    ahead = prod.folder / "predictions" / "day=2030-01-01"
    ahead.mkdir()
    source = next((prod.folder / "predictions").rglob("part-*.parquet"))
    shutil.copy(source, ahead / "part-1.parquet")
    text = prod.signals(0)["data_quality"].text
    assert "outcomes contradict each other" in text
    assert "days that have not come" in text


def test_unequal_decisions_between_groups_raise_fairness(prod: Production) -> None:
    frame = people(600, 13)
    frame["income"] += 5.0 * frame["group"] - 2.5
    prod.answer(0, frame)
    found = prod.signals(0)["fairness"]
    assert found.reading is Reading.RAISED
    assert found.value is not None
    assert found.value < 0.8


def test_too_few_rows_are_unsure_and_say_how_many_it_takes(prod: Production) -> None:
    prod.answer(0, people(20, 14))
    found = prod.signals(0)
    for name in ("data_drift", "prediction_drift", "performance", "fairness", "explanation"):
        assert found[name].reading is Reading.UNSURE
        assert "50 are needed" in found[name].text


def test_slow_and_expensive_answers_are_seen_and_the_kpi_too(prod: Production) -> None:
    prod.set_workload(
        monitoring={"kpi": {"column": "group", "title": "share of group B", "minimum": 0.9}},
        serving={"usd_per_request": 0.0001},
    )
    prod.answer(0, people(300, 15), latency_ms=900.0)
    found = prod.signals(0)
    for name in ("latency", "cost", "business"):
        assert found[name].reading is Reading.RAISED, name


def test_the_model_that_cannot_be_explained_is_an_error_of_that_signal_alone(prod: Production) -> None:
    calm(prod)
    prod.judge(0)
    prod.model.error = SandboxError("it was killed", fix="give it memory")
    calm(prod, 1)
    found = prod.signals(1)
    assert found["explanation"].reading is Reading.ERROR
    assert found["explanation"].fix == "give it memory"
    assert found["data_drift"].reading is Reading.CALM


def test_with_the_registry_away_windows_are_still_judged_once_there_is_a_baseline(prod: Production) -> None:
    calm(prod)
    prod.judge(0)
    calm(prod, 1)
    prod.world.registry.fail_at(1)
    assert prod.judge(1).data["readings"]["data_drift"] == "calm"


def test_before_there_is_a_baseline_a_registry_that_is_away_is_worth_another_try(prod: Production) -> None:
    calm(prod)
    prod.world.registry.fail_at(1)
    with pytest.raises(UnavailableError):
        prod.judge(0)
    assert prod.world.events(Kind.MONITOR_EVALUATED) == []
    prod.judge(0)


def test_training_data_that_was_changed_since_is_refused_and_not_used(prod: Production) -> None:
    calm(prod)
    prod.judge(0)
    path = prod.world.deployment.settings.data_root / "loan" / "training.parquet"
    people(100, 3).to_parquet(path)
    calm(prod, 1)
    with pytest.raises(IntegrityError, match="changed"):
        prod.judge(1)


def test_nothing_in_production_is_nothing_to_watch(tmp_path: Path) -> None:
    from tests.support.deployments import make_world

    made = Production(make_world(tmp_path, champion=None), production.__globals__["SmallModel"]())
    made.set_workload()
    made.set_policy()
    with pytest.raises(NotFoundError, match="nothing to watch"):
        evaluate_window(made.deployment, WORKLOAD, made.window(0))


def test_a_policy_without_the_section_judges_nothing(prod: Production) -> None:
    from tests.support.deployments import policy_data

    write_yaml(prod.world.policy_file, policy_data())
    with pytest.raises(ConfigurationError, match="no section monitoring"):
        prod.judge(0)


def test_a_log_without_versions_says_that_nobody_knows_who_answers(prod: Production) -> None:
    folder = prod.folder
    frame = people(200, 16)
    when = pd.to_datetime([prod.window(0).start_us + i * 60_000_000 for i in range(200)], unit="us", utc=True)
    made = frame.drop(columns="y").assign(**{logged.TIME: when, logged.ID: [str(i) for i in range(200)]})
    made.to_parquet(folder / "all.parquet")
    found = prod.signals(0)
    assert found["unknown_version"].reading is Reading.ERROR
    assert found["prediction_drift"].reading is Reading.ERROR
    assert found["data_quality"].reading is Reading.RAISED
