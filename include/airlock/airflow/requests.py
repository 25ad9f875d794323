"""Requests as DAGs: somebody asks, the owners answer in seats, and what was asked for takes effect."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable, Param, TriggerRule

from airlock.airflow.approval import ApprovalSensor, seats
from airlock.airflow.base import Desk, RequestRecorder
from airlock.core.task import POLICY_DAG, REVOKE_DAG, WAIVER_DAG, WAIVERS_DAG

if TYPE_CHECKING:
    from airflow.sdk import Context

DEFAULTS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "owner": "airlock",
}


class RequestOperator(BaseOperator):
    """Opens a request in the name of who started the run; returns the roles that are asked."""

    ui_color = "#e8f0fe"
    desk: Desk = "waiver"

    def execute(self, context: Context) -> Any:
        """Run one service; errors in words."""
        with RequestRecorder(context, self.desk) as recorder:
            return self.run(recorder)

    def run(self, recorder: RequestRecorder) -> Any:
        """What this operator does; the only thing a subclass writes."""
        raise NotImplementedError


class RequestWaiverOperator(RequestOperator):
    """Asks for a waiver."""

    def run(self, recorder: RequestRecorder) -> list[str]:
        """Return the role of the rule's owner."""
        from airlock.services.waivers import request_waiver

        params = recorder.params
        request = request_waiver(
            recorder.deployment,
            waiver_id=recorder.subject,
            workload_name=str(params["workload"]),
            rule=str(params["rule"]),
            versions=str(params["versions"]),
            until=str(params["until"]),
            reason=str(params["reason"]),
            requester=recorder.user,
            dag_id=recorder.ti.dag_id,
            run_id=recorder.ti.run_id,
        )
        self.log.info("%s asks for waiver %s", recorder.user, request.waiver_id)
        return [request.role]


class RevokeWaiverOperator(RequestOperator):
    """Takes a waiver back."""

    def run(self, recorder: RequestRecorder) -> str:
        """Return the id of the waiver."""
        from airlock.services.waivers import revoke

        params = recorder.params
        waiver_id = str(params["waiver"])
        revoke(
            recorder.deployment,
            waiver_id,
            user=recorder.user,
            reason=str(params["reason"]),
            when=recorder.ti.run_id,
        )
        self.log.info("%s takes waiver %s back", recorder.user, waiver_id)
        return waiver_id


class RequestPolicyOperator(RequestOperator):
    """Asks to publish a policy."""

    desk = "policy"

    def run(self, recorder: RequestRecorder) -> list[str]:
        """Return the roles that own what it changes, one for each seat."""
        from airlock.services.publish import request_publication
        from airlock.services.submit import checked_policy

        request = request_publication(
            recorder.deployment,
            request_id=recorder.subject,
            policy=checked_policy(recorder.deployment, str(recorder.params["version"])),
            requester=recorder.user,
            dag_id=recorder.ti.dag_id,
            run_id=recorder.ti.run_id,
        )
        for sentence in request.requested.data["sentences"]:
            self.log.info("%s", sentence)
        return request.seats


class PublishOperator(RequestOperator):
    """Publishes the policy, if the audited answers say so."""

    ui_color = "#e0f2f1"
    desk = "policy"

    def run(self, recorder: RequestRecorder) -> str:
        """Return the version that is published now."""
        from airlock.services.publish import find_request, publish

        publish(recorder.deployment, recorder.subject)
        return find_request(recorder.deployment, recorder.subject).version


