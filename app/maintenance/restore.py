"""Restore: a backup into an empty home and database, or in the place of what is there.

The file is checked to its last byte before anything is changed. Blobs come first, rows after them
in one transaction, so that a restore that is killed has changed nothing that anyone sees, and can
be run again. With `replace` the new home is built beside the old one, which is then moved aside:
nothing is ever deleted.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from app import migrations
from app.core.clock import utc_now
from app.core.database import Database
from app.core.errors import Conflict, Damaged, NotFound, Unavailable
from app.core.seal import load_key
from app.core.storage import LocalStorage
from app.maintenance.archive import BackupReader, Manifest
from app.maintenance.rows import columns_of, write_rows
from models.errors import Refused, StorageUnusable, file_errors
from models.files import flush_to_disk
from models.progress import Phases, no_phases

# Tables that have rows from their migration on. Of the record of changes only entries that speak of
# more than migrations count.
_SEEDED = frozenset({"serving", "audit_head"})
_RECORD, _MIGRATED = "audit_entries", "schema.migrate"


class Place(NamedTuple):
    """Where a service keeps what it keeps."""

    database: Database
    blobs: Path


class Restored(NamedTuple):
    """What a restore did.

    Attributes:
        manifest: of the backup.
        aside: what was moved aside: files, folders, a PostgreSQL schema.
        audit_key: why the key at hand cannot go on with the record of changes; None where it can.
    """

    manifest: Manifest
    aside: list[str]
    audit_key: str | None


class _Counts(NamedTuple):
    """What a place holds that a restore would mix with."""

    rows: dict[str, int]
    blobs: int


def restore(
    path: Path,
    place: Place,
    *,
    replace: bool = False,
    audit_key_file: Path | None = None,
    phases: Phases = no_phases,
) -> Restored:
    """Restore a backup; gateway and worker are stopped meanwhile.

    Args:
        path: the backup.
        place: an empty database and a folder for blobs.
        replace: move aside what is there.
        audit_key_file: the key that seals the record of changes, only looked at.
        phases: is told how far it is.

    Raises:
        BadInput: no backup of Shotline.
        Refused: damaged, changed, of another format, or of rows that contradict each other.
        Conflict: the place is not empty, or a newer version made the backup.
        StorageFull, StorageUnusable: something could not be written, read or moved.
        Unavailable: the database cannot be reached.
    """
    with BackupReader.open(path) as backup:
        migrations.require_known(backup.manifest.revision)
        _check(backup, phases)
        if replace:
            aside = _replace(backup, place, phases)
        else:
            _require_empty(backup, place)
            _load(backup, place.database, LocalStorage(place.blobs), phases)
            aside = []
        return Restored(backup.manifest, aside, _audit_key(backup.manifest, audit_key_file))


def _check(backup: BackupReader, phases: Phases) -> None:
    names = backup.members()
    progress = phases("Checking the backup")
    progress(0, len(names))
    for done, name in enumerate(names, start=1):
        backup.check(name)
        progress(done, len(names))


def _require_empty(backup: BackupReader, place: Place) -> None:
    """Refuse a place that holds rows, or blobs that are not the backup's own.

    Its own are what a restore that was killed left there.
    """
    with place.database.reading() as session:
        counts = _Counts(
            _row_counts(session.connection()),
            sum(
                blob.sha256 not in backup.manifest.blobs
                for blob in LocalStorage(place.blobs).blobs()
            ),
        )
    found = [f"{count} rows of {table}" for table, count in counts.rows.items()]
    if counts.blobs:
        found.append(f"{counts.blobs} blobs in {place.blobs} that the backup does not have")
    if found:
        raise Conflict(
            f"The database or the folder of the blobs is not empty: {', '.join(found)}.",
            fix="Restore into an empty one, or move what is there aside with --replace.",
        )


def _row_counts(connection: Connection) -> dict[str, int]:
    """Return how many rows the tables hold that have any, without those of the migrations."""
    counts = {}
    for table in columns_of(connection).keys() - _SEEDED:
        query = sa.select(sa.func.count()).select_from(sa.table(table))
        if table == _RECORD:
            query = query.where(sa.column("action") != _MIGRATED)
        counts[table] = int(connection.scalar(query) or 0)
    return {table: count for table, count in sorted(counts.items()) if count}


def _load(
    backup: BackupReader,
    database: Database,
    storage: LocalStorage,
    phases: Phases,
    *,
    before: Callable[[Connection], None] | None = None,
    last: Callable[[], None] | None = None,
) -> None:
    """Put the blobs, then the rows in one transaction.

    Args:
        backup: checked.
        database: empty once `before` has run.
        storage: holds nothing, or what a restore that was killed left.
        phases: is told how far it is.
        before: is run first in the transaction.
        last: is run when all but the commit is done.
    """
    _put_blobs(backup, storage, phases)
    with database.unit_of_work() as session:
        connection = session.connection()
        if not database.is_sqlite:
            session.execute(sa.text("SET LOCAL statement_timeout = 0"))
        if before is not None:
            before(connection)
        _make_tables(connection, backup.manifest)
        _write_tables(connection, backup, phases)
        migrations.upgrade_within(connection)
        _keep_blobs(backup.manifest, storage)
        if last is not None:
            last()


def _put_blobs(backup: BackupReader, storage: LocalStorage, phases: Phases) -> None:
    progress = phases("Restoring blobs")
    names = list(backup.manifest.blobs)
    progress(0, len(names))
    for done, name in enumerate(names, start=1):
        _put(backup, storage, name)
        progress(done, len(names))


def _put(backup: BackupReader, storage: LocalStorage, name: str) -> None:
    try:
        storage.read(name)
    except NotFound:
        pass
    except Damaged:
        storage.remove_old(name, 0)  # else `put` would find it there already
    else:
        storage.touch(name)
        return
    storage.put(backup.blob(name))


def _keep_blobs(manifest: Manifest, storage: LocalStorage) -> None:
    """Make all blobs young before their rows are seen; a sweep may run on the empty database."""
    for name in manifest.blobs:
        if not storage.touch(name):
            raise Conflict(
                f"The blob {name} was removed while the backup was restored.",
                fix="Stop the gateways that use this folder, then restore again.",
            )


def _make_tables(connection: Connection, manifest: Manifest) -> None:
    """Bring the empty database to the revision of the backup, alone."""
    if connection.dialect.name == "postgresql" and (tables := list(columns_of(connection))):
        listed = ", ".join(connection.dialect.identifier_preparer.quote(name) for name in tables)
        connection.execute(sa.text(f"LOCK TABLE {listed} IN ACCESS EXCLUSIVE MODE"))
    if rows := _row_counts(connection):
        raise Conflict(
            f"Someone wrote to the database meanwhile: {', '.join(rows)}.",
            fix="Stop gateway and worker, then restore again.",
        )
    found = migrations.revision_of(connection)
    migrations.require_known(found)
    if found is not None:  # entries of the record of changes cannot be deleted, but for the table
        migrations.downgrade_within(connection, "base")
    migrations.upgrade_within(connection, manifest.revision)
    for table in _SEEDED & columns_of(connection).keys():
        connection.execute(sa.delete(sa.table(table)))


def _write_tables(connection: Connection, backup: BackupReader, phases: Phases) -> None:
    columns = columns_of(connection)
    said = {name: entry.columns for name, entry in backup.manifest.tables.items()}
    if said != columns:
        other = min(
            name for name in said.keys() | columns.keys() if said.get(name) != columns.get(name)
        )
        raise Refused(
            f"The backup's table {other} has other columns than revision"
            f" {backup.manifest.revision!r} has.",
            fix="Restore it with the version of Shotline that wrote it.",
            field="file",
        )
    progress = phases("Restoring rows")
    progress(0, len(columns))
    for done, table in enumerate(columns, start=1):
        with _rows_that_fit(backup):  # in the backup's order of columns
            rows = write_rows(connection, table, said[table], backup.rows(table))
        if rows != backup.manifest.tables[table].rows:
            raise Refused(
                f"The backup's table {table} has {rows} rows; its manifest says"
                f" {backup.manifest.tables[table].rows}.",
                fix="Take an older backup. Nothing was changed in the database.",
                field="file",
            )
        progress(done, len(columns))


@contextmanager
def _rows_that_fit(backup: BackupReader) -> Iterator[None]:
    """Turn what a database says of rows that it cannot hold into an error of the tree."""
    try:
        yield
    except (exc.IntegrityError, exc.DataError) as error:
        reason = str(error.orig).splitlines()[0]
    except (ValueError, TypeError) as error:
        reason = str(error)
    else:
        return
    raise Refused(
        f"The rows of the backup {backup.path} cannot be restored: {reason}.",
        fix="Take an older backup. Nothing was changed in the database.",
        field="file",
    )


def _replace(backup: BackupReader, place: Place, phases: Phases) -> list[str]:
    """Build the new home beside the old one, then move the old one aside; return where to."""
    stamp = utc_now()
    fresh = _beside(place.blobs, "restoring")
    if place.database.is_sqlite:
        return _replace_sqlite(backup, place, fresh, stamp, phases)
    aside: list[str] = []
    _load(
        backup,
        place.database,
        LocalStorage(fresh),
        phases,
        before=lambda connection: aside.extend(_move_schema_aside(connection, stamp)),
        last=lambda: aside.extend(_swap(fresh, place.blobs, stamp)),
    )
    return aside


def _replace_sqlite(
    backup: BackupReader, place: Place, fresh: Path, stamp: datetime, phases: Phases
) -> list[str]:
    path = Path(place.database.url.database or "")
    draft = _beside(path, "restoring")
    for left in _files_of(draft):
        left.unlink()  # half a database, of a restore that was killed
    database = Database(f"sqlite:///{draft}")
    try:
        _load(backup, database, LocalStorage(fresh), phases)
    finally:
        database.close()
    place.database.close()
    for file in (draft, path):
        _fold(file)
    aside = _swap(fresh, place.blobs, stamp)
    for old in _files_of(path):
        aside += _move(old, _aside(old, stamp))
    _move(draft, path)
    return aside


def _fold(path: Path) -> None:
    """Write all of a SQLite database into its one file, so that it can be renamed."""
    if not path.exists():
        return
    with file_errors(path, "written"), closing(sqlite3.connect(path)) as connection:
        try:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.DatabaseError:
            return  # damaged, which may be why it is replaced: its files are moved as they are
        if busy:
            raise Conflict(
                f"Another process uses the database {path}.",
                fix="Stop gateway and worker, then restore again.",
            )


def _files_of(path: Path) -> list[Path]:
    """Return those of a SQLite database's files that are there, the one that counts first."""
    names = [path.name, f"{path.name}-wal", f"{path.name}-shm"]
    return [found for name in names if (found := path.with_name(name)).exists()]


