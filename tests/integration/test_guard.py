"""Connections that give nothing, take nothing or ask too much: on sockets, against our server."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from fastapi import FastAPI, Response
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from app.core.settings import LimitSettings
from app.http.routing import MOST_DEPTH
from tests.integration.listening import Answer, Line, listening
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for

HEAD = b"GET /livez HTTP/1.1\r\nHost: gateway\r\n"
# Longer than a machine under load stands still.
SECONDS = 2.0
CONNECTIONS = 8


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Nothing here asks the database."""
    kind: str = request.param
    return kind


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(
        header_seconds=SECONDS,
        answer_seconds=SECONDS,
        header_bytes=8192,
        connections=CONNECTIONS,
    )


@pytest.fixture
def address(app: FastAPI) -> Iterator[tuple[str, int]]:
    @app.get("/large")
    def large() -> Response:
        return Response(b"x" * (32 << 20))

    with listening(app) as address:
        yield address


def ask(address: tuple[str, int], data: bytes = HEAD + b"Connection: close\r\n\r\n") -> Answer:
    with Line(address) as line:
        line.send(data)
        return line.answer()


def assert_refused(answer: Answer, status: int, slug: str) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert "server" not in answer.headers
    problem = answer.json()
    assert problem["type"] == f"urn:shotline:problem:{slug}"
    assert problem["status"] == status
    assert problem["fix"]


def test_an_ordinary_request(address: tuple[str, int]) -> None:
    answer = ask(address)
    assert answer.status == 200
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "data",
    [b"", HEAD, HEAD + b"X-Half", b"\r\n", b"GET /livez"],
    ids=["nothing", "half of it", "half a header", "a line's end", "half a line"],
)
def test_a_head_that_does_not_come_is_ended(address: tuple[str, int], data: bytes) -> None:
    assert_refused(ask(address, data), 408, "too-slow")


def test_a_head_of_one_byte_at_a_time_is_ended(address: tuple[str, int]) -> None:
    """Each byte comes in time; the head as a whole does not."""
    with Line(address) as line:
        line.socket.settimeout(0.05)
        line.send(HEAD + b"X-Slow: ")
        received = b""
        give_up_at = time.monotonic() + 30
        while not received:
            assert time.monotonic() < give_up_at
            line.send(b"x")
            try:
                received = line.socket.recv(65536)
            except TimeoutError:
                continue
    assert received.startswith(b"HTTP/1.1 408 ")


def test_line_ends_do_not_keep_a_used_connection(address: tuple[str, int]) -> None:
    with Line(address) as line:
        line.send(HEAD + b"\r\n")
        assert line.socket.recv(65536).startswith(b"HTTP/1.1 200 ")
        line.send(b"\r\n\r\n")
        assert_refused(line.answer(), 408, "too-slow")


def test_a_body_that_nobody_reads_does_not_keep_a_connection(address: tuple[str, int]) -> None:
    """Without a key it is refused before its body came; what follows is not waited for."""
    with Line(address) as line:
        line.begin("/v1/projects", 1000, {"Content-Type": "application/json"})
        first = line.socket.recv(65536)
        assert first.startswith(b"HTTP/1.1 401 ")
        line.send(b"{")
        assert line.socket.recv(65536).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-Long: " + b"x" * 9000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(1200)) + b"\r\n",
        b"GET /livez?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: gateway\r\n\r\n",
        HEAD + b"X-Endless: " + b"x" * 2_000_000,
        b"GET /" + b"x" * 2_000_000,
    ],
    ids=["one header", "many", "the query", "a header without end", "an address without end"],
)
def test_a_head_that_is_too_long(address: tuple[str, int], head: bytes) -> None:
    with Line(address) as line:
        try:
            line.send(head)
            answer = line.answer()
        except ConnectionError:  # the gateway hung up while we wrote
            return
    assert_refused(answer, 431, "headers-too-large")


def test_a_head_as_long_as_allowed(address: tuple[str, int]) -> None:
    long = HEAD + b"X-Long: " + b"x" * 8000 + b"\r\nConnection: close\r\n\r\n"
    assert ask(address, long).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    ],
    ids=["TLS", "bytes in the address", "two lengths", "a length below nothing", "HTTP/9.9"],
)
def test_what_is_not_http(address: tuple[str, int], data: bytes) -> None:
    assert_refused(ask(address, data), 400, "bad-request")


def test_idle_connections_do_not_keep_the_line_out(address: tuple[str, int]) -> None:
    """More than there may be: those that wait longest make room, and no request is refused."""
    with ExitStack() as stack:
        idle = [stack.enter_context(Line(address)) for _ in range(3 * CONNECTIONS)]
        for line in idle[:CONNECTIONS]:
            line.socket.settimeout(10)
        for _ in range(5):
            assert ask(address).status == 200
        assert ended(idle[0].socket)


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(10) == b""
    except ConnectionResetError:
        return True


def test_connections_at_work_are_not_ended_for_others(
    app: FastAPI, address: tuple[str, int]
) -> None:
    with ExitStack() as stack:
        busy = [stack.enter_context(Line(address)) for _ in range(CONNECTIONS)]
        for line in busy:
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.send(b"GET /large HTTP/1.1\r\nHost: gateway\r\n\r\n")
        for line in busy:
            assert line.socket.recv(12) == b"HTTP/1.1 200"
        assert_refused(ask(address, b""), 503, "unavailable")
        assert all(line.socket.recv(10) for line in busy)


def test_an_answer_that_is_not_taken_is_given_up(address: tuple[str, int]) -> None:
    with Line(address) as line, capture_logs() as logs:
        line.send(b"GET /large HTTP/1.1\r\nHost: gateway\r\n\r\n")
        wait_for(
            lambda: any(entry["event"] == "connection_ended" for entry in logs),
            "the end of the connection",
        )
        took = 0
        with suppress(ConnectionResetError):
            while chunk := line.socket.recv(1 << 20):
                took += len(chunk)
    assert took < 32 << 20


def test_an_answer_that_is_taken_slowly_is_sent_whole(address: tuple[str, int]) -> None:
    """It takes longer than any window, and much is taken in each."""
    with Line(address) as line:
        line.send(b"GET /large HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        line.socket.settimeout(30)
        took, began = 0, time.monotonic()
        while chunk := line.socket.recv(1 << 20):
            took += len(chunk)
            if time.monotonic() - began < 1.5 * SECONDS:
                time.sleep(0.1)
    assert took > 32 << 20


@pytest.mark.parametrize("depth", [MOST_DEPTH + 1, 900, 100_000])
@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}")])
def test_json_that_is_nested_too_deeply(
    client: TestClient, depth: int, opens: str, closes: str
) -> None:
    body = f'{{"name": {opens * depth}1{closes * depth}}}'
    answer = client.post("/v1/projects", content=body, headers={"content-type": "application/json"})
    assert_problem(answer, 400, "bad-request", names=f"{MOST_DEPTH} levels", field="body")


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/projects", "/v1/models/x/predict"])
def test_whoever_has_no_key_has_no_body_read(anonymous: TestClient, path: str) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    answer = anonymous.post(path, content=body(), headers={"content-type": "application/json"})
    assert_problem(answer, 401, "unauthenticated")


def test_deep_json_in_a_prediction(client: TestClient) -> None:
    project = client.post("/v1/projects", json={"name": "deep"}).json()["id"]
    body = '{"image":' + "[" * 100_000 + "]" * 100_000 + "}"
    kind = {"content-type": "application/json"}
    answer = client.post(f"/v1/projects/{project}/predict", content=body, headers=kind)
    assert answer.status_code == 409, json.dumps(answer.json())
