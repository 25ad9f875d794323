"""The base of Airlock's operators: audit at start and end, errors in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTerminated,
    TaskAwaitingInput,
    TaskDeferred,
)

from airlock.airflow.refs import task_ref
from airlock.core.errors import AirlockError, UnavailableError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airlock.core.task import TaskRef
    from airlock.services.deployment import Deployment

Desk = Literal["release", "waiver", "policy", "action"]
"""What people are asked about."""

PARKED = (TaskDeferred, TaskAwaitingInput)
"""Not ends of a task: it waits for a trigger or a person and goes on later."""


FINAL = (AirflowFailException, AirflowSensorTimeout, AirflowTaskTerminated)
"""After these Airflow does not try again, whatever retries are left."""


class Recorder:
    """Writes a task's start and outcome around its work. Fails closed: no audit, no work."""

    def __init__(self, context: Context) -> None:
        from airlock.services.deployment import open_deployment

        self.deployment: Deployment = open_deployment()
        self.ti: Any = context["ti"]
        self.dag_run: Any = context["dag_run"]
        self.ref: TaskRef = task_ref(self.deployment.settings.deployment, self.ti, self.dag_run.conf)

    @property
    def release_id(self) -> str:
        """The release this run is about; computed from the run, never read from XCom."""
        return self.ref.release_id

    @property
    def subject(self) -> str:
        """What people are asked about: the release."""
        return self.ref.release_id

    def __enter__(self) -> Self:
        from airlock.services.tasks import record_start

        record_start(self.deployment, self.ref)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from airlock.services.tasks import record_outcome

        if isinstance(error, PARKED):
            return
        state = outcome_state(error, self.ti)
        text = "" if error is None else str(error) or type(error).__name__
        record_outcome(self.deployment, self.ref, state, source="operator", error=text)
        raise_for_airflow(error)


def raise_for_airflow(error: BaseException | None) -> None:
    """Tell Airflow what to do: what may heal is retried; what was judged, refused or wrong fails at once."""
    if isinstance(error, AirlockError) and not isinstance(error, UnavailableError):
        raise AirflowFailException(str(error)) from error
    if isinstance(error, UnavailableError):
        raise AirflowException(str(error)) from error


class RequestRecorder:
    """Around a task of a request, such as for a waiver: which request, and errors in words.

    Nothing about the task is recorded: what was asked and answered are audited events of their own.
    """

    def __init__(self, context: Context, kind: str) -> None:
        from airlock.services.deployment import open_deployment
        from airlock.services.requests import request_id_for

        self.deployment: Deployment = open_deployment()
        self.ti: Any = context["ti"]
        self.dag_run: Any = context["dag_run"]
        self.params: Any = context["params"]
        name = self.deployment.settings.deployment
        self.subject = request_id_for(kind, name, self.ti.dag_id, self.ti.run_id)

    @property
    def user(self) -> str:
        """Who started the run, as Airflow authenticated them; empty when nobody did."""
        return str(self.dag_run.triggering_user_name or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, PARKED):
            raise_for_airflow(error)


def outcome_state(error: BaseException | str | None, ti: Any) -> str:
    """The state Airflow will give a task that ended with ``error``."""
    if error is None:
        return "success"
    if isinstance(error, AirflowSkipException):
        return "skipped"
    final = isinstance(error, FINAL) or (
        isinstance(error, AirlockError) and not isinstance(error, UnavailableError)
    )
    return "failed" if final or ti.try_number > ti.max_tries else "up_for_retry"


class AirlockOperator(BaseOperator):
    """Runs one service for the release of this DAG run and returns a digest or an id."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> Any:
        """Record the start, run the service, record the outcome."""
        with Recorder(context) as recorder:
            return self.run(recorder, context)

    def run(self, recorder: Recorder, context: Context) -> Any:
        """What this operator does; the only thing a subclass writes."""
        raise NotImplementedError
