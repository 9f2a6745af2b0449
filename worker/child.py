"""What every child that does a job has in common; it knows nothing of Celery, nor of torch."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from uuid import UUID

import structlog

from app.core.audit import acting
from app.core.database import Database
from app.core.errors import Unavailable
from app.core.jobs import Failure, JobStates, Lease, failure_of
from app.core.logging import configure_logging
from app.core.precedence import UnderWay
from app.core.settings import Settings
from app.core.storage import LocalStorage, Storage
from models.errors import Cancelled, OutOfMemory, ShotlineError
from models.faults import Fault, fault_of
from worker import exit_codes
from worker.pauses import pause_during

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

# A result that took minutes to compute is worth waiting for a database that restarts.
_PATIENCE_SECONDS, _RETRY_SECONDS = 600.0, 1.0


class LeaseLost(Cancelled):
    """The job was cancelled, or belongs to another worker by now."""


class HandedBack(Cancelled):
    """The worker was told to stop; what is done is kept."""


class GaveWay(Cancelled):
    """Something waits for this worker that goes first; what is done is kept."""


class Run(Protocol):
    """One job, done by this process."""

    def run(self) -> int:
        """Return an exit code, see `worker.exit_codes`."""
        ...

    def stop(self) -> None:
        """Keep what is done, then give the job back."""
        ...


MakeRun = Callable[[Lease, Settings, Database, Storage], Run]


def run_job(
    work: Callable[[], None], jobs: JobStates[Any], lease: Lease, database: Database
) -> int:
    """Do the work, and write into the row what went wrong.

    Returns:
        An exit code, see `worker.exit_codes`.
    """
    try:
        work()
    except LeaseLost:
        log.info("lease_lost")
        return exit_codes.LEASE_LOST
    except GaveWay:
        log.info("gave_way")
        return exit_codes.GAVE_WAY
    except (HandedBack, Unavailable) as error:
        log.info("handed_back", reason=str(error))
        return exit_codes.HANDED_BACK
    except Exception as error:
        fault = fault_of(error)
        if fault == "lost":
            log.exception("device_lost")
            return exit_codes.DEVICE_LOST
        return _fail(jobs, lease, database, _reason(error, fault, jobs.noun))
    return exit_codes.DONE


def patiently(action: Callable[[], Result]) -> Result:
    """Return what `action` does, trying again while the database is away.

    Raises:
        Unavailable: it stayed away for ten minutes.
    """
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return action()
        except Unavailable:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_RETRY_SECONDS)


def main(arguments: list[str], noun: str, make_run: MakeRun) -> int:
    """Run the job that the command line names: its id, and the number of the attempt."""
    settings = Settings()
    configure_logging(settings.log)
    _end_with_supervisor()
    os.nice(settings.tuning.nice)
    if settings.tuning.give_way:
        predictions = UnderWay.opened(settings.precedence_file)
        if predictions is not None:
            pause_during(predictions)
    lease = Lease(UUID(arguments[0]), int(arguments[1]))
    database = Database.of(settings)
    run = make_run(lease, settings, database, LocalStorage(settings.blob_folder))
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    names = {f"{noun}_id": str(lease.job_id), "attempt": lease.attempt}
    with acting("the worker"), structlog.contextvars.bound_contextvars(**names):
        try:
            code = run.run()
        finally:
            database.close()
    if code == exit_codes.DEVICE_LOST:
        # What is left of the device's driver in this process may abort it on its way out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _fail(jobs: JobStates[Any], lease: Lease, database: Database, failure: Failure) -> int:
    def write() -> bool:
        with database.unit_of_work() as session:
            return jobs.fail(session, lease, failure)

    try:
        return exit_codes.DONE if patiently(write) else exit_codes.LEASE_LOST
    except Unavailable:
        return exit_codes.HANDED_BACK


def _reason(error: Exception, fault: Fault | None, noun: str) -> Failure:
    if fault == "memory" and not isinstance(error, OutOfMemory):
        log.warning("out_of_memory", exc_info=True)
        return Failure(
            problem="The device ran out of memory before the work began.",
            fix="Use a smaller backbone, or free the device of other work (nvidia-smi shows it),"
            f" then start the {noun} again.",
        )
    if isinstance(error, ShotlineError):
        log.warning("failed", error=str(error))
        return failure_of(error)
    log.error("unforeseen_error", exc_info=True)
    return Failure(
        problem=f"The {noun} met an error that nobody foresaw ({type(error).__name__}).",
        fix=f"Look for the {noun}'s id in the worker's log, and report what it says there.",
    )


def _end_with_supervisor() -> None:
    """Kill this process when the supervisor, who holds our standard input open, has gone."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(exit_codes.HANDED_BACK)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
