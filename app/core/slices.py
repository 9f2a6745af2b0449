"""Parts of a file, read as files of their own."""

import io
import os
from typing import Self

from app.core.errors import BadRequest


class Slice(io.RawIOBase):
    """Part of a file as a file of its own: seekable, readable from several threads' slices at once.

    Args:
        descriptor: of the file, which stays open as long as slices are used.
        start: first byte.
        length: bytes.
        largest_read: refuse to read more at once; zipfile and tarfile read a whole directory or
            header in one call, whatever size it claims.
    """

    def __init__(
        self, descriptor: int, start: int, length: int, largest_read: int | None = None
    ) -> None:
        self._descriptor = descriptor
        self._start = start
        self.length = length
        self._largest = largest_read
        self._position = 0

    def guarded(self, largest_read: int) -> Self:
        """Return the same slice, at its start, that refuses to read more than that at once."""
        return type(self)(self._descriptor, self._start, self.length, largest_read)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position within the slice."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from the start, the position or the end; never before the start."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.length}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, all that is left where it is negative.

        Raises:
            BadRequest: more at once than allowed.
        """
        left = max(0, self.length - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if self._largest is not None and wanted > self._largest:
            raise BadRequest(
                f"The archive's directory or one of its headers claims {wanted} bytes.",
                fix="Make the archive anew with fewer files or shorter names.",
                field="archive",
            )
        pieces = []
        while wanted > 0:
            piece = os.pread(self._descriptor, wanted, self._start + self._position)
            if not piece:
                break
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def readinto(self, buffer: object) -> int:
        """Fill `buffer`; used by the buffered readers on top."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
