"""A real Celery worker on a real Redis, on SQLite and PostgreSQL."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.queue import TUNE, CeleryQueue
from app.core.settings import QueueSettings, Settings, TuningSettings
from app.core.storage import LocalStorage
from app.main import create_app
from app.predictions.engines.encoder import ImageEncoder
from tests.integration import services, tiny
from tests.integration.services import wait_for
from tests.integration.test_tunings import events_of, make_project, row_of, start

# Steps that no machine does within the time that a test takes.
ENDLESS = tiny.RECIPE | {"steps": 100_000}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    tuning = TuningSettings(lease_seconds=3, heartbeat_seconds=0.5, reap_seconds=0.5)
    return settings.model_copy(update={"tuning": tuning})


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.redis_server(tmp_path_factory.mktemp("r")) as url:
        yield url


@pytest.fixture
def queue(redis_url: str, tmp_path: Path) -> CeleryQueue:
    name = f"q{tmp_path.name}"
    return CeleryQueue(QueueSettings(url=SecretStr(redis_url), name=name))


@pytest.fixture
def app(
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    queue: CeleryQueue,
    encoder: ImageEncoder,
) -> FastAPI:
    return create_app(
        settings, database=database, storage=storage, queue=queue, load_encoder=lambda: encoder
    )


@pytest.fixture
def environment(settings: Settings, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return services.environment_of(settings, redis_url) | {
        "SHOTLINE_QUEUE_NAME": f"q{tmp_path.name}"
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.fixture
def worker(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with services.worker(environment, log) as child:
        yield child


@pytest.fixture
def state(database: Database) -> Callable[[UUID], str]:
    return lambda tuning: row_of(database, tuning).state


def child_of(worker: subprocess.Popen[bytes], tuning: UUID) -> int | None:
    for pid, command in services.descendants(worker.pid).items():
        if f"worker.tuning_run {tuning}" in command:
            return pid
    return None


def tuning_phase(database: Database, tuning: UUID) -> str | None:
    progress = row_of(database, tuning).progress
    return None if progress is None else str(progress["phase"])


def test_a_life_of_a_worker(
    client: TestClient,
    database: Database,
    queue: CeleryQueue,
    worker: subprocess.Popen[bytes],
    environment: dict[str, str],
    log: Path,
    state: Callable[[UUID], str],
) -> None:
    """One worker for all of it: starting one takes seconds."""
    project = make_project(client, "good", "傷")

    # Upload to version, through the queue, followed by events.
    tuning = start(client, project, recipe=tiny.RECIPE | {"steps": 400})
    *seen, (_, kind, last) = events_of(client.get(f"/v1/tunings/{tuning}/events").text)
    assert (kind, last["state"]) == ("end", "succeeded")
    assert {kind for _, kind, _ in seen} == {"progress"}
    assert "running" in {shown["state"] for _, _, shown in seen}
    assert any(shown["progress"] for _, _, shown in seen)
    assert len({name for name, _, _ in seen}) == len(seen)
    versions = client.get(f"/v1/projects/{project}/models").json()["items"]
    assert [entry["version"] for entry in versions] == [1]

    # A second delivery does nothing.
    queue.send(TUNE, str(tuning))
    wait_for(lambda: "nothing_to_do" in log.read_text(), "the second delivery")
    assert row_of(database, tuning).attempt == 1
    assert len(client.get(f"/v1/projects/{project}/models").json()["items"]) == 1

    # Cancel ends the work, and its process, within two seconds.
    endless = start(client, project, recipe=ENDLESS)
    wait_for(lambda: tuning_phase(database, endless) == "tune", "tuning")
    pid = child_of(worker, endless)
    assert pid is not None
    asked_at = time.monotonic()
    client.post(f"/v1/tunings/{endless}/cancel")
    wait_for(lambda: state(endless) == "cancelled", "cancellation", seconds=2)
    assert child_of(worker, endless) is None
    assert time.monotonic() - asked_at < 2

    # A killed child costs an attempt, and the worker lives on; the third one is the last.
    doomed = start(client, project, recipe=ENDLESS)
    for attempt in (1, 2, 3):
        wait_for(
            lambda n=attempt: row_of(database, doomed).attempt == n and child_of(worker, doomed),
            f"attempt {attempt}",
        )
        pid = child_of(worker, doomed)
        assert pid is not None
        services.kill(pid)
        wait_for(lambda: child_of(worker, doomed) != pid, "the end of the child")  # noqa: B023
    wait_for(lambda: state(doomed) == "failed", "failure")
    failure = row_of(database, doomed).failure
    assert failure is not None
    assert "killed" in failure["problem"]
    assert "memory" in failure["fix"]


def test_a_worker_that_is_told_to_stop_hands_its_tuning_back(
    client: TestClient,
    database: Database,
    worker: subprocess.Popen[bytes],
    state: Callable[[UUID], str],
) -> None:
    project = make_project(client, "good", "bad")
    tuning = start(client, project, recipe=ENDLESS)
    wait_for(lambda: tuning_phase(database, tuning) == "tune", "tuning")
    pid = child_of(worker, tuning)
    worker.terminate()
    assert worker.wait(15) == 0
    assert state(tuning) == "queued"
    assert row_of(database, tuning).checkpoint is not None
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()


def test_a_killed_worker_is_found_out_and_another_goes_on(
    client: TestClient,
    database: Database,
    worker: subprocess.Popen[bytes],
    environment: dict[str, str],
    log: Path,
    state: Callable[[UUID], str],
) -> None:
    project = make_project(client, "good", "bad")
    tuning = start(client, project, recipe=tiny.RECIPE | {"steps": 3000, "folds": 2})
    wait_for(lambda: row_of(database, tuning).checkpoint, "a checkpoint")
    pids = [worker.pid, *services.descendants(worker.pid)]
    for pid in pids:
        services.kill(pid)
    wait_for(lambda: state(tuning) == "queued", "being found out")
    with services.worker(environment, log):
        wait_for(lambda: state(tuning) == "running", "another attempt")
        assert row_of(database, tuning).attempt == 2
        client.post(f"/v1/tunings/{tuning}/cancel")
        wait_for(lambda: state(tuning) == "cancelled", "cancellation")


def test_the_child_ends_with_its_supervisor(
    client: TestClient, database: Database, worker: subprocess.Popen[bytes]
) -> None:
    tuning = start(client, make_project(client, "good", "bad"), recipe=ENDLESS)
    wait_for(lambda: tuning_phase(database, tuning) == "tune", "tuning")
    child = child_of(worker, tuning)
    assert child is not None
    supervisor = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert supervisor != worker.pid
    services.kill(supervisor)
    wait_for(lambda: not Path(f"/proc/{child}").exists(), "the child's end", seconds=5)
    wait_for(lambda: row_of(database, tuning).attempt == 2, "another attempt")
    client.post(f"/v1/tunings/{tuning}/cancel")
    wait_for(lambda: row_of(database, tuning).state == "cancelled", "cancellation")
