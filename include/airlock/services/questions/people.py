"""Everything a person did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from airlock.core.audit import Kind, Recorded
from airlock.core.errors import InvalidInputError, NotFoundError
from airlock.services.deployment import SYSTEM, Deployment
from airlock.services.questions.reading import Line, lines_of

LATEST = 5
"""Events of each sort that the answer shows."""

COUNTED = 1000
"""Events of each sort that are counted; beyond that the answer says "or more"."""


@dataclass(frozen=True)
class Doings:
    """One sort of things a person did; ``more`` when they did it more often than was counted."""

    what: str
    count: int
    more: bool
    kinds: Mapping[str, int]
    latest: tuple[Line, ...]


@dataclass(frozen=True)
class Person:
    """Everything a person did, by sort; sorts that never happened are left out."""

    user: str
    doings: tuple[Doings, ...]


DOINGS = {
    "submitted releases": (Kind.RELEASE_SUBMITTED,),
    "answered": (Kind.APPROVAL_RECORDED,),
    "answered and was refused": (Kind.APPROVAL_REFUSED,),
    "adopted champions": (Kind.CHAMPION_ADOPTED,),
    "changed or tried to change something in Airflow by hand": (
        Kind.AIRFLOW_CHANGED,
        Kind.API_ATTEMPT,
        Kind.TASK_OUTCOME,
    ),
    "read the audit store": (Kind.AUDIT_READ,),
}
"""Sorts of things people do; kinds that stand nowhere here are counted as something else."""

OTHER = "did something else"


def person(
    deployment: Deployment, user: str, *, since_us: int | None = None, until_us: int | None = None
) -> Person:
    """Everything a person did, in all deployments of the store, by sort with the latest ones.

    Each sort is read by itself, so that many readings never hide one approval.

    Raises:
        InvalidInputError: the user stands for events in which no person acted.
        NotFoundError: nothing is recorded of such a person in that time.
        UnavailableError: the store does not answer.
    """
    if user == SYSTEM:
        raise InvalidInputError(
            f"{SYSTEM!r} is no person",
            fix=f"see what no person did with `airlock audit query --actor {SYSTEM}`",
        )
    named = {kind for kinds in DOINGS.values() for kind in kinds}
    sorts = {**DOINGS, OTHER: tuple(kind for kind in Kind if kind not in named)}
    doings = []
    for what, kinds in sorts.items():
        found = deployment.audit.events(
            actor=user,
            kinds=kinds,
            since_us=since_us,
            until_us=until_us,
            limit=COUNTED + 1,
            newest_first=True,
        )
        if found:
            doings.append(_doings(deployment, what, found))
    if not doings:
        when = "" if since_us is None and until_us is None else " in that time"
        raise NotFoundError(
            f"nothing is recorded of {user!r}{when}",
            fix="give the user id of Airflow; for the audit store itself, that of the operating system",
        )
    return Person(user, tuple(doings))


def _doings(deployment: Deployment, what: str, newest: list[Recorded]) -> Doings:
    counted = newest[:COUNTED]
    return Doings(
        what=what,
        count=len(counted),
        more=len(newest) > COUNTED,
        kinds=dict(Counter(str(entry.event.kind) for entry in counted)),
        latest=lines_of(deployment, counted[:LATEST]),
    )
