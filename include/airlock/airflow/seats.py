"""What people do about approvals besides answering: delegate, confirm a condition; who looks after both."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable

from airlock.airflow.base import RequestRecorder
from airlock.airflow.requests import service_dag, text_param
from airlock.core.errors import AirlockError
from airlock.core.task import APPROVALS_DAG, CONDITION_DAG, DELEGATE_DAG, END_DELEGATION_DAG

if TYPE_CHECKING:
    from airflow.sdk import Context


class DelegateOperator(BaseOperator):
    """Delegates in the name of who started the run."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> str:
        """Return the id of the delegation."""
        from airlock.services.delegations import give

        with RequestRecorder(context, "delegation") as recorder:
            params = recorder.params
            given = give(
                recorder.deployment,
                delegation_id=recorder.subject,
                giver=recorder.user,
                to=str(params["to"]),
                roles=str(params["roles"]).replace(",", " ").split(),
                start=str(params["start"]),
                until=str(params["until"]),
                reason=str(params["reason"]),
                when=recorder.ti.run_id,
            )
            self.log.info("%s answers for %s", given.to, given.giver)
        return recorder.subject


class EndDelegationOperator(BaseOperator):
    """Takes a delegation back."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> str:
        """Return the id of the delegation."""
        from airlock.services.delegations import end

        with RequestRecorder(context, "delegation") as recorder:
            params = recorder.params
            end(
                recorder.deployment,
                str(params["delegation"]),
                user=recorder.user,
                reason=str(params["reason"]),
                when=recorder.ti.run_id,
            )
            _ask_again(self, recorder)
        return str(params["delegation"])


def _ask_again(operator: BaseOperator, recorder: RequestRecorder) -> None:
    """What was delegated counts already; who waits to be asked is asked by the hourly run at the latest."""
    from airlock.services.ask_again import ask_again

    try:
        for sentence in ask_again(recorder.deployment):
            operator.log.info("%s", sentence)
    except AirlockError as error:
        operator.log.warning("Open seats are asked again later: %s", error)


class ConfirmConditionOperator(BaseOperator):
    """Confirms in the name of who started the run that the condition of an approval is met."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> str:
        """Return the id of the release."""
        from airlock.services.conditions import confirm

        with RequestRecorder(context, "condition") as recorder:
            params = recorder.params
            met = confirm(
                recorder.deployment,
                str(params["release"]),
                int(params["seat"]) - 1,
                user=recorder.user,
                comment=str(params["comment"]),
                when=recorder.ti.run_id,
            )
            self.log.info("%s confirms that the condition of %s is met", recorder.user, met.user)
        return str(params["release"])


class ReviewApprovalsOperator(BaseOperator):
    """Revokes approvals whose condition was missed, and asks seats again whose answer counts no more."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> int:
        """Return how many things there were to say; each is a line of this task's log."""
        del context
        from airlock.services.ask_again import ask_again
        from airlock.services.deployment import open_deployment
        from airlock.services.review_approvals import review

        deployment = open_deployment()
        said = [*review(deployment), *ask_again(deployment)]
        for sentence in said:
            self.log.warning("%s", sentence)
        return len(said)


_DELEGATE_TEXT = """# Delegate

Lets somebody answer in your place, in roles that you hold yourself, for some days. It is on record and never
lets anybody approve their own work.
"""


def delegate_dag() -> DAG:
    """The DAG that lets somebody answer in one's place."""
    params = {
        "to": text_param("To", "Airflow user who may answer in your place", minLength=1, maxLength=100),
        "roles": text_param("Roles", "Roles of yours, with commas between them", maxLength=400),
        "start": text_param("From", "First day, UTC", format="date"),
        "until": text_param("Until", "Last day, UTC", format="date"),
        "reason": text_param("Reason", "Why", format="multiline", maxLength=4000),
    }
    title = "Airlock: delegate"
    with service_dag(DELEGATE_DAG, title, "Lets somebody answer in your place for some days", params) as dag:
        dag.doc_md = _DELEGATE_TEXT
        DelegateOperator(task_id="delegate")
    return dag


def end_delegation_dag() -> DAG:
    """The DAG that takes a delegation back."""
    params = {
        "delegation": text_param("Delegation", "Its id", pattern="^delegation-[0-9a-f]{10}$"),
        "reason": text_param("Reason", "Why it is taken back", format="multiline", maxLength=4000),
    }
    title = "Airlock: end a delegation"
    with service_dag(END_DELEGATION_DAG, title, "Takes a delegation back", params) as dag:
        EndDelegationOperator(task_id="end")
    return dag


def condition_dag() -> DAG:
    """The DAG that confirms the condition of an approval."""
    params = {
        "release": text_param("Release", "Id of the release", minLength=1, maxLength=200),
        "seat": text_param("Seat", "Number of the seat, from 1", pattern="^[1-9][0-9]?$"),
        "comment": text_param("Comment", "How it was met", format="multiline", maxLength=4000),
    }
    description = "Confirms that the condition of an approval is met"
    with service_dag(CONDITION_DAG, "Airlock: confirm a condition", description, params) as dag:
        ConfirmConditionOperator(task_id="confirm")
    return dag


def approvals_dag() -> DAG:
    """The DAG that looks after approvals every hour."""
    schedule: Any = CronTriggerTimetable("15 * * * *", timezone="UTC", run_immediately=timedelta())
    description = "Revokes approvals whose condition was missed, and asks seats again that are open again"
    with service_dag(APPROVALS_DAG, "Airlock: approvals", description, {}, schedule=schedule) as dag:
        ReviewApprovalsOperator(task_id="review", doc_md="Each finding is a line in the log of this task.")
    return dag
