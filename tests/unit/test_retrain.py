"""A workload trained again: asked for, frozen, checked, trained, compared, registered, submitted."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from airlock.adapters.airflow_api import AirflowClient
from airlock.core.audit import Kind
from airlock.core.errors import (
    AirlockError,
    ConfigurationError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from airlock.core.production import DAY_US
from airlock.core.retraining import RetrainState
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.model_files import declared
from airlock.services.releases import find_release, open_case
from airlock.services.requests import request_id_for
from airlock.services.retrain import ask_as, find_retraining, list_retrainings, open_request, request
from airlock.services.retrain_data import check, freeze, read_plan
from airlock.services.retrain_model import compare, register, submit_release, train_version
from airlock.services.submit import freeze as freeze_release
from airlock.services.submit import submit
from tests.support.deployments import WORKLOAD, World, fast_folder, shipped_gates, write_yaml
from tests.support.gates import make_frame
from tests.support.production import NOW_US, WEEK, write_log
from tests.support.rehearsals import CHAMPION, make_stage, model, shipped_rules

pytestmark = [pytest.mark.requirement("M-3"), pytest.mark.slow]

SPEC = {"seed": 0, "code": "loan", "command": ["python", "train.py", "{data}", "{model}"]}
REASON = "The portfolio moved to another county."
WEAK = {**CHAMPION, "skill": 0.3}


class FakeAirflow:
    """Keeps runs by id, as Airflow does; says no when it is told to."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.away = False

    def trigger(self, dag_id: str, conf: dict[str, Any], *, run_id: str = "") -> dict[str, Any]:
        if self.away:
            raise UnavailableError("Airflow does not answer")
        chosen = run_id or f"manual__{len(self.runs)}"
        self.runs.setdefault((dag_id, chosen), conf)
        return {"dag_run_id": chosen}

    def client(self) -> AirflowClient:
        return cast("AirflowClient", self)

    def of(self, dag_id: str) -> list[dict[str, Any]]:
        return [conf for (dag, _), conf in self.runs.items() if dag == dag_id]


def policy() -> dict[str, Any]:
    data = shipped_rules()
    data["gates"]["data_quality"] = shipped_gates()["data_quality"]
    data["roles"]["ml-platform-engineer"]["gates"] = ["data_quality"]
    return data


def write_code(world: World, described: dict[str, Any]) -> None:
    code = world.config / "workloads" / "loan"
    code.mkdir(exist_ok=True)
    (code / "train.py").write_text(json.dumps({**CHAMPION, **described}))


def build(root: Path, *, champion: dict[str, Any] = WEAK, **changes: Any) -> World:
    """A weak champion, and a training command that makes the true model."""
    spec = {**SPEC, **changes.pop("spec", {})}
    world = make_stage(
        root, workload={"training": spec, **changes.pop("workload", {})}, policy=policy(), **changes
    )
    world.registry.register("1", model(champion, "0" * 64))
    write_code(world, {})
    return world


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "world"


@pytest.fixture
def airflow() -> FakeAirflow:
    return FakeAirflow()


@pytest.fixture
def world(root: Path) -> World:
    return build(root)


def opened(world: World, *, user: str = "dana", run: str = "run-1", **params: Any) -> str:
    return open_request(
        world.deployment,
        WORKLOAD,
        params={"reason": REASON, **params},
        user=user,
        dag_id=f"retrain__{WORKLOAD}",
        run_id=run,
    )


STEPS: list[Callable[[Deployment, str], Any]] = [freeze, check, train_version, compare, register]


def run(deployment: Deployment, retrain_id: str, airflow: FakeAirflow) -> str:
    """The tasks of the DAG one after the other; a step that says nothing skips the others."""
    for step in STEPS:
        if not step(deployment, retrain_id):
            return ""
    return submit_release(deployment, retrain_id, client=airflow.client())


