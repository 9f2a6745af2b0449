"""Zip and tar archives of photographs, opened without trusting anything in them.

Nothing is ever unpacked to a path. Names are only ever shown; sizes are checked before reading and
while reading. An archive that is hostile as a whole is refused whole, a bad file in it on its own.
"""

import gzip
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, cast

from app.core.errors import BadUpload, TooLarge
from app.core.settings import LimitSettings
from app.core.slices import Slice
from models.errors import BadImage, storage_errors
from models.litter import is_litter
from models.names import printable

_CHUNK = 1 << 18
# A directory entry takes 46 bytes and its name, a tar header 512: more at once is only a claim.
_DIRECTORY_BYTES_PER_FILE = 512
_SMALLEST_DIRECTORY = 1 << 20
# Below this an archive may be packed as tightly as it likes.
_HARMLESS_BYTES = 64 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED, _UTF8 = 0x1, 0x800
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")


@dataclass(frozen=True)
class ArchivedFile:
    """A file in an archive, litter left out.

    Attributes:
        name: its path in the archive, with `/` between folders; shown, never used as a path.
        size: bytes as the archive states them.
        read: returns at most so many bytes; raises BadImage where they cannot be unpacked. May be
            called from several threads.
        problem: why it cannot be used, where that is known without reading it.
    """

    name: str
    size: int
    read: Callable[[int], bytes]
    problem: BadImage | None = None


@contextmanager
def open_files(source: Slice, limits: LimitSettings, scratch: Path) -> Iterator[list[ArchivedFile]]:
    """Yield the files of a zip, tar or tar.gz; they can be read until the block ends.

    Args:
        source: the archive.
        limits: on files, bytes and ratio.
        scratch: folder for the tar inside a tar.gz.

    Raises:
        BadUpload: not an archive, damaged, encrypted, empty, or with names that point outside.
        TooLarge: too many files or bytes, or packed so tightly that it can only be a bomb.
        StorageFull: the scratch folder fills.
    """
    with ExitStack() as stack:
        entries = _entries(stack, source, limits, scratch)
        for entry in entries:
            _check_name(entry.name)
        named = [replace(entry, name=_path(entry.name)) for entry in entries]
        files = [file for file in named if not _is_litter(PurePosixPath(file.name))]
        if not files:
            raise BadUpload(
                "The archive holds no files.", fix="Pack photographs into it.", field="archive"
            )
        yield files


def _entries(
    stack: ExitStack, source: Slice, limits: LimitSettings, scratch: Path
) -> list[ArchivedFile]:
    largest = max(_SMALLEST_DIRECTORY, limits.upload_files * _DIRECTORY_BYTES_PER_FILE)
    start = source.guarded(largest).read(262)
    if start.startswith(b"PK"):
        return _zip_entries(_open_zip(stack, source.guarded(largest)), limits, source.length)
    if start.startswith(b"\x1f\x8b"):
        unpacked = _gunzip(stack, source, limits, scratch)
        return _tar_entries(_open_tar(stack, unpacked.guarded(largest)), limits)
    if start[257:262] == b"ustar":
        return _tar_entries(_open_tar(stack, source.guarded(largest)), limits)
    raise BadUpload(
        f"The archive is neither zip, tar nor tar.gz: it starts with {start[:8]!r}.",
        fix="Send a zip, tar or tar.gz of photographs.",
        field="archive",
    )


def _open_zip(stack: ExitStack, source: Slice) -> zipfile.ZipFile:
    try:
        return stack.enter_context(zipfile.ZipFile(cast("IO[bytes]", source)))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise _damaged(error) from error


