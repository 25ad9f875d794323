"""What requests have in common: somebody asks, others answer in seats, all of it audited.

A waiver and a new policy are both asked for by starting a DAG and answered like the approval of a release.
Their ids follow from the DAG run alone, so nobody can answer one request in the name of another.
"""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.approvals import Panel, person_objection
from airlock.core.audit import Kind
from airlock.core.canonical import canonical_json, sha256_hex, storable
from airlock.core.errors import InvalidInputError, RefusedError
from airlock.core.people import Person
from airlock.services.deployment import SYSTEM, Deployment

MAX_WORDS = 4000
"""Characters of a reason or comment; it has to fit into an audit event."""


@dataclass(frozen=True)
class Question:
    """What the holders of a role are asked, for one seat of a request."""

    subject: str
    body: str
    eligible: list[Person]
    seconds_left: float


def request_id_for(kind: str, deployment: str, dag_id: str, run_id: str) -> str:
    """The id of what a run of a request DAG asks for, such as ``waiver-1a2b3c4d5e``.

    Law: the same run always gives the same id; two runs give two ids.
    """
    key = f"{deployment}\x1f{dag_id}\x1f{run_id}"
    return f"{kind}-{sha256_hex(key.encode())[:10]}"


def words_problem(words: str, *, minimum: int, what: str) -> str:
    """Why what somebody wrote cannot be taken; empty when it can."""
    if len(words) > MAX_WORDS:
        return f"the {what} has {len(words)} characters, the limit is {MAX_WORDS}"
    if len(words.strip()) < minimum:
        return f"the {what} needs at least {minimum} characters"
    try:
        canonical_json(words)
    except InvalidInputError as error:
        return f"the {what} cannot be recorded: {error.what}"
    return ""


def answer_problem(panel: Panel, user: str, role: str) -> tuple[str, dict[str, str]]:
    """Why a person may not answer for a role now, and what to record of whom they act for."""
    acts_for = panel.acts_for(user, role)
    problem = person_objection(user, role, panel, acts_for=acts_for, at_us=panel.now_us)
    return problem, {"acts_for": acts_for} if acts_for else {}


def eligible_people(panel: Panel, role: str, where: str) -> list[Person]:
    """Who may answer for a role.

    Raises:
        RefusedError: nobody may.
    """
    found = panel.eligible(role)
    if not found:
        # Airflow lets anyone answer a task without assigned users, so an empty list must never get there.
        raise RefusedError(
            f"nobody may answer as {role}",
            where=where,
            fix=f"give the role {role} in people.yaml to someone who is not concerned",
        )
    return found


def refuse(
    deployment: Deployment,
    request_id: str,
    problem: str,
    *,
    user: str,
    what: str,
    when: str,
    workload: str = "",
) -> RefusedError:
    """Record that a request or an answer did not count, and return the error that says so.

    Args:
        deployment: where.
        request_id: the request.
        problem: why not, in a sentence.
        user: who tried.
        what: what was tried, such as ``request`` or ``approve``.
        when: tells apart repeated attempts.
        workload: the workload it is about, if it is known.
    """
    deployment.record(
        Kind.REQUEST_REFUSED,
        f"request/{request_id}/refused/{user[:100]}/{when}",
        actor=storable(user)[:200] or SYSTEM,
        workload=workload,
        data={"request": request_id, "what": what, "problem": storable(problem)[:2000]},
    )
    return RefusedError(problem, where=request_id)


def refusal_of(deployment: Deployment, request_id: str, *, since: int = 0) -> tuple[int, str]:
    """How many refusals a request has, and the newest problem after the first ``since`` of them."""
    found = [
        entry.event
        for entry in deployment.audit.events(kinds=[Kind.REQUEST_REFUSED])
        if entry.event.data["request"] == request_id
        and entry.event.deployment == deployment.settings.deployment
    ]
    return len(found), "" if len(found) <= since else str(found[-1].data["problem"])
