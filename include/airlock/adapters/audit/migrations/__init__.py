"""Schema of the audit store, by Alembic."""
