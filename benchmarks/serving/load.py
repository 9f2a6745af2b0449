"""The load generator: a process of its own that shares the cores with what it measures.

So it imports the standard library and uvloop alone, sends prebuilt bytes over kept connections and
reads no more of an answer than it has to. `python -m benchmarks.serving.load` reads a `Plan` as
JSON from standard input and writes what it saw as JSON to standard output, see
`benchmarks.serving.client`.

Closed loop: so many clients, each of which sends its next request when the last is answered. Open
loop: requests at times fixed beforehand; a request's latency counts from the time at which it was
to be sent, so that waiting for a server that falls behind is counted.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import uvloop

# Fewer than the descriptors that a process may have where nobody has set a limit.
_CONNECTIONS = 900
_DRAIN_SECONDS = 20.0
_REQUEST_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        port: on 127.0.0.1.
        paths: one is drawn for each request.
        bodies: files, taken in turn.
        content_type: of the bodies.
        headers: of each request.
        mode: see the module.
        concurrency: clients of a closed loop.
        rate: requests a second of an open loop.
        arrivals: evenly spaced, or of a Poisson process.
        warmup: seconds that are not counted, before `seconds` that are.
        seed: of the drawn paths and the arrivals.
        collect: whether answers are read as predictions, and kept.
    """

    port: int
    paths: Sequence[str]
    bodies: Sequence[str]
    content_type: str = "image/jpeg"
    headers: dict[str, str] | None = None
    mode: Literal["closed", "open"] = "closed"
    concurrency: int = 1
    rate: float = 1.0
    arrivals: Literal["fixed", "poisson"] = "fixed"
    warmup: float = 1.0
    seconds: float = 5.0
    seed: int = 0
    collect: bool = False

    def as_json(self) -> bytes:
        """Return what the process reads."""
        return json.dumps(asdict(self)).encode()


def arrival_times(plan: Plan) -> list[float]:
    """Return when the requests of an open loop are due, in seconds from its start."""
    source, end = random.Random(plan.seed), plan.warmup + plan.seconds  # noqa: S311 - no secret
    times: list[float] = []
    now = 0.0
    while True:
        gap = source.expovariate(plan.rate) if plan.arrivals == "poisson" else 1 / plan.rate
        now += gap
        if now >= end:
            return times
        times.append(now)