def closed(world: World, retrain_id: str) -> tuple[str, str]:
    found = find_retraining(world.deployment, retrain_id)
    assert found.state is RetrainState.CLOSED
    data = found.data(Kind.RETRAIN_CLOSED) or {}
    return str(data["step"]), "; ".join(data["reasons"])


# The whole way


def test_a_better_model_is_registered_with_its_lineage_and_submitted(
    world: World, airflow: FakeAirflow
) -> None:
    retrain_id = opened(world)
    release_id = run(world.deployment, retrain_id, airflow)
    found = find_retraining(world.deployment, retrain_id)
    assert found.state is RetrainState.SUBMITTED, found.sentence
    assert [event.kind for event in found.events] == [
        Kind.RETRAIN_REQUESTED,
        Kind.RETRAIN_FROZEN,
        Kind.RETRAIN_CHECKED,
        Kind.RETRAIN_TRAINED,
        Kind.RETRAIN_COMPARED,
        Kind.RETRAIN_SUBMITTED,
    ]
    version = str((found.data(Kind.RETRAIN_SUBMITTED) or {})["version"])
    assert version == "4"
    assert release_id.startswith(f"{WORKLOAD}-v4-")
    (conf,) = airflow.of(f"release__{WORKLOAD}")
    assert conf["version"] == "4"
    assert REASON in conf["context"]
    assert retrain_id in conf["context"]
    folder = world.root / "downloaded"
    world.registry.download(WORKLOAD, version, folder)
    plan = read_plan(world.deployment, found)
    said = declared(folder)
    assert said["training_sha256"] == plan.training.sha256
    assert said["parent_version"] == "1"
    assert said["retraining"] == retrain_id
    assert said["decision_threshold"] == 0.5
    assert said["training_code_sha256"]
    tags = world.registry.version(WORKLOAD, version).tags
    assert tags["airlock.retraining"] == retrain_id
    assert world.registry.champions[WORKLOAD] == "1"


def test_the_release_it_submits_knows_data_and_code(world: World, airflow: FakeAirflow) -> None:
    rows = make_frame(rows=800, seed=5).assign(bureau_score=1.0, diary=2.0)
    rows.to_parquet(world.deployment.settings.data_root / "loan" / "new.parquet", index=False)
    retrain_id = opened(world, file="loan/new.parquet")
    run(world.deployment, retrain_id, airflow)
    version = str(
        (find_retraining(world.deployment, retrain_id).data(Kind.RETRAIN_SUBMITTED) or {})["version"]
    )
    release_id = world.submit(version)
    freeze_release(world.deployment, release_id)
    manifest = open_case(world.deployment, release_id).manifest
    assert manifest.training.source == "loan/new.parquet"
    assert manifest.training.sha256 == manifest.candidate.metadata["training_sha256"]
    assert len(pd.read_parquet(manifest.training.path)) == 600
    from airlock.services.lineage import read_links

    links = read_links(world.deployment.evidence, manifest)
    assert not [link for link in links if link.broken]


@pytest.mark.requirement("A-2")
def test_who_asked_is_the_submitter_and_nobody_else_can_pretend(world: World, airflow: FakeAirflow) -> None:
    retrain_id = opened(world, user="omar")
    run(world.deployment, retrain_id, airflow)
    service = world.deployment.settings.service_user
    mine = world.submit("4", run=f"retrain__{retrain_id}", user=service)
    assert find_release(world.deployment, mine).submitter == "omar"
    pretended = world.submit("2", run=f"retrain__{retrain_id}-2", user="dana")
    assert find_release(world.deployment, pretended).submitter == "dana"
    by_system = request(world.deployment, WORKLOAD, incident_id="i", reason=REASON, client=airflow.client())
    theirs = world.submit("3", run=f"retrain__{by_system}", user=service)
    assert find_release(world.deployment, theirs).submitter == service


