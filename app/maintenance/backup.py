"""Backup: one state of the database and every blob that it names, while the service runs.

A blob that the state names may lose its last row meanwhile, and would then be swept. So removals
are held back while the state is taken and its blobs are made young: the sweep leaves young ones
alone for an hour or more, within which those that are still to be copied are made young again.
"""

import gzip
import hashlib
import json
import os
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NamedTuple

from sqlalchemy.engine import Connection

from app import migrations
from app.core.clock import utc_now
from app.core.database import Database
from app.core.errors import Conflict, Damaged, NotFound
from app.core.storage import Storage
from app.maintenance.archive import (
    BackupWriter,
    Manifest,
    TableEntry,
    blob_member,
    new_file,
    table_member,
)
from app.maintenance.references import broken_references, named_blobs
from app.maintenance.rows import Kind, columns_of, read_rows
from models.progress import Phases, Progress, no_phases

# A file in the data folder whose time is that of the last backup; whoever makes one touches it.
LAST_BACKUP = "last-backup"

Columns = dict[str, dict[str, Kind]]


class _Table(NamedTuple):
    """A table's rows in a file without a name, ready to be added."""

    file: IO[bytes]
    entry: TableEntry


class _Blobs(NamedTuple):
    """What is to be copied; what waits is made young again every `touch_seconds`."""

    storage: Storage
    names: list[str]
    touch_seconds: float


def backup(
    database: Database,
    storage: Storage,
    path: Path,
    *,
    replace: bool = False,
    orphan_age: float = 3600.0,
    phases: Phases = no_phases,
) -> Manifest:
    """Write a backup; the service may run, and nothing of it is held up.

    Args:
        database: at this version's revision or an older one.
        storage: where its blobs are.
        path: the file; its folder exists.
        replace: whether it may be there.
        orphan_age: seconds for which the sweep leaves young blobs alone.
        phases: is told how far it is.

    Returns:
        What was written. `left_out` are blobs that rows name and that are lost or damaged.

    Raises:
        Conflict: no database of Shotline, one of a newer version, or rows that refer to nothing.
        BadInput: the file is there.
        StorageFull, StorageUnusable: it could not be written; nothing is left behind.
        Unavailable: the database cannot be reached.
    """
    with ExitStack() as stack, new_file(path, replace=replace) as file:
        created = utc_now()
        with database.reading_one_state() as session:
            with storage.holding():  # from before the first query until the blobs are young
                connection = session.connection()
                revision = known_revision(connection)
                columns = columns_of(connection)
                named = sorted(named_blobs(connection, columns))
                _make_young(storage, named)
            _require_whole(connection, columns)
            tables = _read_tables(connection, columns, path.parent, stack, phases("Reading rows"))
            head = _audit_head(connection, columns)
        writer = BackupWriter(file, created)
        for name, table in tables.items():
            writer.add_file(table_member(name), table.file, table.entry.size)
        blobs, left_out = _copy_blobs(
            _Blobs(storage, named, orphan_age / 4), writer, phases("Copying blobs")
        )
        manifest = Manifest(
            shotline=version("shotline"),
            revision=revision,
            database=connection.dialect.name,
            created=created,
            tables={name: table.entry for name, table in tables.items()},
            blobs=blobs,
            left_out=left_out,
            audit_head=head,
        )
        writer.finish(manifest)
    return manifest


def known_revision(connection: Connection) -> str:
    """Return the database's revision.

    Raises:
        Conflict: it has none, or one that this version does not know.
    """
    revision = migrations.revision_of(connection)
    if revision is None:
        raise Conflict(
            "The database is empty: it has no tables of Shotline.",
            fix="Check SHOTLINE_DATABASE_URL or --data; `shotline migrate` makes the tables.",
        )
    migrations.require_known(revision)
    return revision


def _require_whole(connection: Connection, columns: Columns) -> None:
    for broken in broken_references(connection, columns):
        raise Conflict(
            f"A backup of this database could not be restored: {broken.problem}",
            fix="Run `shotline verify`, which lists what is wrong and what to do about each.",
        )


def _make_young(storage: Storage, names: list[str]) -> None:
    for name in names:
        try:
            storage.touch(name)
        except NotFound:  # no name that a blob can have; it is left out, and said so
            continue


def _read_tables(
    connection: Connection, columns: Columns, folder: Path, stack: ExitStack, progress: Progress
) -> dict[str, _Table]:
    """Write the rows of all tables into files, which `stack` closes."""
    tables = {}
    progress(0, len(columns))
    for done, (name, kinds) in enumerate(columns.items(), start=1):
        file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - it does
        tables[name] = _Table(file, _write_table(connection, name, kinds, file))
        progress(done, len(columns))
    return tables


def _write_table(
    connection: Connection, name: str, kinds: dict[str, Kind], file: IO[bytes]
) -> TableEntry:
    rows = 0
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=3, mtime=0) as packed:
        for row in read_rows(connection, name, kinds):
            packed.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
            rows += 1
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    file.seek(0)
    return TableEntry(columns=kinds, rows=rows, size=size, sha256=digest.hexdigest())


def _copy_blobs(
    blobs: _Blobs, writer: BackupWriter, progress: Progress
) -> tuple[dict[str, int], dict[str, str]]:
    """Add every blob; return the sizes, and why some could not be added."""
    sizes: dict[str, int] = {}
    left_out: dict[str, str] = {}
    names, touched = blobs.names, time.monotonic()
    progress(0, len(names))
    for done, name in enumerate(names, start=1):
        if time.monotonic() - touched > blobs.touch_seconds:
            _make_young(blobs.storage, names[done - 1 :])
            touched = time.monotonic()
        try:
            content = blobs.storage.read(name)
        except NotFound:
            left_out[name] = "missing"
        except Damaged:
            left_out[name] = "damaged"
        except OSError as error:
            left_out[name] = error.strerror or str(error)
        else:
            writer.add(blob_member(name), content)
            sizes[name] = len(content)
        progress(done, len(names))
    return sizes, left_out


def _audit_head(connection: Connection, columns: Columns) -> dict[str, Any] | None:
    if "audit_head" not in columns:
        return None
    names = columns["audit_head"]
    rows = [
        dict(zip(names, row, strict=True)) for row in read_rows(connection, "audit_head", names)
    ]
    return {name: rows[0][name] for name in ("sequence", "mac", "key_id")} if rows else None
