"""Processes that one command starts, watches and takes down with itself."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.cli.console import err
from app.core.errors import Unavailable

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)


# Seconds before one that ended is started again: at first, and at most.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


@dataclass
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    grace: float
    start: Callable[[], subprocess.Popen[bytes]] | None
    started_at: float
    pause: float = _PAUSE
    ended_at: float | None = None


class Children:
    """A family of processes, stopped in the reverse of the order in which they were started.

    Each has its own session, so that Ctrl-C reaches this command alone and it can stop them in
    order, and the kernel terminates them should this process be killed.

    Args:
        logs: the folder of their log files.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._logs.mkdir(parents=True, exist_ok=True)
        self._children: list[_Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        grace: float,
        again: bool = False,
    ) -> None:
        """Start `command`; its output is appended to `NAME.log`.

        Args:
            name: of the process, in messages.
            command: program and arguments.
            environment: on top of this process's own.
            grace: seconds between being asked to stop and being killed.
            again: start it anew when it ends, after a pause that grows while it does not last.
        """
        log = self._logs / f"{name}.log"

        def begin() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(  # noqa: S603 - our own programs
                    command,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 - a spinner's thread at most
                )

        child = _Child(name, begin(), log, grace, begin if again else None, time.monotonic())
        self._children.append(child)

    def check(self) -> None:
        """Start again what is to be, and raise when another one has ended.

        Raises:
            Unavailable: one has; the end of its log is named.
        """
        for child in self._children:
            code = child.process.poll()
            if code is not None and child.start is not None:
                _begin_again(child, child.start)
            elif code is not None:
                raise Unavailable(
                    f"The {child.name} ended with exit code {code}: {_last_line(child.log)}",
                    fix=f"Read {child.log}, then start again.",
                )

    def stop(self) -> None:
        """Ask each to stop, in reverse order, and kill what outstays its grace period."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
                try:
                    child.process.wait(child.grace)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()
        self._children.clear()


def wait_until(ready: Callable[[], bool], children: Children, *, seconds: float, what: str) -> None:
    """Wait for `ready` to return true while all children live.

    Raises:
        Unavailable: a child ended, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        children.check()
        if time.monotonic() > deadline:
            raise Unavailable(
                f"The {what} did not get ready within {seconds:.0f} s.",
                fix="Look into the logs folder, then start again.",
            )
        time.sleep(0.05)


def _begin_again(child: _Child, start: Callable[[], subprocess.Popen[bytes]]) -> None:
    now = time.monotonic()
    if child.ended_at is None:
        child.ended_at = now
        lasted = now - child.started_at > _LONGEST_PAUSE
        child.pause = _PAUSE if lasted else min(2 * child.pause, _LONGEST_PAUSE)
        err.print(
            f"The {child.name} ended with exit code {child.process.returncode}; it is started again"
            f" in {child.pause:.0f} s. Its log is {child.log}.",
            highlight=False,
        )
    elif now - child.ended_at > child.pause:
        child.process, child.started_at, child.ended_at = start(), now, None


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(its log is empty)"
