"""Monitoring DAGs, one for each workload that says where it is logged. They call a service, return an id."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable, get_parsing_context
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowSkipException

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.settings import load_settings
from airlock.airflow.approval import ApprovalSensor, seats
from airlock.airflow.assets import CHAMPIONS, tell_champion_of, window_asset
from airlock.airflow.base import RequestRecorder
from airlock.airflow.requests import DEFAULTS
from airlock.core.errors import AirlockError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context

    from airlock.core.audit import Event
    from airlock.core.production import Window
    from airlock.core.workload import Workload
    from airlock.services.deployment import Deployment

log = logging.getLogger(__name__)

MONITOR_PREFIX = "monitor__"
FIRST_RUN_LATE = timedelta(hours=1)
"""How late the very first run of a workload may begin.

Until a DAG has run once, Airflow works out its next run anew whenever it reads the file. Were this zero, a
reading between the moment a run is due and the moment the scheduler makes it would move it to the next time.
Longer, a new workload would be judged on a time in which it was not there.
"""
_SPARE_HOURS = 6
"""How long a run may take beside the time that people have to answer."""


class MonitorStep(BaseOperator):
    """One step of watching a window: calls a service, says what came out in the log, returns an id."""

    ui_color = "#e3f2fd"

    def __init__(self, *, workload: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workload = workload

    def execute(self, context: Context) -> Any:
        """Run one service; errors in words."""
        with RequestRecorder(context, "action") as recorder:
            return self.run(recorder, context)

    def run(self, recorder: RequestRecorder, context: Context) -> Any:
        """What this operator does; the only thing a subclass writes."""
        raise NotImplementedError

    def judged(self, recorder: RequestRecorder) -> Event:
        """The window this run is about, as it was judged; found again from the run's own times."""
        from airlock.services.monitor import evaluated

        end_us = window_end_us(recorder)
        for event in reversed(evaluated(recorder.deployment, self.workload)):
            if event.data["end_us"] <= end_us:
                return event
        raise NotFoundError(
            f"no window of {self.workload} was judged",
            where=recorder.ti.run_id,
            fix="look at the task `evaluate` of this run",
        )


def window_end_us(recorder: RequestRecorder) -> int:
    """When the run's window ends at the latest: the end of its data interval, or when it was started."""
    run = recorder.dag_run
    end: datetime = getattr(run, "data_interval_end", None) or run.run_after
    return round(end.astimezone(UTC).timestamp() * 1_000_000)


class EvaluateWindowOperator(MonitorStep):
    """Reads the window from the production log and measures every signal; missed windows come first.

    Red only when it could not be judged at all: a raised signal is an answer, not a failure.
    """

    def run(self, recorder: RequestRecorder, context: Context) -> str:
        """Return the digest of the newest window's evidence; skipped while nothing is in production."""
        from airlock.services.monitor import due_windows, read_window
        from airlock.services.moves import moves_of

        if moves_of(recorder.deployment, self.workload).champion is None:
            raise AirflowSkipException(f"nothing of {self.workload} is in production yet")
        digest = ""
        for window in due_windows(recorder.deployment, self.workload, window_end_us(recorder)):
            event = self._evaluate(recorder, window)
            digest = str(event.data["evidence"])
            self.log.info("%s: %s", window.text, event.data["sentence"])
            for signal in read_window(recorder.deployment, event).signals:
                self.log.info("  %-7s %s: %s", signal.reading, signal.name.replace("_", " "), signal.text)
                if signal.fix and signal.reading != "calm":
                    self.log.info("          how to fix it: %s", signal.fix)
        return digest

    def _evaluate(self, recorder: RequestRecorder, window: Window) -> Event:
        """Judge a window; what cannot be judged at all is an incident as well as a red task."""
        from airlock.services.monitor import evaluate_window

        try:
            return evaluate_window(recorder.deployment, self.workload, window)
        except UnavailableError:
            raise
        except AirlockError as error:
            text = f"{window.text} could not be judged at all: {error.what}"
            _open_incident(recorder.deployment, self.workload, text, "blind")
            raise


class ProposeOperator(MonitorStep):
    """Asks the policy what the signals mean together, and says what would be done and why."""

    def run(self, recorder: RequestRecorder, context: Context) -> list[str]:
        """Return the roles that are asked first; none when nobody is."""
        from airlock.services.actions import propose, sentence_of

        proposal = propose(recorder.deployment, self.judged(recorder), subject=recorder.subject)
        self.log.info("%s", sentence_of(proposal))
        self.log.info("%s: %s", proposal.data["restraint"], proposal.data["why_held"])
        for reason in proposal.data["reasons"]:
            self.log.info("  %s: %s", reason["rule"], reason["message"])
        own = proposal.data["restraint"] == "ask" and proposal.data["subject"] == recorder.subject
        return [proposal.data["role"]] if own else []


class ActOperator(MonitorStep):
    """Does what was proposed, or records why not; what people answered is read from the audit store alone."""

    ui_color = "#e0f2f1"

    def run(self, recorder: RequestRecorder, context: Context) -> str:
        """Return the key of the event that ended the proposal."""
        from airlock.services.actions import act, propose

        ended = act(recorder.deployment, propose(recorder.deployment, self.judged(recorder)))
        self.log.info("%s: %s", ended.kind, ended.data.get("sentence") or "no rule asks for anything")
        if rolled_back(ended):
            from airlock.services.moves import moves_of

            version = moves_of(recorder.deployment, self.workload).champion or ""
            tell_champion_of(context, self.workload, version, f"rollback of version {ended.version}")
        return ended.key


