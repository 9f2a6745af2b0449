"""`Solver` against FastAPI itself: the same answers, and the same errors in the same order."""

from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from app.http.routing import DirectRoute
from app.http.solving import Solver

THING = "/things/01a20b61-3c4d-7e5f-8a9b-0c1d2e3f4a5b"


async def counted(request: Request) -> int:
    request.state.calls = getattr(request.state, "calls", 0) + 1
    return int(request.state.calls)


async def said(
    count: Annotated[int, Depends(counted)],
    top: Annotated[int | None, Query(ge=1, le=9)] = None,
    form: Annotated[Literal["json", "text"], Query()] = "json",
    part_id: Annotated[str | None, Header()] = None,
) -> list[Any]:
    return [count, top, form, part_id]


async def answer(
    thing: UUID,
    request: Request,
    key: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    call: Annotated[list[Any], Depends(said)],
    count: Annotated[int, Depends(counted)],
) -> JSONResponse:
    shown = None if key is None else key.credentials
    return JSONResponse([str(thing), request.method, shown, call, count])


def client_of(route: type[APIRoute]) -> TestClient:
    app, router = FastAPI(), APIRouter(route_class=route)
    router.add_api_route("/things/{thing}", answer, methods=["POST"], response_class=JSONResponse)
    app.include_router(router)

    @app.exception_handler(RequestValidationError)
    async def show(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse([[*one["loc"], one["msg"], one["type"]] for one in error.errors()], 422)

    return TestClient(app)


@pytest.fixture(scope="module")
def both() -> tuple[TestClient, TestClient]:
    return client_of(APIRoute), client_of(DirectRoute)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (THING, {}, 200),
        (f"{THING}?top=3&form=text", {"Part-Id": "7", "Authorization": "Bearer x"}, 200),
        (f"{THING}?top=2&top=3&more=1", {"Authorization": "Basic x"}, 200),
        (f"{THING}?top=", {}, 422),
        (f"{THING}?top=10&form=", {"Part-Id": ""}, 422),
        ("/things/7?form=Text", {}, 422),
    ],
)
def test_answers_as_fastapi_does(
    both: tuple[TestClient, TestClient], path: str, headers: dict[str, str], status: int
) -> None:
    theirs, ours = (client.post(path, headers=headers) for client in both)
    assert theirs.status_code == status
    assert (ours.status_code, ours.json()) == (status, theirs.json())


def test_another_method_is_refused_as_by_fastapi(both: tuple[TestClient, TestClient]) -> None:
    theirs, ours = (client.get(THING) for client in both)
    assert (ours.status_code, ours.headers["allow"]) == (405, theirs.headers["allow"])


def test_what_it_cannot_give_is_refused_at_the_start() -> None:
    def threaded(thing: UUID) -> JSONResponse:
        return JSONResponse(str(thing))

    async def needy(thing: UUID, top: int) -> JSONResponse:
        return JSONResponse([str(thing), top])

    for endpoint, problem in ((threaded, "no coroutine"), (needy, "requires a parameter")):
        with pytest.raises(TypeError, match=problem):
            Solver(APIRoute("/things/{thing}", endpoint).dependant)
