"""The prediction path put together, and how a route gets at it."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from app.core.background import Repeater
from app.http.gateway import Gateway, HealthCheck
from app.predictions.batcher import Batcher
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.loading import load_encoder
from app.predictions.idempotency import IdempotencyStore
from app.predictions.int8 import Int8
from app.predictions.metrics import PredictionMetrics
from app.predictions.records import RecordWriter
from app.predictions.resident import ModelCache
from app.predictions.retention import RetentionSweep
from app.predictions.service import Predictions
from models.memory import keep_freed_memory

_SWEEP_SECONDS = 60.0


def install_predictions(
    app: FastAPI, gateway: Gateway, load: Callable[[], ImageEncoder] | None = None
) -> None:
    """Add the prediction path to a gateway: found at `app.state.predictions`.

    Args:
        app: the application.
        gateway: gets the components and the health check.
        load: returns the image encoder; by default the one that the settings name.
    """
    keep_freed_memory()  # before there are threads
    settings = gateway.settings
    metrics = PredictionMetrics(gateway.metrics.registry)
    make_batcher = partial(Batcher, max_batch=settings.prediction.max_batch, metrics=metrics)
    load = load or partial(load_encoder, settings.backbone, settings.engine_folder)
    int8 = Int8(settings.int8_folder, settings.backbone.threads, make_batcher)
    wanted = settings.backbone.int8 == "on"
    batcher = make_batcher(int8.after(load) if wanted else load)
    models = ModelCache(
        gateway.database,
        gateway.storage,
        batcher.encoder,
        settings.prediction.model_bytes,
        metrics,
    )
    kept = gateway.disk.guarded(gateway.storage)
    records = RecordWriter(gateway.database, kept, settings.prediction, metrics)
    answers = IdempotencyStore(
        settings.home / "idempotency.db", settings.prediction.idempotency_hours
    )
    predictions = Predictions(
        settings, models, batcher, records, answers, metrics, int8.batcher_for
    )
    gateway.components += [
        int8,  # stopped after the batcher, whose thread loads it
        batcher,
        Repeater("models", models.refresh, settings.prediction.refresh_seconds),
        Repeater("preload", models.preload, settings.prediction.refresh_seconds),
        models,
        records,
        answers,
        Repeater("answers", answers.sweep, _SWEEP_SECONDS),
        RetentionSweep(gateway.database, settings.retention, gateway.metrics.registry),
        predictions,
    ]
    gateway.checks += [
        HealthCheck("backbone", batcher.check, required=True, about=batcher.about),
        HealthCheck("models", models.check, required=True),
    ]
    if wanted:
        gateway.checks.append(HealthCheck("int8", batcher.check, about=int8.about))
    app.state.predictions = predictions


async def get_predictions(request: Request) -> Predictions:
    """Return the prediction path of the gateway that serves `request`."""
    predictions: Predictions = request.app.state.predictions
    return predictions


PredictionsDep = Annotated[Predictions, Depends(get_predictions)]
