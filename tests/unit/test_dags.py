"""The release DAGs as Airflow sees them: light to import, right in their edges, honest when broken."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airlock.core.audit import Kind
from airlock.core.errors import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    SandboxError,
    UnavailableError,
)
from airlock.core.task import is_own_dag
from airlock.gates import gate_names
from airlock.services import approve
from tests.support.deployments import (
    WORKLOAD,
    World,
    edit,
    fast_folder,
    make_world,
    workload_data,
    write_config,
    write_yaml,
)

if TYPE_CHECKING:
    from airflow.sdk import DAG

ROOT = Path(__file__).parents[2]
DAG_FILE = ROOT / "dags" / "release.py"
HEAVY = [
    "great_expectations", "evidently", "mlflow", "shap", "fairlearn", "sklearn", "skops", "pandas", "numpy",
    "matplotlib", "pyarrow", "scipy",
]  # fmt: skip
BEFORE = {
    "checks.data_quality", "checks.documentation", "checks.leakage", "checks.lineage", "checks.privacy",
    "checks.readiness", "checks.security",
}  # fmt: skip
AFTER = {
    "gates.bias", "gates.cost", "gates.drift", "gates.explainability", "gates.performance",
    "gates.reproducibility",
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with one workload and a policy of all gates."""
    folder = write_config(tmp_path / "config", gates=gate_names())
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(folder))
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path / "home"))
    return folder


def load() -> dict[str, DAG]:
    from airlock.airflow.dag_factory import release_dags

    return {dag.dag_id: dag for dag in release_dags()}


def release_dag() -> DAG:
    return load()[f"release__{WORKLOAD}"]


def run_python(code: str, **environment: str) -> Any:
    """Run code in a fresh interpreter; it prints JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# Import


@pytest.mark.slow
def test_importing_the_dag_file_loads_no_heavy_library(tmp_path: Path) -> None:
    """A DAG file is parsed every few seconds and before each task; these take 2 to 11 s each."""
    code = f"""
