"""People and roles, from ``config/people.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.workload import Name


class Person(Value):
    """Someone who may approve.

    Attributes:
        user: user name in Airflow.
        airflow_id: id in Airflow's auth manager where that is not the user name (FAB numbers its users).
        airflow_role: role in a local Airflow started by ``airlock up``; a deployment with its own auth
            manager ignores it.
        roles: governance roles; empty for people who only submit or look.
        slack: id of the person's Slack account, such as ``U02ABCDEF``, in the workspace of the deployment.
        identities: other names of the person: e-mail addresses and names as git and MLflow write them, so
            that who made a model or its data is known and cannot approve it.
        active: false for somebody who left; what they answer counts no more, and nothing is asked of them.
    """

    user: Annotated[str, Field(min_length=1, max_length=100)]
    airflow_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    name: Annotated[str, Field(min_length=1)]
    airflow_role: Literal["viewer", "user", "op", "admin"] = "user"
    roles: list[Name] = []
    slack: Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{2,30}$")] | None = None
    identities: list[Annotated[str, Field(min_length=1, max_length=200)]] = []
    active: bool = True

    @property
    def known_as(self) -> set[str]:
        """``identities`` as they are compared: without case, without spaces around them."""
        return {name.strip().casefold() for name in self.identities}


class People(Value):
    """Everyone Airlock knows by name."""

    people: Annotated[list[Person], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        users = [person.user for person in self.people]
        if len(set(users)) != len(users):
            raise ValueError("people: a user appears twice; give one person one entry with all roles")
        accounts = [person.slack for person in self.people if person.slack]
        if len(set(accounts)) != len(accounts):
            raise ValueError("people: two people share a Slack account, so nobody could tell who answered")
        names = [name for person in self.people for name in {person.user.casefold(), *person.known_as}]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"people: two people share the identity {twice[0]!r}; one belongs to one person")
        ids = [person.airflow_id for person in self.people if person.airflow_id]
        if len(set(ids)) != len(ids):
            raise ValueError("people: two people share an airflow_id, so nobody could tell who answered")
        return self

    def find(self, user: str) -> Person | None:
        """The person with this user id, or ``None``."""
        return next((person for person in self.people if person.user == user), None)

    def active(self, user: str) -> Person | None:
        """The person with this user id, unless there is none or they left."""
        person = self.find(user)
        return person if person is not None and person.active else None

    def find_slack(self, account: str) -> Person | None:
        """The person with this Slack account, or ``None``."""
        return next((person for person in self.people if person.slack == account), None)

    def known_as(self, identity: str) -> Person | None:
        """The person whom git or MLflow know under a name or address, or ``None``."""
        name = identity.strip().casefold()
        return next(
            (person for person in self.people if name in {person.user.casefold(), *person.known_as}), None
        )

    def holders(self, role: str) -> list[Person]:
        """Everyone active who holds ``role``."""
        return [person for person in self.people if person.active and role in person.roles]
