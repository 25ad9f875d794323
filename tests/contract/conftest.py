"""The databases that contract tests run on: each test sees an empty one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from airlock.adapters.audit import SqlAuditStore
from tests.support.databases import DSN, Backend, Postgres
from tests.support.deployments import fast_folder
from tests.support.private_postgres import MissingError, PrivatePostgres, private_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A database that is dropped at the end."""
    try:
        made = Postgres()
    except (ImportError, SQLAlchemyError) as error:
        where = sa.make_url(DSN).render_as_string(hide_password=True)
        pytest.skip(
            f"PostgreSQL does not answer at {where} ({type(error).__name__}); set AIRLOCK_TEST_POSTGRES"
        )
    yield made
    made.drop()


@pytest.fixture
def private() -> Iterator[PrivatePostgres]:
    """A server of one's own, which may be killed or run out of space."""
    try:
        with private_postgres(flush_us=0) as server:
            yield server
    except MissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as path:
        yield path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
    """A database without the schema."""
    if request.param == "sqlite":
        found = Backend("sqlite", f"sqlite:///{folder / 'home' / 'audit.db'}")
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        found = postgres.schema()
    yield found
    found.close()


@pytest.fixture
def sqlite_backend(folder: Path) -> Iterator[Backend]:
    found = Backend("sqlite", f"sqlite:///{folder / 'audit.db'}")
    found.open().migrate()
    yield found
    found.close()


@pytest.fixture
def postgres_backend(postgres: Postgres) -> Iterator[Backend]:
    found = postgres.schema()
    found.open().migrate()
    yield found
    found.close()


@pytest.fixture(params=["sqlite_backend", "postgres_backend"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A migrated database."""
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(backend: Backend) -> SqlAuditStore:
    return backend.open()