def _move_schema_aside(connection: Connection, stamp: datetime) -> list[str]:
    """Rename the schema that holds the tables, and put an empty one in its place."""
    if not columns_of(connection) and migrations.revision_of(connection) is None:
        return []
    quote = connection.dialect.identifier_preparer.quote
    schema = str(connection.scalar(sa.text("SELECT current_schema()")))
    aside = f"replaced_{stamp:%Y%m%d_%H%M%S_%f}"
    connection.execute(sa.text(f"ALTER SCHEMA {quote(schema)} RENAME TO {quote(aside)}"))
    connection.execute(sa.text(f"CREATE SCHEMA {quote(schema)}"))
    return [f"the schema {aside} of the database"]


def _swap(fresh: Path, folder: Path, stamp: datetime) -> list[str]:
    """Move the old folder aside and the new one into its place."""
    fresh.mkdir(parents=True, exist_ok=True)  # a backup without blobs makes none
    aside = _move(folder, _aside(folder, stamp)) if folder.exists() else []
    _move(fresh, folder)
    return aside


def _move(path: Path, target: Path) -> list[str]:
    try:
        path.rename(target)
        flush_to_disk(target.parent)
    except OSError as error:
        raise StorageUnusable(
            f"{path} cannot be moved to {target}: {error.strerror or error}.",
            fix="What is mounted cannot be moved: empty it by hand, after a backup, and restore"
            " without --replace.",
        ) from error
    return [str(target)]


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _aside(path: Path, stamp: datetime) -> Path:
    return _beside(path, f"replaced-{stamp:%Y%m%dT%H%M%S%f}")


def _audit_key(manifest: Manifest, key_file: Path | None) -> str | None:
    """Say why the key at hand cannot go on with the backup's record of changes."""
    if key_file is None or not manifest.audit_head or not manifest.audit_head.get("sequence"):
        return None
    try:
        key = load_key(key_file)
    except Unavailable as error:
        return error.problem
    if key is None:
        return f"The key {key_file}, which seals the record of changes, is not there."
    if key.id != manifest.audit_head.get("key_id"):
        return f"The key {key_file} is not the one that sealed the record of changes."
    return None
