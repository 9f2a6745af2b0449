"""HTTP as uvicorn reads it, with limits that it lacks: on headers, idle callers and connections.

uvicorn waits for a request's headers for ever, keeps headers of any length in memory, and keeps an
answer in memory for as long as its caller does not take it. Each of these is one client's whole
attack; the limits here need no proxy in front.
"""

import asyncio
import json
from typing import Any, ClassVar, NamedTuple, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.settings import LimitSettings
from app.http.leaving import Caller, put_caller
from app.http.problems import MEDIA_TYPE

log = structlog.get_logger(__name__)

# A caller who takes less than this in `answer_seconds` does not take its answer.
_LEAST_TAKEN = 16 * 1024
# An answer of one image has a tenth of that.
_MOST_HELD = 16 * 1024


class Refusal(NamedTuple):
    """Why a connection is ended, as a problem; before there is a request, nothing else is known."""

    status: int
    phrase: str
    slug: str
    detail: str
    fix: str

    def answer(self) -> bytes:
        """Return it as a whole HTTP answer."""
        problem = {
            "type": f"urn:shotline:problem:{self.slug}",
            "title": self.phrase,
            "status": self.status,
            "detail": self.detail,
            "fix": self.fix,
        }
        body = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 {self.status} {self.phrase}\r\n"
            f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
            "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body


_MALFORMED = Refusal(
    400,
    "Bad Request",
    "bad-request",
    "What came is not HTTP/1.1.",
    "Let an HTTP client write the request; with TLS say https.",
)
_FULL = Refusal(
    503,
    "Service Unavailable",
    "unavailable",
    "The gateway has as many connections as it may have, and all are at work.",
    "Try again; raise SHOTLINE_LIMIT_CONNECTIONS where so many callers are yours.",
)


class JoiningTransport:
    """A transport that sends what is written within one turn of the event loop in one go.

    uvicorn writes an answer's head and then its body, each at once: two system calls, each of which
    wakes the caller, for whom the first says nothing yet. The answers to images of one batch are
    written in one turn too, and then leave together: each that left alone would have its caller
    send the next request while the others are still being written.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send at the end of this turn; at once what is much."""
        if not self._held:
            self._loop.call_soon(self._send_held)
        self._held.append(data)
        self._size += len(data)
        if self._size > _MOST_HELD:
            self._send_held()

    def close(self) -> None:
        """Send what is held, then close."""
        self._send_held()
        self._transport.close()

    def abort(self) -> None:
        """End at once; what is held was answered before, and is sent as far as it goes."""
        self._send_held()
        self._transport.abort()

    def _send_held(self) -> None:
        if self._held:
            held, self._held, self._size = self._held, [], 0
            self._transport.writelines(held)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `guarded` makes the class that a server uses, with its limits.

    A connection waits while nobody is at work for it: before a request's headers are whole, and
    once an answer is taken. Those that waited longest make room when there are too many, so that no
    number of idle connections keeps the line out.
    """

    limits: ClassVar[LimitSettings]
    # Those that wait, the longest first; of one server.
    waiting: ClassVar[dict["GuardedProtocol", None]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, where there is room."""
        super().connection_made(cast("asyncio.Transport", JoiningTransport(transport, self.loop)))
        self._caller = Caller()
        self._head_bytes = 0
        self._in_head = False
        self._refusal: Refusal | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._end(_FULL)
            return
        self._wait()
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_head_timer()
        self.resume_writing()
        super().connection_lost(exc)
        self.waiting.pop(self, None)
        self._caller.leave()

    def data_received(self, data: bytes) -> None:
        """Read some of a request; nothing more where the connection is being ended."""
        if self.transport.is_closing():
            return
        within = self._in_head
        super().data_received(data)
        if within and self._in_head:  # all of it is one header that is not whole yet
            self._head_bytes += len(data)
            self._check_head()
        # Line ends before a request, or a body that nobody reads any more: no request begins.
        if self in self.waiting and self._head_timer is None:
            self._start_head_timer()

    def on_message_begin(self) -> None:
        """Begin with a request's headers."""
        super().on_message_begin()
        put_caller(cast("dict[str, Any]", self.scope), self._caller)
        self._head_bytes, self._in_head = 0, True
        if self._head_timer is None:
            self._start_head_timer()

    def on_url(self, url: bytes) -> None:
        """Take some of the address."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._head_bytes += len(name) + len(value) + len(b": \r\n")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its headers are too long."""
        self._in_head = False
        self._stop_head_timer()
        if self._head_bytes > self.limits.header_bytes:
            self._refusal = self._too_long()
            raise ValueError("headers too long")  # the parser stops, and we are asked to answer
        self.waiting.pop(self, None)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.flow.write_paused:
            self._wait()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what the parser refused, as a problem, and hang up."""
        self._end(self._refusal or _MALFORMED)

    def pause_writing(self) -> None:
        """Give the caller its time to take what was written."""
        super().pause_writing()
        if self._answer_timer is None:
            self._watch_answer()

    def resume_writing(self) -> None:
        """Stop watching; the caller has caught up."""
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
        super().resume_writing()
        if self.cycle is not None and self.cycle.response_complete:
            self._wait()

    def _watch_answer(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._answer_timer = self.loop.call_later(
            self.limits.answer_seconds, self._check_answer, left
        )

    def _check_answer(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() >= _LEAST_TAKEN:
            self._watch_answer()
            return
        log.info("connection_ended", why="the caller does not take its answer")
        self.transport.abort()

    def _wait(self) -> None:
        self.waiting.pop(self, None)
        self.waiting[self] = None

    def _make_room(self) -> bool:
        """End the connection that has waited longest; say whether there was one."""
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        del self.waiting[oldest]
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    def _start_head_timer(self) -> None:
        if self.transport.is_closing():
            return
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._end(
                Refusal(
                    408,
                    "Request Timeout",
                    "too-slow",
                    f"No whole request came within {self.limits.header_seconds:g} s.",
                    "Send address and headers in one go.",
                )
            )

    def _check_head(self) -> None:
        if self._head_bytes > self.limits.header_bytes and not self.transport.is_closing():
            self._end(self._too_long())

    def _too_long(self) -> Refusal:
        return Refusal(
            431,
            "Request Header Fields Too Large",
            "headers-too-large",
            f"Address, query and headers have more than {self.limits.header_bytes} bytes together.",
            "Send less in them; data belongs into the body.",
        )

    def _end(self, refusal: Refusal) -> None:
        """Answer and hang up; not into the answer of a request that is at work."""
        log.info("connection_ended", status=refusal.status, why=refusal.detail)
        self._wait()  # until what was written is taken
        self._stop_head_timer()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(refusal.answer())
        self.transport.close()


def guarded(limits: LimitSettings) -> type[asyncio.Protocol]:
    """Return the protocol of one server with these limits."""
    members: dict[str, Any] = {"limits": limits, "waiting": {}}
    return cast("type[asyncio.Protocol]", type("Protocol", (GuardedProtocol,), members))
