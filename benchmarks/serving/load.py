"""The load generator: a process of its own that shares the cores with what it measures.

So it imports the standard library alone, sends prebuilt bytes over kept connections and reads no
more of an answer than it has to. `python -m benchmarks.serving.load` reads a `Plan` as JSON from
standard input and writes what it saw as JSON to standard output, see `benchmarks.serving.client`.

Closed loop: so many clients, each of which sends its next request when the last is answered. Open
loop: requests at times fixed beforehand; a request's latency counts from the time at which it was
to be sent, so that waiting for a server that falls behind is counted.
"""

import asyncio
import json
import random
import selectors
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

# Below the 1024 descriptors that select(2) takes.
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
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            OSError, EOFError, ValueError: no answer, or one without a Content-Length.
        """
        kept = self._streams is not None
        try:
            return await self._ask(request)
        except (ConnectionError, EOFError):
            self.close()
            if not kept:
                raise
            return await self._ask(request)  # the server had closed an idle connection

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, found, after = head.partition(b"content-length:")
        if not found:
            raise ValueError("the answer has no Content-Length")
        body = await reader.readexactly(int(after[: after.index(b"\r")]))
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


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
        tasks = set()
        for due in arrival_times(self._plan):
            delay = begun + due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
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
    # epoll counts its timeouts in whole milliseconds, which open loops would be late by.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        begun = runner.run(generator.run())
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
