"""The monitoring DAG and command: thin, catch-up safe, readable by somebody who never saw Airlock."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from airlock.airflow.assets import CHAMPIONS
from airlock.airflow.monitoring import (
    ActionChangesOperator,
    ActOperator,
    EvaluateWindowOperator,
    ProposeOperator,
    monitor_dag,
    tell_late,
    window_end_us,
)
from airlock.cli import monitor as command
from airlock.cli.local import _check_monitoring
from airlock.core.audit import Kind
from airlock.core.errors import ConflictError, NotFoundError
from airlock.core.monitoring import Action
from airlock.core.production import MonitoringSpec, moment
from airlock.services.actions import Facts
from airlock.services.monitor import due_windows, evaluated
from tests.support.deployments import WORKLOAD, fast_folder, open_world
from tests.support.production import (
    WEEK,
    OutletEvents,
    Production,
    SmallModel,
    logged_workload,
    people,
    production,
)

pytestmark = pytest.mark.requirement("M-1")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with fast_folder() as root:
        made = production(root / "world")
        for number in range(3):
            made.answer(number, people(120, 100 + number))
        made.judge(0)
        yield root / "world"


@pytest.fixture
def prod(made: Path) -> Iterator[Production]:
    with fast_folder() as root:
        shutil.copytree(made, root / "world")
        world = open_world(root / "world")
        world.registry.register("1")
        world.registry.champions[WORKLOAD] = "1"
        found = Production(world, SmallModel())
        found.after(2)
        yield found


def recorder(prod: Production, end: datetime, run: str = "scheduled__1") -> Any:
    return SimpleNamespace(
        deployment=prod.deployment,
        subject=f"action-{run}",
        ti=SimpleNamespace(run_id=run),
        dag_run=SimpleNamespace(data_interval_end=end, run_after=end),
    )


def run_steps(prod: Production, number: int) -> tuple[str, list[str], str]:
    made = recorder(prod, moment(prod.window(number).end_us + 6 * 3_600_000_000))
    context: Any = {"outlet_events": OutletEvents()}
    evaluate = EvaluateWindowOperator(task_id="evaluate", workload=WORKLOAD).run(made, context)
    roles = ProposeOperator(task_id="propose", workload=WORKLOAD).run(made, context)
    ended = ActOperator(task_id="act", workload=WORKLOAD).run(made, context)
    return evaluate, roles, ended


def test_the_dag_shows_its_steps_and_says_what_they_do() -> None:
    workload = logged_workload(schedule="0 7 * * 2")
    dag = monitor_dag(workload, 24)
    assert dag.dag_id == f"monitor__{WORKLOAD}"
    assert [task.task_id for task in dag.topological_sort()] == [
        "evaluate",
        "propose",
        "seat",
        "answered",
        "act",
        "changes",
    ]
    assert all(task.doc_md for task in dag.tasks)
    assert dag.task_dict["act"].upstream_task_ids == {"answered"}
    assert "| `act` |" in str(dag.doc_md)
    assert not dag.catchup
    assert [asset.uri for asset in dag.task_dict["evaluate"].outlets] == [f"airlock://window/{WORKLOAD}"]
    assert dag.task_dict["changes"].upstream_task_ids == {"act"}
    assert dag.task_dict["act"].outlets == [CHAMPIONS]
    assert dag.deadline is not None


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-10T06:59:59", "2026-03-10T07:00:00"),
        ("2026-03-10T07:00:30", "2026-03-10T07:00:00"),
        ("2026-03-10T07:59:00", "2026-03-10T07:00:00"),
        ("2026-03-10T08:30:00", "2026-03-17T07:00:00"),
        ("2026-03-09T00:00:00", "2026-03-10T07:00:00"),
    ],
)
def test_a_first_run_that_is_due_is_not_forgotten_when_airflow_reads_the_file_again(
    monkeypatch: pytest.MonkeyPatch, now: str, expected: str
) -> None:
    """And a workload that is new long after the moment of its schedule waits for the next."""
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables import trigger
    from airflow.timetables.base import TimeRestriction

    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    monkeypatch.setattr(trigger, "utcnow", lambda: at(now))
    dag = monitor_dag(logged_workload(schedule="0 7 * * 2"), 24)
    restriction = TimeRestriction(earliest=None, latest=None, catchup=dag.catchup)
    timetable = coerce_to_core_timetable(dag.timetable)
    due = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    assert due is not None
    assert due.run_after == at(expected)


def test_every_watched_workload_has_a_dag_of_its_own() -> None:
    from airlock.airflow.monitoring import monitor_dags

    assert sorted(dag.dag_id for dag in monitor_dags()) == [
        "monitor__mortgage-approval",
        "monitor__rate-type-forecast",
    ]


def test_a_run_judges_the_window_that_its_interval_ends_with(prod: Production) -> None:
    digest, roles, _ = run_steps(prod, 1)
    last = evaluated(prod.deployment, WORKLOAD)[-1]
    assert (last.data["start_us"], last.data["evidence"]) == (prod.window(1).start_us, digest)
    assert roles == []


def test_windows_that_were_missed_are_judged_by_the_next_run_oldest_first(prod: Production) -> None:
    end_us = prod.window(2).end_us + 3_600_000_000
    assert due_windows(prod.deployment, WORKLOAD, end_us) == [prod.window(1), prod.window(2)]
    run_steps(prod, 2)
    assert [event.data["start_us"] for event in evaluated(prod.deployment, WORKLOAD)] == [
        prod.window(number).start_us for number in range(3)
    ]
    assert due_windows(prod.deployment, WORKLOAD, end_us) == [prod.window(2)]


def test_on_the_first_run_there_is_nothing_to_make_up_for(prod: Production) -> None:
    early = WEEK.end_us - 14 * 86_400_000_000
    assert len(due_windows(prod.deployment, WORKLOAD, early)) == 1


def test_a_run_that_is_repeated_records_nothing_twice(prod: Production) -> None:
    first = run_steps(prod, 1)
    counts = {kind: len(prod.world.events(kind)) for kind in (Kind.MONITOR_EVALUATED, Kind.ACTION_PROPOSED)}
    assert run_steps(prod, 1) == first
    assert counts == {kind: len(prod.world.events(kind)) for kind in counts}


def test_what_an_action_rolls_back_is_told_to_other_dags_and_compared(
    prod: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the button: DAGs that depend on the champion hear of it, and the teams of the change."""
    monkeypatch.setattr("airlock.services.actions.judge", lambda *_: Facts([], Action.QUARANTINE, "low"))
    run_steps(prod, 1)
    given = recorder(prod, moment(prod.window(1).end_us))
    context: Any = {"outlet_events": OutletEvents()}
    key = ActOperator(task_id="act", workload=WORKLOAD).run(given, context)
    assert prod.deployment.find(key.partition("/")[2]).kind is Kind.ACTION_TAKEN  # type: ignore[union-attr]
    extra = {"version": "", "by": "rollback of version 1"}
    assert context["outlet_events"][CHAMPIONS].added == [(f"airlock://champion/{WORKLOAD}", extra)]
    report = ActionChangesOperator(task_id="changes", workload=WORKLOAD).run(given, {})  # type: ignore[arg-type]
    (compared,) = prod.world.events(Kind.DECISIONS_COMPARED)
    assert (compared.data["report"], compared.data["from"]) == (report, "1")


