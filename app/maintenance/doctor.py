"""`shotline doctor`: what is wrong with this box, found without changing anything.

Each check runs on a thread of its own with a limit of its own: a disk or a driver that hangs costs
its check and nothing else. What may hang within PyTorch runs in a process that can be killed.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy.engine import make_url

from app.core.database import Database
from app.core.settings import Settings
from models.errors import ShotlineError

Status = Literal["ok", "warning", "error"]
Told = Callable[[str, int, int], None]

_DEFAULT_QUEUE = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: its name.
        status: `ok`; `warning`: look after it; `error`: something does not work, or is open.
        found: a sentence with the values that were found.
        fix: what to do about it; None where there is nothing to do.
    """

    check: str
    status: Status
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Box:
    """What is examined.

    Attributes:
        settings: of the service on this box.
        url: where its gateway should be.
        queue_url: where its Redis should be.
        expected: somebody said that the service runs here: what does not answer is an error.
    """

    settings: Settings
    url: str
    queue_url: str
    expected: bool
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, settings: Settings, url: str | None) -> "Box":
        """Return the box of `settings`; what `shotline up` runs on it is found by its files."""
        up = _running_up(settings.home)
        queue_url = settings.queue.url.get_secret_value()
        socket = settings.home / "redis.sock"
        if queue_url == _DEFAULT_QUEUE and socket.exists():
            queue_url = f"redis+socket://{socket}"
        server = settings.server
        host = f"[{server.host}]" if ":" in server.host else server.host
        host = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host  # noqa: S104 - asked, not bound
        expected = url is not None or up is not None or queue_url != _DEFAULT_QUEUE
        scheme = "https" if settings.tls.is_on else "http"
        return cls(settings, url or up or f"{scheme}://{host}:{server.port}", queue_url, expected)

    @property
    def silence(self) -> Status:
        """How bad it is that a part does not answer."""
        return "error" if self.expected else "warning"

    @cached_property
    def sqlite_file(self) -> Path | None:
        """The database's file; None for PostgreSQL."""
        url = make_url(self.settings.database_url)
        if url.get_backend_name() != "sqlite" or not url.database:
            return None
        return Path(url.database)

    @cached_property
    def _database(self) -> Database:
        return Database.of(self.settings)

    @property
    def database(self) -> Database | None:
        """The database; None where there is no file yet, since opening one would make it."""
        if self.sqlite_file is not None and not self.sqlite_file.exists():
            return None
        with self._lock:
            return self._database

    def close(self) -> None:
        """Close the connections to the database, where there are any."""
        if "_database" in self.__dict__:
            self._database.close()


class Check(NamedTuple):
    """One check: its name, what it does, and the seconds that it may take."""

    name: str
    run: Callable[[Box], Iterable[Finding]]
    seconds: float = 10.0


def no_telling(name: str, done: int, total: int) -> None:
    """Take no note of a check that is done."""
    del name, done, total


def examine(box: Box, checks: Sequence[Check], told: Told = no_telling) -> list[Finding]:
    """Run the checks side by side; return what they found in their order.

    Args:
        box: the box.
        checks: to be run.
        told: called with the name of each check that is done, how many are, and of how many.
    """
    done: queue.SimpleQueue[tuple[str, list[Finding]]] = queue.SimpleQueue()
    started = time.monotonic()
    for check in checks:
        # A daemon: one that hangs for ever does not keep this process from its end.
        threading.Thread(target=_run, args=(check, box, done), name=check.name, daemon=True).start()
    found: dict[str, list[Finding]] = {}
    for check in sorted(checks, key=lambda one: one.seconds):
        while check.name not in found:
            left = started + check.seconds - time.monotonic()
            try:
                name, findings = done.get(timeout=max(left, 0.001))
            except queue.Empty:
                name, findings = check.name, [_too_slow(check)]
            if name not in found:
                found[name] = findings
                told(name, len(found), len(checks))
    return [finding for check in checks for finding in found[check.name]]


def worst(findings: Iterable[Finding]) -> Status:
    """Return the worst status among the findings."""
    statuses = {finding.status for finding in findings}
    return "error" if "error" in statuses else "warning" if "warning" in statuses else "ok"


def _run(check: Check, box: Box, done: "queue.SimpleQueue[tuple[str, list[Finding]]]") -> None:
    try:
        found = list(check.run(box))
    except ShotlineError as error:
        found = [Finding(check.name, "error", error.problem, error.fix)]
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        said = f"{type(error).__name__}: {error}".split("\n")[0]
        found = [Finding(check.name, "error", f"It cannot be checked: {said}", "See the reason.")]
    done.put((check.name, found))


def _too_slow(check: Check) -> Finding:
    return Finding(
        check.name,
        "error",
        f"No answer within {check.seconds:g} s.",
        "Something hangs: see `dmesg` and the disks, the network and the driver that it needs.",
    )


def _running_up(home: Path) -> str | None:
    """Return the address that a running `shotline up` noted; None where none runs.

    The lock is looked at in /proc/locks: to try it could make an `up` that starts just then fail.
    """
    path = home / "up.lock"
    try:
        status, note = path.stat(), path.read_text(encoding="utf-8")
        locks = Path("/proc/locks").read_text(encoding="utf-8")
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino} "
    address = note.split(",")[0]
    return address if device in locks and address.startswith("http") else None