import json, runpy, sys
found = runpy.run_path({str(DAG_FILE)!r})
dags = {{name: sorted(value.tags) for name, value in found.items() if name.startswith("release__")}}
print(json.dumps([dags, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    environment = {"AIRFLOW_HOME": str(tmp_path), "AIRLOCK_CONFIG_DIR": str(ROOT / "config")}
    dags, heavy = run_python(code, **environment)
    assert heavy == []
    # The shipped workloads are there, and none of them is broken: else this would prove nothing.
    assert set(dags) == {f"release__{path.stem}" for path in (ROOT / "config" / "workloads").glob("*.yaml")}
    assert all("broken" not in tags for tags in dags.values())


@pytest.mark.requirement("E-1")
def test_every_dag_of_ours_has_a_name_by_which_its_outcomes_are_recorded(config: Path) -> None:
    """The listener and the reconciliation know our DAGs by the beginning of their names."""
    from airflow.sdk import DAG

    found = [
        value
        for path in sorted((ROOT / "dags").glob("*.py"))
        for value in runpy.run_path(str(path)).values()
        if isinstance(value, DAG)
    ]
    assert len(found) >= 6
    for dag in found:
        assert "airlock" in dag.tags, dag.dag_id
        assert is_own_dag(dag.dag_id), dag.dag_id


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("dag_id", ["airlock__waivers", "retrain__loan-model", "monitor__loan-model"])
def test_the_listener_records_how_a_task_of_each_dag_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dag_id: str
) -> None:
    from airlock.airflow import listener

    world = make_world(tmp_path / "world")
    monkeypatch.setattr("airlock.services.deployment.open_deployment", lambda: world.deployment)
    run = {"dag_id": dag_id, "run_id": "scheduled__1", "map_index": -1, "max_tries": 1}
    context = SimpleNamespace(dag_run=SimpleNamespace(conf=None))

    def ti(task_id: str, try_number: int) -> Any:
        return SimpleNamespace(task_id=task_id, try_number=try_number, _ti_context_from_server=context, **run)

    listener.on_task_instance_failed("running", ti("review", 1), ValueError("no"))
    listener.on_task_instance_success("running", ti("review", 2))
    listener.on_task_instance_skipped("running", ti("said", 1))
    listener.on_task_instance_success("running", SimpleNamespace(**{**vars(ti("x", 1)), "dag_id": "theirs"}))
    found = [
        (event.data["task_id"], event.data["state"], event.release_id, event.data["dag_id"])
        for event in world.events(Kind.TASK_OUTCOME)
    ]
    assert found == [
        ("review", "up_for_retry", "", dag_id),
        ("review", "success", "", dag_id),
        ("said", "skipped", "", dag_id),
    ]


def test_the_dag_file_holds_no_logic() -> None:
    lines = [line for line in DAG_FILE.read_text().splitlines() if line and not line.startswith(('"""', "#"))]
    assert len(lines) <= 4


def test_only_the_dag_that_is_asked_for_is_built(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_yaml(config / "workloads" / "other.yaml", workload_data(name="other"))
    assert set(load()) == {"release__loan-model", "release__other"}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "release__other")
    assert set(load()) == {"release__other"}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "somebody_elses")
    assert load() == {}


def test_a_configuration_without_workloads_gives_no_dags(config: Path) -> None:
    (config / "workloads" / f"{WORKLOAD}.yaml").unlink()
    assert load() == {}


# What people see


def test_a_release_dag_says_whose_it_is_and_how_it_judges(config: Path) -> None:
    dag = release_dag()
    assert dag.dag_display_name == "Release: Loan model"
    assert set(dag.tags) == {"airlock", "release", "model", "team"}
    assert dag.owner == "team"
    assert dag.schedule is None
    assert dag.is_paused_upon_creation is False
    text = str(dag.doc_md)
    for gate in gate_names():
        assert f"`{gate}`" in text
    for words in (
        "# Loan model",
        "| red | governance-analyst, risk-officer |",
        "policy **1.0.0**",
        "| green | nobody",
    ):
        assert words in text


def test_every_task_explains_itself(config: Path) -> None:
    for task in release_dag().tasks:
        text = task.partial_kwargs["doc_md"] if task.is_mapped else task.doc_md
        assert text, task.task_id
        if task.task_id in BEFORE | AFTER:
            for part in ("Why it matters", "What good looks like", "How to fix it"):
                assert f"**{part}:**" in text


def test_every_parameter_is_described_and_only_the_version_is_asked(config: Path) -> None:
    params = {name: release_dag().params.get_param(name) for name in ("version", "batch", "context")}
    assert set(release_dag().params) == set(params)
    for param in params.values():
        assert param.description
        assert param.schema["title"]
    assert params["batch"].value == "clean"
    assert params["context"].value == ""
    assert not params["version"].has_value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", ""), ("version", "0"), ("version", "03"), ("version", "-1"), ("version", "3; rm -rf /"),
        ("version", "1" * 10), ("version", 3), ("version", None), ("batch", ""), ("batch", "../secret"),
        ("batch", "Clean"), ("batch", "a" * 61), ("context", "x" * 20_001), ("context", None),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_right_is_refused_before_anything_runs(
    config: Path, name: str, value: Any
) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        release_dag().params.get_param(name).resolve(value)


@pytest.mark.parametrize(
    ("name", "value"), [("version", "3"), ("version", "123456789"), ("batch", "week-47")]
)
def test_a_form_that_is_right_is_accepted(config: Path, name: str, value: str) -> None:
    assert release_dag().params.get_param(name).resolve(value) == value


# Edges


EDGES = {
    "submit": {"manifest"},
    "manifest": BEFORE,
    **{gate: {"score"} for gate in BEFORE},
    "score": AFTER,
    **{gate: {"decide"} for gate in AFTER},
    "decide": {"seat", "approval"},
    "seat": set(),
    "approval": {"promote"},
    "promote": {"announce", "changes"},
    "changes": {"seal"},
    "announce": {"seal"},
    "seal": set(),
}


@pytest.mark.requirement("G-8", "R-1")
def test_the_edges_are_those_of_the_architecture(config: Path) -> None:
    """Among them: nothing is scored before the files were checked, nothing promoted before the approval."""
    assert {task.task_id: task.downstream_task_ids for task in release_dag().tasks} == EDGES


@pytest.mark.requirement("G-11")
def test_a_training_command_adds_one_task_beside_scoring(config: Path) -> None:
    """It waits for the checks, and only the gate that reads it waits for it."""
    training = {"command": ["python", "train.py", "{data}", "{model}"], "code": "loan"}
    write_yaml(config / "workloads" / f"{WORKLOAD}.yaml", workload_data(training=training))
    edges = {gate: {"score", "retrain"} for gate in BEFORE} | {"retrain": {"gates.reproducibility"}}
    assert {task.task_id: task.downstream_task_ids for task in release_dag().tasks} == {**EDGES, **edges}
    write_config(config, gates=["documentation", "performance"])
    write_yaml(config / "workloads" / f"{WORKLOAD}.yaml", workload_data(training=training))
    assert "retrain" not in release_dag().task_ids


@pytest.mark.requirement("E-1")
def test_decision_announcement_and_seal_run_whatever_happened(config: Path) -> None:
    for task in release_dag().tasks:
        always = task.task_id in ("decide", "announce", "seal")
        assert task.trigger_rule == ("all_done" if always else "all_success"), task.task_id


@pytest.mark.requirement("A-6")
def test_tasks_are_retried_with_growing_delays_and_a_question_is_asked_again_at_once(config: Path) -> None:
    for task in release_dag().tasks:
        if task.task_id == "seat":
            assert task.retries == 10
            assert not task.retry_exponential_backoff
            assert task.retry_delay.total_seconds() == 1
        else:
            assert task.retries == 3, task.task_id
            assert task.retry_exponential_backoff
            assert task.retry_delay.total_seconds() == 10


def test_the_seal_and_the_seats_are_the_only_ends_of_a_run(config: Path) -> None:
    """Any other end that does not run makes Airflow call the run of a rejected release failed."""
    assert {task.task_id for task in release_dag().tasks if not task.downstream_task_ids} == {"seal", "seat"}


@pytest.mark.requirement("A-1")
def test_there_is_one_seat_for_each_role_the_decision_names(config: Path) -> None:
    dag = release_dag()
    seat = dag.get_task("seat")
    assert seat.is_mapped
    assert [task.task_id for task in seat.iter_mapped_dependencies()] == ["decide"]
    assert seat.partial_kwargs["map_index_template"] == "{{ task.role }}"


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    ("gates", "before", "after"),
    [
        (["documentation"], {"checks.documentation"}, {"decide"}),
        (["performance"], {"score"}, {"gates.performance"}),
    ],
)
def test_a_policy_without_gates_of_one_stage_keeps_the_order(
    config: Path, gates: list[str], before: set[str], after: set[str]
) -> None:
    write_config(config, gates=gates)
    dag = release_dag()
    assert dag.get_task("manifest").downstream_task_ids == before
    assert dag.get_task("score").downstream_task_ids == after
    assert dag.get_task("decide").upstream_task_ids
    assert {task.task_id for task in dag.roots} == {"submit"}