class Connection:
    """A kept connection: one request at a time, opened anew where the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wire: _Wire | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            OSError, EOFError, ValueError: no answer, or one without a Content-Length.
        """
        kept = self._wire is not None
        try:
            return await self._ask(request)
        except (ConnectionError, EOFError):
            self.close()
            if not kept:
                raise
            return await self._ask(request)  # the server had closed an idle connection

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._wire is None:
            loop = asyncio.get_running_loop()
            _, self._wire = await loop.create_connection(_Wire, "127.0.0.1", self._port)
        answer = await self._wire.ask(request)
        if self._wire.last:
            self.close()
        return answer

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class _Wire(asyncio.Protocol):
    """What a connection is while it is open; much cheaper than asyncio's streams.

    Attributes:
        last: whether the server said that it answers no more.
    """

    last = False

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._seen, self._lost = b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body; see `Connection.ask`."""
        if self._lost:
            raise EOFError("the server closed the connection")
        self._seen, self._answer = b"", asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Read some of an answer, most often all of it."""
        self._seen += data
        head, ended, body = self._seen.partition(b"\r\n\r\n")
        if not ended:
            return
        head = head.lower() + b"\r"
        _, found, after = head.partition(b"content-length:")
        if not found:
            self._end(ValueError("the answer has no Content-Length"))
        elif len(body) >= int(after[: after.index(b"\r")]):
            self.last = b"connection: close" in head
            self._end((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """End, with the answer or without it."""
        self._lost = True
        self._end(exc or EOFError("the server closed the connection"))

    def _end(self, answer: tuple[int, bytes] | Exception) -> None:
        if self._answer is None or self._answer.done():
            return
        if isinstance(answer, Exception):
            self._answer.set_exception(answer)
        else:
            self._answer.set_result(answer)

    def close(self) -> None:
        """Close it."""
        self._transport.close()


class _Alarm:
    """Waits until a time, to the microsecond: epoll counts whole milliseconds."""

    def __init__(self) -> None:
        self._woken: asyncio.Future[None] | None = None
        asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, self._wake)

    async def wait_until(self, moment: float) -> None:
        """Return at `moment`, of `time.monotonic`."""
        while (delay := moment - time.monotonic()) > 0:
            self._woken = asyncio.get_running_loop().create_future()
            signal.setitimer(signal.ITIMER_REAL, delay)
            await self._woken

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class Generator:
    """Sends what a plan says and notes a row for each request.

    A row is: due, sent, done (of `time.monotonic`), status (0 for no answer), path, body.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._heads, self._tails = _heads(plan), _tails(plan)
        self._draw = random.Random(plan.seed)  # noqa: S311 - no secret
        self._idle: list[Connection] = []
        self._opened, self._sent = 0, 0
        self._queue: deque[asyncio.Future[Connection]] = deque()
        self.rows: list[tuple[float, float, float, int, int, int]] = []
        self.answers: list[dict[str, Any] | None] = []

    async def run(self) -> float:
        """Send everything, bounded in time; return when it began."""
        begun = time.monotonic()
        await (self._closed(begun) if self._plan.mode == "closed" else self._open(begun))
        for connection in self._idle:
            connection.close()
        return begun

    async def _closed(self, begun: float) -> None:
        end = begun + self._plan.warmup + self._plan.seconds
        clients = [self._client(end) for _ in range(self._plan.concurrency)]
        await asyncio.gather(*clients)

    async def _client(self, end: float) -> None:
        connection = Connection(self._plan.port)
        while (now := time.monotonic()) < end:
            await self._request(connection, now)
        self._idle.append(connection)

    async def _open(self, begun: float) -> None:
        tasks, alarm = set(), _Alarm()
        for due in arrival_times(self._plan):
            await alarm.wait_until(begun + due)
            task = asyncio.create_task(self._arrive(begun + due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_DRAIN_SECONDS)
            for task in late:
                task.cancel()

    async def _arrive(self, due: float) -> None:
        connection = await self._connection()
        await self._request(connection, due)
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return
        self._idle.append(connection)

    async def _connection(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        if self._opened < _CONNECTIONS:
            self._opened += 1
            return Connection(self._plan.port)
        waiting: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._queue.append(waiting)
        return await waiting

    async def _request(self, connection: Connection, due: float) -> None:
        path = self._draw.randrange(len(self._heads)) if len(self._heads) > 1 else 0
        body = self._sent % len(self._tails)
        self._sent += 1
        sent, status, answer = time.monotonic(), 0, b""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                status, answer = await connection.ask(self._heads[path] + self._tails[body])
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            connection.close()
            print(f"no answer: {error!r}", file=sys.stderr)
        self.rows.append((due, sent, time.monotonic(), status, path, body))
        if self._plan.collect:
            self.answers.append(_prediction(answer) if status == 200 else None)


def _heads(plan: Plan) -> list[bytes]:
    common = "".join(f"{name}: {value}\r\n" for name, value in (plan.headers or {}).items())
    rest = f" HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n{common}"
    return [
        f"POST {path}{rest}Content-Type: {plan.content_type}\r\n".encode() for path in plan.paths
    ]


def _tails(plan: Plan) -> list[bytes]:
    bodies = [Path(name).read_bytes() for name in plan.bodies]
    return [f"Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


def _prediction(answer: bytes) -> dict[str, Any]:
    read = json.loads(answer)
    return {
        "digest": read["model"]["digest"],
        "label": read["label"],
        "probability": read["probability"],
        "labels": sorted(entry["label"] for entry in read["probabilities"]),
        "timings_ms": read["timings_ms"],
    }


def main() -> None:
    """Read a plan, send it, write what was seen."""
    generator = Generator(Plan(**json.load(sys.stdin)))
    begun = uvloop.run(generator.run())
    json.dump(
        {
            "begun": begun,
            "rows": generator.rows,
            "answers": generator.answers,
            "cpu_seconds": time.process_time(),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
