"""Alembic's entry point: runs migrations on the connection it was given."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, version_table="airlock_alembic_version", transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
