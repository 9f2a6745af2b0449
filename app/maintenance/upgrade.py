"""Bringing a database to this version, with a copy of the old one where it is a single file."""

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from app import migrations
from app.core.database import Database
from models.errors import StorageFull, StorageUnusable, file_errors
from models.files import flush_to_disk


class Upgraded(NamedTuple):
    """What became of a database.

    Attributes:
        before: its revision; None where it was empty.
        after: its revision now.
        copy: the file that holds it as it was; None where nothing was changed, or on PostgreSQL.
    """

    before: str | None
    after: str | None
    copy: Path | None


def upgrade(database: Database, *, copy: bool = True) -> Upgraded:
    """Migrate to this version's revision; safe to be called by many at once.

    Args:
        database: at any revision that this version knows.
        copy: keep a copy of a SQLite database that is about to be changed.

    Raises:
        Conflict: a newer version has migrated it.
        StorageFull, StorageUnusable: the copy could not be made; nothing was changed.
        Unavailable: the database cannot be reached, or stays locked.
    """
    before = migrations.current(database)
    migrations.require_known(before)
    kept = None
    if copy and database.is_sqlite and before not in (None, migrations.head()):
        kept = copy_sqlite(Path(database.url.database or ""))
    migrations.upgrade(database)
    return Upgraded(before, migrations.current(database), kept)


def copy_sqlite(path: Path) -> Path | None:
    """Copy a SQLite database to a file that is called after its revision.

    Returns:
        The file; None where another process has migrated the database meanwhile.
    """
    with file_errors(path, "written"):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            revision = _copy(path, temporary)
            if revision == migrations.head():
                return None
            flush_to_disk(temporary)
            kept = path.with_name(f"{path.name}.at-{revision}")
            temporary.replace(kept)
            flush_to_disk(path.parent)
        finally:
            for left in path.parent.glob(f"{temporary.name}*"):
                with suppress(FileNotFoundError):
                    left.unlink()
    return kept


def _copy(path: Path, target: Path) -> str:
    """Write one state of the database, and return its revision."""
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # a file on its own
            (revision,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(revision)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise StorageFull(
                f"The disk is full: {path} could not be copied. Nothing was migrated.",
                fix="Free space, or migrate without a copy: `shotline migrate --no-copy`.",
            ) from error
        raise StorageUnusable(
            f"The database {path} could not be copied: {error}. Nothing was migrated.",
            fix="Check the disk and the permissions; `shotline verify` checks the database.",
        ) from error
