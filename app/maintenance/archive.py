"""The file of a backup: one tar that is whole or refused, and trusts no name within it.

    tables/NAME.ndjson.gz   the rows of a table, a JSON list for each
    blobs/SHA256            a blob
    manifest.json           what the file holds, with the size and sha256 of every member
    manifest.sha256         of the manifest

The manifest comes last, so that writing needs one pass, and a file that ends too early has none.
"""

import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from app.core.slices import Slice
from app.maintenance.rows import Kind
from models.errors import BadInput, Refused, file_errors
from models.files import flush_to_disk

FORMAT_VERSION: Final = 1
MANIFEST, CHECKSUM = "manifest.json", "manifest.sha256"
_TABLE = re.compile(r"tables/([a-z][a-z0-9_]{0,62})\.ndjson\.gz")
_BLOB = re.compile(r"blobs/([0-9a-f]{64})")
_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_LONGEST_MANIFEST = 1 << 30
_LONGEST_ROW = 1 << 28
_PART = ".shotline-backup-"


class TableEntry(BaseModel):
    """A table's rows: their columns in order, how many there are, and the member's bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, Kind]
    rows: int
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a backup holds.

    Attributes:
        format_version: of the file; another one is refused.
        shotline: the version that wrote it.
        revision: of the database's schema.
        database: which one the rows came from; they can be restored into either.
        created: when the rows were read, in UTC.
        tables: by name, a table after those that it refers to.
        blobs: the size in bytes of each, by its sha256.
        left_out: blobs that rows name and that could not be read, with the reason.
        audit_head: the last entry of the record of changes, where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    shotline: str
    revision: str
    database: str
    created: datetime
    tables: dict[str, TableEntry]
    blobs: dict[str, int]
    left_out: dict[str, str]
    audit_head: dict[str, Any] | None = None

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    def members(self) -> "dict[str, Member]":
        """Return what each member but the manifest itself must be, by its name."""
        tables = {
            table_member(name): Member(table.size, table.sha256)
            for name, table in self.tables.items()
        }
        blobs = {blob_member(name): Member(size, name) for name, size in self.blobs.items()}
        return tables | blobs


class Member(NamedTuple):
    """A member's size in bytes and its sha256 in hex."""

    size: int
    sha256: str


def table_member(name: str) -> str:
    """Return the name of the member that holds a table's rows."""
    return f"tables/{name}.ndjson.gz"


def blob_member(sha256: str) -> str:
    """Return the name of the member that is a blob."""
    return f"blobs/{sha256}"


class BackupWriter:
    """Writes the members of a backup, one after the other."""

    def __init__(self, file: IO[bytes], created: datetime) -> None:
        self._file = file
        self._time = int(created.timestamp())

    def add(self, name: str, content: bytes) -> None:
        """Add a member."""
        self.add_file(name, io.BytesIO(content), len(content))

    def add_file(self, name: str, file: IO[bytes], size: int) -> None:
        """Add a member of `size` bytes from where `file` stands."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, 0o600, self._time
        # Not by tarfile.TarFile, which remembers every member: there may be millions.
        self._file.write(member.tobuf(tarfile.GNU_FORMAT))
        shutil.copyfileobj(file, self._file, _CHUNK)
        self._file.write(bytes(-size % _BLOCK))

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest and the end of the file."""
        content = manifest.model_dump_json().encode()
        self.add(MANIFEST, content)
        self.add(CHECKSUM, hashlib.sha256(content).hexdigest().encode())
        self._file.write(bytes(2 * _BLOCK))


