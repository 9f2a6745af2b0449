"""Alembic's environment; the engine comes from `app.migrations`, else from the settings."""

from alembic import context
from sqlalchemy import Engine, text

from app.core.database import Database
from app.core.settings import Settings
from app.core.tables import Table

# "shotline", as a number: gateways that start together must not migrate together.
_LOCK = 0x73686F74


def run() -> None:
    """Run the migrations in one transaction, alone."""
    engine: Engine = context.config.attributes.get("engine") or Database.of(Settings()).engine
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
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
