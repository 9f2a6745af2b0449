"""Every error as RFC 9457 problem+json. The only place where HTTP statuses are chosen."""

import json
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.core import errors
from models import errors as core

MEDIA_TYPE = "application/problem+json"
_LEFT = 499  # nginx's status for a caller who left before the answer
_SHOWN = 100
_MOST_FIELDS = 20


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHOWN


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["limit"])
    detail: str = Field(examples=["limit is '0': Input should be greater than or equal to 1."])


class Problem(BaseModel):
    """RFC 9457 problem details, with the field at fault and the fix."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:shotline:problem:not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no project '…' that this API key may see."])
    fix: str = Field(examples=["Check the project, or list those there are."])
    field: str | None = Field(None, description="The input at fault.", examples=["project"])
    errors: list[FieldProblem] | None = Field(
        None, description="One entry for each field, where several are at fault."
    )
    results: list[dict[str, Any]] | None = Field(
        None, description="Of an upload: the verdict on each file, as where some can be used."
    )
    gates: dict[str, Any] | None = Field(
        None, description="Of a promotion: what stands in the way, as `GET …/models/{model}/gates`."
    )
    request_id: str | None = Field(None, description="Names this request in the logs.")


class Kind(NamedTuple):
    """How one kind of error is answered; `fix` is an example of one."""

    status: int
    slug: str
    title: str
    fix: str


KINDS: Mapping[type[core.ShotlineError], Kind] = {
    core.ShotlineError: Kind(
        500,
        "internal",
        "Internal error",
        "Try again; if it stays so, report the request_id and the gateway's log.",
    ),
    core.BadInput: Kind(
        422, "bad-input", "Bad input", "Correct the field; /docs says what it takes."
    ),
    core.BadImage: Kind(
        422,
        "bad-image",
        "Not a usable image",
        "Send the file again, or save it anew as PNG or JPEG.",
    ),
    core.BadName: Kind(422, "bad-name", "Not a usable name", "Use printable characters only."),
    core.BadDataset: Kind(
        422,
        "bad-dataset",
        "Cannot be tuned on",
        "Upload images of at least two parts for each class.",
    ),
    core.BadRecipe: Kind(
        422, "bad-recipe", "Not a usable recipe", "Give a value within the range."
    ),
    core.BadView: Kind(
        422,
        "bad-view",
        "Not a usable view",
        "Give the region in fractions of the image, from 0 to 1.",
    ),
    errors.BadRequest: Kind(
        400,
        "bad-request",
        "Bad request",
        "Let your HTTP client build the body and its Content-Type.",
    ),
    errors.BadUpload: Kind(
        422,
        "bad-upload",
        "Nothing usable in the upload",
        "See results for each file's reason; correct the files and send them again.",
    ),
    errors.BadReference: Kind(
        422, "bad-reference", "Unknown name", "Use a class that the project has, or add it first."
    ),
    errors.Unauthenticated: Kind(
        401,
        "unauthenticated",
        "API key missing or not valid",
        "Send the header 'Authorization: Bearer sl_…'.",
    ),
    errors.TooManyFailures: Kind(
        429,
        "too-many-failures",
        "Too many wrong API keys",
        "Correct the key; wait the seconds in Retry-After before another one is tried.",
    ),
    errors.Forbidden: Kind(
        403,
        "forbidden",
        "Not allowed for this API key",
        "Use a key with the role that this needs; an admin can make one.",
    ),
    errors.NotFound: Kind(404, "not-found", "Not found", "Check the id, or list those there are."),
    errors.MethodNotAllowed: Kind(
        405,
        "method-not-allowed",
        "Method not allowed",
        "See the Allow header for what the address takes.",
    ),
    errors.Conflict: Kind(
        409,
        "conflict",
        "Not possible now",
        "Wait until the present state allows it, then try again.",
    ),
    errors.Duplicate: Kind(
        409, "duplicate", "Already there", "Choose another name, or use what is there."
    ),
    errors.Frozen: Kind(
        409,
        "frozen",
        "Can no longer be changed",
        "Make a new project where the list of classes has to change.",
    ),
    errors.ProjectFrozen: Kind(
        423,
        "project-frozen",
        "Changes are stopped",
        "Have an admin lift the freeze: DELETE …/freeze. Predictions and rollbacks go on.",
    ),
    errors.GatesNotPassed: Kind(
        409,
        "gates",
        "Gates not passed",
        "See the version's gates; try again when they are done, or have an admin override them.",
    ),
    core.Refused: Kind(409, "refused", "Refused", "Use what belongs together."),
    core.ArtifactMismatch: Kind(
        409,
        "artifact-mismatch",
        "Artifact does not fit",
        "Set SHOTLINE_BACKBONE_SOURCE to the backbone it was tuned for, or tune again.",
    ),
    core.DamagedArtifact: Kind(
        500, "damaged", "Damaged", "Restore it from a backup, or tune again."
    ),
    core.BackboneUnavailable: Kind(
        503,
        "backbone-unavailable",
        "Backbone not available",
        "Put the backbone on this machine, or choose another.",
    ),
    core.Cancelled: Kind(409, "cancelled", "Cancelled", "Start it again when you want its result."),
    errors.TooLarge: Kind(413, "too-large", "Too large", "Send less at a time."),
    errors.TooSlow: Kind(
        408, "too-slow", "Body too slow", "Send the body without pauses, or less at a time."
    ),
    errors.UnsupportedType: Kind(
        415,
        "unsupported-type",
        "Content type not supported",
        "Send one of the content types that the address names.",
    ),
    errors.Damaged: Kind(500, "damaged", "Damaged", "Restore it from a backup; check the disk."),
    errors.Unavailable: Kind(
        503, "unavailable", "Not available now", "Try again after the seconds in Retry-After."
    ),
    errors.DeadlinePassed: Kind(
        504,
        "deadline-passed",
        "Deadline passed",
        "Allow more time with deadline_ms, or send fewer images at a time.",
    ),
    core.StorageFull: Kind(
        507, "storage-full", "Storage full", "Free space on the disk, then try again."
    ),
}


def kind_of(error: core.ShotlineError) -> Kind:
    """Return how `error` is answered: by its class, else by the nearest above it."""
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def problem_of(error: core.ShotlineError) -> dict[str, Any]:
    """Return `error` as problem details, without what is not known."""
    kind = kind_of(error)
    problem: dict[str, Any] = {
        "type": f"urn:shotline:problem:{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.problem,
        "fix": error.fix,
    }
    if error.field is not None:
        problem["field"] = error.field
    if isinstance(error, errors.BadUpload) and error.results:
        problem["results"] = error.results
    if isinstance(error, errors.GatesNotPassed):
        problem["gates"] = error.gates
    return problem


def problem_response(
    error: core.ShotlineError,
    request_id: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """Return the answer to `error`."""
    problem = problem_of(error) | dict(extra or {})
    if request_id is not None:
        problem["request_id"] = request_id
    headers = {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="shotline"'
    if isinstance(error, errors.Unavailable | errors.TooManyFailures):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return Response(encode(problem), problem["status"], headers, MEDIA_TYPE)


def encode(value: object) -> bytes:
    """Return JSON in UTF-8; lone surrogates, which UTF-8 cannot carry, stay escaped."""
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def install_problems(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Answer every error of `app` with problem+json; unforeseen ones are met in the middleware."""
    app.state.api_routes = [
        route for router in routers for route in router.routes if isinstance(route, APIRoute)
    ]
    app.add_exception_handler(core.ShotlineError, _on_shotline_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(OSError, _on_os_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


async def _on_shotline_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, core.ShotlineError)  # noqa: S101 - what it was registered for
    return problem_response(error, request_id(request))


async def _on_os_error(request: Request, error: Exception) -> Response:
    full = isinstance(error, OSError) and error.errno in core.DISK_FULL
    if not full:
        raise error
    return problem_response(
        core.StorageFull(
            "The gateway's disk is full.", fix="Free space on it, then send this again."
        ),
        request_id(request),
    )


async def _on_disconnect(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Answer nobody; the log and the metrics show the status."""
    return Response(status_code=_LEFT)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it was registered for
    if isinstance(error.__cause__, core.ShotlineError):  # FastAPI wraps what reading a body raises
        return problem_response(error.__cause__, request_id(request))
    response = problem_response(_from_http(request, error), request_id(request))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """Return every method that the address takes; each route alone knows only its own."""
    routes: list[APIRoute] = request.app.state.api_routes
    found = (route for route in routes if route.path_regex.match(request.url.path))
    return {method for route in found for method in route.methods or ()}


def _from_http(request: Request, error: HTTPException) -> core.ShotlineError:
    path = request.url.path
    if error.status_code == 404:
        return errors.NotFound(
            f"There is nothing at {path[:_SHOWN]!r}.", fix="See /docs for the addresses there are."
        )
    if error.status_code == 405:
        return errors.MethodNotAllowed(
            f"{path[:_SHOWN]!r} does not take {request.method}.",
            fix="See the Allow header for what it takes.",
        )
    return errors.BadRequest(
        f"The request cannot be read: {error.detail}.", fix="See /docs for what is expected."
    )


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it was registered for
    found = [_field_problem(entry) for entry in error.errors()[:_MOST_FIELDS]]
    first = found[0]
    problem = core.BadInput(
        first["detail"],
        fix=f"Correct {first['field']}; /docs says what it takes.",
        field=first["field"],
    )
    extra = {"errors": found} if len(found) > 1 else None
    return problem_response(problem, request_id(request), extra)


def _field_problem(entry: Mapping[str, Any]) -> dict[str, str]:
    field = _field_name(entry["loc"])
    if entry["type"] == "missing":
        return {"field": field, "detail": f"{field} is missing."}
    if entry["type"] == "json_invalid":
        return {"field": "body", "detail": f"The body is not JSON: {entry['ctx']['error']}."}
    given = _shown(entry.get("input"))
    return {"field": field, "detail": f"{field} is {given}: {entry['msg']}."}


def _field_name(location: Sequence[object]) -> str:
    names = [str(part) for part in location[1:]] or [str(part) for part in location]
    return ".".join(names)


def _shown(value: object) -> str:
    """Return what was given, short enough for a sentence."""
    # Never written out whole: it may be a body of a hundred megabytes.
    shown = repr(value[:_SHOWN]) if isinstance(value, str) else _SHORT.repr(value)
    return shown if len(shown) < _SHOWN else shown[:_SHOWN] + "…"


def request_id(request: Request) -> str | None:
    """Return the id that the middleware gave this request."""
    found: str | None = request.scope.get("request_id")
    return found


def responses(*kinds: type[core.ShotlineError]) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's `responses` for errors that a route may answer with."""
    found: dict[int | str, dict[str, Any]] = {}
    for cls in kinds:
        kind = KINDS[cls]
        example = {
            "type": f"urn:shotline:problem:{kind.slug}",
            "title": kind.title,
            "status": kind.status,
            "detail": (cls.__doc__ or kind.title).splitlines()[0],
            "fix": kind.fix,
        }
        answer = found.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {},
                    }
                },
            },
        )
        answer["content"][MEDIA_TYPE]["examples"][kind.slug] = {"value": example}
    return found
