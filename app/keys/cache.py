"""The keys that the gateway knows, so that no request waits for the database to be let in."""

import hmac
import threading
from datetime import datetime
from typing import NamedTuple

from app.core.access import Principal
from app.core.clock import utc_now
from app.core.database import Database
from app.core.errors import Unauthenticated, Unavailable
from app.keys import repository
from app.keys.service import PREFIX_LENGTH, digest


class _Known(NamedTuple):
    sha256: str
    principal: Principal
    expires_at: datetime | None


_NO_KEY = _Known("0" * 64, Principal(None, "nobody", "viewer"), None)


class KeyCache:
    """All usable keys in memory; `refresh` reads them again, in the background, again and again.

    While the database is down the last known keys go on to work, so that predictions do.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._refreshing = threading.Lock()
        # Replaced whole, never changed: readers see the old or the new, not a mixture.
        self._known: dict[str, list[_Known]] | None = None

    def refresh(self) -> None:
        """Read the keys again.

        One at a time: a slower reader must not put back what a newer one found changed.
        """
        with self._refreshing:
            self._known = self._read()

    def _read(self) -> dict[str, list[_Known]]:
        with self._database.reading() as session:
            rows = repository.usable(session)
        known: dict[str, list[_Known]] = {}
        for row in rows:
            principal = Principal(row.id, row.name, row.role, row.project_id)
            entry = _Known(row.sha256, principal, row.expires_at)
            known.setdefault(row.prefix, []).append(entry)
        return known

    def check(self) -> None:
        """Raise `Unavailable` where the keys were never read."""
        self._loaded()

    def _loaded(self) -> dict[str, list[_Known]]:
        if self._known is None:
            raise Unavailable(
                "The gateway has not been able to read its API keys yet.",
                fix="Try again in a moment; if it stays so, see /readyz.",
            )
        return self._known

    def principal(self, plaintext: str) -> Principal:
        """Return the holder of a key.

        Raises:
            Unauthenticated: unknown, revoked or expired.
            Unavailable: the keys were never read, the database being down since the start.
        """
        given = digest(plaintext)
        # Compared once where the prefix is unknown, too: the time tells nothing of it.
        for known in self._loaded().get(plaintext[:PREFIX_LENGTH], [_NO_KEY]):
            if hmac.compare_digest(known.sha256, given):
                return _check_expiry(known)
        raise Unauthenticated(
            f"The API key {plaintext[:PREFIX_LENGTH]!r}… is unknown or revoked.",
            fix="Check that it was copied whole, or have an admin make a new one.",
            field="Authorization",
        )


def _check_expiry(known: _Known) -> Principal:
    if known.expires_at is not None and known.expires_at <= utc_now():
        raise Unauthenticated(
            f"The API key {known.principal.name!r} expired at {known.expires_at.isoformat()}.",
            fix="Have an admin make a new one.",
            field="Authorization",
        )
    return known.principal
