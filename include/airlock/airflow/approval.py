"""Approval: seats where people answer, and the sensor that waits for the audited quorum."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseSensorOperator, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airlock.airflow.base import Desk, Recorder, RequestRecorder
from airlock.core.errors import AirlockError, RefusedError
from airlock.core.task import SEAT_TASK

if TYPE_CHECKING:
    from airflow.sdk import Context

APPROVE, REJECT = "Approve", "Reject"
COMMENT = Param(
    default="", type="string", title="Comment", description="Why. To reject, say what has to change."
)
CONDITION = Param(
    default="",
    type="string",
    title="Condition",
    description="Approve only if this is done; when it is not, the approval is revoked.",
)
UNTIL = Param(
    default="",
    type="string",
    title="Condition until",
    description="Last day for it, 2026-03-31, or a moment, 2026-03-31T14:30; UTC.",
)


def opened(context: Context, desk: Desk) -> Recorder | RequestRecorder:
    """The release or the request that a run is about."""
    return Recorder(context) if desk == "release" else RequestRecorder(context, desk)


class SeatOperator(HITLOperator):
    """One seat: asks the people of one role and records what one of them answers.

    An answer that must not count is recorded as refused, and the seat waits again. The role comes
    from what is recorded about the release or request by this task's map index; ``role`` is only its label
    in the UI.
    """

    ui_color = "#fce4ec"

    def __init__(self, *, role: str, desk: Desk = "release", **kwargs: Any) -> None:
        # A mapped task is made again for each seat with the parameters of its DAG among `kwargs`.
        params = {**(kwargs.pop("params", None) or {}), "comment": COMMENT}
        if desk == "release":
            params |= {"condition": CONDITION, "until": UNTIL}
        super().__init__(subject="Approval", options=[APPROVE, REJECT], params=params, **kwargs)
        self.role = role
        self.desk: Desk = desk

    def execute(self, context: Context) -> Any:
        """Ask, and park until somebody answers."""
        with opened(context, self.desk) as recorder:
            self._ask(recorder, context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Record the answer; park again when it must not count.

        A seat that nobody answered is skipped: whoever waits for the approval says what silence means, and a
        seat that failed would make its run one that failed whenever Airflow sees the deadline first.
        """
        with opened(context, self.desk) as recorder:
            if "error" in event:
                raise AirflowSkipException(
                    "nobody answered in time; the seat is closed and nothing was approved"
                )
            return self._answer(recorder, context, event, answerer(recorder, event))

    def _answer(
        self, recorder: Recorder | RequestRecorder, context: Context, event: dict[str, Any], user: str
    ) -> str:
        from airlock.services.desks import answer

        chosen, words = event["chosen_options"], event.get("params_input") or {}
        index = _index(recorder)
        try:
            answer(
                recorder.deployment,
                self.desk,
                recorder.subject,
                index,
                user=user or "nobody",
                choice="approve" if chosen == [APPROVE] else "reject",
                comment=str(words.get("comment") or ""),
                when=str(event["responded_at"]),
                condition=str(words.get("condition") or ""),
                until=str(words.get("until") or ""),
            )
        except RefusedError as error:
            self.log.warning("This answer does not count: %s", error.what)
            self._ask(recorder, context)
        return f"{recorder.subject}/seat/{index}"

    def _ask(self, recorder: Recorder | RequestRecorder, context: Context) -> None:
        """Ask while the approval is open; Airflow may start or try a seat when it no longer is."""
        from airlock.services.approve import GRANTED, OPEN
        from airlock.services.desks import question, standing

        now = standing(recorder.deployment, self.desk, recorder.subject)
        if now.state == GRANTED:
            return
        if now.state != OPEN:
            raise AirflowSkipException(f"nobody is asked any more: {now.sentence}")
        asked = question(recorder.deployment, self.desk, recorder.subject, _index(recorder))
        self.subject, self.body = asked.subject, asked.body
        self.assigned_users = [
            {"id": person.airflow_id or person.user, "name": person.name} for person in asked.eligible
        ]
        self.response_timeout = timedelta(seconds=asked.seconds_left)
        super().execute(context)


