"""What a running gateway holds, and how a route gets at it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol

from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.queue import TaskQueue
from app.core.settings import Settings
from app.core.storage import Storage
from app.http.metrics import Metrics
from app.keys.cache import KeyCache


class HealthCheck(NamedTuple):
    """One part of the service that `/readyz` asks after.

    Attributes:
        name: the part.
        check: raises where the part cannot be used.
        required: without it the gateway is not ready; else it is `degraded`.
    """

    name: str
    check: Callable[[], None]
    required: bool = True


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

    def __post_init__(self) -> None:
        workers = self.settings.limits.upload_workers
        self.upload_limiter = CapacityLimiter(workers)
        self.decode_limiter = CapacityLimiter(workers)


# A coroutine, as is every dependency of predictions: FastAPI runs plain functions in the pool of
# threads in which other requests wait for the database.
async def get_gateway(request: Request) -> Gateway:
    """Return the gateway that serves `request`."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(get_gateway)]


def get_session(gateway: GatewayDep) -> Iterator[Session]:
    """Yield the request's one session; it is committed before the answer is sent."""
    with gateway.database.unit_of_work() as session:
        yield session


def get_reader(gateway: GatewayDep) -> Iterator[Session]:
    """Yield the session of a request that only reads."""
    with gateway.database.reading() as session:
        yield session


# `scope="function"`: by default what follows `yield`, the commit, would run after the answer.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
ReaderDep = Annotated[Session, Depends(get_reader, scope="function")]
