"""The reaper: finds what was lost, and wakes a worker for it.

A job whose worker died keeps a lease that nobody renews; a job whose message was lost, with Redis
or before it was sent, stays queued unheard of. Gateway and worker both run a reaper; any number of
them may.
"""

from app.core.background import Repeater
from app.core.database import Database
from app.core.jobs import KINDS, Failure
from app.core.queue import TaskQueue, wake
from app.core.settings import TuningSettings


def reap(database: Database, queue: TaskQueue, settings: TuningSettings) -> None:
    """Put lost jobs back into the queue, and send again those that nobody has heard of."""
    with database.unit_of_work() as session:
        for jobs in KINDS:
            failure = _lost(jobs.noun)
            lost = jobs.take_back_lost(session, failure, max_attempts=settings.max_attempts)
            unheard = jobs.take_unheard(session, seconds=settings.resend_seconds)
            for job_id in dict.fromkeys([*lost, *unheard]):
                wake(session, queue, jobs.task, job_id)


def make_reaper(database: Database, queue: TaskQueue, settings: TuningSettings) -> Repeater:
    """Return a reaper that looks every few seconds once it is started."""
    return Repeater("reaper", lambda: reap(database, queue, settings), settings.reap_seconds)


def _lost(noun: str) -> Failure:
    return Failure(
        problem="The worker was lost again and again: it stopped reporting before the end.",
        fix=f"Look for the {noun}'s id in the worker's log; check the machine's memory and power,"
        f" then start the {noun} again.",
    )
