"""`shotline up`: a private Redis, a worker and a gateway from one terminal."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from app.cli.children import Children, wait_until
from app.cli.console import err, out
from app.cli.redis_server import redis_command, socket_path
from app.core.errors import Conflict
from models.errors import BadInput

_REDIS_SECONDS, _GATEWAY_SECONDS = 10.0, 120.0
# Seconds between being told to stop and being killed; the worker has its drain time beside that.
_GRACE = 10.0


class Address(NamedTuple):
    """Where the gateway listens."""

    host: str
    port: int
    scheme: str = "http"

    def __str__(self) -> str:
        """Return it as a URL, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def up(
    data: Annotated[
        Path,
        typer.Option(
            "--data", envvar="SHOTLINE_HOME", help="The folder that everything is kept in."
        ),
    ] = Path("shotline-data"),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the gateway listens; 0 picks one.")
    ] = 8000,
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    from app.core.settings import TlsSettings

    scheme = "https" if TlsSettings().is_on else "http"
    home = data.expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    with only_one(home) as lock:
        address = free_address(host, port)._replace(scheme=scheme)
        note_holder(lock, f"{address}, process {os.getpid()}")
        children = Children(home / "logs")
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            _run(children, home, address)
        except KeyboardInterrupt:
            err.print("Stopping …")
        finally:
            children.stop()


def _run(children: Children, home: Path, address: Address) -> None:
    from app.core.settings import TuningSettings

    redis = socket_path(home)
    environment = {
        "SHOTLINE_HOME": str(home),
        "SHOTLINE_HOST": address.host,
        "SHOTLINE_PORT": str(address.port),
        "SHOTLINE_QUEUE_URL": f"redis+socket://{redis}",
    }
    redis.unlink(missing_ok=True)  # left behind where the last Redis was killed
    children.start("redis", redis_command(home, redis), {}, grace=_GRACE)
    wait_until(redis.exists, children, seconds=_REDIS_SECONDS, what="private Redis")
    _prepare(home)
    program = [sys.executable, "-m", "app.cli.main"]
    drain = TuningSettings().drain_seconds
    # The line goes on without a worker; one that was killed or lost its device comes back.
    children.start("worker", [*program, "worker"], environment, grace=drain + _GRACE, again=True)
    children.start("gateway", [*program, "serve"], environment, grace=_GRACE)
    with err.status("Starting …"):
        ready = f"{address}/readyz"
        wait_until(lambda: _answers(ready), children, seconds=_GATEWAY_SECONDS, what="gateway")
    out.print(
        f"Shotline is at {address}  (documentation: {address}/docs)",
        highlight=False,
        soft_wrap=True,
    )
    out.print("Ctrl-C stops it.")
    sys.stdout.flush()
    wait_until(lambda: False, children, seconds=float("inf"), what="service")


def _prepare(home: Path) -> None:
    """Bring the database to this version, and print the first key where none was ever made."""
    from app.core.audit import acting
    from app.core.database import Database
    from app.core.settings import ServerSettings, Settings
    from app.keys.service import create_first_key
    from app.maintenance.upgrade import upgrade

    database = Database.of(Settings(server=ServerSettings(home=home)))
    try:
        upgrade(database)
        with acting("shotline up"), database.unit_of_work() as session:
            # Printed before it counts: a first key that nobody saw would be the last one, too.
            if key := create_first_key(session):
                out.print(
                    f"The first admin key, shown this once: {key}",
                    highlight=False,
                    soft_wrap=True,
                )
                sys.stdout.flush()
    finally:
        database.close()


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[int]:
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


def note_holder(descriptor: int, text: str) -> None:
    """Write into the held lock's file what is told to whoever finds it held."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def free_address(host: str, port: int) -> Address:
    """Return where the gateway can listen; port 0 picks a free one.

    Raises:
        Conflict: another process listens there.
        BadInput: not an address of this machine, or a port that this account may not use.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As the gateway does: a port that was just left is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
            return Address(host, probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {port} of {host} is taken by another process.",
                fix="Stop that one, or choose another with --port; 0 picks a free one.",
                field="port",
            ) from error
        raise BadInput(
            f"The gateway cannot listen on port {port} of {host!r}: {error}.",
            fix="Give an address of this machine with --host, and a port from 1024 to 65535.",
            field="host",
        ) from error


def _answers(url: str) -> bool:
    # Our own gateway, which is told nothing: its certificate is for the names that others use.
    context = ssl._create_unverified_context()  # noqa: S323
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
