"""``airlock policy publish``, ``approve`` and ``reject``: how a new version comes to count."""

from __future__ import annotations

from typing import Annotated

import typer

from airlock.adapters.airflow_api import AirflowClient
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.release import UserOption, client_for
from airlock.core.errors import RefusedError
from airlock.core.task import POLICY_DAG
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.follow import answer_request, start_request
from airlock.services.publish import find_request, preview, publish_problem, seats_for
from airlock.services.submit import checked_policy

RequestArgument = Annotated[str, typer.Argument(help="Request id, as `airlock policy publish` printed it.")]


def publish(
    version: Annotated[str, typer.Argument(help="Folder below config/policies.")],
    *,
    preview_only: Annotated[
        bool, typer.Option("--preview", help="Only say what changes and who would be asked.")
    ] = False,
    user: UserOption = "",
    output: FormatOption = Format.PRETTY,
) -> None:
    """Ask everybody who owns something that a new policy changes; once all agree it is published."""
    deployment = open_deployment()
    policy = checked_policy(deployment, version)
    if problem := publish_problem(deployment, policy):
        raise RefusedError(problem, where=version, fix="put the change into a new version")
    predecessor, found, seats = preview(deployment, policy)
    for change in found:
        console.print(f"  {safe(change.sentence)}", soft_wrap=True)
    request_id = ""
    if not preview_only:
        client = client_for(deployment.settings, user)
        request_id = start_request(deployment, client, "policy", POLICY_DAG, {"version": version})
        console.print(f"Request [bold]{request_id}[/]: {', '.join(seats)} have to agree.")
    else:
        console.print(f"Would be asked: {', '.join(seats)}.")
    if output is Format.JSON:
        emit(
            {
                "request": request_id or None,
                "version": version,
                "predecessor": predecessor or None,
                "changes": [change.to_data() for change in found],
                "seats": seats,
            }
        )


def approve(
    request: RequestArgument,
    *,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    user: UserOption = "",
) -> None:
    """Agree to a new policy in your role."""
    _answer(request, "Approve", comment, user)


def reject(
    request: RequestArgument,
    *,
    comment: Annotated[str, typer.Option(help="What has to change; required.")],
    user: UserOption = "",
) -> None:
    """Reject a new policy and say what has to change."""
    _answer(request, "Reject", comment, user)


def _answer(request_id: str, choice: str, comment: str, user: str) -> None:
    deployment = open_deployment()
    client = client_for(deployment.settings, user)
    seat = answer_publication(deployment, client, request_id, user=user, choice=choice, comment=comment)
    console.print(f"{choice} recorded for seat {seat + 1} of {safe(request_id)}.")


def answer_publication(
    deployment: Deployment, client: AirflowClient, request_id: str, *, user: str, choice: str, comment: str
) -> int:
    """Answer the first open seat of the user's roles, and return its index.

    Raises:
        RefusedError: no seat is open for this user, or the answer was refused.
    """
    request = find_request(deployment, request_id)
    seats = seats_for(deployment, request, user)
    if not seats:
        person = deployment.config.people().find(user)
        roles = [] if person is None else person.roles
        raise RefusedError(
            f"{user} holds no role that is open here; roles held: {', '.join(roles) or 'none'}",
            where=request_id,
            fix=f"it asks {', '.join(request.seats)}",
        )
    answers = len(request.answers)
    answer_request(
        deployment,
        client,
        request_id,
        seats[0],
        run=(request.requested.data["dag_id"], request.requested.data["run_id"]),
        choice=choice,
        comment=comment,
        recorded=lambda: len(find_request(deployment, request_id).answers) > answers,
    )
    return seats[0]
