"""What counts against a job: losses one after the other, without anything kept in between."""

import shutil
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.jobs import TUNINGS, Failure, Lease
from app.core.queue import InMemoryQueue
from app.core.reaper import Reaper
from app.core.settings import Settings, TuningSettings
from app.core.storage import LocalStorage
from models.backbone import Backbone
from models.checkpoint import Checkpoint
from models.features import FeatureKey, MemoryFeatureStore
from models.tuning import TuningProgress
from tests.integration.services import wait_for
from tests.integration.test_tunings import claim, make_project, row_of, run_here, start
from worker import exit_codes, tuning_run
from worker.child import LeaseLost
from worker.observer import NotedFeatures, RowObserver
from worker.supervisor import Supervisor

FAILURE = Failure(problem="It broke.", fix="Mend it.")
SETTINGS = TuningSettings(max_attempts=3, progress_seconds=1e-9, checkpoint_seconds=1e-9)


@pytest.fixture
def tuning(client: TestClient) -> UUID:
    return start(client, make_project(client, "good", "bad"))


@pytest.fixture
def observer(database: Database, storage: LocalStorage, tuning: UUID) -> RowObserver:
    """Of an attempt after two losses."""
    for _ in range(2):
        lease = claim(database, tuning)
        assert lease is not None
        with database.unit_of_work() as session:
            TUNINGS.give_back(session, lease, FAILURE, max_attempts=3)
    lease = claim(database, tuning)
    assert lease == Lease(tuning, 3)
    assert row_of(database, tuning).losses == 2
    return RowObserver(lease, SETTINGS, database, storage)


def test_a_checkpoint_clears_a_tuning_of_losses(
    database: Database, tuning: UUID, observer: RowObserver
) -> None:
    observer.on_progress(TuningProgress("tune", 1, 4))
    assert row_of(database, tuning).losses == 2  # what nobody can go on from counts for nothing
    observer.on_checkpoint(Checkpoint())
    row = row_of(database, tuning)
    assert (row.losses, row.checkpoint is None) == (0, False)


def test_a_beginning_anew_does_not(database: Database, tuning: UUID, observer: RowObserver) -> None:
    observer.gets_further = False
    observer.on_checkpoint(Checkpoint())
    row = row_of(database, tuning)
    assert (row.losses, row.checkpoint is None) == (2, False)


def test_features_that_were_computed_do_and_those_that_were_there_do_not(
    database: Database, tuning: UUID, observer: RowObserver
) -> None:
    kept = MemoryFeatureStore()
    store = NotedFeatures(kept, observer)
    key = FeatureKey("sha256", "backbone", "view")
    assert store.get(key) is None
    observer.on_progress(TuningProgress("features", 7, 9))
    assert row_of(database, tuning).losses == 2
    feature = torch.zeros(4)
    store.put(key, feature)
    assert store.get(key) is feature
    observer.on_progress(TuningProgress("features", 8, 9))
    assert row_of(database, tuning).losses == 0


@pytest.mark.parametrize("what", ["another machine's", "nowhere"])
def test_a_checkpoint_that_cannot_be_gone_on_from_is_left_behind(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    tuning: UUID,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """A worker of another kind rounds otherwise, and so its features are others."""
    stand: list[Checkpoint] = []

    class Breaks(RowObserver):
        def on_checkpoint(self, checkpoint: Checkpoint) -> None:
            super().on_checkpoint(checkpoint)
            stand.append(checkpoint)
            raise LeaseLost

    monkeypatch.setattr(tuning_run, "RowObserver", Breaks)
    code, lease = run_here(settings, database, storage, tuning)
    assert code == exit_codes.LEASE_LOST
    with database.unit_of_work() as session:
        assert TUNINGS.give_back(session, lease, FAILURE, max_attempts=3) == "queued"
    monkeypatch.undo()
    assert row_of(database, tuning).losses == 1
    checkpoint = row_of(database, tuning).checkpoint
    assert checkpoint is not None
    if what == "nowhere":
        storage.remove_old(checkpoint, -1)
    else:
        shutil.rmtree(settings.feature_folder)
        encode = Backbone.encode_batch
        monkeypatch.setattr(
            Backbone, "encode_batch", lambda *args: encode(*args).nextafter(torch.tensor(1.0))
        )
    assert run_here(settings, database, storage, tuning)[0] == exit_codes.DONE
    assert row_of(database, tuning).state == "succeeded"


def test_an_outage_of_the_database_is_not_held_against_workers(
    database: Database, queue: InMemoryQueue, tuning: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could renew a lease in the meantime."""
    settings = TuningSettings(heartbeat_seconds=5)
    reaper = Reaper(database, queue, settings)
    lease = claim(database, tuning, seconds=-1)
    assert lease is not None
    now, work = 1000.0, database.unit_of_work

    def away() -> Any:
        raise Unavailable("Away.", fix="Wait.")

    monkeypatch.setattr("app.core.reaper.time.monotonic", lambda: now)
    monkeypatch.setattr(database, "unit_of_work", away)
    with pytest.raises(Unavailable):
        reaper.look()
    monkeypatch.setattr(database, "unit_of_work", work)
    now += 9
    reaper.look()
    assert row_of(database, tuning).state == "running"
    now += 2
    reaper.look()  # by now it would have been renewed
    assert row_of(database, tuning).state == "queued"
    assert row_of(database, tuning).losses == 1


def test_cancel_is_heard_by_a_worker_that_drains(
    client: TestClient, database: Database, queue: InMemoryQueue, tuning: UUID, tmp_path: Path
) -> None:
    """A child that takes its time over its last checkpoint has nobody left to write it for."""
    ready, told = tmp_path / "ready", tmp_path / "told"
    deaf = (
        "import pathlib, signal, threading\n"
        f"def note(*_): pathlib.Path({str(told)!r}).touch()\n"
        "signal.signal(signal.SIGTERM, note)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while True: threading.Event().wait(0.01)"
    )
    supervisor = Supervisor(
        TUNINGS,
        database,
        queue,
        TuningSettings(poll_seconds=0.05, drain_seconds=3600),
        stopping=ready.exists,
        command=lambda _: [sys.executable, "-c", deaf],
    )
    thread = threading.Thread(target=supervisor.run, args=(tuning,))
    thread.start()
    wait_for(told.exists, "the word to stop")
    client.post(f"/v1/tunings/{tuning}/cancel")
    thread.join(60)
    assert not thread.is_alive()
    assert row_of(database, tuning).state == "cancelled"
