"""A child pauses while predictions are under way on its machine.

A thread looks; a signal has the main thread wait between two steps of Python, which in a tuning are
the layers of a tower. A stopped process (SIGSTOP) would wait at once, but would not notice either
when its supervisor has gone.
"""

import signal
import threading
import time
from types import FrameType

from app.core.precedence import UnderWay

# Seconds: how often is looked, the longest pause, and how long the child then runs at least, as a
# share of the pause: a line without gaps must not stop a tuning.
_EVERY, _LONGEST, _LEAST_SHARE = 0.001, 0.15, 1 / 3


def pause_during(predictions: UnderWay) -> None:
    """Have the main thread, which calls this, pause while predictions are under way."""
    rests_until = 0.0
    main = threading.get_ident()

    def pause(number: int, frame: FrameType | None) -> None:
        del number, frame
        nonlocal rests_until
        started = time.monotonic()
        while predictions.now() and time.monotonic() - started < _LONGEST:
            time.sleep(_EVERY)
        now = time.monotonic()
        rests_until = now + _LEAST_SHARE * (now - started)

    def look() -> None:
        while True:
            time.sleep(max(_EVERY, rests_until - time.monotonic()))
            if predictions.now():
                asked_at = rests_until
                signal.pthread_kill(main, signal.SIGUSR1)
                while rests_until == asked_at:  # it is in a long operation, or pauses
                    time.sleep(_EVERY)

    signal.signal(signal.SIGUSR1, pause)
    threading.Thread(target=look, name="pauses", daemon=True).start()
