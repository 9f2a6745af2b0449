"""The schema's history, and bringing a database to its head."""

from importlib.metadata import version
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from app.core.database import Database, database_errors
from app.core.errors import Conflict


def _config(database: Database) -> Config:
    config = _located()
    config.attributes["database"] = database
    return config


def _within(connection: Connection) -> Config:
    config = _located()
    config.attributes["connection"] = connection
    return config


def _located() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_located())


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to `revision`, in one transaction; nothing is changed where it fails.

    Raises:
        Conflict: the database is at a revision that this version does not know.
        Unavailable: the database cannot be reached, or stays locked.
        StorageFull: its disk is full.
    """
    require_known(current(database))
    with database_errors():
        command.upgrade(_config(database), revision)


def upgrade_within(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to `revision` as part of the connection's transaction."""
    command.upgrade(_within(connection), revision)


def downgrade(database: Database, revision: str) -> None:
    """Take the schema back to `revision` (`base` removes everything)."""
    command.downgrade(_config(database), revision)


def downgrade_within(connection: Connection, revision: str) -> None:
    """Take the schema back to `revision` as part of the connection's transaction."""
    command.downgrade(_within(connection), revision)


def head() -> str | None:
    """Return the revision that this version of Shotline works with."""
    return _scripts().get_current_head()


def require_known(revision: str | None) -> None:
    """Refuse a database that a newer version has migrated.

    Raises:
        Conflict: this version does not know the revision.
    """
    known = {script.revision for script in _scripts().walk_revisions()}
    if revision is not None and revision not in known:
        raise Conflict(
            f"The database is at revision {revision!r}, which Shotline {version('shotline')} does"
            f" not know: a newer version has migrated it. This one knows up to {head()!r}.",
            fix="Install that newer version, or restore the backup that was taken before it.",
        )


def current(database: Database) -> str | None:
    """Return the revision that the database is at, None for an empty one."""
    with database.reading() as session:
        return revision_of(session.connection())


def revision_of(connection: Connection) -> str | None:
    """Return the revision that a connection's database is at, None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()
