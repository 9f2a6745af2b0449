"""The load generator, its process included, against a small server of our own."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.serving.client import Load, send
from benchmarks.serving.load import Connection, Plan, arrival_times


@dataclass
class Small:
    """Answers each request by `status` and a prediction; counts what it got."""

    status: int = 200
    close: bool = False
    length: bool = True
    port: int = 0
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                self.requests.append((head, body))
                writer.write(self.answer())
                await writer.drain()
                self.at_once -= 1
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self) -> bytes:
        body = json.dumps(
            {
                "model": {"digest": "sha256:1"},
                "label": "b",
                "probability": 0.75,
                "probabilities": [{"label": "b"}, {"label": "a"}],
                "timings_ms": {"decode": 1.0},
            }
        ).encode()
        said = f"Content-Length: {len(body)}\r\n" if self.length else ""
        return f"HTTP/1.1 {self.status} Said\r\n{said}\r\n".encode() + body


@contextmanager
def serving(small: Small) -> Iterator[Small]:
    """Run it in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(small.handle, "127.0.0.1", 0)

    async def stop() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    small.port = server.sockets[0].getsockname()[1]
    try:
        yield small
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def bodies(tmp_path: Path) -> list[str]:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"image" + bytes([number]))
    return [str(tmp_path / f"{number}.jpg") for number in range(3)]


def test_a_closed_loop_keeps_its_connections_and_its_number_of_clients(bodies: list[str]) -> None:
    with serving(Small()) as small:
        headers = {"Authorization": "Bearer key"}
        plan = Plan(small.port, ["/a"], bodies, headers=headers, concurrency=4, seconds=0.2)
        seen = send(plan)

    assert small.connections == 4
    assert small.most_at_once <= 4
    assert len(seen.samples) == len(small.requests) >= 4
    assert {body for _, body in small.requests} == {b"image\0", b"image\1", b"image\2"}
    assert all(head.startswith("POST /a HTTP/1.1\r\n") for head, _ in small.requests)
    assert all("Authorization: Bearer key\r\n" in head for head, _ in small.requests)
    assert seen.failures == 0
    assert seen.throughput > 0
    assert len(seen.counted) < len(seen.samples)  # the warm-up is left out


def test_an_open_loop_sends_every_arrival_and_counts_from_when_it_was_due(
    bodies: list[str],
) -> None:
    with serving(Small()) as small:
        plan = Plan(
            small.port, ["/a", "/b"], bodies, mode="open", rate=200, warmup=0.1, seconds=0.4
        )
        seen = send(plan)

    due = arrival_times(plan)
    assert len(due) == 99
    assert sorted(sample.due - seen.begun for sample in seen.samples) == pytest.approx(due)
    assert all(sample.sent >= sample.due for sample in seen.samples)
    assert all(sample.done > sample.sent for sample in seen.samples)
    assert {sample.path for sample in seen.samples} == {0, 1}
    assert {head.split()[1] for head, _ in small.requests} == {"/a", "/b"}


def test_poisson_arrivals_come_at_their_rate_and_again_with_their_seed() -> None:
    plan = Plan(1, [], [], mode="open", rate=100, arrivals="poisson", warmup=0, seconds=100)
    times = arrival_times(plan)

    assert times == arrival_times(plan)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    # An exponential's standard deviation is its mean.
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(
        mean, rel=0.05
    )


def test_answers_are_collected_beside_their_requests(bodies: list[str]) -> None:
    with serving(Small()) as small:
        plan = Plan(small.port, ["/a"], bodies, seconds=0.1, warmup=0.0, collect=True)
        seen = Load(plan).result()

    assert len(seen.answers) == len(seen.samples) > 0
    assert seen.answers[0] == {
        "digest": "sha256:1",
        "label": "b",
        "probability": 0.75,
        "labels": ["a", "b"],
        "timings_ms": {"decode": 1.0},
    }


def test_refusals_are_counted_and_not_read(bodies: list[str]) -> None:
    with serving(Small(status=503)) as small:
        plan = Plan(small.port, ["/a"], bodies, seconds=0.1, warmup=0.0, collect=True)
        seen = send(plan)

    assert seen.failures == len(seen.samples) == len(seen.with_status(503)) > 0
    assert seen.throughput == 0
    assert set(seen.answers) == {None}


def test_a_request_without_an_answer_has_the_status_0(
    bodies: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(Small(length=False)) as small:
        seen = send(Plan(small.port, ["/a"], bodies, seconds=0.05, warmup=0.0))

    assert {sample.status for sample in seen.samples} == {0}
    assert "no Content-Length" in capfd.readouterr().err


def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    request = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"

    async def ask_twice(port: int) -> list[int]:
        connection = Connection(port)
        found = [(await connection.ask(request))[0] for _ in range(2)]
        connection.close()
        return found

    with serving(Small(close=True)) as small:
        assert asyncio.run(ask_twice(small.port)) == [200, 200]

    assert small.connections == 2


def test_a_plan_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    load = Load(Plan(1, ["/a"], [str(tmp_path / "absent.jpg")]))

    with pytest.raises(RuntimeError, match="ended with 1"):
        load.result()
