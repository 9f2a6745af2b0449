"""Servers under test: processes of our own, paused while another one is measured."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE, _GRACE = 600.0, 20.0


@dataclass
class Server:
    """A process in a session of its own, and whatever it starts.

    Attributes:
        process: its first process.
        port: on 127.0.0.1; 0 where it listens nowhere.
        log: its output.
    """

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def rss_mb(self) -> float:
        """Return the resident memory of the first process, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def pause(self) -> None:
        """Take no more processor time until `resume`."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def wait_for(self, path: str) -> None:
        """Wait until `path` is answered by 200.

        Raises:
            RuntimeError: the process ended, or ten minutes are over.
        """
        deadline = time.monotonic() + _PATIENCE
        while not answers(self.address + path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                last = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.address}{path} never answered: {last}")
            time.sleep(0.1)


def answers(url: str) -> bool:
    """Say whether a server of ours answers by 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def serving(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, port: int = 0
) -> Iterator[Server]:
    """Run `command` until the block ends; then its whole session is told to end, and killed."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        yield server
    finally:
        _stop(server)


def _stop(server: Server) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.resume()
    server.process.terminate()
    try:
        server.process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    with contextlib.suppress(ProcessLookupError):  # what it had started itself
        os.killpg(server.process.pid, signal.SIGKILL)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class MemoryWatch:
    """Notes a server's resident memory each second while the block runs.

    Attributes:
        seconds: when, from the start.
        mb: what it was.
    """

    server: Server
    seconds: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)

    def __enter__(self) -> "MemoryWatch":
        self._over, self._begun = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            self.seconds.append(time.monotonic() - self._begun)
            self.mb.append(self.server.rss_mb())
