"""The chain's end, written into the log where the database's owner cannot change it."""

import time

import structlog

from app.audit.service import head
from app.core.audit import prepare
from app.core.background import Repeater
from app.core.database import Database

log = structlog.get_logger(__name__)

_DAY, _MINUTE = 86_400.0, 60.0


class HeadLog:
    """Makes the key at the first start, and logs the head: at the start, daily and at the end.

    Args:
        database: with the chain.
        every: seconds between two lines.
        look: seconds after which an attempt that failed is repeated.
    """

    def __init__(self, database: Database, *, every: float = _DAY, look: float = _MINUTE) -> None:
        self._database = database
        self._every = every
        self._next = 0.0
        self._repeater = Repeater("audit-head", self._tick, look)

    def start(self) -> None:
        """Start it."""
        self._repeater.start()

    def stop(self) -> None:
        """Log the head once more."""
        self._repeater.stop()
        try:
            self._log("stop")
        except Exception as error:  # noqa: BLE001 - whatever it is, the gateway has to stop
            log.warning("audit_head_unknown", error=str(error))

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        if not self._next:
            prepare(self._database)
        self._log("daily" if self._next else "start")
        self._next = now + self._every

    def _log(self, when: str) -> None:
        with self._database.reading() as session:
            last = head(session)
        log.info("audit_head", sequence=last.sequence, mac=last.mac, when=when)
