"""`shotline up`: a private Redis, a worker and a gateway from one terminal."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from app.cli.children import Children, wait_until
from app.cli.console import err, out
from app.cli.redis_server import redis_command, socket_path
from app.core.errors import Conflict

_REDIS_SECONDS, _GATEWAY_SECONDS = 10.0, 120.0
# The worker hands a running tuning back when it is told to stop.
_GRACE = {"redis": 5.0, "worker": 20.0, "gateway": 10.0}


def up(
    data: Annotated[
        Path, typer.Option("--data", help="The folder that everything is kept in.")
    ] = Path("shotline-data"),
    port: Annotated[int, typer.Option(help="Where the gateway listens; 0 picks one.")] = 8000,
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    home = data.expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    with _only_one(home) as lock:
        address = f"http://{host}:{port or _free_port(host)}"
        _note(lock, f"{address}, process {os.getpid()}")
        children = Children(home / "logs")
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            _run(children, home, address)
        except KeyboardInterrupt:
            err.print("Stopping …")
        finally:
            children.stop()


def _run(children: Children, home: Path, address: str) -> None:
    host, _, port = address.removeprefix("http://").rpartition(":")
    redis = socket_path(home)
    environment = {
        "SHOTLINE_HOME": str(home),
        "SHOTLINE_HOST": host,
        "SHOTLINE_PORT": port,
        "SHOTLINE_QUEUE_URL": f"redis+socket://{redis}",
    }
    redis.unlink(missing_ok=True)  # left behind where the last Redis was killed
    children.start("redis", redis_command(home, redis), {}, grace=_GRACE["redis"])
    wait_until(redis.exists, children, seconds=_REDIS_SECONDS, what="private Redis")
    key = _prepare(home)
    program = [sys.executable, "-m", "app.cli.main"]
    children.start("worker", [*program, "worker"], environment, grace=_GRACE["worker"])
    children.start("gateway", [*program, "serve"], environment, grace=_GRACE["gateway"])
    with err.status("Starting …"):
        ready = f"{address}/readyz"
        wait_until(lambda: _answers(ready), children, seconds=_GATEWAY_SECONDS, what="gateway")
    out.print(
        f"Shotline is at {address}  (documentation: {address}/docs)",
        highlight=False,
        soft_wrap=True,
    )
    if key:
        out.print(f"The first admin key, shown this once: {key}", highlight=False, soft_wrap=True)
    out.print("Ctrl-C stops it.")
    sys.stdout.flush()
    wait_until(lambda: False, children, seconds=float("inf"), what="service")


def _prepare(home: Path) -> str | None:
    """Bring the database to this version and return the first key where none was ever made."""
    from app import migrations
    from app.core.database import Database
    from app.core.settings import ServerSettings, Settings
    from app.keys.service import create_first_key

    database = Database.of(Settings(server=ServerSettings(home=home)))
    try:
        migrations.upgrade(database)
        with database.unit_of_work() as session:
            return create_first_key(session)
    finally:
        database.close()


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[int]:
    """Hold the data folder's lock; the kernel lets go of it however this process ends.

    Raises:
        Conflict: another `shotline up` holds it.
    """
    descriptor = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 1000).decode()
        raise Conflict(
            f"Shotline is already up on the data folder {home}: {holder}.",
            fix="Use it, stop it, or name another folder with --data.",
        ) from error
    else:
        yield descriptor
    finally:
        os.close(descriptor)


def _note(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own gateway
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
