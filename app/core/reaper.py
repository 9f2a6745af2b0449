"""The reaper: finds what was lost, and wakes a worker for it.

A job whose worker died keeps a lease that nobody renews; a job whose message was lost, with Redis
or before it was sent, stays queued unheard of. Gateway and worker both run a reaper; any number of
them may.
"""

import math
import time
from collections.abc import Sequence
from uuid import UUID

from app.core.background import Repeater
from app.core.database import Database
from app.core.errors import Unavailable
from app.core.jobs import KINDS, Failure
from app.core.queue import TaskQueue, wake
from app.core.settings import TuningSettings


class Reaper:
    """Looks for what was lost, but not at once after an outage of the database.

    Nobody could renew a lease in the meantime; whoever is still at work does so first.
    """

    def __init__(self, database: Database, queue: TaskQueue, settings: TuningSettings) -> None:
        self._database, self._queue, self._settings = database, queue, settings
        self._judges_from = -math.inf

    def look(self) -> None:
        """Look once.

        Raises:
            Unavailable: the database is away.
        """
        judging = time.monotonic() >= self._judges_from
        try:
            reap(self._database, self._queue, self._settings, judging=judging)
        except Unavailable:
            self._judges_from = time.monotonic() + 2 * self._settings.heartbeat_seconds
            raise


def reap(
    database: Database, queue: TaskQueue, settings: TuningSettings, *, judging: bool = True
) -> None:
    """Put lost jobs back into the queue, and send again those that nobody has heard of.

    Args:
        database: holds the rows.
        queue: woken for each.
        settings: attempts, and when to send again.
        judging: whether leases that have run out are held against their workers.
    """
    with database.unit_of_work() as session:
        for jobs in KINDS:
            lost: Sequence[UUID] = ()
            if judging:
                failure = _lost(jobs.noun)
                lost = jobs.take_back_lost(session, failure, max_attempts=settings.max_attempts)
            unheard = jobs.take_unheard(session, seconds=settings.resend_seconds)
            for job_id in dict.fromkeys([*lost, *unheard]):
                wake(session, queue, jobs.task, job_id)


def make_reaper(database: Database, queue: TaskQueue, settings: TuningSettings) -> Repeater:
    """Return a reaper that looks every few seconds once it is started."""
    return Repeater("reaper", Reaper(database, queue, settings).look, settings.reap_seconds)


def _lost(noun: str) -> Failure:
    return Failure(
        problem="The worker was lost again and again: it stopped reporting before the end.",
        fix=f"Look for the {noun}'s id in the worker's log; check the machine's memory and power,"
        f" then start the {noun} again.",
    )
