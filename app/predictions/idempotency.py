"""Answers remembered under an `Idempotency-Key`, in a file of the gateway's own.

A line that lost the answer sends the request again with the same key and gets the same answer, even
while the database is away. A small SQLite file beside the gateway: nothing of it is shared.
"""

import sqlite3
import threading
import time
from pathlib import Path
from typing import NamedTuple

from app.core.errors import Conflict
from models.errors import BadInput

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    scope TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, created REAL NOT NULL,
    status INTEGER, media_type TEXT, body BLOB,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_created ON answers (created);
"""
_SWEEP_SECONDS = 60.0
_KEY_LENGTH = 255


class StoredAnswer(NamedTuple):
    """An answer as it was given."""

    status: int
    media_type: str
    body: bytes


class IdempotencyStore:
    """Remembers answers by scope (API key and address) and key, for some hours.

    Args:
        path: of the file; made on `start`.
        hours: for which an answer is remembered.
    """

    def __init__(self, path: Path, hours: float) -> None:
        self._path, self._seconds = path, hours * 3600
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._swept_at = 0.0

    def start(self) -> None:
        """Open the file; what was under way when the gateway last ended is forgotten."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute("DELETE FROM answers WHERE status IS NULL")
        self._connection = connection

    def stop(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def begin(self, scope: str, key: str, fingerprint: str) -> StoredAnswer | None:
        """Return the answer that is remembered; None where this is the first with the key.

        Then `finish` or `forget_unfinished` has to follow.

        Raises:
            BadInput: the key was used for something else, or cannot be one.
            Conflict: the first request with this key is still being answered.
            sqlite3.Error: the file cannot be used.
        """
        if not 0 < len(key) <= _KEY_LENGTH:
            raise BadInput(
                f"The Idempotency-Key has {len(key)} characters; 1 to {_KEY_LENGTH} are expected.",
                fix="Use a UUID, a new one for each new request.",
                field="Idempotency-Key",
            )
        with self._lock:
            self._sweep()
            made = self._file().execute(
                "INSERT OR IGNORE INTO answers (scope, key, fingerprint, created)"
                " VALUES (?, ?, ?, ?)",
                (scope, key, fingerprint, time.time()),
            )
            if made.rowcount:
                return None
            known, *answer = (
                self._file()
                .execute(
                    "SELECT fingerprint, status, media_type, body FROM answers"
                    " WHERE scope = ? AND key = ?",
                    (scope, key),
                )
                .fetchone()
            )
        if known != fingerprint:
            raise BadInput(
                f"The Idempotency-Key {key!r} was used for another request.",
                fix="Use a new key for each new request; the same one only to send one again.",
                field="Idempotency-Key",
            )
        if answer[0] is None:
            raise Conflict(
                f"The first request with the Idempotency-Key {key!r} is still being answered.",
                fix="Wait a moment, then send it again with the same key.",
                field="Idempotency-Key",
            )
        return StoredAnswer(*answer)

    def finish(self, scope: str, key: str, answer: StoredAnswer) -> None:
        """Remember the answer."""
        with self._lock:
            self._file().execute(
                "UPDATE answers SET status = ?, media_type = ?, body = ?"
                " WHERE scope = ? AND key = ?",
                (*answer, scope, key),
            )

    def forget_unfinished(self, scope: str, key: str) -> None:
        """Let the key be used again, unless an answer is remembered under it."""
        with self._lock:
            self._file().execute(
                "DELETE FROM answers WHERE scope = ? AND key = ? AND status IS NULL", (scope, key)
            )

    def _sweep(self) -> None:
        now = time.time()
        if now - self._swept_at > _SWEEP_SECONDS:
            self._swept_at = now
            self._file().execute("DELETE FROM answers WHERE created < ?", (now - self._seconds,))

    def _file(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the idempotency store is not open")
        return self._connection
