"""What the workers of this host know of their device, beyond the life of a process.

A device that was lost (it fell off the bus, an assert on it failed) may compute again in a process
that is started anew, or not at all. So the worker that lost it takes no more jobs and ends; whoever
starts it again has it look at the device first.
"""

import contextlib
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from app.core.errors import Unavailable
from app.core.settings import Settings
from models.files import write_atomic

_KEPT: Final = 100  # jobs, the last ones


class DeviceRecord:
    """A file that says whether the device is lost, and which jobs it was lost under.

    Args:
        folder: that of all workers on a data folder; each host has a file of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{socket.gethostname()}.json"

    @classmethod
    def of(cls, settings: Settings) -> "DeviceRecord":
        """Return the record of this host's worker."""
        return cls(settings.home / "workers")

    def lost(self, job_id: UUID) -> int:
        """Note that the device was lost under a job; return how often it has been, under that."""
        jobs: dict[str, int] = self._read()["jobs"]
        times = jobs.pop(str(job_id), 0) + 1
        jobs[str(job_id)] = times
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._write({"lost_at": now, "jobs": dict(list(jobs.items())[-_KEPT:])})
        return times

    def is_lost(self) -> bool:
        """Say whether the device is lost."""
        return self._read()["lost_at"] is not None

    def check(self) -> None:
        """Refuse to go on with a device that is lost.

        Raises:
            Unavailable: it is.
        """
        since = self._read()["lost_at"]
        if since is not None:
            raise Unavailable(
                f"The device was lost at {since}.",
                fix="The worker comes back when it computes again; look at it with nvidia-smi and"
                " in the kernel's log, and restart the machine if it does not.",
                field="SHOTLINE_BACKBONE_DEVICE",
            )

    def found(self) -> None:
        """Note that it computes again; what was lost under which job is kept."""
        self._write(self._read() | {"lost_at": None})

    def _read(self) -> dict[str, Any]:
        content: dict[str, Any] = {"lost_at": None, "jobs": {}}
        with contextlib.suppress(OSError, ValueError):  # none yet, or nothing to be had from it
            content |= json.loads(self._path.read_bytes())
        return content

    def _write(self, content: dict[str, Any]) -> None:
        write_atomic(self._path, json.dumps(content).encode())
