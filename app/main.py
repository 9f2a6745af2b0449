"""The gateway as an ASGI application."""

import contextlib
from collections.abc import AsyncIterator, Callable

import anyio
from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig

from app import migrations
from app.audit import routes as audit
from app.audit.head_log import HeadLog
from app.audit.service import check_key
from app.batches import routes as batches
from app.core.background import Repeater
from app.core.database import Database
from app.core.errors import Unavailable
from app.core.queue import CeleryQueue, TaskQueue
from app.core.reaper import make_reaper
from app.core.settings import Settings
from app.core.storage import LocalStorage, Storage
from app.core.sweep import sweep_orphans
from app.feedback import routes as feedback
from app.findings import routes as findings
from app.http import docs, health, metrics
from app.http.gateway import Gateway, HealthCheck
from app.http.metrics import Metrics
from app.http.middleware import BodyLimit, BodyPace, RequestContext
from app.http.openapi import describe
from app.http.problems import install_problems
from app.images import routes as images
from app.images.thumbnails import sweep_thumbnails
from app.keys import routes as keys
from app.keys.cache import KeyCache
from app.predictions import record_routes as records
from app.predictions import routes as predictions
from app.predictions.door import PREDICT_PATH, Door
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.provider import install_predictions
from app.projects import routes as projects
from app.registry import routes as registry
from app.searches import routes as searches
from app.shadow import routes as shadow
from app.tunings import routes as tunings

_DISK_SECONDS = 10.0
# FastAPI else asks with every request whether somebody has set OpenTelemetry up.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}

# Asked in this order whose a request is: first what a line waits for.
ROUTERS: tuple[APIRouter, ...] = (
    predictions.router,
    health.router,
    metrics.router,
    docs.router,
    keys.router,
    projects.router,
    images.router,
    tunings.router,
    findings.router,
    registry.router,
    searches.router,
    shadow.router,
    records.router,
    feedback.router,
    batches.router,
    audit.router,
)


def create_app(
    settings: Settings,
    *,
    database: Database | None = None,
    storage: Storage | None = None,
    queue: TaskQueue | None = None,
    load_encoder: Callable[[], ImageEncoder] | None = None,
) -> FastAPI:
    """Return the gateway; whatever is not given is made from `settings`.

    Raises:
        Forbidden: authentication is off on an address that others can reach.
    """
    settings.require_safe_binding()
    gateway = make_gateway(
        settings,
        database or Database.of(settings),
        storage or LocalStorage(settings.blob_folder),
        queue or CeleryQueue(settings.queue),
    )
    app = FastAPI(
        title="Shotline", lifespan=_lifespan, docs_url=None, redoc_url=None, telemetry=_NO_TELEMETRY
    )
    app.state.gateway = gateway
    install_predictions(app, gateway, load_encoder)
    for router in ROUTERS:
        # FastAPI's way to include a router looks for the route twice with every request.
        app.router.routes += router.routes
    install_problems(app, ROUTERS)
    describe(app)
    limits = settings.limits
    app.add_middleware(BodyPace, seconds=limits.body_seconds)
    app.add_middleware(
        BodyLimit,
        default=limits.body_bytes,
        routes=[
            (r"/v1/projects/[^/]+/(images|batches)", limits.upload_bytes),
            (PREDICT_PATH, limits.predict_bytes),
        ],
    )
    # Outside the limits on bodies: a full house reads none.
    app.add_middleware(Door, slots=app.state.predictions.slots)
    app.add_middleware(RequestContext, metrics=gateway.metrics)
    return app


def make_gateway(
    settings: Settings, database: Database, storage: Storage, queue: TaskQueue
) -> Gateway:
    """Put together what the routes use, what runs beside them and what `/readyz` asks after."""
    gateway = Gateway(settings, database, storage, queue, KeyCache(database), Metrics())
    gateway.metrics.watch_disk(gateway.disk)
    sweep_age = settings.storage.orphan_age
    gateway.components += [
        Repeater("disk", gateway.disk.look, _DISK_SECONDS),
        Repeater("keys", gateway.keys.refresh, settings.prediction.refresh_seconds),
        Repeater(
            "sweep", lambda: sweep_orphans(database, gateway.storage, min_age=sweep_age), sweep_age
        ),
    ]
    thumbnails = settings.thumbnail_folder
    gateway.components.append(
        Repeater("thumbnails", lambda: sweep_thumbnails(thumbnails), sweep_age)
    )
    gateway.components.append(make_reaper(database, queue, settings.tuning))
    gateway.components.append(HeadLog(database))
    gateway.checks += [
        HealthCheck("keys", gateway.keys.check, required=True),
        HealthCheck("database", lambda: _check_database(database)),
        HealthCheck("audit", lambda: check_key(database)),
        HealthCheck("storage", storage.check),
        HealthCheck("disk", gateway.disk.check, about=gateway.disk.about),
        HealthCheck("queue", queue.check),
    ]
    return gateway


def _check_database(database: Database) -> None:
    found, expected = migrations.current(database), migrations.head()
    if found != expected:
        raise Unavailable(
            f"The database is at revision {found!r}; this gateway needs {expected!r}.",
            fix="Run `shotline migrate`.",
        )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    gateway.settings.home.mkdir(parents=True, exist_ok=True)
    for component in gateway.components:
        component.start()
    try:
        yield
    finally:
        for component in reversed(gateway.components):
            await anyio.to_thread.run_sync(component.stop)
        gateway.queue.close()
        gateway.database.close()
