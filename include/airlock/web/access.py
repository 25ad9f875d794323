"""Who may see and do what: Airflow's auth manager decides, on every route.

Airflow leaves the applications of plugins open to everyone, so each route here takes a dependency of this
module; a test walks all routes and fails for one that does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, HTTPException, Request

from airlock.adapters.airflow_api import AirflowClient
from airlock.core.errors import NotFoundError, RefusedError
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.releases import find_release

if TYPE_CHECKING:
    from airlock.core.people import Person
    from airlock.core.release import Release

TOKEN_SECONDS = 60
"""How long the token lives with which a person's answer is passed on to Airflow's own API."""


@dataclass(frozen=True)
class Visitor:
    """Who asks: a user of Airflow, and what Airflow lets that user see."""

    deployment: Deployment
    user: Any

    @property
    def name(self) -> str:
        """The user name, as ``people.yaml`` has it."""
        return str(self.user.get_name())

    @cached_property
    def person(self) -> Person | None:
        """The entry in ``people.yaml``, if there is one."""
        return self.deployment.config.people().find(self.name)

    @cached_property
    def dags(self) -> set[str]:
        """Ids of the DAGs this user may see; what is not among them does not exist for this user."""
        return set(get_auth_manager().get_authorized_dag_ids(user=self.user, method="GET"))

    def may_read(self, dag_id: str) -> bool:
        """Whether the user may see runs of a DAG."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method="GET",
                access_entity=DagAccessEntity.RUN,
                details=DagDetails(id=dag_id),
                user=self.user,
            )
        )

    def release(self, release_id: str) -> Release:
        """A release this user may see.

        Raises:
            NotFoundError: there is none, or this user may not see it: the two look the same.
        """
        release = find_release(self.deployment, release_id)
        if not self.may_read(release.dag_id):
            raise NotFoundError(
                f"there is no release {release_id!r}", fix="list releases with `airlock release list`"
            )
        return release

    def airflow(self) -> AirflowClient:
        """Airflow's own API as this user, with a short-lived token, so that all of its rules apply."""
        token = get_auth_manager().generate_jwt(self.user, expiration_time_in_seconds=TOKEN_SECONDS)
        return AirflowClient.for_token(self.deployment.settings.airflow_url, self.name, str(token))


def client_of(deployment: Deployment, person: Person) -> AirflowClient:
    """Airflow's own API as a person who is known by something else than a login, such as a Slack account.

    Raises:
        RefusedError: Airflow has no such user, or the user may not act any more.
    """
    user = user_named(person)
    if user is None:
        raise RefusedError(
            f"Airflow has no active user {person.user}",
            where="people.yaml",
            fix="the entry's `user` (and `airflow_id`) must be those of Airflow",
        )
    return Visitor(deployment, user).airflow()


def user_named(person: Person) -> Any:
    """The user that Airflow's auth manager has for a person, or ``None``."""
    manager: Any = get_auth_manager()
    if hasattr(manager, "get_users"):  # the simple auth manager: users and roles stand in its configuration
        return next((user for user in manager.get_users() if user.get_name() == person.user), None)
    try:
        # FAB: a token carries the number of the user in its database; who is not active is not found.
        user = manager.deserialize_user({"sub": person.airflow_id or person.user})
    except (ValueError, KeyError, LookupError):
        return None
    return user if str(user.get_name()) == person.user else None


def reader(user: GetUserDep) -> Visitor:
    """A logged-in user who may look at DAG runs at all."""
    if not get_auth_manager().is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, user=user):
        raise HTTPException(403, "you may not look at DAG runs; ask for a role that may")
    return Visitor(open_deployment(), user)


def writer(request: Request, visitor: Annotated[Visitor, Depends(reader)]) -> Visitor:
    """A reader whose request was made by a page of this server, or by a program with a token.

    A cookie is sent along by any page of any site (cross-site request forgery). Browsers say where a
    request comes from, in ``Sec-Fetch-Site`` and in ``Origin``; a request with neither is refused.
    """
    if request.headers.get("authorization", "").lower().startswith("bearer "):
        return visitor
    site = request.headers.get("sec-fetch-site")
    origin = urlsplit(request.headers.get("origin", "")).netloc
    if site != "same-origin" and (site is not None or origin != request.headers.get("host")):
        raise RefusedError(
            "this request does not come from a page of this server",
            fix="open the release in Airflow and answer there",
        )
    return visitor


Reader = Annotated[Visitor, Depends(reader)]
Writer = Annotated[Visitor, Depends(writer)]
