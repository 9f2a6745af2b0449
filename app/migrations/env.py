"""Alembic's environment; the database comes from `app.migrations`, else from the settings."""

from pathlib import Path

from alembic import context
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from app.core.audit import record
from app.core.database import AUDIT_KEY_FILE, Database, run_last, send_outbox
from app.core.settings import Settings
from app.core.tables import Table

# "shotline", as a number: gateways that start together must not migrate together.
_LOCK = 0x73686F74


def run() -> None:
    """Run the migrations in one transaction, alone, and record that they were run.

    In the caller's transaction, where there is one, nothing is recorded: that is up to the caller.
    """
    given: Connection | None = context.config.attributes.get("connection")
    if given is not None:
        _migrate(given)
        return
    database: Database = context.config.attributes.get("database") or Database.of(Settings())
    with database.engine.begin() as connection:
        before = _migrate(connection)
        session = Session(connection, info={AUDIT_KEY_FILE: database.audit_key_file})
        _record(session, before, _revision(connection), database.audit_key_file)
    send_outbox(session)


def _migrate(connection: Connection) -> str | None:
    """Run the migrations; return the revision that was there before."""
    if connection.dialect.name == "postgresql":
        # A table of many rows takes longer than a request may, and so does whoever is before us.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    before = _revision(connection)
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
    )
    context.run_migrations()
    return before


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _record(session: Session, before: str | None, after: str | None, key: Path | None) -> None:
    # At the head alone: the tables of another revision may not be those that the code knows.
    head = ScriptDirectory.from_config(context.config).get_current_head()
    if before == after or after != head or key is None:
        return
    states = [None if it is None else {"revision": it} for it in (before, after)]
    record(session, "schema.migrate", "database", before=states[0], after=states[1])
    run_last(session)
    session.flush()


run()
