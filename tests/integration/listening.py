"""A gateway under uvicorn on the loopback address, in this process, and sockets to it."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI

from app.core.settings import Settings
from app.http.server import server_config
from tests.integration.services import wait_for


@contextmanager
def listening(app: FastAPI) -> Iterator[tuple[str, int]]:
    """Run `app` as `shotline serve` does; yield where it listens."""
    settings: Settings = app.state.gateway.settings
    server = uvicorn.Server(server_config(app, settings, host="127.0.0.1", port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "uvicorn")
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Line:
    """A connection on which a request is written byte by byte."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=60)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(self, path: str, length: int, headers: Mapping[str, str]) -> None:
        """Send a POST's head."""
        said = {"Host": "gateway", "Content-Length": str(length)} | dict(headers)
        head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        self.socket.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())

    def send(self, data: bytes) -> None:
        """Send some of the body."""
        self.socket.sendall(data)

    def answer(self) -> Answer:
        """Return the answer, once the gateway has closed the connection.

        What is sent to a closed connection is answered by a reset, after what was still to be read.
        """
        data = b""
        with suppress(ConnectionResetError):
            while chunk := self.socket.recv(65536):
                data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        return Answer(int(first.split()[1]), headers, body)
