"""Answers remembered under an `Idempotency-Key`, in a file of the gateway's own.

A line that lost the answer sends the request again with the same key and gets the same answer, even
while the database is away. A small SQLite file beside the gateway: nothing of it is shared.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from app.core.errors import Conflict
from models.errors import BadInput

log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    scope TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, created REAL NOT NULL,
    status INTEGER, media_type TEXT, body BLOB,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_created ON answers (created);
"""
# So many answers are deleted at once: a key that comes meanwhile waits no longer than for that.
_PORTION = 200
_KEY_LENGTH = 255


_SWEEP = """
DELETE FROM answers WHERE (scope, key) IN (
    SELECT scope, key FROM answers WHERE created < ? ORDER BY created LIMIT ?
)
"""


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
        # Begun here and not to be ended in the file, as on a full disk: free to be tried again.
        self._stranded: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Open the file; what was under way when the gateway last ended is forgotten.

        A file that cannot be used is no reason not to start: a damaged one is put aside, and where
        the disk is full or nothing can be written memory does until the next start.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except (sqlite3.DatabaseError, OSError) as error:
            self._connection = self._open_anew(error)

    def _open_anew(self, reason: Exception) -> sqlite3.Connection:
        # SQLITE_NOTADB and SQLITE_CORRUPT are plain DatabaseErrors; disks and locks are more.
        if type(reason) is sqlite3.DatabaseError:
            log.warning("idempotency_store_put_aside", path=str(self._path), error=str(reason))
            with contextlib.suppress(sqlite3.Error, OSError):
                for ending in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"{self._path}{ending}").rename(f"{self._path}{ending}.damaged")
                return self._open()
        log.warning("idempotency_store_in_memory", path=str(self._path), error=str(reason))
        return self._open(":memory:")

    def _open(self, path: str | None = None) -> sqlite3.Connection:
        connection = sqlite3.connect(
            path or self._path, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_SCHEMA)
            connection.execute("DELETE FROM answers WHERE status IS NULL")
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

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
        if answer[0] is None and (scope, key) in self._stranded:
            self._stranded.discard((scope, key))
            return None
        if answer[0] is None:
            raise Conflict(
                f"The first request with the Idempotency-Key {key!r} is still being answered.",
                fix="Wait a moment, then send it again with the same key.",
                field="Idempotency-Key",
            )
        return StoredAnswer(*answer)

    def finish(self, scope: str, key: str, answer: StoredAnswer) -> None:
        """Remember the answer; where that fails the key is free again."""
        with self._lock, self._freed(scope, key):
            self._file().execute(
                "UPDATE answers SET status = ?, media_type = ?, body = ?"
                " WHERE scope = ? AND key = ?",
                (*answer, scope, key),
            )

    def forget_unfinished(self, scope: str, key: str) -> None:
        """Let the key be used again, unless an answer is remembered under it."""
        with self._lock, self._freed(scope, key):
            self._file().execute(
                "DELETE FROM answers WHERE scope = ? AND key = ? AND status IS NULL", (scope, key)
            )

    def sweep(self) -> None:
        """Forget the answers that are older than they are remembered for."""
        swept = _PORTION
        while swept == _PORTION:
            with self._lock:
                swept = (
                    self._file().execute(_SWEEP, (time.time() - self._seconds, _PORTION)).rowcount
                )

    @contextlib.contextmanager
    def _freed(self, scope: str, key: str) -> Iterator[None]:
        """Let the key be used again where the file cannot be written: no answer is in it."""
        try:
            yield
        except sqlite3.Error:
            self._stranded.add((scope, key))
            raise

    def _file(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the idempotency store is not open")
        return self._connection
