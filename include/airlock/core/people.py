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
    """

    user: Annotated[str, Field(min_length=1, max_length=100)]
    airflow_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    name: Annotated[str, Field(min_length=1)]
    airflow_role: Literal["viewer", "user", "op", "admin"] = "user"
    roles: list[Name] = []
    slack: Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{2,30}$")] | None = None


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
        return self

    def find(self, user: str) -> Person | None:
        """The person with this user id, or ``None``."""
        return next((person for person in self.people if person.user == user), None)

    def find_slack(self, account: str) -> Person | None:
        """The person with this Slack account, or ``None``."""
        return next((person for person in self.people if person.slack == account), None)

    def holders(self, role: str) -> list[Person]:
        """Everyone who holds ``role``."""
        return [person for person in self.people if role in person.roles]
