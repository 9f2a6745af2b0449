"""Something done again and again on a thread of its own."""

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Repeater:
    """Calls `action` every `seconds` until stopped; an error is logged and the next call made.

    Args:
        name: of the thread, and in the log.
        action: what to do; it may take long, and is never run twice at once.
        seconds: between the end of one call and the start of the next.
    """

    def __init__(self, name: str, action: Callable[[], object], seconds: float) -> None:
        self.name = name
        self._action = action
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failing = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Ask the thread to end, and wait up to `timeout` seconds for it."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._call()
            self._stopped.wait(self._seconds)

    def _call(self) -> None:
        try:
            self._action()
        except Exception as error:  # noqa: BLE001 - a thread that dies would fail silently for ever
            if not self._failing:  # one line for an outage, not one a second
                log.warning("background_failing", task=self.name, error=str(error))
            self._failing = True
        else:
            if self._failing:
                log.info("background_recovered", task=self.name)
            self._failing = False
