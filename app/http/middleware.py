"""What surrounds every request: an id, a limit on the body, safe headers, and no stack traces.

Plain ASGI: nothing here reads a body or holds one.
"""

import asyncio
import re
import time
from collections.abc import Sequence

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import BadRequest, TooLarge, TooSlow
from app.core.ids import new_id
from app.http.metrics import Metrics
from app.http.problems import problem_response
from models.errors import ShotlineError

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")
_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}
_LEAST_BYTES = 16 * 1024
_QUIET = {"/livez", "/readyz", "/metrics"}
_TOLD = "/predict"  # what went well there has a line for each prediction
# In the form in which answers carry theirs.
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class RequestContext:
    """Gives each request an id, logs and counts it, and answers what nobody foresaw with a 500."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(new_id())
        scope["request_id"] = request_id
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, answer.send)
            except Exception:
                log.exception("unforeseen_error", path=scope["path"])
                if answer.status is not None:
                    raise  # too late for another answer: the server cuts the connection
                await problem_response(_UNFORESEEN, request_id)(scope, receive, answer.send)
            finally:
                self._note(scope, answer.status or 500, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "(none)")
        self.metrics.request_done(scope["method"], route, status, seconds)
        path = scope["path"]
        quiet = path in _QUIET or scope.get("quiet") or (path.endswith(_TOLD) and status < 400)
        write = log.debug if quiet else log.info
        write(
            "request",
            method=scope["method"],
            path=path,
            status=status,
            ms=round(seconds * 1000, 1),
        )


_UNFORESEEN = ShotlineError(
    "The gateway met an error that nobody foresaw.",
    fix="Try again; if it stays so, report the request_id and the gateway's log.",
)


class _Answer:
    """Adds the headers that every answer has, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            message["headers"] += [
                (b"x-request-id", self._request_id.encode()),
                *((name, value) for name, value in _SAFE_HEADERS if name not in own),
            ]
        await self._send(message)


class BodyLimit:
    """Refuses a body over the limit, by its stated length or, as it streams, by its bytes.

    Args:
        app: what comes after.
        default: the limit in bytes.
        routes: (pattern of the whole path, limit in bytes), the first that fits counts.
    """

    def __init__(
        self, app: ASGIApp, *, default: int, routes: Sequence[tuple[str, int]] = ()
    ) -> None:
        self.app = app
        self._default = default
        self._routes = [(re.compile(pattern), limit) for pattern, limit in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        problem = _check_length(Headers(scope=scope).get("content-length"), limit)
        if problem is not None:
            response = problem_response(problem, scope.get("request_id"))
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self.app(scope, _Counter(receive, limit).receive, send)

    def _limit(self, path: str) -> int:
        return next((size for rule, size in self._routes if rule.fullmatch(path)), self._default)


class _Counter:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._limit:
                raise _too_large(f"more than {self._limit}", self._limit)
        return message


class BodyPace:
    """Ends a request whose body does not come on: its connection would be held for ever.

    Args:
        app: what comes after.
        seconds: in which a body has to bring `_LEAST_BYTES` or its end. Only the time spent
            waiting for the client counts.
    """

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        clock = _Clock(receive, send, self._seconds)
        await self.app(scope, clock.receive, clock.send)


class _Clock:
    def __init__(self, receive: Receive, send: Send, seconds: float) -> None:
        self._receive, self._send = receive, send
        self._seconds = self._left = seconds
        self._bytes = 0
        self._whole, self._late = False, False

    async def receive(self) -> Message:
        if self._whole:  # what is waited for now is that the caller leaves
            return await self._receive()
        started = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, self._left)):
                message = await self._receive()
        except TimeoutError:
            self._late = True
            raise _too_slow(self._seconds) from None
        self._note(message, time.monotonic() - started)
        return message

    def _note(self, message: Message, waited: float) -> None:
        self._whole = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        self._left -= waited
        if self._bytes >= _LEAST_BYTES:
            self._bytes, self._left = 0, self._seconds

    async def send(self, message: Message) -> None:
        if self._late and message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
        await self._send(message)


def _too_slow(seconds: float) -> TooSlow:
    return TooSlow(
        f"The body brought less than {_LEAST_BYTES} bytes within {seconds:g} s.",
        fix="Send the body without pauses, or less at a time.",
        field="body",
    )


def _check_length(stated: str | None, limit: int) -> ShotlineError | None:
    if stated is None:
        return None
    if not stated.isdecimal():
        return BadRequest(
            f"The Content-Length {stated[:20]!r} is not a number.",
            fix="Send the length of the body in bytes.",
            field="Content-Length",
        )
    return _too_large(stated, limit) if int(stated) > limit else None


def _too_large(found: str, limit: int) -> TooLarge:
    return TooLarge(
        f"The body has {found} bytes; at most {limit} are allowed here.",
        fix="Send less at a time.",
        field="body",
    )
