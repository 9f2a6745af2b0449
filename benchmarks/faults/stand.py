"""What the faults of workers and of Redis are tried on: a gateway, workers and a Redis that break.

The shipped backbone, photographs that are drawn on the spot, and tunings of some seconds. Times are
shortened by `HASTY`, so that what takes half a minute in production takes seconds here.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2
import numpy as np
import PIL.Image
import redis
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from app import migrations
from app.cli.redis_server import redis_command
from app.core.database import Database
from app.core.logging import configure_logging
from app.core.settings import LogSettings, ServerSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import Tuning as TuningRow
from app.keys.service import create_key
from app.main import create_app
from app.snapshots.service import read_snapshot
from benchmarks.serving.gateway import environment_of, gateway
from benchmarks.serving.stand import settings_of
from models.backbone_source import load_backbone
from models.features import MemoryFeatureStore
from models.imaging import View
from models.recipe import Recipe
from models.tuning import Tuning
from tests.integration.services import descendants, parent_of, pings, wait_for

HASTY: Final = {
    "SHOTLINE_TUNING_LEASE_SECONDS": "3",
    "SHOTLINE_TUNING_HEARTBEAT_SECONDS": "0.5",
    "SHOTLINE_TUNING_REAP_SECONDS": "0.5",
    "SHOTLINE_TUNING_RESEND_SECONDS": "10",
    "SHOTLINE_TUNING_CHECKPOINT_SECONDS": "0.3",
    "SHOTLINE_TUNING_POLL_SECONDS": "0.1",
    "SHOTLINE_TUNING_NICE": "0",
    "SHOTLINE_BACKBONE_SOURCE": "starter",
    "SHOTLINE_BACKBONE_DEVICE": "cpu",
    "SHOTLINE_BACKBONE_ENGINE": "torch",
    "SHOTLINE_BATCH_PART_IMAGES": "4",
    "SHOTLINE_GATES_ENABLED": "false",  # its versions are to be promoted, whatever they are worth
    "OMP_NUM_THREADS": "1",
}
CLASSES: Final = ("good", "scratch", "stain")
PATIENCE: Final = 180.0

_COLOURS = ((200, 60, 60), (60, 60, 200), (60, 200, 60))
_ENDS = ("succeeded", "failed", "cancelled")
_WORKER = [sys.executable, "-m", "celery", "--app", "worker.celery_app", "worker"]


def photograph(label: int, number: int, size: int = 96) -> bytes:
    """Return a PNG of noise around the colour of a class; each number gives other bytes."""
    noise = np.random.default_rng([label, number]).integers(-40, 40, (size, size, 3))
    pixels = (np.array(_COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


class Redis:
    """A Redis on a socket that stays while the server comes and goes.

    Args:
        folder: of its socket and its files; its path is short.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._socket = folder, folder / "redis.sock"
        self._keeps = True
        self.url = f"redis+socket://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._socket.unlink(missing_ok=True)
        command = redis_command(self._folder, self._socket)
        if not self._keeps:
            command[command.index("--appendonly") + 1] = "no"
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
        wait_for(lambda: pings(self._socket), "Redis")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def hang(self) -> None:
        """Have it hold every connection and answer nothing, until `bring_back`."""
        assert self._process is not None  # noqa: S101 - it was started
        self._process.send_signal(signal.SIGSTOP)

    def bring_back(self) -> None:
        """Have it answer again, whatever became of it."""
        assert self._process is not None  # noqa: S101 - it was started
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self.start()

    def keep(self, keeps: bool) -> None:
        """Have an append-only file bring everything back after a kill, or not."""
        self._keeps = keeps
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            client.config_set("appendonly", "yes" if keeps else "no")

    def flush(self) -> None:
        """FLUSHALL."""
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            client.flushall()


