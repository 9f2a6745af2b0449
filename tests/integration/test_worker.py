"""A real Celery worker on a real Redis, each test on one database.

`tests/faults/test_job_table.py` holds both databases to the same.
"""

import csv
import io
import json
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.queue import TUNE, CeleryQueue
from app.core.settings import QueueSettings, Settings, TuningSettings
from app.core.storage import LocalStorage
from models.artifact import Artifact
from tests.integration import services, serving, tiny
from tests.integration.files import zip_of
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
def environment(settings: Settings, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return services.environment_of(settings, redis_url) | {
        "SHOTLINE_QUEUE_NAME": f"q{tmp_path.name}",
        "SHOTLINE_BATCH_PART_IMAGES": "4",
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


def child_of(worker: subprocess.Popen[bytes], job: UUID) -> int | None:
    for pid, command in services.descendants(worker.pid).items():
        if f"_run {job}" in command:
            return pid
    return None


def tuning_phase(database: Database, tuning: UUID) -> str | None:
    progress = row_of(database, tuning).progress
    return None if progress is None else str(progress["phase"])


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
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
    client.patch(f"/v1/projects/{project}", json={"gates": {"enabled": True}})

    # Upload to version, through the queue, followed by events.
    tuning = start(client, project, recipe=tiny.RECIPE | {"steps": 400})
    *seen, (_, kind, last) = events_of(client.get(f"/v1/tunings/{tuning}/events").text)
    assert (kind, last["state"]) == ("end", "succeeded")
    assert {kind for _, kind, _ in seen} == {"progress"}
    assert "running" in {shown["state"] for _, _, shown in seen}
    assert any(shown["progress"] for _, _, shown in seen)
    assert len({name for name, _, _ in seen}) == len(seen)
    versions = client.get(f"/v1/projects/{project}/models").json()["items"]
    assert [(entry["version"], entry["aliases"]) for entry in versions] == [(1, ["candidate"])]

    # Its gates follow by themselves, in a child of their own.
    gates = client.get(f"/v1/models/{versions[0]['id']}/gates", params={"wait": 120}).json()
    assert gates["state"] == "succeeded", gates
    assert {gate["name"] for gate in gates["gates"]} == {"zero-shot", "linear-probe", "coverage"}

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


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
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


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
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


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
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


def start_batch(client: TestClient, project: UUID, files: Mapping[str, bytes]) -> UUID:
    response = client.post(
        f"/v1/projects/{project}/batches",
        content=zip_of(files, zipfile.ZIP_STORED),
        headers={"content-type": "application/zip"},
    )
    assert response.status_code == 202, response.text
    return UUID(response.json()["id"])


def batch_of(client: TestClient, batch: UUID) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/v1/batches/{batch}").json()
    return shown


def has_begun(client: TestClient, batch: UUID) -> bool:
    shown = batch_of(client, batch)
    assert shown["state"] in ("queued", "running"), shown
    return shown["state"] == "running" and shown["progress"]["done"] > 0


def places_of(client: TestClient, batch: UUID) -> list[int]:
    lines = client.get(f"/v1/batches/{batch}/results", params={"format": "ndjson"}).text
    return [json.loads(line)["index"] for line in lines.splitlines()]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_batch_from_upload_to_result(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    worker: subprocess.Popen[bytes],
) -> None:
    """Many images, one of them none; in their order, in three forms, as `predict` decides."""
    served = serving.serve(client, database, storage, artifacts[0])
    small = {f"{n:03}.png": tiny.photograph(n % 3, n % 9) for n in range(150)}
    small["077.png"] = small["077.png"][:-30]
    batch = start_batch(client, served.project, small)
    wait_for(lambda: batch_of(client, batch)["state"] == "succeeded", "the batch's success")
    progress = batch_of(client, batch)["progress"]
    assert (progress["done"], progress["total"], progress["failed"]) == (150, 150, 1)
    assert places_of(client, batch) == list(range(150))
    address = f"/v1/batches/{batch}/results"
    rows = list(csv.DictReader(io.StringIO(client.get(address).text, newline="")))
    assert [row["name"] for row in rows] == list(small)
    assert [row["name"] for row in rows if row["error"]] == ["077.png"]
    whole = client.get(address, params={"format": "parquet"}).content
    assert whole[:4] == whole[-4:] == b"PAR1"
    sent = [("image", (name, data)) for name, data in list(small.items())[:9]]
    answers = client.post(served.predict, files=sent).json()["results"]
    for place, row in enumerate(rows):
        if place != 77:
            assert row["label"] == answers[place % 9]["label"]
            assert float(row["probability"]) == pytest.approx(
                answers[place % 9]["probability"], abs=1e-5
            )


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_life_of_batches(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    worker: subprocess.Popen[bytes],
    state: Callable[[UUID], str],
) -> None:
    """One worker for all of it: starting one takes seconds."""
    served = serving.serve(client, database, storage, artifacts[0])
    big = tiny.photograph(1, 0, size=1000)  # some of it are still at work when one looks
    long = {f"{n}.png": big for n in range(60)}

    # A killed child costs a part at most: the next one goes on, nothing is there twice.
    killed = start_batch(client, served.project, long)
    wait_for(lambda: has_begun(client, killed), "a first part")
    pid = child_of(worker, killed)
    assert pid is not None
    services.kill(pid)
    wait_for(lambda: batch_of(client, killed)["attempt"] == 2, "another attempt")
    assert batch_of(client, killed)["progress"]["done"] >= 4
    wait_for(lambda: batch_of(client, killed)["state"] == "succeeded", "success all the same")
    assert places_of(client, killed) == list(range(60))

    # A tuning that comes while a batch runs goes first; the batch goes on after it.
    project = make_project(client, "good", "bad")
    interrupted = start_batch(client, served.project, long)
    wait_for(lambda: has_begun(client, interrupted), "a first part")
    tuning = start(client, project)
    wait_for(lambda: state(tuning) == "succeeded", "the tuning")
    shown = batch_of(client, interrupted)
    assert shown["state"] in ("queued", "running")
    assert shown["progress"]["done"] < 60
    wait_for(lambda: batch_of(client, interrupted)["state"] == "succeeded", "the rest")
    assert batch_of(client, interrupted)["attempt"] == 2
    assert places_of(client, interrupted) == list(range(60))

    # Of a batch and a tuning that both wait the tuning is taken first, although it came later.
    endless = start(client, project, recipe=ENDLESS)
    wait_for(lambda: state(endless) == "running", "a busy worker")
    waiting = start_batch(
        client, served.project, {f"{n}.png": tiny.photograph(n, n) for n in range(3)}
    )
    later = start(client, project)
    client.post(f"/v1/tunings/{endless}/cancel")
    wait_for(lambda: batch_of(client, waiting)["state"] == "succeeded", "the batch")
    assert state(later) == "succeeded"
    assert batch_of(client, waiting)["attempt"] == 1

    # Cancel ends the work; what was done can be had.
    cancelled = start_batch(client, served.project, long)
    wait_for(lambda: has_begun(client, cancelled), "a first part")
    client.post(f"/v1/batches/{cancelled}/cancel")
    wait_for(lambda: batch_of(client, cancelled)["state"] == "cancelled", "cancellation")
    assert child_of(worker, cancelled) is None
    done = batch_of(client, cancelled)["progress"]["done"]
    assert 0 < done < 60
    assert places_of(client, cancelled) == list(range(done))