class ActionChangesOperator(MonitorStep):
    """Says which decisions the rollback of this run changes, to the teams downstream."""

    def run(self, recorder: RequestRecorder, context: Context) -> str:
        """Return the digest of the report; skipped when nothing was rolled back."""
        from airlock.services.actions import ended, proposal_of
        from airlock.services.decision_changes import after_last_rollback

        proposal = proposal_of(recorder.deployment, self.judged(recorder))
        done = None if proposal is None else ended(recorder.deployment, proposal)
        if done is None or not rolled_back(done):
            raise AirflowSkipException("nothing was rolled back, so no decision changes")
        event = after_last_rollback(recorder.deployment, self.workload)
        self.log.info("%s", event.data["sentence"])
        return str(event.data["report"])


def rolled_back(ended: Event) -> bool:
    """Whether the end of a proposal is that another version, or none, went into production."""
    from airlock.core.audit import Kind
    from airlock.core.monitoring import Action

    return ended.kind is Kind.ACTION_TAKEN and ended.data["action"] in (Action.ROLLBACK, Action.QUARANTINE)


def monitor_dags() -> Iterator[DAG]:
    """Every monitoring DAG; only the one that is asked for when a task is about to run.

    A workload file that cannot be used has a release DAG that says why, and none here.
    """
    wanted = get_parsing_context().dag_id
    folder = ConfigFolder(load_settings().config_dir)
    for path in folder.workload_files():
        if wanted and wanted != f"{MONITOR_PREFIX}{path.stem}":
            continue
        try:
            workload = folder.load_workload(path)
            if workload.monitoring is None:
                continue
            rules = folder.policy(workload.policy).monitoring
        except AirlockError:
            continue
        yield monitor_dag(workload, 24.0 if rules is None else rules.actions.answer_hours)


def monitor_dag(workload: Workload, answer_hours: float) -> DAG:
    """The monitoring DAG of one workload."""
    spec = workload.monitoring
    assert spec is not None  # noqa: S101  # the caller makes DAGs only of workloads that are watched
    with DAG(
        dag_id=f"{MONITOR_PREFIX}{workload.name}",
        dag_display_name=f"Watch: {workload.title}",
        description=f"Judges each window of {workload.title} in production and acts by policy",
        doc_md=_text(workload),
        schedule=CronTriggerTimetable(
            spec.schedule,
            timezone="UTC",
            interval=timedelta(days=spec.window_days),
            run_immediately=FIRST_RUN_LATE,
        ),
        # Windows that were missed are judged by the next run, all of them: see due_windows.
        catchup=False,
        max_active_runs=2,
        is_paused_upon_creation=False,
        default_args={**DEFAULTS, "owner": workload.owner},
        tags={"airlock", "monitor", workload.kind, workload.owner},
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=answer_hours + _SPARE_HOURS),
            callback=SyncCallback(tell_late, kwargs={"workload": workload.name}),
        ),
    ) as dag:
        evaluate = EvaluateWindowOperator(
            task_id="evaluate",
            workload=workload.name,
            doc_md="Measures every signal of the window; each is a line in the log of this task.",
            outlets=[window_asset(workload.name)],
        )
        propose = ProposeOperator(
            task_id="propose",
            workload=workload.name,
            doc_md="What the policy asks for, why, and whether people are asked first.",
        )
        asked = seats(propose.output, desk="action")
        answered = ApprovalSensor(
            task_id="answered", desk="action", doc_md="Waits while people may still answer."
        )
        act = ActOperator(
            task_id="act",
            workload=workload.name,
            doc_md="Does it, or records why it is not done.",
            outlets=[CHAMPIONS],
        )
        changes = ActionChangesOperator(
            task_id="changes",
            workload=workload.name,
            doc_md="After a rollback: which decisions change, to the teams downstream.",
        )
        evaluate >> propose >> [asked, answered]
        answered >> act >> changes
    return dag


def tell_late(workload: str, **_: Any) -> None:
    """Open an incident: a run of a monitoring DAG has not ended in time, so nobody is watching."""
    from airlock.services.deployment import open_deployment

    text = f"the monitoring of {workload} has not ended in time: production is not watched"
    _open_incident(open_deployment(), workload, text, "late")


def _open_incident(deployment: Deployment, workload: str, summary: str, cause: str) -> None:
    from airlock.services.incidents import open_incident

    open_incident(
        deployment,
        workload=workload,
        version="",
        action="alert",
        severity="high",
        summary=summary,
        cause=f"monitor/{workload}/{cause}",
        detected_us=deployment.clock.now_us(),
    )


def _text(workload: Workload) -> str:
    spec = workload.monitoring
    assert spec is not None  # noqa: S101  # same
    place = spec.log.parquet or f"{spec.log.predictions} of ${spec.log.url_env}"
    return (
        f"# Watching {workload.title}\n\n"
        f"Each run judges one window of {spec.window_days:g} days of production: it reads the log `{place}`, "
        "holds it against the evidence of the champion's own release, and says of fifteen signals whether "
        "they are calm, raised, cannot be told, or could not be measured.\n\n"
        "| step | what it does |\n|---|---|\n"
        "| `evaluate` | measures the signals; a raised signal is an answer, not a failure of the task |\n"
        "| `propose` | asks the policy what they mean together: none, alert, shadow, retrain, rollback or "
        "quarantine |\n"
        "| `seat`, `answered` | people are asked first where policy says so, with a time and a safe side |\n"
        "| `act` | does it, or records why it is not done |\n"
        "| `changes` | after a rollback: says which decisions change |\n\n"
        f"Schedule: `{spec.schedule}` UTC. Owner: **{workload.owner}**. A run that is missed is made up "
        "for by the next one. `airlock monitor status` shows where things stand.\n"
    )