def test_where_nothing_was_rolled_back_no_change_is_told(prod: Production) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    run_steps(prod, 1)
    given = recorder(prod, moment(prod.window(1).end_us))
    with pytest.raises(AirflowSkipException, match="nothing was rolled back"):
        ActionChangesOperator(task_id="changes", workload=WORKLOAD).run(given, {})  # type: ignore[arg-type]


def test_a_run_by_hand_takes_the_time_it_was_started() -> None:
    made: Any = SimpleNamespace(dag_run=SimpleNamespace(data_interval_end=None, run_after=moment(5_000_000)))
    assert window_end_us(made) == 5_000_000


def test_without_a_judged_window_nothing_is_proposed(prod: Production) -> None:
    with pytest.raises(NotFoundError, match="no window"):
        ProposeOperator(task_id="propose", workload="other").run(recorder(prod, moment(1)), {})  # type: ignore[arg-type]


def test_a_window_that_cannot_be_judged_at_all_is_a_red_task_and_an_incident(prod: Production) -> None:
    shutil.rmtree(prod.folder)
    with pytest.raises(NotFoundError, match="no production log"):
        run_steps(prod, 1)
    (incident,) = prod.world.events(Kind.INCIDENT_OPENED)
    assert "could not be judged at all: there is no production log" in incident.data["summary"]


