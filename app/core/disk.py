"""Room on the disks that the service writes to: watched, told, and partly kept in reserve.

A full disk must not surprise: below a first mark `/readyz` says `degraded`, below a second one
uploads, batches and kept images are refused before they are written, so that what is left stays for
the database and the logs. Predictions go on in any case.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol

import structlog

from app.core.settings import StorageSettings
from app.core.storage import Keeps
from models.errors import StorageFull

log = structlog.get_logger(__name__)

State = Literal["ok", "low", "reserve"]

# Of a small volume the marks are at most these shares: the defaults are made for a box's disk.
_LOW_SHARE, _RESERVE_SHARE = 0.10, 0.05
_MIB = 1024**2


class Space(NamedTuple):
    """A volume: its name for people, bytes free and in all, and files that it can still take.

    Attributes:
        files: None where the file system counts none.
    """

    name: str
    free: int
    total: int
    files: int | None


def space(name: str, folder: Path) -> Space:
    """Return what is free where `folder` is, or would be made.

    Raises:
        OSError: the volume does not answer.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    found = os.statvfs(there)
    files = found.f_favail if found.f_files else None
    return Space(name, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, files)


def shown_bytes(size: float) -> str:
    """Return `size` for people: `1.9 GB`, `210 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= factor:
            return f"{size / factor:.{1 if size < 10 * factor else 0}f} {unit}"
    return f"{size:.0f} bytes"


class Puts(Keeps, Protocol):
    """What takes bytes and returns their sha256; see `app.core.storage.Storage.put`."""

    def put(self, data: bytes | BinaryIO) -> str:
        """Store `data`."""
        ...


class DiskWatch:
    """Watches the volumes of some folders.

    Args:
        folders: by a name for people, the most important first; several may be on one volume.
        settings: the two marks.

    Attributes:
        when_refused: called for each refusal, so that it is counted.
    """

    def __init__(self, folders: Mapping[str, Path], settings: StorageSettings) -> None:
        self._folders = dict(folders)
        self._settings = settings
        self._said: State = "ok"
        self.when_refused: Callable[[], object] = lambda: None

    def spaces(self) -> list[Space]:
        """Return each volume once, under the first name that lies on it.

        Raises:
            OSError: a volume does not answer.
        """
        found: dict[tuple[int, int, int | None], Space] = {}
        for name, folder in self._folders.items():
            one = space(name, folder)
            # Device numbers differ between mounts of one volume; what is free does not.
            found.setdefault((one.free, one.total, one.files), one)
        return list(found.values())

    def state(self) -> tuple[State, str]:
        """Return how the fullest volume is, and that in a sentence."""
        worst: tuple[State, str] = ("ok", "")
        told = []
        for one in self.spaces():
            state = self._state_of(one)
            told.append(f"{shown_bytes(one.free)} free for {one.name}")
            if state == "reserve" and worst[0] != "reserve":
                worst = state, self._sentence(one, self._reserve(one), "uploads are refused")
            elif state == "low" and worst[0] == "ok":
                worst = state, self._sentence(one, self._low(one), "uploads are refused soon")
        return worst if worst[0] != "ok" else ("ok", "; ".join(told))

    def look(self) -> State:
        """Log a change of the state, once."""
        state, sentence = self.state()
        if state != self._said:
            if state == "ok":
                log.info("disk_has_room", about=sentence)
            else:
                log.warning("disk_low" if state == "low" else "disk_full", about=sentence)
            self._said = state
        return state

    def check(self) -> None:
        """Raise StorageFull below either mark; for `/readyz`."""
        state, sentence = self.state()
        if state != "ok":
            raise StorageFull(sentence, fix="Free space, see docs/operations.md.")

    def about(self) -> str:
        """Return how much is free, or what is wrong."""
        try:
            return self.state()[1]
        except OSError as error:
            return f"cannot be told: {error.strerror}"

    def require_room(self, size: int = 0) -> None:
        """Refuse to write `size` bytes that would touch the reserve.

        Raises:
            StorageFull: they would; nothing was written.
        """
        if self._settings.reserve_bytes == 0:
            return
        for one in self.spaces():
            reserve = self._reserve(one)
            if one.free - size < reserve or one.files == 0:
                self.when_refused()
                raise StorageFull(
                    f"The disk has {shown_bytes(one.free)} free for {one.name}; {shown_bytes(size)}"
                    f" more would touch the {shown_bytes(reserve)} kept in reserve for the"
                    " database.",
                    fix="Free space on it, then send this again; nothing was stored. Predictions"
                    " go on.",
                )

    def guarded(self, storage: Puts) -> "Guarded":
        """Return `storage` with the reserve before each `put`."""
        return Guarded(storage, self.require_room)

    def _state_of(self, one: Space) -> State:
        if one.free <= self._reserve(one) and self._settings.reserve_bytes:
            return "reserve"
        if one.free == 0 or one.files == 0:
            return "reserve"
        return "low" if one.free <= self._low(one) and self._settings.low_disk_bytes else "ok"

    def _low(self, one: Space) -> int:
        return min(self._settings.low_disk_bytes, int(one.total * _LOW_SHARE))

    def _reserve(self, one: Space) -> int:
        return min(self._settings.reserve_bytes, int(one.total * _RESERVE_SHARE))

    def _sentence(self, one: Space, mark: int, then: str) -> str:
        if one.files == 0:
            return f"no more files fit on the disk for {one.name}; {then}"
        return (
            f"{shown_bytes(one.free)} free for {one.name}, of {shown_bytes(one.total)}; the mark"
            f" is {shown_bytes(mark)}; {then}"
        )


class Guarded:
    """A storage whose `put` is refused before it touches the reserve."""

    def __init__(self, storage: Puts, require_room: Callable[[int], None]) -> None:
        self._storage, self._require_room = storage, require_room

    def put(self, data: bytes | BinaryIO) -> str:
        """Store `data`; see `Storage.put`."""
        self._require_room(len(data) if isinstance(data, bytes) else _MIB)
        return self._storage.put(data)

    def holding(self) -> AbstractContextManager[None]:
        """Hold back removals; see `Storage.holding`."""
        return self._storage.holding()

    def touch(self, sha256: str) -> bool:
        """Make a blob young again; see `Storage.touch`."""
        return self._storage.touch(sha256)
