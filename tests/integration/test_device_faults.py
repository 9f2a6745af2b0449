"""A device that is full or lost: what becomes of the job, and of the worker."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.ids import new_id
from app.core.jobs import TUNINGS
from app.core.queue import TUNE, CeleryQueue, InMemoryQueue
from app.core.settings import QueueSettings, Settings, TuningSettings
from app.core.storage import LocalStorage
from app.core.tables import ModelVersion
from app.predictions.engines.encoder import ImageEncoder
from models.artifact import Artifact
from models.text_encoder import TextEncoder
from tests.integration import services, serving, test_batches
from tests.integration.services import wait_for
from tests.integration.test_tunings import make_project, row_of, run_here, start
from worker import batch_run, exit_codes, health
from worker.device import DeviceRecord
from worker.supervisor import Supervisor

ASSERT = "CUDA error: device-side assert triggered"
FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


def digest_of(client: TestClient, tuning: UUID) -> str:
    model = client.get(f"/v1/tunings/{tuning}").json()["model"]["id"]
    digest: str = client.get(f"/v1/models/{model}").json()["digest"]
    return digest


class Failing:
    """The text tower, which raises `error` from run number `first` on, while it is `broken`."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], first: int
    ) -> None:
        self.broken, self._error, self._left = True, error, first
        self._forward = TextEncoder.forward
        fault = self

        def forward(tower: TextEncoder, *args: Any, **options: Any) -> torch.Tensor:
            return fault.forward(tower, *args, **options)

        monkeypatch.setattr(TextEncoder, "forward", forward)

    def forward(self, tower: TextEncoder, *args: Any, **options: Any) -> torch.Tensor:
        self._left -= 1
        if self.broken and self._left < 0:
            raise self._error()
        return self._forward(tower, *args, **options)


