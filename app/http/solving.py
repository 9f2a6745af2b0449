"""Dependencies of a route worked out once, where a line waits for the answer.

FastAPI looks at every dependency and parameter anew with each request; of a prediction that took
more than all of its own work in the gateway.
"""

from collections.abc import Awaitable, Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError

# What dependencies returned to this request: each is called once.
_Known = dict[Callable[..., Any], Any]
_Validate = Callable[..., tuple[Any, list[dict[str, Any]]]]


class _Parameter(NamedTuple):
    """A parameter of an address, a query or a header.

    Attributes:
        argument: what the function calls it.
        place: `path`, `query` or `header`, as errors name it.
        key: what the request calls it.
        default: where the request does not say.
        validate: as FastAPI does, from a value and where it stands to a value and errors.
    """

    argument: str
    place: str
    key: str
    default: Any
    validate: _Validate


class Solver:
    """Calls a function with what the request says, as FastAPI would.

    Args:
        dependant: what FastAPI found that the function takes: coroutines, the request, and
            parameters of which only those of the path are required.
    """

    def __init__(self, dependant: Dependant) -> None:
        self._call = _coroutine(dependant)
        self._inner = [(inner.name, Solver(inner)) for inner in dependant.dependencies]
        self._request = dependant.request_param_name or dependant.http_connection_param_name
        self._parameters = [
            _Parameter(field.name, place, field.alias, field.default, field.validate)
            for place, fields in (
                ("path", dependant.path_params),
                ("query", dependant.query_params),
                ("header", dependant.header_params),
            )
            for field in fields
        ]

    async def answer(self, request: Request) -> Any:
        """Return what the function does.

        Raises:
            RequestValidationError: parameters are not what they are declared to be.
        """
        errors: list[dict[str, Any]] = []
        answer = await self._solve(request, {}, errors)
        if errors:
            raise RequestValidationError(errors)
        return answer

    async def _solve(self, request: Request, known: _Known, errors: list[dict[str, Any]]) -> Any:
        """Return what the function does; None where that is not known, for `errors` with it."""
        if self._call in known:
            return known[self._call]
        before = len(errors)
        arguments: dict[str, Any] = {}
        for name, inner in self._inner:
            found = await inner._solve(request, known, errors)
            if name is not None:
                arguments[name] = found
        if self._parameters:
            said = {
                "path": request.path_params,
                "query": request.query_params,
                "header": dict(reversed(request.headers.items())),  # the first of equal names
            }
            for parameter in self._parameters:
                values = said[parameter.place]
                arguments[parameter.argument] = _read(parameter, values, errors)
        if len(errors) > before:
            return None
        if self._request is not None:
            arguments[self._request] = request
        found = known[self._call] = await self._call(**arguments)
        return found


def _read(parameter: _Parameter, values: Mapping[str, Any], errors: list[dict[str, Any]]) -> Any:
    given = values.get(parameter.key)
    if given is None:
        return parameter.default
    value, wrong = parameter.validate(given, loc=(parameter.place, parameter.key))
    errors += wrong
    return value


def _coroutine(dependant: Dependant) -> Callable[..., Awaitable[Any]]:
    """Return what is called; it must need neither a thread, nor an end, nor a body."""
    call = dependant.call
    if call is None or not (iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)):
        raise TypeError(f"{call!r} is no coroutine.")
    asked = [*dependant.query_params, *dependant.header_params]
    if (
        dependant.body_params
        or dependant.cookie_params
        or any(one.field_info.is_required() for one in asked)
    ):
        raise TypeError(f"{call!r} takes a body or a cookie, or requires a parameter.")
    return call
