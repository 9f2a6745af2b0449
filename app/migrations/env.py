"""Alembic's environment; the engine comes from `app.migrations`, else from the settings."""

from alembic import context
from sqlalchemy import Connection, Engine, text

from app.core.database import Database
from app.core.settings import Settings
from app.core.tables import Table

# "shotline", as a number: gateways that start together must not migrate together.
_LOCK = 0x73686F74


def run() -> None:
    """Run the migrations in one transaction, alone; in the caller's where there is one."""
    given: Connection | None = context.config.attributes.get("connection")
    if given is not None:
        _run_within(given)
        return
    engine: Engine = context.config.attributes.get("engine") or Database.of(Settings()).engine
    with engine.begin() as connection:
        _run_within(connection)


def _run_within(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # A table of many rows takes longer than a request may, and so does the one before us.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
    )
    context.run_migrations()


run()
