"""Predictions go first on the machine that gateway and worker share.

Eight bytes in a file of the data folder say until when predictions are under way, by the clock that
all processes of a machine have in common. The gateway writes them; a worker's child reads them and
pauses meanwhile. Niceness does not do it: a tuning's threads take both cores' caches and whatever
the cores share, and an encoder's threads wait for the slowest of them.
"""

import mmap
import struct
import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_STAMP = struct.Struct("<q")  # nanoseconds of CLOCK_MONOTONIC
# So long is what a gateway says believed: it may be killed before it says otherwise.
_BELIEVED_NS = 200_000_000


class UnderWay:
    """Says or asks whether predictions are under way on this machine.

    Args:
        path: the file; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.seek(0, 2) < _STAMP.size:
                # Written, so that it has its place on the disk: to map a hole, and write to it when
                # the disk is full, would end the process (SIGBUS).
                file.write(bytes(_STAMP.size))
                file.flush()
            self._bytes = mmap.mmap(file.fileno(), _STAMP.size)

    @classmethod
    def opened(cls, path: Path) -> "UnderWay | None":
        """Return it, None where the file cannot be had: predictions and jobs do without."""
        try:
            return cls(path)
        except (OSError, ValueError) as error:
            log.warning("precedence_unavailable", error=str(error))
            return None

    def begin(self) -> None:
        """Say that a prediction has begun; to be said again for the next one."""
        _STAMP.pack_into(self._bytes, 0, time.monotonic_ns() + _BELIEVED_NS)

    def end(self) -> None:
        """Say that none is under way any more."""
        _STAMP.pack_into(self._bytes, 0, 0)

    def now(self) -> bool:
        """Say whether one is under way."""
        (until,) = _STAMP.unpack_from(self._bytes, 0)
        left: int = until - time.monotonic_ns()
        return 0 < left <= _BELIEVED_NS  # more is the stamp of another boot

    def close(self) -> None:
        """Let go of the file."""
        self._bytes.close()