def test_a_child_that_lost_its_device_says_so_and_another_goes_on(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = make_project(client, "good", "bad")
    whole, broken = start(client, project), start(client, project)
    assert run_here(settings, database, storage, whole)[0] == exit_codes.DONE
    fault = Failing(monkeypatch, lambda: torch.AcceleratorError(ASSERT), first=5)
    code, lease = run_here(settings, database, storage, broken)
    assert code == exit_codes.DEVICE_LOST
    assert row_of(database, broken).state == "running"  # the supervisor hands it back
    assert row_of(database, broken).checkpoint is not None
    with database.unit_of_work() as session:
        TUNINGS.give_back(session, lease, test_batches.FAILURE, max_attempts=None)
    fault.broken = False
    assert run_here(settings, database, storage, broken)[0] == exit_codes.DONE
    assert digest_of(client, broken) == digest_of(client, whole)


def test_a_device_that_is_full_is_tried_with_less_and_then_named(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, room = TextEncoder._run, 2

    def small(tower: TextEncoder, embeddings: torch.Tensor, *args: Any, **kw: Any) -> torch.Tensor:
        if len(embeddings) > room:
            raise torch.OutOfMemoryError(FULL)
        return run(tower, embeddings, *args, **kw)

    monkeypatch.setattr(TextEncoder, "_run", small)
    project = make_project(client, "good", "bad", "worse")
    fits = start(client, project)
    assert run_here(settings, database, storage, fits)[0] == exit_codes.DONE
    with database.reading() as session:
        (version,) = session.query(ModelVersion).all()
    made = Artifact.from_bytes(storage.read(version.artifact_sha256))
    assert made.header.made_on.endswith(", 2 classes at a time")

    room = 0
    never = start(client, project)
    assert run_here(settings, database, storage, never)[0] == exit_codes.DONE
    row = row_of(database, never)
    assert (row.state, row.attempt) == ("failed", 1)
    assert row.failure is not None
    assert "ran out of memory" in row.failure["problem"]
    assert "smaller backbone" in row.failure["fix"]


def test_a_batch_encodes_fewer_images_at_a_time_where_the_device_is_full(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    encoder: ImageEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Small:
        def __init__(self, room: int) -> None:
            self.room, self.asked = room, list[int]()

        def __getattr__(self, name: str) -> Any:
            return getattr(encoder, name)

        def encode(self, pixels: np.ndarray) -> np.ndarray:
            self.asked.append(len(pixels))
            if len(pixels) > self.room:
                raise torch.OutOfMemoryError(FULL)
            return encoder.encode(pixels)

    served = serving.serve(client, database, storage, artifacts[0])
    results = []
    for room, asked in ((4, [4, 4, 1]), (1, [4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1])):
        small = Small(room)
        monkeypatch.setattr(batch_run, "load_encoder", lambda *_, small=small: small)
        batch = test_batches.start(client, served.project, 9)
        assert test_batches.run_here(settings, database, storage, batch) == exit_codes.DONE
        results.append(client.get(f"/v1/batches/{batch}/results?format=csv").text)
        assert small.asked == asked
    assert results[0] == results[1]

    monkeypatch.setattr(batch_run, "load_encoder", lambda *_: Small(0))
    batch = test_batches.start(client, served.project, 3)
    assert test_batches.run_here(settings, database, storage, batch) == exit_codes.DONE
    shown = client.get(f"/v1/batches/{batch}").json()
    assert shown["state"] == "failed"
    assert "one image at a time" in shown["failure"]["problem"]


def test_a_lost_device_is_not_counted_against_the_job(
    client: TestClient, database: Database, queue: InMemoryQueue, tmp_path: Path
) -> None:
    record = DeviceRecord(tmp_path)
    project = make_project(client, "good", "bad")
    tuning, other = start(client, project), start(client, project)

    def supervise(job: UUID) -> None:
        command = [sys.executable, "-c", f"raise SystemExit({exit_codes.DEVICE_LOST})"]
        Supervisor(
            TUNINGS,
            database,
            queue,
            TuningSettings(max_attempts=3, poll_seconds=0.05),
            command=lambda _: command,
            lost_device=record.lost,
        ).run(job)

    for attempt in (1, 2):
        supervise(tuning)
        supervise(other)
        row = row_of(database, tuning)
        assert (row.state, row.attempt, row.losses) == ("queued", attempt, 0)
        assert (TUNE, (str(tuning),)) in queue.sent[-2:]
        assert record.is_lost()
        record.found()
    # The device was well again each time: a job that always loses it has to have an end.
    supervise(tuning)
    row = row_of(database, tuning)
    assert row.state == "failed"
    assert row.failure is not None
    assert "lost under this tuning 3 times" in row.failure["problem"]


def test_what_a_host_knows_of_its_device(tmp_path: Path) -> None:
    record, job = DeviceRecord(tmp_path / "workers"), new_id()
    record.check()
    assert [record.lost(job), record.lost(new_id()), record.lost(job)] == [1, 1, 2]
    with pytest.raises(Unavailable, match=r"The device was lost at 20\d\d-") as caught:
        DeviceRecord(tmp_path / "workers").check()
    assert "nvidia-smi" in caught.value.fix
    record.found()
    record.check()
    assert record.lost(job) == 3
    for _ in range(200):
        record.lost(new_id())
    assert record.lost(job) == 1  # forgotten: of such files none may grow without end
    (file,) = (tmp_path / "workers").iterdir()
    file.write_text("{")
    assert not record.is_lost()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.redis_server(tmp_path_factory.mktemp("r")) as url:
        yield url


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_worker_without_its_device_takes_no_more_jobs_until_it_is_back(
    client: TestClient,
    settings: Settings,
    database: Database,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`cuda` on a machine without a GPU is what one sees that has fallen off the bus."""
    tuning = start(client, make_project(client, "good", "bad"))
    environment = services.environment_of(settings, redis_url)
    queue = CeleryQueue(QueueSettings(url=SecretStr(redis_url)))
    queue.send(TUNE, str(tuning))
    log, record = tmp_path / "worker.log", DeviceRecord(settings.home / "workers")

    with services.worker(environment | {"SHOTLINE_BACKBONE_DEVICE": "cuda"}, log) as worker:
        assert worker.wait(60) == 1
    row = row_of(database, tuning)
    assert (row.state, row.attempt, row.losses) == ("queued", 1, 0)
    assert record.is_lost()

    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setenv("SHOTLINE_HOME", str(settings.home))
    assert health.main() == 1
    assert capsys.readouterr().err.startswith("worker: The device was lost at")

    # Whoever starts it again is told no, before it has taken anything.
    command = [sys.executable, "-m", "celery", "--app", "worker.celery_app", "worker"]
    again = subprocess.run(
        command,
        env={**os.environ, **environment, "SHOTLINE_BACKBONE_DEVICE": "cuda"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 1
    assert "The device was lost and is not back" in again.stderr
    assert row_of(database, tuning).attempt == 1

    with services.worker(environment, log):
        wait_for(lambda: row_of(database, tuning).state == "succeeded", "the tuning")
    assert not record.is_lost()
    assert row_of(database, tuning).attempt == 2