class Worker:
    """A worker that is started again by whoever looks after it, as Docker or systemd would.

    Args:
        environment: its settings.
        log: its output.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []

    @property
    def starts(self) -> int:
        """How often it was started."""
        return len(self._groups)

    @property
    def pid(self) -> int | None:
        """Its main process; None where it has ended."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def look_after(self) -> None:
        """Start it where it does not run."""
        if self.pid is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    _WORKER,
                    env={**os.environ, **self._environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._groups.append(self._process.pid)

    def processes(self) -> "Processes":
        """Return what there is of it now."""
        main = self.pid
        return Processes(main, {} if main is None else descendants(main))

    def stop(self) -> None:
        """Terminate it, and kill what does not heed that, or was left behind by earlier ones."""
        if self._process is not None and self.pid is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def left_behind(self) -> int:
        """Return how many processes of earlier ones are still there."""
        groups = set(self._groups) - {self.pid}
        return sum(_group_of(entry) in groups for entry in Path("/proc").glob("[0-9]*"))


@dataclass(frozen=True)
class Processes:
    """The processes of a worker.

    Attributes:
        main: Celery's main process.
        below: all that come from it, with their command lines.
    """

    main: int | None
    below: Mapping[int, str]

    @property
    def all(self) -> list[int]:
        """Every one, the main process last."""
        return [*self.below, *([] if self.main is None else [self.main])]

    @property
    def children(self) -> list[int]:
        """Those that do jobs."""
        return [pid for pid, command in self.below.items() if "_run " in command]

    @property
    def supervisors(self) -> list[int]:
        """Those that supervise such a child."""
        parents = [parent_of(child) for child in self.children]
        return [pid for pid in parents if pid is not None and pid in self.below]


def kill(pid: int) -> bool:
    """SIGKILL; say whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _group_of(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[2])
    except OSError:
        return None


@dataclass
class Stand:
    """A gateway with a project, and workers.

    Attributes:
        client: of the gateway, with an admin's key.
        project: its id.
        workers: not looked after yet.
        database: the gateway's, to look into.
        blobs: the folder of what the gateway and the workers store.
        logs: the folder of all logs.
    """

    client: httpx2.Client
    project: str
    workers: list[Worker]
    database: Database
    blobs: Path
    logs: Path
    recipe: dict[str, Any] = field(default_factory=dict)

    def tune(self, seed: int) -> str:
        """Ask for a tuning; return its id."""
        body = {"recipe": self.recipe, "seed": seed}
        return str(self._made(f"/v1/projects/{self.project}/tunings", json=body)["id"])

    def decide(self, count: int) -> str:
        """Ask for a batch of photographs, with what is in production; return its id."""
        zipped = {"content": _zip(count), "headers": {"content-type": "application/zip"}}
        return str(self._made(f"/v1/projects/{self.project}/batches", **zipped)["id"])

    def promote(self, version: int) -> None:
        """Put a version into production."""
        address = f"/v1/projects/{self.project}/aliases/production"
        self.client.put(address, json={"version": version}).raise_for_status()

    def shown(self, path: str) -> dict[str, Any]:
        """Return what the gateway says there."""
        answer = self.client.get(path)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def tuning(self, tuning: str) -> dict[str, Any]:
        """Return a tuning."""
        return self.shown(f"/v1/tunings/{tuning}")

    def standings(self, tunings: Sequence[str]) -> list[tuple[bool, str | None]]:
        """Return, of each tuning, whether it has ended and its last checkpoint."""
        wanted = [UUID(tuning) for tuning in tunings]
        with self.database.reading() as session:
            rows = session.scalars(select(TuningRow).where(TuningRow.id.in_(wanted)))
            found = {row.id: (row.state in _ENDS, row.checkpoint) for row in rows}
        return [found[tuning] for tuning in wanted]

    def batch(self, batch: str) -> dict[str, Any]:
        """Return a batch."""
        return self.shown(f"/v1/batches/{batch}")

    def versions(self) -> list[dict[str, Any]]:
        """Return every version of the project."""
        found = self.shown(f"/v1/projects/{self.project}/models?limit=500")
        assert found.get("next_cursor") is None  # noqa: S101 - 500 are more than a run makes
        items: list[dict[str, Any]] = found["items"]
        return items

    def digests(self) -> dict[str, str]:
        """Return the digest of each tuning's version."""
        return {version["tuning"]: version["digest"] for version in self.versions()}

    def undisturbed(self, seeds: Iterable[int]) -> dict[int, str]:
        """Tune in this process with each seed; return the digests."""
        with self.database.reading() as session:
            row = session.scalars(select(TuningRow).limit(1)).one()
            snapshot = read_snapshot(session, LocalStorage(self.blobs), row.snapshot_id)
        backbone = load_backbone(row.backbone, device="cpu")
        store = MemoryFeatureStore()
        return {
            seed: Tuning(
                snapshot.classes,
                snapshot.images,
                backbone,
                Recipe.model_validate(row.recipe),
                seed=seed,
                view=View.model_validate(row.view),
                store=store,
            )
            .run()
            .digest
            for seed in seeds
        }

    def places(self, batch: str) -> list[int]:
        """Return the places that a batch's result has, in its order."""
        answer = self.client.get(f"/v1/batches/{batch}/results", params={"format": "ndjson"})
        return [json.loads(line)["index"] for line in answer.text.splitlines()]

    def look_after(self) -> None:
        """Start each worker that has ended."""
        for worker in self.workers:
            worker.look_after()

    def wait_for_ends(
        self, tunings: Sequence[str], batches: Sequence[str] = (), *, seconds: float = PATIENCE
    ) -> None:
        """Wait until all have ended, while workers that end are started again."""

        def ended() -> bool:
            self.look_after()
            shown = [self.tuning(each) for each in tunings]
            return all(it["state"] in _ENDS for it in [*shown, *map(self.batch, batches)])

        wait_for(ended, "the end of all jobs", seconds)

    def _made(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post(path, **body)
        answer.raise_for_status()
        made: dict[str, Any] = answer.json()
        return made


@contextlib.contextmanager
def stand(
    home: Path,
    queue: str,
    *,
    workers: int,
    recipe: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    inside: bool = False,
) -> Iterator[Stand]:
    """Run a gateway; make a project with photographs. Workers are stopped at the end.

    Args:
        home: an empty folder.
        queue: Redis's address.
        workers: how many; none is started yet.
        recipe: of all tunings.
        environment: settings beside `HASTY`.
        inside: run the gateway in this process, where it costs less.
    """
    logs = home / "logs"
    logs.mkdir()
    settings = {**environment_of(home / "data", queue), **HASTY, **(environment or {})}
    own = Settings(server=ServerSettings(home=home / "data"))
    database = Database.of(own)
    migrations.upgrade(database)
    with database.unit_of_work() as session:
        key = create_key(session, name="faults", role="admin").plaintext
    with contextlib.ExitStack() as stack:
        stack.callback(database.close)
        headers = {"Authorization": f"Bearer {key}"}
        client: httpx2.Client
        if inside:
            client = stack.enter_context(TestClient(_app(settings), headers=headers))
        else:
            server = stack.enter_context(gateway(settings, logs / "gateway.log"))
            client = httpx2.Client(base_url=server.address, headers=headers, timeout=60.0)
            stack.enter_context(client)
        running = [Worker(settings, logs / f"worker{number}.log") for number in range(workers)]
        for worker in running:
            stack.callback(worker.stop)
        yield Stand(
            client, _project(client), running, database, own.blob_folder, logs, dict(recipe)
        )


def _app(environment: Mapping[str, str]) -> FastAPI:
    """Return the gateway, as a process with these variables would run it."""
    settings = settings_of(environment)
    configure_logging(LogSettings(level="error"))
    return create_app(settings)


def _project(client: httpx2.Client) -> str:
    classes = [{"name": name} for name in CLASSES]
    made = client.post("/v1/projects", json={"name": "faults", "classes": classes})
    made.raise_for_status()
    project = str(made.json()["id"])
    for label, name in enumerate(CLASSES):
        files = [
            ("images", (f"{name}-{number}.png", photograph(label, number), "image/png"))
            for number in range(6)
        ]
        address = f"/v1/projects/{project}/images"
        client.post(address, data={"label": name}, files=files).raise_for_status()
    return project


def _zip(count: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number in range(count):
            archive.writestr(f"{number:04}.png", photograph(number % len(CLASSES), 100 + number))
    return out.getvalue()
