"""The routes under `/v1`: keys come before bodies, and JSON has a limited depth."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from app.core.errors import BadRequest
from app.http.authentication import authenticate
from app.http.solving import Solver

MOST_DEPTH = 32


class Route(APIRoute):
    """A route that FastAPI reads no body for before the key is known to be valid.

    FastAPI reads a declared JSON body before any dependency: whoever has no key could hold
    connections with bodies that come slowly, and have ours parse what they like.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            await authenticate(request)
            return await answer(_Request(request.scope, request.receive))

        return handle


class DirectRoute(Route):
    """A route for a line that waits: it answers by its endpoint, which returns the response.

    The endpoint takes what `Solver` can give it, its principal first; so it reads the body itself,
    after the key is known to be valid. FastAPI describes it, and is not asked again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._solver = Solver(self.dependant)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response: Response = await self._solver.answer(Request(scope, receive, send))
        await response(scope, receive, send)


class _Request(Request):
    """A request whose JSON is not nested deeper than anything that is asked for here."""

    async def json(self) -> Any:
        """Return the parsed body.

        Raises:
            BadRequest: nested too deeply.
            ValueError: not JSON.
        """
        try:
            value = await super().json()
        except RecursionError:
            raise _too_deep() from None
        check_depth(value)
        return value


def check_depth(value: Any) -> None:
    """Raise `BadRequest` for parsed JSON that is nested deeper than `MOST_DEPTH`."""
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _too_deep() -> BadRequest:
    return BadRequest(
        f"The JSON is nested deeper than {MOST_DEPTH} levels.",
        fix="Send what /docs shows for this address.",
        field="body",
    )
