"""Runs a job in a child process and answers for its row.

The child alone touches torch and the device. Whatever becomes of it (out of memory, a segmentation
fault, a lost GPU) ends the job and not the worker: the supervisor renews the lease while the
child lives, kills it when someone cancels, and puts the row right when it died.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog

from app.core.audit import acting
from app.core.database import Database
from app.core.errors import Unavailable
from app.core.ids import new_id
from app.core.jobs import GATES, TUNINGS, Failure, JobStates, Lease, Standing, ahead_of
from app.core.queue import TaskQueue, wake
from app.core.settings import TuningSettings
from app.core.tables import JobState
from worker import exit_codes

log = structlog.get_logger(__name__)

Command = Callable[[Lease], Sequence[str]]


class Ending(NamedTuple):
    """Why a child ended without a result, and after how many losses that is final.

    `max_attempts` is None where the job is to be tried again however often it was.
    """

    failure: Failure
    max_attempts: int | None


def child_command(jobs: JobStates[Any], lease: Lease) -> list[str]:
    """Return the command line of the child that does the job."""
    module = f"worker.{jobs.noun}_run"
    return [sys.executable, "-m", module, str(lease.job_id), str(lease.attempt)]


class Supervisor:
    """Claims a job and sees it through.

    Args:
        jobs: its kind.
        database: holds the row.
        queue: woken where the job goes back to the queue.
        settings: lease, heartbeat, attempts, limits.
        stopping: says whether this worker was told to stop.
        command: the child's command line; by default that of the kind.
        lost_device: told under which job the device was lost; it sees to it that this worker takes
            no more, and returns how often that was.
    """

    def __init__(
        self,
        jobs: JobStates[Any],
        database: Database,
        queue: TaskQueue,
        settings: TuningSettings,
        *,
        stopping: Callable[[], bool] = lambda: False,
        command: Command | None = None,
        lost_device: Callable[[UUID], int] = lambda _: 1,
    ) -> None:
        self._jobs, self._noun = jobs, jobs.noun
        self._database, self._queue, self._settings = database, queue, settings
        self._stopping, self._lost_device = stopping, lost_device
        self._command = command or partial(child_command, jobs)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{new_id()}"

    def run(self, job_id: UUID) -> None:
        """Do the job to its end, or give it back; do nothing where it is not queued."""
        bound = structlog.contextvars.bound_contextvars(**{f"{self._noun}_id": str(job_id)})
        with acting("the worker"), bound:
            with self._database.unit_of_work() as session:
                lease = self._jobs.claim(
                    session,
                    job_id,
                    owner=self._owner,
                    seconds=self._settings.lease_seconds,
                )
            if lease is None:
                log.info("nothing_to_do")
                return
            log.info("claimed", attempt=lease.attempt)
            self._supervise(lease)

    def _supervise(self, lease: Lease) -> None:
        # The child ends when its standard input does: it cannot outlive this process.
        with subprocess.Popen(  # noqa: S603 - our own program
            self._command(lease), stdin=subprocess.PIPE, start_new_session=True
        ) as child:
            try:
                ending = self._watch(child, lease)
            finally:
                child.kill()
        ending = ending or self._ending_of(child.returncode, lease)
        self._settle(lease, ending, child.returncode)

    def _ending_of(self, code: int, lease: Lease) -> Ending:
        """Return what the child's end means where this process did not bring it about."""
        if code == exit_codes.DEVICE_LOST:
            return self._device_lost(lease)
        if code in (exit_codes.HANDED_BACK, exit_codes.LEASE_LOST, exit_codes.GAVE_WAY):
            return _HANDED_BACK
        return Ending(_crash(code, self._noun), self._settings.max_attempts)

    def _device_lost(self, lease: Lease) -> Ending:
        """The job is not to blame, but where it happens under one job alone again and again."""
        times = self._lost_device(lease.job_id)
        log.error("device_lost", times=times)
        failure = Failure(
            problem=f"The device was lost under this {self._noun} {times} times, and computed"
            " again each time.",
            fix=f"Look for the {self._noun}'s id in the worker's log, which says what the device"
            " reported; try other images or another backbone.",
        )
        return Ending(failure, 0 if times >= self._settings.max_attempts else None)

    def _too_long(self) -> Ending:
        seconds = self._settings.time_limit_seconds
        failure = Failure(
            problem=f"The {self._noun} took longer than {seconds} seconds, the limit of this"
            " worker.",
            fix="Use fewer images or steps, or raise SHOTLINE_TUNING_TIME_LIMIT_SECONDS.",
        )
        return Ending(failure, self._settings.max_attempts if self._jobs.resumable else 0)

    def _watch(self, child: subprocess.Popen[bytes], lease: Lease) -> Ending | None:
        """Wait for the child's end, or bring it about; return why, where the child does not say."""
        settings, started = self._settings, time.monotonic()
        renew_at = started + settings.heartbeat_seconds
        while not _ended_within(child, settings.poll_seconds):
            now = time.monotonic()
            if now - started > settings.time_limit_seconds:
                return self._too_long()
            if self._stopping():
                log.info("handing_back")
                return self._drain(child, lease)
            if self._standing(lease, renew=now >= renew_at) != "held":
                return None
            if now >= renew_at:
                renew_at = now + settings.heartbeat_seconds
        return None

    def _drain(self, child: subprocess.Popen[bytes], lease: Lease) -> Ending:
        """Have the child keep what is done, as long as there is time and someone wants it."""
        child.send_signal(signal.SIGTERM)
        give_up_at = time.monotonic() + self._settings.drain_seconds
        while not _ended_within(child, self._settings.poll_seconds):
            late = time.monotonic() > give_up_at
            if late or self._standing(lease, renew=True) != "held":
                break
        return _STOPPED

    def _standing(self, lease: Lease, *, renew: bool) -> Standing:
        try:
            if renew:
                with self._database.unit_of_work() as session:
                    return self._jobs.renew(session, lease, seconds=self._settings.lease_seconds)
            with self._database.reading() as session:
                row = self._jobs.held(session, lease)
                if row is None:
                    return "lost"
                return "cancel" if row.cancel_requested else "held"
        except Unavailable:
            return "held"  # nobody else can take it while the database is away

    def _settle(self, lease: Lease, ending: Ending, code: int) -> None:
        """Put the row right after the child's end; wait for the database where it is away.

        A worker that is told to stop waits no longer: the reaper finds the lease that has run out.
        """
        while True:
            try:
                self._give_back(lease, ending, code)
            except Unavailable:
                if self._stopping():
                    log.warning("left_to_the_reaper", exit_code=code)
                    return
                time.sleep(self._settings.poll_seconds)
            else:
                return

    def _give_back(self, lease: Lease, ending: Ending, code: int) -> None:
        """Nothing changes where the child has said how the job ended."""
        with self._database.unit_of_work() as session:
            state = self._jobs.give_back(
                session, lease, ending.failure, max_attempts=ending.max_attempts
            )
            for jobs in self._next(state, code):  # its own message may be lost
                waiting = jobs.oldest_queued(session)
                if waiting is not None:  # this one is worked on next
                    wake(session, self._queue, jobs.task, waiting)
            if state == "queued":
                wake(session, self._queue, self._jobs.task, lease.job_id)
        log.info("ended", exit_code=code, state=state or "as the child said")

    def _next(self, state: JobState | None, code: int) -> Sequence[JobStates[Any]]:
        """Return what is woken: what it gave way to, or the gates of a version just made."""
        if code == exit_codes.GAVE_WAY:
            return ahead_of(self._jobs)
        return [GATES] if self._jobs is TUNINGS and state is None else []


_STOPPED: Final = Ending(
    Failure(problem="The worker was told to stop.", fix="Start the worker; the job then goes on."),
    max_attempts=None,
)

_HANDED_BACK: Final = Ending(
    Failure(
        problem="The database stayed away for too long.",
        fix="See that it runs; the job then goes on.",
    ),
    max_attempts=None,
)


def _crash(code: int, noun: str) -> Failure:
    if code == -signal.SIGKILL:
        return Failure(
            problem=f"The {noun}'s process was killed, each time it was tried; most often that is"
            " the system, which has run out of memory.",
            fix="Give the machine more memory, or use smaller images or a smaller backbone; the"
            " system's log names the cause.",
        )
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return Failure(
        problem=f"The {noun}'s process {ended}, each time it was tried.",
        fix=f"Look for the {noun}'s id in the worker's log, then start the {noun} again.",
    )


def _ended_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
