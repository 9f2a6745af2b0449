"""The reaper: finds what was lost, and wakes a worker for it.

A tuning whose worker died keeps a lease that nobody renews; a tuning whose message was lost, with
Redis or before it was sent, stays queued unheard of. Gateway and worker both run a reaper; any
number of them may.
"""

from app.core.background import Repeater
from app.core.database import Database
from app.core.queue import TaskQueue, send_tuning
from app.core.settings import TuningSettings
from app.tunings import states

_LOST = states.Failure(
    problem="The worker was lost again and again: it stopped reporting before the end.",
    fix="Look for the tuning's id in the worker's log; check the machine's memory and power, then"
    " start the tuning again.",
)


def reap(database: Database, queue: TaskQueue, settings: TuningSettings) -> None:
    """Put lost tunings back into the queue, and send again those that nobody has heard of."""
    with database.unit_of_work() as session:
        lost = states.take_back_lost(session, _LOST, max_attempts=settings.max_attempts)
        unheard = states.take_unheard(session, seconds=settings.resend_seconds)
        for tuning_id in dict.fromkeys([*lost, *unheard]):
            send_tuning(session, queue, tuning_id)


def make_reaper(database: Database, queue: TaskQueue, settings: TuningSettings) -> Repeater:
    """Return a reaper that looks every few seconds once it is started."""
    return Repeater("reaper", lambda: reap(database, queue, settings), settings.reap_seconds)
