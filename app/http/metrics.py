"""Prometheus metrics, one registry for each gateway."""

import math
from collections.abc import Callable
from functools import partial
from typing import get_args

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from app.core.disk import DiskWatch, State

_STATES: tuple[State, ...] = get_args(State)
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

router = APIRouter(tags=["health"])


class Metrics:
    """What the gateway counts; others add collectors of their own to `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "shotline_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "shotline_http_request_seconds",
            "Seconds from the first byte of a request to the end of its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )

        self._failures = Counter(
            "shotline_auth_failures",
            "Requests without a good API key, by what was wrong.",
            ("reason",),
            registry=self.registry,
        )

    def watch_disk(self, disk: DiskWatch) -> None:
        """Report the space on the fullest of the watched volumes, read when asked."""
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "free_bytes": (
                "Bytes free where the least are.",
                lambda: min(one.free for one in disk.spaces()),
            ),
            "free_share": (
                "Share of the volume that is free, where it is smallest.",
                lambda: min(one.free / max(one.total, 1) for one in disk.spaces()),
            ),
            "state": (
                "0: there is room. 1: little is left. 2: uploads are refused.",
                lambda: _STATES.index(disk.state()[0]),
            ),
        }
        for name, (text, read) in gauges.items():
            gauge = Gauge(f"shotline_disk_{name}", text, registry=self.registry)
            gauge.set_function(partial(_or_nan, read))
        disk.when_refused = Counter(
            "shotline_disk_refused",
            "Uploads, batches and images to be kept that were refused for want of room.",
            registry=self.registry,
        ).inc

    def auth_failed(self, reason: str) -> None:
        """Count a request that no API key let in: `missing`, `wrong` or `limited`."""
        self._failures.labels(reason).inc()

    def request_done(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is the pattern, so that ids do not become labels."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "shotline_http_requests_total 1.0"}}}},
)
def read_metrics(request: Request) -> Response:
    """Answer in Prometheus' text form; needs no key and names no project."""
    metrics: Metrics = request.app.state.gateway.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _or_nan(read: Callable[[], float]) -> float:
    """Return what is read; NaN for a volume that does not answer, which must not fail the page."""
    try:
        return read()
    except OSError:
        return math.nan
