"""Where bytes are kept: addressed by sha256, written whole or not at all, verified on read."""

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from app.core.errors import Damaged, NotFound, Unavailable
from models.errors import storage_errors
from models.files import flush_to_disk

_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blob(NamedTuple):
    """A stored blob: sha256 in hex, size in bytes, seconds since it was last put."""

    sha256: str
    size: int
    age: float


class Keeps(Protocol):
    """What says that blobs are still wanted."""

    def holding(self) -> contextlib.AbstractContextManager[None]:
        """Let nothing be removed for as long as the context is open; `put` goes on."""
        ...

    def touch(self, sha256: str) -> bool:
        """Make a blob young again, as `put` does; say whether it is there."""
        ...


class Storage(Keeps, Protocol):
    """Blobs by their sha256. Putting what is there already succeeds and makes it young again."""

    def put(self, data: bytes | BinaryIO) -> str:
        """Store `data` and return its sha256 in hex.

        Raises:
            StorageFull: no space is left; nothing was stored.
        """
        ...

    def read(self, sha256: str) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: there is no such blob.
            Damaged: the bytes are not what their digest says.
        """
        ...

    def remove_old(self, sha256: str, min_age: float) -> bool:
        """Remove the blob if it was not put for `min_age` seconds; say whether it was removed."""
        ...

    def holding(self) -> contextlib.AbstractContextManager[None]:
        """Let nothing be removed for as long as the context is open; `put` goes on."""
        ...

    def touch(self, sha256: str) -> bool:
        """Make a blob young again, as `put` does; say whether it is there."""
        ...

    def blobs(self) -> Iterator[Blob]:
        """List everything that is stored, in no order."""
        ...

    def tidy(self, min_age: float) -> None:
        """Remove what a `put` that was killed `min_age` seconds ago or earlier left behind."""
        ...

    def check(self) -> None:
        """Raise OSError unless the storage can be written to."""
        ...


def keep_young(storage: Keeps, sha256s: Iterable[str]) -> list[str]:
    """Make blobs young whose rows are to be written now; return those that were swept meanwhile."""
    with storage.holding():
        return [sha256 for sha256 in sha256s if not storage.touch(sha256)]


def swept() -> Unavailable:
    """Return the error for bytes that were swept before their row was written."""
    return Unavailable(
        "What was sent took so long to take in that some of it was swept as forgotten.",
        fix="Send it again, or less at a time; nothing was changed.",
    )


class LocalStorage:
    """Blobs in a folder: `ab/cd/abcd…`, two levels so that no folder grows too large.

    A blob is written under a temporary name, flushed to the disk and renamed, and its folders are
    flushed: after `put` returns it survives a power cut, and before it nothing can be seen.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        # Folders whose own name is on the disk, as this process knows.
        self._settled: set[Path] = set()

    def put(self, data: bytes | BinaryIO) -> str:
        """Store `data` and return its sha256; see `Storage.put`."""
        with storage_errors(self.root / "blob"), self._lock(fcntl.LOCK_SH):
            if isinstance(data, bytes):
                sha256 = hashlib.sha256(data).hexdigest()
                if self._has(sha256):
                    return sha256
            return self._write(data)

    def read(self, sha256: str) -> bytes:
        """Return the bytes, verified; see `Storage.read`."""
        try:
            data = self._path(sha256).read_bytes()
        except FileNotFoundError:
            raise NotFound.of("blob", sha256) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged(
                f"The stored blob {sha256} is damaged: its {len(data)} bytes have another sha256.",
                fix="Restore it from a backup, or upload the file again; check the disk.",
            )
        return data

    def remove_old(self, sha256: str, min_age: float) -> bool:
        """Remove the blob unless it was put lately; no `put` comes between look and removal."""
        path = self._path(sha256)
        with self._lock(fcntl.LOCK_EX), contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= min_age:
                path.unlink()
                return True
        return False

    def holding(self) -> contextlib.AbstractContextManager[None]:
        """Hold back every removal, not `put`; see `Storage.holding`."""
        return self._lock(fcntl.LOCK_SH)

    def touch(self, sha256: str) -> bool:
        """Make an existing blob young, so that the sweep of orphans leaves it alone."""
        try:
            os.utime(self._path(sha256))
        except FileNotFoundError:
            return False
        return True

    def blobs(self) -> Iterator[Blob]:
        """List everything that is stored."""
        now = time.time()
        for path in self.root.glob("??/??/*"):
            with contextlib.suppress(FileNotFoundError):  # removed while we look
                status = path.stat()
                yield Blob(path.name, status.st_size, now - status.st_mtime)

    def tidy(self, min_age: float) -> None:
        """Remove old temporary files; see `Storage.tidy`."""
        for path in self._incoming.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # renamed while we look
                if time.time() - path.stat().st_mtime >= min_age:
                    path.unlink()

    def check(self) -> None:
        """Raise OSError unless the folder can be written to."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._incoming) as probe:
            probe.write(b"\0")
            probe.flush()

    @contextlib.contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        """Hold the folder's lock: shared by those that put, alone for one that removes."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("ab") as file:
            fcntl.flock(file, kind)
            yield

    def _path(self, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise NotFound.of("blob", sha256)
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def _write(self, data: bytes | BinaryIO) -> str:
        self._incoming.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._incoming)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                sha256 = _copy(data, file)
                file.flush()
                os.fsync(file.fileno())
            if not self._has(sha256):
                path = self._path(sha256)
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
                self._settle(path)
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def _has(self, sha256: str) -> bool:
        """Make an existing blob young; say whether it is there, whole, to stay."""
        if not self.touch(sha256):
            return False
        with contextlib.suppress(NotFound, Damaged):
            self.read(sha256)
            self._settle(self._path(sha256))
            return True
        return False  # it is written anew: whoever has the bytes can heal it

    def _settle(self, path: Path) -> None:
        """Flush the blob's name to the disk, and those of its folders.

        Also of what others made: they may not have come so far yet, or were killed before.
        """
        flush_to_disk(path.parent)
        for folder in (path.parent, path.parent.parent, self.root):
            if folder in self._settled:
                continue
            try:
                flush_to_disk(folder.parent)
            except PermissionError:
                if folder != self.root:  # what the blobs' folder lies in may be another's
                    raise
            self._settled.add(folder)


def _copy(data: bytes | BinaryIO, file: BinaryIO) -> str:
    digest = hashlib.sha256()
    chunks = [data] if isinstance(data, bytes) else iter(lambda: data.read(_CHUNK), b"")
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()
