"""The tasks: thin, whatever they do is elsewhere."""

import os
from pathlib import Path
from typing import Any
from uuid import UUID

from celery.exceptions import Reject

from app.core.database import Database
from app.core.jobs import BATCHES, EXAMINATIONS, GATES, TRIALS, TUNINGS, JobStates
from app.core.queue import BATCH, BENCH, EXAMINE, GATE, TRIAL, TUNE, CeleryQueue
from worker.bench import BenchChild, answer_cell
from worker.celery_app import STOP_FILE, app, end_worker, settings
from worker.device import DeviceRecord
from worker.supervisor import Supervisor


@app.task(name=TUNE)  # type: ignore[untyped-decorator]  # Celery has no annotations
def tune(tuning_id: str) -> None:
    """Run the tuning where it is still queued; a second delivery does nothing."""
    _supervise(TUNINGS, tuning_id)


@app.task(name=GATE)  # type: ignore[untyped-decorator]
def gate(run_id: str) -> None:
    """Measure a version against what it is to replace."""
    _supervise(GATES, run_id)


@app.task(name=TRIAL)  # type: ignore[untyped-decorator]
def trial(trial_id: str) -> None:
    """Do a trial of a search, unless whoever leads it has taken it."""
    _supervise(TRIALS, trial_id)


@app.task(name=BATCH)  # type: ignore[untyped-decorator]
def batch(batch_id: str) -> None:
    """Decide on the batch's images, from where it stands."""
    _supervise(BATCHES, batch_id)


@app.task(name=EXAMINE)  # type: ignore[untyped-decorator]
def examine(examination_id: str) -> None:
    """Look for what is wrong with the project's images."""
    _supervise(EXAMINATIONS, examination_id)


def _supervise(jobs: JobStates[Any], job_id: str) -> None:
    database, queue = Database.of(settings), CeleryQueue(settings.queue)
    try:
        supervisor = Supervisor(
            jobs,
            database,
            queue,
            settings.tuning,
            stopping=Path(os.environ[STOP_FILE]).exists,
            lost_device=_lost_device,
        )
        supervisor.run(UUID(job_id))
    finally:
        queue.close()
        database.close()


def _lost_device(job_id: UUID) -> int:
    """Note it, and have the worker take no more jobs before this one is handed back."""
    times = DeviceRecord.of(settings).lost(job_id)
    end_worker()
    return times


@app.task(name=BENCH)  # type: ignore[untyped-decorator]
def bench(message: str) -> None:
    """Run a cell of a bench while its sender waits for it; hand it back when told to stop."""
    if not answer_cell(message, settings, _bench_child):
        raise Reject("stopping", requeue=True)


_bench_child = BenchChild(settings.tuning, stopping=lambda: Path(os.environ[STOP_FILE]).exists())
