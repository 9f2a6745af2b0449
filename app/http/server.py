"""The server that the gateway runs in: uvicorn, with our limits and our TLS."""

import resource
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn

from app.core.settings import LimitSettings, Settings, TlsSettings
from app.http.protocol import guarded
from models.errors import BadInput

# Files that a gateway opens beside its connections: bodies in flight, databases, models, logs.
_FILES = 256
# Whoever follows a tuning's events would hold up the end for ever.
_GRACE_SECONDS = 5


def server_config(app: Any, settings: Settings, **changed: Any) -> uvicorn.Config:
    """Return how uvicorn serves `app`.

    Args:
        app: the gateway, an ASGI application.
        settings: host, port, limits and TLS are read.
        changed: options of `uvicorn.Config` that are to differ.

    Raises:
        BadInput: certificate and key cannot be read, or do not belong together.
    """
    proxies = settings.server.trusted_proxies
    options: dict[str, Any] = {
        "host": settings.server.host,
        "port": settings.server.port,
        "http": guarded(settings.limits),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        # Off by default: uvicorn itself would believe whatever comes from this machine.
        "proxy_headers": proxies is not None,
        "forwarded_allow_ips": proxies or "",
        "timeout_graceful_shutdown": _GRACE_SECONDS,
    }
    if settings.tls.is_on:
        options |= _tls_options(settings.tls)
    return uvicorn.Config(app, **options | changed)


def allow_connections(limits: LimitSettings) -> None:
    """Let this process open as many files as its connections need; as many as it may otherwise."""
    wanted = limits.connections + _FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _tls_options(tls: TlsSettings) -> dict[str, Any]:
    context = _context(tls)  # read once: a wrong file is refused before anything listens

    def make(_: uvicorn.Config, __: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        return context

    return {
        "ssl_certfile": tls.certificate_file,
        "ssl_keyfile": tls.key_file,
        "ssl_context_factory": make,
    }


def _context(tls: TlsSettings) -> ssl.SSLContext:
    assert tls.certificate_file is not None  # noqa: S101 - TLS is on
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate_file, tls.key_file, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(
            f"The certificate {tls.certificate_file} with the key {tls.key_file} cannot be used:"
            f" {error}.",
            fix="Give PEM files of a certificate and of its own key, without a password, that this"
            " account may read.",
            field="SHOTLINE_TLS_CERTIFICATE_FILE",
        ) from error
    return context


def _no_password() -> str:
    """Answer for OpenSSL, which would ask at the terminal."""
    return ""
