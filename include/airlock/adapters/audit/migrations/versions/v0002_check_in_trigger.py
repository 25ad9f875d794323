"""PostgreSQL checks an event in the trigger that queues it, no longer in a constraint.

PostgreSQL reads and plans the text of a CHECK anew for each statement, which was an eighth of what an append
cost it; a trigger's function is planned once for each connection. ``airlock audit verify`` compares the
function with what it was made of, so that the check cannot be taken away unseen.
"""

from alembic import op

revision = "v2_check_in_trigger"
down_revision = "v1_fields"
branch_labels = None
depends_on = None

# It runs as its owner, so that a writer needs no right on the queue and cannot empty it. Every name is
# qualified: with the caller's search path a writer could have its own table or function used instead.
QUEUE = """
BEGIN
    IF pg_catalog.octet_length(pg_catalog.concat(
            NEW.actor, NEW.data, NEW.deployment, NEW.key, NEW.kind, NEW.release_id, NEW.version, NEW.workload
        )) OPERATOR(pg_catalog.>) 65536
        OR pg_catalog.json_typeof(CAST(NEW.data AS pg_catalog.json)) OPERATOR(pg_catalog.<>) 'object'
    THEN
        RAISE EXCEPTION 'the event violates a check constraint: over 65536 bytes, or its data is no object'
            USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO {schema}.pending VALUES (NEW.ingest_id);
    RETURN NULL;
END
"""


def upgrade() -> None:
    """Put the check into the trigger's function; SQLite keeps its constraint, which costs it nothing."""
    if op.get_bind().dialect.name == "sqlite":
        return
    op.execute(
        f"""
        DO $$ BEGIN EXECUTE format(
            'CREATE OR REPLACE FUNCTION airlock_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS '
            '$body${QUEUE.replace("'", "''").format(schema="%I")}$body$', current_schema()
        ); END $$
        """
    )
    op.execute("ALTER TABLE event DROP CONSTRAINT event_check")
