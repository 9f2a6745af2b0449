"""The database: SQLite in WAL mode, or PostgreSQL through psycopg, behind one unit of work.

One session and one transaction for a request or a task. `Database.unit_of_work` commits and only
then sends what was put in the session's outbox (see `after_commit`); nothing else commits.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import ColumnElement, Engine, create_engine, event, exc, literal, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.core.errors import Unavailable
from app.core.settings import Settings
from app.core.types import UtcDateTime
from models.errors import ShotlineError, StorageFull

log = structlog.get_logger(__name__)

# Where a session carries the file of the key that seals the record of changes.
AUDIT_KEY_FILE = "audit_key_file"

_OUTBOX = "after_commit"
_LAST = "before_commit"
_READ_ONLY = "shotline_read_only"
_SQLITE_BUSY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
}
# A server that is gone without a word, its cable pulled, is given up after some ten seconds.
_DEAD_PEER = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_DISK_FULL = "53100"  # PostgreSQL's SQLSTATE
# What SQLite says where its shared memory cannot grow, or a quota is exceeded; not SQLITE_FULL.
_SQLITE_FULL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
}


class Database:
    """Engines for reading and writing over one pool.

    Args:
        url: SQLAlchemy's address.
        busy_timeout: seconds to wait for SQLite's write lock.
        connect_timeout: seconds to wait for PostgreSQL.
        statement_timeout: seconds that one PostgreSQL statement may take.
        pool_size: connections kept open.
        audit_key_file: the key of the record of changes; without one nothing can be recorded.
    """

    def __init__(
        self,
        url: str,
        *,
        busy_timeout: float = 10.0,
        connect_timeout: int = 3,
        statement_timeout: float = 30.0,
        pool_size: int = 10,
        audit_key_file: Path | None = None,
    ) -> None:
        self.url = make_url(url)
        self.audit_key_file = audit_key_file
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = _sqlite_engine(url, busy_timeout, pool_size)
        else:
            options = f"-c statement_timeout={int(statement_timeout * 1000)} -c timezone=UTC"
            self.engine = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_timeout=connect_timeout,
                pool_pre_ping=True,
                connect_args={
                    "connect_timeout": connect_timeout,
                    "options": options,
                    **_DEAD_PEER,
                },
            )
        reading = self.engine.execution_options(**{_READ_ONLY: True})
        if not self.is_sqlite:
            reading = reading.execution_options(postgresql_readonly=True)
        info = {AUDIT_KEY_FILE: audit_key_file}
        self._write = sessionmaker(self.engine, expire_on_commit=False, info=info)
        self._read = sessionmaker(reading, expire_on_commit=False)
        frozen = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._read_one_state = sessionmaker(
            reading.execution_options(**frozen), expire_on_commit=False
        )

    @classmethod
    def of(cls, settings: Settings) -> "Database":
        """Return the database that `settings` name; no connection is made yet."""
        database = settings.database
        return cls(
            settings.database_url,
            busy_timeout=database.busy_timeout,
            connect_timeout=database.connect_timeout,
            statement_timeout=database.statement_timeout,
            pool_size=database.pool_size,
            audit_key_file=settings.audit_key_file,
        )

    @contextlib.contextmanager
    def unit_of_work(self) -> Iterator[Session]:
        """Yield a session; at the end do what comes last, commit, then send the outbox.

        Any error rolls back. The transaction starts with the first statement, on SQLite with BEGIN
        IMMEDIATE.

        Raises:
            Unavailable: the database cannot be reached, or stays locked.
        """
        with database_errors(), self._write() as session:
            yield session
            run_last(session)
            session.commit()
        send_outbox(session)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that cannot write and, on SQLite, does not wait for writers.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with database_errors(), self._read() as session:
            yield session

    @contextlib.contextmanager
    def reading_one_state(self) -> Iterator[Session]:
        """Yield a session to which the database stands still from its first query on.

        It cannot write, holds up nobody, and may take as long as it needs.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with database_errors(), self._read_one_state() as session:
            if not self.is_sqlite:
                session.execute(text("SET LOCAL statement_timeout = 0"))
            yield session

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def before_commit(session: Session, action: Callable[[], None]) -> None:
    """Run `action` last in the session's transaction, when it holds every lock that it needs.

    What `action` raises rolls the transaction back.
    """
    session.info.setdefault(_LAST, []).append(action)


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Run `action` once the session's transaction is committed, never if it is rolled back.

    What `action` raises is logged and goes no further: the row is the truth, and whatever a message
    would have woken is found again in the database.
    """
    session.info.setdefault(_OUTBOX, []).append(action)


def run_last(session: Session) -> None:
    """Run what was to come last in the transaction; `Database.unit_of_work` does."""
    for action in session.info.pop(_LAST, []):
        action()


def send_outbox(session: Session) -> None:
    """Run what was to follow the commit; `Database.unit_of_work` does."""
    for action in session.info.pop(_OUTBOX, []):
        try:
            action()
        except Exception:
            log.warning("after_commit_failed", exc_info=True)


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Turn what the driver says of connections, locks and disks into errors of ours.

    Raises:
        Unavailable: the connection is lost, refused or out of time, or SQLite stays locked.
        StorageFull: the database's disk is full.
    """
    try:
        yield
    except exc.TimeoutError as error:
        raise _unavailable() from error
    except exc.DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: exc.DBAPIError) -> ShotlineError | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    state = getattr(error.orig, "sqlstate", None)
    if code in _SQLITE_FULL or state == _DISK_FULL:
        return StorageFull(
            "The disk that holds the database is full, or cannot be written.",
            fix="Free space on it, then try again; nothing was changed.",
        )
    if code is not None:
        return _unavailable() if code & 0xFF in _SQLITE_BUSY else None
    lost = isinstance(error, exc.OperationalError | exc.InterfaceError)
    return _unavailable() if lost or error.connection_invalidated else None


def _unavailable() -> Unavailable:
    return Unavailable(
        "The database cannot be reached or is locked.",
        fix="Nothing was changed. Try again; if it stays so, see /readyz.",
    )


def _sqlite_engine(url: str, busy_timeout: float, pool_size: int) -> Engine:
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        connect_args={"timeout": busy_timeout, "check_same_thread": False},
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not open transactions of its own
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail where another wrote in between.
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


class _DatabaseNow(FunctionElement[datetime]):
    name = "database_now"
    type = UtcDateTime()
    inherit_cache = True


def database_now(seconds: float = 0.0) -> ColumnElement[datetime]:
    """Return the database's clock, `seconds` from now, as SQL.

    Leases are judged by it, whatever a worker's own clock says. Usable wherever a timestamp column
    is: `update(...).values(lease_until=database_now(30))`.
    """
    return _DatabaseNow(literal(float(seconds)))


@compiles(_DatabaseNow, "sqlite")
def _now_sqlite(element: _DatabaseNow, compiler: SQLCompiler, **kwargs: object) -> str:
    # Written as SQLAlchemy stores timestamps, so that the two compare as text.
    seconds = compiler.process(element.clauses, **kwargs)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"


@compiles(_DatabaseNow, "postgresql")
def _now_postgresql(element: _DatabaseNow, compiler: SQLCompiler, **kwargs: object) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    return f"(clock_timestamp() + make_interval(secs => {seconds}))"