def test_without_a_champion_a_first_model_is_submitted(root: Path, airflow: FakeAirflow) -> None:
    world = build(root, champion=CHAMPION)
    world.registry.champions.clear()
    retrain_id = opened(world)
    assert run(world.deployment, retrain_id, airflow)
    assert "no champion" in str(
        (find_retraining(world.deployment, retrain_id).data(Kind.RETRAIN_COMPARED) or {})["text"]
    )


# Asking


def test_the_system_asks_once_for_one_incident(world: World, airflow: FakeAirflow) -> None:
    ids = {
        request(
            world.deployment,
            WORKLOAD,
            window=WEEK,
            incident_id="incident-1",
            reason=reason,
            client=airflow.client(),
        )
        for reason in ("drift in income", "drift in income and debt")
    }
    assert len(ids) == 1
    assert len(airflow.runs) == 1
    (retrain_id,) = ids
    found = find_retraining(world.deployment, retrain_id)
    assert found.requested is not None
    assert found.requested.actor == SYSTEM
    assert found.requested.data["incident"] == "incident-1"
    ((dag_id, run_id),) = airflow.runs
    assert request_id_for("retrain", world.deployment.settings.deployment, dag_id, run_id) == retrain_id
    # The DAG's first task finds it, whoever Airflow says has started the run.
    assert (
        open_request(world.deployment, WORKLOAD, params={}, user="airlock", dag_id=dag_id, run_id=run_id)
        == retrain_id
    )


def test_asking_goes_on_where_it_stopped_when_airflow_was_away(world: World, airflow: FakeAirflow) -> None:
    airflow.away = True
    with pytest.raises(UnavailableError):
        request(world.deployment, WORKLOAD, incident_id="i-1", reason=REASON, client=airflow.client())
    airflow.away = False
    request(world.deployment, WORKLOAD, incident_id="i-1", reason=REASON, client=airflow.client())
    assert len(world.events(Kind.RETRAIN_REQUESTED)) == 1
    assert len(airflow.runs) == 1