def test_airflow_can_store_a_release_dag_and_read_it_back(config: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    dag = release_dag()
    stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    again = DagSerialization.from_dict(stored)
    assert {task.task_id: task.downstream_task_ids for task in again.tasks} == EDGES
    assert again.get_task("decide").trigger_rule == "all_done"
    assert again.get_task("seat").is_mapped
    assert set(again.params) == {"version", "batch", "context"}
    assert again.params.get_param("version").schema["pattern"] == r"^[1-9][0-9]{0,8}$"
    assert again.owner == "team"


def test_a_stored_dag_holds_neither_settings_nor_secrets(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setenv("AIRLOCK_AUDIT_URL", "postgresql+psycopg://airlock:s3cret@host/audit")
    monkeypatch.setenv("AIRLOCK_SERVICE_PASSWORD", "s3cret")
    text = json.dumps(DagSerialization.to_dict(release_dag()))
    assert "s3cret" not in text
    assert str(tmp_path) not in text.replace(str(DAG_FILE), "")


# Broken workloads


BROKEN = {
    "a typo": ("owner: team", "ownr: team", "did you mean 'owner'"),
    "no YAML": ("owner: team", "owner: [a", "not valid YAML"),
    "another policy": ("policy: 1.0.0", "policy: 9.9.9", "there is no policy 9.9.9"),
    "a name that is not the file's": ("name: broken", "name: other", "does not match the file name"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_workload_becomes_a_dag_that_says_why_and_the_others_stay(
    config: Path, mistake: str
) -> None:
    old, new, words = BROKEN[mistake]
    edit(write_yaml(config / "workloads" / "broken.yaml", workload_data(name="broken")), old, new)
    dags = load()
    assert set(dags) == {f"release__{WORKLOAD}", "release__broken"}
    assert "broken" not in dags[f"release__{WORKLOAD}"].tags
    broken = dags["release__broken"]
    assert set(broken.tags) == {"airlock", "broken"}
    assert words in str(broken.doc_md)
    assert words in str(broken.description)
    assert [task.task_id for task in broken.tasks] == ["submit"]
    assert broken.get_task("submit").retries == 0


@pytest.mark.parametrize("name", ["My model (copy)", "größe", "a" * 230, "x\ny"])
def test_a_file_name_airflow_would_refuse_takes_nothing_down(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_yaml(config / "workloads" / f"{name}.yaml", workload_data())
    dags = load()
    assert len(dags) == 2
    (broken,) = [dag_id for dag_id, dag in dags.items() if "broken" in dag.tags]
    assert "does not match the file name" in str(dags[broken].doc_md)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", broken)
    assert set(load()) == {broken}, "and its task can find it again"


@pytest.mark.requirement("P-1")
def test_a_policy_with_an_unknown_gate_breaks_its_workloads_in_words(config: Path) -> None:
    edit(config / "policies" / "1.0.0" / "policy.yaml", "\n  performance:", "\n  performence:")
    dag = release_dag()
    assert "broken" in dag.tags
    assert "there is no gate 'performence'" in str(dag.doc_md)


def test_a_broken_dag_can_be_stored_too(config: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    edit(config / "workloads" / f"{WORKLOAD}.yaml", "owner: team", "owner: '[red]\\u001b[31m' ")
    edit(config / "workloads" / f"{WORKLOAD}.yaml", "title:", "titel:")
    DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(release_dag()))))


# What an operator records


def task_instance(task_id: str = "submit", **changes: Any) -> SimpleNamespace:
    values = {
        "dag_id": f"release__{WORKLOAD}",
        "run_id": "manual__2026-01-01T00:00:00+00:00",
        "task_id": task_id,
        "map_index": -1,
        "try_number": 1,
        "max_tries": 3,
    }
    return SimpleNamespace(**{**values, **changes})


def context(**changes: Any) -> Any:
    dag_run = SimpleNamespace(conf={"version": "2"}, triggering_user_name="dana")
    return {
        "ti": task_instance(**changes),
        "dag_run": dag_run,
        "params": {"batch": "clean", "context": "why"},
    }


ENDS = [
    "none", "skip", "fail", "sensor timeout", "terminated", "time", "airflow", "away", "bug", "exit", "text",
    "refused", "conflict", "integrity", "input", "configuration", "not found", "sandbox",
]  # fmt: skip


def ends() -> dict[str, tuple[Any, str, str]]:
    """How a task can end → error, state at the first of four tries, and at the last."""
    from airflow.sdk import exceptions as airflow

    return {
        "none": (None, "success", "success"),
        "skip": (airflow.AirflowSkipException("no"), "skipped", "skipped"),
        "fail": (airflow.AirflowFailException("no"), "failed", "failed"),
        "sensor timeout": (airflow.AirflowSensorTimeout(), "failed", "failed"),
        "terminated": (airflow.AirflowTaskTerminated(), "failed", "failed"),
        "time": (airflow.AirflowTaskTimeout(), "up_for_retry", "failed"),
        "airflow": (airflow.AirflowException("no"), "up_for_retry", "failed"),
        "away": (UnavailableError("no"), "up_for_retry", "failed"),
        "bug": (ValueError("no"), "up_for_retry", "failed"),
        "exit": (SystemExit(1), "up_for_retry", "failed"),
        "text": ("killed", "up_for_retry", "failed"),
        "refused": (RefusedError("no"), "failed", "failed"),
        "conflict": (ConflictError("no"), "failed", "failed"),
        "integrity": (IntegrityError("no"), "failed", "failed"),
        "input": (InvalidInputError("no"), "failed", "failed"),
        "configuration": (ConfigurationError("no"), "failed", "failed"),
        "not found": (NotFoundError("no"), "failed", "failed"),
        "sandbox": (SandboxError("no"), "failed", "failed"),
    }


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("name", ENDS)
def test_the_recorded_state_is_the_one_airflow_gives(name: str) -> None:
    from airlock.airflow.base import outcome_state

    assert list(ends()) == ENDS
    error, first, last = ends()[name]
    assert outcome_state(error, task_instance(try_number=1)) == first
    assert outcome_state(error, task_instance(try_number=4)) == last
    assert outcome_state(error, task_instance(try_number=1, max_tries=0)) == last


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A deployment operators find through the environment."""
    with fast_folder() as folder:
        found = make_world(folder / "world")
        _point_to(found, monkeypatch)
        yield found


def _point_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_HOME", str(world.deployment.settings.home))
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(world.config))
    monkeypatch.setenv("AIRLOCK_DEPLOYMENT", "test")


def operator(run: Any) -> Any:
    from airlock.airflow.base import AirlockOperator

    class Probe(AirlockOperator):
        def run(self, recorder: Any, context: Any) -> Any:
            return run(recorder)

    return Probe(task_id="submit")


def outcomes(world: World) -> list[tuple[str, str]]:
    return [(event.data["state"], event.data["error"]) for event in world.events(Kind.TASK_OUTCOME)]


@pytest.mark.requirement("E-1")
def test_an_operator_records_start_and_outcome_once_a_try(world: World) -> None:
    probe = operator(lambda recorder: recorder.release_id)
    release_id = probe.execute(context())
    assert probe.execute(context()) == release_id, "the same try again, after a lost heartbeat"
    assert outcomes(world) == [("success", "")]
    assert len(world.events(Kind.TASK_STARTED)) == 1
    assert release_id.startswith("loan-model-v2-")


@pytest.mark.requirement("E-1")
def test_what_may_heal_is_retried_and_what_was_judged_is_not(world: World) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    def away(recorder: Any) -> None:
        raise UnavailableError("MLflow is away", fix="start it")

    def refused(recorder: Any) -> None:
        raise RefusedError("the rules say no")

    with pytest.raises(AirflowException, match=r"MLflow is away\. How to fix it: start it") as caught:
        operator(away).execute(context())
    assert not isinstance(caught.value, AirflowFailException)
    with pytest.raises(AirflowFailException, match="the rules say no"):
        operator(refused).execute(context(try_number=2))
    assert outcomes(world) == [
        ("up_for_retry", "MLflow is away. How to fix it: start it"),
        ("failed", "the rules say no"),
    ]


@pytest.mark.requirement("E-1")
def test_a_task_that_waits_has_no_outcome_yet(world: World) -> None:
    from airflow.sdk.exceptions import TaskAwaitingInput, TaskDeferred

    from airlock.airflow.approval import ApprovalTrigger

    trigger = ApprovalTrigger("r", 1.0)
    for parked in (
        TaskDeferred(trigger=trigger, method_name="execute_complete"),
        TaskAwaitingInput(method_name="execute_complete"),
    ):

        def wait(recorder: Any, parked: BaseException = parked) -> None:
            raise parked

        with pytest.raises(type(parked)):
            operator(wait).execute(context())
    assert outcomes(world) == []


@pytest.mark.requirement("E-1")
def test_without_an_audit_store_and_a_spool_nothing_is_done(world: World) -> None:
    (world.deployment.settings.home / "audit.db").unlink()
    world.deployment.settings.spool_root.write_text("a file where the folder should be")
    done: list[str] = []
    with pytest.raises(UnavailableError, match="the spool cannot be read"):
        operator(lambda _: done.append("work")).execute(context())
    assert done == []


@pytest.mark.requirement("E-1")
def test_without_an_audit_store_start_and_outcome_wait_on_this_machine(world: World) -> None:
    from airflow.sdk.exceptions import AirflowException

    (world.deployment.settings.home / "audit.db").unlink()
    spool = world.deployment.spool
    assert operator(lambda _: "done").execute(context()) == "done"
    waiting = [spool.read(path) for path in spool.waiting()]
    assert sorted(event.kind for event in waiting) == [Kind.TASK_OUTCOME, Kind.TASK_STARTED]

    def needs_the_store(recorder: Any) -> None:
        recorder.deployment.audit.events()

    with pytest.raises(AirflowException, match="the audit store is not there"):
        operator(needs_the_store).execute(context(try_number=2))
    states = [event.data.get("state") for event in map(spool.read, spool.waiting())]
    assert sorted(filter(None, states)) == ["success", "up_for_retry"]


@pytest.mark.requirement("E-1")
def test_a_skip_is_recorded_with_its_reason(world: World) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    def skip(recorder: Any) -> None:
        raise AirflowSkipException("denied: too slow")

    with pytest.raises(AirflowSkipException):
        operator(skip).execute(context())
    assert outcomes(world) == [("skipped", "denied: too slow")]


def seat(monkeypatch: pytest.MonkeyPatch, state: str) -> Any:
    """The task of a seat whose approval stands as ``state`` says."""
    from airlock.airflow.approval import SeatOperator
    from airlock.services import desks

    standing = approve.Standing(state, "as the test says")
    monkeypatch.setattr(desks, "standing", lambda *_: standing)
    return SeatOperator(task_id="seat", role="risk-officer")


@pytest.mark.requirement("A-7")
@pytest.mark.parametrize("state", [approve.EXPIRED, approve.REJECTED, approve.DENIED])
def test_a_seat_that_starts_too_late_asks_nobody_and_fails_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException, match="nobody is asked any more: as the test says"):
        seat(monkeypatch, state).execute(context())
    assert [event.data["state"] for event in world.events(Kind.TASK_OUTCOME)] == ["skipped"]


def test_a_seat_that_is_tried_again_after_its_answer_just_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat(monkeypatch, approve.GRANTED).execute(context())
    assert outcomes(world) == [("success", "")]


@pytest.mark.requirement("A-7")
def test_a_seat_that_nobody_answered_is_skipped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow and the approval see the same deadline; which of them is first must not matter to the run."""
    from airflow.sdk.exceptions import AirflowSkipException

    late = {"error": "The response timeout has passed.", "error_type": "timeout"}
    with pytest.raises(AirflowSkipException, match="nobody answered in time"):
        seat(monkeypatch, approve.EXPIRED).execute_complete(context(), late)
    ((state, why),) = outcomes(world)
    assert (state, "nothing was approved" in why) == ("skipped", True)


def test_the_task_of_a_broken_workload_fails_with_the_reason(world: World) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from airlock.airflow.dag_factory import BrokenWorkloadOperator

    task = BrokenWorkloadOperator(task_id="submit", problem="owner: required field is missing")
    with pytest.raises(AirflowFailException, match="owner: required field is missing"):
        task.execute(context())
    assert outcomes(world) == [("failed", "owner: required field is missing")]


@pytest.mark.requirement("A-2", "R-1")
def test_the_release_is_known_from_the_run_and_not_from_the_form() -> None:
    """Who could name a release in XCom or in the form could act in the name of another."""
    from airlock.airflow.refs import release_of

    honest = release_of("test", "release__loan-model", "run-1", {"version": "2"})
    forged = {"version": "2", "release_id": "other-v1-00000000", "workload": "other"}
    assert release_of("test", "release__loan-model", "run-1", forged) == honest
    others = [("prod", "run-1"), ("test", "run-2")]
    assert honest[0] not in {
        release_of(name, "release__loan-model", run, {"version": "2"})[0] for name, run in others
    }
    assert release_of("test", "release__loan-model", "run-1", None)[2] == ""


@pytest.mark.parametrize("dag_id", ["release__x", "other", "xrelease__x", "release_x"])
def test_only_release_dags_are_ours(dag_id: str) -> None:
    from airlock.airflow.refs import is_release_dag

    assert is_release_dag(dag_id) == (dag_id == "release__x")
