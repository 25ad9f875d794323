"""The retraining DAGs as Airflow sees them, and the command that starts them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airlock.core.audit import Kind
from airlock.core.errors import RefusedError
from airlock.services.deployment import Deployment
from airlock.services.retrain import find_retraining
from tests.support.commands import Cli
from tests.support.deployments import (
    WORKLOAD,
    World,
    edit,
    fast_folder,
    workload_data,
    write_config,
    write_yaml,
)
from tests.unit.test_dags import HEAVY, run_python
from tests.unit.test_retrain import REASON, SPEC, FakeAirflow, build, write_code

if TYPE_CHECKING:
    from airflow.sdk import DAG

pytestmark = pytest.mark.requirement("M-3")

ROOT = Path(__file__).parents[2]
DAG_FILE = ROOT / "dags" / "retrain.py"
STEPS = ["request", "freeze", "check", "train", "compare", "register", "submit", "ended"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_config(tmp_path / "config")
    write_yaml(folder / "workloads" / f"{WORKLOAD}.yaml", workload_data(training=SPEC))
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(folder))
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path / "home"))
    return folder


def load() -> dict[str, DAG]:
    from airlock.airflow.retraining import retrain_dags

    return {dag.dag_id: dag for dag in retrain_dags()}


@pytest.mark.slow
def test_importing_the_dag_file_loads_no_heavy_library(tmp_path: Path) -> None:
    code = f"""