def answerer(recorder: Recorder | RequestRecorder, event: dict[str, Any]) -> str:
    """Name of the user who answered, as people.yaml has it.

    A name alone is not enough: where Airflow numbers its users, somebody else can be given a name that was
    free. A number that people.yaml does not have for the name is shown with it, and belongs to nobody.
    """
    user = event.get("responded_by_user") or {}
    name, number = str(user.get("name") or ""), str(user.get("id") or "")
    person = recorder.deployment.config.people().find(name)
    known = {"", person.airflow_id or person.user} if person is not None else {number}
    return name if number in known else f"{name}#{number}"


def seats(roles: Any, *, desk: Desk = "release") -> Any:
    """One seat for each of the roles that an earlier task returns.

    A seat is tried again soon and often: Airflow fails one that is answered before the scheduler has noted
    that it waits, and its people must then be asked again. A seat whose time is over is skipped.
    """
    return SeatOperator.partial(
        task_id=SEAT_TASK,
        doc_md="One question to the people of one role. Answer under Required Actions.",
        map_index_template="{{ task.role }}",
        desk=desk,
        retries=10,
        retry_delay=timedelta(seconds=1),
        retry_exponential_backoff=False,
    ).expand(role=roles)


def _index(recorder: Recorder | RequestRecorder) -> int:
    return int(recorder.ti.map_index)


class ApprovalTrigger(BaseTrigger):
    """Fires when the audit store says that the approval is no longer open."""

    def __init__(self, release_id: str, poll_seconds: float, desk: Desk = "release") -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own has no types
        self.release_id = release_id
        self.poll_seconds = poll_seconds
        self.desk: Desk = desk

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, so that any triggerer can go on."""
        arguments = {"release_id": self.release_id, "poll_seconds": self.poll_seconds, "desk": self.desk}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the audit store until the approval is decided or its time is over."""
        # The answer may come through any channel into a database: there is nothing to be notified by.
        while await asyncio.to_thread(self._open):  # noqa: ASYNC110
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"release_id": self.release_id})  # type: ignore[no-untyped-call]  # same

    def _open(self) -> bool:
        from airlock.services.approve import OPEN
        from airlock.services.deployment import open_deployment
        from airlock.services.desks import standing

        try:
            return standing(open_deployment(), self.desk, self.release_id).state == OPEN
        except AirlockError as error:
            # The store may be back in a moment; the seat's own deadline bounds this wait.
            self.log.warning("Cannot see the approval now: %s", error)
            return True


class ApprovalSensor(BaseSensorOperator):
    """Passes only when the audit store holds the quorum for exactly this manifest or request.

    Through which channel people answered does not matter. Waits in the triggerer, without a worker.
    """

    ui_color = "#fce4ec"

    def __init__(self, *, poll_seconds: float = 1.0, desk: Desk = "release", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.poll_seconds = poll_seconds
        self.desk: Desk = desk

    def execute(self, context: Context) -> str:
        """Return at once when nothing has to be waited for, else wait."""
        with opened(context, self.desk) as recorder:
            return self._go_on(recorder)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """The trigger only says "look again"; what it says is not believed."""
        del event
        with opened(context, self.desk) as recorder:
            subject = self._go_on(recorder)
            # Somebody whom Airflow did not ask, such as a deputy, may have filled a seat that still waits.
            self._close_seats(recorder)
            return subject

    def _go_on(self, recorder: Recorder | RequestRecorder) -> str:
        from airlock.services.approve import DENIED, GRANTED, OPEN
        from airlock.services.desks import standing

        now = standing(recorder.deployment, self.desk, recorder.subject)
        self.log.info("%s: %s", now.state, now.sentence)
        if now.feedback:
            self.log.info("What was asked for: %s", now.feedback)
        if now.state == GRANTED:
            return recorder.subject
        if now.state == DENIED:
            raise AirflowSkipException(f"denied: {now.sentence}")
        if now.state == OPEN:
            self.defer(
                trigger=ApprovalTrigger(recorder.subject, self.poll_seconds, self.desk),
                method_name="execute_complete",
            )
        self._close_seats(recorder)
        raise AirflowFailException(f"{now.state}: {now.sentence}")

    def _close_seats(self, recorder: Recorder | RequestRecorder) -> None:
        """Take back the questions nobody needs to answer any more."""
        from airlock.services.close_seats import close_seats

        try:
            closed = close_seats(recorder.deployment, recorder.ti.dag_id, recorder.ti.run_id)
            self.log.info("Closed %d open seats.", closed)
        except AirlockError as error:
            self.log.warning("Open seats stay until their deadline: %s", error)
