"""Who Airflow says somebody is: asked of its simple auth manager and of FAB, by their own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airlock.core.people import People, Person

pytestmark = pytest.mark.requirement("A-2", "A-3")

GRACE = Person(user="grace", airflow_id="7", name="Grace", slack="U0GRACE")


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Airflow's simple auth manager, whose users stand in its configuration."""
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "grace:user,dana:user")
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    from airlock.web import access

    manager = SimpleAuthManager()
    monkeypatch.setattr(access, "get_auth_manager", lambda: manager)
    return manager


@pytest.fixture
def fab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """FAB's auth manager over a database of its own; returns a function that changes a user there."""
    pytest.importorskip("airflow.providers.fab")
    import sqlalchemy as sa
    from airflow.providers.fab.auth_manager import fab_auth_manager
    from airflow.providers.fab.auth_manager.models import User
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import StaticPool

    from airlock.web import access

    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    User.metadata.create_all(engine)

    @contextmanager
    def session() -> Iterator[Session]:
        with Session(engine, expire_on_commit=False) as opened:
            yield opened
            opened.commit()

    def set_user(number: int, name: str, *, active: bool = True) -> None:
        with session() as opened:
            opened.merge(
                User(
                    id=number, username=name, first_name=name, last_name="", email=f"{name}@x", active=active
                )
            )
        manager.cache.clear()

    manager = fab_auth_manager.FabAuthManager()
    monkeypatch.setattr(fab_auth_manager, "create_session", session)
    monkeypatch.setattr(access, "get_auth_manager", lambda: manager)
    set_user(7, "grace")
    set_user(8, "dana")
    yield set_user
    engine.dispose()


def user_named(person: Person) -> Any:
    from airlock.web.access import user_named

    return user_named(person)


def test_the_simple_auth_manager_knows_people_by_name(simple: Any) -> None:
    assert user_named(GRACE).get_name() == "grace"
    assert user_named(Person(user="ravi", name="Ravi")) is None
    assert user_named(Person(user="Grace", name="Another")) is None


def test_somebody_who_was_taken_out_of_the_configuration_may_not_act_any_more(
    simple: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "dana:user")
    assert user_named(GRACE) is None


def test_fab_knows_people_by_number_and_the_name_must_be_the_same(fab: Any) -> None:
    assert (user_named(GRACE).get_name(), str(user_named(GRACE).get_id())) == ("grace", "7")
    assert user_named(Person(user="grace", airflow_id="8", name="Grace")) is None, "that number is dana's"
    assert user_named(Person(user="grace", airflow_id="9", name="Grace")) is None
    assert user_named(Person(user="grace", name="Grace")) is None, "FAB has no number `grace`"


def test_who_is_deactivated_or_renamed_in_fab_may_not_act_any_more(fab: Any) -> None:
    fab(7, "grace", active=False)
    assert user_named(GRACE) is None
    fab(7, "mallory")
    assert user_named(GRACE) is None
    fab(7, "grace")
    assert user_named(GRACE).get_name() == "grace"


@pytest.mark.parametrize(
    ("responded", "user"),
    [
        ({"id": "7", "name": "grace"}, "grace"),
        ({"id": "8", "name": "grace"}, "grace#8"),
        ({"id": "grace", "name": "grace"}, "grace#grace"),
        ({"id": "dana", "name": "dana"}, "dana"),
        ({"id": "12", "name": "dana"}, "dana#12"),
        ({"id": "12", "name": "mallory"}, "mallory"),
        ({}, ""),
        (None, ""),
    ],
)
def test_a_name_under_another_number_is_somebody_else(responded: Any, user: str) -> None:
    from types import SimpleNamespace

    from airlock.airflow.approval import answerer

    people = People(people=[GRACE, Person(user="dana", name="Dana")])
    recorder: Any = SimpleNamespace(deployment=SimpleNamespace(config=SimpleNamespace(people=lambda: people)))
    assert answerer(recorder, {"responded_by_user": responded}) == user