def _zip_entries(
    archive: zipfile.ZipFile, limits: LimitSettings, packed: int
) -> list[ArchivedFile]:
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    encrypted = next((info for info in infos if info.flag_bits & _ENCRYPTED), None)
    if encrypted is not None:
        raise BadUpload(
            f"The archive is encrypted ({printable(encrypted.filename)!r} is).",
            fix="Pack it without a password.",
            field="archive",
        )
    tally = _Tally(limits)
    for info in infos:
        tally.add(info.file_size)
    tally.check_ratio(packed)
    return [
        ArchivedFile(
            _zip_name(info),
            info.file_size,
            partial(_read_zip, archive, info),
            None if info.compress_type in _METHODS else _bad_method(info),
        )
        for info in infos
    ]


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    try:
        with archive.open(info) as file:
            return _read_some(file, limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _damaged_file(error) from error


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name, read as UTF-8 where it is although the archive does not say so."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _bad_method(info: zipfile.ZipInfo) -> BadImage:
    return BadImage(
        f"The file is packed with zip method {info.compress_type}.",
        fix="Pack it stored or deflated, as every zip tool does by default.",
    )


def _gunzip(stack: ExitStack, source: Slice, limits: LimitSettings, scratch: Path) -> Slice:
    """Unpack the tar inside a tar.gz, so that its headers can be read without surprises."""
    tally, size = _Tally(limits), 0
    with storage_errors(scratch / "archive"):
        scratch.mkdir(parents=True, exist_ok=True)
        file = TemporaryFile(dir=scratch, buffering=0)  # noqa: SIM115 - the stack closes it
        stack.callback(file.close)
        try:
            with gzip.GzipFile(fileobj=cast("IO[bytes]", source)) as packed:
                while chunk := packed.read(_CHUNK):
                    size += file.write(chunk)
                    tally.check(size)
                    tally.check_ratio(source.length, size)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise _damaged(error) from error
    return Slice(file.fileno(), 0, size)


def _open_tar(stack: ExitStack, source: Slice) -> tarfile.TarFile:
    try:
        return stack.enter_context(tarfile.open(fileobj=cast("IO[bytes]", source), mode="r:"))
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise _damaged(error) from error


def _tar_entries(archive: tarfile.TarFile, limits: LimitSettings) -> list[ArchivedFile]:
    entries: list[ArchivedFile] = []
    tally, turn = _Tally(limits), Lock()
    try:
        for info in archive:
            if info.isdir():
                continue
            if info.size < 0:
                raise _damaged(f"{printable(info.name)!r} has {info.size} bytes")
            tally.add(info.size)
            problem = None if info.isreg() and not info.issparse() else _not_a_file()
            read = partial(_read_tar, archive, info, turn)
            entries.append(ArchivedFile(info.name, info.size, read, problem))
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise _damaged(error) from error
    return entries


def _read_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, turn: Lock, limit: int) -> bytes:
    try:
        with turn:  # unlike zipfile, tarfile moves in its one file without a lock
            file = archive.extractfile(info)
            assert file is not None  # noqa: S101 - a regular file has one
            return _read_some(file, limit)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise _damaged_file(error) from error


def _not_a_file() -> BadImage:
    return BadImage(
        "The entry is a link or a device, not a file.", fix="Pack the photograph itself."
    )


class _Tally:
    """Counts what an archive claims, and stops at the limits."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._files = 0
        self._bytes = 0

    def add(self, size: int) -> None:
        self._files += 1
        self._bytes += size
        if self._files > self._limits.upload_files:
            raise TooLarge(
                f"The archive holds more than {self._limits.upload_files} files.",
                fix="Send it as several archives.",
                field="archive",
            )
        self.check(self._bytes)

    def check(self, size: int) -> None:
        if size > self._limits.archive_bytes:
            raise TooLarge(
                f"The archive unpacks to more than {self._limits.archive_bytes} bytes.",
                fix="Send it as several archives.",
                field="archive",
            )

    def check_ratio(self, packed: int, unpacked: int | None = None) -> None:
        size = self._bytes if unpacked is None else unpacked
        if size > _HARMLESS_BYTES and size > packed * self._limits.archive_ratio:
            raise TooLarge(
                f"The archive unpacks {packed} bytes to {size} or more, over"
                f" {self._limits.archive_ratio} times as many: photographs do not pack so tightly.",
                fix="Pack photographs only, or send the files without an archive.",
                field="archive",
            )


def _read_some(file: IO[bytes], limit: int) -> bytes:
    """Return at most `limit` bytes, in steps: one large read would ask the file for as much."""
    chunks: list[bytes] = []
    while limit > 0 and (chunk := file.read(min(_CHUNK, limit))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def _check_name(name: str) -> None:
    path = name.replace("\\", "/")
    if _ABSOLUTE.match(path) or ".." in path.split("/") or "\0" in path:
        raise BadUpload(
            f"The archive has the entry {printable(name)!r}, which points outside of it.",
            fix="Pack folders and photographs with plain names.",
            field="archive",
        )


def _is_litter(path: PurePosixPath) -> bool:
    return any(map(is_litter, path.parts))


def _path(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def _damaged(error: object) -> BadUpload:
    return BadUpload(
        f"The archive is damaged or cut short: {error}.",
        fix="Pack it again, and send it whole.",
        field="archive",
    )


def _damaged_file(error: object) -> BadImage:
    return BadImage(
        f"The file cannot be unpacked: {error}.", fix="Pack the archive again, and send it whole."
    )