@contextmanager
def new_file(path: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """Open a file that only its owner can read, and that is `path` once the context ends well.

    Until then it has another name, which is removed however the context ends; what a killed process
    left behind is removed by the next one.

    Raises:
        BadInput: `path` came to be meanwhile, and is not to be replaced.
        StorageFull, StorageUnusable: it could not be written.
    """
    with file_errors(path, "written"):
        _remove_left_behind(path.parent)
        handle, name = tempfile.mkstemp(prefix=_PART, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
                file.flush()
                os.fsync(file.fileno())
                _publish(temporary, path, replace=replace)
        finally:
            temporary.unlink(missing_ok=True)
        flush_to_disk(path.parent)


def _publish(temporary: Path, path: Path, *, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        path.hardlink_to(temporary)
    except FileExistsError as error:
        raise BadInput(
            f"The file {path} came to be while the backup was written.",
            fix="Choose another name, or replace it with --force.",
            field="file",
        ) from error
    except OSError:  # a file system without hard links
        temporary.rename(path)


def _remove_left_behind(folder: Path) -> None:
    for path in folder.glob(f"{_PART}*"):
        with suppress(OSError), path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever still writes it holds it
            path.unlink()


class BackupReader:
    """A backup, opened: its manifest is there, and its members have the names and sizes it says.

    What the members contain is known to be right after `check` alone.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._places = self._find_members()
        self.manifest = self._read_manifest()
        self._expected = self.manifest.members()
        self._compare()

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open a backup.

        Raises:
            BadInput: no backup of Shotline.
            Refused: truncated, damaged, or of another version of the format.
            StorageUnusable: the file cannot be read.
        """
        with file_errors(path, "read"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)

    def members(self) -> list[str]:
        """Return the names of all members but the manifest, tables first."""
        return list(self._expected)

    def check(self, name: str) -> None:
        """Compare a member with what the manifest says.

        Raises:
            Refused: its bytes are others.
        """
        digest, member = hashlib.sha256(), self._slice(name)
        with file_errors(self.path, "read"):
            while chunk := member.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != self._expected[name].sha256:
            raise self._damaged(f"its member {name} is not what the manifest says")

    def blob(self, sha256: str) -> bytes:
        """Return a blob's bytes; they are checked."""
        name = blob_member(sha256)
        with file_errors(self.path, "read"):
            content = self._slice(name).read()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._damaged(f"its member {name} is not what the manifest says")
        return content

    def rows(self, table: str) -> Iterator[list[Any]]:
        """Yield the rows of a table.

        Raises:
            Refused: they cannot be read.
        """
        member = io.BufferedReader(self._slice(table_member(table)), _CHUNK)
        try:
            with gzip.GzipFile(fileobj=member) as lines:
                while line := lines.readline(_LONGEST_ROW):
                    row = json.loads(line)
                    if not isinstance(row, list):
                        raise TypeError("no list")
                    yield row
        except (ValueError, TypeError, EOFError, gzip.BadGzipFile) as error:
            raise self._damaged(f"the rows of the table {table} cannot be read") from error

    def _find_members(self) -> dict[str, tuple[int, int]]:
        """Read the headers alone; only such as a backup has, so nothing of tar's history."""
        places: dict[str, tuple[int, int]] = {}
        end = os.fstat(self._descriptor).st_size
        offset = 0
        while (header := self._read(offset, _BLOCK)) != bytes(_BLOCK):
            member = self._header(header, first=offset == 0)
            if member.name in places:
                raise self._damaged(f"its member {member.name} is there twice")
            offset += _BLOCK
            places[member.name] = offset, member.size
            offset += member.size
            padding = -offset % _BLOCK
            if offset + padding > end:
                raise self._damaged(f"it ends within its member {member.name}")
            if self._read(offset, padding).strip(b"\0"):
                raise self._damaged(f"something follows its member {member.name}")
            offset += padding
        if self._read(offset, _CHUNK) != bytes(2 * _BLOCK):
            raise self._damaged("something follows its end")
        return places

    def _header(self, block: bytes, *, first: bool) -> tarfile.TarInfo:
        try:
            member = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            if first:
                raise self._not_ours("it is no tar file") from error
            raise self._damaged("it ends too early, or a header cannot be read") from error
        name = member.name
        ours = name in (MANIFEST, CHECKSUM) or _TABLE.fullmatch(name) or _BLOB.fullmatch(name)
        if not ours or member.type != tarfile.REGTYPE or member.size < 0:
            raise self._not_ours(f"no backup has a member {name[:80]!r} of this kind")
        return member

    def _read_manifest(self) -> Manifest:
        if MANIFEST not in self._places or CHECKSUM not in self._places:
            raise self._damaged("it ends too early: its manifest is missing")
        if self._places[MANIFEST][1] > _LONGEST_MANIFEST:
            raise self._damaged("its manifest is too long")
        with file_errors(self.path, "read"):
            content = self._slice(MANIFEST).read()
            checksum = self._slice(CHECKSUM).read(64)
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            raise self._damaged("its manifest is not what its checksum says")
        try:
            values = json.loads(content)
            version = values["format_version"]
            if version == FORMAT_VERSION:
                return Manifest.model_validate(values)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise self._damaged("its manifest cannot be read") from error
        raise Refused(
            f"The backup {self.path} has format version {version!r};"
            f" this Shotline reads {FORMAT_VERSION}.",
            fix="Restore it with the version of Shotline that wrote it, or a newer one.",
            field="file",
        )

    def _compare(self) -> None:
        """Refuse members that the manifest does not know, lacks, or says to be of other sizes."""
        found = {name: size for name, (_, size) in self._places.items()}
        del found[MANIFEST], found[CHECKSUM]
        expected = {name: member.size for name, member in self._expected.items()}
        if found != expected:
            other = min(found.items() ^ expected.items())[0]
            raise self._damaged(f"its member {other} is not the one that the manifest speaks of")

    def _slice(self, name: str) -> Slice:
        return Slice(self._descriptor, *self._places[name])

    def _read(self, offset: int, size: int) -> bytes:
        with file_errors(self.path, "read"):
            return os.pread(self._descriptor, size, offset)

    def _not_ours(self, reason: str) -> BadInput:
        return BadInput(
            f"{self.path} is no backup of Shotline, or was changed: {reason}.",
            fix="Name a file that `shotline backup` wrote.",
            field="file",
        )

    def _damaged(self, reason: str) -> Refused:
        return Refused(
            f"The backup {self.path} is damaged or was changed: {reason}.",
            fix="Take another copy of it, or an older backup. Nothing was changed here.",
            field="file",
        )
