"""The threads that decode images: as many of them as help.

While the encoder has all the batches that it takes, one thread has the next batch ready in time. A
second one would take turns with it, and with HTTP, at the interpreter, in time that the encoder
could have. Where images take longer to decode than to encode, or few are there, all work.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable

Work = Callable[[], None]


class Decoders:
    """Does what is submitted, in that order.

    Args:
        threads: at most so many at once.
        fed: says whether the encoder has all that it takes; asked often.
    """

    def __init__(self, threads: int, fed: Callable[[], bool]) -> None:
        self._fed = fed
        self._waiting: deque[Work] = deque()
        self._active = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"decode_{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Do what was submitted, then end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def submit(self, work: Iterable[Work]) -> None:
        """Have each piece of `work` done by a thread; it must not raise."""
        with self._changed:
            self._waiting.extend(work)
            if self._wanted():
                self._changed.notify()

    def _wanted(self) -> bool:
        """Say whether one thread more is to work."""
        if not self._waiting:
            return False
        return self._active == 0 or self._stopping or not self._fed()

    def _run(self) -> None:
        while (work := self._take()) is not None:
            work()
            del work  # which holds a model, and the next one may be long in coming
            with self._changed:
                self._active -= 1

    def _take(self) -> Work | None:
        """Return what is next, None at the end; blocks while others can do it."""
        with self._changed:
            while not self._wanted():
                if self._stopping:
                    return None
                self._changed.wait()
            work = self._waiting.popleft()
            self._active += 1
            if self._wanted():
                self._changed.notify()
            return work
