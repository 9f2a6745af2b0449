"""Real processes for tests: Redis, a Celery worker, a gateway under uvicorn."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import redis

from app.cli.redis_server import redis_program
from app.core.settings import Settings

_PATIENCE = 180.0


def wait_for(condition: Callable[[], object], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until `condition` holds, looking often."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


@contextmanager
def process(
    command: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of our own; it is terminated, and killed where it does not heed that."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis on a socket in `folder`; yield its address for Celery."""
    path = folder / "r.sock"
    path.unlink(missing_ok=True)
    command = [str(redis_program()), "--port", "0", "--unixsocket", str(path), "--save", ""]
    with process([*command, "--dir", str(folder)], {}, folder / "redis.log"):
        wait_for(lambda: path.exists() and pings(path), "Redis")
        yield f"redis+socket://{path}"


def pings(path: Path) -> bool:
    """Say whether a Redis answers on a socket."""
    try:
        with redis.Redis(unix_socket_path=str(path)) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def environment_of(settings: Settings, redis_url: str) -> dict[str, str]:
    """Return the variables that make a worker or a gateway work with `settings`."""
    return {
        "SHOTLINE_HOME": str(settings.home),
        "SHOTLINE_DATABASE_URL": settings.database_url,
        "SHOTLINE_QUEUE_URL": redis_url,
        "SHOTLINE_BACKBONE_SOURCE": settings.backbone.name,
        "SHOTLINE_BACKBONE_DEVICE": "cpu",
        "SHOTLINE_TUNING_LEASE_SECONDS": str(settings.tuning.lease_seconds),
        "SHOTLINE_TUNING_HEARTBEAT_SECONDS": str(settings.tuning.heartbeat_seconds),
        "SHOTLINE_TUNING_REAP_SECONDS": str(settings.tuning.reap_seconds),
        "SHOTLINE_GATES_ENABLED": str(settings.gates.enabled),
        "SHOTLINE_TUNING_NICE": "0",  # a busy machine must not starve what a test waits for
        "SHOTLINE_LOG_FORMAT": "json",
    }


@contextmanager
def worker(environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker as `shotline worker` does; yield once it takes work."""
    command = [sys.executable, "-m", "celery", "--app", "worker.celery_app", "worker"]
    before = log.read_text().count(" ready.") if log.exists() else 0
    with process(command, environment, log) as child:
        wait_for(lambda: log.read_text().count(" ready.") > before, f"a ready worker ({log})")
        yield child


@contextmanager
def gateway(environment: Mapping[str, str], log: Path, *, status: str = "ready") -> Iterator[str]:
    """Run a gateway as `shotline serve` does; yield its address once `/readyz` says `status`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli.main", "serve"]
    with process(command, {**environment, "SHOTLINE_PORT": str(port)}, log):
        scheme = "https" if "SHOTLINE_TLS_KEY_FILE" in environment else "http"
        address = f"{scheme}://127.0.0.1:{port}"
        wait_for(lambda: _status(address) == status, f"a ready gateway ({log})")
        yield address


def _status(address: str) -> str:
    try:
        # A test's certificate is for the test to judge.
        answer = httpx2.get(f"{address}/readyz", timeout=5, verify=False)
        status: str = answer.json()["status"]
    except httpx2.HTTPError:
        return "away"
    return status


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def parent_of(pid: int) -> int | None:
    """The process that started it, or that took over from that one; None where it has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def descendants(pid: int) -> dict[int, str]:
    """Return the command lines of all processes below `pid`."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := parent_of(int(entry.name))) is not None:
            below.setdefault(parent, []).append(int(entry.name))
    found: dict[int, str] = {}
    waiting = [*below.get(pid, [])]
    while waiting:
        each = waiting.pop()
        waiting += below.get(each, [])
        with suppress(OSError):
            command = Path(f"/proc/{each}/cmdline").read_bytes()
            found[each] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
