"""Which audit store a command reads: the deployment's own, or another one that is never written to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer
from pydantic import SecretStr

from airlock.adapters.audit import Log, SqlAuditStore
from airlock.adapters.audit.database import ReadOnlyDatabase
from airlock.adapters.settings import Settings, load_settings
from airlock.cli.output import console, safe
from airlock.core.errors import AirlockError, ConfigurationError
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.questions import record_access

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Read another audit store, such as a copy: its SQLAlchemy URL. Nothing is written there. "
        "Passwords are better kept in ~/.pgpass.",
    ),
]


def deployment_for(store: str | None) -> Deployment:
    """The deployment that the environment describes, or the same on another audit store, read-only.

    Another store may be one of another deployment: unless AIRLOCK_DEPLOYMENT says which, it is that of
    its newest event. What people wrote there is only opened with a key that AIRLOCK_PERSONAL_KEY_FILE
    names.

    Raises:
        ConfigurationError: the URL or a setting cannot be used.
        UnavailableError: the other store does not answer.
    """
    settings = load_settings()
    if store is None or _same_place(store, settings.audit_url.get_secret_value()):
        return open_deployment()
    try:
        database = ReadOnlyDatabase(store)
    except ConfigurationError as error:
        raise ConfigurationError(error.what, where="--store", fix=error.fix) from error
    named = {"deployment", "personal_key_file"} & settings.model_fields_set
    own = open_deployment(settings.model_copy(update={"audit_url": SecretStr(store)}))
    audit = SqlAuditStore(database, own.clock, own.vault if "personal_key_file" in named else None)
    other = replace(own, audit=audit, log=Log(database))
    newest = audit.events(limit=1, newest_first=True)
    if "deployment" not in named and newest:
        other = replace(other, settings=_called(own.settings, newest[0].event.deployment))
    return other


def _called(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update={"deployment": name})


def _same_place(store: str, own: str) -> bool:
    """Whether both URLs lead to one database; reading one's own is recorded, whatever it is called."""
    try:
        one, other = sa.make_url(store), sa.make_url(own)
    except sa.exc.ArgumentError:
        return False  # opening it says so, without showing a password
    if one.get_backend_name() != other.get_backend_name():
        return False
    if one.get_backend_name() == "sqlite":
        return Path(one.database or "").resolve() == Path(other.database or "").resolve()
    return (one.host, one.port or 5432, one.database) == (other.host, other.port or 5432, other.database)


def note_access(deployment: Deployment, question: str, arguments: dict[str, object]) -> None:
    """Record that somebody reads the audit store; what cannot be recorded is said on stderr.

    Reading goes on all the same: evidence must be there for an auditor when the store takes no events.
    """
    if isinstance(deployment.log.database, ReadOnlyDatabase):
        where = safe(deployment.log.database.where)
        name = safe(deployment.settings.deployment)
        console.print(
            f"[dim]Read-only: {where}, deployment {name}. This access is not recorded there.[/]",
            soft_wrap=True,
        )
        return
    try:
        recorded = record_access(deployment, question, arguments)
    except AirlockError as error:
        console.print(f"[yellow]This access could not be recorded:[/] {safe(str(error))}", soft_wrap=True)
        return
    if recorded.ingest_id is None:
        folder = safe(str(deployment.spool.folder))
        console.print(
            f"[yellow]This access is not in the audit store yet;[/] it waits in {folder}", soft_wrap=True
        )
