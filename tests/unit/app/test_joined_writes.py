"""What is written in one turn of the event loop leaves in one go."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from app.http.protocol import JoiningTransport


class Wire:
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def writelines(self, data: Iterable[bytes]) -> None:
        self.sent.append(b"".join(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def joining(wire: Wire) -> Any:
    loop = asyncio.get_running_loop()
    return JoiningTransport(cast("asyncio.Transport", wire), loop)


async def turn() -> None:
    await asyncio.sleep(0)


def test_head_and_body_leave_together_at_the_end_of_the_turn() -> None:
    async def answer() -> None:
        wire = Wire()
        transport = joining(wire)
        transport.write(b"head")
        transport.write(b"body")
        assert wire.sent == []
        await turn()
        assert wire.sent == [b"headbody"]
        transport.write(b"next")
        await turn()
        assert wire.sent == [b"headbody", b"next"]

    asyncio.run(answer())


def test_what_is_much_leaves_at_once_behind_what_was_held() -> None:
    async def answer() -> None:
        wire, large = Wire(), b"x" * 100_000
        transport = joining(wire)
        transport.write(b"head")
        transport.write(large)
        assert wire.sent == [b"head" + large]
        await turn()
        assert wire.sent == [b"head" + large]

    asyncio.run(answer())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_end_sends_what_is_held(end: str) -> None:
    async def answer() -> None:
        wire = Wire()
        transport = joining(wire)
        transport.write(b"the end")
        getattr(transport, end)()
        assert (wire.sent, wire.closed) == ([b"the end"], True)
        assert transport.is_closing()
        await turn()
        assert wire.sent == [b"the end"]

    asyncio.run(answer())
