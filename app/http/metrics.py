"""Prometheus metrics, one registry for each gateway."""

import shutil
from pathlib import Path

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

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
        self._disk = Gauge(
            "shotline_disk_free_bytes", "Bytes free where blobs are kept.", registry=self.registry
        )

        self._failures = Counter(
            "shotline_auth_failures",
            "Requests without a good API key, by what was wrong.",
            ("reason",),
            registry=self.registry,
        )

    def watch_disk(self, folder: Path) -> None:
        """Report the space left on the volume of `folder`, read when asked."""
        self._disk.set_function(lambda: shutil.disk_usage(folder).free)

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