def test_a_person_who_asks_twice_gets_two(world: World, airflow: FakeAirflow) -> None:
    for _ in range(2):
        request(world.deployment, WORKLOAD, actor="dana", reason=REASON, client=airflow.client())
        world.clock.advance(us=1)
    assert len(airflow.runs) == 2
    assert len(list_retrainings(world.deployment, WORKLOAD)) == 2


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize(
    ("user", "reason", "words"),
    [
        ("mallory", REASON, "no active entry in people.yaml"),
        ("vera", REASON, "may look and not submit"),
        ("airlock", REASON, "no active entry in people.yaml"),
        ("", REASON, "nobody is known"),
        ("dana", "why not", "at least 10 characters"),
        ("dana", "x" * 5000, "the limit is 4000"),
    ],
)
def test_who_may_not_ask_is_refused_and_that_is_recorded(
    world: World, user: str, reason: str, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        opened(world, user=user, reason=reason)
    assert world.events(Kind.RETRAIN_REQUESTED) == []
    (refused,) = world.events(Kind.REQUEST_REFUSED)
    assert words in refused.data["problem"]


def test_a_form_cannot_claim_an_incident(world: World) -> None:
    found = find_retraining(world.deployment, opened(world, incident="incident-1"))
    assert (found.data(Kind.RETRAIN_REQUESTED) or {})["incident"] == ""


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"start": "2026-01-05"}, "is no window"),
        ({"start": "soon", "end": "2026-01-05"}, "is no window"),
        ({"start": "2026-01-05", "end": "2026-01-05"}, "is no window"),
        ({"start": "2026-01-05", "end": "2026-01-06", "file": "x.parquet"}, "not on both"),
        ({"file": "../secrets.parquet"}, "inside the data directory"),
        ({"file": "/etc/passwd"}, "inside the data directory"),
    ],
)
def test_a_form_that_cannot_be_used_says_why(world: World, params: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        opened(world, **params)


def test_without_a_training_command_nobody_can_ask(root: Path, airflow: FakeAirflow) -> None:
    world = build(root, spec={"command": []})
    for ask in (
        lambda: opened(world),
        lambda: request(world.deployment, WORKLOAD, reason=REASON, client=airflow.client()),
        lambda: ask_as(
            world.deployment, airflow.client(), world.deployment.config.workload(WORKLOAD), reason=REASON
        ),
    ):
        with pytest.raises(RefusedError, match="no training command"):
            ask()
    assert airflow.runs == {}


def test_the_command_line_starts_the_dag_in_the_name_of_its_user(world: World, airflow: FakeAirflow) -> None:
    spec = world.deployment.config.workload(WORKLOAD)
    retrain_id, run_id = ask_as(
        world.deployment, airflow.client(), spec, reason=REASON, start="2026-03-02", end="2026-03-09"
    )
    conf = airflow.runs[f"retrain__{WORKLOAD}", run_id]
    assert conf == {
        "reason": REASON,
        "start": "2026-03-02T00:00:00+00:00",
        "end": "2026-03-09T00:00:00+00:00",
    }
    assert opened(world, run=run_id, **conf) == retrain_id
    with pytest.raises(InvalidInputError, match="at least"):
        ask_as(world.deployment, airflow.client(), spec, reason="no")


# What closes it


def test_a_model_that_is_not_better_is_closed_with_both_numbers(root: Path, airflow: FakeAirflow) -> None:
    world = build(root, champion=CHAMPION)
    retrain_id = opened(world)
    assert run(world.deployment, retrain_id, airflow) == ""
    step, reasons = closed(world, retrain_id)
    assert step == "compare"
    assert "not better: roc_auc is" in reasons
    assert "the champion's" in reasons
    assert airflow.runs == {}
    assert set(world.registry.models[WORKLOAD]) == {"1", "2", "3"}


def test_a_worse_model_is_closed(world: World, airflow: FakeAirflow) -> None:
    write_code(world, {"skill": 0.0})
    retrain_id = opened(world)
    assert run(world.deployment, retrain_id, airflow) == ""
    assert closed(world, retrain_id)[0] == "compare"


def test_a_command_that_fails_closes_with_its_last_lines(world: World, airflow: FakeAirflow) -> None:
    write_code(world, {"fails": "ValueError: no column income"})
    retrain_id = opened(world)
    assert run(world.deployment, retrain_id, airflow) == ""
    step, reasons = closed(world, retrain_id)
    assert step == "train"
    assert "no column income" in reasons
    assert "epoch 1" in reasons


def test_bad_rows_close_it_before_anything_is_trained(world: World, airflow: FakeAirflow) -> None:
    path = world.deployment.settings.data_root / "loan" / "new.parquet"
    make_frame(rows=800).assign(income=5000.0, bureau_score=1.0, diary=2.0).to_parquet(path, index=False)
    retrain_id = opened(world, file="loan/new.parquet")
    assert run(world.deployment, retrain_id, airflow) == ""
    step, reasons = closed(world, retrain_id)
    assert step == "check"
    assert "income" in reasons
    assert world.events(Kind.RETRAIN_TRAINED) == []


@pytest.mark.parametrize(
    ("frame", "step", "words"),
    [
        (make_frame(rows=800).drop(columns="debt"), "freeze", "no column debt"),
        (make_frame(rows=800).drop(columns="y"), "freeze", "no column y"),
        (make_frame(rows=800).assign(y=None), "freeze", "0 rows whose outcome is known"),
        (make_frame(rows=3), "freeze", "3 rows whose outcome is known"),
        (make_frame(rows=0), "freeze", "0 rows"),
        (make_frame(rows=50), "check", "rows"),
        (make_frame(rows=800).assign(income=float("nan")), "check", "income"),
        (make_frame(rows=800).assign(income="many"), "check", "income"),
    ],
)
def test_rows_that_cannot_be_trained_on_close_it_in_words(
    world: World, airflow: FakeAirflow, frame: pd.DataFrame, step: str, words: str
) -> None:
    path = world.deployment.settings.data_root / "loan" / "new.parquet"
    frame.assign(bureau_score=1.0, diary=2.0).to_parquet(path, index=False)
    retrain_id = opened(world, file="loan/new.parquet")
    assert run(world.deployment, retrain_id, airflow) == ""
    at, reasons = closed(world, retrain_id)
    assert at == step
    assert words in reasons


@pytest.mark.parametrize("content", [None, b"", b"not parquet"])
def test_a_file_that_is_not_there_or_broken_closes_it(
    world: World, airflow: FakeAirflow, content: bytes | None
) -> None:
    if content is not None:
        (world.deployment.settings.data_root / "loan" / "new.parquet").write_bytes(content)
    retrain_id = opened(world, file="loan/new.parquet")
    assert run(world.deployment, retrain_id, airflow) == ""
    assert closed(world, retrain_id)[0] == "freeze"


def test_outcomes_of_one_kind_only_cannot_be_compared(world: World, airflow: FakeAirflow) -> None:
    path = world.deployment.settings.data_root / "loan" / "new.parquet"
    make_frame(rows=800).assign(y=1, bureau_score=1.0, diary=2.0).to_parquet(path, index=False)
    retrain_id = opened(world, file="loan/new.parquet")
    assert run(world.deployment, retrain_id, airflow) == ""
    assert "undefined" in closed(world, retrain_id)[1]


def test_a_policy_without_data_quality_lets_nothing_be_trained(world: World, airflow: FakeAirflow) -> None:
    data = policy()
    del data["gates"]["data_quality"]
    data["roles"]["ml-platform-engineer"]["gates"] = []
    write_yaml(world.policy_file, data)
    retrain_id = opened(world)
    assert run(world.deployment, retrain_id, airflow) == ""
    assert "no gate data_quality" in closed(world, retrain_id)[1]


def test_a_closed_one_stays_closed_whatever_is_called(world: World, airflow: FakeAirflow) -> None:
    write_code(world, {"skill": 0.0})
    retrain_id = opened(world)
    run(world.deployment, retrain_id, airflow)
    before = find_retraining(world.deployment, retrain_id).sentence
    write_code(world, {"skill": 1.0})
    for step in STEPS[1:]:
        assert not step(world.deployment, retrain_id)
    assert submit_release(world.deployment, retrain_id, client=airflow.client()) == ""
    assert find_retraining(world.deployment, retrain_id).sentence == before


# Windows of the production log


def logged(world: World, rows: pd.DataFrame, *, labels: bool = True) -> None:
    """A week of predictions, each with its outcome a day later."""
    step = (WEEK.end_us - WEEK.start_us) // len(rows)
    entries = [
        {
            "features": {"income": float(row.income), "debt": float(row.debt)},
            "attributes": {"group": int(row.group)},
            "score": 0.5,
            "decision": 1,
            "prediction_id": f"p{number}",
            "time_us": WEEK.start_us + number * step,
        }
        for number, row in enumerate(rows.itertuples())
    ]
    outcomes = [(f"p{number}", int(row.y), WEEK.end_us) for number, row in enumerate(rows.itertuples())]
    write_log(world.deployment.settings.data_root / "log", entries, outcomes if labels else ())
    world.clock.us = NOW_US


MONITORED = {"monitoring": {"log": {"parquet": "log"}, "minimum_rows": 20}}
DATES = {"start": "2026-03-02", "end": "2026-03-09"}


def test_a_window_of_the_production_log_is_trained_on(root: Path, airflow: FakeAirflow) -> None:
    world = build(root, workload=MONITORED)
    rows = make_frame(rows=400, seed=9)
    logged(world, rows)
    retrain_id = opened(world, **DATES)
    assert run(world.deployment, retrain_id, airflow), find_retraining(world.deployment, retrain_id).sentence
    plan = read_plan(world.deployment, find_retraining(world.deployment, retrain_id))
    training, holdout = (pd.read_parquet(one.path) for one in (plan.training, plan.holdout))
    assert (len(training), len(holdout)) == (300, 100)
    assert set(training.columns) == {"income", "debt", "group", "y"}
    together = pd.concat([training, holdout], ignore_index=True)
    assert together["income"].tolist() == pytest.approx(rows["income"].tolist())  # oldest first
    assert together["y"].tolist() == rows["y"].tolist()
    assert together["y"].dtype == rows["y"].dtype
    assert plan.training.source == f"production log of {WORKLOAD}"


def test_a_window_without_outcomes_is_closed(root: Path, airflow: FakeAirflow) -> None:
    world = build(root, workload=MONITORED)
    logged(world, make_frame(rows=40), labels=False)
    retrain_id = opened(world, **DATES)
    assert run(world.deployment, retrain_id, airflow) == ""
    assert "0 rows whose outcome is known" in closed(world, retrain_id)[1]


def test_an_outcome_that_is_not_known_yet_does_not_count(root: Path) -> None:
    world = build(root, workload=MONITORED)
    logged(world, make_frame(rows=40))
    world.clock.us = WEEK.end_us - DAY_US
    retrain_id = opened(world, **DATES)
    assert freeze(world.deployment, retrain_id) == ""
    assert "0 rows whose outcome is known" in closed(world, retrain_id)[1]


@pytest.mark.parametrize("workload", [{}, MONITORED])
def test_a_window_without_a_log_says_how_to_get_one(
    root: Path, airflow: FakeAirflow, workload: dict[str, Any]
) -> None:
    world = build(root, workload=workload)
    retrain_id = opened(world, **DATES)
    if workload:
        assert run(world.deployment, retrain_id, airflow) == ""
        assert "airlock.record" in closed(world, retrain_id)[1]
    else:
        with pytest.raises(ConfigurationError, match="does not say where its predictions are logged"):
            freeze(world.deployment, retrain_id)


def test_expectations_of_columns_that_are_not_logged_are_left_out_and_named(
    root: Path, airflow: FakeAirflow
) -> None:
    world = build(root, workload=MONITORED)
    suite = world.config / "expectations" / "loan.yaml"
    text = suite.read_text()
    extra = """- type: expect_column_values_to_not_be_null
  kwargs: {column: diary}
  why: not logged
"""
    suite.write_text(text + extra)
    logged(world, make_frame(rows=400, seed=9))
    retrain_id = opened(world, **DATES)
    assert run(world.deployment, retrain_id, airflow), find_retraining(world.deployment, retrain_id).sentence
    said = find_retraining(world.deployment, retrain_id).data(Kind.RETRAIN_CHECKED) or {}
    assert said["left_out"] == ["expect_column_values_to_not_be_null of diary"]


def test_outcomes_get_back_the_words_of_the_training_data(root: Path, airflow: FakeAirflow) -> None:
    """The log knows 1 for the favourable outcome; the training data writes ``paid`` and ``lost``."""
    world = build(root, workload=MONITORED)
    plain = json.loads(json.dumps(world.deployment.config.workload(WORKLOAD).to_data()))
    plain["model"]["positive"] = "paid"
    write_yaml(world.workload_file, plain)
    data = world.deployment.settings.data_root / "loan"
    for path in (data / "training.parquet", data / "batches" / "clean.parquet"):
        frame = pd.read_parquet(path)
        frame.assign(y=frame["y"].map({1: "paid", 0: "lost"})).to_parquet(path, index=False)
    rows = make_frame(rows=400, seed=9)
    step = (WEEK.end_us - WEEK.start_us) // len(rows)
    entries = [
        {
            "features": {"income": float(row.income), "debt": float(row.debt)},
            "attributes": {"group": int(row.group)},
            "score": 0.5, "decision": "paid", "prediction_id": f"p{n}", "time_us": WEEK.start_us + n * step,
        }
        for n, row in enumerate(rows.itertuples())
    ]  # fmt: skip
    labels = [(f"p{n}", "paid" if row.y else "lost", WEEK.end_us) for n, row in enumerate(rows.itertuples())]
    write_log(world.deployment.settings.data_root / "log", entries, labels)
    world.clock.us = NOW_US
    retrain_id = opened(world, **DATES)
    assert freeze(world.deployment, retrain_id), find_retraining(world.deployment, retrain_id).sentence
    plan = read_plan(world.deployment, find_retraining(world.deployment, retrain_id))
    written = pd.read_parquet(plan.training.path)["y"].tolist()
    assert written == rows["y"].map({1: "paid", 0: "lost"}).tolist()[:300]


# Once, whatever happens


def test_each_step_waits_for_the_one_before(world: World, airflow: FakeAirflow) -> None:
    retrain_id = opened(world)
    for step in (check, train_version, compare):
        with pytest.raises(NotFoundError):
            step(world.deployment, retrain_id)
    freeze(world.deployment, retrain_id)
    with pytest.raises(NotFoundError, match="not checked"):
        train_version(world.deployment, retrain_id)
    check(world.deployment, retrain_id)
    train_version(world.deployment, retrain_id)
    with pytest.raises(NotFoundError, match="not compared"):
        register(world.deployment, retrain_id)
    with pytest.raises(NotFoundError, match="not compared"):
        submit_release(world.deployment, retrain_id, client=airflow.client())
    assert set(world.registry.models[WORKLOAD]) == {"1", "2", "3"}


def test_what_is_registered_must_be_what_was_trained(world: World, airflow: FakeAirflow) -> None:
    retrain_id = opened(world)
    for step in STEPS:
        assert step(world.deployment, retrain_id)
    world.registry.models[WORKLOAD]["4"].files["model.skops"] = b"something else"
    with pytest.raises(IntegrityError, match="not what was trained"):
        submit_release(world.deployment, retrain_id, client=airflow.client())
    assert airflow.runs == {}


def test_what_was_frozen_is_used_whatever_stands_in_the_folders_now(
    world: World, airflow: FakeAirflow
) -> None:
    retrain_id = opened(world)
    freeze(world.deployment, retrain_id)
    write_code(world, {"skill": 0.0})
    release_id = run(world.deployment, retrain_id, airflow)
    assert release_id


def outcome(world: World, airflow: FakeAirflow, retrain_id: str) -> tuple[Any, ...]:
    """Everything that must be there once: versions, releases, events, and no conflict."""
    found = find_retraining(world.deployment, retrain_id)
    conflicts = world.deployment.audit.events(kinds=[Kind.CONFLICT])
    return (
        sorted(world.registry.models[WORKLOAD]),
        sorted(airflow.runs),
        [event.kind for event in found.events],
        [entry.event.key for entry in conflicts],
    )


CHANGING = ("audit.append", "registry.add_version", "airflow.trigger", "sandbox.run")
"""Between two of these nothing changed that anybody could see."""


def test_killed_around_each_change_and_started_again_there_is_one_version_and_one_release(root: Path) -> None:
    """SIGKILL before and after every call through a port; then the DAG's tasks run again."""
    killed_everywhere(root, lambda moment: moment.endswith(CHANGING))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_any_moment_and_started_again_there_is_one_version_and_one_release(root: Path) -> None:
    killed_everywhere(root, lambda _: True)


def killed_everywhere(root: Path, wanted: Callable[[str], bool]) -> None:
    world = build(root)
    retrain_id = opened(world)
    whole, there = world.copy(root.parent / "whole"), FakeAirflow()
    whole.deployment = replace(whole.deployment, sandbox=world.deployment.sandbox)
    world_run(whole, retrain_id, there)
    expected = outcome(whole, there, retrain_id)
    assert expected[0] == ["1", "2", "3", "4"]
    assert len(expected[1]) == 1
    moments = list(whole.failpoints.reached)
    numbers = [number for number, moment in enumerate(moments, 1) if wanted(moment)]
    changes = {moment for moment in moments if moment.endswith(CHANGING)}
    assert len(changes) == 2 * len(CHANGING), "each kind of change is met, before and after it"
    for number in numbers:
        copied, airflow = world.copy(root.parent / str(number)), FakeAirflow()
        copied.deployment = replace(copied.deployment, sandbox=world.deployment.sandbox)
        kill(copied, number, retrain_id, airflow)
        copied.clock.advance(us=1)
        run(copied.deployment, retrain_id, airflow)
        assert outcome(copied, airflow, retrain_id) == expected, f"killed {moments[number - 1]}"


def kill(world: World, number: int, retrain_id: str, airflow: FakeAirflow) -> None:
    """Run it in a process of its own that is killed at its n-th moment; registry and Airflow live on."""
    others, seen = world.root / "others", []

    def reach(moment: str) -> None:
        seen.append(moment)
        if len(seen) == number:
            others.write_bytes(pickle.dumps((world.registry.models, airflow.runs)))
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:  # pragma: no cover  # it ends by SIGKILL
        try:
            world.failpoints.reach = reach  # type: ignore[method-assign]
            world_run(world, retrain_id, airflow)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it ended with {os.waitstatus_to_exitcode(status)} before moment {number}"
    assert os.WTERMSIG(status) == signal.SIGKILL
    world.registry.models, airflow.runs = pickle.loads(others.read_bytes())


def world_run(world: World, retrain_id: str, airflow: FakeAirflow) -> None:
    watched, deployment = world.failpoints.watch("airflow", airflow), world.watched()
    deployment = replace(deployment, sandbox=world.failpoints.watch("sandbox", deployment.sandbox))
    run(deployment, retrain_id, watched_client(watched))


def watched_client(watched: Any) -> FakeAirflow:
    """``run`` asks for the client; the watched one is its own client."""

    class Client(FakeAirflow):
        def client(self) -> AirflowClient:
            return cast("AirflowClient", watched)

    return Client()


def test_an_error_that_may_heal_at_any_moment_leaves_it_open_and_heals(root: Path) -> None:
    world = build(root)
    retrain_id = opened(world)
    whole = world.copy(root.parent / "whole")
    whole.deployment = replace(whole.deployment, sandbox=world.deployment.sandbox)
    world_run(whole, retrain_id, FakeAirflow())
    count = len(whole.failpoints.reached)
    for number in range(1, count + 1, count // 8):
        copied, airflow = world.copy(root.parent / f"u{number}"), FakeAirflow()
        copied.deployment = replace(copied.deployment, sandbox=world.deployment.sandbox)
        copied.failpoints.stop_at(number, UnavailableError("away for a moment"))
        with pytest.raises(AirlockError):
            world_run(copied, retrain_id, airflow)
        assert find_retraining(copied.deployment, retrain_id).state is not RetrainState.CLOSED
        assert run(copied.deployment, retrain_id, airflow)


def test_submitting_as_the_dag_of_the_release_does(world: World, airflow: FakeAirflow) -> None:
    """What Airflow runs then: the release's own first task, with the version that was registered."""
    retrain_id = opened(world)
    release_id = run(world.deployment, retrain_id, airflow)
    (((dag_id, run_id), conf),) = airflow.runs.items()
    assert (
        submit(
            world.deployment,
            release_id=release_id,
            workload_name=WORKLOAD,
            version=conf["version"],
            batch=conf["batch"],
            context=conf["context"],
            submitter=world.deployment.settings.service_user,
            dag_id=dag_id,
            run_id=run_id,
        )
        == release_id
    )
    assert find_release(world.deployment, release_id).submitter == "dana"
