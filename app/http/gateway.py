"""What a running gateway holds, and how a route gets at it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol, TypeVar

from anyio import CapacityLimiter, Semaphore, to_thread
from fastapi import Depends, Request
from fastapi.concurrency import contextmanager_in_threadpool as in_threads
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.disk import DiskWatch
from app.core.queue import TaskQueue
from app.core.settings import Settings
from app.core.storage import Storage
from app.http.failures import FailedLogins
from app.http.metrics import Metrics
from app.keys.cache import KeyCache

Result = TypeVar("Result")

# Half of the threads that answer requests: who holds SQLite's write lock must find a free one to go
# on in, and would not if all were waiting for that lock.
_SESSIONS = 20


class HealthCheck(NamedTuple):
    """One part of the service that `/readyz` asks after.

    Attributes:
        name: the part.
        check: raises where the part cannot be used.
        required: without it no decision can be made; else the gateway is `degraded`.
        about: returns what people may want to know of it.
    """

    name: str
    check: Callable[[], None]
    required: bool = False
    about: Callable[[], str] | None = None


class Component(Protocol):
    """Something that runs beside the routes."""

    def start(self) -> None:
        """Start it."""
        ...

    def stop(self) -> None:
        """Stop it and wait for its end."""
        ...


@dataclass
class Gateway:
    """Everything that routes use. Made by `app.main.create_app`, found at `app.state.gateway`.

    Attributes:
        components: started in order and stopped in reverse by the lifespan.
        checks: what `/readyz` reports.
        upload_limiter: how many uploads are decoded at once.
        decode_limiter: how many thumbnails are.
        sessions: how many requests are with the database at once.
        failed_logins: limits wrong keys.
        disk: what uploads ask for room.
        failing: the parts that `/readyz` found so at its last look, so that a change is logged.
    """

    settings: Settings
    database: Database
    storage: Storage
    queue: TaskQueue
    keys: KeyCache
    metrics: Metrics
    components: list[Component] = field(default_factory=list)
    checks: list[HealthCheck] = field(default_factory=list)
    upload_limiter: CapacityLimiter = field(init=False)
    decode_limiter: CapacityLimiter = field(init=False)
    sessions: Semaphore = field(init=False)
    failed_logins: FailedLogins = field(init=False)
    disk: DiskWatch = field(init=False)
    failing: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.disk = DiskWatch(self.settings.written_folders, self.settings.storage)
        workers = self.settings.limits.upload_workers
        self.upload_limiter = CapacityLimiter(workers)
        self.decode_limiter = CapacityLimiter(workers)
        self.sessions = Semaphore(_SESSIONS)
        self.failed_logins = FailedLogins(self.settings.auth, self.metrics)

    async def read(self, look: Callable[[Session], Result]) -> Result:
        """Return what `look` finds with a session of its own that only reads."""

        def run() -> Result:
            with self.database.reading() as session:
                return look(session)

        async with self.sessions:
            return await to_thread.run_sync(run)


# A coroutine, as is every dependency of predictions: FastAPI runs plain functions in the pool of
# threads in which other requests wait for the database.
async def get_gateway(request: Request) -> Gateway:
    """Return the gateway that serves `request`."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(get_gateway)]


async def get_session(gateway: GatewayDep) -> AsyncIterator[Session]:
    """Yield the request's one session; it is committed before the answer is sent."""
    async with gateway.sessions, in_threads(gateway.database.unit_of_work()) as session:
        yield session


async def get_reader(gateway: GatewayDep) -> AsyncIterator[Session]:
    """Yield the session of a request that only reads."""
    async with gateway.sessions, in_threads(gateway.database.reading()) as session:
        yield session


# `scope="function"`: by default what follows `yield`, the commit, would run after the answer.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
ReaderDep = Annotated[Session, Depends(get_reader, scope="function")]
