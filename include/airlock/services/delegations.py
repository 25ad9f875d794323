"""Delegations: given and taken back by who holds the role, for some days, on record (requirement A-6)."""

from __future__ import annotations

from airlock.core.audit import Kind
from airlock.core.dates import DAY_US, end_of_day, start_of_day
from airlock.core.delegation import Delegation
from airlock.core.errors import InvalidInputError, NotFoundError
from airlock.core.people import People
from airlock.services.deployment import Deployment
from airlock.services.panel import list_delegations
from airlock.services.requests import refuse, words_problem

MINIMUM_REASON = 10
"""Characters a delegation must explain itself in."""


def find_delegation(deployment: Deployment, delegation_id: str) -> Delegation:
    """One delegation.

    Raises:
        NotFoundError: nobody gave it here.
    """
    found = {entry.delegation_id: entry for entry in list_delegations(deployment)}
    if delegation_id not in found:
        raise NotFoundError(
            f"there is no delegation {delegation_id!r}", fix="list them with `airlock delegate list`"
        )
    return found[delegation_id]


def longest_days(deployment: Deployment) -> float:
    """The longest delegation that any workload's policy takes; 0 where none takes any.

    Each release is bound by its own policy, which may take less.
    """
    folder = deployment.config
    versions = {folder.load_workload(path).policy for path in folder.workload_files()}
    known = versions & set(folder.policy_versions())
    return max((folder.policy(version).approval.delegate_days or 0 for version in known), default=0)


def delegate_problem(
    deployment: Deployment, *, giver: str, to: str, roles: list[str], start: str, until: str, reason: str
) -> str:
    """Why a delegation cannot be given like this, in a sentence; empty when it can."""
    try:
        from_us, until_us = start_of_day(start), end_of_day(until)
    except InvalidInputError as error:
        return f"{error.what}; {error.fix}"
    longest = longest_days(deployment)
    if until_us <= deployment.clock.now_us() or until_us <= from_us:
        return "the delegation would be over before it begins"
    if until_us - from_us > longest * DAY_US:
        return (
            f"a delegation lasts at most {longest:g} days" if longest else "no policy here takes delegations"
        )
    return _people_problem(deployment.config.people(), giver, to, roles) or words_problem(
        reason, minimum=MINIMUM_REASON, what="reason"
    )


def _people_problem(people: People, giver: str, to: str, roles: list[str]) -> str:
    holder, deputy = people.find(giver), people.find(to)
    held = holder.roles if holder is not None and holder.active else []
    if not roles:
        return "a delegation names at least one role"
    if missing := [role for role in roles if role not in held]:
        # Also what somebody else delegated to them: a delegation is never passed on.
        return f"{giver} does not hold the role {missing[0]}; roles held: {', '.join(held) or 'none'}"
    if deputy is None or not deputy.active:
        return f"people.yaml knows nobody active named {to}"
    return f"{giver} cannot delegate to themselves" if to == giver else ""


def give(
    deployment: Deployment,
    *,
    delegation_id: str,
    giver: str,
    to: str,
    roles: list[str],
    start: str,
    until: str,
    reason: str,
    when: str,
) -> Delegation:
    """Let ``to`` answer for ``giver`` in some roles. Repeating it for the same DAG run changes nothing.

    Args:
        deployment: where.
        delegation_id: id that follows from the run.
        giver: who delegates, as authenticated by Airflow.
        to: who may answer in their place.
        roles: roles of the giver.
        start: first day, UTC.
        until: last day, UTC.
        reason: why; kept encrypted, and can be erased.
        when: tells apart repeated attempts.

    Raises:
        RefusedError: it cannot be given like this; recorded.
    """
    earlier = [entry for entry in list_delegations(deployment) if entry.delegation_id == delegation_id]
    if earlier:
        return earlier[0]
    roles = list(dict.fromkeys(roles))
    problem = "" if giver else "nobody is known as the giver; start the DAG as a logged-in user"
    problem = problem or delegate_problem(
        deployment, giver=giver, to=to, roles=roles, start=start, until=until, reason=reason
    )
    if problem:
        raise refuse(deployment, delegation_id, problem, user=giver, what="delegate", when=when)
    deployment.record(
        Kind.DELEGATION_GIVEN,
        f"delegation/{delegation_id}/requested",
        actor=giver,
        data={
            "delegation": delegation_id,
            "to": to,
            "roles": roles,
            "from_us": start_of_day(start),
            "until_us": end_of_day(until),
            "reason": reason.strip(),
        },
    )
    return find_delegation(deployment, delegation_id)


def end(deployment: Deployment, delegation_id: str, *, user: str, reason: str, when: str) -> Delegation:
    """Take a delegation back: its giver, or who answers under it, may.

    Raises:
        RefusedError: this user may not, or no reason is given; recorded.
        NotFoundError: unknown delegation.
    """
    found = find_delegation(deployment, delegation_id)
    if found.ended_us is not None:
        return found
    problem = words_problem(reason, minimum=MINIMUM_REASON, what="reason")
    if user not in (found.giver, found.to):
        problem = f"{user} has neither given nor received this delegation"
    if problem:
        raise refuse(deployment, delegation_id, problem, user=user, what="end delegation", when=when)
    deployment.record(
        Kind.DELEGATION_ENDED,
        f"delegation/{delegation_id}/ended",
        actor=user,
        data={"delegation": delegation_id, "reason": reason.strip()},
    )
    return find_delegation(deployment, delegation_id)
