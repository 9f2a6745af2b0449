"""What scenarios at the gateway share: a small data folder, real processes, what must be true."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
from pydantic import SecretStr

from app import migrations
from app.core.access import Principal
from app.core.database import Database
from app.core.settings import (
    BackboneSettings,
    DatabaseSettings,
    GateSettings,
    ServerSettings,
    Settings,
    StorageSettings,
)
from app.core.storage import LocalStorage
from app.core.tables import KeepImages, Project
from app.keys import service as keys
from app.maintenance.verify import verify
from app.registry import service as registry
from benchmarks.serving.processes import free_port
from models.artifact import Artifact
from models.backbone_source import load_backbone
from models.classes import ClassSpec
from tests.integration import services, tiny

PNG = {"content-type": "image/png"}
NOBODY = Principal(None, "a scenario", "admin")
PRODUCTION = registry.PRODUCTION
_PATIENCE = 120.0
_CLASSES = [
    ClassSpec(name="good", prompt_name="good", role="ok"),
    ClassSpec(name="scratch", prompt_name="scratch", role="ng"),
    ClassSpec(name="blur", prompt_name="blur", role="other"),
]


@dataclass(frozen=True)
class Line:
    """A project with versions, the first of them in production."""

    project: str
    versions: int

    @property
    def path(self) -> str:
        """The project's address."""
        return f"/v1/projects/{self.project}"


@dataclass(frozen=True)
class Box:
    """A data folder with a tiny backbone and an admin's key.

    Attributes:
        settings: of the gateway and of the worker.
        key: opens everything.
        environment: the variables that say the same as `settings`.
    """

    settings: Settings
    key: str
    environment: dict[str, str]

    @cached_property
    def database(self) -> Database:
        """The database, looked at behind the gateway's back."""
        return Database.of(self.settings)

    @cached_property
    def storage(self) -> LocalStorage:
        """The blobs."""
        return LocalStorage(self.settings.blob_folder)

    @cached_property
    def artifacts(self) -> list[Artifact]:
        """Three versions that differ."""
        backbone = load_backbone(self.settings.backbone.name, device="cpu")
        return [tiny.tuned_artifact(backbone, _CLASSES, seed=seed) for seed in range(3)]

    def client(self, address: str, *, timeout: float = 60.0) -> httpx2.Client:
        """Return a client with the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=address, headers=headers, timeout=timeout)

    def add_line(self, name: str, *, keep_images: KeepImages = "none", versions: int = 3) -> Line:
        """Make a project with the classes of the artifacts, which become its versions."""
        with self.database.unit_of_work() as session:
            project = Project(name=name, name_key=name, view={}, keep_images=keep_images)
            session.add(project)
            session.flush()
            for artifact in self.artifacts[:versions]:
                tiny.add_artifact(session, self.storage, project.id, artifact)
            registry.promote(session, NOBODY, project.id, PRODUCTION, 1)
            return Line(str(project.id), versions)


def make_box(
    home: Path,
    database_url: str | None = None,
    queue_url: str | None = None,
    *,
    blobs: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Box:
    """Make a data folder in `home`, its database migrated.

    Args:
        home: an empty folder.
        database_url: SQLite in the folder where it is None.
        queue_url: of Redis; nothing answers there where it is None.
        blobs: their folder; in the data folder where it is None.
        variables: SHOTLINE_ variables without that prefix, for gateway and worker.
    """
    source = tiny.write_backbone(home / "backbone")
    settings = Settings(
        server=ServerSettings(home=home / "home"),
        database=DatabaseSettings(url=SecretStr(database_url) if database_url else None),
        storage=StorageSettings(folder=blobs),
        backbone=BackboneSettings(source=source, device="cpu", engine=_engine()),
        gates=GateSettings(enabled=False),  # its versions are to be promoted, whatever their worth
    )
    environment = services.environment_of(settings, queue_url or f"redis+socket://{home / 'none'}")
    environment |= {
        "SHOTLINE_STORAGE_FOLDER": str(settings.blob_folder),
        "SHOTLINE_BACKBONE_ENGINE": _engine(),
        "SHOTLINE_BACKBONE_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    environment |= {f"SHOTLINE_{name}": value for name, value in (variables or {}).items()}
    database = Database.of(settings)
    migrations.upgrade(database)
    with database.unit_of_work() as session:
        key = keys.create_first_key(session)
    database.close()
    assert key is not None  # noqa: S101 - the database is new
    return Box(settings, key, environment)


def _engine() -> Any:
    """Return the engine that starts fastest: kept from the first start, and without PyTorch."""
    there = all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnxscript"))
    return "onnx" if there else "torch"


class Gateway:
    """`shotline serve`, always on the same port, to be killed and started again."""

    def __init__(self, box: Box, log: Path, **variables: str) -> None:
        self._port = free_port()
        self._environment = {**box.environment, **variables, "SHOTLINE_PORT": str(self._port)}
        self._log = log
        self.address = f"http://127.0.0.1:{self._port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it decides; return the seconds that took.

        Raises:
            RuntimeError: it ended, or did not become ready.
        """
        started = time.monotonic()
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "serve"],
                env={**os.environ, **self._environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while self.status() not in ("ready", "degraded"):
            if self.process.poll() is not None or time.monotonic() > started + _PATIENCE:
                raise RuntimeError(f"no gateway: {self._log.read_text()[-2000:]}")
            time.sleep(0.01)
        return time.monotonic() - started

    def status(self) -> str:
        """Return what `/readyz` says, `away` where nothing answers."""
        try:
            found = httpx2.get(f"{self.address}/readyz", timeout=10).json()
        except httpx2.HTTPError:
            return "away"
        return str(found["status"])

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Tell it to end, and wait for that."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)


def counters(address: str) -> Mapping[str, float]:
    """Return what `/metrics` says."""
    lines = httpx2.get(f"{address}/metrics", timeout=30).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def wait_until(condition: Callable[[], object], seconds: float = _PATIENCE) -> float:
    """Wait until `condition` holds; return the seconds that took, infinity where it never did."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() > started + seconds:
            return float("inf")
        time.sleep(0.05)
    return time.monotonic() - started


def faults(box: Box) -> list[str]:
    """Return what `shotline verify` finds wrong; nothing where all is well."""
    found = verify(box.database, box.storage).found
    return [f"{each.check} {each.where}: {each.problem}" for each in found]