def test_while_nothing_is_in_production_there_is_nothing_to_watch_and_no_alarm(tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    from tests.support.deployments import make_world

    made = Production(make_world(tmp_path, champion=None), SmallModel())
    made.set_workload()
    with pytest.raises(AirflowSkipException, match="in production yet"):
        run_steps(made, 0)


def test_a_run_that_does_not_end_is_an_incident(prod: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airlock.services.deployment.open_deployment", lambda: prod.deployment)
    tell_late(workload=WORKLOAD)
    tell_late(workload=WORKLOAD)
    (incident,) = prod.world.events(Kind.INCIDENT_OPENED)
    assert "production is not watched" in incident.data["summary"]


@pytest.fixture
def cli(prod: Production, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(command, "open_deployment", lambda: prod.deployment)
    return lambda *words: CliRunner().invoke(command.app, list(words), env={"COLUMNS": "200"})


def test_the_command_judges_a_named_window_and_shows_every_signal(cli: Any) -> None:
    done = cli("run", WORKLOAD, "--window", "2026-03-09", "2026-03-16", "--format", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [one["window"] for one in found["windows"]] == ["2026-03-09 to 2026-03-15"]
    assert len(found["signals"]) == 15
    assert found["proposal"]["action"] == "none"
    pretty = cli("run", WORKLOAD, "--window", "2026-03-09", "2026-03-16", "--act")
    assert "data drift" in pretty.stderr
    assert "(estimate)" in pretty.stderr


def test_the_command_refuses_what_is_no_window(cli: Any) -> None:
    done = cli("run", WORKLOAD, "--window", "soon", "later")
    assert done.exit_code != 0
    assert "is no window" in str(done.exception)


def test_status_says_what_came_of_the_last_window_and_that_it_is_paused(prod: Production, cli: Any) -> None:
    run_steps(prod, 2)
    assert "signals are calm" in cli("status").stderr
    prod.deployment.record(
        Kind.MONITOR_PAUSED, "a/paused", workload=WORKLOAD, data={"sentence": "3 actions are the most"}
    )
    with pytest.raises(ConflictError, match="Airlock paused itself for loan-model"):
        _check_monitoring(prod.deployment)
    done = cli("status", WORKLOAD)
    assert "Airlock paused itself: 3 actions are the most" in done.stderr
    assert json.loads(cli("status", "--format", "json").stdout)[0]["paused"] == "3 actions are the most"
    assert cli("resume", WORKLOAD, "--reason", "the cause was mended", "--user", "ravi").exit_code == 0
    assert "paused" not in cli("status", WORKLOAD).stderr


def test_the_history_shows_windows_actions_and_champions_and_is_a_page(
    prod: Production, cli: Any, tmp_path: Path
) -> None:
    assert "No window" not in cli("history", WORKLOAD).stderr
    hostile = "<script>alert(1)</script>"
    prod.deployment.record(
        Kind.MONITOR_PAUSED, "a/paused", workload=WORKLOAD, data={"sentence": f"3 are the most {hostile}"}
    )
    run_steps(prod, 2)
    page = tmp_path / "page.html"
    done = cli("history", WORKLOAD, "--html", str(page), "--format", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [one["window"] for one in found["windows"]] == [prod.window(n).text for n in range(3)]
    assert [one["how"] for one in found["champions"]] == ["adopted"]
    text = page.read_text()
    assert hostile not in text
    assert "3 are the most &lt;script&gt;" in text
    for one in found["windows"]:
        assert one["window"] in text
    assert "2026-03-02 to 2026-03-08" in cli("history", WORKLOAD).stderr


def test_the_examples_of_the_guide_are_valid() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    found = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    assert len(found) == 2
    for part in found:
        MonitoringSpec.model_validate(yaml.safe_load(part)["monitoring"])
