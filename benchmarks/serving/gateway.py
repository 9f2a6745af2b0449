"""The gateway under test: `shotline serve` in a process of its own, with a private Redis."""

import contextlib
import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from app.cli.redis_server import redis_command
from benchmarks.serving.processes import Server, free_port, serving

SHOTLINE = [sys.executable, "-m", "app.cli.main"]


class Batches(NamedTuple):
    """How many batches the gateway has encoded, and how many images rode in them."""

    number: float
    images: float

    def mean_since(self, before: "Batches") -> float:
        """Return the mean size of the batches since `before`."""
        return (self.images - before.images) / max(1.0, self.number - before.number)


class Counters(NamedTuple):
    """What `/metrics` said."""

    values: Mapping[str, float]

    @property
    def batches(self) -> Batches:
        """The batches so far."""
        name = "shotline_prediction_batch_images"
        return Batches(self.values[f"{name}_count"], self.values[f"{name}_sum"])


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a private Redis as `shotline up` does; yield its address."""
    with tempfile.TemporaryDirectory(prefix="sl") as short:  # a socket's path has 107 bytes at most
        socket = Path(short) / "redis.sock"
        with serving(redis_command(folder, socket), {}, folder / "redis.log"):
            yield f"redis+socket://{socket}"


def environment_of(home: Path, queue: str) -> dict[str, str]:
    """Return the settings of a gateway, a worker or a bare encoder on this data folder."""
    return {
        "SHOTLINE_HOME": str(home),
        "SHOTLINE_QUEUE_URL": queue,
        "SHOTLINE_GATES_ENABLED": "false",  # what is promoted here is to be fast, and no better
        "OMP_WAIT_POLICY": "PASSIVE",  # as the `shotline` command sets it
    }


@contextlib.contextmanager
def gateway(environment: Mapping[str, str], log: Path, *, wait: bool = True) -> Iterator[Server]:
    """Run a gateway; it is ready where `wait` says so."""
    port = free_port()
    settings = {**environment, "SHOTLINE_HOST": "127.0.0.1", "SHOTLINE_PORT": str(port)}
    with serving([*SHOTLINE, "serve"], settings, log, port=port) as server:
        if wait:
            server.wait_for("/readyz")
        yield server


def engine_of(server: Server) -> str:
    """Return what the gateway says of its engine, and why it was chosen."""
    with urllib.request.urlopen(f"{server.address}/readyz", timeout=30) as answer:  # noqa: S310
        about: str = json.load(answer)["about"]["backbone"]
    return about


def counters(server: Server, key: str) -> Counters:
    """Return what the gateway counts."""
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{server.address}/metrics", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return Counters({name: float(value) for name, value in pairs})
