"""Who may do what in PostgreSQL: four roles with the least rights, created by one command.

The tables belong to a role that cannot log in. Rights follow what each process does; the triggers refuse
even the owner's UPDATE and DELETE, and an administrator who goes round them is found by the anchors.
"""

from __future__ import annotations

import sqlalchemy as sa

from airlock.adapters.audit.columns import NAMES
from airlock.adapters.audit.database import Database
from airlock.core.errors import ConfigurationError

ROLES = {
    "airlock_owner": "owns the tables; nobody logs in with it",
    "airlock_writer": "Airflow's processes and the command line: append events, read",
    "airlock_sequencer": "`airlock sequencer`: what a writer may, and put events into the signed log",
    "airlock_reader": "auditors: read",
    "airlock_privacy": "who erases personal data: what a writer may, and delete from the table personal",
}

_TABLES = ("event", "pending", "leaf", "tile", "checkpoint", "anchor_receipt", "personal")
_GRANTS = (
    "GRANT SELECT ON {tables} TO airlock_reader",
    "GRANT airlock_reader TO airlock_writer",
    "GRANT airlock_writer TO airlock_sequencer, airlock_privacy",
    f"GRANT INSERT ({NAMES}) ON event TO airlock_writer",
    "GRANT INSERT ON personal TO airlock_writer",
    "GRANT INSERT ON leaf, tile, checkpoint, anchor_receipt TO airlock_sequencer",
    "GRANT DELETE ON pending TO airlock_sequencer",
    "GRANT DELETE ON personal TO airlock_sequencer, airlock_privacy",
)


def apply_roles(database: Database) -> None:
    """Create the roles, give them the tables and their rights, and take every other right away.

    Raises:
        ConfigurationError: the database is SQLite, which has no roles.
        UnavailableError: the user may not create roles, or may not grant those that there are, or the schema
            is not there.
    """
    if database.sqlite:
        raise ConfigurationError(
            "SQLite has no roles: whoever may write the file may do everything",
            where=database.where,
            fix="use PostgreSQL where several people share a machine",
        )
    tables = ", ".join(_TABLES)

    def work(connection: sa.Connection) -> None:
        known = {row[0] for row in connection.execute(sa.text("SELECT rolname FROM pg_roles"))}
        for role in ROLES:
            if role not in known:
                connection.exec_driver_sql(f"CREATE ROLE {role} NOLOGIN")
        schema = connection.scalar(sa.text("SELECT quote_ident(current_schema())"))
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO airlock_reader")
        # Without CREATE only a superuser could give it the tables.
        connection.exec_driver_sql(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO airlock_owner")
        for table in _TABLES:
            connection.exec_driver_sql(f"ALTER TABLE {table} OWNER TO airlock_owner")
        for function in ("airlock_append_only", "airlock_queue"):
            connection.exec_driver_sql(f"ALTER FUNCTION {function}() OWNER TO airlock_owner")
        others = ", ".join(["PUBLIC", *(role for role in ROLES if role != "airlock_owner")])
        connection.exec_driver_sql(f"REVOKE ALL ON {tables} FROM {others}")
        for grant in _GRANTS:
            connection.exec_driver_sql(grant.format(tables=tables))

    database.write(work)
