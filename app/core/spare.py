"""Memory that stands in for a full disk, so that predictions go on."""

import os
import threading
from typing import IO

from models.errors import StorageFull


class SpareMemory:
    """Files in memory, together of at most `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._lock = threading.Lock()

    def file(self) -> "MemoryFile":
        """Return an empty file."""
        return MemoryFile(self)

    def take(self, size: int) -> None:
        """Take `size` bytes.

        Raises:
            StorageFull: fewer are left.
        """
        with self._lock:
            if size > self._free:
                raise StorageFull(
                    "The gateway's disk is full, and so is the memory that stands in for it.",
                    fix="Free space on the disk; until then send one image at a time, as image/*.",
                )
            self._free -= size

    def give_back(self, size: int) -> None:
        """Give `size` bytes back."""
        with self._lock:
            self._free += size


class MemoryFile:
    """A file without a name and without a disk; it has a descriptor like any other."""

    def __init__(self, spare: SpareMemory) -> None:
        self._spare, self._taken = spare, 0
        self.file: IO[bytes] = os.fdopen(os.memfd_create("shotline-body"), "w+b", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises:
            StorageFull: there is no memory for it.
        """
        self._spare.take(len(data))
        self._taken += len(data)
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def close(self) -> None:
        """Give the memory back; once more does nothing."""
        self.file.close()
        self._spare.give_back(self._taken)
        self._taken = 0