class SayOperator(RequestOperator):
    """Says how a request ended, whatever happened before."""

    def __init__(self, *, about: Desk, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.desk = about

    def run(self, recorder: RequestRecorder) -> str:
        """Return the id of the request."""
        from airlock.services.desks import standing

        now = standing(recorder.deployment, self.desk, recorder.subject)
        self.log.info("%s is %s: %s", recorder.subject, now.state, now.sentence)
        return recorder.subject


class ReviewWaiversOperator(BaseOperator):
    """Warns of waivers that are about to end and reopens what rests on those that have ended."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> int:
        """Return how many things there were to say; each is a line of this task's log."""
        del context
        from airlock.services.deployment import open_deployment
        from airlock.services.waivers import review

        said = review(open_deployment())
        for sentence in said:
            self.log.warning("%s", sentence)
        return len(said)


_WAIVER_TEXT = """# Waiver

Asks the owner of one rule that it may fail: for one workload, some versions, until a day. The owner answers
under Required Actions; who asked, and who submitted a release that it is for, cannot. Nothing is granted by
silence. What a waiver is for, and what it can never be for, stands in `waivers.yaml` of the policy.
"""


def text_param(title: str, description: str, **kwargs: Any) -> Param:
    """A text in the form of a DAG."""
    return Param(type="string", title=title, description=description, **kwargs)


def waiver_dag() -> DAG:
    """The DAG that asks for a waiver."""
    params = {
        "workload": text_param("Workload", "Name of the workload", maxLength=60),
        "rule": text_param("Rule", "A denying rule, gate-NAME, or gate-NAME:FINDING", maxLength=400),
        "versions": text_param("Versions", "Model versions it is for, such as >=3,<5", maxLength=100),
        "until": text_param("Until", "Last day it holds, UTC", format="date"),
        "reason": text_param(
            "Reason", "Why the rule may fail, for its owner", format="multiline", maxLength=4000
        ),
    }
    with service_dag(
        WAIVER_DAG, "Airlock: ask for a waiver", "Asks the owner of a rule that it may fail", params
    ) as dag:
        dag.doc_md = _WAIVER_TEXT
        asked_and_answered(RequestWaiverOperator(task_id="request"), "waiver")
    return dag


def asked_and_answered(request: RequestOperator, desk: Desk) -> ApprovalSensor:
    """The tasks after a request: a seat for each role, the wait for their answers, and how it ended."""
    approval = ApprovalSensor(
        task_id="approval", desk=desk, doc_md="Waits for the answers in the audit store."
    )
    ended = SayOperator(
        task_id="ended", about=desk, doc_md="Says how it ended.", trigger_rule=TriggerRule.ALL_DONE
    )
    request >> [seats(request.output, desk=desk), approval]
    approval >> ended
    return approval


_POLICY_TEXT = """# Policy

Asks everybody who owns something that a new version changes; who asks is never one of them. Once all have
agreed it is published: from then on workloads may name it, and it never changes.
"""


def policy_dag() -> DAG:
    """The DAG that asks to publish a policy."""
    params = {"version": text_param("Version", "Folder below config/policies", pattern=r"^\d+\.\d+\.\d+$")}
    title = "Airlock: publish a policy"
    with service_dag(POLICY_DAG, title, "Asks the owners of what a new policy changes", params) as dag:
        dag.doc_md = _POLICY_TEXT
        approval = asked_and_answered(RequestPolicyOperator(task_id="request"), "policy")
        approval >> PublishOperator(task_id="publish", doc_md="Publishes, if the audited answers say so.")
    return dag


def revoke_dag() -> DAG:
    """The DAG that takes a waiver back."""
    params = {
        "waiver": text_param("Waiver", "Id of the waiver", pattern="^waiver-[0-9a-f]{10}$"),
        "reason": text_param("Reason", "Why it is taken back", format="multiline", maxLength=4000),
    }
    title = "Airlock: take a waiver back"
    with service_dag(
        REVOKE_DAG, title, "Takes a waiver back; its requester and its owner may", params
    ) as dag:
        RevokeWaiverOperator(task_id="revoke")
    return dag


def waivers_dag() -> DAG:
    """The DAG that looks after waivers every day."""
    schedule = CronTriggerTimetable("0 6 * * *", timezone="UTC", run_immediately=timedelta())
    description = "Warns of waivers that are about to end, and reopens what rests on those that have ended"
    with service_dag(WAIVERS_DAG, "Airlock: waivers", description, {}, schedule=schedule) as dag:
        ReviewWaiversOperator(task_id="review", doc_md="Each notice is a line in the log of this task.")
    return dag


def service_dag(
    dag_id: str, title: str, description: str, params: dict[str, Param], *, schedule: Any = None
) -> DAG:
    """A DAG that people or the clock start, and that governs no release itself."""
    return DAG(
        dag_id=dag_id,
        dag_display_name=title,
        description=description,
        schedule=schedule,
        catchup=False,
        is_paused_upon_creation=False,
        default_args=DEFAULTS,
        params=params,
        tags={"airlock", "governance"},
    )
