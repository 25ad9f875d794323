"""Where people are asked: about a release, a waiver, or a new policy; one way to ask and answer for all."""

from __future__ import annotations

from typing import Literal

from airlock.services import actions, approve, publish, waivers
from airlock.services.approve import Standing
from airlock.services.deployment import Deployment
from airlock.services.describe import approval_text
from airlock.services.requests import Question

Desk = Literal["release", "waiver", "policy", "action"]


def question(deployment: Deployment, desk: Desk, subject: str, index: int) -> Question:
    """What the people of a seat are asked.

    Raises:
        NotFoundError: unknown release, request or seat.
        RefusedError: nobody may answer, or the time is over.
    """
    if desk == "waiver":
        return waivers.question(deployment, subject, index)
    if desk == "policy":
        return publish.question(deployment, subject, index)
    if desk == "action":
        return actions.question(deployment, subject, index)
    request = approve.seat_request(deployment, subject, index)
    title, body = approval_text(deployment, request)
    return Question(title, body, request.eligible, request.seconds_left)


def answer(
    deployment: Deployment,
    desk: Desk,
    subject: str,
    index: int,
    *,
    user: str,
    choice: str,
    comment: str,
    when: str,
    condition: str = "",
    until: str = "",
) -> None:
    """Record somebody's answer for a seat; see the services for what each argument is.

    Only the approval of a release can have a condition.

    Raises:
        RefusedError: the answer must not count; the refusal is recorded.
    """
    if desk == "release":
        approve.answer(
            deployment,
            subject,
            index,
            user=user,
            choice=choice,
            comment=comment,
            when=when,
            condition=condition,
            until=until,
        )
        return
    service = {"waiver": waivers.answer, "policy": publish.answer, "action": actions.answer}[desk]
    service(deployment, subject, index, user=user, choice=choice, comment=comment, when=when)


def standing(deployment: Deployment, desk: Desk, subject: str) -> Standing:
    """Where an approval stands, from audited answers alone."""
    service = {
        "waiver": waivers.standing,
        "policy": publish.standing,
        "release": approve.standing,
        "action": actions.standing,
    }[desk]
    return service(deployment, subject)
