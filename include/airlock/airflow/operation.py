"""Operation as DAGs: a button that rolls back, and the guard that looks every few minutes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable, Param

from airlock.airflow.assets import CHAMPIONS, tell_champion_of
from airlock.airflow.base import raise_for_airflow
from airlock.airflow.requests import DEFAULTS
from airlock.core.errors import AirlockError
from airlock.core.task import GUARD_DAG, ROLLBACK_DAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context


class RollbackOperator(BaseOperator):
    """Rolls a workload back in the name of who started the run; returns the version in production."""

    ui_color = "#e0f2f1"

    def execute(self, context: Context) -> str:
        """Run the service; it records everything, refusals too."""
        try:
            return self._roll_back(context)
        except AirlockError as error:
            raise_for_airflow(error)
            raise

    def _roll_back(self, context: Mapping[str, Any]) -> str:
        from airlock.services.deployment import open_deployment
        from airlock.services.rollback import rollback

        params, workload = context["params"], str(context["params"]["workload"])
        event = rollback(
            open_deployment(),
            workload,
            to=str(params["version"] or "") or None,
            actor=str(context["dag_run"].triggering_user_name or ""),
            reason=str(params["reason"]),
            quarantine=bool(params["quarantine"]),
            progress=self.log.info,
        )
        version = str(event.data["to"])
        tell_champion_of(context, workload, version, f"rollback of version {event.version}")
        self.log.info(
            "%s version %s is in production; incident %s", workload, version or "none", event.data["incident"]
        )
        return version


class RollbackChangesOperator(BaseOperator):
    """Says which decisions the rollback of this run changes, to the teams downstream."""

    def execute(self, context: Context) -> str:
        """Return the digest of the report; the rollback is read from the log, never from XCom."""
        from airlock.services.decision_changes import after_last_rollback
        from airlock.services.deployment import open_deployment

        try:
            event = after_last_rollback(open_deployment(), str(context["params"]["workload"]))
        except AirlockError as error:
            raise_for_airflow(error)
            raise
        self.log.info("%s", event.data["sentence"])
        return str(event.data["report"])


class GuardOperator(BaseOperator):
    """Compares every champion with the log; returns how many were not what it says."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> int:
        """Each finding is a line of this task's log; red when a workload could not be looked at."""
        del context
        from airlock.services.deployment import open_deployment
        from airlock.services.guard import check_all
        from airlock.services.incidents import review_incidents

        deployment = open_deployment()
        report = check_all(deployment)
        for finding in report.findings:
            self.log.error("%s", finding.sentence)
        for sentence in review_incidents(deployment):
            self.log.warning("%s", sentence)
        for workload, problem in report.failed.items():
            self.log.error("%s could not be looked at: %s", workload, problem)
        if report.failed and len(report.failed) == report.looked_at:
            raise_for_airflow(AirlockError("no champion could be looked at; see the lines above"))
        return len(report.findings)


_ROLLBACK_TEXT = """# Rollback

Takes the champion of a workload out of production. The last version that was in production before and is fit
takes over: not quarantined, not denied by today's policy, its files unchanged, its columns there, and it
answers in the sandbox. If none is fit, the fallback that the workload names takes over; if it names none, the
version is quarantined and nothing is in production.

Who may stands in the policy (`operations.rollback.roles`). Everything is recorded, refusals too, and an
incident is opened. Starting this twice in ten minutes goes back one version, not two.
"""

_GUARD_TEXT = """# Guard

Every five minutes each champion in the registry is compared with the audit log. One that was moved without
Airlock is recorded, told as an incident and, by policy, put back. Incidents past their deadline are
escalated.
"""


def rollback_dag() -> DAG:
    """The DAG that rolls a workload back."""
    params = {
        "workload": Param(type="string", title="Workload", description="Name of the workload", maxLength=60),
        "reason": Param(
            type="string",
            title="Reason",
            description="Why; it is kept encrypted",
            format="multiline",
            minLength=5,
            maxLength=4000,
        ),
        "version": Param(
            default=None,
            type=["null", "string"],
            pattern=r"^[1-9][0-9]{0,8}$",
            title="Back to version",
            description="The last one that is fit, if left empty",
        ),
        "quarantine": Param(
            default=False,
            type="boolean",
            title="Quarantine",
            description="Quarantine the version that is left",
        ),
    }
    description = "Takes the champion of a workload out of production"
    with _dag(ROLLBACK_DAG, "Airlock: roll back", description, _ROLLBACK_TEXT, params=params) as dag:
        moved = RollbackOperator(
            task_id="rollback",
            doc_md="Checks, moves the alias, verifies, records. Each step is a line of this task's log.",
            outlets=[CHAMPIONS],
        )
        moved >> RollbackChangesOperator(
            task_id="changes", doc_md="Says which decisions change, to the teams downstream."
        )
    return dag


def guard_dag() -> DAG:
    """The DAG that looks after champions and incidents every five minutes."""
    schedule = CronTriggerTimetable("*/5 * * * *", timezone="UTC", run_immediately=timedelta())
    description = "Finds champions that were moved without Airlock, and escalates incidents"
    with _dag(GUARD_DAG, "Airlock: guard", description, _GUARD_TEXT, schedule=schedule) as dag:
        dag.max_active_runs = 1
        GuardOperator(task_id="look", doc_md="Each finding is a line of this task's log.")
    return dag


def _dag(
    dag_id: str,
    title: str,
    description: str,
    text: str,
    *,
    params: dict[str, Param] | None = None,
    schedule: Any = None,
) -> DAG:
    return DAG(
        dag_id=dag_id,
        dag_display_name=title,
        description=description,
        doc_md=text,
        schedule=schedule,
        catchup=False,
        is_paused_upon_creation=False,
        default_args=DEFAULTS,
        params=params or {},
        tags={"airlock", "operation"},
    )
