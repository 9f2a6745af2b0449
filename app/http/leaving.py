"""Callers that leave before they have their answer.

ASGI tells of them whoever waits for the next message of a body that is read: a task for each
caller, which costs half as much as its decision. The connection itself knows without being asked.
"""

from collections.abc import Callable

from starlette.types import Scope

_KEY = "shotline.caller"


class Caller:
    """Whoever is at the other end of a connection; used on the event loop alone.

    Attributes:
        gone: whether the connection was lost.
    """

    def __init__(self) -> None:
        self.gone = False
        self._stops: set[Callable[[], None]] = set()

    def wait_for(self, stop: Callable[[], None]) -> None:
        """Call `stop` when the caller leaves, at once where it has."""
        if self.gone:
            stop()
        self._stops.add(stop)

    def forget(self, stop: Callable[[], None]) -> None:
        """Call `stop` no more."""
        self._stops.discard(stop)

    def leave(self) -> None:
        """Note that the connection was lost."""
        self.gone = True
        for stop in tuple(self._stops):
            stop()


def put_caller(scope: Scope, caller: Caller) -> None:
    """Note in a request's scope who asks."""
    scope[_KEY] = caller


def caller_of(scope: Scope) -> Caller:
    """Return who asks; one that never leaves where the server is not ours."""
    found: Caller | None = scope.get(_KEY)
    return Caller() if found is None else found