import json, runpy, sys
found = [name for name in runpy.run_path({str(DAG_FILE)!r}) if name.startswith("retrain__")]
print(json.dumps([sorted(found), [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    dags, heavy = run_python(code, AIRFLOW_HOME=str(tmp_path), AIRLOCK_CONFIG_DIR=str(ROOT / "config"))
    assert heavy == []
    assert dags == ["retrain__mortgage-approval", "retrain__rate-type-forecast"]


def test_there_is_one_for_each_workload_with_a_command_and_none_for_others(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(config / "workloads" / "other.yaml", workload_data(name="other"))
    edit(write_yaml(config / "workloads" / "broken.yaml", workload_data(name="broken")), "owner:", "ownr:")
    assert set(load()) == {f"retrain__{WORKLOAD}"}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "retrain__other")
    assert load() == {}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", f"retrain__{WORKLOAD}")
    assert set(load()) == {f"retrain__{WORKLOAD}"}


def test_its_steps_follow_one_another_and_each_explains_itself(config: Path) -> None:
    dag = load()[f"retrain__{WORKLOAD}"]
    edges = {name: {after} for name, after in pairwise(STEPS)} | {"ended": set()}
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == edges
    for task in dag.tasks:
        assert task.doc_md, task.task_id
        assert task.retries == 3
        assert task.trigger_rule == ("all_done" if task.task_id == "ended" else "all_success")
    assert dag.max_active_runs == 1
    assert dag.schedule is None
    assert "python train.py" in str(dag.doc_md)


def test_it_can_be_stored_and_holds_no_settings(config: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setenv("AIRLOCK_SERVICE_PASSWORD", "s3cret")
    stored = json.dumps(DagSerialization.to_dict(load()[f"retrain__{WORKLOAD}"]))
    DagSerialization.from_dict(json.loads(stored))
    assert "s3cret" not in stored
    assert str(tmp_path) not in stored


# What its tasks do


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with fast_folder() as folder:
        found = build(folder / "world")
        deployment: Deployment = found.deployment
        monkeypatch.setattr("airlock.services.deployment.open_deployment", lambda *_: deployment)
        yield found


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> FakeAirflow:
    found = FakeAirflow()
    monkeypatch.setattr("airlock.services.retrain_model.service_client", lambda _: found)
    return found


def context(user: str = "dana", **params: Any) -> Any:
    ti = SimpleNamespace(
        dag_id=f"retrain__{WORKLOAD}",
        run_id="manual__1",
        task_id="x",
        map_index=-1,
        try_number=1,
        max_tries=3,
    )
    return {
        "ti": ti,
        "dag_run": SimpleNamespace(conf={}, triggering_user_name=user),
        "params": {"reason": REASON, **params},
    }


def execute(world: World, **form: Any) -> list[Any]:
    """Every task in order; what was skipped is the exception."""
    from airflow.sdk.exceptions import AirflowSkipException

    from airlock.airflow.retraining import retrain_dag

    said: list[Any] = []
    for task in retrain_dag(world.deployment.config.workload(WORKLOAD)).tasks:
        try:
            said.append(task.execute(context(**form)))
        except AirflowSkipException as skip:
            said.append(skip)
    return said


@pytest.mark.slow
def test_its_tasks_return_ids_and_no_verdicts(world: World, airflow: FakeAirflow) -> None:
    said = execute(world)
    retrain_id = said[0]
    assert said[-1] == retrain_id
    assert said[5] == "4"
    assert said[6].startswith(f"{WORKLOAD}-v4-")
    assert len(airflow.of(f"release__{WORKLOAD}")) == 1
    asked = find_retraining(world.deployment, retrain_id).requested
    assert asked is not None
    assert asked.actor == "dana"


@pytest.mark.slow
def test_what_is_closed_is_skipped_with_the_reason(world: World, airflow: FakeAirflow) -> None:
    write_code(world, {"skill": 0.0})
    said = execute(world)
    assert [type(one).__name__ for one in said[4:7]] == ["AirflowSkipException"] * 3
    assert "not better" in str(said[4])
    assert said[7] == said[0]
    assert airflow.runs == {}


@pytest.mark.requirement("A-2")
def test_who_may_not_ask_fails_at_once(world: World) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from airlock.airflow.retraining import RequestRetrainingOperator

    task = RequestRetrainingOperator(task_id="request", workload=WORKLOAD)
    with pytest.raises(AirflowFailException, match=r"no active entry in people\.yaml"):
        task.execute(context(user="mallory"))


# The command


@pytest.fixture
def logged_in(world: World, monkeypatch: pytest.MonkeyPatch) -> FakeAirflow:
    found = FakeAirflow()
    monkeypatch.setattr("airlock.cli.retrain.open_deployment", lambda: world.deployment)
    monkeypatch.setattr("airlock.cli.retrain.client_for", lambda *_: found)
    return found


def test_the_command_asks_and_lists(cli: Cli, world: World, logged_in: FakeAirflow) -> None:
    asked = cli("retrain", WORKLOAD, "--reason", REASON, "--user", "dana", "--format", "json")
    assert asked.code == 0
    answer = json.loads(asked.out)
    assert answer["dag_id"] == f"retrain__{WORKLOAD}"
    assert logged_in.runs[answer["dag_id"], answer["run_id"]] == {"reason": REASON, "file": ""}
    assert "No retrainings yet" in cli("retrain", WORKLOAD, "--list").err
    world.deployment.record(
        Kind.RETRAIN_REQUESTED,
        f"retrain/{answer['retraining']}/requested",
        actor="dana",
        workload=WORKLOAD,
        data={"retrain": answer["retraining"], "reason": REASON, "data": {}, "incident": ""},
    )
    (row,) = json.loads(cli("retrain", WORKLOAD, "--list", "--format", "json").out)
    assert (row["actor"], row["state"]) == ("dana", "requested")
    shown = cli("retrain", WORKLOAD, "--list")
    assert answer["retraining"] in shown.err + shown.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "no reason is given"),
        (["--reason", "no"], 1, "at least 10 characters"),
        (["--reason", REASON, "--from", "2026-01-05"], 1, "is no window"),
        (["--reason", REASON, "--file", "../x"], 1, "inside the data directory"),
    ],
)
def test_the_command_says_what_is_wrong(
    cli: Cli, logged_in: FakeAirflow, words: list[str], code: int, said: str
) -> None:
    answer = cli("retrain", WORKLOAD, *words, "--user", "dana")
    assert answer.code == code
    assert said in answer.err
    assert logged_in.runs == {}


def test_airflow_says_who_may_start_it(
    cli: Cli, logged_in: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RefusedError("Airflow answers 403: Forbidden")

    monkeypatch.setattr(logged_in, "trigger", refuse)
    assert cli("retrain", WORKLOAD, "--reason", REASON, "--user", "vera").code == 3
