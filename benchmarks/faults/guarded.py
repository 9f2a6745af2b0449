"""What the faults of callers are tried on: a gateway with a project, images and a version."""

import contextlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import PIL.Image

from app.core.database import Database
from app.core.settings import ServerSettings, Settings
from app.core.tables import KeyRole
from app.keys.service import create_key
from benchmarks.serving.engine import Engine
from benchmarks.serving.gateway import environment_of, gateway, redis
from benchmarks.serving.home import Home, prepare
from benchmarks.serving.processes import Server

# The shipped backbone at once: no engine has to be converted and measured for this.
PLAIN = {
    "SHOTLINE_BACKBONE_SOURCE": "starter",
    "SHOTLINE_BACKBONE_DEVICE": "cpu",
    "SHOTLINE_BACKBONE_ENGINE": "torch",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Guarded:
    """A running gateway, its process, and what is in it."""

    server: Server
    home: Home

    @property
    def pid(self) -> int:
        """The gateway's process."""
        return self.server.process.pid

    def is_alive(self) -> bool:
        """Say whether it is still the same process, and answers."""
        answer = httpx2.get(f"{self.server.address}/livez", timeout=30)
        return self.server.process.poll() is None and answer.status_code == 200

    def peak_mb(self) -> float:
        """Return the most memory that the process ever held, in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
        return int(peak) * 1024 / 1e6

    def new_key(self, role: KeyRole) -> str:
        """Return a new key of a role; it is known within a second."""
        settings = Settings(server=ServerSettings(home=self.home.folder))
        database = Database.of(settings)
        try:
            with database.unit_of_work() as session:
                return create_key(session, name=f"a {role}", role=role).plaintext
        finally:
            database.close()


def photograph(number: int, size: int = 64) -> bytes:
    """Return a PNG of noise; each number gives other bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def archive_of(files: dict[str, bytes]) -> bytes:
    """Return a zip with these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


@contextlib.contextmanager
def guarded_gateway(home: Path, **more: str) -> Iterator[Guarded]:
    """Run a gateway with two projects, one of which has images, and versions in production.

    Args:
        home: an empty folder.
        more: variables of the gateway.
    """
    before = dict(os.environ)
    os.environ.update(PLAIN)  # for the engine that the versions are made with
    try:
        facts = Engine().facts(photograph(0))
    finally:
        os.environ.clear()
        os.environ.update(before)
    prepared = prepare(home / "data", facts, lines=2, versions=2, classes=3)
    log = home / "gateway.log"
    with (
        redis(home) as queue,
        gateway(environment_of(prepared.folder, queue) | PLAIN | more, log) as server,
    ):
        guarded = Guarded(server, prepared)
        _upload(guarded)
        yield guarded


def _upload(guarded: Guarded) -> None:
    line = guarded.home.lines[0]
    with httpx2.Client(
        base_url=guarded.server.address, headers=guarded.home.headers, timeout=60
    ) as client:
        classes = client.get(f"/v1/projects/{line.project}").json()["classes"]
        names = [entry["name"] for entry in classes]
        files = {
            f"{name}/{n}.png": photograph(n + 10 * k)
            for k, name in enumerate(names)
            for n in range(3)
        }
        sent = client.post(
            f"/v1/projects/{line.project}/images",
            content=archive_of(files),
            headers={"Content-Type": "application/zip"},
        )
        sent.raise_for_status()
        for number in range(3):
            answer = client.post(
                line.predict,
                content=photograph(100 + number),
                headers={"Content-Type": "image/png"},
            )
            answer.raise_for_status()
